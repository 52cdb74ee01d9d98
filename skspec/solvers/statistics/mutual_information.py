r"""Mutual information of many variables with one other, by histogram and by nearest neighbours.

By histogram, with :math:`n_{ij}` of :math:`n` stars in cell `ij` and a function :math:`t`,

.. math:: \hat I = \hat H_x + \hat H_y - \hat H_{xy}, \qquad
          \hat H = \ln n - \frac{1}{n} \sum_i t(n_i),

where :math:`t(k) = k \ln k` is the plug-in estimate. It is too high by about the number of cells over
:math:`2n`. Miller and Madow correct that by the occupied cells, :math:`t(k) = k \ln k - 1/2`, which
takes :math:`(K_{xy} - K_x - K_y + 1) / 2n` off the information. That is not enough where a cell expects
few stars, as in the tails of any distribution. Grassberger (2003, physics/0307138) has

.. math:: t(k) = k \left[\psi(k) + \frac{(-1)^k}{2}
          \left(\psi\left(\frac{k+1}{2}\right) - \psi\left(\frac{k}{2}\right)\right)\right],
          \qquad \langle t \rangle = \lambda \ln \lambda + \lambda E_1(2 \lambda)

for a cell that expects :math:`\lambda` stars. With :math:`\lambda_{ij} = n_i n_j / n` the last term is
known if the variables are independent, and is taken off as well: independent variables then come out
at 0 within their scatter, also where most cells are empty, and others too low by no more than that.

By nearest neighbours: Kraskov, Stoegbauer & Grassberger (2004, PRE 69, 066138, their first estimator),
and Ross (2014, PLoS ONE 9, e87357) where the other variable is a class. All in nats; none is cut at 0,
so that the mean over samples of independent variables is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma, exp1, ndtri, xlogy

from skspec.solvers.linear.pixel_blocks import parallel_map

if TYPE_CHECKING:
    pass

__all__ = [
    "bin_numbers",
    "class_information",
    "histogram_information",
    "neighbour_information",
    "normal_scores",
    "partial_correlation",
    "score_grid",
]

_BLOCK = 2**18  # cell numbers or cells held at once
_INSIDE = 1 - 1e-9  # makes "closer than the k-th neighbour" safe from rounding


def bin_numbers(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Number of the bin of each value: equal width between the smallest and the largest.

    Parameters
    ----------
    values : ndarray (n, D)
    n_bins : int
        In every column.

    Returns
    -------
    ndarray of int (n, D)
        From 0 to ``n_bins - 1``; 0 throughout a column that is constant.
    """
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    share = (values - low) / np.where(span > 0, span, 1.0)
    return np.minimum((share * n_bins).astype(np.intp), n_bins - 1)


