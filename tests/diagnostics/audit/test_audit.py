import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspec import Spectra
from skspec.base import CorrelatedLabelsWarning
from skspec.datasets import synthesize
from skspec.diagnostics import SyntheticGradients, audit_labels
from skspec.diagnostics.audit._leakage import error_slopes
from skspec.diagnostics.audit._swap import swap_chances
from skspec.forward import TheCannon
from skspec.preprocessing import BadPixelMasker

NAMES = ["teff", "logg", "feh"]


class Reader(RegressorMixin, BaseEstimator):
    """Its predictions are the first pixels: every outcome of a test can be planted."""

    def predict(self, X):
        return np.asarray(X.flux)[:, :3]


def predictions(error, y, **parts):
    """Spectra from which a `Reader` reads labels with these errors."""
    return Spectra(np.column_stack([y + error, np.ones(len(y))]), **parts)


def read(error, y, *, tests, meta=None, **options):
    X = predictions(error, y, meta=meta)
    return audit_labels(Reader(), X, y, tests=tests, refit=False, **options)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labels(rng):
    return pd.DataFrame(rng.normal(size=(400, 3)) * [500, 0.5, 0.3] + [5000, 3, 0], columns=NAMES)


def toy(labels, rng, noise=0.05, n_pixels=40, lines=None):
    """Spectra in which every label has a gradient, of standardised labels."""
    z = (labels - labels.mean()).to_numpy() / labels.std().to_numpy()
    J = np.random.default_rng(5).normal(size=(z.shape[1], n_pixels)) if lines is None else lines
    flux = 1 + 0.1 * z @ J + noise * rng.normal(size=(len(z), J.shape[1]))
    wavelength = np.linspace(5100, 5120, J.shape[1])
    return Spectra(flux, ivar=np.full(flux.shape, noise**-2), wavelength=wavelength)


# -- slopes of errors ------------------------------------------------------------------------------


def test_slopes_and_their_errors(rng):
    planted = np.array([[-0.1, 0.3, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, -0.4]])
    found, claimed = [], []
    for _ in range(200):
        truth = rng.normal(size=(100, 3)) @ [[1, 0.6, 0], [0, 0.8, 0], [0, 0, 1]]
        noise = rng.normal(size=(100, 3)) * (0.2 + 0.3 * np.abs(truth[:, :1]))  # unequal
        slope, std = error_slopes(
            truth @ (np.eye(3) + planted).T + noise, truth, np.zeros((100, 3)), np.ones(3)
        )
        found.append(slope)
        claimed.append(std)
    assert_allclose(np.mean(found, axis=0), planted, atol=0.02)
    assert_allclose(np.mean(claimed, axis=0), np.std(found, axis=0), rtol=0.2)


def test_errors_of_labels_do_not_leak(rng):
    """An exact model, judged by labels with errors that go together: conditional slopes stay 0."""
    truth = rng.normal(size=(20_000, 2)) @ [[1, 0.8], [0, 0.6]]
    noise = np.broadcast_to([0.4, 0.1], truth.shape)
    given = truth + noise * rng.normal(size=truth.shape)
    naive = error_slopes(truth, given, np.zeros(truth.shape), np.ones(2))[0]
    slope, std = error_slopes(truth, given, noise, np.ones(2))
    assert np.abs(naive).max() > 0.2
    assert np.all(np.abs(slope) < 4 * std) and np.all(std < 0.05)


def test_planted_leak_is_named(labels, rng):
    error = rng.normal(size=(400, 3)) * [50, 0.05, 0.03]
    clean = read(error, labels, tests=["leakage"])
    assert clean["leakage"].flag is False and clean.passed
    error[:, 2] += 0.3 * 0.3 * (labels["logg"] - 3) / 0.5
    audit = read(error, labels, tests=["leakage"])
    assert audit["leakage"].flag is True and not audit.passed
    assert "feh follows logg" in audit["leakage"].why and "+0.29" in audit["leakage"].why
    table = audit["leakage"].table
    assert table[["label", "on"]][table["flag"]].to_numpy().tolist() == [["feh", "logg"]]
    assert audit.leakage.loc["feh", "logg"] == pytest.approx(0.3, abs=0.03)
    assert audit.leakage_std.loc["feh", "logg"] < 0.02
    assert "1 flagged, 0 passed" in str(audit) and "FLAG  Leakage" in str(audit)


