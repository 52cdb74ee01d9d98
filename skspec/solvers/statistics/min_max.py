"""Long curves for a screen: the least and the largest value in each of a few bins."""

from __future__ import annotations

import numpy as np

__all__ = ["min_max_bins"]


def min_max_bins(
    x: np.ndarray, curves: np.ndarray, low: float, high: float, n_bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a screen `n_bins` pixels wide can show of long curves.

    Unlike a mean it keeps narrow lines at their full depth, and noise at its full width.

    Parameters
    ----------
    x : ndarray of shape (P,)
        Ascending.
    curves : ndarray of shape (k, P)
        Values at `x`; NaN where there is none.
    low, high : float
        The visible window. One point beyond each end is kept, so that lines reach the frame.
    n_bins : int
        Bins. A window of at most ``2 * n_bins`` points is returned as it is.

    Returns
    -------
    x : ndarray of shape (m,)
        Ascending, at most ``2 * n_bins``.
    curves : ndarray of shape (k, m)
        The minimum and then the maximum of every bin, NaN left out.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.statistics.min_max import min_max_bins
    >>> min_max_bins(np.arange(8.0), np.array([[1, 1, 1, 0, 1, 1, 1, 9.0]]), 0, 8, 2)
    (array([0., 2., 4., 6.]), array([[0., 1., 1., 9.]]))
    """
    first = max(np.searchsorted(x, low) - 1, 0)
    last = min(np.searchsorted(x, high, side="right") + 1, len(x))
    x, curves = x[first:last], curves[:, first:last]
    if len(x) <= 2 * n_bins:
        return x, curves
    edges = np.arange(n_bins + 1) * len(x) // n_bins
    begin, middle = edges[:-1], (edges[:-1] + edges[1:]) // 2
    out = np.empty((len(curves), 2 * n_bins), curves.dtype)
    out[:, 0::2] = np.fmin.reduceat(curves, begin, axis=1)
    out[:, 1::2] = np.fmax.reduceat(curves, begin, axis=1)
    return x[np.column_stack([begin, middle]).ravel()], out
