"""`LabelScaler`: labels of very different units brought to order one."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from skspec._label_values import label_features
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import DocumentedEstimator

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Labels

__all__ = ["LabelScaler"]


class LabelScaler(OneToOneFeatureMixin, TransformerMixin, DocumentedEstimator):
    r"""Scale stellar labels: :math:`x_k = (l_k - \mathrm{pivot}_k) / \mathrm{scale}_k`.

    Parameters
    ----------
    method : {"standard", "percentile", "robust"}, default="standard"
        How the pivot and the scale of each label are measured, with :math:`p_q` its percentiles:

        - "standard": mean and standard deviation;
        - "percentile": median and ``factor * (p97.5 - p2.5)``, as The Cannon;
        - "robust": ``(p84 + p16) / 2`` and ``(p84 - p16) / 2``, as SLAM.
    factor : float, default=0.25
        Only for "percentile". 0.25 is the scale of Ho et al. 2017; The Cannon 2 uses 2 (there it
        is a hyperparameter, for it sets how much the L1 norm penalises products of labels).

    Attributes
    ----------
    pivot_ : ndarray of shape (K,)
        Pivots, in label units.
    scale_ : ndarray of shape (K,)
        Scales, in label units, always positive: 1 for a label that is constant.
    n_features_in_ : int
        Number of labels K.

    References
    ----------
    Ho et al. 2017, ApJ 836, 5 (percentile); Casey et al. 2016, arXiv:1603.03040 (factor);
    Zhang et al. 2020, ApJS 246, 9 (robust).

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.preprocessing import LabelScaler
    >>> labels = np.array([[4000.0, 2.0], [5000.0, 3.0], [6000.0, 4.0]])
    >>> scaler = LabelScaler(method="robust").fit(labels)
    >>> scaler.pivot_.tolist(), scaler.scale_.round(2).tolist()
    ([5000.0, 3.0], [680.0, 0.68])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"standard", "percentile", "robust"})],
        "factor": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, method: str = "standard", *, factor: float = 0.25):
        self.method = method
        self.factor = factor

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Labels, y: Any = None) -> Self:
        """Measure pivot and scale of the labels `X` of shape (n, K); `y` is ignored."""
        labels = validate_data(self, label_features(X), dtype=np.float64)
        std = labels.std(axis=0)
        if self.method == "standard":
            self.pivot_, scale = labels.mean(axis=0), std
        elif self.method == "percentile":
            low, self.pivot_, high = np.percentile(labels, [2.5, 50, 97.5], axis=0)
            scale = self.factor * (high - low)
        else:
            low, high = np.percentile(labels, [16, 84], axis=0)
            self.pivot_, scale = 0.5 * (high + low), 0.5 * (high - low)
        # the spread of a constant label is rounding noise; percentiles may also miss rare values
        noise = 10 * np.finfo(float).eps * np.abs(labels).max(axis=0)
        scale = np.where(scale > noise, scale, std)
        self.scale_ = np.where(scale > noise, scale, 1.0)
        return self

    def transform(self, X: Labels) -> np.ndarray:
        """Scaled labels, shape (n, K)."""
        check_is_fitted(self)
        X = label_features(X, getattr(self, "feature_names_in_", None))
        labels = validate_data(self, X, dtype=np.float64, reset=False)
        return (labels - self.pivot_) / self.scale_

    def inverse_transform(self, X: Labels) -> np.ndarray:
        """Labels in their own units, shape (n, K); NaN (a star that failed) stays NaN."""
        check_is_fitted(self)
        scaled = check_array(X, dtype=np.float64, ensure_all_finite=False)
        return scaled * self.scale_ + self.pivot_

    def transform_covariance(self, cov: ArrayLike) -> np.ndarray:
        """Covariances (..., K, K) of labels, in scaled units."""
        check_is_fitted(self)
        return np.asarray(cov, dtype=float) / np.outer(self.scale_, self.scale_)

    def inverse_transform_covariance(self, cov: ArrayLike) -> np.ndarray:
        """Covariances (..., K, K) of scaled labels, in label units: ``S cov S``, S the scales."""
        check_is_fitted(self)
        return np.asarray(cov, dtype=float) * np.outer(self.scale_, self.scale_)