def test_a_small_but_certain_leak_is_no_flag(labels):
    error = np.zeros((400, 3))
    error[:, 0] = 0.07 * 500 * (labels["logg"] - 3) / 0.5
    assert read(error, labels, tests=["leakage"])["leakage"].flag is False


def test_locked_labels_cannot_tell_but_a_decorrelated_set_can(labels, rng):
    locked = labels.assign(logg=3 + (labels["teff"] - 5000) / 1000 + 0.01 * rng.normal(size=400))
    error = rng.normal(size=(400, 3)) * [50, 0.05, 0.03]
    alone = read(error, locked, tests=["leakage"])["leakage"]
    assert alone.flag is None and "independent" in alone.why
    leaky = error.copy()
    leaky[:, 1] += 0.4 * 0.5 * (labels["teff"] - 5000) / 500
    shuffled = labels[NAMES[::-1]]  # columns are found by name
    for errors, flag in ((error, False), (leaky, True)):
        other = predictions(errors, labels), shuffled
        assert read(error, locked, tests=["leakage"], decorrelated=other)["leakage"].flag is flag


def test_exactly_locked_labels(labels):
    locked = labels.assign(logg=labels["teff"] / 1000)
    audit = read(np.zeros((400, 3)), locked, tests=["leakage", "correlation"])
    assert audit["leakage"].flag is None and audit["correlation"].flag is True
    assert audit.leakage.isna().all(axis=None)


# -- the other tests, one by one -------------------------------------------------------------------


def test_region(labels, rng):
    spectra = toy(labels, rng)
    good = audit_labels(LinearRegression(), spectra, labels, tests=["region"])["region"]
    assert good.flag is False and len(good.table) == 6
    assert np.all(good.table["bias"].abs() < good.table["error"])
    lazy = audit_labels(KNeighborsRegressor(3), spectra, labels, tests=["region"])["region"]
    assert lazy.flag is True and "left out of the training" in lazy.why
    high = lazy.table.set_index(["label", "end"]).loc[("teff", "high")]
    assert high["edge"] == pytest.approx(labels["teff"].quantile(0.85), rel=0.01)
    assert high["bias"] < high["cv_bias"] < 0


def test_region_without_ends(labels, rng):
    same = labels * 0 + [5000, 3, 0]
    audit = audit_labels(DummyRegressor(), toy(labels, rng), same, tests=["region"])
    assert audit["region"].flag is None


