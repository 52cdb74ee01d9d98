"""Forward models: learn labels -> flux, invert by likelihood."""

from skspec.forward._base import ForwardModel
from skspec.forward._corrected import CorrectedModel
from skspec.forward._full_spectrum_fit import FullSpectrumFit
from skspec.forward._posterior import PosteriorSamples, sample_posterior
from skspec.forward._slam import SLAM
from skspec.forward._spectral_gp import SpectralGP
from skspec.forward._the_cannon import FewStarsWarning, TheCannon, censoring_mask
from skspec.forward._the_payne import ThePayne
from skspec.likelihood import Inversion, InversionResult

__all__ = [
    "CorrectedModel",
    "FewStarsWarning",
    "ForwardModel",
    "FullSpectrumFit",
    "Inversion",
    "InversionResult",
    "PosteriorSamples",
    "SLAM",
    "SpectralGP",
    "TheCannon",
    "ThePayne",
    "censoring_mask",
    "sample_posterior",
]
