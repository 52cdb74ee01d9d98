"""Errors against S/N, with the physical limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import predict_dist
from skspec.diagnostics import CramerRaoBound
from skspec.distributions import MultivariateNormal
from skspec.metrics import by_name, robust_sigma
from skspec.plotting._predictions import display_names
from skspec.plotting._style import INK, colour, label_text, log_ticks, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels
    from skspec.spectra import Spectra

__all__ = ["ResidualSNRDisplay"]

_PER_BIN = 40  # stars in a bin of S/N, about


class ResidualSNRDisplay:
    """Robust scatter of the errors against S/N, a panel per label, with the Cramer-Rao bound.

    Parameters
    ----------
    error : ndarray of shape (n, K)
        Predicted minus true labels.
    snr : ndarray of shape (n,)
    bound : ndarray of shape (n, K) or None
        Cramer-Rao standard deviations of the same stars.
    label_names : list of str
    name : str or None
        Method, for the legend.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (K,)
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        error: np.ndarray,
        snr: np.ndarray,
        *,
        bound: np.ndarray | None = None,
        label_names: Sequence[str],
        name: str | None = None,
    ):
        self.error = error
        self.snr = snr
        self.bound = bound
        self.label_names = label_names
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Spectra,
        y: Labels,
        *,
        bound: CramerRaoBound | np.ndarray | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Predict the `Spectra` `X` with a fitted estimator and plot its errors.

        `bound` is a :class:`~skspec.diagnostics.CramerRaoBound`; for a forward model,
        ``cramer_rao_bound(estimator, y, X)``.
        """
        dist = predict_dist(estimator, X)
        return cls.from_predictions(
            y,
            dist,
            X.snr,
            bound=bound,
            label_names=display_names(dist, y),
            name=name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike | MultivariateNormal,
        snr: ArrayLike,
        *,
        bound: CramerRaoBound | np.ndarray | None = None,
        label_names: Sequence[str] | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the errors of predictions; `bound` as above, or standard deviations (n, K)."""
        y_true, predicted = by_name(y_true, y_pred)
        predicted = predicted.reshape(len(predicted), -1)
        error = predicted - y_true.reshape(predicted.shape)
        names = label_names or [f"label_{k}" for k in range(error.shape[1])]
        bound = bound.std() if isinstance(bound, CramerRaoBound) else bound
        display = cls(error, np.asarray(snr, float), bound=bound, label_names=names, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: AxesLike | None = None,
        *,
        color: str | None = None,
        points: bool = True,
        show_bound: bool = True,
        marker: str = "o",
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of K Axes, optional
            Default: a new figure. Give ``axes_`` of another display to compare methods.
        color : colour, optional
        points : bool
            Also the absolute error of every star.
        show_bound : bool
            Also the Cramer-Rao bound (once is enough when several methods share the axes).
        marker : str

        Returns
        -------
        ResidualSNRDisplay
        """
        color = color or colour(0)
        known = np.isfinite(self.snr) & np.isfinite(self.error).all(axis=1)
        with styled():
            self.axes_ = panels(ax, len(self.label_names))
            if known.sum() == 0:
                raise ValueError("No star has both an S/N and a finite prediction.")
            for k, axes in enumerate(self.axes_):
                self._panel(axes, k, known, color, points, show_bound, marker)
        self.figure_ = self.axes_[0].figure
        return self

    def _panel(self, axes, k, known, color, points, show_bound, marker):
        snr, error = self.snr[known], self.error[known, k]
        if points:
            axes.plot(
                snr,
                np.abs(error),
                ".",
                color=color,
                ms=3,
                alpha=0.35,
                mew=0,
                rasterized=len(snr) > 2000,
            )
        where, scatter = _binned(snr, error, robust_sigma)
        axes.plot(where, scatter, marker=marker, color=color, ms=4.5, label=self.name)
        if show_bound and self.bound is not None:
            some = np.isfinite(self.bound[known, k])
            where, limit = _binned(snr[some], self.bound[known, k][some], np.median)
            axes.plot(where, limit, color=INK, ls="--", lw=1.2, label="Cramér-Rao bound")
        axes.set(xscale="log", yscale="log")
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
        axes.set_xlabel("S/N per pixel")
        axes.set_ylabel(f"robust σ of {label_text(self.label_names[k], unit=True)}")


def _binned(snr, values, summary):
    """Medians of S/N and summaries of values in bins of equally many stars."""
    n_bins = int(np.clip(len(snr) // _PER_BIN, 1, 8))
    rows = [part for part in np.array_split(np.argsort(snr), n_bins) if len(part)]
    return [np.median(snr[part]) for part in rows], [summary(values[part]) for part in rows]
