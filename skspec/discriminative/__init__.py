"""Methods that learn flux -> labels.

:class:`~skspec.calibration.ResidualCovarianceRegressor` makes one of any scikit-learn regressor.
"""

from skspec.discriminative._kernel_pca import KernelPCARegressor
from skspec.discriminative._spectral_cnn import SpectralCNN
from skspec.discriminative._template_match import TemplateMatch, TemplateMatchResult

__all__ = ["KernelPCARegressor", "SpectralCNN", "TemplateMatch", "TemplateMatchResult"]
