"""What displays of predicted labels have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from skspec.base import predict_dist

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels, SpectraLike

__all__ = ["PredictionDisplay"]


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
        names = [str(c) for c in y.columns] if hasattr(y, "columns") else None
        dist = predict_dist(estimator, X)
        display: Any = cls
        return display.from_predictions(y, dist, label_names=names, name=name, ax=ax, **kwargs)
