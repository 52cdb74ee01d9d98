"""Shifted lines are where they should be, as others measure it."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.augmentation import Compose, RadialVelocityShift, RotationalBroadening
from skspec.solvers.spectra.cross_correlation import velocity_scan
from skspec.solvers.spectra.line_of_sight import C_KMS

GRIDS = {
    "uniform in velocity": 5000 * np.exp(np.arange(1500) * 1e-5),
    "uniform in wavelength": np.linspace(5000, 5075, 1500),
}


def lines(wavelength, factor=1.0, sigma=0.12, seed=0):
    rng = np.random.default_rng(seed)
    centre = factor * rng.uniform(5000, 5075, (60, 1))
    return 1 - rng.uniform(0, 0.3, 60) @ np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2)


@pytest.mark.parametrize("grid", GRIDS)
def test_velocities_are_recovered_by_cross_correlation(grid):
    wavelength = GRIDS[grid]
    star = Spectra(np.tile(lines(wavelength), (40, 1)), ivar=1e4, wavelength=wavelength)
    shift = RadialVelocityShift((-80, 80), random_state=0)
    out, y = shift.augment(star, pd.DataFrame({"rv": np.zeros(40)}))
    assert np.ptp(y["rv"]) > 140
    scan = velocity_scan(out.flux, out.ivar, star.flux[:1], wavelength, (-100, 100))
    assert_allclose(scan.rv, y["rv"], atol=0.15)  # of pixels of 3 km/s


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rv", [-250.0, 3.3, 77.0])
def test_the_shift_is_relativistic(grid, rv):
    wavelength = GRIDS[grid]
    out = RadialVelocityShift(rv).augment(Spectra(lines(wavelength), wavelength=wavelength))
    factor = np.sqrt((1 + rv / C_KMS) / (1 - rv / C_KMS))
    inside = out.good[0]
    assert_allclose(out.flux[0, inside], lines(wavelength / factor)[inside], atol=5e-3)
    away = inside & np.roll(inside, 3) & np.roll(inside, -3)
    assert_allclose(out.flux[0, away], lines(wavelength / factor)[away], atol=1e-3)
    assert_array_equal(np.flatnonzero(~inside) < 750, np.full((~inside).sum(), rv > 0))
    lost = abs(rv) / C_KMS / np.median(np.diff(np.log(wavelength)))
    assert abs((~inside).sum() - lost) <= 0.02 * lost + 2


def test_the_ends_are_bad_in_all_stars_alike():
    wavelength = GRIDS["uniform in velocity"]
    stars = Spectra(np.tile(lines(wavelength), (30, 1)), flux_err=0.01, wavelength=wavelength)
    shift = RadialVelocityShift((-30, 60), p=0.5, random_state=0)
    for augmentation in (shift, Compose([RotationalBroadening((0, 50)), shift], random_state=0)):
        good = augmentation.augment(stars).good
        assert np.all(good == good[0])
        assert not good[0, :20].any() and not good[0, -10:].any() and good[0, 60:-60].all()


def test_velocities_of_labels_are_added_relativistically():
    wavelength = GRIDS["uniform in velocity"]
    stars = Spectra(np.ones((2, 1500)), wavelength=wavelength)
    fast = 0.6 * C_KMS
    y = RadialVelocityShift(100.0, label=0).augment(stars, np.array([fast, -100.0]))[1]
    assert_allclose(y, [(fast + 100) / (1 + 0.6 * 100 / C_KMS), 0.0], atol=1e-6)


def test_a_shift_and_back():
    wavelength = GRIDS["uniform in wavelength"]
    star = Spectra(lines(wavelength), wavelength=wavelength)
    there = RadialVelocityShift(41.0).augment(star)
    back = RadialVelocityShift(-41.0).augment(there)
    inside = back.good[0]
    assert inside[30:-30].sum() > 1300
    assert_allclose(back.flux[0, inside], star.flux[0, inside], atol=5e-3)


def test_noise_stays_as_it_is():
    wavelength = GRIDS["uniform in velocity"]
    rng = np.random.default_rng(0)
    error = np.where(np.arange(1500) < 700, 0.01, 0.03)
    noise = Spectra(1 + error * rng.normal(size=(200, 1500)), flux_err=error, wavelength=wavelength)
    out = RadialVelocityShift((-50, 50), random_state=0).augment(noise)
    pull = (out.flux - 1) * np.sqrt(out.ivar)
    away = np.r_[50:650, 750:1450]
    assert_allclose(pull[:, away].std(), 1, rtol=0.01)


@pytest.mark.parametrize(
    "rv, message",
    [((5, -5), "rv must be a number or a range"), (20000.0, "leaves no pixel")],
)
def test_bad_input_is_told(rv, message):
    star = Spectra(np.ones((1, 1500)), wavelength=GRIDS["uniform in velocity"])
    with pytest.raises(ValueError, match=message):
        RadialVelocityShift(rv).augment(star)
    with pytest.raises(ValueError, match="needs the wavelengths"):
        RadialVelocityShift().augment(star.flux)
