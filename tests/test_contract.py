"""Laws that every regressor keeps. A new one is a line of REGRESSORS."""

import pickle
import warnings

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra, domain_score, predict_dist
from skspec.augmentation import ContinuumJitter
from skspec.base import CorrelatedLabelsWarning, MissingUncertaintyWarning
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.discriminative import KernelPCARegressor, SpectralCNN
from skspec.ensemble import AugmentedRegressor, ConsensusRegressor, DeepEnsembleRegressor
from skspec.forward import (
    SLAM,
    CorrectedModel,
    FewStarsWarning,
    ForwardModel,
    FullSpectrumFit,
    SpectralGP,
    TemplateMatch,
    TheCannon,
    ThePayne,
)
from skspec.latent import BetaVAE
from skspec.metrics import (
    coverage_error_scorer,
    neg_crps_scorer,
    neg_log_likelihood_scorer,
)
from skspec.preprocessing import ContinuumNormalizer

#: the regressors under the law, quick settings, and a grid for a search over each
REGRESSORS = {
    "TheCannon linear": (TheCannon(1), {"scatter": ["ml", "reml"]}),
    "TheCannon quadratic": (TheCannon(), {"degree": [1, 2]}),
    "SLAM": (SLAM(C=2, gamma=0.25, cv=3), {"C": [0.5, 2.0]}),
    "SLAM per pixel": (SLAM(C=[0.5, 4], epsilon=[0.05, 0.1], cv=3), {"gamma": [None, 0.2]}),
    "SpectralGP": (SpectralGP(), {"mean_degree": [0, 1]}),
    "SpectralGP quadratic": (SpectralGP(2), {"max_search": [20, 500]}),
    "ThePayne": (
        ThePayne((16,), max_iter=60, random_state=0),
        {"hidden_layer_sizes": [(8,), (16,)]},
    ),
    "ThePayne folds": (
        ThePayne((12,), learning_rate_init=0.02, max_iter=40, cv=3, random_state=0),
        {"criterion": ["l1", "l2"]},
    ),
    "FullSpectrumFit": (
        FullSpectrumFit(TheCannon(), continuum_degree=1, fit_rv=False),
        {"rounds": [1, 2]},
    ),
    "CorrectedModel": (CorrectedModel(TheCannon(1)), {"n_copies": [1, 2]}),
    "TheCannon, continuum free": (TheCannon(continuum_degree=1), {"continuum_degree": [0, 1]}),
    "TheCannon, coherent errors": (TheCannon(1, coherence=0.1), {"coherence": [0.1, 0.5]}),
    "TheCannon, label prior": (
        TheCannon(1, label_prior="training"),
        {"label_prior": ["flat", "training"]},
    ),
    "TemplateMatch": (TemplateMatch(), {"n_best": [20, 30]}),
    "KernelPCARegressor": (KernelPCARegressor(gamma=0.5, cv=3), {"gamma": [0.25, 1.0]}),
    "ConsensusRegressor": (
        ConsensusRegressor(
            [(f"kpca{g}", KernelPCARegressor(gamma=g, scale_pixels=False, cv=3)) for g in (1, 4)],
            cv=4,
        ),
        {"kpca4__gamma": [2.0, 4.0]},
    ),
    "SpectralCNN": (
        SpectralCNN(
            "strided",
            architecture_params={"n_filters": (), "hidden": (24, 16)},
            max_iter=30,
            batch_size=16,
            learning_rate_init=0.01,
            random_state=0,
        ),
        {"covariance": ["diagonal", "full"]},
    ),
    "BetaVAE": (
        BetaVAE(
            6,
            architecture="dense",
            architecture_params={"hidden": (24,)},
            max_iter=20,
            batch_size=16,
            learning_rate_init=0.01,
            random_state=0,
        ),
        {"beta": [0.5, 1.0]},
    ),
    "AugmentedRegressor": (
        AugmentedRegressor(TheCannon(1), ContinuumJitter(0.01, degree=0), 1, random_state=0),
        {"keep": [False, True]},
    ),
    "ResidualCovarianceRegressor": (ResidualCovarianceRegressor(cv=3), {"robust": [False, True]}),
    "CalibratedRegressor": (
        CalibratedRegressor(TheCannon(1), cv=3),
        {"method": ["scale", "conformal"]},
    ),
    "DeepEnsembleRegressor": (
        DeepEnsembleRegressor(
            ResidualCovarianceRegressor(cv=3), 3, max_samples=0.95, random_state=0
        ),
        {"max_samples": [0.5, 0.95]},
    ),
}
FORWARD = [name for name, (model, _) in REGRESSORS.items() if isinstance(model, ForwardModel)]
PARALLEL = [name for name, (model, _) in REGRESSORS.items() if hasattr(model, "n_jobs")]
DOMAIN = [name for name, (model, _) in REGRESSORS.items() if hasattr(model, "domain_score")]

