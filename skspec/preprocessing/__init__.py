"""Spectra -> Spectra transformers, and the scaling of labels.

Most spectra need a `ContinuumNormalizer`; `BadPixelMasker` and `Resampler` come before it. Every
transformer takes a `Spectra` and returns one, errors included; plain arrays give plain arrays.
"""

from skspec.preprocessing._label_scaler import LabelScaler

__all__ = ["LabelScaler"]
