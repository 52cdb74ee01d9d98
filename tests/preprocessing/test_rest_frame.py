import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.preprocessing import Resampler, to_rest_frame
from skspec.solvers.spectra.line_of_sight import C_KMS

LOG, LINEAR = np.geomspace(5000, 5200, 1201), np.linspace(5000, 5200, 1201)


def doppler(rv):
    return np.sqrt((1 + np.asarray(rv) / C_KMS) / (1 - np.asarray(rv) / C_KMS))


def rest_flux(wavelength):
    lines = np.arange(5005, 5200, 7.3)
    return 1 - 0.5 * np.exp(-0.5 * ((wavelength[..., None] - lines) / 0.3) ** 2).sum(axis=-1)


def moving(rv, grid, **kwargs):
    flux = rest_flux(grid / doppler(rv)[:, None])
    return Spectra(flux, flux_err=0.01, wavelength=grid, **kwargs)


@pytest.mark.parametrize("grid", [LOG, LINEAR, LINEAR[::-1]])
def test_lines_come_to_rest(grid):
    rv = np.array([-300.0, -12.3, 0.0, 55.5, 55.5, 2000.0])
    out = to_rest_frame(moving(rv, grid, frame="barycentric", medium="vacuum"), rv)
    assert_array_equal(out.wavelength, grid)
    expected = np.broadcast_to(rest_flux(grid), out.shape)
    assert_allclose(out.flux[out.good], expected[out.good], atol=3e-3)  # of cubics
    covered = (grid >= 5000 / doppler(rv)[:, None] - 1e-6) & (
        grid <= 5200 / doppler(rv)[:, None] + 1e-6
    )
    assert_array_equal(out.good, covered)
    assert (out.frame, out.medium) == ("rest", "vacuum")
    assert_allclose(out.meta["rv_removed"], rv)


@pytest.mark.parametrize("method", ["cubic", "linear", "flux_conserving"])
def test_same_as_resampling_each_star(method):
    rng = np.random.default_rng(0)
    rv, grid = rng.normal(0, 100, 5), np.linspace(5010, 5190, 700)
    star = moving(rv, LINEAR)
    star = star.replace(mask=rng.random(star.shape) < 0.03)[:, abs(LINEAR - 5100) > 5]
    out = to_rest_frame(star, rv, grid, method=method)
    for i in range(5):
        one = star[i].replace(wavelength=star.wavelength / doppler(rv[i]))
        expected = Resampler(grid, method=method).fit_transform(one)
        assert_array_equal(out.good[[i]], expected.good)
        assert_allclose(out.flux[[i]], expected.flux, atol=1e-6)
        assert_allclose(out.ivar[[i]], expected.ivar, rtol=1e-6)
    assert not out.good[:, abs(grid - 5100) < 0.5].any()


def test_orders_stay_or_merge():
    rv = np.array([30.0, -70.0])
    star = moving(rv, LINEAR)
    pixels = np.r_[np.arange(900, 500, -1), np.arange(0, 700)]  # red first, and descending
    order = np.repeat([3, 7], [400, 700])
    orders = star[:, pixels].replace(order=order)
    kept = to_rest_frame(orders, rv)
    assert_array_equal(kept.order, order)
    for number in (3, 7):
        alone = to_rest_frame(orders[:, order == number], rv)
        assert_allclose(kept.flux[:, order == number], alone.flux, atol=1e-9)
        assert_allclose(kept.ivar[:, order == number], alone.ivar, rtol=1e-9)
    merged = to_rest_frame(orders, rv, LOG[50:700])
    assert merged.order is None
    single = to_rest_frame(star, rv, LOG[50:700])
    assert_allclose(merged.flux[merged.good], single.flux[merged.good], atol=2e-3)  # at ends
    twice = merged.ivar / np.where(single.ivar > 0, single.ivar, 1)
    assert_allclose(twice[:, (LOG[50:700] > 5086) & (LOG[50:700] < 5113)], 2)


