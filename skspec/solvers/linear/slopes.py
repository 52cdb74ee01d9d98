"""Slopes of the flux of all pixels with the same few variables, read in parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["pixel_slopes"]

RIDGE = 1e-9  # of the mean diagonal, so that a pixel without stars has slope 0


def pixel_slopes(parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Least-squares slopes of every pixel over the stars in which it is good.

    For pixel j and the rows :math:`v_i = (1, u_i)` of stars i it solves
    :math:`\\sum_i g_{ij} v_i v_i^T\\, b_j = \\sum_i g_{ij} v_i f_{ij}` with g = 1 where good, else 0.

    Parameters
    ----------
    parts : iterable of (variables, flux, good)
        Of some stars each: u (n, q), f (n, P) and g (n, P) of bool. Only one is held at a time.

    Returns
    -------
    slopes : ndarray of shape (q, P)
        Change of the flux per unit of each variable, the others held fixed; NaN where fewer stars
        are good than there are unknowns.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.linear.slopes import pixel_slopes
    >>> u = np.linspace(-1, 1, 9)[:, None]
    >>> pixel_slopes([(u, 1 + u * [[2.0, -3.0]], np.ones((9, 2), bool))]).round(6)
    array([[ 2., -3.]])
    """
    sums: Any = 0
    right: Any = 0
    count: Any = 0
    for variables, flux, good in parts:
        v = np.column_stack([np.ones(len(variables)), variables])
        a, b = np.triu_indices(v.shape[1])
        sums = sums + (v[:, a] * v[:, b]).T @ good.astype(float)
        right = right + v.T @ np.where(good, flux, 0.0)
        count = count + good.sum(axis=0)
    q = len(right)
    normal = np.empty((sums.shape[1], q, q))
    normal[:, a, b] = normal[:, b, a] = sums.T
    trace = np.trace(normal, axis1=1, axis2=2) / q
    normal = normal + (RIDGE * trace + (count == 0))[:, None, None] * np.eye(q)
    slopes = np.linalg.solve(normal, right.T[:, :, None])[:, 1:, 0].T
    slopes[:, count <= q] = np.nan
    return slopes
