"""The baseline of `skspec compare`: principal components and one tuned SVR for each label."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import RandomState

__all__ = ["TunedSVR"]

SEARCHED = 1500  # stars of a larger set that the search uses: its cost grows with their cube


class TunedSVR(RegressorMixin, BaseEstimator):
    """Standardised pixels, principal components, and an SVR for each label, tuned by star.

    ``C`` and ``gamma`` of each label have the least mean absolute error over three random splits. The
    components are those of the fitted part of each split: those of all stars know the noise of the
    stars left out, which then look noisier than new ones.

    Parameters
    ----------
    n_components : int
        Components; half the stars of a split at most.
    C : sequence of float
        Strengths to choose from, for labels of unit variance.
    gamma : sequence of float
        Inverse squared widths of the kernel, in units of the inverse mean squared distance from the
        mean star.
    epsilon : float
        Errors that cost nothing.
    random_state : int, RandomState instance or None
        Of the splits and the components.

    Attributes
    ----------
    best_params_ : list of dict
        ``C`` and ``gamma`` of each label.
    """

    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        n_components: int = 60,
        *,
        C: Sequence[float] = (1.0, 10.0, 100.0),
        gamma: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        epsilon: float = 0.02,
        random_state: RandomState | None = None,
    ):
        self.n_components = n_components
        self.C = C
        self.gamma = gamma
        self.epsilon = epsilon
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Tune and fit.

        Parameters
        ----------
        X : array-like of shape (n, P)
        y : array-like of shape (n, K) or (n,)
            Standardised labels.
        groups : array-like of shape (n,), optional
            Star of each spectrum, which a split keeps together.

        Returns
        -------
        self
        """
        X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        self._one_label = y.ndim == 1
        y = y.reshape(len(y), -1)
        part = min(1.0, SEARCHED / len(y))
        splits = GroupShuffleSplit(
            3, train_size=2 / 3 * part, test_size=part / 3, random_state=self.random_state
        ).split(X, y, np.arange(len(y)) if groups is None else groups)
        grid = [{"C": C, "gamma": gamma} for C, gamma in product(self.C, self.gamma)]
        error = sum(self._errors(X, y, grid, *split) for split in splits)
        self.best_params_ = [grid[k] for k in np.argmin(error, axis=0)]
        seen = self._fit_components(X)
        self._machines = [
            self._machine(params).fit(seen, label) for params, label in zip(self.best_params_, y.T)
        ]
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Labels, of the shape that the training labels had."""
        seen = self._components(np.asarray(X, dtype=float))
        out = np.column_stack([machine.predict(seen) for machine in self._machines])
        return out[:, 0] if self._one_label else out

    def _errors(self, X, y, grid, train, test):
        """Mean absolute errors (n_grid, K) of the stars `test`."""
        seen, new = self._fit_components(X[train]), self._components(X[test])
        return np.array(
            [
                [
                    np.abs(self._machine(params).fit(seen, fit).predict(new) - truth).mean()
                    for fit, truth in zip(y[train].T, y[test].T)
                ]
                for params in grid
            ]
        )

    def _machine(self, params):
        return SVR(epsilon=self.epsilon, **params)

    def _fit_components(self, X):
        """Components of `X`, of unit mean squared distance from the mean star."""
        self._scaler = StandardScaler().fit(X)
        n_components = max(1, min(self.n_components, len(X) // 2, X.shape[1]))
        self._pca = PCA(n_components, random_state=self.random_state).fit(self._scaler.transform(X))
        distance = np.sqrt(self._pca.explained_variance_.sum())
        self._distance = distance if distance > 0 else 1.0
        return self._components(X)

    def _components(self, X):
        return self._pca.transform(self._scaler.transform(X)) / self._distance
