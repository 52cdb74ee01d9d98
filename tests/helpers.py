"""Small estimators for the tests of the core; importable, so that worker processes find them."""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted, validate_data

from skspec import MultivariateNormal, Spectra
from skspec.base import LabelRegressor


class RidgeRegressor(LabelRegressor):
    """Ridge on the flux with the residual covariance: the smallest possible LabelRegressor.

    With ``need_ivar=True`` it refuses to fit or predict without errors, so that a search that
    loses them on the way fails instead of scoring.
    """

    def __init__(self, alpha=1.0, *, ivar="auto", need_ivar=False):
        self.alpha = alpha
        self.ivar = ivar
        self.need_ivar = need_ivar

    def _check_ivar(self, spectra):
        if self.need_ivar and not spectra.has_errors:
            raise RuntimeError("the errors got lost")

    def fit(self, X, y):
        spectra, y = self._validate_fit(X, y)
        self._check_ivar(spectra)
        self.ridge_ = Ridge(self.alpha).fit(spectra.flux, y)
        residual = y - self.ridge_.predict(spectra.flux).reshape(y.shape)
        self.cov_ = residual.T @ residual / len(y) + 1e-12 * np.eye(y.shape[1])
        return self

    def predict_dist(self, X):
        spectra = self._validate_predict(X)
        self._check_ivar(spectra)
        mean = self.ridge_.predict(spectra.flux).reshape(len(spectra), -1)
        return MultivariateNormal(mean, cov=self.cov_, label_names=self.label_names_in_)


class PlainRidge(RegressorMixin, BaseEstimator):
    """A stock regressor that takes a `Spectra` and demands that it still is one."""

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def fit(self, X, y):
        if not isinstance(X, Spectra) or not X.has_errors:
            raise RuntimeError("the errors got lost")
        flux, y = validate_data(self, X.flux, y)
        self.ridge_ = Ridge(self.alpha).fit(flux, y)
        return self

    def predict(self, X):
        check_is_fitted(self)
        if not isinstance(X, Spectra) or not X.has_errors:
            raise RuntimeError("the errors got lost at test time")
        return self.ridge_.predict(X.flux)


def memmap_kind(spectra):
    """In a worker process: whether flux and ivar arrived as memory maps."""
    return isinstance(spectra.flux, np.memmap), isinstance(spectra.ivar, np.memmap)
