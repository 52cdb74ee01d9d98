"""Honest, if simple, error bars for any scikit-learn regressor."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspec._out_of_fold import OutOfFoldMixin
from skspec._sklearn import HasMethods, fit_context
from skspec._spectrum_domain import SpectrumDomainMixin
from skspec.base import LabelRegressor
from skspec.distributions import MultivariateNormal
from skspec.model_selection import check_cv, star_groups

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, SpectraLike

__all__ = ["ResidualCovarianceRegressor"]


class ResidualCovarianceRegressor(OutOfFoldMixin, SpectrumDomainMixin, LabelRegressor):
    r"""Any regressor from flux to labels, with the covariance of its cross-validated errors.

    The regressor sees standardised labels. Its out-of-fold
    residuals :math:`e_i = \ell_i - \hat\ell_i^{(-i)}` on the training stars give one covariance
    for all stars,

    .. math:: \Sigma = \frac{1}{n} \sum_i e_i e_i^T,

    and ``predict_dist`` is :math:`N(\hat\ell, \Sigma)`: right on average over stars like those of
    the training set, too wide for the best spectra and too narrow for the worst.

    Parameters
    ----------
    estimator : estimator, optional
        Regressor of several targets; default: standardised pixels and
        :class:`~sklearn.linear_model.RidgeCV` with ``alphas=logspace(0, 6, 13)``. A search inside it
        whose folds are by group, such as ``GridSearchCV(..., cv=GroupKFold(3))``, gets the star of
        each spectrum.
    cv : int or cross-validation splitter
        Folds of the out-of-fold predictions. Spectra of one star (``star_id`` or ``group_id`` in
        ``X.meta``) are never on both sides.
    robust : bool
        True: covariance from median absolute deviations and rank correlations, blind to outliers
        (and then too small for a test set that has them).
    n_jobs : int, optional
        Parallel folds.

    Attributes
    ----------
    estimator_ : estimator
        The regressor, fitted on all training stars and standardised labels.
    residuals_ : ndarray of shape (n, K)
        Out-of-fold residuals, in label units.
    label_covariance_ : ndarray of shape (K, K)
        Their covariance.
    label_scale_ : ndarray of shape (K,)
        Standard deviation of the training labels.
    fill_ : ndarray of shape (P,)
        Median flux of the good training pixels, which replaces bad pixels.
    domain_ : SpectrumDomain
        Where the training spectra lie, for :meth:`domain_score`.

    See Also
    --------
    skspec.forward.TheCannon : Errors that follow the noise of each spectrum.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.calibration import ResidualCovarianceRegressor
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=(200, 2))
    >>> X = y @ rng.normal(size=(2, 30)) + 0.1 * rng.normal(size=(200, 30))
    >>> model = ResidualCovarianceRegressor().fit(X, y)
    >>> model.predict_dist(X).cov().shape
    (200, 2, 2)
    """

    _capabilities = {
        "follows_noise": False,
        "native_bad_pixels": False,
        **dict.fromkeys(("velocity", "broadening", "continuum", "out_of_core"), False),
    }
    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "cv": ["cv_object"],
        "robust": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        *,
        cv: CrossValidation = 5,
        robust: bool = False,
        n_jobs: int | None = None,
    ):
        self.estimator = estimator
        self.cv = cv
        self.robust = robust
        self.n_jobs = n_jobs

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Fit the regressor and measure the covariance of its out-of-fold errors.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra; their errors are used only to find bad pixels.
        y : array-like of shape (n, K) or (n,)
            Training labels.

        Returns
        -------
        self
        """
        spectra, y = self._validate_fit(X, y)
        if len(spectra) < 2:
            raise ValueError("ResidualCovarianceRegressor needs at least 2 stars, got 1 sample.")
        self.fill_ = _median_good(spectra)
        flux = self._filled(spectra)
        estimator = clone(self.estimator if self.estimator is not None else _default_estimator())
        groups = star_groups(spectra)
        cv = check_cv(self.cv, len(y), groups)
        self.estimator_ = self._fit_out_of_fold(estimator, flux, y, cv, groups)
        self._fit_domain(spectra)
        return self

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Prediction of the regressor with the covariance of its cross-validated errors.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra.

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel.
        """
        spectra = self._validate_predict(X)
        mean, cov = self._out_of_fold_moments(self.estimator_, self._filled(spectra))
        return self._distribution(mean, cov, ~spectra.good.any(axis=1))

    def _filled(self, spectra):
        """Flux in float64 with bad pixels replaced: whatever they hold, nothing changes."""
        flux = np.asarray(spectra.flux, dtype=float)
        return flux if spectra.ivar is None else np.where(spectra.good, flux, self.fill_)


def _default_estimator():
    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 6, 13), gcv_mode="eigen"))


def _median_good(spectra):
    """Median flux of the good pixels; 0 where a pixel is bad in all stars."""
    flux = np.asarray(spectra.flux, dtype=float)
    if spectra.ivar is None:
        return np.median(flux, axis=0)
    flux = np.where(spectra.good, flux, np.nan)
    dead = ~spectra.good.any(axis=0)
    flux[:, dead] = 0
    return np.nanmedian(flux, axis=0)
