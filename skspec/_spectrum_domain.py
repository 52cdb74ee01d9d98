"""The domain score of methods that have no better one: distance in linear principal components."""

from __future__ import annotations

import numpy as np

from skspec.model_selection import star_groups
from skspec.solvers.spectra.spectrum_domain import fit_domain

__all__ = ["SpectrumDomainMixin"]


class SpectrumDomainMixin:
    """``domain_score`` of a :class:`~skspec.base.LabelRegressor` whose fit calls `_fit_domain`."""

    def _fit_domain(self, spectra):
        self.domain_ = fit_domain(
            spectra.flux, spectra.good, spectra.variance, star_groups(spectra)
        )

    def domain_score(self, X) -> np.ndarray:
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
