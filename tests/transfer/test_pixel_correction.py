import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils.estimator_checks import (
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from skspec import Spectra
from skspec.solvers.spectra.pixel_correction import pixel_moments, shrink, straight_lines
from skspec.transfer import PixelCorrection

P = 60
WAVELENGTH = np.linspace(5000, 5059, P)
OFFSET, FACTOR = np.zeros(P), np.ones(P)
OFFSET[7], FACTOR[20], FACTOR[33] = -0.1, 1.5, 0.6


def draw(n, seed, *, observed=False, noise=0.005, scatter=0.0, bad=0.0):
    """Stars whose flux follows two labels; observed through the lines OFFSET + FACTOR * flux."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    gradient = 0.05 * world.uniform(0.5, 1.5, (2, P)) * world.choice([-1, 1], (2, P))
    flux = 0.8 + rng.normal(size=(n, 2)) @ gradient
    if observed:
        flux = OFFSET + FACTOR * flux + scatter * rng.normal(size=flux.shape)
    if not noise:
        return Spectra(flux, wavelength=WAVELENGTH)
    sigma = noise * rng.uniform(0.5, 2, flux.shape)
    flux = flux + sigma * rng.normal(size=flux.shape)
    mask = rng.random(flux.shape) < bad
    flux[mask] = rng.choice([1e6, np.nan, -30], size=mask.sum())
    return Spectra(flux, flux_err=sigma, mask=mask, wavelength=WAVELENGTH)


@pytest.mark.parametrize(
    "check",
    [
        check_no_attributes_set_in_init,
        check_get_params_invariance,
        check_set_params,
        check_estimator_cloneable,
        check_estimator_repr,
    ],
)
def test_sklearn_checks_that_do_not_fit(check):
    """The others fit to a vector of labels, and this one fits to spectra."""
    check("PixelCorrection", PixelCorrection())


def test_parameters():
    check_parameters_default_constructible("PixelCorrection", PixelCorrection())
    with pytest.raises(ValueError, match="'kind' parameter"):
        PixelCorrection("cubic").fit(draw(9, 0), draw(9, 1))


@pytest.mark.parametrize("paired", [True, False])
def test_lines_are_found(paired):
    synthetic = draw(1500, 1, noise=0)
    observed = draw(1500, 1 if paired else 2, observed=True, bad=0.05)
    found = PixelCorrection(paired=paired).fit(synthetic, observed)
    assert_allclose(found.factor_, FACTOR, atol=0.03 if paired else 0.15)
    mean = synthetic.flux.mean(axis=0)
    assert_allclose(found.offset_ + found.factor_ * mean, OFFSET + FACTOR * mean, atol=0.015)
    assert np.argmax(found.factor_) == 20 and np.argmin(found.factor_) == 33
    assert found.tau_["offset"] > 0.01
    if paired:
        assert_allclose(found.scatter_, 0, atol=0.003)
    else:
        assert np.isnan(found.scatter_).all()


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
@pytest.mark.parametrize("paired", [True, False])
def test_one_number_per_pixel(kind, paired):
    synthetic, other = draw(1500, 1), draw(1500, 1 if paired else 2, noise=0)
    change = np.where(np.arange(P) == 7, -0.1, 0)
    flux = other.flux + change if kind == "additive" else other.flux * (1 + change)
    found = PixelCorrection(kind, paired=paired).fit(synthetic, other.replace(flux=flux))
    value, rest = (
        (found.offset_, found.factor_ - 1)
        if kind == "additive"
        else (found.factor_ - 1, found.offset_)
    )
    assert not rest.any()
    assert_allclose(value, change, atol=0.003 if paired else 0.02)


def test_scatter_of_pairs_is_that_beyond_the_noise():
    synthetic = draw(2000, 1, noise=0)
    observed = draw(2000, 1, observed=True, noise=0.02, scatter=0.01)
    found = PixelCorrection(paired=True).fit(synthetic, observed)
    assert_allclose(np.median(found.scatter_), 0.01, rtol=0.05)


def test_noise_is_not_taken_for_contrast():
    """Observed spectra are noisier than synthetic ones: their intrinsic deviations are the same."""
    quiet, noisy = draw(3000, 1, noise=0), draw(3000, 2, noise=0.05)
    found = PixelCorrection(shrink=False).fit(quiet, noisy)
    spread = quiet.flux.std(axis=0)
    strong = spread > 0.05
    assert abs(np.median(found.factor_[strong]) - 1) < 0.03
    assert np.median(noisy.flux.std(axis=0)[strong] / spread[strong]) > 1.2
    unaware = PixelCorrection(shrink=False).fit(quiet, noisy.replace(ivar=None))
    assert np.median(unaware.factor_[strong]) > 1.2


def test_noise_of_pairs_does_not_flatten_the_slope():
    truth = draw(4000, 1, noise=0)
    rng = np.random.default_rng(5)
    noisy = Spectra(truth.flux + 0.05 * rng.normal(size=truth.shape), flux_err=0.05)
    strong = truth.flux.std(axis=0) > 0.05
    naive = PixelCorrection(paired=True, shrink=False).fit(noisy.flux, truth.flux)
    aware = PixelCorrection(paired=True, shrink=False).fit(noisy, truth.flux)
    assert np.median(naive.factor_[strong]) < 0.75
    assert abs(np.median(aware.factor_[strong]) - 1) < 0.03


def test_no_gap_is_left_alone():
    """Two draws of one population: shrinkage takes most of what chance would correct."""
    synthetic, observed = draw(60, 1, noise=0.1), draw(60, 2, noise=0.1)
    shrunk = PixelCorrection("additive").fit(synthetic, observed)
    plain = PixelCorrection("additive", shrink=False).fit(synthetic, observed)
    assert np.std(shrunk.offset_) < 0.5 * np.std(plain.offset_)
    assert np.std(plain.offset_) > 0.01


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["both", "additive", "multiplicative"]),
    paired=st.booleans(),
    seed=st.integers(0, 99),
)
def test_there_and_back(kind, paired, seed):
    synthetic, observed = draw(12, seed), draw(12, seed + 1, observed=True, bad=0.2)
    found = PixelCorrection(kind, paired=paired).fit(synthetic, observed)
    there = found.transform(synthetic)
    back = found.inverse_transform(there)
    assert_allclose(back.flux, synthetic.flux, rtol=1e-9)
    assert_allclose(back.ivar, synthetic.ivar, rtol=1e-9)
    assert_allclose(there.flux_err, synthetic.flux_err * found.factor_)


def test_masked_pixels_change_nothing():
    synthetic, observed = draw(50, 1, bad=0.1), draw(50, 2, observed=True, bad=0.1)
    for paired in (True, False):
        found = [
            PixelCorrection(paired=paired).fit(
                *(s.replace(flux=np.where(s.good, s.flux, v)) for s in (synthetic, observed))
            )
            for v in (0.0, 1e20)
        ]
        assert_array_equal(found[0].offset_, found[1].offset_)
        assert_array_equal(found[0].factor_, found[1].factor_)


def test_a_pixel_of_hopeless_noise_hardly_counts():
    synthetic, observed = draw(50, 1), draw(50, 2)
    flux, err = observed.flux.copy(), observed.flux_err.copy()
    flux[3, 10], err[3, 10] = 400.0, 1000.0
    one = PixelCorrection("additive").fit(synthetic, observed)
    other = PixelCorrection("additive").fit(synthetic, observed.replace(flux=flux, flux_err=err))
    assert abs(one.offset_[10] - other.offset_[10]) < 0.01


@pytest.mark.parametrize("paired", [True, False])
def test_dead_pixels_are_left_as_they_are(paired):
    synthetic, observed = draw(30, 1, noise=0), draw(30, 1, observed=True)
    ivar = np.where(np.arange(P) == 7, 0, observed.ivar)
    ivar[2:, 8] = 0  # two stars tell nothing, either
    found = PixelCorrection(paired=paired).fit(synthetic, observed.replace(ivar=ivar))
    assert found.offset_[7] == found.offset_[8] == 0
    assert found.factor_[7] == found.factor_[8] == 1
    assert np.isnan(found.scatter_[[7, 8]]).all()


def test_weights_match_the_labels():
    """Half of the synthetic stars are of a kind that was not observed."""
    synthetic, observed = draw(200, 1), draw(100, 2)
    flux = synthetic.flux.copy()
    flux[100:] += 0.3
    weight = np.repeat([1.0, 0.0], 100)
    mixed = synthetic.replace(flux=flux)
    found = PixelCorrection().fit(mixed.replace(meta={"weight": weight}), observed)
    alone = PixelCorrection().fit(synthetic[:100], observed)
    assert_allclose(found.offset_, alone.offset_, rtol=1e-8, atol=1e-10)
    assert PixelCorrection("additive").fit(mixed, observed).offset_.mean() < -0.1


def test_kind_of_answer():
    synthetic, observed = draw(20, 1), draw(20, 2, observed=True)
    meta = {"star_id": np.arange(20)}
    synthetic = Spectra(
        synthetic.flux.astype(np.float32),
        ivar=synthetic.ivar.astype(np.float32),
        wavelength=WAVELENGTH,
        order=np.repeat([0, 1], P // 2),
        meta=meta,
    )
    before = synthetic.flux.copy()
    found = PixelCorrection()
    out = found.fit_transform(synthetic, observed)
    assert isinstance(out, Spectra) and out.flux.dtype == out.ivar.dtype == np.float32
    assert_array_equal(synthetic.flux, before)
    assert_array_equal(out.order, synthetic.order)
    assert_array_equal(out.meta["star_id"], meta["star_id"])
    plain = found.transform(synthetic.flux)
    assert isinstance(plain, np.ndarray)
    assert_array_equal(plain, out.flux)
    assert found.transform(Spectra(synthetic.flux)).ivar is None
    again = pickle.loads(pickle.dumps(found))
    assert_array_equal(again.transform(synthetic).flux, out.flux)


def test_bad_input():
    a, b = draw(10, 1), draw(10, 2)
    with pytest.raises(ValueError, match="60 pixels, the observed ones 59.*Resampler"):
        PixelCorrection().fit(a, b[:, :59])
    with pytest.raises(ValueError, match="on another grid"):
        PixelCorrection().fit(a, b.replace(wavelength=WAVELENGTH + 3))
    with pytest.raises(ValueError, match="10 synthetic and 9"):
        PixelCorrection(paired=True).fit(a, b[:9])
    with pytest.raises(ValueError, match="2 observed spectra: at least 3"):
        PixelCorrection().fit(a, b[:2])
    with pytest.raises(ValueError, match="Every pixel of every observed"):
        PixelCorrection().fit(a, b.replace(ivar=0 * b.ivar))
    with pytest.raises(ValueError, match="one finite weight"):
        PixelCorrection().fit(a.replace(meta={"weight": np.full(10, -1.0)}), b)


class TestSolver:
    def test_shrinkage_of_one_gaussian_is_that_of_its_variance(self):
        rng = np.random.default_rng(0)
        v = rng.uniform(0.1, 3, 4000)
        d = rng.normal(size=4000) * np.sqrt(2 + v)
        shrunk, tau2 = shrink(d, v)
        assert_allclose(tau2, 2, rtol=0.1)
        assert np.abs(shrunk - d * 2 / (2 + v)).mean() < 0.1

    def test_shrinkage_of_few_among_many(self):
        """Better than the best single Gaussian where few pixels are wrong."""
        rng = np.random.default_rng(1)
        truth = np.where(np.arange(2000) < 20, rng.normal(size=2000) * 10, 0)
        d = truth + rng.normal(size=2000)
        shrunk, tau2 = shrink(d, np.ones(2000))
        one = max(np.mean(d**2) - 1, 0)
        assert np.sum((shrunk - truth) ** 2) < 0.4 * np.sum((d * one / (one + 1) - truth) ** 2)
        assert np.all(np.abs(shrunk) <= np.abs(d)) and np.all(shrunk * d >= 0)
        assert_allclose(tau2, np.mean(truth**2), rtol=0.4)

    def test_shrinkage_of_what_is_exact_or_unknown(self):
        d, v = np.array([1.0, 2.0, 3.0]), np.array([0.0, np.inf, 0.0])
        assert_array_equal(shrink(d, v)[0], [1, 0, 3])
        assert_array_equal(shrink(np.zeros(3), v)[0], 0)
        assert_array_equal(shrink(d, np.full(3, np.inf))[0], 0)

    def test_errors_are_those_of_repeated_draws(self):
        rng = np.random.default_rng(1)
        n, draws = 40, 4000
        noise = np.broadcast_to(np.linspace(0.02, 0.2, n)[:, None] ** 2, (n, draws))
        x = 1 + 0.1 * rng.normal(size=(n, draws)) + np.sqrt(noise) * rng.normal(size=(n, draws))
        m = pixel_moments(x, np.ones_like(x, bool), noise, np.ones(n))
        assert_allclose(m.variance.mean(), 0.01, rtol=0.03)
        assert_allclose(m.mean.std(), np.sqrt(m.mean_error2.mean()), rtol=0.05)
        assert_allclose(m.variance.std(), np.sqrt(m.variance_error2.mean()), rtol=0.1)

    def test_lines_against_a_loop(self):
        rng = np.random.default_rng(2)
        x, good = rng.normal(size=(30, 4)), rng.random((30, 4)) < 0.8
        y = 0.3 + 1.4 * x + 0.1 * rng.normal(size=x.shape)
        found = straight_lines(x, y, good, 0 * x, 0 * x, np.ones(30))
        for j in range(4):
            slope, intercept = np.polyfit(x[good[:, j], j], y[good[:, j], j], 1)
            residual = (y - intercept - slope * x)[good[:, j], j]
            assert_allclose(found.slope[j], slope)
            at_zero = found.centre[j] * (1 - slope) + found.offset[j]
            assert_allclose(at_zero, intercept, atol=1e-10)
            assert_allclose(found.scatter2[j], np.sum(residual**2) / (good[:, j].sum() - 2))