@settings(max_examples=20, deadline=None)
@given(rv=st.floats(-900, 900), level=st.floats(1e-17, 1e6), log=st.booleans())
def test_constant_flux_stays(rv, level, log):
    grid = LOG if log else LINEAR
    out = to_rest_frame(Spectra(np.full((2, 1201), level), wavelength=grid), rv)
    assert_allclose(out.flux[out.good], level)
    assert out.good.any()


def test_velocity_taken_out_twice_adds_up():
    star = moving(np.array([150.0, 150.0]), LOG, meta={"rv": [100.0, 120.0]})
    once = to_rest_frame(star)
    assert_allclose(once.meta["rv_removed"], [100, 120])
    left = C_KMS * np.tanh(np.arctanh(150 / C_KMS) - np.arctanh(np.array([100, 120]) / C_KMS))
    both = to_rest_frame(once, left)
    assert_allclose(both.meta["rv_removed"], 150)
    expected = np.broadcast_to(rest_flux(LOG), both.shape)
    assert_allclose(both.flux[both.good], expected[both.good], atol=6e-3)
    with pytest.raises(ValueError, match="at rest already.*rv="):
        to_rest_frame(once)


def test_without_errors_and_in_single_precision():
    star = Spectra(np.ones((3, 1201), np.float32), wavelength=LOG, resolution=LOG, flux_unit="Jy")
    still = to_rest_frame(star, 0.0)
    assert still.ivar is None and still.flux.dtype == np.float32
    assert_array_equal(still.flux, star.flux)
    assert_array_equal(still.resolution, LOG)
    assert still.flux_unit == "Jy" and star.frame is None
    moved = to_rest_frame(star, [0.0, 10.0, -10.0])
    assert set(np.unique(moved.ivar)) == {0, np.inf}
    assert to_rest_frame(star[:0], 1.0).shape == (0, 1201)


def test_many_stars_come_in_batches(monkeypatch):
    rng = np.random.default_rng(1)
    rv = rng.normal(0, 50, 7)
    star = moving(rv, LOG).replace(ivar=None)
    whole = to_rest_frame(star, rv)
    monkeypatch.setattr("skspec._common_grid.VALUES_AT_ONCE", 3000)
    parts = to_rest_frame(star, rv)
    assert_allclose(parts.flux, whole.flux, atol=1e-12)
    assert_array_equal(parts.ivar, whole.ivar)


def test_velocity_with_a_unit():
    units = pytest.importorskip("astropy.units")
    star = moving(np.array([50.0, 50.0]), LOG)
    out = to_rest_frame(star, [50e3, 50e3] * units.m / units.s)
    assert_allclose(out.meta["rv_removed"], 50)
    with pytest.raises(ValueError, match="none of a velocity"):
        to_rest_frame(star, 3 * units.kg)


@pytest.mark.parametrize(
    "rv, changes, sentence",
    [
        (None, {}, "does not know the velocities.*rv="),
        ([1.0, 2.0, 3.0], {}, r"shape \(3,\).*2 stars"),
        ([1.0, np.nan], {}, r"of 1 of 2 stars are missing.*rows 1: nan"),
        ([-9999.0, 1.0], {}, "rows 0: -9999 km/s"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), {}, "missing"),
        (3e5, {}, "missing or none"),
        (1.0, {"wavelength": None}, "needs the wavelengths"),
    ],
)
def test_mistakes_get_a_sentence(rv, changes, sentence):
    star = moving(np.zeros(2), LOG).replace(**changes)
    with pytest.raises(ValueError, match=sentence):
        to_rest_frame(star, rv)


def test_grids_that_are_none():
    star = moving(np.zeros(2), LOG)
    with pytest.raises(ValueError, match="must increase"):
        to_rest_frame(star, 1.0, LOG[::-1])
    with pytest.raises(ValueError, match="not an array"):
        to_rest_frame(star.flux, 1.0)
