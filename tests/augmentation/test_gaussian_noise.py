"""Noise has the variance that ivar says, whatever was there before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.augmentation import GaussianNoise


def chi2(noisy, clean):
    """Mean of squared deviations in units of the errors."""
    return float(np.mean(((noisy.flux - clean) ** 2 * noisy.ivar)[noisy.good]))


@given(
    level=st.floats(0.01, 1e5),
    before=st.one_of(st.none(), st.floats(5, 500)),
    snr=st.floats(5, 500),
    seed=st.integers(0, 999),
)
@settings(max_examples=30, deadline=None)
def test_noise_is_what_ivar_says(level, before, snr, seed):
    rng = np.random.default_rng(seed)
    clean = level * rng.uniform(0.5, 1.0, (20, 400))
    stars = Spectra(clean)
    if before is not None:
        error = level / before * rng.uniform(0.5, 2, clean.shape)
        stars = Spectra(clean + error * rng.normal(size=clean.shape), flux_err=error)
    out = GaussianNoise(snr, random_state=seed).augment(stars)
    assert_allclose(chi2(out, clean), 1, atol=0.08)
    if before is None:
        assert_allclose(np.median(out.snr), snr, rtol=0.1)
    else:
        assert (out.ivar <= stars.ivar * (1 + 1e-12)).all()
        # noisier stars are left as they are
        assert_array_equal(out.flux[stars.snr < 0.99 * snr], stars.flux[stars.snr < 0.99 * snr])


def test_signal_to_noise_ratios_of_a_range():
    out = GaussianNoise((10, 1000), random_state=0).augment(np.ones((4000, 20)))
    snr = np.sqrt(out.ivar[:, 0])
    assert 10 <= snr.min() < 11 and 950 < snr.max() <= 1000
    assert_allclose(np.median(snr), 100, rtol=0.1)
    assert_allclose(np.mean(snr < 31.6), 0.25, atol=0.03)


def test_errors_keep_their_shape():
    shape = np.linspace(0.5, 3, 300)
    stars = Spectra(np.ones((5, 300)), flux_err=0.001 * shape)
    out = GaussianNoise(20, random_state=0).augment(stars)
    assert_allclose(
        out.flux_err / shape, np.broadcast_to(out.flux_err[:, :1] / 0.5, (5, 300)), rtol=1e-9
    )
    assert_allclose(out.snr, 20, rtol=0.05)


def test_some_errors_unknown():
    ivar = np.full((3, 200), 1e6)
    ivar[:, :50], ivar[:, 50:60] = np.inf, 0
    out = GaussianNoise(10, random_state=0).augment(Spectra(np.ones((3, 200)), ivar=ivar))
    assert_allclose(np.sqrt(out.ivar[:, :50]), 10)
    assert_array_equal(out.ivar[:, 50:60], 0)
    assert_array_equal(out.flux[:, 50:60], 1)


def test_the_noise_of_the_errors():
    rng = np.random.default_rng(0)
    clean = Spectra(np.ones((50, 400)), flux_err=rng.uniform(0.01, 0.1, (50, 400)))
    out = GaussianNoise("ivar", random_state=0).augment(clean)
    assert_array_equal(out.ivar, clean.ivar)
    assert_allclose(chi2(out, 1.0), 1, atol=0.03)


def test_error_spectra_of_observed_stars():
    rng = np.random.default_rng(0)
    error = np.array([0.02, 0.05, 0.3])[:, None] * rng.uniform(0.5, 2, (3, 500))
    mask = np.zeros((3, 500), dtype=bool)
    mask[0, 100:110] = mask[2, 300] = True
    observed = Spectra(np.full((3, 500), 7.0), flux_err=7 * error, mask=mask)
    clean = Spectra(np.full((300, 500), 40.0))
    out = GaussianNoise(None, observed=observed, random_state=0).augment(clean)
    ratio = out.flux_err[:, None, 0] / (40 * error[None, :, 0])
    star = np.argmin(np.abs(np.log(ratio)), axis=1)
    assert_allclose(np.bincount(star) / 300, 1 / 3, atol=0.1)
    assert_array_equal(out.good, ~mask[star])
    assert_allclose(out.flux_err[out.good], (40 * error[star])[out.good])
    assert_array_equal(out.flux[~out.good], 40)
    assert_allclose(chi2(out, 40.0), 1, atol=0.02)
    scaled = GaussianNoise(10, observed=observed, random_state=0).augment(clean)
    assert_allclose(np.median(40 * np.sqrt(scaled.ivar), axis=1), 10, rtol=0.02)
    assert_allclose(chi2(scaled, 40.0), 1, atol=0.02)


@pytest.mark.parametrize("snr", [None, 10.0])
def test_observed_stars_that_tell_no_error_are_not_drawn(snr):
    observed = Spectra(np.ones((3, 30)), ivar=np.repeat([0.0, 100.0, np.inf], 30).reshape(3, 30))
    out = GaussianNoise(snr, observed=observed, random_state=0).augment(np.ones((40, 30)))
    assert_allclose(out.ivar, 100)


def test_a_blind_star_among_those_whose_errors_are_drawn():
    n_pixels = 2**17  # so many are augmented one star at a time
    ivar = np.repeat([[100.0], [0.0]], n_pixels, axis=1)
    out = GaussianNoise("ivar", random_state=0).augment(Spectra(np.ones((2, n_pixels)), ivar=ivar))
    assert_allclose(np.std(out.flux, axis=1), [0.1, 0.0], rtol=0.02)
    assert_array_equal(out.ivar, ivar)


def test_bad_input_is_told():
    stars = Spectra(np.ones((3, 20)), wavelength=np.arange(20.0) + 5000)
    for noise, message in (
        (GaussianNoise(None), "needs snr=..., observed=... or both"),
        (GaussianNoise("ivar"), "draws noise from the errors"),
        (GaussianNoise((50, 20)), "snr must be a number or a range"),
        (GaussianNoise(observed=stars), "it has none"),
        (GaussianNoise(observed=stars[:, :10]), "on the pixels of the spectra"),
        (GaussianNoise(observed=stars.replace(wavelength=stars.wavelength + 1)), "Resampler"),
        (GaussianNoise(observed=np.ones((3, 20))), "takes its observed set as Spectra"),
    ):
        with pytest.raises(ValueError, match=message):
            noise.augment(stars)
