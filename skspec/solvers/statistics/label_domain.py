"""How far labels lie from a set of labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["LabelDomain", "fit_label_domain"]

N_NEIGHBOURS = 10  # as in the inversion of forward models (Ho et al. 2017)
LEVEL = 0.99  # of the set itself has neighbours that near


@dataclass(frozen=True)
class LabelDomain:
    """Where a set of labels lies; see :func:`fit_label_domain`.

    Attributes
    ----------
    tree : scipy.spatial.cKDTree
        Of the labels in units of `half_range`, from the `middle` of the range.
    middle, half_range : ndarray of shape (K,)
    unit : float
        Usual mean distance of a star of the set from its nearest others.
    """

    tree: cKDTree
    middle: np.ndarray
    half_range: np.ndarray
    unit: float

    def score(self, labels: np.ndarray) -> np.ndarray:
        """Distance of labels (n, K) from the set, at most 1 inside; NaN for labels with NaN.

        The larger of two: mean distance to the 10 nearest labels of the set, in units of the 99th
        percentile of that in the set itself, and distance from the middle of the range in units of
        half the range.
        """
        x = (np.asarray(labels, dtype=float) - self.middle) / self.half_range
        out = np.full(len(x), np.nan)
        known = np.isfinite(x).all(axis=1)
        if known.any():
            near = _mean_distance(self.tree, x[known]) / self.unit
            out[known] = np.maximum(near, np.abs(x[known]).max(axis=1))
        return out


def fit_label_domain(labels: np.ndarray) -> LabelDomain:
    """Where a set of labels (n, K) lies.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.statistics.label_domain import fit_label_domain
    >>> ring = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    >>> domain = fit_label_domain(np.column_stack([np.cos(ring), np.sin(ring)]))
    >>> domain.score([[0.0, -1.0], [0.0, -1.5], [0.0, 0.0]]) <= 1         # on it, outside, in its hole
    array([ True, False, False])
    """
    labels = np.asarray(labels, dtype=float)
    low, high = labels.min(axis=0), labels.max(axis=0)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    least = 1e-9 * np.maximum(np.abs(middle), 1e-3)  # rounding, for a label that is constant
    half = np.maximum(half * (1 + 1e-9), least)
    x = (labels - middle) / half
    tree = cKDTree(x)
    unit = np.quantile(_mean_distance(tree, x, skip=1), LEVEL) if len(x) > 1 else 0.0
    return LabelDomain(tree, middle, half, float(unit) if unit > 0 else 1.0)


def _mean_distance(tree, x, skip=0):
    n_near = min(N_NEIGHBOURS + skip, tree.n)
    distance = tree.query(x, k=n_near)[0].reshape(len(x), -1)
    return distance[:, skip:].mean(axis=1)
