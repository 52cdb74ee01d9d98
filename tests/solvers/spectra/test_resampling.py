import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.spectra.resampling import (
    Resampling,
    pixel_edges,
    resample,
    resampling_matrix,
    wavelength_grid,
)

METHODS = ["flux_conserving", "linear", "cubic"]


def holes(grid, max_gap=3.5):
    """Index of the pixels after which there is a hole."""
    lower, upper = pixel_edges(np.asarray(grid, dtype=float), max_gap)
    assert np.all(lower < grid) and np.all(grid < upper) and np.all(upper[:-1] <= lower[1:] + 1e-9)
    return np.flatnonzero(lower[1:] - upper[:-1] > 1e-6 * np.diff(grid)).tolist()


@pytest.mark.parametrize(
    "grid, expected",
    [
        (np.r_[5000:5100, 5300:5400], [99]),
        (np.r_[np.geomspace(4000, 5000, 500), np.geomspace(5010, 6000, 400)], [499]),
        (np.r_[0:10:0.1, 10.3:30:0.5], []),  # chips of different dispersion, side by side
        (np.r_[0:30:0.5, 30.2:40:0.1], []),
        (np.r_[0:10:0.1, 12.4:30:0.5, 50:60:0.2], [99, 135]),
        (1e7 / np.linspace(1900, 1400, 300), []),  # uniform in 1 / wavelength
        (np.arange(0, 2000, 100), []),  # coarse
        (np.delete(np.arange(100), [1, 5, 20, 21, 50, 98]), []),  # cut out
        (np.delete(np.arange(100), [20, 21, 22]), [19]),
        (np.sort(np.r_[0:100, 0.1:100]), []),  # two exposures, interleaved
        (np.sort(np.r_[0:50, 0.02:50, 200:250, 200.02:250]), [99]),
        (np.r_[tuple(np.arange(6) + 50 * k for k in range(5))], [5, 11, 17, 23]),  # windows
        (np.r_[0:10, 30, 60, 90:110], [9, 10, 11]),  # lone pixels
        (np.r_[0, 30:50], [0]),
        (np.r_[30:50, 80], [19]),
        ([0, 1, 100], [1]),
        ([0, 99, 100], [0]),
        ([0, 1, 100, 101], [1]),
        ([0, 100], []),
    ],
)
def test_where_holes_are(grid, expected):
    assert holes(grid) == expected
    assert holes(grid, np.inf) == []
    mirrored = holes(-np.asarray(grid)[::-1])
    assert mirrored == [len(grid) - 2 - i for i in expected[::-1]]


def test_pixels_beside_a_hole_keep_their_width():
    lower, upper = pixel_edges(np.r_[0.0, 1, 2, 3, 4, 30, 90:96:2, 96:106:2])
    assert_allclose(upper[3:7], [3.5, 4.5, 30.5, 91], atol=0.51)
    assert upper[4] == 4.5 and lower[6] == 89
    cut = pixel_edges(np.delete(np.arange(40.0), np.r_[9, 11:20]))  # a missing one beside the hole
    assert_allclose([cut[0][9], cut[1][9], cut[0][10]], [9, 10.5, 19.5])
    assert_array_equal(pixel_edges(np.array([7.0])), [[7.0], [7.0]])


@pytest.mark.parametrize("method", METHODS)
def test_rows_sum_to_what_is_covered(method):
    old = np.r_[0.0:50, 60:100]
    new = np.linspace(-5, 105, 300)
    total = resampling_matrix(old, new, method).sum(axis=1)
    width = np.diff(new)[0] if method == "flux_conserving" else 0
    ends = [(-0.5, 49.5), (59.5, 99.5)] if width else [(0, 49), (60, 99)]
    inside = sum((new >= a + 0.5 * width) & (new <= b - 0.5 * width) for a, b in ends)
    outside = sum((new > a - 0.5 * width) & (new < b + 0.5 * width) for a, b in ends) == 0
    assert_allclose(total[inside == 1], 1)
    assert_array_equal(total[outside], 0)


