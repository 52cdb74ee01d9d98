"""What preprocessing shares."""

from __future__ import annotations

import numpy as np

from skspec.spectra import Spectra

__all__ = ["fit_weights"]


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
