"""Are two sets of vectors drawn from one distribution? Maximum mean discrepancy, Frechet distance."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform

__all__ = ["auc_error", "frechet_distance", "maximum_mean_discrepancy", "permuted_sets"]

BATCH = 64  # permutations


def maximum_mean_discrepancy(
    a: np.ndarray,
    b: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    r"""Squared maximum mean discrepancy, unbiased, and the same of permuted sets.

    .. math:: \mathrm{MMD}^2 = \langle k(a, a')\rangle_{a \ne a'} + \langle k(b, b')\rangle_{b \ne b'}
              - 2 \langle k(a, b)\rangle, \qquad k(x, y) = e^{-|x - y|^2 / 2 h^2},

    with `h` the median distance (Gretton et al. 2012, JMLR 13, 723). The kernel is made once; a
    permutation is a vector of zeros and ones.

    Parameters
    ----------
    a, b : ndarray of shape (n, q), (m, q)
    n_permutations : int
    rng : numpy Generator
    groups : ndarray of int of shape (n + m,), optional
        Vectors that are not independent, see :func:`permuted_sets`.

    Returns
    -------
    mmd2 : float
        Scatters about 0 when there is no difference.
    null : ndarray of shape (n_permutations,)

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.statistics.two_sample import maximum_mean_discrepancy
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(50, 2)), 2 + rng.normal(size=(50, 2))
    >>> mmd2, null = maximum_mean_discrepancy(a, b, 99, rng)
    >>> bool(mmd2 > null.max())
    True
    """
    distance2 = pdist(np.concatenate([a, b]), "sqeuclidean")
    width2 = np.median(distance2)
    kernel = squareform(np.exp(-0.5 * distance2 / (width2 if width2 > 0 else 1.0)))  # diagonal 0
    of_all, total = kernel.sum(axis=0), kernel.sum()

    def mmd2(inside):
        n = inside.sum(axis=0)
        m = len(inside) - n
        within_a = np.sum(inside * (kernel @ inside), axis=0)
        touching = of_all @ inside
        within_b = total - 2 * touching + within_a
        across = touching - within_a
        return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)

    first = np.arange(len(a) + len(b)) < len(a)
    null = [
        mmd2(np.stack([permuted_sets(first, groups, rng) for _ in range(some)], 1).astype(float))
        for some in _parts(n_permutations)
    ]
    return float(mmd2(first[:, None].astype(float))[0]), np.concatenate([np.empty(0), *null])


def permuted_sets(
    first: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Sets (n,) as they might be if there were no difference between them.

    Vectors of a group that is in one set stay together, and whole groups are permuted; those of a group
    that is in both sets are permuted within it.

    Parameters
    ----------
    first : ndarray of bool of shape (n,)
        Vectors of the first set.
    groups : ndarray of int of shape (n,) or None
        Group, from 0; None: every vector is one.
    rng : numpy Generator

    Returns
    -------
    ndarray of bool of shape (n,)
    """
    if groups is None or (count := np.bincount(groups)).max() == 1:
        return rng.permutation(first)
    share = np.bincount(groups, first) / count
    whole = (share == 0) | (share == 1)
    share[whole] = rng.permutation(share[whole])
    order, random = np.argsort(groups, kind="stable"), np.lexsort((rng.random(len(groups)), groups))
    within = np.empty(len(groups), dtype=bool)
    within[order] = first[random]
    return np.where(whole[groups], share[groups] == 1, within)


def _parts(n):
    return [min(BATCH, n - start) for start in range(0, n, BATCH)]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    r"""Frechet distance of the Gaussians with the moments of two sets (n, q) and (m, q),

    .. math:: d^2 = |\mu_a - \mu_b|^2 + \mathrm{tr}\,[C_a + C_b - 2\,(C_a C_b)^{1/2}],

    in the unit of the vectors. Of finite sets it is never 0.
    """
    difference = a.mean(axis=0) - b.mean(axis=0)
    A, B = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    value, vector = np.linalg.eigh(A)
    root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    both = np.linalg.eigvalsh(root @ B @ root)
    trace = np.trace(A) + np.trace(B) - 2 * np.sum(np.sqrt(np.maximum(both, 0)))
    return float(np.sqrt(max(difference @ difference + trace, 0.0)))


def auc_error(auc: float, n: int, m: int) -> float:
    """Standard error of an area under the curve from `n` and `m` vectors (Hanley & McNeil 1982)."""
    auc = max(auc, 1 - auc)
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n - 1) * (first - auc**2) + (m - 1) * (second - auc**2)
    return float(np.sqrt(variance / (n * m)))
