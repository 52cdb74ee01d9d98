"""Where the training stars lie among the labels: the box of an inversion, and who is near."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from skspec.likelihood._spectrum_model import spread_rows

__all__ = ["TrainingLabels"]

BOX_MARGIN = 0.1  # the box of the inversion exceeds the training range by this fraction of it
N_NEIGHBOURS = 10  # training stars that define "near the training set" (Ho et al. 2017)
N_CANDIDATES = 512  # of the training labels, among which an inversion starts
N_RANDOM = 128  # points all over the box
EDGE = 1e-9  # of the box: closer to its side is at its side


class TrainingLabels:
    """Scaled labels of the stars that a model was trained on.

    Parameters
    ----------
    x : ndarray of shape (n, K)

    Attributes
    ----------
    lower, upper : ndarray of shape (K,)
        Box of the inversion: their range widened by 10 %.
    candidates : ndarray of shape (m, K)
        Those among which it starts.
    """

    def __init__(self, x: np.ndarray):
        self.x = x
        self._margin = BOX_MARGIN * np.ptp(x, axis=0)
        self.lower, self.upper = x.min(axis=0) - self._margin, x.max(axis=0) + self._margin
        fixed = self._margin == 0  # a constant label: there is nothing to fit
        self.lower[fixed] -= 1e-9
        self.upper[fixed] += 1e-9
        self.candidates = x[spread_rows(x, N_CANDIDATES)] if len(x) > N_CANDIDATES else x.copy()
        n_near = min(N_NEIGHBOURS + 1, len(x))
        distance = self._tree.query(x, k=n_near)[0].reshape(len(x), -1)[:, 1:].mean(axis=1)
        self._near = np.quantile(distance, 0.99)

    @cached_property
    def _tree(self):
        return cKDTree(self.x)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_tree"}

    def spanning_points(self) -> np.ndarray:
        """Labels (m, K) that span the box."""
        rng = np.random.default_rng(0)
        extra = rng.uniform(self.lower, self.upper, (N_RANDOM, len(self.lower)))
        return np.vstack([self.candidates, extra])

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances (m, k) of the training stars nearest to labels (m, K), and their rows."""
        n_near = min(N_NEIGHBOURS, len(self.x))
        return tuple(part.reshape(len(x), -1) for part in self._tree.query(x, k=n_near))

    def at_bound(self, x: np.ndarray) -> np.ndarray:
        """Labels (m, K) at the side of the box."""
        width = self.upper - self.lower
        return (x <= self.lower + EDGE * width) | (x >= self.upper - EDGE * width)

    def holds(self, x: np.ndarray) -> np.ndarray:
        """Whether there are training stars around labels (m, K)."""
        margin = self.upper - self.x.max(axis=0)
        in_range = np.all((x >= self.lower + margin) & (x <= self.upper - margin), axis=1)
        return in_range & (self.nearest(x)[0].mean(axis=1) <= self._near)
