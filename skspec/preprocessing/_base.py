"""What every Spectra -> Spectra transformer shares."""

from __future__ import annotations

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from skspec.base import SpectraEstimator, in_memory
from skspec.spectra import Spectra


class SpectraTransformer(TransformerMixin, SpectraEstimator):
    """Spectra in, Spectra out; plain array in, plain array out.

    A subclass implements ``fit`` and ``_transform(spectra) -> Spectra``.
    """

    def transform(self, X):
        """Transform spectra.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra; never modified.

        Returns
        -------
        Spectra or ndarray
            A `Spectra` for a `Spectra`, an array of fluxes for an array.
        """
        check_is_fitted(self)
        X = in_memory(X)
        if isinstance(X, Spectra):
            self._refuse_frames()
        spectra = self._validate_transform(X)
        out = self._transform(spectra)
        return out if isinstance(X, Spectra) else self._plain(out)

    def _validate_transform(self, X):
        return self._validate_spectra(X, reset=False)[0]

    def _plain(self, out):
        """What a plain array becomes: it has no place for errors or bad pixels."""
        return out.flux

    def _refuse_frames(self):
        container = _get_output_config("transform", self)["dense"]
        if container != "default":
            raise ValueError(
                f"{type(self).__name__} returns Spectra for Spectra, and a {container} frame "
                "cannot hold their errors. Call set_output(transform='default'), or pass a plain "
                "array of fluxes."
            )


def fit_weights(spectra: Spectra) -> np.ndarray:
    """Weights (n, P) in float64 for a linear fit to the flux: ivar over its largest, per star.

    Good pixels of unknown noise (``ivar`` inf) weigh as much as the best known pixel.
    """
    if spectra.ivar is None:
        return np.ones(spectra.shape)
    ivar = np.asarray(spectra.ivar, dtype=float)
    known = np.where(np.isfinite(ivar), ivar, 0.0)
    largest = known.max(axis=1, keepdims=True, initial=0.0)
    largest = np.where(largest > 0, largest, 1.0)
    return np.where(np.isfinite(ivar), known / largest, 1.0)
