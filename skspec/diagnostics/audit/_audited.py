"""The model, the stars and the refits that the tests of an audit share."""

from __future__ import annotations

import warnings
from functools import cached_property

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import false_discovery_control, norm
from sklearn.base import clone

from skspec.base import CorrelatedLabelsWarning, last_step, predict_dist
from skspec.metrics import robust_sigma
from skspec.model_selection import check_cv, star_groups

__all__ = ["Audited", "beyond", "discoveries", "sum_by_star"]

LEVEL = 0.01  # share of false flags among those raised
MEDIAN_ERROR = 1.2533  # standard error of a median, in that of a mean


class Audited:
    """A model under audit, with the predictions that several tests need.

    Attributes
    ----------
    model : estimator
        To be cloned and fitted to all of the stars, or to some; fitted before, without `refit`.
    spectra, y, names, noise : Spectra, ndarray (n, K), list of str, ndarray (n, K)
        The stars, their labels and the errors of these (0 where unknown).
    scale : ndarray (K,)
        Standard deviation of the labels, errors taken out: the unit of what counts as large.
    varies : ndarray of bool (K,)
        Labels that have one; 1 stands for that of the others.
    """

    def __init__(self, model, spectra, y, names, noise, *, vector, refit, cv, n_jobs, seed):
        self.model, self.spectra, self.y, self.names, self.noise = model, spectra, y, names, noise
        self.refit, self.cv, self.n_jobs, self.seed = refit, cv, n_jobs, seed
        self._vector = vector
        self.groups = star_groups(spectra)
        spread = np.maximum(np.var(y, axis=0) - np.mean(noise**2, axis=0), 0)
        self.varies = (spread > 0) & (np.ptp(y, axis=0) > 0)  # whatever the mean is rounded to
        self.scale = np.where(self.varies, np.sqrt(spread), 1.0)

    def __len__(self):
        return len(self.y)

    @cached_property
    def fitted(self):
        """The model fitted to all stars."""
        if not self.refit:
            return self.model
        return _fit(self.model, self.spectra, self._labels(slice(None)))

    def stars(self, rows):
        """Star of each of some spectra, or None when every spectrum is one."""
        return None if self.groups is None else self.groups[rows]

    def predict(self, spectra):
        """Labels (m, K) of other stars by the model fitted to all, and their claimed errors."""
        return _predict(self.fitted, spectra)

    @cached_property
    def predicted(self):
        """Labels (n, K) of each star by a model that has not seen it, and their claimed errors."""
        return self.out_of_fold(self.spectra) if self.refit else self.predict(self.spectra)

    @property
    def error(self):
        """Predicted minus given labels (n, K)."""
        return self.predicted[0] - self.y

    @cached_property
    def known(self):
        """Stars with a finite prediction (n,)."""
        return np.isfinite(self.predicted[0]).all(axis=1)

    @cached_property
    def sigma(self):
        """Error (n, K) that each star is said to have: the claimed one, else the usual one."""
        claimed = np.where(np.isfinite(self.predicted[1]), self.predicted[1], np.nan)
        usual = robust_sigma(self.error[self.known], about=0.0)
        return np.hypot(np.where(np.isnan(claimed), usual, claimed), self.noise)

    def out_of_fold(self, spectra):
        """Predictions of every star from those of other folds."""
        cv = check_cv(self.cv, len(self), self.groups, shuffle=True)
        folds = list(cv.split(self.y, groups=self.groups))
        mean, std = np.full(self.y.shape, np.nan), np.full(self.y.shape, np.nan)
        parts = self.refits([(train, spectra[test]) for train, test in folds], spectra)
        for (_, test), part in zip(folds, parts):
            mean[test], std[test] = part
        return mean, std

    def refits(self, tasks, spectra=None):
        """For each ``(rows to fit, spectra to predict)``: labels (m, K) and claimed errors."""
        spectra = self.spectra if spectra is None else spectra
        return Parallel(n_jobs=self.n_jobs)(
            delayed(_refit)(self.model, spectra[rows], self._labels(rows), new)
            for rows, new in tasks
        )

    def _labels(self, rows):
        """Labels of some stars, named, in the form in which they were given."""
        import pandas as pd

        if self._vector:
            return pd.Series(self.y[rows, 0], name=self.names[0])
        return pd.DataFrame(self.y[rows], columns=self.names)


def _fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorrelatedLabelsWarning)  # it is what is looked into
        return clone(model).fit(X, y)


def _refit(model, X, y, new):
    return _predict(_fit(model, X, y), new)


def _predict(model, X):
    """Labels (n, K) and claimed errors, NaN where the model claims none."""
    if hasattr(last_step(model), "predict_dist"):
        dist = predict_dist(model, X)
        return dist.mean(), dist.std()
    mean = np.asarray(model.predict(X), dtype=float).reshape(len(X), -1)
    return mean, np.full(mean.shape, np.nan)


def sum_by_star(values, groups):
    """Sums of `values` (n, ...) over the spectra of each star, which may err together."""
    if groups is None:
        return values
    star = np.unique(groups, return_inverse=True)[1]
    total = np.zeros((star.max() + 1, *values.shape[1:]))
    np.add.at(total, star, values)
    return total


def beyond(value, std, limit):
    """Probability that noise alone carries ``|value|`` so far beyond `limit`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (np.abs(value) - limit) / std
    return np.where(np.isfinite(z), norm.sf(z), np.where(np.abs(value) > limit, 0.0, 1.0))


def discoveries(p_value):
    """Which of several p-values stand, with a false discovery rate of 1 %."""
    p_value = np.asarray(p_value, dtype=float)
    return false_discovery_control(p_value) < LEVEL if p_value.size else np.zeros(0, bool)
