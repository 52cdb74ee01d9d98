import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import sqrtm
from sklearn.linear_model import LogisticRegression, Ridge

from skspec import Spectra
from skspec.diagnostics import synthetic_gap
from skspec.forward import TheCannon
from skspec.solvers.statistics.two_sample import (
    auc_error,
    frechet_distance,
    maximum_mean_discrepancy,
    permuted_sets,
)

P = 80
WAVELENGTH = np.linspace(5000, 5079, P)
QUICK = {"n_permutations": 99, "n_components": 20}
LINE = np.zeros(P)
LINE[[30, 31, 60]] = [-0.02, -0.06, 0.04]


def draw(n, seed, *, noise=0.01, change=0.0, bad=0.0, meta=None):
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    labels = rng.normal(size=(n, 2))
    flux = 0.8 + 0.03 * labels @ world.normal(size=(2, P)) + change
    if not noise:
        return Spectra(flux, wavelength=WAVELENGTH, meta=meta), labels
    sigma = noise * rng.uniform(0.5, 2, (n, 1)) * np.ones(P)
    flux = flux + sigma * rng.normal(size=flux.shape)
    mask = rng.random(flux.shape) < bad
    flux[mask] = 1e5
    return Spectra(flux, flux_err=sigma, mask=mask, wavelength=WAVELENGTH, meta=meta), labels


