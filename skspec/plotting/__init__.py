"""Figures: ``*Display`` classes as in scikit-learn, and the report of a comparison.

Each display has ``from_estimator`` and ``from_predictions`` and draws on given axes or on a new
figure. matplotlib is imported when something is drawn.
"""

from skspec.plotting._attention import AttentionMapDisplay
from skspec.plotting._audit_page import write_audit_page
from skspec.plotting._coverage import CoverageDisplay
from skspec.plotting._echelle import EchelleDisplay
from skspec.plotting._flux_trend import FluxTrendDisplay
from skspec.plotting._homogenization import HomogenizationDisplay
from skspec.plotting._information import InformationMapDisplay
from skspec.plotting._label_audit import LabelAuditDisplay
from skspec.plotting._latent_dispersion import NodeDispersionDisplay
from skspec.plotting._latent_information import MutualInformationDisplay
from skspec.plotting._latent_reconstruction import ReconstructionDisplay
from skspec.plotting._latent_scatter import LatentScatterDisplay
from skspec.plotting._latent_traversal import TraversalDisplay
from skspec.plotting._methods import MethodsDisplay
from skspec.plotting._one_to_one import OneToOneDisplay
from skspec.plotting._pixel_error import PixelErrorDisplay
from skspec.plotting._report import write_report
from skspec.plotting._residual_snr import ResidualSNRDisplay
from skspec.plotting._sigma import SigmaDisplay
from skspec.plotting._spectrum_fit import SpectrumFitDisplay
from skspec.plotting._synthetic_gap import SyntheticGapDisplay

__all__ = [
    "AttentionMapDisplay",
    "CoverageDisplay",
    "EchelleDisplay",
    "FluxTrendDisplay",
    "HomogenizationDisplay",
    "InformationMapDisplay",
    "LabelAuditDisplay",
    "LatentScatterDisplay",
    "MethodsDisplay",
    "MutualInformationDisplay",
    "NodeDispersionDisplay",
    "OneToOneDisplay",
    "PixelErrorDisplay",
    "ReconstructionDisplay",
    "ResidualSNRDisplay",
    "SigmaDisplay",
    "SpectrumFitDisplay",
    "SyntheticGapDisplay",
    "TraversalDisplay",
    "write_audit_page",
    "write_report",
]
