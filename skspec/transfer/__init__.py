"""What carries models from one domain to another: synthetic to observed, survey to survey."""

from skspec.transfer._pixel_correction import PixelCorrection

__all__ = ["PixelCorrection"]