#: their laws take longest, and hardly differ from those of others: with the slow tests
SLOW = (
    "SpectralGP quadratic",
    "ThePayne folds",
    "ConsensusRegressor",
    "BetaVAE",
    "AugmentedRegressor",
    "CorrectedModel",
)


def each(names):
    marked = (pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names)
    return pytest.mark.parametrize("name", list(marked))


every_regressor, every_forward_model = each(REGRESSORS), each(FORWARD)


def new(name, **parameters):
    return clone(REGRESSORS[name][0]).set_params(**parameters)


def in_sigma(dist, other):
    """Largest difference of the means in units of the error bars."""
    return np.max(np.abs(dist.mean() - other.mean()) / dist.std())


def assert_same(dist, other, *, sigma=1e-4, rtol=1e-3):
    """Equal but for rounding and the tolerance of the solvers."""
    assert in_sigma(dist, other) < sigma
    assert_allclose(dist.std(), other.std(), rtol=rtol)
    assert_allclose(dist.corr(), other.corr(), atol=rtol)


@pytest.fixture(scope="module")
def train(draw_stars):
    return draw_stars(70, bad=0.03)


@pytest.fixture(scope="module")
def test(draw_stars):
    return draw_stars(20, bad=0.03, seed=1)


@pytest.fixture(scope="module")
def fitted(train):
    """Every regressor, fitted once on `train` when first asked for; tests must not refit them."""

    class Fitted(dict):
        def __missing__(self, name):
            self[name] = new(name).fit(*train)
            return self[name]

    return Fitted()


# -- scikit-learn's own checks, no excuse ----------------------------------------------------------