class TestLines:
    """Labels of which the third has lines of its own in the first ten pixels."""

    inside = np.arange(40) < 10

    @pytest.fixture
    def lines(self):
        lines = np.random.default_rng(7).normal(size=(3, 40))
        lines[2, ~self.inside] = 0
        return lines

    def test_information_within_lines(self, labels, lines, rng, make_linear):
        jacobian = lines.T
        X, flux = toy(labels, rng, lines=lines), lines.T
        model = make_linear(jacobian[:, :2])
        model.jacobian, model.scatter_, model.label_names_in_ = flux, np.zeros(40), NAMES
        model.jacobian_, model.flux_0_, model.n_features_in_ = flux, np.ones(40), 40
        found = audit_labels(
            model,
            X,
            labels,
            tests=["attribution"],
            refit=False,
            line_windows={"feh": self.inside, "teff": self.inside},
            reference=model,
        )["attribution"]
        table = found.table.set_index("label")
        assert table["share"]["feh"] == pytest.approx(1)
        expected = np.sum(lines[0, :10] ** 2) / np.sum(lines[0] ** 2)
        assert table["share"]["teff"] == pytest.approx(expected)
        assert_allclose(table["reference"], 1)
        assert table["flag"].to_dict() == {"teff": True, "logg": False, "feh": False}
        assert "teff comes from its own lines, 25 % of the pixels" in found.why

    def test_gradients_against_the_theory(self):
        wavelength = np.geomspace(5150, 5250, 80)
        theory = SyntheticGradients(["teff", "logg", "feh"], wavelength)
        X, y = synthetic(120, 3, wavelength=wavelength)
        y = y.rename(columns={"alpha_m": "logg"})[NAMES]  # a wrong name: a wrong gradient
        y["logg"] = 3 + y["logg"]
        found = audit_labels(TheCannon(1), X, y, tests=["attribution"], reference=theory)
        table = found["attribution"].table.set_index("label")["reference"]
        assert table["teff"] > 0.8 and table["feh"] > 0.8 and table["logg"] < 0.5
        assert "gradient of logg" in found["attribution"].why

    def test_noise_of_a_regression(self, labels, lines, rng):
        X = toy(labels, rng, lines=lines)
        found = audit_labels(
            Ridge(), X, labels, tests=["attribution"], line_windows={"feh": [(5100, 5104.7)]}
        )["attribution"]
        coef = Ridge().fit(X, labels).coef_[2]
        assert found.flag is None and "no gradients" in found.why
        share = found.table.set_index("label")["share"]
        assert share["feh"] == pytest.approx(np.sum(coef[:10] ** 2) / np.sum(coef**2), rel=1e-6)

    def test_null_line(self, labels, lines, rng):
        windows = {"feh": self.inside}
        free = audit_labels(
            Ridge(0.1),
            toy(labels, rng, lines=lines),
            labels,
            tests=["null_line"],
            line_windows=windows,
        )["null_line"]
        assert free.flag is False
        assert free.table["without_over_spread"][0] > 0.9 > 0.3 > free.table["error"][0] / 0.3
        locked = labels.assign(
            feh=0.3 * (labels["teff"] - 5000) / 500 + 0.03 * rng.normal(size=400)
        )
        X = toy(locked, rng, lines=lines)
        found = audit_labels(Ridge(0.1), X, locked, tests=["null_line"], line_windows=windows)
        assert found["null_line"].flag is True and "is inferred" in found["null_line"].why

    def test_null_line_of_an_exactly_locked_label(self, labels, lines, rng):
        locked = labels.assign(feh=(labels["teff"] - 5000) / 2000)
        X = toy(locked, rng, lines=lines)
        found = audit_labels(
            Ridge(0.1), X, locked, tests=["null_line"], line_windows={"feh": self.inside}
        )["null_line"]
        assert found.flag is True and "but no star tells it from the other labels" in found.why

    def test_lines_that_the_windows_miss(self, labels, rng):
        """Known without the windows, because other lines measure it: no flag."""
        found = audit_labels(
            Ridge(0.1),
            toy(labels, rng),
            labels,
            tests=["null_line"],
            line_windows={"feh": self.inside},
        )["null_line"]
        assert found.flag is False and "they miss lines" in found.why
        assert found.table["without_over_spread"][0] < 0.5 < found.table["own_slope"][0]

    def test_a_wrong_gradient_within_the_right_lines(self, labels, lines, rng):
        class Theory:
            def flux_jacobian(self, labels):
                wrong = lines * [[1], [1], [-1]] * np.where(np.arange(40) % 2, 1, [[1], [1], [-1]])
                return np.broadcast_to(wrong.T, (len(labels), 40, 3))

        found = audit_labels(
            TheCannon(1),
            toy(labels, rng, lines=lines),
            labels,
            tests=["attribution"],
            line_windows={"feh": self.inside},
            reference=Theory(),
        )["attribution"]
        assert found.flag is True and found.table["share"][2] > 0.9
        assert "the gradient of feh has" in found.why

    @pytest.mark.parametrize("value", [0.0, 0.1])
    def test_a_constant_label_is_not_judged(self, labels, lines, rng, value):
        """It is known to 0 % of a spread that it does not have, which is no flag."""
        X, constant = toy(labels, rng, lines=lines), labels.assign(feh=value)
        audit = audit_labels(Ridge(), X, constant, line_windows={"feh": self.inside})
        assert audit.passed and audit["null_line"].flag is None is audit["attribution"].flag
        assert "nothing reaches" in audit["attribution"].why
        known = audit.leakage.notna().to_numpy()
        assert_array_equal(known, np.outer([True, True, False], [True, True, False]))
        assert "feh" not in audit["attenuation"].table["label"].to_list()

    def test_untestable_without_lines(self, labels, rng):
        audit = audit_labels(Ridge(), toy(labels, rng), labels, tests=["attribution", "null_line"])
        assert audit.flags.tolist() == [None, None]
        assert audit.passed and "give line_windows" in audit["null_line"].why


