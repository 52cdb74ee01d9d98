"""Do error bars hold what they promise?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import predict_dist, unwrap
from skspec.diagnostics import calibration_report, interval_coverage
from skspec.plotting._style import INK, QUIET, label_text, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels, SpectraLike
    from skspec.distributions import MultivariateNormal

__all__ = ["CoverageDisplay"]

#: not the colours of methods: a line here is a label
_SHADES = ("#22262b", "#7a4fb5", "#b07d0b", "#2f7f86", "#a23b54", "#6b6b6b")
_DASHES = ("-", "--", "-.", ":")
_LEVELS = np.linspace(0.1, 0.9, 9)


class CoverageDisplay:
    """Nominal against observed coverage, and the histogram of the probability integral transform.

    Above the diagonal, errors are too wide; below, too narrow. A flat histogram is calibrated, a
    hollow one (piled up at 0 and 1) is over-confident, a slope is a bias. Dots are the model's own
    intervals where it has some besides those of its Gaussian: the conformal ones of a
    :class:`~skspec.calibration.CalibratedRegressor`.

    Parameters
    ----------
    pit : ndarray of shape (n, K)
        Probability integral transform of the true labels.
    formal_pit : ndarray of shape (n, K) or None
        The same with the formal errors alone, drawn thin.
    joint_pit : ndarray of shape (n,) or None
        The same of all labels at once, from the Mahalanobis distance.
    intervals : ndarray of shape (9, K) or None
        Coverage of ``predict_interval`` at levels of 0.1, 0.2... 0.9.
    label_names : list of str
    name : str or None
        Method, for the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (2,)
        Coverage, histogram.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        pit: np.ndarray,
        *,
        formal_pit: np.ndarray | None = None,
        joint_pit: np.ndarray | None = None,
        intervals: np.ndarray | None = None,
        label_names: Sequence[str],
        name: str | None = None,
    ):
        self.pit = pit
        self.formal_pit = formal_pit
        self.joint_pit = joint_pit
        self.intervals = intervals
        self.label_names = label_names
        self.name = name

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
        """Predict `X` with a fitted estimator and judge its error bars."""
        dist = predict_dist(estimator, X)
        last, inner = unwrap(estimator, X)
        own = hasattr(last, "predict_interval")
        intervals = interval_coverage(last, inner, y, _LEVELS) if own else None
        return cls.from_predictions(y, dist, intervals=intervals, name=name, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        dist: MultivariateNormal,
        *,
        formal: MultivariateNormal | None = None,
        intervals: np.ndarray | None = None,
        label_names: Sequence[str] | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Judge the distributions `dist`, and `formal` with the formal errors alone if given."""
        report = calibration_report(dist, None, y_true)
        display = cls(
            report.pit,
            formal_pit=None if formal is None else calibration_report(formal, None, y_true).pit,
            joint_pit=report.joint_pit if dist.n_labels > 1 else None,
            intervals=intervals,
            label_names=label_names or report.label_names,
            name=name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, legend: bool = True) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of two Axes, optional
            Default: a new figure.
        legend : bool

        Returns
        -------
        CoverageDisplay
        """
        with styled():
            self.axes_ = panels(ax, 2)
            self._coverage(self.axes_[0], legend)
            self._histogram(self.axes_[1])
            if self.name:
                self.axes_[0].set_title(self.name)
        self.figure_ = self.axes_[0].figure
        return self

    def _coverage(self, axes, legend):
        levels = np.linspace(0, 1, 101)
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
        for k, name in enumerate(self.label_names):
            line = {"color": _SHADES[k % 6], "ls": _DASHES[k % 4]}
            axes.plot(levels, _observed(self.pit[:, k], levels), label=label_text(name), **line)
            if self.formal_pit is not None:
                formal = _observed(self.formal_pit[:, k], levels)
                axes.plot(levels, formal, color=line["color"], lw=0.7, alpha=0.6)
            if self.intervals is not None:
                axes.plot(_LEVELS, self.intervals[:, k], "o", ms=3.5, color=line["color"])
        if self.joint_pit is not None:
            joint = np.searchsorted(np.sort(self.joint_pit), levels, side="right")
            axes.plot(
                levels,
                joint / len(self.joint_pit),
                color=QUIET,
                lw=2.4,
                alpha=0.7,
                label="all at once",
            )
        if self.formal_pit is not None:
            axes.plot([], [], color=_SHADES[0], lw=0.7, alpha=0.6, label="formal errors only")
        axes.axvline(0.6827, color=QUIET, lw=0.7, ls=":")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("nominal coverage")
        axes.set_ylabel("observed coverage")
        if legend:
            axes.legend(loc="upper left")

    def _histogram(self, axes):
        n_bins = int(np.clip(len(self.pit) // 15, 5, 20))
        edges = np.linspace(0, 1, n_bins + 1)
        expected = 1.0
        spread = np.sqrt(n_bins / len(self.pit))  # one binomial sigma of a density
        axes.axhspan(expected - spread, expected + spread, color="#eef0f3", lw=0)
        for k in range(len(self.label_names)):
            density = np.histogram(self.pit[:, k], edges, density=True)[0]
            axes.stairs(density, edges, color=_SHADES[k % 6], ls=_DASHES[k % 4], lw=1.4)
        axes.axhline(expected, color=INK, lw=0.8)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.set_xlabel("probability integral transform")
        axes.set_ylabel("density of stars")


def _observed(pit, levels):
    """Fraction of stars inside the central interval of each level."""
    inside = np.sort(np.abs(2 * pit - 1))
    return np.searchsorted(inside, levels, side="right") / len(inside)
