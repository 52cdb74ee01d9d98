"""Kernels, and spectra broadened and shifted, against slow and plain formulae."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from skspec.solvers.spectra.broadening import (
    bridge,
    broaden,
    gaussian_reach,
    gray_profile,
    rotation_reach,
    rotation_transform,
    shift,
    sight_of,
)
from skspec.solvers.spectra.line_of_sight import rotation_kernel

UNIFORM = 5000 * np.exp(np.arange(1200) * 1e-5)
LINEAR = np.linspace(5000, 5060, 1200)


@pytest.mark.parametrize("epsilon", [0.0, 0.6, 1.0])
def test_the_profile_of_gray_and_its_transform(epsilon):
    assert_allclose(quad(gray_profile, -1, 1, args=(epsilon,))[0], 1, rtol=1e-6)
    assert gray_profile(1.2, epsilon) == 0
    for a in (0.0, 0.7, 5.3, 40.0):
        slow = quad(lambda x: gray_profile(x, epsilon) * np.cos(a * x), -1, 1, limit=200)[0]  # noqa: B023
        assert_allclose(rotation_transform(a, epsilon), slow, atol=5e-6)
    k = np.linspace(0, np.pi, 300)
    expected = rotation_kernel(k, 900.0, epsilon)[0]
    assert_allclose(rotation_transform(30.0 * k, epsilon), expected, atol=5e-6)
    x = rotation_reach(epsilon, 0.05)
    assert_allclose(quad(gray_profile, x, 1, args=(epsilon,))[0], 0.05, atol=1e-3)
    assert_allclose(norm.sf(gaussian_reach(0.05)), 0.05)


def filled_slowly(values, good, segments):
    out = np.zeros_like(values)
    for row, ok, new in zip(values, good, out):
        for a, b in segments:
            at = a + np.flatnonzero(ok[a:b])
            at = at if len(at) else np.flatnonzero(ok)  # of its neighbours
            if len(at):
                new[a:b] = np.interp(np.arange(a, b), at, row[at])
    return out


@given(seed=st.integers(0, 10_000), bad=st.floats(0, 1), cut=st.integers(1, 19))
@settings(max_examples=50, deadline=None)
def test_bad_pixels_are_bridged(seed, bad, cut):
    rng = np.random.default_rng(seed)
    values, good = rng.normal(size=(4, 20)), rng.random((4, 20)) >= bad
    segments = [(0, cut), (cut, 20)]
    expected = filled_slowly(values, good, segments)
    garbage = np.where(good, values, 1e30)
    assert_allclose(bridge(good, segments)(garbage), expected, rtol=1e-10, atol=1e-12)
    assert_array_equal(garbage, np.where(good, values, 1e30))


@pytest.mark.parametrize("grid", [UNIFORM, LINEAR])
@pytest.mark.parametrize("width", [1.5, 4.0])
def test_variance_of_white_noise(grid, width):
    """The noise of a broadened pixel is what is stated."""
    sight = sight_of(grid)
    rng = np.random.default_rng(0)
    error = np.where(np.arange(1200) < 600, 1.0, 3.0)
    noise = error * rng.normal(size=(800, 1200))
    scale = width * np.median(sight.pixel_steps)

    def transfer(rows):
        return np.exp(-0.5 * (scale * sight.frequency) ** 2) + np.zeros((len(noise[rows]), 1))

    flux, good, variance = broaden(sight, noise, None, np.tile(error**2, (800, 1)), transfer)
    assert good is None
    for part in (slice(30, 560), slice(640, 1170)):
        measured = flux[:, part].var(axis=0).mean()
        assert_allclose(variance[:, part].mean(), measured, rtol=0.02)
    assert_allclose(flux[:, 30:560].var(axis=0).mean(), 1 / (2 * np.sqrt(np.pi) * width), rtol=0.03)


def test_pixels_whose_kernel_is_on_bad_ones_are_bad():
    sight = sight_of(UNIFORM)
    good = np.ones((2, 1200), dtype=bool)
    good[0, 300] = good[0, 600:640] = False

    def transfer(rows):
        return np.exp(-0.5 * (5.0 * sight.frequency) ** 2)[None]

    flux, new, _ = broaden(sight, np.ones((2, 1200)), good, None, transfer, 0.05)
    assert new[1].all()
    # 40 bad pixels: at the 95 % point of the Gaussian; one alone: some 8 % at its middle
    reach = gaussian_reach(0.05) * 5.0
    bad = np.flatnonzero(~new[0])
    expected = np.r_[300 - 4 : 300 + 5, np.ceil(599.5 - reach) : np.floor(639.5 + reach) + 1]
    assert set(np.setxor1d(bad, expected)) <= {295, 296, 304, 305, 591, 592, 647, 648}
    assert_allclose(flux, 1, atol=1e-12)


def test_shift_takes_errors_and_bad_pixels_along():
    sight = sight_of(UNIFORM)
    variance = np.random.default_rng(0).uniform(1, 2, (3, 1200))
    good = np.ones((3, 1200), dtype=bool)
    good[:, 500] = False
    line = 1 - 0.5 * np.exp(-0.5 * ((np.arange(1200) - 700) / 3.0) ** 2)
    flux = np.where(good, line, -9.0)
    shifts = np.array([0.0, 7.0, -2.5]) * sight.step
    new, ok, moved = shift(sight, flux, good, variance, shifts)
    assert_array_equal(moved[1, 20:], variance[1, 13:-7])
    assert_array_equal(np.flatnonzero(~ok[1]), [506, 507, 508])
    assert set(np.flatnonzero(~ok[2])) >= {497, 498}
    assert_allclose(new[1, 20:-20], np.roll(line, 7)[20:-20], atol=1e-8)
    middle = 1 - 0.5 * np.exp(-0.5 * ((np.arange(1200) - 697.5) / 3.0) ** 2)
    assert_allclose(new[2, 20:-20], middle[20:-20], atol=1e-6)
    assert_array_equal(flux[:, 500], -9.0)