# one of the checks has 11 stars and 5 labels: too few for the default degree, which is said
@pytest.mark.filterwarnings("ignore::skspec.forward.FewStarsWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([model for name, (model, _) in REGRESSORS.items() if name not in SLOW])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skspec.forward.FewStarsWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([REGRESSORS[name][0] for name in SLOW])
def test_sklearn_checks_that_take_long(estimator, check):
    check(estimator)


# -- pixels and their errors -----------------------------------------------------------------------


@every_regressor
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_masked_pixel_changes_nothing_whatever_its_flux(name, dtype, train, test):
    found = []
    for garbage in (1.0, np.nan, np.inf, 1e30, -1e30):
        spoilt = []
        for spectra in (train[0], test[0]):
            flux = np.where(spectra.ivar == 0, garbage, spectra.flux).astype(dtype)
            spoilt.append(spectra.replace(flux=flux, ivar=spectra.ivar.astype(dtype)))
        found.append(new(name).fit(spoilt[0], train[1]).predict_dist(spoilt[1]))
    assert np.isfinite(found[0].mean()).all()
    for other in found[1:]:
        assert_same(found[0], other, sigma=1e-6, rtol=1e-6)


@every_regressor
def test_a_masked_pixel_without_known_errors(name, draw_stars):
    spectra, labels = draw_stars(70, errors=None, bad=0.03)
    assert not spectra.has_errors
    assert (spectra.ivar == 0).any()
    first, second = (
        new(name).fit(s, labels).predict_dist(s)
        for s in (spectra, spectra.replace(flux=np.where(spectra.good, spectra.flux, 1e9)))
    )
    assert_same(first, second, sigma=1e-6, rtol=1e-6)


@every_regressor
def test_dead_pixels_are_as_good_as_dropped(name, train, test):
    dead = np.random.default_rng(3).random(train[0].shape[1]) < 0.3
    assert 8 < dead.sum() < 25
    masked, kept = [], []
    for spectra in (train[0], test[0]):
        ivar = np.where(dead, 0.0, spectra.ivar)
        masked.append(spectra.replace(ivar=ivar, flux=np.where(dead, 1e6, spectra.flux)))
        kept.append(spectra[:, ~dead])
    first = new(name).fit(masked[0], train[1]).predict_dist(masked[1])
    second = new(name).fit(kept[0], train[1]).predict_dist(kept[1])
    assert_same(first, second)


@every_regressor
def test_dead_at_predict_only(name, fitted, test):
    """Pixels known at fit but bad at predict: finite labels, whatever the flux, wider errors."""
    spectra = test[0]
    dead = np.arange(spectra.shape[1]) % 3 == 0
    ivar = np.where(dead, 0.0, spectra.ivar)
    whole = fitted[name].predict_dist(spectra)
    one, two = (
        fitted[name].predict_dist(spectra.replace(flux=np.where(dead, v, spectra.flux), ivar=ivar))
        for v in (0.0, 1e8)
    )
    assert_same(one, two, sigma=1e-6, rtol=1e-6)
    assert in_sigma(whole, one) < 5
    if name in FORWARD:
        assert np.median(one.std() / whole.std()) > 1


@every_regressor
def test_more_noise_never_narrows_an_interval(name, fitted, test):
    model = fitted[name]
    spectra, labels = test
    if name in FORWARD:  # at the same labels: the flux is the model's own
        flux = model.predict_flux(labels)
        spectra = spectra.replace(flux=np.where(spectra.good, flux, 0))
    last = model.predict_dist(spectra).std()
    rng = np.random.default_rng(0)
    for factor in (1.1, 2.0, 10.0, 100.0, rng.uniform(100, 300, spectra.shape), np.inf):
        ivar = spectra.ivar / np.square(factor)
        std = model.predict_dist(spectra.replace(ivar=ivar)).std()
        assert np.all(std >= last * (1 - 1e-6))
        last = std
    assert np.isinf(last).all()
    if name in FORWARD:
        narrow, wide = (
            model.invert(spectra.replace(ivar=spectra.ivar / f)).formal_dist.std() for f in (1, 25)
        )
        assert np.all(wide > 1.3 * narrow)


@every_forward_model
def test_one_noisier_pixel_never_narrows_an_interval(name, fitted, test):
    model = fitted[name]
    spectra = test[0].replace(flux=model.predict_flux(test[1]))
    before = model.invert(spectra).formal_dist.std()
    for pixel in range(0, spectra.shape[1], 7):
        ivar = spectra.ivar.copy()
        ivar[:, pixel] /= 4
        after = model.invert(spectra.replace(ivar=ivar)).formal_dist.std()
        assert np.all(after >= before * (1 - 1e-3))  # the minimum is found to 1e-3 sigma
        assert np.any(after > before * (1 + 1e-3))


@pytest.mark.slow
@every_regressor
def test_correlated_labels_are_told_once(name, train):
    spectra, labels = train
    labels = labels.iloc[:, :2].copy()
    labels.iloc[:, 1] = labels.iloc[:, 0] + 0.1 * labels.iloc[:, 1]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        new(name).fit(spectra, labels)
    told = [w for w in told if issubclass(w.category, CorrelatedLabelsWarning)]
    assert len(told) == 1
    assert told[0].filename == __file__


@every_regressor
def test_missing_errors_are_noticed(name, fitted, train, test, draw_stars):
    with pytest.warns(MissingUncertaintyWarning, match="fitted with flux errors.*without"):
        labels = fitted[name].predict(np.where(test[0].good, test[0].flux, 1.0))
    assert np.isfinite(labels).all()
    bare = new(name).fit(train[0].replace(ivar=None, mask=~train[0].good), train[1])
    with pytest.warns(MissingUncertaintyWarning, match="fitted without.*with"):
        bare.predict(test[0])
    blind = test[0].replace(ivar=0.0)  # nothing to say about errors
    assert np.isnan(fitted[name].predict(blind)).all()


@every_forward_model
def test_ivar_policies(name, train, test):
    plain = train[0].replace(ivar=None, mask=~train[0].good)
    with pytest.raises(ValueError, match="needs flux errors: pass Spectra"):
        new(name, ivar="require").fit(plain, train[1])
    required = new(name, ivar="require").fit(*train)
    with pytest.raises(ValueError, match="needs flux errors"):
        required.predict(test[0].flux)
    ignored = new(name, ivar="ignore").fit(*train)
    assert not ignored.uses_ivar_
    same = new(name).fit(plain, train[1])
    assert_same(
        ignored.predict_dist(test[0]),
        same.predict_dist(test[0].replace(ivar=None, mask=~test[0].good)),
        sigma=1e-9,
        rtol=1e-9,
    )


# -- distributions ---------------------------------------------------------------------------------


@every_regressor
def test_predict_is_the_mean_of_the_distribution(name, fitted, test):
    spectra, labels = test
    dist = fitted[name].predict_dist(spectra)
    assert dist.label_names == list(labels.columns)
    assert_array_equal(fitted[name].predict(spectra), dist.mean())
    mean, std = fitted[name].predict(spectra, return_std=True)
    assert_array_equal(mean, dist.mean())
    assert_array_equal(std, dist.std())
    assert_allclose(predict_dist(fitted[name], spectra).cov(), dist.cov())
    value = np.linalg.eigvalsh(dist.corr())
    assert np.all(value > 0)


@every_regressor
def test_it_works_at_all(name, fitted, test):
    """The toy is easy: small errors, and error bars of their size."""
    spectra, labels = test
    dist = fitted[name].predict_dist(spectra)
    error = dist.mean() - labels.to_numpy()
    assert np.all(np.median(np.abs(error), axis=0) < [120, 0.12, 0.1])
    z = np.abs(error / dist.std())
    assert 0.45 < np.mean(z < 1) < 0.9
    assert fitted[name].score(spectra, labels) > 0.85


@every_regressor
def test_rescaling_label_units_changes_only_units(name, fitted, train, test):
    units = np.array([1e-3, 10.0, 1.0])  # K -> kK, dex -> tenths
    shift = np.array([0.0, 0.0, 2.0])
    other = new(name).fit(train[0], train[1] * units + shift)
    first, second = (m.predict_dist(test[0]) for m in (fitted[name], other))
    assert_same(first.affine(units, shift), second)
    if name in FORWARD:
        flux = fitted[name].predict_flux(test[1])
        assert_allclose(other.predict_flux(test[1] * units + shift), flux, atol=1e-5)
        jacobian = fitted[name].flux_jacobian(test[1])
        scaled = other.flux_jacobian(test[1] * units + shift) * units
        unit = np.abs(jacobian).max(axis=(0, 1))
        assert_allclose(scaled / unit, jacobian / unit, atol=1e-4)
        assert_allclose(
            other.label_covariance_,
            fitted[name].label_covariance_ * np.outer(units, units),
            rtol=1e-2,
            atol=1e-3 * units.max() ** 2 * 1e-4,
        )


@every_forward_model
def test_the_unit_of_the_flux_does_not_matter(name, fitted, train, test):
    """Of 1e-19, as in erg/s/cm2/A: single precision must not overflow on the way."""
    unit = 2.0**-63
    first, second = (
        stars.replace(flux=unit * stars.flux, ivar=stars.ivar / unit**2)
        for stars in (train[0], test[0])
    )
    dist = new(name).fit(first, train[1]).predict_dist(second)
    assert_same(fitted[name].predict_dist(test[0]), dist)


@every_regressor
def test_one_label_as_vector_series_or_column(name, train, test):
    spectra, teff = train[0], train[1]["teff"]
    vector = new(name).fit(spectra, teff.to_numpy())
    column = new(name).fit(spectra, teff.to_numpy()[:, None])
    series = new(name).fit(spectra, teff)
    assert vector.predict(test[0]).shape == (20,)
    assert column.predict(test[0]).shape == (20, 1)
    assert series.label_names_in_ == ["teff"]
    assert_allclose(vector.predict(test[0]), column.predict(test[0])[:, 0])
    assert_allclose(vector.predict(test[0]), series.predict(test[0]))
    assert vector.predict(test[0], return_std=True)[1].shape == (20,)


@every_forward_model
def test_jacobian_is_the_finite_difference(name, fitted, test):
    model, labels = fitted[name], test[1].to_numpy()
    jacobian = model.flux_jacobian(labels)
    assert jacobian.shape == (20, 50, 3)
    for k, scale in enumerate(model.label_scale_):
        step = np.zeros(3)
        step[k] = 1e-4 * scale
        up, down = (model.predict_flux(labels + s * step) for s in (1, -1))
        difference = (up - down) / (2 * step[k])
        assert_allclose(jacobian[..., k], difference, atol=1e-6 * np.abs(difference).max())


@pytest.mark.parametrize("name", DOMAIN)
def test_domain_score_tells_strangers(name, fitted, test):
    spectra = test[0]
    ivar = spectra.ivar.copy()
    ivar[[4, 9]] = 0
    found = []
    for garbage in (0.0, 1e20):
        flux = np.where(ivar > 0, spectra.flux, garbage)
        found.append(domain_score(fitted[name], spectra.replace(flux=flux, ivar=ivar)))
    assert_allclose(found[0], found[1], rtol=1e-6)
    assert_array_equal(np.flatnonzero(np.isnan(found[0])), [4, 9])
    ordinary = np.nanmedian(found[0])
    assert 0 < ordinary < 1
    flux = np.where(spectra.good, spectra.flux, 0)
    strange = spectra.replace(flux=flux[:, ::-1], ivar=spectra.ivar[:, ::-1])
    assert np.median(domain_score(fitted[name], strange)) > max(1, 1.5 * ordinary)


# -- reproducible, portable, harmless --------------------------------------------------------------


@each(PARALLEL)
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_and_backend_change_nothing(name, backend, fitted, train, test, monkeypatch):
    monkeypatch.setattr("skspec.forward._slam.CHUNK", 16)  # several tasks
    alone = new(name).fit(*train).predict_dist(test[0])
    with parallel_config(backend=backend):
        shared = new(name, n_jobs=2).fit(*train).predict_dist(test[0])
    assert_allclose(shared.mean(), alone.mean(), rtol=1e-10)
    assert_allclose(shared.cov(), alone.cov(), rtol=1e-7, atol=1e-12)
    with parallel_config(backend=backend, n_jobs=2):
        configured = new(name).fit(*train).predict_dist(test[0])
    assert_allclose(configured.mean(), alone.mean(), rtol=1e-10)


@every_regressor
def test_same_fit_same_result_and_pickle(name, fitted, train, test):
    dist = fitted[name].predict_dist(test[0])
    again = clone(fitted[name]).fit(*train)
    copied = pickle.loads(pickle.dumps(fitted[name]))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for other in (again, copied, again.fit(*train)):
        assert_array_equal(other.predict_dist(test[0]).mean(), dist.mean())
        assert_array_equal(other.predict_dist(test[0]).cov(), dist.cov())
    # nobody touched the global generator
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@every_regressor
def test_refit_on_other_data_forgets_the_first(name, train, test, draw_stars):
    model = new(name).fit(*draw_stars(60, n_pixels=23, n_labels=2, errors=None, seed=9))
    assert model.predict(draw_stars(5, n_pixels=23, n_labels=2, errors=None)[0]).shape == (5, 2)
    fresh = new(name).fit(*train).predict_dist(test[0])
    assert_array_equal(model.fit(*train).predict_dist(test[0]).cov(), fresh.cov())


@every_regressor
def test_the_callers_arrays_are_never_modified(name, train, test):
    def frozen(array):
        array = np.array(array)
        array.flags.writeable = False
        return array

    (spectra, labels), kept = train, [a.copy() for a in (train[0].flux, train[0].ivar)]
    read_only = Spectra(
        frozen(spectra.flux), ivar=frozen(spectra.ivar), wavelength=frozen(spectra.wavelength)
    )
    assert not read_only.flux.flags.writeable
    model = new(name).fit(read_only, frozen(labels))
    dist = model.predict_dist(read_only[:10])
    if name in FORWARD:
        model.predict_flux(frozen(labels))
        model.flux_jacobian(frozen(labels))
        model.noise_variance(read_only)
        model.fisher_information(frozen(labels), read_only)
    writeable = new(name).fit(spectra, labels)
    assert_array_equal(writeable.predict_dist(spectra[:10]).cov(), dist.cov())
    assert_array_equal(spectra.flux, kept[0])
    assert_array_equal(spectra.ivar, kept[1])


@every_regressor
def test_single_precision_is_close(name, fitted, train, test):
    single = [
        s.replace(flux=s.flux.astype(np.float32), ivar=s.ivar.astype(np.float32))
        for s in (train[0], test[0])
    ]
    assert single[0].flux.dtype == np.float32
    dist = new(name).fit(single[0], train[1]).predict_dist(single[1])
    assert_same(fitted[name].predict_dist(test[0]), dist, sigma=2e-3, rtol=2e-3)
    assert dist.mean().dtype == np.float64


@every_regressor
@pytest.mark.parametrize("loss", ["linear", "soft_l1", "huber"])
def test_stars_do_not_know_of_each_other(name, loss, fitted, test):
    model = fitted[name]
    if name in FORWARD:
        model = pickle.loads(pickle.dumps(model)).set_params(loss=loss)
    elif loss != "linear":
        pytest.skip("no loss")
    whole = model.predict_dist(test[0])
    for rows in (slice(3, 4), slice(5, 13), [17, 2, 11]):
        assert_same(whole[rows], model.predict_dist(test[0][rows]), sigma=3e-3)
    sane = np.where(test[0].good, test[0].flux, np.median(test[0].flux))  # not 1e6 in bad pixels
    flat = test[0].replace(flux=sane, ivar=np.full(sane.shape, 1e4))  # same weights: another path
    for rows in (slice(3, 4), slice(5, 13)):
        assert_same(model.predict_dist(flat)[rows], model.predict_dist(flat[rows]), sigma=3e-3)


@every_regressor
def test_order_of_the_training_stars_hardly_matters(name, draw_stars):
    """The cross-validation folds change with the order; the model of the flux must not."""
    spectra, labels = draw_stars(60)
    order = np.random.default_rng(5).permutation(60)
    first = new(name).fit(spectra, labels)
    second = new(name).fit(spectra[order], labels.iloc[order])
    one, two = first.predict_dist(spectra), second.predict_dist(spectra)
    assert np.median(np.abs(one.mean() - two.mean()) / one.std()) < 0.1
    assert_allclose(np.median(one.std() / two.std(), axis=0), 1, atol=0.25)
    if name in FORWARD and name != "SLAM per pixel":  # there, ties of the choice may fall otherwise
        difference = first.predict_flux(labels) - second.predict_flux(labels)
        assert np.abs(difference).max() < 1e-4 * spectra.flux.std()


# -- inside scikit-learn ---------------------------------------------------------------------------


@every_regressor
def test_errors_arrive_at_test_time_in_a_search(name, draw_stars):
    """Scores equal those of a loop by hand, and differ from those of a loop that lost the errors."""
    spectra, labels = draw_stars(60, noise=0.05)
    pipeline = make_pipeline(ContinuumNormalizer(width=1e4), new(name))
    step = pipeline.steps[-1][0]
    grid = {f"{step}__{key}": values for key, values in REGRESSORS[name][1].items()}
    scoring = {
        "nll": neg_log_likelihood_scorer,
        "crps": neg_crps_scorer,
        "coverage": coverage_error_scorer,
        "mae": "neg_mean_absolute_error",
    }
    if name in FORWARD:
        pipeline.set_params(**{f"{step}__ivar": "require"})
    folds = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(
        pipeline, grid, scoring=scoring, refit="crps", cv=folds, n_jobs=2, error_score="raise"
    ).fit(spectra, labels)
    for scorer in scoring:
        assert np.isfinite(search.cv_results_[f"mean_test_{scorer}"]).all()
    with_errors, without = [], []
    for fit_rows, test_rows in folds.split(spectra):
        model = clone(pipeline).set_params(**search.best_params_)
        model.fit(spectra[fit_rows], labels.iloc[fit_rows])
        held_out, truth = spectra[test_rows], labels.iloc[test_rows]
        with_errors.append(neg_crps_scorer(model, held_out, truth))
        if name in FORWARD:
            model.set_params(**{f"{step}__ivar": "auto"})
            with pytest.warns(MissingUncertaintyWarning):
                without.append(neg_crps_scorer(model, held_out.replace(ivar=None), truth))
    best = search.cv_results_["mean_test_crps"][search.best_index_]
    assert best == pytest.approx(np.mean(with_errors), rel=1e-4)
    if name in FORWARD:
        assert best > np.mean(without) * (1 - 1e-2)  # errors help
        assert abs(best / np.mean(without) - 1) > 1e-3
    assert predict_dist(search, spectra).shape == (60, 3)


# -- bad input gets a sentence ---------------------------------------------------------------------


@every_regressor
def test_bad_training_sets(name, train):
    spectra, labels = train
    flux = np.where(spectra.good, spectra.flux, 1.0)
    broken = flux.copy()
    broken[3, 4] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        new(name).fit(broken, labels)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        new(name).fit(spectra, labels[:-1])
    with pytest.raises(ValueError, match="Every pixel of every training spectrum is bad"):
        new(name).fit(spectra.replace(ivar=0.0), labels)
    with pytest.raises(ValueError, match=r"needs at least 2.*1"):
        new(name).fit(spectra[:1], labels[:1])
    if get_tags(new(name)).target_tags.required:
        with pytest.raises(ValueError, match="Input y contains NaN"):
            new(name).fit(spectra, labels.mask(labels == labels.iloc[5, 1]))
        with pytest.raises(ValueError, match="requires y"):
            new(name).fit(spectra, None)


@every_regressor
def test_bad_spectra_at_predict(name, fitted, test):
    model, spectra = fitted[name], test[0]
    with pytest.raises(ValueError, match="12 features.* expecting 50 features"):
        model.predict(spectra[:, :12])
    with pytest.raises(ValueError, match="fitted on 5000.000-5024.500 Angstrom.*Resampler"):
        model.predict(spectra.replace(wavelength=spectra.wavelength + 3))
    flux = np.where(spectra.good, spectra.flux, 1.0)
    flux[2, 2] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(flux)


@every_regressor
def test_a_star_without_a_good_pixel(name, fitted, test):
    model, spectra = fitted[name], test[0]
    ivar = spectra.ivar.copy()
    ivar[[4, 9]] = 0
    blind = np.isin(np.arange(20), [4, 9])
    for flux in (0.0, 1e20):
        part = spectra.replace(ivar=ivar, flux=np.where(blind[:, None], flux, spectra.flux))
        dist = model.predict_dist(part)
        assert np.isnan(dist.mean()[blind]).all()
        assert np.isinf(dist.std()[blind]).all()
        assert_same(model.predict_dist(spectra)[~blind], dist[~blind])
    if name in FORWARD:
        result = model.invert(part)
        assert not result.converged[blind].any()
        assert not result.inside_training[blind].any()
        assert not result.at_bound[blind].any()
        assert_array_equal(result.n_good[blind], 0)
        assert np.isnan(result.chi2[blind]).all()
        assert np.isnan(result.reduced_chi2[blind]).all()
        assert result.converged[~blind].all()
        assert np.isfinite(result.chi2[~blind]).all()


@every_regressor
def test_spectra_of_another_kind_are_far_from_the_training_set(name, fitted, draw_stars):
    model = fitted[name]
    if not hasattr(model, "domain_score"):
        pytest.skip("no domain score")
    stars, _ = draw_stars(60, seed=9)
    shifted = stars.replace(flux=np.roll(stars.flux, 5, axis=1))
    usual, unusual = domain_score(model, stars), domain_score(model, shifted)
    assert np.mean(usual < 1) > 0.8
    assert np.median(unusual) > 1
    nothing = stars[:2].replace(ivar=np.zeros_like(stars.ivar[:2]))
    assert np.isnan(domain_score(model, nothing)).all()


@every_forward_model
def test_fewer_good_pixels_than_labels(name, fitted, test):
    """Too little to go by: finite labels in the box, huge errors, no reduced chi2."""
    ivar = test[0].ivar.copy()
    first, second = np.flatnonzero(ivar[0] > 0)[:2]
    ivar[0, np.delete(np.arange(50), [first, second])] = 0
    result = fitted[name].invert(test[0].replace(ivar=ivar))
    assert result.n_good[0] == 2
    assert np.isfinite(result.labels[0]).all()
    assert np.isnan(result.reduced_chi2[0])
    ordinary = np.median(result.formal_dist.std()[1:], axis=0)
    assert np.max(result.formal_dist.std()[0] / ordinary) > 30


@every_regressor
def test_constant_pixel_and_constant_label(name, train, test):
    ones = [s.replace(flux=np.where(np.arange(50) == 7, 1.0, s.flux)) for s in (train[0], test[0])]
    dist = new(name).fit(ones[0], train[1]).predict_dist(ones[1])
    assert np.isfinite(dist.mean()).all()
    error = np.median(np.abs(dist.mean() - test[1]), axis=0)
    assert np.all(error < [120, 0.12, 0.1])
    bare = [s.replace(ivar=None, mask=~s.good) for s in ones]  # no noise at all in that pixel
    dist = new(name).fit(bare[0], train[1]).predict_dist(bare[1])
    assert np.all(np.median(np.abs(dist.mean() - test[1]), axis=0) < [150, 0.15, 0.12])
    fixed = train[1].assign(logg=4.5)
    dist = new(name).fit(train[0], fixed).predict_dist(test[0])
    assert_allclose(dist.mean()[:, 1], 4.5, atol=1e-6)
    assert np.isfinite(dist.std()).all()
    # log g still shapes these spectra: the other labels suffer, but stay sane
    assert np.all(np.median(np.abs(dist.mean() - test[1]), axis=0)[[0, 2]] < [600, 0.5])


@every_forward_model
def test_labels_outside_the_training_set_are_flagged(name, fitted, train, draw_stars):
    model = fitted[name]
    inside = model.invert(draw_stars(100, seed=3)[0])
    assert inside.inside_training.mean() > 0.7
    far = train[1].max() + 0.08 * (train[1].max() - train[1].min())
    flux = model.predict_flux(far)
    result = model.invert(Spectra(flux, flux_err=1e-4))
    if result.converged[0] and np.all(np.abs(result.labels - far.to_numpy()) < [10, 0.01, 0.01]):
        assert not result.inside_training.any()
    beyond = np.clip(train[0].flux[:1] + 100 * (train[0].flux[:1] - 1), -1e3, 1e3)
    result = model.invert(Spectra(beyond, flux_err=1e-3))
    assert not result.inside_training.any()
    span = train[1].max() - train[1].min()
    assert np.all(result.labels <= (train[1].max() + 0.1001 * span).to_numpy())
    assert np.all(result.labels >= (train[1].min() - 0.1001 * span).to_numpy())
    assert result.reduced_chi2[0] > 100


@every_forward_model
def test_bad_labels_for_the_flux(name, fitted, test):
    for method in (fitted[name].predict_flux, fitted[name].flux_jacobian):
        for labels in (np.ones((4, 2)), np.ones(4), np.ones((2, 2, 3))):
            with pytest.raises(ValueError, match="one column for each of teff, logg, feh"):
                method(labels)
        with pytest.raises(ValueError, match="NaN or infinite"):
            method([5000, np.nan, 0.0])
    with pytest.raises(ValueError, match="3 sets of labels for 20 spectra"):
        fitted[name].fisher_information(test[1][:3], test[0])


@pytest.mark.parametrize("n", [3, 5])
@every_regressor
def test_very_few_stars(name, n, train, test):
    """Either a fit with finite errors (and a warning where less was fitted), or a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewStarsWarning)
        try:
            model = new(name).fit(train[0][:n], train[1][:n])
        except ValueError as error:
            assert "stars" in str(error)  # noqa: PT017
            return
    dist = model.predict_dist(test[0])
    assert np.isfinite(dist.mean()).all()
    assert np.all(dist.std() > 0)