class TestSwap:
    def pair(self, rho, n=600):
        rng = np.random.default_rng(1)
        z = rng.normal(size=(n, 3)) @ np.linalg.cholesky([[1, rho, 0], [rho, 1, 0], [0, 0, 1]]).T
        return pd.DataFrame(z, columns=NAMES)

    @pytest.mark.parametrize("rho", [0.8, -0.8])
    def test_chances(self, rho):
        y = self.pair(rho).to_numpy()
        chances = swap_chances(y[:, :2], np.corrcoef(y[:, :2].T)[0, 1])
        kept = np.random.default_rng(0).random(600) < chances
        assert kept.sum() > 50
        assert np.corrcoef(y[kept, :2].T)[0, 1] * np.sign(rho) < 0.05
        assert np.all(y[kept, :2].std(axis=0) > 0.4)
        assert swap_chances(self.pair(0.999).to_numpy()[:, :2], 0.999) is None

    def test_a_label_that_is_not_in_the_spectra(self):
        y = self.pair(0.8, n=3000)
        lines = np.random.default_rng(7).normal(size=(3, 40))
        seen = toy(y, np.random.default_rng(2), lines=lines)
        audit = audit_labels(LinearRegression(), seen, y, tests=["swap"])["swap"]
        assert audit.flag is False and audit.table["rho_swapped"][0] < 0
        lines[1] = 0
        hidden = toy(y, np.random.default_rng(2), lines=lines)
        audit = audit_labels(LinearRegression(), hidden, y, tests=["swap"])["swap"]
        assert audit.flag is True and "logg moves" in audit.why
        assert audit.table["label"][audit.table["flag"]].tolist() == ["logg"]

    def test_few_stars_with_many_spectra(self):
        y = self.pair(0.6, n=240)
        X = toy(y, np.random.default_rng(2)).replace(meta={"star_id": np.repeat([0, 1, 2], 80)})
        audit = audit_labels(LinearRegression(), X, y, tests=["swap"])["swap"]
        assert audit.flag is None and (audit.table["n"] > 0).all()

    def test_locked_and_independent(self, labels, rng):
        locked = labels.assign(logg=labels["teff"] / 1000 + 1e-3 * rng.normal(size=400))
        model, X = LinearRegression(), toy(labels, rng)
        assert audit_labels(model, X, locked, tests=["swap"])["swap"].flag is None
        assert audit_labels(model, X, labels, tests=["swap"])["swap"].flag is False


