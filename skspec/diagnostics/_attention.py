"""Where an attention network looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skspec.base import unwrap

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import SpectraLike

__all__ = ["attention_map"]


def attention_map(model: BaseEstimator, X: SpectraLike) -> np.ndarray:
    """Attention that a network pays to each pixel of each spectrum.

    The mean of the attention gates at three resolutions, interpolated to the pixels of the spectrum,
    each relative to its mean over pixels: 1 is what a pixel gets on average. It tells where the
    network takes its features from, not what they tell it: compare
    :func:`~skspec.diagnostics.information_map`.

    Parameters
    ----------
    model : fitted estimator
        A :class:`~skspec.discriminative.SpectralCNN` with ``architecture="attention"``, also at the end
        of a Pipeline or inside a search.
    X : Spectra or array-like of shape (n, P)

    Returns
    -------
    ndarray of shape (n, P)
        On the wavelengths of `X`; 0 at pixels that were bad in all training spectra.

    Raises
    ------
    TypeError
        When the model is no SpectralCNN.
    ValueError
        When its architecture has no attention.

    References
    ----------
    Oktay et al. 2018, arXiv:1804.03999.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.diagnostics import attention_map
    >>> from skspec.discriminative import SpectralCNN
    >>> spectra, labels = make_spectra(n_samples=60, n_pixels=64, random_state=0)
    >>> model = SpectralCNN("attention", architecture_params={"width": 2}, max_iter=3)
    >>> attention_map(model.fit(spectra, labels), spectra).shape
    (60, 64)
    """
    model, X = unwrap(model, X)
    if not hasattr(model, "attention"):
        raise TypeError(
            f"{type(model).__name__} has no attention; use SpectralCNN(architecture='attention')."
        )
    return model.attention(X)
