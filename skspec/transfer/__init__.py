"""What carries models from one domain to another: synthetic to observed, survey to survey."""

from skspec.transfer._cycle_star_net import CycleStarNet
from skspec.transfer._guard_rails import GuardRails, TranslationWarning
from skspec.transfer._label_homogenizer import HomogenizedLabels, LabelHomogenizer
from skspec.transfer._label_translator import LabelTranslator
from skspec.transfer._pixel_correction import PixelCorrection

__all__ = [
    "CycleStarNet",
    "GuardRails",
    "HomogenizedLabels",
    "LabelHomogenizer",
    "LabelTranslator",
    "PixelCorrection",
    "TranslationWarning",
]