def test_nuisances(labels, rng):
    error = rng.normal(size=(400, 3)) * [50, 0.05, 0.03]
    airmass, fibre = rng.uniform(1, 2, 400), rng.integers(0, 300, 400)
    meta = {
        "airmass": airmass,
        "star_id": np.arange(400),
        "field": ["a"] * 400,
        "same": np.ones(400),
    }
    clean = read(error, labels, tests=["nuisance"], meta=meta, nuisances={"fibre": fibre})
    assert clean["nuisance"].flag is False
    assert set(clean["nuisance"].table["nuisance"]) == {"airmass", "fibre"}
    error[:, 1] += 0.06 * (airmass - 1.5)
    found = read(error, labels, tests=["nuisance"], meta=meta)["nuisance"]
    assert found.flag is True and "error of logg goes with airmass" in found.why
    assert found.table["flag"].sum() == 1
    assert read(error, labels, tests=["nuisance"])["nuisance"].flag is None


def test_many_nuisances_are_not_many_chances(labels, rng):
    error = rng.normal(size=(400, 3)) * [50, 0.05, 0.03]
    many = {f"n{i}": rng.normal(size=400) for i in range(25)}
    assert read(error, labels, tests=["nuisance"], nuisances=many)["nuisance"].flag is False


def test_attenuation_by_snr(labels, rng):
    snr = np.exp(rng.uniform(np.log(21), np.log(290), 400))
    error = rng.normal(size=(400, 3)) * [50, 0.05, 0.03]
    meta = {"snr": snr}
    clean = read(error, labels, tests=["attenuation"], meta=meta)["attenuation"]
    assert clean.flag is False and set(clean.table["snr"]) == {
        "20-60",
        "60-100",
        "100-200",
        "200-300",
    }
    error[:, 1] -= np.where(snr < 60, 0.4, 0.02) * (labels["logg"] - 3)
    found = read(error, labels, tests=["attenuation"], meta=meta)["attenuation"]
    assert found.flag is True and "range of logg at S/N 20-60" in found.why
    flagged = found.table[found.table["flag"]]
    assert flagged["label"].tolist() == ["logg"]
    assert flagged["slope"].iloc[0] == pytest.approx(0.6, abs=0.05)


