"""What spectra say of parameters: noise of their pixels, normal equations, inversion, held-out errors.

This room knows no estimator. :class:`PixelNoise` and :class:`NormalEquations` hold every sum over
pixels that a likelihood needs; a :class:`SpectrumModel` says what spectra look like, at rest
(:class:`RestFrame`) or through a line of sight and a continuum (:class:`Observed`); :func:`minimize`
finds the parameters of many stars at once, as an :class:`Inversion` says.
"""

from skspec.likelihood._free_parameters import FreeColumns, FreeParameters
from skspec.likelihood._held_out import HeldOut, HeldOutStars, OutOfSample, mean_square
from skspec.likelihood._inversion import Inversion, influence, minimize
from skspec.likelihood._label_errors import (
    LabelErrors,
    LabelErrorSum,
    LocalCovariance,
    excess_covariance,
)
from skspec.likelihood._label_likelihood import LabelLikelihood, LabelScale
from skspec.likelihood._low_rank import low_rank_errors
from skspec.likelihood._noise import LinearColumns, LinearFit, PixelNoise, Polynomials
from skspec.likelihood._normal_equations import (
    NormalEquations,
    inverse_information,
    marginal_information,
)
from skspec.likelihood._observed import Observed
from skspec.likelihood._prior import LabelPopulation
from skspec.likelihood._rest_frame import RestFrame
from skspec.likelihood._result import InversionResult
from skspec.likelihood._spectrum_model import (
    FluxBasis,
    Linearization,
    NoiseBudget,
    Solution,
    SpectrumModel,
    compress,
)
from skspec.likelihood._training_labels import TrainingLabels

__all__ = [
    "FluxBasis",
    "FreeColumns",
    "FreeParameters",
    "HeldOut",
    "HeldOutStars",
    "Inversion",
    "InversionResult",
    "LabelErrorSum",
    "LabelErrors",
    "LabelLikelihood",
    "LabelPopulation",
    "LabelScale",
    "LinearColumns",
    "LinearFit",
    "Linearization",
    "LocalCovariance",
    "NoiseBudget",
    "NormalEquations",
    "Observed",
    "OutOfSample",
    "PixelNoise",
    "Polynomials",
    "RestFrame",
    "Solution",
    "SpectrumModel",
    "TrainingLabels",
    "compress",
    "influence",
    "inverse_information",
    "excess_covariance",
    "low_rank_errors",
    "marginal_information",
    "mean_square",
    "minimize",
]
