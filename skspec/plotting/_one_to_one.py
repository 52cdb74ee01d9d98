"""Predicted against true labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec import metrics
from skspec.distributions import MultivariateNormal
from skspec.metrics import by_name
from skspec.plotting._predictions import PredictionDisplay
from skspec.plotting._style import INK, colour, label_text, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import AxesLike

__all__ = ["OneToOneDisplay"]


class OneToOneDisplay(PredictionDisplay):
    """Predicted against true labels, a panel per label.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, K)
        True and predicted labels.
    y_std : ndarray of shape (n, K) or None
        Standard deviations of the predictions.
    label_names : list of str
    name : str or None
        Method, for the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (K,)
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        *,
        y_std: np.ndarray | None = None,
        label_names: Sequence[str],
        name: str | None = None,
    ):
        self.y_true = y_true
        self.y_pred = y_pred
        self.y_std = y_std
        self.label_names = label_names
        self.name = name

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike | MultivariateNormal,
        *,
        label_names: Sequence[str] | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot predictions (a MultivariateNormal, or an array) against true labels."""
        display = cls._of(y_true, y_pred, label_names, name)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def _of(cls, y_true, y_pred, label_names, name):
        dist = y_pred if isinstance(y_pred, MultivariateNormal) else None
        y_true, mean = by_name(y_true, y_pred)
        mean = mean.reshape(len(mean), -1)
        names = label_names or getattr(dist, "label_names", None)
        names = names or [f"label_{k}" for k in range(mean.shape[1])]
        y_true = y_true.reshape(mean.shape)
        std = None if dist is None else dist.std()
        return cls(y_true, mean, y_std=std, label_names=names, name=name)

    def plot(
        self,
        ax: AxesLike | None = None,
        *,
        kind: str = "one_to_one",
        color: str | None = None,
        errors: bool = True,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of K Axes, optional
            Default: a new figure.
        kind : {"one_to_one", "residual"}
            Predicted, or predicted minus true, against true labels.
        color : colour, optional
        errors : bool
            Draw the standard deviations too, where they are known.

        Returns
        -------
        OneToOneDisplay
        """
        if kind not in ("one_to_one", "residual"):
            raise ValueError(f"kind must be 'one_to_one' or 'residual', got {kind!r}.")
        color = color or colour(0)
        with styled():
            self.axes_ = panels(ax, len(self.label_names))
            for k, axes in enumerate(self.axes_):
                self._points(axes, k, color, errors, self.y_true[:, k] * (kind == "residual"))
                (self._identity if kind == "one_to_one" else self._zero)(axes, k)
                axes.set_xlabel(f"true {label_text(self.label_names[k], unit=True)}")
                axes.text(
                    1,
                    1.02,
                    self._summary(k),
                    transform=axes.transAxes,
                    ha="right",
                    va="bottom",
                    fontsize=8,
                )
            if self.name:
                self.axes_[0].set_title(self.name, pad=18)  # above the summary
        self.figure_ = self.axes_[0].figure
        return self

    def _points(self, axes, k, color, errors, origin):
        truth, height = self.y_true[:, k], self.y_pred[:, k] - origin
        many = len(truth) > 2000
        if errors and self.y_std is not None:
            bars = np.where(np.isfinite(self.y_std[:, k]), self.y_std[:, k], 0)
            look = {"fmt": "none", "ecolor": color, "elinewidth": 0.6, "alpha": 0.25}
            axes.errorbar(truth, height, yerr=bars, rasterized=many, **look)
        axes.plot(truth, height, ".", color=color, ms=5, alpha=0.6, mew=0, rasterized=many)

    def _identity(self, axes, k):
        values = np.concatenate([self.y_true[:, k], self.y_pred[:, k]])
        values = values[np.isfinite(values)]
        margin = 0.04 * np.ptp(values)
        ends = values.min() - margin, values.max() + margin
        axes.plot(ends, ends, color=INK, lw=0.8)
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        axes.set_ylabel(f"predicted {label_text(self.label_names[k], unit=True)}")

    def _zero(self, axes, k):
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_ylabel(f"error of {label_text(self.label_names[k], unit=True)}")

    def _summary(self, k):
        truth, predicted = self.y_true[:, k], self.y_pred[:, k]
        scatter = metrics.robust_std(truth, predicted)
        bias, rmse = metrics.bias(truth, predicted), metrics.rmse(truth, predicted)
        return f"bias {_short(bias)}  robust σ {_short(scatter)}  RMSE {_short(rmse)}"


def _short(value):
    """Three figures, without exponents and without noise digits."""
    digits = 2 - int(np.floor(np.log10(abs(value)))) if value else 0
    digits = int(np.clip(digits, 0, 3))
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
