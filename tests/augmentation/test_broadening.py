"""Broadened lines have the profile they should, on every grid, and keep their strength."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.augmentation import InstrumentBroadening, RotationalBroadening
from skspec.solvers.spectra.broadening import gray_profile
from skspec.solvers.spectra.line_of_sight import C_KMS

GRIDS = {
    "uniform in velocity": 5000 * np.exp(np.arange(3000) * 5e-6),  # 1.5 km/s
    "uniform in wavelength": np.linspace(5000, 5075, 3000),
    "any": 5000 * np.exp(5e-6 * (np.arange(3000) + 100 * np.sin(np.arange(3000) / 500))),
}
every_grid = pytest.mark.parametrize("grid", GRIDS)


def velocities(wavelength, centre=5037.0):
    return C_KMS * np.log(wavelength / centre)


def one_line(wavelength, sigma=3.0, depth=0.5):
    """Spectrum with a Gaussian line, `sigma` in km/s."""
    v = velocities(wavelength)
    return Spectra(1 - depth * np.exp(-0.5 * (v / sigma) ** 2), wavelength=wavelength)


def equivalent_width(spectra):
    return np.trapezoid(1 - np.where(spectra.good, spectra.flux, 1), np.log(spectra.wavelength))


@every_grid
@pytest.mark.parametrize("epsilon", [0.0, 0.6, 1.0])
def test_a_narrow_line_becomes_the_profile_of_gray(grid, epsilon):
    wavelength = GRIDS[grid]
    line = one_line(wavelength, sigma=2.5)
    out = RotationalBroadening(40.0, epsilon=epsilon).augment(line)
    v = velocities(wavelength)
    narrow = np.linspace(-4, 4, 161)  # the width of the line itself
    weight = np.exp(-0.5 * narrow**2)
    profile = gray_profile((v[:, None] - 2.5 * narrow) / 40, epsilon) @ weight / weight.sum() / 40
    expected = 1 - 0.5 * 2.5 * np.sqrt(2 * np.pi) * profile
    assert_allclose(out.flux[0], expected, atol=1e-3 * (1 - expected.min()))


def test_a_line_of_one_pixel_becomes_the_profile_of_gray():
    wavelength = GRIDS["uniform in velocity"]
    flux = np.ones((1, 3000))
    flux[0, 1500] = 0.0
    out = RotationalBroadening(90.0).augment(Spectra(flux, wavelength=wavelength))
    v = velocities(wavelength, wavelength[1500])
    step = C_KMS * 5e-6
    expected = gray_profile(v / 90, 0.6) * step / 90
    assert_allclose(1 - out.flux[0], expected, atol=0.01 * expected.max())


@every_grid
def test_a_gaussian_line_becomes_wider(grid):
    wavelength = GRIDS[grid]
    before = C_KMS / 30000 / np.sqrt(8 * np.log(2))
    after = C_KMS / 8000 / np.sqrt(8 * np.log(2))
    coarse = InstrumentBroadening(8000, from_resolution=30000).augment(one_line(wavelength, before))
    expected = one_line(wavelength, after, 0.5 * before / after).flux
    inside = coarse.good[0]
    assert_allclose(coarse.flux[0, inside], expected[0, inside], atol=1e-4)
    narrow = InstrumentBroadening(8000).augment(one_line(wavelength, 2.5))
    assert_allclose(
        equivalent_width(narrow), equivalent_width(one_line(wavelength, 2.5)), rtol=2e-4
    )
    fwhm = np.ptp(velocities(wavelength)[narrow.flux[0] < 0.5 * (1 + narrow.flux.min())])
    assert_allclose(fwhm, np.hypot(C_KMS / 8000, 2.5 * 2.355), rtol=0.1)


@given(vsini=st.floats(0, 80), epsilon=st.floats(0, 1), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_equivalent_widths_are_kept(vsini, epsilon, seed):
    wavelength = 5000 * np.exp(np.arange(1200) * 1e-5)
    rng = np.random.default_rng(seed)
    centre = rng.uniform(5020, 5040, (6, 1))  # further from the ends than the widest profile
    lines = rng.uniform(0, 0.3, 6) @ np.exp(-0.5 * ((wavelength - centre) / 0.15) ** 2)
    star = Spectra(1 - lines, wavelength=wavelength)
    out = RotationalBroadening(vsini, epsilon=epsilon).augment(star)
    assert_allclose(equivalent_width(out), equivalent_width(star), rtol=1e-4, atol=1e-9)


def test_the_same_as_a_plain_convolution():
    wavelength = GRIDS["uniform in velocity"]
    rng = np.random.default_rng(0)
    centre = rng.uniform(5000, 5075, (60, 1))
    lines = rng.uniform(0, 0.3, 60) @ np.exp(-0.5 * ((wavelength - centre) / 0.08) ** 2)
    star = Spectra(1 - lines, wavelength=wavelength)
    for vsini in (12.0, 55.0):
        out = RotationalBroadening(vsini).augment(star)
        half = int(vsini / (C_KMS * 5e-6)) + 2
        # the mean of the profile over each pixel
        fine = (np.arange(-half, half + 1)[:, None] + np.linspace(-0.5, 0.5, 41)) * C_KMS * 5e-6
        kernel = gray_profile(fine / vsini, 0.6).mean(axis=1)
        expected = 1 - np.convolve(lines, kernel / kernel.sum(), mode="same")
        inside = slice(half, -half)
        assert_allclose(out.flux[0, inside], expected[inside], atol=2e-3)


def test_orders_do_not_see_each_other():
    one, two = (5000 * np.exp(np.arange(a, a + 600) * 1e-5) for a in (0, 500))
    flux = [1 - 0.5 * np.exp(-0.5 * ((w - 5028) / 0.2) ** 2) for w in (one, two)]
    both = Spectra(
        np.concatenate(flux), wavelength=np.concatenate([one, two]), order=np.repeat([7, 8], 600)
    )
    out = RotationalBroadening(50.0).augment(both)
    for part, wavelength, number in ((flux[0], one, 7), (flux[1], two, 8)):
        alone = RotationalBroadening(50.0).augment(Spectra(part, wavelength=wavelength))
        here = out[:, both.order == number]
        assert_array_equal(here.good, alone.good)
        assert 5 < (~here.good).sum() < 40
        assert_allclose(here.flux[here.good], alone.flux[here.good], atol=1e-6)


@pytest.mark.parametrize("wide", [RotationalBroadening(400.0), InstrumentBroadening((900, 3000))])
@pytest.mark.parametrize("grid", ["uniform in velocity", "uniform in wavelength"])
def test_wide_kernels_do_not_see_the_next_order(wide, grid):
    """Several hundred pixels wide: whatever the next order holds."""
    spectra = Spectra(np.ones((1, 3000)), wavelength=GRIDS[grid], order=np.arange(3000) // 1500)
    spectra.flux[:, 1500:] = 3.0
    out = wide.augment(spectra, random_state=0)
    assert_allclose(out.flux, spectra.flux, atol=1e-5)


def test_an_order_that_one_star_lacks_does_not_dim_the_next():
    wavelength = 5000 * np.exp(np.arange(2000) * 2e-6)
    ivar = np.full((2, 2000), 1e4)
    ivar[0, 1000:] = 0
    flat = Spectra(
        np.ones((2, 2000)), ivar=ivar, wavelength=wavelength, order=np.arange(2000) // 1000
    )
    out = RotationalBroadening(70.0).augment(flat)
    assert out.good[0, :1000].sum() > 800 and not out.good[0, 1000:].any()
    assert_allclose(out.flux[out.good], 1, atol=1e-9)


def test_errors_may_leave_single_precision():
    small = np.ones((1, 3000), dtype=np.float32)
    star = Spectra(
        small * np.float32(1e-17),
        flux_err=small * np.float32(1e-19),
        wavelength=GRIDS["uniform in velocity"],
    )
    assert star.ivar.dtype == np.float32
    out = RotationalBroadening(70.0).augment(star)
    assert np.isfinite(out.ivar).all() and out.snr[0] > 300


def test_the_ends_are_bad_in_all_stars_alike():
    wavelength = 5000 * np.exp(np.arange(1200) * 1e-5)
    stars = Spectra(np.ones((50, 1200)), wavelength=wavelength)
    out = RotationalBroadening((0, 60), p=0.5, random_state=0).augment(stars)
    assert np.all(out.good == out.good[0])
    bad = np.flatnonzero(~out.good[0])
    reach = 60 / (C_KMS * 1e-5)
    assert set(bad) == set(range(len(bad) // 2)) | set(range(1200 - len(bad) // 2, 1200))
    assert 0.5 * reach < len(bad) / 2 < reach
    with pytest.raises(ValueError, match="leaves no pixel"):
        RotationalBroadening((0, 6000)).augment(stars)


def test_errors_are_those_of_the_broadened_pixels():
    wavelength = 5000 * np.exp(np.arange(1200) * 1e-5)
    rng = np.random.default_rng(0)
    stars = Spectra(1 + 0.1 * rng.normal(size=(300, 1200)), flux_err=0.1, wavelength=wavelength)
    out = RotationalBroadening((20, 60), random_state=0).augment(stars)
    pull = (out.flux - 1) * np.sqrt(out.ivar)
    assert_allclose(pull[out.good].std(), 1, rtol=0.02)
    assert np.median(out.snr) > 25


def test_stars_of_unknown_noise():
    wavelength = 5000 * np.exp(np.arange(300) * 1e-5)
    mask = np.zeros((2, 300), dtype=bool)
    mask[0, 150] = True
    out = RotationalBroadening(5.0).augment(
        Spectra(np.ones((2, 300)), mask=mask, wavelength=wavelength)
    )
    assert not out.good[0, 150] and not out.has_errors
    assert np.isinf(out.ivar[1, 20:-20]).all()


@pytest.mark.parametrize(
    "augmentation, message",
    [
        (RotationalBroadening((30, 10)), "vsini must be a number or a range"),
        (RotationalBroadening((10, 20, 30)), "vsini must be a number or a range"),
        (RotationalBroadening(epsilon=(0.5, 1.5)), "epsilon must be a number or a range"),
        (InstrumentBroadening(30000, from_resolution=20000), "no convolution sharpens"),
        (InstrumentBroadening((0, 100)), "resolution must be"),
    ],
)
def test_bad_input_is_told(augmentation, message):
    with pytest.raises(ValueError, match=message):
        augmentation.augment(one_line(GRIDS["any"]))


@pytest.mark.parametrize("augmentation", [RotationalBroadening(), InstrumentBroadening(5000)])
def test_wavelengths_are_needed(augmentation):
    with pytest.raises(ValueError, match="needs the wavelengths: pass Spectra"):
        augmentation.augment(np.ones((2, 50)))
    with pytest.raises(ValueError, match="ascend"):
        augmentation.augment(Spectra(np.ones((2, 50)), wavelength=np.linspace(6000, 5000, 50)))
