r"""Distance from a cloud of points, in the metric of its shrunk covariance.

.. math:: D(z) = \sqrt{(z - m)^T C^{-1} (z - m)}

with the covariance C shrunk to a multiple of the identity (Ledoit & Wolf 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf

__all__ = ["MahalanobisDistance", "fit_distance", "held_out_quantile"]

MIN_POINTS = 500  # points, for a quantile of 0.99 from them alone
FOLDS = 5
FLOOR = 1e-4  # of the variance in any direction, in units of the mean


@dataclass(frozen=True)
class MahalanobisDistance:
    """Distance of points.

    Attributes
    ----------
    mean : ndarray (q,)
    whitening : ndarray (q, q)
    """

    mean: np.ndarray
    whitening: np.ndarray

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Distance (n,) of points (n, q)."""
        return np.linalg.norm((z - self.mean) @ self.whitening, axis=1)


def fit_distance(z: np.ndarray) -> MahalanobisDistance:
    """Distance from the points `z` (n, q)."""
    z = np.asarray(z, dtype=float)
    mean = z.mean(axis=0)
    value, vector = np.linalg.eigh(ledoit_wolf(z - mean, assume_centered=True)[0])
    value = np.maximum(value, max(FLOOR * value.mean(), np.finfo(float).tiny))
    return MahalanobisDistance(mean, vector / np.sqrt(value))


def held_out_quantile(
    distance: MahalanobisDistance, z: np.ndarray, held_out: np.ndarray, level: float = 0.99
) -> float:
    """Quantile of the distances of points that are like `z`, but were not used.

    Few points `held_out` are joined by the points `z` themselves, each as far from the others as it
    is, in units of the median of those that were held out: the centre says how much further a
    new point is, the known ones what the tail looks like.

    Parameters
    ----------
    distance : MahalanobisDistance
        From `z`.
    z, held_out : ndarray (n, q), (m, q)
    level : float
    """
    outside = distance(held_out)
    if len(held_out) < MIN_POINTS and len(z) >= 2 * FOLDS:
        inside = np.empty(len(z))
        for fold in range(FOLDS):
            rows = np.arange(len(z)) % FOLDS == fold
            inside[rows] = fit_distance(z[~rows])(z[rows])
        middle = np.median(inside)
        if middle > 0:
            outside = np.concatenate([outside, inside * (np.median(outside) / middle)])
    return max(float(np.quantile(outside, level)), np.finfo(float).tiny)
