"""A method from flux to labels, to copy: python regressor.py checks it.

Here it is ridge regression on the pixels, with the covariance of leave-one-out errors:

    b = F^T a,   a = (F F^T + lambda 1)^-1 t,   e_i = a_i / [(F F^T + lambda 1)^-1]_ii

with centred fluxes F (n, P) and standardised labels t (n, K).
"""

from numbers import Real

import numpy as np

from skspec import LabelRegressor, MultivariateNormal
from skspec._sklearn import Interval, fit_context


class RidgeLabels(LabelRegressor):
    """Ridge regression with the covariance of its leave-one-out errors.

    Parameters
    ----------
    alpha : float
        Strength of the penalty, in units of the mean squared length of a centred spectrum.

    Attributes
    ----------
    coef_ : ndarray of shape (P, K)
        Labels per flux.
    label_covariance_ : ndarray of shape (K, K)
        Covariance of the leave-one-out errors, in label units.
    """

    _capabilities = {"speed": "seconds"}  # what the constructor does not show, for skspec.discovery
    _parameter_constraints = {"alpha": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, alpha=1e-3):
        self.alpha = alpha  # the constructor only stores

    @fit_context(prefer_skip_nested_validation=True)  # checks the parameters
    def fit(self, X, y):
        """Learn from spectra of shape (n, P) and labels of shape (n, K) or (n,)."""
        spectra, y = self._validate_fit(X, y)  # a Spectra, and labels (n, K)
        n = len(y)
        if n < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 stars, got {n} sample.")
        self.mean_flux_ = _mean_of_good(spectra)
        flux = self._centred(spectra)
        mean, scale = y.mean(axis=0), y.std(axis=0)
        scale[scale == 0] = 1.0
        gram = flux @ flux.T
        inverse = np.linalg.inv(gram + self.alpha * np.trace(gram) / n * np.eye(n))
        dual = inverse @ ((y - mean) / scale)
        error = dual / np.diag(inverse)[:, None] * scale
        self.coef_, self.intercept_ = flux.T @ dual * scale, mean
        self.label_covariance_ = error.T @ error / n + np.diag(1e-12 * scale**2)
        return self

    def predict_dist(self, X):
        """One Gaussian per star, in label units; NaN for a star without a good pixel."""
        spectra = self._validate_predict(X)
        labels = self._centred(spectra) @ self.coef_ + self.intercept_
        cov = np.repeat(self.label_covariance_[None], len(labels), axis=0)
        blind = ~spectra.good.any(axis=1)
        labels[blind], cov[blind] = np.nan, np.diag(np.full(labels.shape[1], np.inf))
        return MultivariateNormal(labels, cov=cov, label_names=self.label_names_in_)

    def _centred(self, spectra):
        """Flux less its mean; 0 in bad pixels, whatever they hold."""
        return np.where(spectra.good, spectra.flux - self.mean_flux_, 0.0)


def _mean_of_good(spectra):
    """Mean flux (P,) of the good pixels; 0 where all are bad."""
    total = np.sum(spectra.flux, axis=0, where=spectra.good, dtype=float)
    return total / np.maximum(spectra.good.sum(axis=0), 1)


if __name__ == "__main__":
    from skspec.testing import check_regressor

    for result in check_regressor(RidgeLabels(), param_grid={"alpha": [1e-3, 1e-2]}):
        print(result["status"], result["law"])
