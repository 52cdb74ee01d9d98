"""From latent numbers to labels: a light regression with the covariance of its held-out errors."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skspec.model_selection import check_cv

CV = 5
MIN_STARS = 2 * CV  # labelled stars


def default_head():
    """Ridge regression on the latent numbers, their squares and products."""
    return make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        RidgeCV(np.logspace(-3, 4, 15)),
    )


def check_labelled(y):
    """Refuse labels (n, K) of which too few are known to learn from.

    Raises
    ------
    ValueError
        When fewer than 10 rows are complete.
    """
    n = int(np.isfinite(y).all(axis=1).sum())
    if n < MIN_STARS:
        raise ValueError(
            f"Only {n} of {len(y)} stars have all {y.shape[1]} labels; {MIN_STARS} are needed to learn "
            "what the latent numbers mean. Without labels call fit(X)."
        )


class LabelHead:
    """A regression from latent numbers to labels, and the covariance of its out-of-fold errors.

    Parameters
    ----------
    estimator : regressor
        Gets standardised labels; it is cloned.
    latents : ndarray of shape (n, D)
    y : ndarray of shape (n, K)
        Spectra without all labels are left out.
    groups : ndarray of shape (n,), optional
        Star of each spectrum.

    Attributes
    ----------
    covariance : ndarray of shape (K, K)

    Raises
    ------
    ValueError
        When fewer than 10 spectra have all labels.
    """

    def __init__(self, estimator, latents, y, groups=None):
        known = np.isfinite(y).all(axis=1) & np.isfinite(latents).all(axis=1)
        check_labelled(np.where(known[:, None], y, np.nan))
        z, y = latents[known], y[known]
        self.mean, spread = y.mean(axis=0), y.std(axis=0)
        self.scale = np.where(spread > 0, spread, 1.0)
        target = (y - self.mean) / self.scale
        target = target[:, 0] if y.shape[1] == 1 else target
        groups = None if groups is None else groups[known]
        folds = check_cv(CV, len(y), groups, shuffle=groups is None)
        predicted = cross_val_predict(clone(estimator), z, target, groups=groups, cv=folds)
        errors = (target - predicted).reshape(y.shape) * self.scale
        self.covariance = errors.T @ errors / len(errors)
        self.estimator = clone(estimator).fit(z, target)

    def __call__(self, latents):
        """Labels (n, K)."""
        predicted = np.asarray(self.estimator.predict(latents), dtype=float)
        return predicted.reshape(len(latents), -1) * self.scale + self.mean
