"""Domain scores of methods that have none of their own, and of wrappers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from skspec.base import domain_score
from skspec.model_selection import star_groups
from skspec.solvers.spectra.spectrum_domain import fit_domain

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import SpectraLike
    from skspec.spectra import Spectra

__all__ = ["InnerDomainMixin", "SpectrumDomainMixin"]


class SpectrumDomainMixin:
    """Distance in linear principal components: for a regressor whose fit calls `_fit_domain`."""

    _validate_predict: Callable[..., Spectra]  # of the regressor

    def _fit_domain(self, spectra):
        self.domain_ = fit_domain(
            spectra.flux, spectra.good, spectra.variance, star_groups(spectra)
        )

    def domain_score(self, X: SpectraLike) -> np.ndarray:
        """How far spectra lie from those of the training, outside or inside their components.

        The unit is the 99th percentile of training stars that the components had not seen
        (:func:`skspec.domain_score`); chi2 counts the photon noise of the star.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n,)
            NaN for a star without a good pixel.
        """
        spectra = self._validate_predict(X)
        return self.domain_.score(spectra.flux, spectra.good, spectra.variance)


class InnerDomainMixin:
    """That of the fitted ``estimator_`` of a wrapper, or the mean of its ``estimators_``."""

    estimator_: BaseEstimator  # of the wrapper, as its validation
    _validate_predict: Callable[..., Spectra]

    def domain_score(self, X: SpectraLike) -> np.ndarray:
        """Domain score of the method (:func:`skspec.domain_score`), the mean of several fits.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        TypeError
            When the method has none.
        """
        spectra = self._validate_predict(X)
        fits = self.estimators_ if hasattr(self, "estimators_") else [self.estimator_]
        return np.mean([domain_score(model, spectra) for model in fits], axis=0)
