"""Scores of labels and of label distributions, with the field's words used exactly.

Errors are ``predicted - true``. Every function returns one number per label, for labels have
different units; stars with NaN predictions are left out (count them with :func:`n_failed`).
For a Gaussian of standard deviation sigma: MAE = 0.798 sigma and MAD = 0.6745 sigma.

The scorers (``*_scorer``) go through :func:`skspec.predict_dist`, so they work in GridSearchCV over
any Pipeline; larger is better, as in scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from skspec._label_values import label_names, label_values, refuse_unknown
from skspec.base import predict_dist
from skspec.distributions import MultivariateNormal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "bias",
    "coverage",
    "coverage_error_scorer",
    "crps",
    "energy_score",
    "error_covariance",
    "mad",
    "mae",
    "make_dist_scorer",
    "n_failed",
    "neg_crps_scorer",
    "neg_energy_score_scorer",
    "neg_log_likelihood",
    "neg_log_likelihood_scorer",
    "pit",
    "rmse",
    "robust_std",
    "sharpness",
    "std",
]

GAUSSIAN_MAD = 0.6744897501960817  # median absolute deviation of a unit Gaussian
ONE_SIGMA = math.erf(math.sqrt(0.5))  # probability within one sigma, 0.6827


def _errors(y_true, y_pred):
    y_true, y_pred = by_name(y_true, y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"True labels have shape {y_true.shape}, predicted {y_pred.shape}.")
    refuse_unknown(y_true, what="The true labels")
    error = y_pred - y_true
    keep = np.isfinite(error) if error.ndim == 1 else np.isfinite(error).all(axis=1)
    if not keep.any():
        raise ValueError("No star has a finite prediction.")
    return error[keep]


def by_name(y_true, y_pred):
    """True and predicted labels, with the columns in one order where both have names."""
    if isinstance(y_pred, MultivariateNormal):
        names, y_pred = y_pred.label_names, y_pred.mean()
    else:
        names, y_pred = label_names(y_pred), label_values(y_pred, what="The predicted labels")
    return label_values(y_true, names, what="The true labels"), y_pred


def robust_sigma(values, about=None):
    """``1.4826 MAD`` of each column: the standard deviation of a Gaussian, blind to outliers.

    About the median of the column, or about `about`.
    """
    about = np.median(values, axis=0) if about is None else about
    return np.median(np.abs(values - about), axis=0) / GAUSSIAN_MAD


def error_covariance(errors: np.ndarray, *, robust: bool = True) -> np.ndarray:
    """Covariance of errors about zero, so that bias counts as error.

    Parameters
    ----------
    errors : ndarray of shape (n, K)
    robust : bool
        Median absolute deviations and rank correlations; False: second moments.

    Returns
    -------
    ndarray of shape (K, K)
    """
    if not robust:
        return errors.T @ errors / len(errors)
    scale = robust_sigma(errors, about=0.0)
    if errors.shape[1] == 1 or len(errors) < 3:
        return np.diag(scale**2)
    ranks = rankdata(errors, axis=0)
    ranks -= ranks.mean(axis=0)
    norm = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(norm > 0, norm, 1)
    spearman = ranks.T @ ranks
    correlation = 2 * np.sin(np.pi / 6 * spearman)  # Pearson's, for Gaussian errors
    np.fill_diagonal(correlation, 1)
    value, vector = np.linalg.eigh(correlation)
    correlation = (vector * np.maximum(value, 1e-9)) @ vector.T
    return correlation * np.outer(scale, scale)


def n_failed(y_pred: ArrayLike) -> int:
    """Number of stars without a finite prediction."""
    y_pred = label_values(y_pred, what="The predicted labels")
    return int(np.sum(~np.isfinite(y_pred.reshape(len(y_pred), -1)).all(axis=1)))


def bias(y_true: ArrayLike, y_pred: ArrayLike | MultivariateNormal) -> np.ndarray:
    """Median error of each label."""
    return np.median(_errors(y_true, y_pred), axis=0)


def mae(y_true: ArrayLike, y_pred: ArrayLike | MultivariateNormal) -> np.ndarray:
    """Mean absolute error of each label."""
    return np.mean(np.abs(_errors(y_true, y_pred)), axis=0)


def std(y_true: ArrayLike, y_pred: ArrayLike | MultivariateNormal) -> np.ndarray:
    """Standard deviation of the errors of each label (the bias is taken out)."""
    return np.std(_errors(y_true, y_pred), axis=0)


def mad(y_true: ArrayLike, y_pred: ArrayLike | MultivariateNormal) -> np.ndarray:
    """Median absolute deviation of the errors from their median, without the Gaussian factor."""
    error = _errors(y_true, y_pred)
    return np.median(np.abs(error - np.median(error, axis=0)), axis=0)


def robust_std(y_true: ArrayLike, y_pred: ArrayLike | MultivariateNormal) -> np.ndarray:
    """``1.4826 * mad``: the standard deviation of Gaussian errors, blind to outliers."""
    return robust_sigma(_errors(y_true, y_pred))


def rmse(y_true: ArrayLike, y_pred: ArrayLike | MultivariateNormal) -> np.ndarray:
    """Root mean square error of each label (the bias is left in)."""
    return np.sqrt(np.mean(_errors(y_true, y_pred) ** 2, axis=0))


def _like(y_true: ArrayLike, dist: MultivariateNormal) -> np.ndarray:
    """True labels in the shape of the distribution; a vector is a single label."""
    if not isinstance(dist, MultivariateNormal):
        raise TypeError(
            f"A distribution is needed, not {type(dist).__name__}: skspec.predict_dist(model, X) "
            "or model.predict_dist(X) gives one."
        )
    y_true = label_values(y_true, dist.label_names, what="The true labels")
    if y_true.ndim == 1:
        y_true = y_true[:, None]
    if y_true.shape != dist.shape:
        raise ValueError(f"True labels have shape {y_true.shape}, predicted {dist.shape}.")
    return y_true


def _finite(y_true: ArrayLike, dist: MultivariateNormal) -> tuple[np.ndarray, MultivariateNormal]:
    y_true = _like(y_true, dist)
    refuse_unknown(y_true, dist.label_names, "The true labels")
    keep = np.isfinite(dist.mean()).all(axis=1) & np.isfinite(dist.std()).all(axis=1)
    if not keep.any():
        raise ValueError("No star has a finite distribution.")
    return y_true[keep], dist[keep]


def coverage(y_true: ArrayLike, dist: MultivariateNormal, n_sigma: float = 1.0) -> np.ndarray:
    """Fraction of stars within `n_sigma` standard deviations, per label (Gaussian: 0.6827, 0.9545)."""
    y_true, dist = _finite(y_true, dist)
    return np.mean(np.abs(y_true - dist.mean()) <= n_sigma * dist.std(), axis=0)


def sharpness(dist: MultivariateNormal) -> np.ndarray:
    """Median standard deviation of each label."""
    keep = np.isfinite(dist.mean()).all(axis=1) & np.isfinite(dist.std()).all(axis=1)
    if not keep.any():
        raise ValueError("No star has a finite distribution.")
    return np.median(dist.std()[keep], axis=0)


def pit(y_true: ArrayLike, dist: MultivariateNormal) -> np.ndarray:
    """Probability integral transform of each star and label: uniform when calibrated."""
    y_true, dist = _finite(y_true, dist)
    return dist.pit(y_true)


def crps(y_true: ArrayLike, dist: MultivariateNormal) -> np.ndarray:
    """Mean continuous ranked probability score of each label, in label units."""
    y_true, dist = _finite(y_true, dist)
    return dist.crps(y_true).mean(axis=0)


def neg_log_likelihood(
    y_true: ArrayLike, dist: MultivariateNormal, *, marginal: bool = False
) -> float | np.ndarray:
    """Mean negative log density of the true labels: joint, or per label with ``marginal=True``."""
    y_true, dist = _finite(y_true, dist)
    if not marginal:
        return -dist.log_prob(y_true).mean()
    each = MultivariateNormal(dist.mean()[..., None], scale=dist.std()[..., None])
    return -each.log_prob(y_true[..., None]).mean(axis=0)


def energy_score(
    y_true: ArrayLike, dist: MultivariateNormal, *, scale: ArrayLike | None = None
) -> float:
    """Mean energy score, distances in units of `scale` (default: spread of the true labels)."""
    y_true, dist = _finite(y_true, dist)
    scale = _unit(y_true) if scale is None else scale
    return dist.energy_score(y_true, scale=scale).mean()


def _unit(y_true):
    spread = np.std(y_true, axis=0)
    return np.where(spread > 0, spread, 1.0)


class _DistScorer:
    """Scorer ``(estimator, X, y) -> float`` from a metric ``(y_true, dist) -> float or array``."""

    def __init__(self, metric, sign, kwargs):
        self.metric, self.sign, self.kwargs = metric, sign, kwargs

    def __call__(self, estimator, X, y, **ignored):
        dist = predict_dist(estimator, X)
        y = _like(y, dist)
        return self.sign * float(np.mean(self.metric(y, dist, **self.kwargs)))

    def __repr__(self):
        extra = "".join(f", {name}={value!r}" for name, value in self.kwargs.items())
        better = self.sign > 0
        return f"make_dist_scorer({self.metric.__name__}, greater_is_better={better}{extra})"


def make_dist_scorer(
    metric: Callable[..., float | np.ndarray], *, greater_is_better: bool = False, **kwargs: Any
) -> Callable[..., float]:
    """Make a scikit-learn scorer from a metric of distributions.

    Parameters
    ----------
    metric : callable ``(y_true, dist, **kwargs) -> float or ndarray``
        Must be importable (not a lambda) to be used with ``n_jobs``. Arrays are averaged.
    greater_is_better : bool
        False flips the sign.

    Examples
    --------
    >>> from skspec.metrics import crps, make_dist_scorer
    >>> make_dist_scorer(crps)
    make_dist_scorer(crps, greater_is_better=False)
    """
    return _DistScorer(metric, 1.0 if greater_is_better else -1.0, kwargs)


def _scaled_crps(y_true, dist):
    return crps(y_true, dist) / _unit(y_true)


def _coverage_error(y_true, dist, n_sigma=1.0):
    from scipy.special import erf

    return np.abs(coverage(y_true, dist, n_sigma) - erf(n_sigma / np.sqrt(2)))


neg_log_likelihood_scorer = make_dist_scorer(neg_log_likelihood)
neg_crps_scorer = make_dist_scorer(_scaled_crps)
neg_energy_score_scorer = make_dist_scorer(energy_score)
coverage_error_scorer = make_dist_scorer(_coverage_error)