@pytest.mark.parametrize("bad", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_two_halves_of_one_set(bad):
    """A law: no gap is found where there is none."""
    found = [
        synthetic_gap(
            draw(100, 2 * seed, bad=bad)[0],
            draw(100, 2 * seed + 1, bad=bad)[0],
            random_state=seed,
            **QUICK,
        )
        for seed in range(4)
    ]
    pull = np.array([(gap.auc - 0.5) / gap.auc_error for gap in found])
    assert np.all(np.abs(pull) < 3) and abs(pull.mean()) < 1.5
    assert np.mean([gap.p_value < 0.1 for gap in found]) <= 0.5
    ratio = [gap.frechet / gap.frechet_null for gap in found]
    assert np.mean(ratio) < 1.3


def test_a_line_is_found():
    synthetic, observed = draw(150, 1)[0], draw(150, 2, change=LINE)[0]
    gap = synthetic_gap(synthetic, observed, **QUICK)
    assert gap.auc > 0.95 and gap.p_value == 0.01
    assert gap.mmd2 > gap.mmd2_null and gap.frechet > 1.3 * gap.frechet_null
    worst = gap.worst_lines(2)
    assert set(worst["wavelength"]) == {5031.0, 5060.0}
    assert worst["gap"].abs().is_monotonic_decreasing
    assert_allclose(gap.pixels["difference"][31], -0.06, atol=0.02)
    assert not gap.at_equal_labels and gap.labels is None
    assert "AUC" in str(gap) and "noise as it is" in str(gap)


def test_noise_is_matched_first():
    """Noise-free models differ from observed stars by noise alone: no gap."""
    synthetic, observed = draw(100, 1, noise=0)[0], draw(100, 2, noise=0.03, bad=0.05)[0]
    before = synthetic.flux.copy()
    matched = synthetic_gap(synthetic, observed, **QUICK)
    assert matched.noise_matched and abs(matched.auc - 0.5) < 3 * matched.auc_error
    assert matched.p_value > 0.01
    apart = synthetic_gap(synthetic, observed, match_noise=False, **QUICK)
    assert not apart.noise_matched and apart.auc > 0.9
    assert_allclose(synthetic.flux, before, rtol=0)


def test_noise_that_is_there_already_stays():
    synthetic, observed = draw(30, 1, noise=0.02)[0], draw(30, 3, noise=0.02)[0]
    gap, same = (synthetic_gap(synthetic, observed, match_noise=m, **QUICK) for m in (True, False))
    assert gap.auc == same.auc and not gap.noise_matched


class TestPixelsAtEqualLabels:
    def test_nearest_neighbour(self):
        # the synthetic stars are of another distribution: means would differ everywhere
        synthetic, labels = draw(4000, 1, noise=0)
        some = np.argsort(labels[:, 0])[-2000:]
        observed, truth = draw(400, 2, change=LINE, noise=0.02)
        keep = truth[:, 0] > 0.2
        gap = synthetic_gap(
            synthetic[some],
            observed[keep],
            synthetic_labels=labels[some],
            observed_labels=truth[keep],
            max_stars=100,
            **QUICK,
        )
        assert gap.at_equal_labels
        assert_allclose(gap.pixels["difference"], LINE, atol=0.012)
        assert_allclose(gap.pixels["scatter"].median(), 1, rtol=0.15)
        assert set(gap.worst_lines(2)["wavelength"]) == {5031.0, 5060.0}

    def test_forward_model_and_labels(self):
        class Truth:
            label_names_in_ = ["teff", "feh"]
            world = np.random.default_rng(0).normal(size=(2, P))

            def predict_flux(self, labels):
                return 0.8 + 0.03 * labels @ self.world

            def predict(self, X):
                return np.linalg.lstsq(0.03 * self.world.T, (X.flux - 0.8).T, rcond=None)[0].T

        observed, truth = draw(400, 2, change=LINE, noise=0.02)
        synthetic, _ = draw(50, 1)
        gap = synthetic_gap(synthetic, observed, observed_labels=truth, model=Truth(), **QUICK)
        assert_allclose(gap.pixels["difference"], LINE, atol=0.006)
        assert_allclose(gap.pixels["scatter"].median(), 1, rtol=0.05)
        bias = np.linalg.lstsq(0.03 * Truth.world.T, LINE, rcond=None)[0]
        assert list(gap.labels.index) == ["teff", "feh"]
        assert np.all(np.abs(gap.labels["bias"] - bias) < 3 * gap.labels["bias_error"])
        assert "teff: bias" in str(gap)

    def test_unknown_noise(self):
        """Without errors sigma is the scatter of the difference: its own is 1."""
        synthetic, labels = draw(300, 1, noise=0)
        observed, truth = draw(100, 2, change=LINE)
        gap = synthetic_gap(
            synthetic,
            observed.replace(ivar=None),
            synthetic_labels=pd.DataFrame(labels),
            observed_labels=pd.DataFrame(truth),
            **QUICK,
        )
        assert_allclose(gap.pixels["scatter"], 1)
        assert not gap.noise_matched


def test_label_gap_of_a_plain_regressor():
    synthetic, labels = draw(300, 1)
    observed, truth = draw(100, 2)
    model = Ridge().fit(np.asarray(synthetic), labels[:, 0])
    gap = synthetic_gap(
        synthetic,
        observed,
        model=model,
        observed_labels=pd.Series(truth[:, 0], name="teff"),
        **QUICK,
    )
    error = model.predict(observed) - truth[:, 0]
    assert_allclose(gap.labels.loc["teff", "bias"], np.median(error))
    assert_allclose(gap.labels.loc["teff", "rmse"], np.sqrt(np.mean(error**2)))
    assert not gap.at_equal_labels


def test_labels_are_matched_by_name():
    (synthetic, labels), (observed, truth) = draw(60, 1), draw(60, 2)
    labels, truth = (pd.DataFrame(part, columns=["teff", "feh"]) for part in (labels, truth))
    model, swapped = TheCannon(1).fit(synthetic, labels), truth[["feh", "teff"]]
    for given in ({"model": model}, {"synthetic_labels": labels}):
        one, other = (
            synthetic_gap(synthetic, observed, observed_labels=part, **given, **QUICK)
            for part in (truth, swapped)
        )
        pd.testing.assert_frame_equal(one.pixels, other.pixels)
        if "model" in given:
            pd.testing.assert_frame_equal(one.labels, other.labels)


def test_stars_in_both_sets_stay_on_one_side():
    """Copies of the training stars with the other label would bring the AUC below 0.5."""
    meta = {"star_id": [f"HD{i}" for i in range(120)]}
    stars, _ = draw(120, 1, noise=0.003, meta=meta)
    near = stars.replace(flux=stars.flux + 1e-4 * np.random.default_rng(3).normal(size=stars.shape))
    together = synthetic_gap(stars, near, match_noise=False, **QUICK)
    apart = synthetic_gap(stars.replace(meta={}), near, match_noise=False, **QUICK)
    assert apart.auc < 0.35 < together.auc


@pytest.mark.parametrize("visits", [1, 6])
def test_many_spectra_of_a_star_count_as_one(visits):
    """Permuted one by one, spectra of the same stars look like a gap, which there is not."""
    p_values = []
    for seed in range(12):
        stars = draw(30, 2 * seed, noise=0)[0], draw(30, 2 * seed + 1, noise=0)[0]
        rng = np.random.default_rng(seed)
        sets = []
        for name, part in zip("ab", stars):
            part = part.replace(meta={"star_id": [f"{name}{i}" for i in range(30)]})
            part = part[np.repeat(np.arange(30), visits)]
            sets.append(part.replace(flux=part.flux + 0.01 * rng.normal(size=part.shape)))
        p_values.append(synthetic_gap(*sets, n_permutations=49, n_components=5).p_value)
    assert np.sum(np.array(p_values) < 0.05) <= 3 and np.median(p_values) > 0.15


def test_a_star_that_only_dead_pixels_know_is_left_out():
    synthetic, observed = draw(20, 1)[0], draw(20, 2)[0]
    dead = np.arange(P) < 20
    ivar = observed.ivar * np.where(np.arange(20)[:, None] == 3, dead, 1)
    gap = synthetic_gap(
        synthetic.replace(ivar=synthetic.ivar * ~dead), observed.replace(ivar=ivar), **QUICK
    )
    assert (gap.n_synthetic, gap.n_observed) == (20, 19) and np.isfinite(gap.auc)


def test_dead_pixels_of_one_set_are_no_gap():
    synthetic, observed = draw(100, 1)[0], draw(100, 2)[0]
    ivar = np.where(np.arange(P) < 20, 0, observed.ivar)
    flux = np.where(np.arange(P) < 20, 1e9, observed.flux)
    gap = synthetic_gap(synthetic, observed.replace(flux=flux, ivar=ivar), **QUICK)
    assert abs(gap.auc - 0.5) < 3.5 * gap.auc_error
    assert gap.pixels["gap"][:20].isna().all() and len(gap.worst_lines(200)) <= 60


def test_same_seed_same_result_and_own_classifier():
    synthetic, observed = draw(60, 1)[0], draw(90, 2, change=LINE)[0]
    first, second = (
        synthetic_gap(synthetic, observed, max_stars=50, random_state=4, **QUICK) for _ in "ab"
    )
    assert (first.auc, first.mmd2, first.p_value) == (second.auc, second.mmd2, second.p_value)
    assert first.n_synthetic == first.n_observed == 50
    linear = synthetic_gap(synthetic, observed, classifier=LogisticRegression(C=100), **QUICK)
    assert linear.auc != first.auc


def test_bad_input():
    a, b = draw(20, 1)[0], draw(20, 2)[0]
    labels = np.zeros((20, 2))
    with pytest.raises(ValueError, match="80 pixels, the observed ones 79.*Resampler"):
        synthetic_gap(a, b[:, :79])
    with pytest.raises(ValueError, match="different wavelengths"):
        synthetic_gap(a, b.replace(wavelength=WAVELENGTH + 1))
    with pytest.raises(ValueError, match="5 observed spectra; at least 10"):
        synthetic_gap(a, b[:5])
    with pytest.raises(ValueError, match="observed spectra are of 4 stars"):
        synthetic_gap(a, b.replace(meta={"star_id": np.arange(20) % 4}))
    with pytest.raises(ValueError, match="19 sets of synthetic labels for 20"):
        synthetic_gap(a, b, synthetic_labels=labels[:19])
    with pytest.raises(ValueError, match="2 labels of synthetic and 1 of observed"):
        synthetic_gap(a, b, synthetic_labels=labels, observed_labels=labels[:, :1])
    with pytest.raises(ValueError, match="hold NaN"):
        synthetic_gap(a, b, observed_labels=np.full(20, np.nan))
    with pytest.raises(ValueError, match="No pixel is good in both"):
        synthetic_gap(a, b.replace(ivar=0 * b.ivar))
    model = Ridge().fit(a.flux, labels[:, 0])
    with pytest.raises(ValueError, match="predicts 1 labels, observed_labels holds 2"):
        synthetic_gap(a, b, observed_labels=labels, model=model)


class TestSolver:
    def test_discrepancy_against_the_definition(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(30, 3)), 0.5 + rng.normal(size=(20, 3))
        mmd2, null = maximum_mean_discrepancy(a, b, 150, rng)
        both = np.concatenate([a, b])
        distance = np.linalg.norm(both[:, None] - both, axis=2)
        h = np.median(distance[np.triu_indices(50, 1)])
        kernel = np.exp(-(distance**2) / (2 * h**2))
        np.fill_diagonal(kernel, 0)
        direct = kernel[:30, :30].sum() / 870 + kernel[30:, 30:].sum() / 380
        assert_allclose(mmd2, direct - 2 * kernel[:30, 30:].mean())
        assert len(null) == 150 and abs(null.mean()) < 3 * null.std() / 150**0.5

    def test_groups_are_permuted_as_a_whole(self):
        rng = np.random.default_rng(0)
        groups = np.array([0, 0, 1, 2, 2, 3, 3, 3, 0])
        first = np.array([1, 1, 1, 0, 0, 1, 0, 0, 1], bool)  # group 3 is in both sets
        drawn = np.array([permuted_sets(first, groups, rng) for _ in range(300)])
        share = np.array([np.bincount(groups, one) for one in drawn]) / np.bincount(groups)
        assert np.isin(share[:, :3], [0, 1]).all() and (share[:, :3].sum(axis=1) == 2).all()
        assert_allclose(share[:, 3], 1 / 3)
        assert_allclose(drawn[:, 5:8].mean(axis=0), 1 / 3, atol=0.1)
        assert_allclose(share.mean(axis=0)[:3], 2 / 3, atol=0.1)

    def test_frechet_against_the_matrix_root(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(50, 4)), rng.normal(size=(40, 4)) @ rng.normal(size=(4, 4))
        A, B = np.cov(a.T), np.cov(b.T)
        trace = np.trace(A + B - 2 * sqrtm(A @ B).real)
        direct = np.sqrt(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + trace)
        assert_allclose(frechet_distance(a, b), direct)
        assert frechet_distance(a, a) < 1e-6

    def test_error_of_the_area(self):
        assert_allclose(auc_error(0.5, 40, 60), np.sqrt(101 / (12 * 2400)), rtol=0.01)
        assert auc_error(1.0, 40, 60) == 0 and auc_error(0.3, 9, 9) == auc_error(0.7, 9, 9)
