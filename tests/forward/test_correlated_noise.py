"""Formal errors of spectra whose noise is correlated between pixels."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.base import clone

from skspec import Spectra
from skspec.datasets import make_spectra
from skspec.forward import SpectralGP, TheCannon
from skspec.likelihood import Inversion

WAVELENGTH = 5000 * np.exp(np.arange(700) * 1e-4)
SNR = 40.0


@pytest.fixture(scope="module")
def data():
    """Training set, and stars whose noise was smoothed by as much as a resampling does."""
    spectra, labels = make_spectra(
        450,
        wavelength=WAVELENGTH,
        resolution=4000,
        snr=400,
        random_state=3,
        label_ranges={"teff": (5000, 6000), "logg": (4, 4.6)},
    )
    rng = np.random.default_rng(4)
    model = TheCannon(label_covariance=False).fit(spectra[:200], labels[:200])
    truth = labels[200:]
    noise = gaussian_filter1d(rng.normal(size=(len(truth), len(WAVELENGTH))), 1.2, axis=1)
    noise *= 1 / SNR / noise.std()
    flux = model.predict_flux(truth) + noise
    stars = Spectra(flux, flux_err=1 / SNR, wavelength=WAVELENGTH)
    return spectra[:200], labels[:200], stars, truth.to_numpy()


def pull(model, data, length):
    train, y, stars, truth = data
    model = clone(model).set_params(inversion__correlation_length=length).fit(train, y)
    result = model.invert(stars)
    usable = ~result.at_bound.any(axis=1)
    return np.std(((result.labels - truth) / result.formal_dist.std())[usable], axis=0), result


@pytest.mark.parametrize(
    "free", [{}, {"fit_rv": True, "continuum_degree": 2}], ids=["rest", "free"]
)
def test_correlated_noise_is_counted(data, free):
    model = TheCannon(label_covariance=False, **free)
    independent, before = pull(model, data, 0)
    counted, after = pull(model, data, 12)
    assert np.all(independent > 1.4)
    assert np.all(np.abs(counted - 1) < 0.25)
    np.testing.assert_allclose(after.labels, before.labels)
    np.testing.assert_allclose(after.chi2, before.chi2)
    if free:
        assert np.median(after.rv_std / before.rv_std) > 1.2


@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_independent_noise_is_left_alone(data, loss):
    train, y, _, truth = data
    rng = np.random.default_rng(5)
    model = TheCannon(label_covariance=False, inversion=Inversion(loss)).fit(train, y)
    flux = model.predict_flux(truth) + rng.normal(size=(len(truth), len(WAVELENGTH))) / SNR
    stars = Spectra(flux, flux_err=1 / SNR, wavelength=WAVELENGTH)
    before = model.invert(stars).formal_dist.std()
    after = model.set_params(inversion__correlation_length=8).invert(stars).formal_dist.std()
    np.testing.assert_allclose(np.median(after / before, axis=0), 1.0, atol=0.05)


def test_both_routes_to_the_information_agree(data):
    """With a continuum of degree 0 of spectra that fit it, hardly anything is marginalised."""
    train, y, stars, _ = data
    plain = SpectralGP(label_covariance=False, inversion=Inversion(correlation_length=10)).fit(
        train, y
    )
    free = SpectralGP(
        label_covariance=False, inversion=Inversion(correlation_length=10), fit_rv=True
    ).fit(train, y)
    first, second = (model.invert(stars[:40]).formal_dist.std() for model in (plain, free))
    assert np.median(second / first) == pytest.approx(1.0, abs=0.1)


def test_bad_pixels_do_not_matter(data):
    train, y, stars, _ = data
    model = TheCannon(label_covariance=False, inversion=Inversion(correlation_length=10)).fit(
        train, y
    )
    ivar, flux = stars.ivar.copy(), stars.flux.copy()
    ivar[:, 100:130] = 0.0
    first = model.invert(stars.replace(ivar=ivar)).formal_cov
    flux[:, 100:130] = 1e6
    second = model.invert(stars.replace(flux=flux, ivar=ivar)).formal_cov
    np.testing.assert_allclose(first, second)
