import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec import Spectra, domain_score
from skspec.calibration import ResidualCovarianceRegressor
from skspec.discriminative import KernelPCARegressor
from skspec.metrics import coverage


@pytest.fixture(scope="module")
def train(draw_stars):
    return draw_stars(200, wiggle=1.0)


@pytest.fixture(scope="module")
def model(train):
    return KernelPCARegressor(cv=4).fit(*train)


def test_beats_a_linear_regression_and_tells_its_errors(train, model, draw_stars):
    spectra, labels = draw_stars(300, wiggle=1.0, seed=1)
    truth = labels.to_numpy()
    linear = ResidualCovarianceRegressor().fit(*train)
    error, other = (np.abs(m.predict(spectra) - truth).mean(axis=0) for m in (model, linear))
    assert np.all(error < 0.95 * other)
    assert_allclose(coverage(truth, model.predict_dist(spectra), 1), 0.6827, atol=0.1)


def test_gradient_is_the_finite_difference(train, model):
    for scale_pixels in (True, False):
        fitted = KernelPCARegressor(gamma=0.5, scale_pixels=scale_pixels, cv=3).fit(*train)
        stars = train[0][:4]
        flux = stars.flux
        gradient = fitted.label_gradient(flux)
        for pixel in (0, 17, 49):
            step = np.zeros(50)
            step[pixel] = 1e-5
            mean = [fitted.predict(stars.replace(flux=flux + s * step)) for s in (1, -1)]
            assert_allclose(gradient[:, :, pixel], (mean[0] - mean[1]) / 2e-5, rtol=1e-5)


def test_noisier_stars_get_honest_errors(train, model, draw_stars):
    spectra, labels = draw_stars(400, wiggle=1.0, noise=0.04, seed=2)
    dist = model.predict_dist(spectra)
    truth = labels.to_numpy()
    assert np.all(coverage(truth, dist, 1) > 0.55)
    unaware = KernelPCARegressor(cv=4, ivar="ignore").fit(*train).predict_dist(spectra)
    assert np.all(coverage(truth, unaware, 1) < 0.5)


def test_bad_pixels_are_filled_with_what_the_others_tell(model, draw_stars):
    spectra, labels = draw_stars(100, wiggle=1.0, seed=1)
    bad = np.random.default_rng(0).random(spectra.shape) < 0.15
    holes = spectra.replace(flux=np.where(bad, np.nan, spectra.flux))
    whole, holey = (
        np.abs(model.predict(s) - labels.to_numpy()).mean(axis=0) for s in (spectra, holes)
    )
    assert np.all(holey < 2 * whole)
    median = np.median(spectra.flux, axis=0)
    filled = model.predict(spectra.replace(flux=np.where(bad, median, spectra.flux)))
    assert np.all(holey < 0.7 * np.abs(filled - labels.to_numpy()).mean(axis=0))


def test_what_was_chosen_can_be_given(train, model):
    spectra, labels = train
    same = KernelPCARegressor(cv=4, **model.best_params_).fit(spectra, labels)
    assert same.best_params_ == model.best_params_
    assert_allclose(same.predict(spectra), model.predict(spectra))
    assert_allclose(same.label_covariance_, model.label_covariance_)


@pytest.mark.parametrize("gamma", [[0.5, -1.0], [[1.0]]])
def test_bad_gamma(train, gamma):
    with pytest.raises(ValueError, match="gamma must be positive"):
        KernelPCARegressor(gamma=gamma).fit(*train)


def test_domain_score(train, model, draw_stars):
    spectra = draw_stars(200, wiggle=1.0, seed=2)[0]
    ivar = spectra.ivar.copy()
    ivar[3] = 0
    score = domain_score(model, spectra.replace(ivar=ivar))
    assert np.isnan(score[3])
    assert 0 < np.nanmean(score > 1) < 0.1
    other = spectra.replace(flux=np.roll(spectra.flux, 1, axis=1))
    assert np.median(domain_score(model, other)) > 1
    with pytest.raises(ValueError, match="12 features"):
        domain_score(model, spectra[:, :12])


def test_spectra_of_a_star_are_never_on_both_sides():
    rng = np.random.default_rng(0)
    star = rng.permutation(np.repeat(np.arange(20), 5))
    flux = rng.normal(size=(20, 60))[star] + 0.01 * rng.normal(size=(100, 60))
    labels = rng.normal(size=(20, 1))[star]
    honest = KernelPCARegressor(gamma=0.5).fit(Spectra(flux, meta={"star_id": star}), labels)
    leaky = KernelPCARegressor(gamma=0.5).fit(flux, labels)
    assert leaky.label_covariance_[0, 0] < 0.1 < 0.5 < honest.label_covariance_[0, 0]
