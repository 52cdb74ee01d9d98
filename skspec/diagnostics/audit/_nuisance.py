"""Errors that go with what should not matter."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from skspec.diagnostics.audit._audited import beyond, discoveries, sum_by_star
from skspec.diagnostics.audit._result import MAX_SLOPE, Untestable
from skspec.latent import partial_rank_correlation


def nuisance(a, options):
    """Rank correlation of errors with what should not matter, all labels held fixed."""
    table = options.nuisances
    rows = [
        _nuisance_row(a, k, column, table[column].to_numpy(dtype=float))
        for column in table
        for k in range(len(a.names))
    ]
    rows = [row for row in rows if row is not None]
    if not rows:
        raise Untestable("nothing else is known of the stars; give nuisances, or spectra.meta.")
    found = pd.DataFrame(rows)
    found["flag"] = discoveries(found["p"])
    names = ", ".join(dict.fromkeys(found["nuisance"]))
    if found["flag"].any():
        worst = found.loc[found["rho"].abs().where(found["flag"]).idxmax()]
        why = (
            f"the error of {worst['label']} goes with {worst['nuisance']} (partial rank correlation "
            f"{worst['rho']:+.2f})."
        )
        return True, why, found
    return False, f"errors do not go with {names}.", found


def _nuisance_row(a, k, column, values):
    """One error against one nuisance; None where there is nothing to correlate."""
    known = np.isfinite(values) & a.known
    n, n_labels = int(known.sum()), len(a.names)
    if n < max(20, n_labels + 6) or np.ptp(values[known]) == 0:
        return None
    labels = pd.DataFrame(a.y[known]).assign(error=a.error[known, k])
    rho = partial_rank_correlation(values[known, None], labels)["error"].iloc[0]
    std = np.sqrt(_together(values[known], labels, a.stars(known)) / (n - n_labels - 3))
    with np.errstate(divide="ignore"):
        beyond_large = beyond(np.arctanh(np.abs(rho)), std, np.arctanh(MAX_SLOPE))
    return {"label": a.names[k], "nuisance": column, "n": n, "rho": rho, "p": float(beyond_large)}


def _together(values, labels, groups):
    """Variance of a partial rank correlation, relative to that of independent spectra; at least 1."""
    if groups is None:
        return 1.0
    rank = rankdata(np.column_stack([values, labels]), axis=0)
    rank -= rank.mean(axis=0)
    ends, others = rank[:, [0, -1]], rank[:, 1:-1]
    left = ends - others @ np.linalg.lstsq(others, ends, rcond=None)[0]
    product = left.prod(axis=1)
    product -= product.mean()
    return max(np.sum(sum_by_star(product, groups) ** 2) / np.sum(product**2), 1.0)