def test_errors_of_labels_do_not_attenuate(labels, rng):
    noise = np.array([300, 0.05, 0.03])
    given = labels + noise * rng.normal(size=(400, 3))
    error = labels - given
    options = {"tests": ["attenuation"]}
    assert read(error, given, **options)["attenuation"].flag is True
    found = read(error, given, label_noise=noise, **options)["attenuation"]
    assert found.flag is False
    assert_allclose(found.table["slope"], 1, atol=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_correlated_labels(labels, rng, sign):
    y = labels.assign(logg=sign * labels["teff"] / 1000 + 0.05 * rng.normal(size=400))
    found = read(np.zeros((400, 3)), y, tests=["correlation"])["correlation"]
    assert (
        found.flag is True and f"teff and logg (rho = {'+' if sign > 0 else '-'}0.99)" in found.why
    )
    assert found.table["flag"].sum() == 1


# -- the whole -------------------------------------------------------------------------------------


def synthetic(n, seed, planted=False, wavelength=None):
    """Stars of known labels; planted: [alpha/M] is a function of [Fe/H], but for 0.03 dex."""
    rng = np.random.default_rng(seed)
    y = pd.DataFrame(
        {
            "teff": rng.uniform(4500, 6000, n),
            "feh": rng.uniform(-1.2, 0.3, n),
            "alpha_m": rng.uniform(-0.1, 0.4, n),
        }
    )
    if planted:
        y["alpha_m"] = 0.15 - (y["feh"] + 0.45) / 3 + 0.03 * rng.normal(size=n)
    wavelength = np.geomspace(5140, 5240, 80) if wavelength is None else wavelength
    flux = synthesize(y, wavelength)
    sigma = np.sqrt(flux) / 100
    flux = flux + sigma * rng.normal(size=flux.shape)
    meta = {"resolution": 5000.0, "airmass": rng.uniform(1, 2, n)}
    return Spectra(flux, ivar=1 / sigma**2, wavelength=wavelength, meta=meta), y


def test_a_planted_correlation_is_flagged_and_a_decorrelated_set_passes():
    other = synthetic(220, 1)
    X, y = synthetic(220, 2, planted=True)
    with pytest.warns(CorrelatedLabelsWarning, match="feh and alpha_m: -0.9"):
        TheCannon().fit(X, y)
    planted = audit_labels(TheCannon(), X, y, decorrelated=other)
    assert planted.flags[["leakage", "null_line", "correlation"]].all()
    assert planted["swap"].flag is None  # no star breaks the correlation
    assert "alpha_m follows feh" in planted["leakage"].why
    clean = audit_labels(TheCannon(), *synthetic(220, 3), decorrelated=other)
    assert clean.passed and not clean.flags.isna().any(), str(clean)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_stars_of_one_sequence_are_flagged_and_a_decorrelated_set_passes(seed):
    """Giants along one relation of log g with Teff, and anywhere."""

    def giants(seed, planted=False):
        rng = np.random.default_rng(seed)
        y = pd.DataFrame(
            {
                "teff": rng.uniform(4300, 5300, 400),
                "logg": rng.uniform(1.5, 3.7, 400),
                "feh": rng.uniform(-1, 0.3, 400),
            }
        )
        if planted:
            y["logg"] = 2.6 + (y["teff"] - 4800) / 480 + 0.1 * rng.normal(size=400)
        wavelength = np.geomspace(5100, 5300, 300)
        flux = synthesize(y, wavelength)
        sigma = np.sqrt(flux) / 100
        flux = flux + sigma * rng.normal(size=flux.shape)
        return Spectra(flux, ivar=1 / sigma**2, wavelength=wavelength), y

    other = giants(seed + 100)
    planted = audit_labels(TheCannon(), *giants(seed, True), decorrelated=other)
    assert planted["leakage"].flag and planted["correlation"].flag
    worst = planted.leakage.where(~np.eye(3, dtype=bool)).abs().to_numpy()
    assert np.nanmax(worst) > 0.3
    assert audit_labels(TheCannon(), *giants(seed + 200), decorrelated=other).passed


def test_without_refits(labels, rng):
    X = toy(labels, rng)
    model = LinearRegression().fit(X, labels)
    fresh = toy(labels, np.random.default_rng(9))
    audit = audit_labels(model, fresh, labels, refit=False)
    for name in ("region", "null_line", "swap"):
        assert audit[name].flag is None and "refit=False" in audit[name].why
    assert audit["leakage"].flag is False and audit["attenuation"].flag is False


@pytest.mark.slow
def test_workers_change_nothing(labels, rng):
    X = toy(labels, rng)
    tests = ["region", "leakage", "swap"]
    one, two = (
        audit_labels(TheCannon(1), X[:150], labels[:150], tests=tests, n_jobs=n) for n in (1, 2)
    )
    assert str(one) == str(two)
    for name in tests:
        pd.testing.assert_frame_equal(one[name].table, two[name].table)


def test_pipelines_and_plain_arrays(labels, rng):
    X = toy(labels, rng)
    tests = ["region", "leakage", "swap", "attenuation"]
    model = make_pipeline(BadPixelMasker(), TheCannon(1))
    assert audit_labels(model, X[:150], labels[:150], tests=["leakage"]).passed
    plain = audit_labels(
        make_pipeline(StandardScaler(), Ridge()), X.flux, labels.to_numpy()[:, 0], tests=tests
    )
    assert plain.label_names == ["label_0"] and plain.passed
    assert plain["leakage"].flag is None
    assert plain.leakage.shape == (1, 1)


def test_spectra_of_a_star_stay_together(labels, rng):
    """A memory of the training stars would be right if it had seen the other spectrum of the star."""
    X, y = toy(labels[:50], rng, noise=1e-6), labels[:50]
    rows = np.tile(np.arange(50), 2)
    twice = X[rows].replace(meta={"star_id": rows})
    audit = audit_labels(KNeighborsRegressor(1), twice, y.iloc[rows], tests=["attenuation"])
    assert np.all(audit["attenuation"].table["std"] > 0.01)
    alone = audit_labels(
        KNeighborsRegressor(1), twice.replace(meta={}), y.iloc[rows], tests=["attenuation"]
    )
    assert np.any(alone["attenuation"].table["slope"] > audit["attenuation"].table["slope"] + 0.05)


def test_spectra_of_a_star_that_err_together_are_no_flag():
    """Taken one by one, ten spectra of each of 50 stars would raise flags in every fourth set."""
    tests, flags = ["leakage", "nuisance", "attenuation"], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = pd.DataFrame(np.repeat(rng.normal(size=(50, 3)), 10, axis=0), columns=NAMES)
        error = np.repeat(0.6 * rng.normal(size=(50, 3)), 10, axis=0)
        error += 0.1 * rng.normal(size=error.shape)
        meta = {"star_id": np.arange(500) // 10, "rv": np.repeat(rng.normal(size=50), 10)}
        flags += read(error, y, tests=tests, meta=meta).flags.to_list().count(True)
    assert flags <= 3
    error += 0.5 * y[["logg", "teff", "feh"]].to_numpy()
    assert read(error, y, tests=["leakage"], meta=meta)["leakage"].flag


def test_nothing_is_modified(labels, rng):
    X = toy(labels, rng)
    flux, ivar, y = X.flux.copy(), X.ivar.copy(), labels.copy()
    windows = {"feh": np.arange(40) < 10}
    audit_labels(Ridge(), X, labels, line_windows=windows)
    assert_array_equal(X.flux, flux)
    assert_array_equal(X.ivar, ivar)
    pd.testing.assert_frame_equal(labels, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tests": ["leak"]}, "There is no test 'leak'; there are region, leakage"),
        ({"label_noise": np.ones(5)}, "label_noise has shape"),
        ({"label_noise": [1, 1, np.nan]}, "label_noise holds negative, NaN"),
        ({"label_noise": -1.0}, "label_noise holds negative, NaN"),
        ({"line_windows": {"mg": [(5100, 5110)]}}, "line_windows names"),
        ({"line_windows": {"feh": [(6100, 6110)]}}, "No pixel lies in line_windows"),
        ({"line_windows": {"feh": np.ones(3, bool)}}, "the spectra have 40 pixels"),
        ({"nuisances": {"fibre": np.ones(3)}}, "one number for each of 400 stars"),
        ({"snr": np.ones(3)}, "snr of shape"),
        ({"decorrelated": (np.ones((5, 40)), np.ones((5, 2)))}, "one column for each of teff"),
        ({"decorrelated": (np.ones((5, 40)), np.full((5, 3), np.nan))}, "decorrelated hold NaN"),
    ],
)
def test_bad_arguments(labels, rng, options, message):
    with pytest.raises(ValueError, match=message):
        audit_labels(Ridge(), toy(labels, rng), labels, **options)


def test_labels_in_another_order(labels, rng):
    X = toy(labels, rng)
    theory = SyntheticGradients(["logg", "teff", "feh"], X.wavelength)
    with pytest.raises(ValueError, match="y are teff, logg, feh, those of reference logg, teff"):
        audit_labels(Ridge(), X, labels, reference=theory, tests=["attribution"])
    with pytest.raises(ValueError, match="y are feh, teff, logg, those of model teff, logg, feh"):
        model = TheCannon(1).fit(X, labels)
        audit_labels(model, X, labels[["feh", "teff", "logg"]], refit=False, tests=["leakage"])


def test_bad_labels(labels, rng):
    X = toy(labels, rng)
    with pytest.raises(ValueError, match="400 spectra, but 30 rows"):
        audit_labels(Ridge(), X, labels[:30])
    with pytest.raises(ValueError, match="at least 20 stars"):
        audit_labels(Ridge(), X[:10], labels[:10])
    with pytest.raises(ValueError, match="NaN"):
        audit_labels(Ridge(), X, labels.mask(labels == labels.iloc[3, 1]))
