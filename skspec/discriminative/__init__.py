"""Methods that learn flux -> labels.

:class:`ResidualCovarianceRegressor` gives any scikit-learn regressor error bars.
"""

from skspec.discriminative._consensus import ConsensusRegressor, ConsensusResult
from skspec.discriminative._kernel_pca import KernelPCARegressor
from skspec.discriminative._residual_covariance import ResidualCovarianceRegressor

__all__ = [
    "ConsensusRegressor",
    "ConsensusResult",
    "KernelPCARegressor",
    "ResidualCovarianceRegressor",
]
