import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import fftconvolve

from skspec.solvers.spectra.line_of_sight import C_KMS, KERNELS, LineOfSight, ln_shift, velocity

UNIFORM = 5000.0 * np.exp(np.arange(1500) * 2e-5)
GRIDS = {
    "uniform in ln": UNIFORM,
    "uniform in wavelength": np.linspace(5000, 5150, 1500),
    "chips": np.delete(UNIFORM, slice(600, 700)),
}


def lines(u, width=15.0):
    """Twenty Gaussian lines of 15 km/s at fixed places in u = ln(wavelength)."""
    rng = np.random.default_rng(3)
    centre = rng.uniform(np.log(5002), np.log(5148), 20)
    depth = rng.uniform(0.1, 0.5, 20)
    return 1 - np.exp(-0.5 * ((u[:, None] - centre) * C_KMS / width) ** 2) @ depth


def test_velocity_and_shift_are_inverse_and_relativistic():
    beta = 0.1
    ratio = np.sqrt((1 + beta) / (1 - beta))
    assert_allclose(ln_shift(beta * C_KMS), np.log(ratio), rtol=1e-12)
    assert_allclose(velocity(ln_shift(-321.0)), -321.0, rtol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rv", [-180.0, -0.7, 33.3, 210.0])
def test_shifted_lines_are_where_doppler_puts_them(grid, rv):
    wavelength = GRIDS[grid]
    u, sight = np.log(wavelength), LineOfSight(wavelength)
    z = np.atleast_1d(ln_shift(rv))
    hat = sight.transform(lines(u)[None]) * sight.phase(z / sight.step)
    inside = sight.covers(z, z)[0]
    edge = int(np.ceil(abs(z[0]) / sight.step))
    assert (~inside).sum() <= (edge + 1) * (2 if grid == "chips" else 1)
    inside &= sight.covers(z - 5e-5, z + 5e-5)[0]
    atol = 2e-3 if grid == "uniform in wavelength" else 3e-4
    assert_allclose(sight.spectra(hat)[0][inside], lines(u - z)[inside], atol=atol)


@pytest.mark.parametrize("grid", GRIDS)
def test_nothing_done_changes_nothing(grid):
    flux = lines(np.log(GRIDS[grid]))[None]
    sight = LineOfSight(GRIDS[grid])
    same = sight.spectra(sight.transform(flux) * sight.phase([0.0]))
    assert_allclose(same, flux, atol=1e-12 if grid != "uniform in wavelength" else 5e-4)


def test_gaussian_broadening_adds_widths_in_quadrature():
    u, sight = np.log(UNIFORM), LineOfSight(UNIFORM)
    s = (20.0 / C_KMS / sight.step) ** 2
    hat = sight.transform(lines(u)[None]) * KERNELS["gaussian"](sight.frequency, s)[0]
    rng = np.random.default_rng(3)
    centre, depth = rng.uniform(np.log(5002), np.log(5148), 20), rng.uniform(0.1, 0.5, 20)
    z = (u[:, None] - centre) * C_KMS / 25.0  # 15 (+) 20 = 25 km/s
    expected = 1 - np.exp(-0.5 * z**2) @ (depth * 15 / 25)
    assert_allclose(sight.spectra(hat)[0][60:-60], expected[60:-60], atol=2e-4)


def test_rotation_is_the_profile_of_gray():
    """Limb-darkened rotation, against the convolution with its profile in velocity."""
    wavelength = 5000.0 * np.exp(np.arange(6000) * 5e-6)
    u, sight = np.log(wavelength), LineOfSight(wavelength)
    vsini, epsilon = 40.0, 0.6
    hat = sight.transform(lines(u)[None])
    hat *= KERNELS["rotation"](sight.frequency, (vsini / C_KMS / sight.step) ** 2)[0]
    v = np.arange(-60, 61) * sight.step * C_KMS
    x = np.clip(1 - (v / vsini) ** 2, 0, None)
    profile = 2 * (1 - epsilon) * np.sqrt(x) + np.pi * epsilon / 2 * x
    expected = fftconvolve(lines(u) - 1, profile / profile.sum(), mode="same") + 1
    assert_allclose(sight.spectra(hat)[0][200:-200], expected[200:-200], atol=5e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("s", [0.01, 0.3, 9.0, 400.0])
def test_kernels_conserve_flux_and_know_their_derivative(kernel, s):
    k = np.linspace(0, np.pi, 500)
    value, slope = KERNELS[kernel](k, s)
    assert_allclose(value[0], 1, rtol=1e-6)
    h = 1e-4 * s
    up, down = KERNELS[kernel](k, s + h)[0], KERNELS[kernel](k, s - h)[0]
    assert_allclose(slope, (up - down) / (2 * h), atol=2e-5 * np.abs(slope).max())


def test_echelle_orders_that_overlap_are_segments():
    wavelength = np.concatenate([UNIFORM[:900], UNIFORM[700:]])
    order = np.repeat([0, 1], [900, 800])
    sight = LineOfSight(wavelength, order)
    u, z = np.log(wavelength), np.atleast_1d(ln_shift(50.0))
    flux = lines(u)[None]
    shifted = sight.spectra(sight.transform(flux) * sight.phase(z / sight.step))
    inside = sight.covers(z - 5e-5, z + 5e-5)[0]
    assert_allclose(shifted[0][inside], lines(u - z)[inside], atol=3e-4)
    assert not inside[900:905].any() and inside[880]


@pytest.mark.parametrize("grid", [UNIFORM, GRIDS["uniform in wavelength"]])
def test_an_order_of_one_pixel_is_known_at_rest_only(grid):
    sight = LineOfSight(np.r_[grid, 5200.0], np.repeat([0, 1], [len(grid), 1]))
    flux = np.r_[np.ones(len(grid)), 7.0][None]
    assert_allclose(sight.spectra(sight.transform(flux)), flux, atol=5e-4)
    shifts = np.array([0.0, 0.4, -30.0]) * sight.step
    pixels, inside = sight.nearest_pixels(shifts)
    assert pixels[:, -1].tolist() == [len(grid)] * 3
    assert inside[:, -1].tolist() == [True, True, False]
    assert sight.covers(shifts, shifts)[:, -1].tolist() == [True, False, False]


def test_nearest_pixels_undo_a_shift_to_within_half_a_pixel():
    for wavelength in GRIDS.values():
        sight, z = LineOfSight(wavelength), ln_shift(np.array([120.0, -35.0]))
        pixels, inside = sight.nearest_pixels(z)
        u = np.log(wavelength)
        offset = np.abs(u[pixels] - (u + z[:, None]))[inside]
        assert offset.max() <= 0.51 * np.diff(u)[np.diff(u) < 1e-4].max()
        assert 0.8 < inside.mean() < 1


@pytest.mark.parametrize(
    "wavelength, message",
    [(np.arange(5000.0, 5010.0), "16 pixels"), (np.linspace(6000, 5000, 50), "ascend")],
)
def test_grids_without_velocities(wavelength, message):
    with pytest.raises(ValueError, match=message):
        LineOfSight(wavelength)
