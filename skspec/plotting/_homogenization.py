"""Labels of common stars, before and after homogenisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.plotting._one_to_one import _short
from skspec.plotting._style import INK, QUIET, colour, label_text, panels, styled

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike

__all__ = ["HomogenizationDisplay"]

TITLES = {
    "before": "labels of the other survey",
    "translated": "translated, label to label",
    "model": "from the other survey's spectra, trends not taken out",
    "after": "from the other survey's spectra",
}


class HomogenizationDisplay:
    """Label minus target against the target: a column per label, a row per stage.

    Parameters
    ----------
    labels : DataFrame
        Columns (stage, label), one of the stages being ``target``, as in
        :attr:`skspec.transfer.LabelHomogenizer.cv_labels_`.
    report : DataFrame
        Offset and trend by (label, stage), as in
        :attr:`skspec.transfer.LabelHomogenizer.report_` of one scale.
    scale : str or None
        Survey of the target, for the axes.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n_stages, K)
    figure_ : matplotlib Figure
    """

    def __init__(self, labels: pd.DataFrame, report: pd.DataFrame, *, scale: str | None = None):
        self.labels = labels
        self.report = report
        self.scale = scale

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        scale: str = "b",
        *,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Common stars out of fold on the scale ``"a"`` or ``"b"`` of a LabelHomogenizer."""
        display = cls(estimator.cv_labels_[scale], estimator.report_.loc[scale], scale=scale)
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: AxesLike | None = None,
        *,
        stages: Sequence[str] = ("before", "after"),
        names: Mapping[str, str] | None = None,
        color: str | None = None,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            As many as stages times labels, row by row. Default: a new figure.
        stages : sequence of {"before", "translated", "model", "after"}
        names : dict, optional
            Names of the surveys, ``{"a": ..., "b": ...}``.
        color : colour, optional

        Returns
        -------
        HomogenizationDisplay
        """
        unknown = [stage for stage in stages if stage not in TITLES]
        if unknown:
            raise ValueError(f"There is no stage {unknown[0]!r}; stages are {', '.join(TITLES)}.")
        targets = self.labels["target"]
        shape = len(stages), targets.shape[1]
        with styled():
            flat = panels(ax, shape[0] * shape[1], size=(3.9, 2.5), n_rows=shape[0], sharex="col")
            self.axes_ = flat.reshape(shape)
            for row, stage in zip(self.axes_, stages):
                for axes, name in zip(row, targets):
                    self._panel(axes, stage, name, color or colour(0))
                row[0].set_title(self._title(stage, names or {}), pad=18)
            self._same_height()
            for axes, name in zip(self.axes_[-1], targets):
                where = (names or {}).get(str(self.scale), f"survey {str(self.scale).upper()}")
                axes.set_xlabel(f"{label_text(name, unit=True)}, {where}")
        self.figure_ = self.axes_[0, 0].figure
        return self

    def _title(self, stage, names):
        other = {"a": "b", "b": "a"}.get(self.scale)
        if other not in names:
            return TITLES[stage]
        return {
            "before": f"labels of {names[other]}",
            "translated": f"labels of {names[other]}, translated",
            "model": f"from spectra of {names[other]}, trends not taken out",
            "after": f"from spectra of {names[other]}",
        }[stage]

    def _panel(self, axes, stage, name, color):
        target = self.labels["target", name].to_numpy()
        difference = self.labels[stage, name].to_numpy() - target
        axes.axhline(0, color=QUIET, lw=0.8)
        axes.set_ylabel(f"Δ {label_text(name, unit=True)}")
        if (name, stage) not in self.report.index:
            axes.text(
                0.5, 0.5, "not among its labels", transform=axes.transAxes, ha="center", color=QUIET
            )
            return
        axes.plot(
            target,
            difference,
            ".",
            color=color,
            ms=5,
            alpha=0.6,
            mew=0,
            rasterized=len(target) > 2000,
        )
        found = self.report.loc[(name, stage)]
        ends = np.array([np.nanmin(target), np.nanmax(target)])
        line = found["offset"] + found["trend"] * (ends - np.nanmean(target))
        axes.plot(ends, line, color=INK, lw=1.4)
        axes.text(
            1, 1.02, _summary(found), transform=axes.transAxes, ha="right", va="bottom", fontsize=8
        )

    def _same_height(self):
        """One range of differences per label, that of 98 % of the points of the widest stage."""
        for k in range(self.axes_.shape[1]):
            column = self.axes_[:, k]
            extents = [
                np.nanpercentile(np.abs(line.get_ydata()), 98)
                for axes in column
                for line in axes.lines
                if line.get_marker() == "."
            ]
            if extents and max(extents) > 0:
                for axes in column:
                    axes.set_ylim(-1.25 * max(extents), 1.25 * max(extents))


def _summary(found):
    """Offset and trend with errors, and the scatter."""
    offset = _with_error(found["offset"], found["offset_std"])
    trend = _with_error(100 * found["trend"], 100 * found["trend_std"])
    return f"offset {offset}   trend {trend} %   robust σ {_short(found['scatter'])}"


def _with_error(value, error):
    """Two figures of the error, none below a thousandth."""
    digits = 1 - int(np.floor(np.log10(error))) if error > 0 else 3
    digits = int(np.clip(digits, 0, 3))
    return f"{round(value, digits) + 0.0:.{digits}f} ± {error:.{digits}f}".replace("-", "−")
