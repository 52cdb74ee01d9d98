"""Predictions of models whose training labels go together the other way."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from skspec.diagnostics.audit._result import MAX_SLOPE, MIN_SAMPLE, Untestable

MAX_CHANGE = 0.5  # error bars by which predictions may depend on a correlation
MIN_RHO, MAX_PAIRS = 0.3, 3  # |rho| of pairs worth a swap; so many pairs at most


def swap(a, options):
    """Choose training stars such that two labels go together the other way, refit, compare."""
    with np.errstate(invalid="ignore"):  # a constant label goes with none
        rho = np.corrcoef(a.y.T) if len(a.names) > 1 else np.ones((1, 1))
    pairs = [(i, j) for i, j in combinations(range(len(a.names)), 2) if abs(rho[i, j]) > MIN_RHO]
    pairs = sorted(pairs, key=lambda pair: -abs(rho[pair]))[:MAX_PAIRS]
    if not pairs:
        why = f"no two labels have |rho| above {MIN_RHO:g}: there is nothing to swap."
        return False, why, pd.DataFrame(columns=["pair", "label", "rho", "rho_swapped", "flag"])
    rng, rows, locked = np.random.default_rng(a.seed), [], []
    for i, j in pairs:
        chances = swap_chances(a.y[:, [i, j]], rho[i, j])
        more = [] if chances is None else _swap_rows(a, (i, j), rho[i, j], chances, rng)
        rows += more
        if not more:
            locked.append(f"{a.names[i]} and {a.names[j]}")
    if not rows:
        raise Untestable(f"too few stars break the correlation of {'; '.join(locked)}.")
    table = pd.DataFrame(rows)
    if table["flag"].any():
        worst = table.loc[table["change"].where(table["flag"]).idxmax()]
        why = (
            f"{worst['label']} moves by {worst['change']:.2f} error bars when {worst['pair']} go "
            f"together with rho = {worst['rho_swapped']:+.2f} instead of {worst['rho']:+.2f}."
        )
        return True, why, table
    if locked:
        return None, f"too few stars break the correlation of {'; '.join(locked)}.", table
    if (noise := table["noise"].max()) > MAX_CHANGE:
        why = f"fits to so few stars ({table['n_train'].min()}) differ by {noise:.1f} error bars anyway."
        return None, why, table
    most = table["change"].max()
    return False, f"predictions move by {most:.2f} error bars at most.", table


def swap_chances(pair, rho):
    """Chance (n,) of each star to be kept, so that two labels go together the other way round.

    The ratio of two bivariate Gaussians of unit variances, of the correlation wanted and of that of
    the stars; of several wanted ones, that which gets nearest to ``-rho`` with enough stars and
    without much of a loss of range. None when none comes to 0.
    """
    z = (pair - pair.mean(axis=0)) / pair.std(axis=0)
    best = None
    for wanted in np.linspace(-0.95, 0.5, 30) * np.sign(rho):
        with np.errstate(over="ignore"):
            weight = np.exp(-0.5 * (_squares(z, wanted) - _squares(z, rho)))
        chance = np.minimum(weight / max(np.quantile(weight, 0.95), 1e-300), 1.0)
        mean = np.average(z, axis=0, weights=chance)
        cov = np.cov(z.T, aweights=chance)
        spread = np.sqrt(np.diag(cov))
        got = cov[0, 1] / np.prod(spread)
        enough = chance.sum() >= max(40, 0.1 * len(z)) and spread.min() > 0.5
        if enough and np.all(np.isfinite(mean)) and got * np.sign(rho) < MAX_SLOPE:
            distance = abs(got + rho)
            if best is None or distance < best[0]:
                best = distance, chance
    return None if best is None else best[1]


def _squares(z, rho):
    return (z[:, 0] ** 2 + z[:, 1] ** 2 - 2 * rho * z[:, 0] * z[:, 1]) / (1 - min(rho**2, 0.999))


def _swap_rows(a, pair, rho, chances, rng):
    """Change of the predictions of stars that break the correlation, in error bars, per label.

    In each of four parts of the sample one model is fitted to stars of the other parts that are swapped,
    and two to as many at random, whose difference tells what so few stars do by themselves.
    """
    kept = rng.random(len(a)) < chances
    tasks, rows = [], []
    for part in _parts(a, rng):
        new, rest = np.flatnonzero(part & kept), np.flatnonzero(~part)
        swapped = rest[kept[rest]]
        if len(new) == 0 or len(swapped) < MIN_SAMPLE:  # few stars, with many spectra each
            continue
        rows.append(new)
        for fit in (swapped, *(rng.choice(rest, len(swapped), replace=False) for _ in range(2))):
            tasks.append((np.sort(fit), a.spectra[new]))
    if not tasks:
        return []
    done = a.refits(tasks)
    mean, claimed = (
        [np.concatenate([part[which] for part in done[k::3]]) for k in range(3)] for which in (0, 1)
    )
    rows = np.concatenate(rows)
    sigma = np.hypot(np.where(np.isfinite(claimed[1]), claimed[1], a.sigma[rows]), a.noise[rows])
    alike = 1 - len(tasks[0][0]) / (0.75 * len(a))  # random draws share stars
    square = (mean[0] - (mean[1] + mean[2]) / 2) ** 2 / sigma**2
    noise = 1.5 * (mean[1] - mean[2]) ** 2 / 2 / sigma**2 / alike
    square, noise = (np.nanmean(values, axis=0) for values in (square, noise))
    excess = np.maximum(square - noise, 0)
    return [
        {
            "pair": f"{a.names[pair[0]]} and {a.names[pair[1]]}",
            "label": name,
            "rho": rho,
            "rho_swapped": float(np.corrcoef(a.y[kept][:, pair].T)[0, 1]),
            "n_train": len(tasks[0][0]),
            "n": len(rows),
            "change": np.sqrt(excess[k]),
            "noise": np.sqrt(noise[k]),
            "flag": bool(excess[k] > MAX_CHANGE**2 and square[k] > 4 * noise[k]),
        }
        for k, name in enumerate(a.names)
    ]


def _parts(a, rng, n_parts=4):
    """The stars in parts (boolean arrays), each star in one."""
    star = np.arange(len(a)) if a.groups is None else a.groups
    part = rng.permutation(np.arange(star.max() + 1) % n_parts)[star]
    return [part == number for number in range(n_parts)]
