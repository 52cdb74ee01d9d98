"""Error bars for any method: given to one that has none, or made to keep their promise.

:class:`ResidualCovarianceRegressor` gives any scikit-learn regressor error bars;
:class:`CalibratedRegressor` scales those of any method, or replaces them by conformal intervals.
"""

from skspec.calibration._calibrated import CalibratedRegressor
from skspec.calibration._residual_covariance import ResidualCovarianceRegressor

__all__ = ["CalibratedRegressor", "ResidualCovarianceRegressor"]
