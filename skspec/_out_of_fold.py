"""Errors of a regressor on stars that it has not seen, and the Gaussian that they make of it."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
from sklearn import config_context
from sklearn.model_selection import cross_val_predict
from sklearn.utils.metadata_routing import get_routing_for_object

from skspec.metrics import error_covariance

__all__ = ["OutOfFoldMixin"]


class OutOfFoldMixin:
    """For a :class:`~skspec.base.LabelRegressor` around a regressor of scikit-learn's kind.

    Its parameters are ``robust`` and ``n_jobs``; its fit calls `_fit_out_of_fold`, its
    ``predict_dist`` `_out_of_fold_moments`.
    """

    def _fit_out_of_fold(self, estimator, flux, y, cv, groups=None):
        """`estimator` fitted to standardised labels; sets ``residuals_`` and ``label_covariance_``."""
        targets = self._standardised(y)
        if targets.shape[1] == 1:  # not every regressor takes a column
            targets = targets[:, 0]
        folds = list(cv.split(flux, targets, groups))
        stars = np.arange(len(flux)) if groups is None else groups
        asks = _asks_for_groups(estimator)
        params = {"groups": stars} if asks else {}
        with config_context(enable_metadata_routing=True) if asks else nullcontext():
            predicted = cross_val_predict(
                estimator, flux, targets, cv=folds, n_jobs=self.n_jobs, params=params
            )
            fitted = estimator.fit(flux, targets, **params)
        self.residuals_ = (targets - predicted).reshape(y.shape) * self.label_scale_
        self.label_covariance_ = error_covariance(self.residuals_, robust=self.robust)
        return fitted

    def _standardised(self, y):
        """Labels of zero mean and unit variance; sets ``label_scale_``."""
        self._label_mean = y.mean(axis=0)
        spread = y.std(axis=0)
        self.label_scale_ = np.where(spread > 0, spread, 1.0)
        return (y - self._label_mean) / self.label_scale_

    def _out_of_fold_moments(self, estimator, flux):
        """Means (n, K) and covariances (n, K, K), in label units."""
        mean = np.asarray(estimator.predict(flux), dtype=float).reshape(len(flux), -1)
        mean = mean * self.label_scale_ + self._label_mean
        return mean, np.repeat(self.label_covariance_[None], len(mean), axis=0)


def _asks_for_groups(estimator):
    """Whether a search inside has folds by group (``cv=GroupKFold()``), to which each star is one."""
    with config_context(enable_metadata_routing=True):
        try:
            return bool(get_routing_for_object(estimator).consumes("fit", {"groups"}))
        except NotImplementedError:  # a meta-estimator that passes nothing on
            return False
