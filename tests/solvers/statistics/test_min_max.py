import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skspec.solvers.statistics.min_max import min_max_bins


@given(st.integers(2, 300), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_extremes_are_kept(n, n_bins, seed):
    rng = np.random.default_rng(seed)
    x, curves = np.sort(rng.random(n)), rng.normal(size=(2, n))
    at, short = min_max_bins(x, curves, 0.0, 1.0, n_bins)
    assert len(at) == short.shape[1] <= 2 * max(n_bins, 1)
    assert (np.diff(at) >= 0).all()
    assert_array_equal(short.min(axis=1), curves.min(axis=1))
    assert_array_equal(short.max(axis=1), curves.max(axis=1))


def test_short_windows_are_untouched():
    x = np.arange(1000.0)
    at, short = min_max_bins(x, np.sin(x)[None], 100.5, 200.5, 60)
    assert_array_equal(at, np.arange(100, 202))  # one more point beyond either end
    assert_array_equal(short[0], np.sin(at))


def test_gaps():
    curve = np.ones(100)
    curve[10:30] = np.nan
    _, short = min_max_bins(np.arange(100.0), curve[None], 0, 100, 20)
    assert np.isnan(short[0, 4:12]).all() and (short[0, [0, 3, 12, -1]] == 1).all()


def test_windows_beside_the_data():
    x = np.arange(50.0)
    for low, high in ((-20, -10), (80, 90)):
        at, short = min_max_bins(x, x[None], low, high, 10)
        assert len(at) == short.shape[1] <= 2
