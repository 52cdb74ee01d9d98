import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebval
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import CubicSpline

from skspec.solvers.spectra.cross_correlation import velocity_scan
from skspec.solvers.spectra.line_of_sight import C_KMS, ln_shift, velocity

UNIFORM = 5000.0 * np.exp(np.arange(1500) * 2e-5)
GRIDS = {
    "uniform in ln": UNIFORM,
    "uniform in wavelength": np.linspace(5000, 5150, 1500),
    "descending": UNIFORM[::-1],
    "chips": np.delete(UNIFORM, slice(600, 700)),
}
RANGE = (-200.0, 150.0)


def lines(wavelength, rv=0.0, seed=0, width=15.0):
    """Forty Gaussian lines of 15 km/s at fixed places, with depths of one of three stars."""
    u = np.log(wavelength) - ln_shift(rv)
    centre = np.random.default_rng(3).uniform(np.log(4990), np.log(5160), 40)
    depth = np.random.default_rng(10 + seed).uniform(0.05, 0.5, 40)
    return 1 - np.exp(-0.5 * ((u[:, None] - centre) * C_KMS / width) ** 2) @ depth


def draw(wavelength, n=12, noise=0.02, bad=0.05):
    """Shifted stars with a bent continuum, and their weights, velocities and kinds."""
    rng = np.random.default_rng(1)
    rv, kind = rng.uniform(RANGE[0] + 20, RANGE[1] - 20, n), rng.integers(0, 3, n)
    x = np.linspace(-1, 1, len(wavelength))
    bend = chebval(x, [3e-15, 1e-15, -5e-16, 2e-16])
    flux = bend * np.array([lines(wavelength, v, k) for v, k in zip(rv, kind)])
    sigma = 3e-15 * noise * rng.uniform(0.7, 1.5, flux.shape)
    flux += sigma * rng.normal(size=flux.shape)
    weight = np.where(rng.random(flux.shape) < bad, 0, sigma**-2)
    return np.where(weight > 0, flux, np.nan), weight, rv, kind


def slow_scan(flux, weight, template, wavelength, used, rvs, degree):
    """chi2 of one star and one template at velocities `rvs`, formula by formula."""
    u = np.log(wavelength)
    x = (2 * u - u[0] - u[-1]) / np.ptp(u)
    good = (weight > 0) & used
    root = np.sqrt(weight[good])
    fit = np.polynomial.chebyshev.chebfit
    curve = chebval(x, fit(x[good], flux[good], degree, w=root))[good]
    rest = CubicSpline(u, template / chebval(x, fit(x, template, degree)))
    y, w, out = flux[good] / curve, weight[good] * curve**2, []
    for rv in rvs:
        t = rest(u[good] - ln_shift(rv))
        a = np.sum(w * y * t) / np.sum(w * t * t)
        out.append(np.sum(w * (y - a * t) ** 2))
    return np.array(out)


def test_agrees_with_a_loop_over_velocities_and_templates():
    flux, weight, _, _ = draw(UNIFORM)
    templates = np.array([lines(UNIFORM, seed=k) for k in range(3)])
    scan = velocity_scan(flux, weight, templates, UNIFORM, RANGE, degree=3)
    margin = np.ceil(ln_shift(np.abs(RANGE)) / 2e-5).astype(int) + 1
    used = np.zeros(1500, dtype=bool)
    used[margin[1] : 1500 - margin[0]] = True
    lags = np.arange(-margin[0], margin[1] + 1)
    for i in range(len(flux)):
        star = (flux[i], weight[i])
        chi2 = np.array(
            [slow_scan(*star, t, UNIFORM, used, velocity(lags * 2e-5), 3) for t in templates]
        )
        best, at = np.unravel_index(np.argmin(chi2), chi2.shape)
        assert scan.template[i] == best
        near = np.polyfit(np.arange(-1, 2), chi2[best, at - 1 : at + 2], 2)
        lowest = -near[1] / (2 * near[0])
        assert_allclose(scan.rv[i], velocity((lags[at] + lowest) * 2e-5), atol=0.02)
        assert_allclose(scan.error[i], near[0] ** -0.5 * 2e-5 * C_KMS, rtol=1e-3)
        assert_allclose(scan.chi2[i], np.polyval(near, lowest), rtol=1e-3)
        fine = scan.rv[i] + np.arange(-2, 2, 0.1)
        rv = fine[np.argmin(slow_scan(*star, templates[best], UNIFORM, used, fine, 3))]
        assert abs(scan.rv[i] - rv) < 0.3  # of a pixel of 6 km/s


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_velocities_and_templates_are_recovered(grid, dtype):
    wavelength = GRIDS[grid]
    flux, weight, rv, kind = draw(wavelength)
    templates = np.array([lines(wavelength, seed=k) for k in range(3)])
    flux, weight = (flux * 1e15).astype(dtype), (weight * 1e-30).astype(dtype)
    scan = velocity_scan(flux, weight, templates, wavelength, RANGE)
    assert_array_equal(scan.template, kind)
    pull = (scan.rv - rv) / scan.error
    assert np.sqrt(np.mean(pull**2)) < 1.8
    assert np.abs(scan.rv - rv).max() < 1.0
    assert np.all(scan.error < 0.6)
    assert_allclose(scan.chi2 / (weight > 0).sum(axis=1), 1, atol=0.45)


