"""What displays of spectra share: orders, windows, and the names of lines."""

from __future__ import annotations

import numpy as np

from skspec.plotting._echelle import order_slices
from skspec.plotting._line_names import strong_lines
from skspec.plotting._style import QUIET

__all__ = ["curve", "line_table", "mark_lines", "name_lines", "windows_of"]

_MAX_POINTS = 4000
_NAME = 7.5  # size of the names of lines [pt]


def windows_of(where, windows):
    """Pixels (bool) of each window; of all, without windows."""
    if windows is None:
        return [np.ones(len(where), dtype=bool)]
    parts = [(where >= low) & (where <= high) for low, high in windows]
    for (low, high), part in zip(windows, parts):
        if not part.any():
            raise ValueError(
                f"No pixel lies in {low:g}-{high:g}; the spectra cover "
                f"{where.min():.1f}-{where.max():.1f}."
            )
    return parts


def curve(axes, where, flux, pixels, order, **look):
    """Draw the pixels of a window; orders are not joined, and NaN is a gap."""
    for part in [np.arange(len(where))] if order is None else order_slices(order):
        part = part[pixels[part]]
        if len(part):
            axes.plot(where[part], flux[part], rasterized=pixels.sum() > _MAX_POINTS, **look)
            look.pop("label", None)


def line_table(lines, wavelength, medium):
    """Name -> wavelengths of the given lines, or of strong ones."""
    if lines is not None:
        return {name: np.atleast_1d(at) for name, at in lines.items()}
    if wavelength is None:
        return {}
    return strong_lines(wavelength, medium=medium or "vacuum")


def mark_lines(axes, lines):
    """Thin verticals at lines within the axes."""
    low, high = axes.get_xlim()
    for at in lines.values():
        for line in at[(at > low) & (at < high)]:
            axes.axvline(line, color=QUIET, lw=0.6, alpha=0.5, zorder=0)
    axes.set_xlim(low, high)


def name_lines(axes, lines):
    """Names of lines above the axes: level where all find room, else upright, and some a little aside.

    Returns the height that they take [pt].
    """
    low, high = axes.get_xlim()
    within = {name: at[(at > low) & (at < high)] for name, at in lines.items()}
    # a multiplet is named once, at the line in its middle
    places = sorted((at[(len(at) - 1) // 2], name) for name, at in within.items() if len(at))
    width = axes.get_window_extent().width * 72 / axes.figure.dpi / (high - low)  # points per unit
    at = np.array([where for where, _ in places]) * width
    half = np.array([0.32 * _NAME * len(name) for _, name in places])
    level = np.all(np.diff(at) > half[1:] + half[:-1] + 3)
    last, height = -np.inf, 0.0
    for (where, name), x in zip(places, at):
        aside = 0.0 if level else max(0.0, last + 1.15 * _NAME - x)
        if aside > 1.5 * _NAME:
            continue
        x += aside
        last, height = x, max(height, _NAME * (1.2 if level else 0.5 + 0.52 * len(name)))
        axes.annotate(
            name,
            (where, 1),
            (aside, 2),
            xycoords=("data", "axes fraction"),
            fontsize=_NAME,
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=QUIET,
            rotation=0 if level else 90,
        )
    return height
