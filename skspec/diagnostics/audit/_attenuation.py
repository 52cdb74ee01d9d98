"""Slope of predicted against true labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skspec.diagnostics._residuals import attenuation_slope, snr_bins
from skspec.diagnostics.audit._audited import beyond, discoveries, sum_by_star
from skspec.diagnostics.audit._result import MAX_SLOPE, Untestable


def attenuation(a, options):
    """Slope of predicted against true labels in bins of S/N."""
    bins = snr_bins(options.snr) or [("all", np.ones(len(a), dtype=bool))]
    rows = []
    for title, inside in bins:
        inside = inside & a.known
        if inside.sum() < 10:
            continue
        slope, std = _slopes(a, inside)
        rows += [
            {"snr": title, "label": name, "n": int(inside.sum()), "slope": slope[k], "std": std[k]}
            for k, name in enumerate(a.names)
            if np.isfinite(slope[k])
        ]
    if not rows:
        raise Untestable("too few stars, or labels without a spread beyond their errors.")
    table = pd.DataFrame(rows)
    table["flag"] = discoveries(beyond(table["slope"] - 1, table["std"], MAX_SLOPE))
    if table["flag"].any():
        worst = table.loc[(table["slope"] - 1).abs().where(table["flag"]).idxmax()]
        at = "" if worst["snr"] == "all" else f" at S/N {worst['snr']}"
        why = (
            f"the range of {worst['label']}{at} is {100 * worst['slope']:.0f} ± "
            f"{100 * worst['std']:.0f} % of the true one."
        )
        return True, why, table
    low = table.loc[table["slope"].idxmin()]
    lowest = f"{low['label']}, slope {low['slope']:.2f} ± {low['std']:.2f}"
    return False, f"no range differs beyond doubt (lowest: {lowest}).", table


def _slopes(a, inside):
    """Slopes (K,) and their errors; errors of the given labels do not flatten them."""
    y, predicted = a.y[inside], a.predicted[0][inside]
    square = np.sum((y - y.mean(axis=0)) ** 2, axis=0)
    left = square - np.sum(a.noise[inside] ** 2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        less = np.where((left > 0.2 * square) & a.varies, square / left, np.nan)
        slope = attenuation_slope(y, predicted)
        scatter = predicted - predicted.mean(axis=0) - slope * (y - y.mean(axis=0))
        std = np.sqrt(np.sum(scatter**2, axis=0) / (inside.sum() - 2) / square)
        if a.groups is not None:
            score = sum_by_star(scatter * (y - y.mean(axis=0)), a.stars(inside))
            n_stars = len(score)
            std = np.sqrt(np.sum(score**2, axis=0) * n_stars / max(n_stars - 2, 1)) / square
    return slope * less, std * less
