"""The tables of a comparison as text: what the terminal and the report both print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skspec._short_repr import ShortRepr

if TYPE_CHECKING:
    from skspec.diagnostics._comparison import Comparison

__all__ = ["TextTable", "attenuation_tables", "label_tables", "method_table", "snr_tables"]

DASH = "–"
_MIN_STARS = 5  # stars below which a scatter says nothing
#: column, heading, how it is written, what is best
_COLUMNS = (
    ("bias", "bias", "label", "zero"),
    ("mae", "MAE", "label", "low"),
    ("std", "STD", "label", "low"),
    ("mad", "MAD", "label", "low"),
    ("robust_std", "robust σ", "label", "low"),
    ("rmse", "RMSE", "label", "low"),
    ("coverage_1", "in 1σ", "percent", 0.6827),
    ("coverage_2", "in 2σ", "percent", 0.9545),
    ("formal_coverage_1", "formal 1σ", "percent", None),
    ("nll", "NLL", "two", "low"),
    ("crps", "CRPS", "label", "low"),
    ("slope", "slope", "three", 1.0),
    ("eta", "η", "eta", "high"),
)


@dataclass(frozen=True)
class TextTable(ShortRepr):
    """Cells as text, with the best of each column marked.

    Attributes
    ----------
    title : str
    header : list of str
    rows : list of list of str
    best : set of (int, int)
        Row and column of the best cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    best: frozenset = frozenset()

    def __str__(self) -> str:
        rows = [self.header, *self.rows]
        width = [max(len(row[k]) for row in rows) for k in range(len(self.header))]
        lines = [self.title]
        for row in rows:
            cells = [row[0].ljust(width[0]), *(c.rjust(w) for c, w in zip(row[1:], width[1:]))]
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines)


def label_tables(comparison: Comparison) -> list[TextTable]:
    """One table per label: methods in rows, metrics in columns."""
    metrics = comparison.metrics()
    tables = []
    for label in comparison.label_names:
        part = metrics[metrics["label"] == label]
        if len(part):
            tables.append(_label_table(comparison, label, part))
    return tables


def _label_table(comparison, label, part):
    shown = [column for column in _COLUMNS if part[column[0]].notna().any()]
    decimals = decimals_of(part["robust_std"])
    rows = [[comparison.results[name].title] for name in part["method"]]
    best = set()
    for column, (key, _, kind, target) in enumerate(shown, start=1):
        values = part[key].to_numpy(dtype=float)
        cells = [_cell(value, kind, decimals) for value in values]
        if kind == "eta":
            cells = [_eta(*row) for row in part[["eta", "eta_low", "eta_high"]].to_numpy()]
        for row, cell in zip(rows, cells):
            row.append(cell)
        best |= {(row, column) for row in _best(values, target)}
    if comparison.bound is not None:
        limit = _finite_median(comparison.bound.std()[:, comparison.label_names.index(label)])
        at = [key for key, *_ in shown].index("robust_std") + 1
        cells = [""] * (len(shown) + 1)
        cells[0], cells[at] = "Cramér-Rao bound", number(limit, decimals)
        rows.append(cells)
    return TextTable(label, ["method", *(c[1] for c in shown)], rows, frozenset(best))


def method_table(comparison: Comparison) -> TextTable:
    """What belongs to the methods as a whole: time, failures, joint scores."""
    joint = comparison.joint()
    header = ["method", "fit [s]", "stars / s", "not fitted", "joint NLL", "joint η"]
    rows = []
    for name, result in comparison.results.items():
        if not result.ok:
            rows.append([result.title, *["failed"] * (len(header) - 1)])
            continue
        row = joint.loc[name]
        rows.append(
            [
                result.title,
                _significant(row["fit_seconds"]),
                _significant(row["stars_per_second"]),
                f"{row['n_failed']:.0f} of {len(result.dist)}",
                number(row["nll_joint"], 2),
                number(row["eta_vec"], 3),
            ]
        )
    return TextTable("methods", header, rows)


def snr_tables(comparison: Comparison) -> list[TextTable]:
    """One table per label in the layout of the SLAM paper: S/N in rows, "STD (MAD)" in cells."""

    def cell(values, decimals):
        std, mad = (number(value, decimals) for value in values)
        return f"{std} ({mad})"

    return _snr_layout(comparison, ["std", "mad"], cell, "low", bound=True)


def attenuation_tables(comparison: Comparison) -> list[TextTable]:
    """One table per label: S/N in rows, the slope of predicted against true labels in cells."""
    return _snr_layout(comparison, ["slope"], lambda values, _: number(values[0], 3), 1.0)


def _snr_layout(comparison, columns, cell, target, *, bound=False):
    """Tables with S/N in rows and methods in columns; the first of `columns` is judged."""
    table = comparison.by_snr()
    names = list(comparison.succeeded)
    tables = []
    for label in comparison.label_names:
        part = table[table["label"] == label]
        if not len(part):
            continue
        decimals = decimals_of(part["std"])
        header = ["S/N", "stars", *(comparison.results[name].title for name in names)]
        limit = bound and part["bound"].notna().any()
        header += ["Cramér-Rao bound"] if limit else []
        rows, best = [], set()
        for row, snr in enumerate(dict.fromkeys(part["snr"])):
            cells = part[part["snr"] == snr].set_index("method").reindex(names)
            cells.loc[cells["n"] < _MIN_STARS, columns] = np.nan
            values = cells[columns].to_numpy(dtype=float)
            text = [snr, f"{cells['n'].max():.0f}"]
            text += [cell(v, decimals) if np.isfinite(v[0]) else DASH for v in values]
            text += [number(cells["bound"].max(), decimals)] if limit else []
            rows.append(text)
            best |= {(row, 2 + k) for k in _best(values[:, 0], target)}
        tables.append(TextTable(label, header, rows, frozenset(best)))
    return tables


def _best(values, target):
    """Rows of the best values; none when there is nothing to choose."""
    if target is None or np.isfinite(values).sum() < 2:
        return []
    if target == "zero":
        target = 0.0
    if target == "high":
        loss = -values
    else:
        loss = values if target == "low" else np.abs(values - target)
    return np.flatnonzero(loss == np.nanmin(loss)).tolist()


def _cell(value, kind, decimals):
    if kind == "percent":
        return DASH if not np.isfinite(value) else f"{100 * value:.0f} %"
    return number(value, {"label": decimals, "two": 2, "three": 3, "eta": 2}[kind])


def _eta(value, low, high):
    if not np.isfinite(value):
        return DASH
    if not np.isfinite(low):
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def number(value, decimals):
    if not np.isfinite(value):
        return DASH
    text = f"{value:.{decimals}f}"
    zero = f"{0:.{decimals}f}"
    return (zero if text == f"-{zero}" else text).replace("-", "−")


def _significant(value):
    """Three significant figures, without exponents."""
    if not np.isfinite(value) or value <= 0:
        return DASH
    decimals = max(0, 2 - int(np.floor(np.log10(value))))
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.{min(decimals, 3)}f}".replace(",", " ")


def decimals_of(values):
    """Decimals that leave the typical value three figures."""
    typical = _finite_median(np.abs(np.asarray(values, dtype=float)))
    if not np.isfinite(typical) or typical == 0:
        return 3
    return int(np.clip(2 - np.floor(np.log10(typical)), 0, 6))


def _finite_median(values):
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else np.nan