def test_lone_pixels_and_short_segments():
    old = np.r_[100.0:130, 150, 200:230, 250:252, 300:330, 350:353, 400:430]
    at = np.r_[110.5, 150, 240, 250.5, 280, 351.5, 401.2]
    matrix = resampling_matrix(old, at, "cubic")
    line = 0.5 * (250**2 + 251**2)  # through two pixels
    assert_allclose(matrix @ old**2, [110.5**2, 150**2, 0, line, 0, 351.5**2, 401.2**2])
    assert np.diff(matrix.indptr).tolist() == [4, 1, 0, 2, 0, 3, 4]


def test_an_order_of_one_pixel_has_no_width():
    grid, order = np.r_[0.0:10, 4.0], np.r_[np.zeros(10, int), 7]
    flux = np.r_[np.ones(10), 50.0][None]
    out, _ = Resampling(grid, np.arange(2.0, 8), order=order)(flux)
    assert_allclose(out, 1)
    out, _ = Resampling(grid, np.arange(2.0, 8), "linear", order=order)(flux)
    assert_allclose(out[0], [1, 1, 25.5, 1, 1, 1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("with_orders", [False, True])
def test_factors_are_a_loop_over_stars(method, with_orders):
    rng = np.random.default_rng(0)
    grid = np.r_[5000.0:5060, 5045:5100, 5140:5200]
    order = np.r_[np.zeros(60, int), np.ones(115, int)] if with_orders else None
    grid = grid if with_orders else np.sort(grid + 0.3 * (np.arange(175) < 60))
    factor = 1 + 1e-3 * rng.uniform(-1, 1, 4)
    flux, ivar = rng.normal(size=(4, 175)), rng.uniform(0, 1, (4, 175))
    ivar[rng.random(ivar.shape) < 0.1] = 0
    new = np.arange(4995.0, 5205, 0.8)
    found = Resampling(grid, new, method, order=order, factor=factor)(flux, ivar)
    for star in range(4):
        alone = Resampling(grid / factor[star], new, method, order=order)
        for all_stars, one in zip(found, alone(flux[[star]], ivar[[star]])):
            assert_allclose(all_stars[[star]], one, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_new_orders_take_from_their_own(method):
    grid, order = np.r_[30.0:10:-1, 0.0:20], np.repeat([5, 4], 20)
    flux = np.where(order == 5, 2.0, 1.0)[None]
    out, ivar = Resampling(grid, grid, method, order=order, new_order=order)(flux)
    assert_array_equal(out, flux)
    assert ivar is None
    moved = Resampling(grid, grid, method, order=order, new_order=order, factor=[1.1])
    out, ivar = moved(flux)
    assert_allclose(out[ivar > 0], flux[ivar > 0])
    assert 0.5 < np.mean(ivar > 0) < 1


def test_nothing_of_a_plain_grid_is_summed_twice():
    """One order, or none, is one sparse product: no rows beside those of the new pixels."""
    grid, new = np.arange(50.0), np.arange(3.0, 40, 0.7)
    for order in (None, np.ones(50, int)):
        resampling = Resampling(grid, new, order=order)
        assert resampling.pixel is None and resampling.matrix.shape == (len(new), 50)
        flux, ivar = resampling(np.ones((2, 50)))
        expected = resample(resampling.matrix, np.ones((2, 50)))
        assert_array_equal(flux, expected[0])
        assert ivar is None and expected[1] is None


@pytest.mark.parametrize(
    "values, order, sentence",
    [
        ([1.0], None, "at least two"),
        ([1.0, np.nan], None, "finite"),
        ([[1.0, 2.0]], None, "vector"),
        ([1.0, 2.0, 1.0], None, "same wavelength twice; .*order="),
        ([1.0, 2.0, 1.0], [3, 4, 3], r"twice in order 3 \(1.0000 Angstrom\)"),
    ],
)
def test_grids_that_are_none(values, order, sentence):
    with pytest.raises(ValueError, match="The grid .*" + sentence):
        wavelength_grid(values, "The grid", order)
