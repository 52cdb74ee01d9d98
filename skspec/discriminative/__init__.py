"""Methods that learn flux -> labels.

:class:`ResidualCovarianceRegressor` gives any scikit-learn regressor error bars.
"""

from skspec.discriminative._augmented import AugmentedRegressor
from skspec.discriminative._calibrated import CalibratedRegressor
from skspec.discriminative._consensus import ConsensusRegressor, ConsensusResult
from skspec.discriminative._deep_ensemble import DeepEnsembleRegressor
from skspec.discriminative._kernel_pca import KernelPCARegressor
from skspec.discriminative._residual_covariance import ResidualCovarianceRegressor
from skspec.discriminative._spectral_cnn import SpectralCNN

__all__ = [
    "AugmentedRegressor",
    "CalibratedRegressor",
    "ConsensusRegressor",
    "ConsensusResult",
    "DeepEnsembleRegressor",
    "KernelPCARegressor",
    "ResidualCovarianceRegressor",
    "SpectralCNN",
]
