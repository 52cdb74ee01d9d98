"""Errors of each label that follow another label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skspec.diagnostics.audit._audited import beyond, discoveries, sum_by_star
from skspec.diagnostics.audit._result import MAX_SLOPE, Untestable
from skspec.model_selection import star_groups


def leakage(a, options):
    """Slopes of the errors of each label on all labels at once."""
    if len(a.names) < 2:
        raise Untestable("there is one label only.")
    given = options.decorrelated is not None
    if given:
        spectra, truth, noise = options.decorrelated
        predicted, groups = a.predict(spectra)[0], star_groups(spectra)
    else:
        predicted, truth, noise, groups = a.predicted[0], a.y, a.noise, a.groups
    known = np.isfinite(predicted).all(axis=1)
    if known.sum() < 3 * len(a.names) + 3:
        raise Untestable(f"{known.sum()} stars with a prediction are too few.")
    groups = None if groups is None else groups[known]
    slope, std = error_slopes(predicted[known], truth[known], noise[known], a.scale, groups)
    table = _slope_table(a.names, slope, std)
    other = table["label"] != table["on"]
    table["flag"] = False
    table.loc[other, "flag"] = discoveries(beyond(table["slope"], table["std"], MAX_SLOPE)[other])
    where = "a decorrelated set" if given else "these stars, all labels at once"
    if table["flag"].any():
        worst = table.loc[table["slope"].abs().where(table["flag"]).idxmax()]
        why = (
            f"{worst['label']} follows {worst['on']}: on {where}, its error changes by "
            f"{worst['slope']:+.2f} ± {worst['std']:.2f} spreads per spread."
        )
        return True, why, table
    blind = table[other & ~(table["std"] < MAX_SLOPE)]
    if len(blind):
        pair = blind.loc[blind["std"].fillna(np.inf).idxmax()]
        why = (
            f"{len(blind)} of {other.sum()} slopes are not known to {MAX_SLOPE:g} (as {pair['label']} "
            f"on {pair['on']}): give more stars, or a set in which the labels are independent."
        )
        return None, why, table
    most = table["slope"].abs()[other].max()
    return False, f"no error follows another label by more than {most:.2f} on {where}.", table


def error_slopes(predicted, truth, noise, scale, groups=None):
    """Slopes (K, K) of each label's error on all labels together, in spreads, and their errors.

    Least squares with the errors of the labels taken out of the sums (which they inflate), and
    standard errors that do not ask for equal scatter (MacKinnon & White's HC3), nor that the spectra
    of a star (`groups`) err independently.
    """
    z = (truth - truth.mean(axis=0)) / scale
    error = (predicted - truth) / scale
    error = error - error.mean(axis=0)
    excess = np.diag(np.sum((noise / scale) ** 2, axis=0))
    normal = z.T @ z - excess
    unknown = np.full_like(normal, np.nan), np.full_like(normal, np.inf)
    varies = np.diag(normal) > 1e-9 * len(z)
    if not varies.all() and varies.any():  # a constant label hides none of the others
        parts = (values[:, varies] for values in (predicted, truth, noise))
        for whole, part in zip(unknown, error_slopes(*parts, scale[varies], groups)):
            whole[np.ix_(varies, varies)] = part
        return unknown
    if np.linalg.eigvalsh(normal)[0] <= 1e-9 * len(z):  # no direction is left but errors
        return unknown
    inverse = np.linalg.inv(normal)
    slope = inverse @ (z.T @ error + excess)
    leverage = np.minimum(np.einsum("nk,kl,nl->n", z, inverse, z) + 1 / len(z), 0.9)
    left = (error - z @ slope) / (1 - leverage)[:, None]
    pull = z @ inverse
    if groups is None:
        return slope.T, np.sqrt(np.einsum("nm,nk->km", pull**2, left**2))
    score = sum_by_star(pull[:, :, None] * left[:, None, :], groups)
    std = np.sqrt(np.sum(score**2, axis=0) * len(score) / max(len(score) - 1, 1))
    return slope.T, std.T


def _slope_table(names, slope, std):
    rows = [
        {"label": names[k], "on": names[m], "slope": slope[k, m], "std": std[k, m]}
        for k, m in np.ndindex(*slope.shape)
    ]
    return pd.DataFrame(rows)
