"""What displays of predicted labels have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from skspec._label_values import known_names, label_names
from skspec.base import predict_dist

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels, SpectraLike

__all__ = ["PredictionDisplay", "display_names"]


def display_names(dist, y):
    """Names of predicted labels, or those of the true ones where only these have any."""
    return dist.label_names if known_names(dist.label_names) else label_names(y) or dist.label_names


class PredictionDisplay:
    """Base of displays that compare predicted distributions with true labels.

    A subclass has ``from_predictions(y_true, dist, *, label_names, name, ax)``.
    """

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: SpectraLike,
        y: Labels,
        *,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Predict `X` with a fitted estimator and hold its labels against `y`.

        Parameters
        ----------
        estimator : fitted estimator
        X : Spectra or array-like of shape (n, P)
        y : array-like of shape (n, K)
            True labels; the columns of a DataFrame name them.
        name : str, optional
            Method, for the title.
        ax : matplotlib Axes or array of them, optional
        **kwargs
            For ``plot``.
        """
        dist = predict_dist(estimator, X)
        names = display_names(dist, y)
        display: Any = cls
        return display.from_predictions(y, dist, label_names=names, name=name, ax=ax, **kwargs)
