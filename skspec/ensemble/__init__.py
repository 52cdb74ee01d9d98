"""Several fits as one: of different methods, of one method, or of one to copies of its stars."""

from skspec.ensemble._augmented import AugmentedRegressor
from skspec.ensemble._consensus import ConsensusRegressor, ConsensusResult
from skspec.ensemble._deep_ensemble import DeepEnsembleRegressor

__all__ = [
    "AugmentedRegressor",
    "ConsensusRegressor",
    "ConsensusResult",
    "DeepEnsembleRegressor",
]
