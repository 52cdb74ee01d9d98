"""Small estimators for the tests of the core; importable, so that worker processes find them."""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted, validate_data

from skspec import MultivariateNormal, Spectra
from skspec.base import LabelRegressor, SpectraEstimator


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


class LinearVAE(TransformerMixin, SpectraEstimator):
    """The linear variational autoencoder in closed form (Lucas et al. 2019): PCA with collapse.

    With decoder noise `sigma` a component of variance v has loadings of length
    sqrt(v - beta sigma^2), and collapses where that is negative.
    """

    def __init__(self, n_latent=8, *, beta=1.0, sigma=0.1, random_state=None):
        self.n_latent = n_latent
        self.beta = beta
        self.sigma = sigma
        self.random_state = random_state

    def fit(self, X, y=None):
        spectra, _ = self._validate_spectra(X, reset=True)
        self.mean_ = spectra.flux.mean(axis=0)
        size = len(spectra) ** -0.5
        _, s, directions = np.linalg.svd(size * (spectra.flux - self.mean_), full_matrices=False)
        length = np.sqrt(np.maximum(s**2 - self.beta * self.sigma**2, 0.0))[: self.n_latent]
        self.loadings_ = length[:, None] * directions[: self.n_latent]
        self.projection_ = (self.loadings_ / s[: self.n_latent, None] ** 2).T
        return self

    def transform(self, X):
        spectra, _ = self._validate_spectra(X, reset=False)
        latents = (spectra.flux - self.mean_) @ self.projection_
        latents[~spectra.good.any(axis=1)] = np.nan
        return latents

    def inverse_transform(self, X):
        assert np.isfinite(X).all()
        return self.mean_ + X @ self.loadings_


def memmap_kind(spectra):
    """In a worker process: whether flux and ivar arrived as memory maps."""
    return isinstance(spectra.flux, np.memmap), isinstance(spectra.ivar, np.memmap)