def test_units_and_continuum_of_the_data_do_not_matter():
    flux, weight, _, _ = draw(UNIFORM)
    templates = np.array([lines(UNIFORM, seed=k) for k in range(3)])
    scan = velocity_scan(flux, weight, templates, UNIFORM, RANGE)
    slope = 1e17 * np.exp(0.5 * np.linspace(-1, 1, 1500))
    other = velocity_scan(flux * slope, weight / slope**2, 7 * templates, UNIFORM, RANGE)
    assert_allclose(other.rv, scan.rv, atol=0.3)
    assert_allclose(other.chi2, scan.chi2, rtol=0.1)


def test_echelle_orders_may_overlap():
    first, second = UNIFORM[:800], UNIFORM[700:]
    wavelength = np.r_[first, second]
    order = np.r_[np.zeros(800), np.ones(800)]
    flux, weight, rv, _ = draw(wavelength)
    templates = np.array([lines(wavelength, seed=k) for k in range(3)])
    scan = velocity_scan(flux, weight, templates, wavelength, RANGE, order=order)
    assert np.abs(scan.rv - rv).max() < 1.0


def test_many_batches_and_the_caller_keeps_his_arrays(monkeypatch):
    flux, weight, _, _ = draw(UNIFORM)
    templates = np.array([lines(UNIFORM, seed=k) for k in range(3)])
    copies = [a.copy() for a in (flux, weight, templates)]
    scan = velocity_scan(flux, weight, templates, UNIFORM, RANGE)
    monkeypatch.setattr("skspec.solvers.spectra.cross_correlation.BATCH", 4000)
    other = velocity_scan(flux, weight, templates, UNIFORM, RANGE)
    assert_allclose(other.rv, scan.rv, atol=1e-3)
    for copy, array in zip(copies, (flux, weight, templates)):
        assert_array_equal(copy, array)


def test_a_star_without_pixels_and_a_velocity_out_of_range():
    flux, weight, rv, _ = draw(UNIFORM)
    weight[0] = 0
    templates = np.array([lines(UNIFORM, seed=k) for k in range(3)])
    scan = velocity_scan(flux, weight, templates, UNIFORM, (rv[1] + 5, rv[1] + 30))
    assert np.isnan(scan.rv[0])
    assert np.isnan(scan.chi2[0])
    assert np.isinf(scan.error[:2]).all()
    assert_allclose(scan.rv[1], rv[1] + 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flux": np.ones((2, 7))}, "must both be"),
        ({"templates": np.ones(1500)}, "templates are"),
        ({"velocities": (10, -10)}, "velocities must be"),
        ({"velocities": (-9000, 9000)}, "narrower range"),
        ({"weight": np.full((2, 1500), np.inf)}, "weight must be finite"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    given = {
        "flux": np.ones((2, 1500)),
        "weight": np.ones((2, 1500)),
        "templates": np.ones((1, 1500)),
        "wavelength": UNIFORM,
        "velocities": RANGE,
    }
    with pytest.raises(ValueError, match=message):
        velocity_scan(**(given | change))
