"""The audit of a model in one picture."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.diagnostics import audit_labels
from skspec.diagnostics.audit._attribution import MIN_OWN_SHARE
from skspec.diagnostics.audit._result import MAX_SLOPE
from skspec.plotting._style import INK, QUIET, colour, label_text, panels, plain, styled

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels, SpectraLike
    from skspec.diagnostics._audit import LabelAudit

__all__ = ["LabelAuditDisplay"]

GOOD, BAD = "#009e73", "#d55e00"
MARKS = {True: ("flag", BAD), False: ("pass", GOOD), None: ("not tested", QUIET)}


class LabelAuditDisplay:
    """Leakage between labels, where their gradients lie, attenuation by S/N, and all flags.

    Parameters
    ----------
    audit : LabelAudit
        From :func:`~skspec.diagnostics.audit_labels`.
    name : str or None
        Model, for the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (4,) or (3,)
        Leakage, attribution, attenuation and, unless three were given, flags.
    figure_ : matplotlib Figure
    """

    def __init__(self, audit: LabelAudit, *, name: str | None = None):
        self.audit = audit
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
        """Audit an estimator and draw the outcome; see :func:`~skspec.diagnostics.audit_labels`."""
        return cls(audit_labels(estimator, X, y, **kwargs), name=name).plot(ax=ax)

    @classmethod
    def from_audit(
        cls, audit: LabelAudit, *, name: str | None = None, ax: AxesLike | None = None
    ) -> Self:
        """Draw a :class:`~skspec.diagnostics.LabelAudit`."""
        return cls(audit, name=name).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of 4 Axes, or of 3, optional
            Default: a new figure. Three leave out the list of flags.

        Returns
        -------
        LabelAuditDisplay
        """
        n_panels = 3 if np.size(ax) == 3 else 4  # type: ignore[arg-type]
        with styled():
            self.axes_ = panels(ax, n_panels, n_rows=2, size=(5.4, 3.7))
            drawers = (self._leakage, self._attribution, self._attenuation, self._flags)
            for axes, draw in zip(self.axes_, drawers):
                draw(axes)
        self.figure_ = self.axes_[0].figure
        if self.name:
            self.figure_.suptitle(self.name, x=0.01, ha="left", fontweight="bold", color=INK)
        return self

    def _leakage(self, axes):
        axes.set_title("error of (row) per true (column)")
        slope, std = self.audit.leakage, self.audit.leakage_std
        if slope.isna().all(axis=None):
            return _nothing(axes, self.audit, "leakage")
        axes.grid(False)
        limit = max(0.5, np.nanmax(np.abs(slope.to_numpy())))
        axes.imshow(slope, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        wrong = self.audit["leakage"].table.set_index(["label", "on"])["flag"]
        for (row, column), value in np.ndenumerate(slope.to_numpy()):
            self._cell(axes, row, column, value, std.iat[row, column], limit, wrong)
        names = [label_text(name) for name in slope]
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)

    def _cell(self, axes, row, column, value, std, limit, wrong):
        from matplotlib.patches import Rectangle

        names = self.audit.label_names
        if not np.isfinite(value):
            return
        axes.text(
            column,
            row,
            f"{value:+.2f}\n± {std:.2f}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if abs(value) > 0.65 * limit else INK,
        )
        if wrong[names[row], names[column]]:
            axes.add_patch(
                Rectangle(
                    (column - 0.47, row - 0.46), 0.94, 0.92, fill=False, ec=BAD, lw=2, zorder=3
                )
            )

    def _attribution(self, axes):
        axes.set_title("information within own lines")
        test = self.audit.tests.get("attribution")
        known = test.table.dropna(subset="share") if test is not None and len(test.table) else ()
        if not len(known):
            return _nothing(axes, self.audit, "attribution")
        where = np.arange(len(known))
        colours = [BAD if flag else colour(0) for flag in known["flag"]]
        axes.barh(where, 100 * known["share"], height=0.5, color=colours)
        axes.plot(100 * known["pixels"], where, "|", color=INK, ms=22, mew=2)
        axes.axvline(100 * MIN_OWN_SHARE, color=QUIET, ls="--", lw=1)
        axes.set_yticks(where, [label_text(name) for name in known["label"]])
        axes.set(xlim=(0, 100), ylim=(max(len(known), 4) - 0.4, -0.6))
        axes.set_xlabel("[%]; black: their share of the pixels; dashed: least wanted")

    def _attenuation(self, axes):
        axes.set_title("predicted per true, by S/N")
        test = self.audit.tests.get("attenuation")
        if test is None or not len(test.table):
            return _nothing(axes, self.audit, "attenuation")
        bins = list(dict.fromkeys(test.table["snr"]))[::-1]
        axes.axhspan(1 - MAX_SLOPE, 1 + MAX_SLOPE, color=QUIET, alpha=0.15, lw=0)
        axes.axhline(1, color=QUIET, lw=0.8)
        for k, name in enumerate(self.audit.label_names):
            part = test.table[test.table["label"] == name].set_index("snr").reindex(bins)
            shift = 0.08 * (k - (len(self.audit.label_names) - 1) / 2)
            axes.errorbar(
                np.arange(len(bins)) + shift,
                part["slope"],
                part["std"],
                marker="o",
                ms=4.5,
                color=colour(k),
                label=label_text(name),
                lw=1.2,
            )
        axes.set_xticks(range(len(bins)), bins)
        axes.set(xlabel="S/N per pixel", ylabel="slope", xlim=(-0.5, len(bins) - 0.5))
        axes.legend(ncols=3)

    def _flags(self, axes):
        axes.set_axis_off()
        verdict = "nothing flagged" if self.audit.passed else "flagged"
        axes.set_title(
            f"{self.audit.n_stars} stars: {verdict}", color=GOOD if self.audit.passed else BAD
        )
        step = 1 / max(len(self.audit.tests), 1)
        for row, test in enumerate(self.audit.tests.values()):
            mark, shade = MARKS[test.flag]
            top = 1 - step * row
            look = {"transform": axes.transAxes, "va": "top"}
            axes.text(0, top, mark, color=shade, fontweight="bold", fontsize=8, **look)
            axes.text(0.17, top, plain(test.title), fontweight="bold", fontsize=8, **look)
            why = plain(fill(test.why, 96))
            axes.text(0.17, top - 0.36 * step, why, fontsize=5.8, color=INK, **look)


def _nothing(axes, audit, name):
    """An empty panel that says why."""
    why = audit.tests[name].why if name in audit.tests else "this test was not asked for."
    axes.set_axis_off()
    axes.text(
        0.02,
        0.5,
        plain(fill(why, 52)),
        transform=axes.transAxes,
        va="center",
        color=QUIET,
        fontsize=9,
    )
