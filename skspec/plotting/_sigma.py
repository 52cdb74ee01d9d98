"""Stated errors and true spread, along a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.metrics import by_name
from skspec.plotting._predictions import PredictionDisplay
from skspec.plotting._residual_snr import _binned
from skspec.plotting._style import INK, colour, label_text, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import AxesLike
    from skspec.distributions import MultivariateNormal

__all__ = ["SigmaDisplay"]


class SigmaDisplay(PredictionDisplay):
    """Estimated standard deviation and spread of the residuals against the true label.

    A panel per label. Honest errors follow the spread everywhere, not only on average. Both are root
    mean squares over stars of similar labels; that of the residuals has the bias in it.

    Parameters
    ----------
    y_true : ndarray of shape (n, K)
        True labels.
    error : ndarray of shape (n, K)
        Predicted minus true labels.
    std : ndarray of shape (n, K)
        Estimated standard deviations.
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
        error: np.ndarray,
        std: np.ndarray,
        *,
        label_names: Sequence[str],
        name: str | None = None,
    ):
        self.y_true = y_true
        self.error = error
        self.std = std
        self.label_names = label_names
        self.name = name

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        dist: MultivariateNormal,
        *,
        label_names: Sequence[str] | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Hold the distributions `dist` against true labels."""
        if not hasattr(dist, "log_prob"):
            raise TypeError("SigmaDisplay needs distributions, as predict_dist returns them.")
        names = label_names or dist.label_names
        names = names or [f"label_{k}" for k in range(dist.n_labels)]
        y_true = by_name(y_true, dist)[0].reshape(dist.mean().shape)
        display = cls(y_true, dist.mean() - y_true, dist.std(), label_names=names, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(
        self, ax: AxesLike | None = None, *, color: str | None = None, points: bool = True
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of K Axes, optional
            Default: a new figure.
        color : colour, optional
            Of the estimated errors.
        points : bool
            Also the estimated error of every star.

        Returns
        -------
        SigmaDisplay
        """
        color = color or colour(0)
        known = np.isfinite(self.error + self.std).all(axis=1)
        if not known.any():
            raise ValueError("No star has a finite prediction and error.")
        with styled():
            self.axes_ = panels(ax, len(self.label_names))
            for k, axes in enumerate(self.axes_):
                self._panel(axes, k, known, color, points)
            self.axes_[0].legend(loc="upper right", borderaxespad=0.1)
            if self.name:
                self.axes_[0].set_title(self.name)
        self.figure_ = self.axes_[0].figure
        return self

    def _panel(self, axes, k, known, color, points):
        truth, error, std = (part[known, k] for part in (self.y_true, self.error, self.std))
        if points:
            look = {"ms": 4, "alpha": 0.45, "mew": 0, "rasterized": len(truth) > 2000}
            axes.plot(truth, std, ".", color=color, **look)
        where, stated = _binned(truth, std, _root_mean_square)
        _, spread = _binned(truth, error, _root_mean_square)
        axes.plot(where, stated, marker="o", ms=4.5, color=color, label="estimated σ")
        axes.plot(
            where, spread, marker="s", ms=4.5, color=INK, ls="--", label="spread of residuals"
        )
        ceiling = max(np.max(stated), np.max(spread), np.quantile(std, 0.98))
        axes.set_ylim(0, 1.35 * ceiling)  # room for the legend
        axes.set_xlabel(f"true {label_text(self.label_names[k], unit=True)}")
        axes.set_ylabel(f"σ of {label_text(self.label_names[k], unit=True)}")


def _root_mean_square(values):
    return np.sqrt(np.mean(values**2))
