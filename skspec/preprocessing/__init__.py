"""Spectra -> Spectra transformers, and the scaling of labels.

Most spectra need a `ContinuumNormalizer`; `BadPixelMasker` and `Resampler` come before it, and
`to_rest_frame` before all. Every transformer takes a `Spectra` and returns one, errors included; plain
arrays give plain arrays.
"""

from skspec.preprocessing._bad_pixels import BadPixelMasker
from skspec.preprocessing._continuum import ContinuumNormalizer
from skspec.preprocessing._echelle import EchelleLayout
from skspec.preprocessing._label_scaler import LabelScaler
from skspec.preprocessing._resample import Resampler
from skspec.preprocessing._rest_frame import to_rest_frame

__all__ = [
    "BadPixelMasker",
    "ContinuumNormalizer",
    "EchelleLayout",
    "LabelScaler",
    "Resampler",
    "to_rest_frame",
]
