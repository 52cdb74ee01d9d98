import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra
from skspec.preprocessing import BadPixelMasker


@parametrize_with_checks([BadPixelMasker(), BadPixelMasker((-1, 1), sigma_clip=2, grow=1, width=3)])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def spectra():
    rng = np.random.default_rng(0)
    flux = 1 + 0.01 * rng.normal(size=(6, 200))
    return Spectra(flux, flux_err=0.01, wavelength=np.linspace(5000, 5200, 200))


def test_nothing_by_default(spectra):
    assert BadPixelMasker().fit_transform(spectra) is spectra


def test_flux_range_and_neighbours(spectra):
    flux = spectra.flux.copy()
    flux[2, [50, 199]], flux[3, 7] = 200.0, -1.0
    dirty = spectra.replace(flux=flux)
    out = BadPixelMasker(flux_range=(1e-3, 1e2), grow=2).fit_transform(dirty)
    expected = np.zeros(flux.shape, dtype=bool)
    expected[2, 48:53] = expected[2, 197:] = expected[3, 5:10] = True
    assert_array_equal(out.ivar == 0, expected)
    assert_array_equal(out.flux, flux)
    assert dirty.good.all()


def test_neighbours_of_pixels_bad_on_input(spectra):
    mask = np.zeros(spectra.shape, dtype=bool)
    mask[0, 10] = True
    out = BadPixelMasker(grow=1).fit_transform(spectra.replace(mask=mask))
    assert_array_equal(np.flatnonzero(~out.good.all(axis=0)), [9, 10, 11])
    assert out.good[1:].all()


def test_errors_and_snr(spectra):
    err = np.full(spectra.shape, 0.01)
    err[1, 5], err[1, 6] = 0.5, 5.0
    noisy = spectra.replace(flux_err=err)
    assert_array_equal(
        np.argwhere(~BadPixelMasker(max_flux_err=1.0).fit_transform(noisy).good), [[1, 6]]
    )
    assert_array_equal(
        np.argwhere(~BadPixelMasker(min_snr=10).fit_transform(noisy).good), [[1, 5], [1, 6]]
    )
    unknown = Spectra(spectra.flux)
    assert BadPixelMasker(max_flux_err=1.0, min_snr=10).fit_transform(unknown).ivar is None


def test_sigma_clip_one_sided_spares_lines(spectra):
    flux = spectra.flux * np.linspace(1, 3, 200)
    flux[0, 30] *= 2  # cosmic ray
    flux[0, 90] *= 0.3  # line
    dirty = spectra.replace(flux=flux)
    both = BadPixelMasker(sigma_clip=8, width=10).fit_transform(dirty)
    assert_array_equal(np.argwhere(~both.good), [[0, 30], [0, 90]])
    upper = BadPixelMasker(sigma_clip=(np.inf, 8), width=10).fit_transform(dirty)
    assert_array_equal(np.argwhere(~upper.good), [[0, 30]])


def test_sigma_clip_without_spread_or_pixels():
    flux = np.ones((2, 20))
    mask = np.zeros((2, 20), dtype=bool)
    mask[1] = True
    out = BadPixelMasker(sigma_clip=(np.inf, 3)).fit_transform(Spectra(flux, mask=mask))
    assert_array_equal(out.good, ~mask)


def test_windows(spectra):
    masker = BadPixelMasker(wavelength_windows=[(5010, 5020), (5100, 5101)])
    w = spectra.wavelength
    inside = ((w >= 5010) & (w <= 5020)) | ((w >= 5100) & (w <= 5101))
    assert_array_equal(masker.fit_transform(spectra).good, np.tile(~inside, (6, 1)))
    with pytest.raises(ValueError, match="needs the wavelengths"):
        masker.fit(spectra.flux)


def test_plain_arrays_get_the_median_of_the_training_stars(spectra):
    flux = spectra.flux.copy()
    flux[4, 11] = 1e6
    out = BadPixelMasker(flux_range=(0, 2)).fit_transform(flux)
    assert isinstance(out, np.ndarray)
    assert out[4, 11] == np.median(np.delete(flux[:, 11], 4))
    out[4, 11] = flux[4, 11]
    assert_array_equal(out, flux)


def test_pixel_bad_in_every_star():
    flux = np.ones((3, 5), dtype=np.float32)
    flux[:, 2] = 9
    out = BadPixelMasker(flux_range=(0, 2)).fit_transform(flux)
    assert out.dtype == np.float32
    assert_array_equal(out[:, 2], 0)
    masked = BadPixelMasker(flux_range=(0, 2)).fit_transform(Spectra(flux))
    assert_array_equal(masked.good[:, 2], False)
