"""Labels that are known without their own lines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skspec.diagnostics.audit._leakage import error_slopes
from skspec.diagnostics.audit._result import Untestable
from skspec.model_selection import star_groups

MAX_RELATIVE_ERROR = 0.5  # error over spread of a label below which it is known rather than guessed
MIN_OWN_SLOPE = (
    0.5  # of a label without its lines, on its true value: above, it is measured elsewhere
)


def null_line(a, options):
    """Blank the lines of a label, refit, and see whether it is known all the same."""
    rows = []
    for name, inside in options.windows.items():
        k, usual = a.names.index(name), np.median(a.spectra.flux, axis=0)
        if inside.all() or not a.varies[k]:
            continue
        blank = blanked(a.spectra, inside, usual)
        without = a.out_of_fold(blank)[0]
        left = _error_over_spread(a, k, without[:, k])
        truth, noise, groups = a.y, a.noise, a.groups
        if options.decorrelated is not None:
            other, truth, noise = options.decorrelated
            groups = star_groups(other)
            without = a.refits([(slice(None), blanked(other, inside, usual))], blank)[0][0]
        known = np.isfinite(without).all(axis=1)
        groups = None if groups is None else groups[known]
        slope, std = error_slopes(without[known], truth[known], noise[known], a.scale, groups)
        own, std = 1 + slope[k, k], std[k, k]
        rows.append(
            {
                "label": name,
                "pixels": inside.mean(),
                "error": _error_over_spread(a, k) * a.scale[k],
                "error_without": left * a.scale[k],
                "without_over_spread": left,
                "own_slope": own,
                "own_slope_std": std,
                "flag": bool(left < MAX_RELATIVE_ERROR and not own - 2 * std > MIN_OWN_SLOPE),
            }
        )
    if not rows:
        raise Untestable("no label that varies is an abundance of known lines; give line_windows.")
    return _null_verdict(pd.DataFrame(rows))


def _null_verdict(table):
    if table["flag"].any():
        worst = table.loc[table["without_over_spread"].where(table["flag"]).idxmin()]
        but = (
            f"follows the truth by {worst['own_slope']:.2f} only where other labels are alike"
            if np.isfinite(worst["own_slope"])
            else "no star tells it from the other labels"
        )
        why = (
            f"without its own lines, {worst['label']} is still known to "
            f"{100 * worst['without_over_spread']:.0f} % of its spread, but {but}: it is inferred."
        )
        return True, why, table
    known = table["label"][table["without_over_spread"] < MAX_RELATIVE_ERROR]
    if len(known):
        why = f"{', '.join(known)} is known without the windows, but follows the truth: they miss lines."
        return False, why, table
    return False, "without their own lines, abundances are not known.", table


def _error_over_spread(a, k, predicted=None):
    """RMSE of a label over its spread, errors of the given labels taken out of both."""
    error = (a.predicted[0][:, k] if predicted is None else predicted) - a.y[:, k]
    known = np.isfinite(error)
    square = np.mean(error[known] ** 2 - a.noise[known, k] ** 2)
    return np.sqrt(max(square, 0)) / a.scale[k]


def blanked(spectra, inside, usual):
    """The spectra without some pixels: bad, and of the usual flux (P,) in all stars."""
    flux = np.where(inside, usual, spectra.flux)
    return spectra.replace(flux=flux, mask=np.broadcast_to(inside, spectra.shape))
