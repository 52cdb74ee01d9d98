"""All methods of a comparison at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from skspec.metrics import robust_sigma
from skspec.plotting._style import INK, QUIET, colour, label_text, panels, styled

if TYPE_CHECKING:
    from skspec._typing import AxesLike
    from skspec.diagnostics._comparison import Comparison

__all__ = ["MethodsDisplay"]


class MethodsDisplay:
    """Error of every method, a panel per label, against the Cramer-Rao bound.

    Filled dots are the robust standard deviation with its 68 % bootstrap interval, open dots the
    RMSE (bias and outliers included), the dashed line the median Cramer-Rao bound of the stars.

    Parameters
    ----------
    errors : dict of str to ndarray of shape (n, K)
        Predicted minus true labels of each method, by its name in print.
    bound : ndarray of shape (K,) or None
        Median Cramer-Rao standard deviation.
    label_names : list of str

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (K,)
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        errors: Mapping[str, np.ndarray],
        *,
        bound: np.ndarray | None = None,
        label_names: Sequence[str],
    ):
        self.errors = errors
        self.bound = bound
        self.label_names = label_names

    @classmethod
    def from_comparison(cls, comparison: Comparison, *, ax: AxesLike | None = None) -> Self:
        """Plot a :class:`~skspec.diagnostics.Comparison`."""
        errors = {r.title: r.mean - comparison.labels for r in comparison.succeeded.values()}
        bound = None if comparison.bound is None else np.nanmedian(comparison.bound.std(), axis=0)
        return cls(errors, bound=bound, label_names=comparison.label_names).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw on an array of K Axes, or on a new figure.

        Returns
        -------
        MethodsDisplay
        """
        n_methods = len(self.errors)
        with styled():
            size = (3.4, 0.9 + 0.34 * n_methods)
            self.axes_ = panels(ax, len(self.label_names), size=size, sharey=True)
            for k, axes in enumerate(self.axes_):
                self._panel(axes, k)
            self.axes_[0].set_yticks(range(n_methods), list(self.errors))
            self.axes_[0].set_ylim(n_methods - 0.5, -0.5)
        self.figure_ = self.axes_[0].figure
        return self

    def _panel(self, axes, k):
        for row, error in enumerate(self.errors.values()):
            error = error[np.isfinite(error).all(axis=1), k]
            low, scatter, high = _scatter(error)
            axes.plot([low, high], [row, row], color=colour(row), lw=2.2, solid_capstyle="round")
            axes.plot(scatter, row, "o", color=colour(row), ms=7)
            rmse = np.sqrt(np.mean(error**2))
            axes.plot(rmse, row, "o", mfc="none", mec=colour(row), ms=6)
        if self.bound is not None:
            axes.axvline(self.bound[k], color=INK, ls="--", lw=1.1)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK, color=QUIET)
        axes.set_xlabel(f"error of {label_text(self.label_names[k], unit=True)}")


def _scatter(error, n_bootstrap=200):
    """Robust standard deviation between the ends of its 68 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = error[rng.integers(len(error), size=(n_bootstrap, len(error)))]
    sigma = robust_sigma(draws.T)
    return np.percentile(sigma, 16), float(robust_sigma(error)), np.percentile(sigma, 84)
