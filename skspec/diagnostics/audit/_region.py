"""The ends of each label, predicted by models that have not seen them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skspec.diagnostics.audit._audited import MEDIAN_ERROR, beyond, discoveries, sum_by_star
from skspec.diagnostics.audit._result import MIN_SAMPLE, Untestable
from skspec.metrics import robust_sigma

REGION = 0.15  # share of the stars at each end that a refit does not see


def region(a, options):
    """Leave the low and the high end of each label out, refit, predict them."""
    tasks, found = [], []
    for k, name in enumerate(a.names):
        low, high = np.quantile(a.y[:, k], [REGION, 1 - REGION])
        for end, inside in (("low", a.y[:, k] <= low), ("high", a.y[:, k] >= high)):
            if a.groups is not None:  # a star is on one side
                inside = np.isin(a.groups, a.groups[inside])
            if MIN_SAMPLE <= inside.sum() < len(a) / 2:
                tasks.append((~inside, a.spectra[inside]))
                found.append((k, name, end, inside))
    if not tasks:
        raise Untestable("no label has an end that could be left out.")
    rows = [
        _region_row(a, *what, mean[:, what[0]]) for what, (mean, _) in zip(found, a.refits(tasks))
    ]
    table = pd.DataFrame(rows)
    table["flag"] = discoveries(table.pop("p"))
    wrong = table[table["flag"]]
    if len(wrong):
        worst = wrong.loc[(wrong["bias"] / wrong["error"]).abs().idxmax()]
        why = (
            f"left out of the training, the {worst['end']} end of {worst['label']} is off by "
            f"{worst['bias']:+.3g}, its error bars say {worst['error']:.3g}."
        )
        return True, why, table
    return False, "ends of labels are predicted by models that have not seen them.", table


def _region_row(a, k, name, end, inside, outside):
    usual, truth = a.predicted[0][inside, k], a.y[inside, k]
    edge = truth.max() if end == "low" else truth.min()
    drawn_back = np.median(np.abs(truth - edge))  # by a model that stops where its stars end
    known = np.isfinite(outside) & np.isfinite(usual)
    moved = (outside - usual)[known]
    error = np.median(a.sigma[inside, k][known]) if known.any() else np.nan
    n_stars = len(sum_by_star(moved, a.stars(np.flatnonzero(inside)[known]))) if known.any() else 1
    std = MEDIAN_ERROR * robust_sigma(moved) / np.sqrt(n_stars) if known.any() else 1.0
    shift = np.median(moved) if known.any() else 0.0
    return {
        "label": name,
        "end": end,
        "n": int(known.sum()),
        "edge": edge,
        "bias": np.median((outside - truth)[known]) if known.any() else np.nan,
        "cv_bias": np.median((usual - truth)[known]) if known.any() else np.nan,
        "error": error,
        "p": float(beyond(shift, std, max(error, drawn_back))),
    }