def histogram_information(
    x: np.ndarray, y: np.ndarray, correction: str = "grassberger"
) -> np.ndarray:
    """Mutual information (D, R) of binned variables with others.

    Parameters
    ----------
    x : ndarray of int (n, D)
        Cells of `D` variables, numbered from 0.
    y : ndarray of int (n, R)
        Cells of `R` others.
    correction : {"grassberger", "miller_madow", "none"}

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.statistics.mutual_information import histogram_information
    >>> x = np.array([0, 0, 1, 1])[:, None]
    >>> histogram_information(x, np.c_[x, [0, 1, 0, 1]], "none") / np.log(2)
    array([[1., 0.]])
    """
    n, n_x, n_y = len(x), int(x.max()) + 1, int(y.max()) + 1
    terms, offset = _cell_terms(n, correction)
    x_rows, x_counts = _tally(x, n_x)
    y_rows, y_counts = _tally(y, n_y)
    joint = np.empty((x.shape[1], y.shape[1]))
    step = max(1, _BLOCK // max(n, n_x * n_y))
    for start in range(0, len(joint), step):
        part = slice(start, start + step)
        corner = x_rows[part] * n_y + n_x * n_y * np.arange(len(joint[part]))[:, None]
        for r, other in enumerate(y_rows):
            joint[part, r] = _sum_of_terms(corner + other, n_x * n_y, terms)
    apart = terms[x_counts].sum(axis=1)[:, None] + terms[y_counts].sum(axis=1)
    if correction == "grassberger":
        joint -= _independent_excess(x_counts, y_counts, n)
    return np.log(n) + (joint - apart - offset) / n


def _tally(values, n_cells):
    """Cell numbers with a row for each variable, and the counts of its cells."""
    values = np.ascontiguousarray(values.T)
    cells = values + n_cells * np.arange(len(values))[:, None]
    counts = np.bincount(cells.ravel(), minlength=len(values) * n_cells)
    return values, counts.reshape(len(values), n_cells)


def _sum_of_terms(cells, n_cells, terms):
    """``sum t(n_c)`` over the cells of each row; a row holds the numbers of its cells alone."""
    counts = np.bincount(cells.ravel(), minlength=len(cells) * n_cells)
    if cells.shape[1] < n_cells:  # most of them are empty: share the terms among the stars
        shares = terms / np.maximum(np.arange(len(terms)), 1)
        return shares[counts[cells]].sum(axis=1)
    return terms[counts].reshape(len(cells), n_cells).sum(axis=1)


def _independent_excess(x_counts, y_counts, n):
    """What the terms of all cells of independent variables exceed ``lambda ln lambda`` by: (D, R)."""
    sizes, at = np.unique(x_counts, return_inverse=True)  # many bins have as many stars
    margins, which = np.unique(y_counts, axis=0, return_inverse=True)
    out = np.empty((len(x_counts), len(margins)))
    for m, margin in enumerate(margins):
        expected = np.outer(sizes, margin) / n
        excess = expected * exp1(2 * np.maximum(expected, np.finfo(float).tiny))
        out[:, m] = excess.sum(axis=1)[at].reshape(x_counts.shape).sum(axis=1)
    return out[:, which.ravel()]


def _cell_terms(n, correction):
    """``t(k)`` for k = 0...n, and what is left of the correction for the whole."""
    k = np.arange(n + 1)
    if correction == "none":
        return xlogy(k, k), 0.0
    if correction == "miller_madow":
        return xlogy(k, k) - 0.5 * (k > 0), 0.5
    k = np.maximum(k, 1)
    odd = 0.5 * (-1.0) ** k * (digamma((k + 1) / 2) - digamma(k / 2))
    return np.where(np.arange(n + 1) > 0, k * (digamma(k) + odd), 0.0), 0.0


def normal_scores(
    values: np.ndarray, rng: np.random.RandomState | np.random.Generator
) -> np.ndarray:
    """Ranks of each column, turned into quantiles of the standard normal; ties are broken at random.

    The information does not change, as the ranks are a monotonic function of the values, and its
    estimate becomes free of their unit and of outliers.

    Parameters
    ----------
    values : ndarray (n, D)
    rng : numpy.random.RandomState or Generator

    Returns
    -------
    ndarray (n, D)
    """
    n = len(values)
    order = np.lexsort((rng.uniform(size=values.shape), values), axis=0)
    scores = np.empty(values.shape)
    np.put_along_axis(scores, order, score_grid(n)[:, None], axis=0)
    return scores


def score_grid(n: int) -> np.ndarray:
    """The `n` normal scores in rising order."""
    return ndtri((np.arange(n) + 0.5) / n)


def neighbour_information(x: np.ndarray, y: np.ndarray, n_neighbors: int = 3) -> np.ndarray:
    r"""Mutual information (D,) of `D` variables with another, from nearest neighbours.

    .. math:: \hat I = \psi(k) + \psi(n) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle,

    with the numbers of stars that are closer in `x`, and in `y`, than the `k`-th neighbour in both
    (whichever of the two is larger).

    Parameters
    ----------
    x : ndarray (n, D)
        On the same scale as `y`: see :func:`normal_scores`. Without ties.
    y : ndarray (n,)
    n_neighbors : int
        k, less than n.
    """
    psi, order = digamma(np.arange(1, len(y) + 2)), np.argsort(y)
    x, y = x[order], y[order]  # neighbours lie near each other in memory, too

    def one(column):
        points = np.stack([column, y], axis=1)
        tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
        radius = tree.query(points, [n_neighbors + 1], p=np.inf)[0][:, 0] * _INSIDE
        near_x = _count(np.sort(column), column, radius)
        return np.mean(psi[near_x - 1] + psi[_count(y, y, radius) - 1])

    own = np.array(parallel_map(one, list(x.T)))
    return digamma(n_neighbors) + digamma(len(y)) - own


def class_information(x: np.ndarray, y: np.ndarray, n_neighbors: int = 3) -> np.ndarray:
    r"""Mutual information (D,) of `D` variables with a class, from nearest neighbours.

    .. math:: \hat I = \psi(n) + \langle \psi(k) - \psi(n_c) - \psi(m) \rangle,

    with the `n_c` stars of the class, and `m` stars of any class (the star itself among them) closer
    than the `k`-th neighbour of the same class.

    Parameters
    ----------
    x : ndarray (n, D)
        Without ties.
    y : ndarray of int (n,)
        Classes; stars that are alone in theirs are left out.
    n_neighbors : int
        k; where a class has no more than `k` stars, all of them.
    """
    sizes = np.bincount(y)[y]
    x, y, sizes = x[sizes > 1], y[sizes > 1], sizes[sizes > 1]
    k = np.minimum(n_neighbors, sizes - 1)
    psi = digamma(np.arange(1, len(y) + 2))

    def one(column):
        radius = np.empty(len(column))
        for c in np.unique(y):
            own = y == c
            radius[own] = _neighbour_distance(column[own], min(n_neighbors, own.sum() - 1))
        return np.mean(psi[_count(np.sort(column), column, radius * _INSIDE) - 1])

    if not len(y):
        return np.zeros(x.shape[1])
    rest = digamma(len(y)) + np.mean(digamma(k) - digamma(sizes))
    return rest - np.array(parallel_map(one, list(x.T)))


def _count(sorted_values, values, radius):
    """How many lie within `radius` of each value, itself included."""
    last = np.searchsorted(sorted_values, values + radius, side="right")
    return last - np.searchsorted(sorted_values, values - radius, side="left")


def _neighbour_distance(values, k):
    """Distance of each value to its k-th neighbour on the line."""
    order = np.argsort(values)
    v = np.concatenate([np.full(k, -np.inf), values[order], np.full(k, np.inf)])
    inside = slice(k, len(v) - k)
    nearest = np.full(len(values), np.inf)
    for below in range(k + 1):  # neighbours on the left; the others are on the right
        left = v[inside] - v[k - below : len(v) - k - below]
        right = v[2 * k - below : len(v) - below] - v[inside]
        nearest = np.minimum(nearest, np.maximum(left, right))
    out = np.empty(len(values))
    out[order] = nearest
    return out


def partial_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Correlation (D, L) of each column of `x` with each of `y`, all other columns of `y` held fixed.

    With the correlation matrix :math:`C` of `y`, :math:`S = C^{-1}`, the correlations :math:`r` of a
    column of `x` with `y`, :math:`b = S r` and :math:`v = 1 - r^T b`,

    .. math:: \rho_l = b_l / \sqrt{v\,S_{ll} + b_l^2}.

    Parameters
    ----------
    x : ndarray (n, D)
    y : ndarray (n, L)

    Returns
    -------
    ndarray (D, L)
        0 where either is constant.
    """
    x, y = _standardised(x), _standardised(y)
    inverse = np.linalg.pinv(y.T @ y, hermitian=True)
    r = x.T @ y
    b = r @ inverse
    left = np.maximum(1 - np.sum(r * b, axis=1), 0.0)[:, None]
    length = np.sqrt(left * np.diag(inverse) + b**2)
    return np.divide(b, length, out=np.zeros_like(b), where=length > 0)


def _standardised(values):
    values = values - values.mean(axis=0)
    norm = np.sqrt(np.sum(values**2, axis=0))
    return values / np.where(norm > 0, norm, 1.0)
