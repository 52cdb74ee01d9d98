"""The eight tests of an audit: each takes the audited model and stars, and gives flag, why and table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from skspec._short_repr import ShortRepr
from skspec.base import CORRELATED, as_spectra, correlated_labels, star_groups
from skspec.diagnostics._audited import MEDIAN_ERROR, beyond, discoveries, sum_by_star
from skspec.diagnostics._compare import unwrap
from skspec.diagnostics._information import information_map
from skspec.diagnostics._residuals import attenuation_slope, snr_bins
from skspec.latent import partial_rank_correlation
from skspec.metrics import robust_sigma

__all__ = ["LARGE", "OWN_SHARE", "TESTS", "AuditTest", "Untestable"]

LARGE = 0.1  # slope or rank correlation up to which a dependence is of no concern
REGION = 0.15  # share of the stars at each end that a refit does not see
PRECISE = 0.5  # error over spread of a label below which it is known rather than guessed
OWN_SLOPE = (
    0.5  # of a label without its lines, on its true value, from which it is measured elsewhere
)
OWN_SHARE = 2 / 3  # of the information on an abundance should come from its own lines
CHANGE = 0.5  # error bars by which predictions may depend on a correlation
SWAPPED_FROM, MOST_PAIRS = 0.3, 3  # |rho| of pairs worth a swap; so many pairs at most
FEWEST = 5  # stars that make a statement
MOST_GRADIENTS, FEW_GRADIENTS = 100, 4  # stars with gradients: analytic, numerical
AT_ONCE = 2**22  # values of spectra predicted at once for numerical gradients


@dataclass(frozen=True)
class AuditTest(ShortRepr):
    """Outcome of one test.

    Attributes
    ----------
    name, title : str
    flag : bool or None
        True: something is wrong. False: not found to be. None: it could not be tested here.
    why : str
        One sentence.
    table : pandas.DataFrame
        What was measured; ``flag`` tells which rows are wrong, where there are such.
    """

    name: str
    title: str
    flag: bool | None
    why: str
    table: pd.DataFrame

    def __str__(self) -> str:
        mark = {True: "FLAG", False: "pass", None: "-"}[self.flag]
        return f"{mark:4}  {self.title}: {self.why}"


class Untestable(Exception):
    """A test that cannot be made with this model and these stars, and why."""


# -- 1 ---------------------------------------------------------------------------------------------


def region(a, options):
    """Leave the low and the high end of each label out, refit, predict them."""
    tasks, found = [], []
    for k, name in enumerate(a.names):
        low, high = np.quantile(a.y[:, k], [REGION, 1 - REGION])
        for end, inside in (("low", a.y[:, k] <= low), ("high", a.y[:, k] >= high)):
            if a.groups is not None:  # a star is on one side
                inside = np.isin(a.groups, a.groups[inside])
            if FEWEST <= inside.sum() < len(a) / 2:
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


# -- 2 ---------------------------------------------------------------------------------------------


def leakage(a, options):
    """Slopes of the errors of each label on all labels at once."""
    if len(a.names) < 2:
        raise Untestable("there is one label only.")
    given = options["decorrelated"] is not None
    if given:
        spectra, truth, noise = options["decorrelated"]
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
    table.loc[other, "flag"] = discoveries(beyond(table["slope"], table["std"], LARGE)[other])
    where = "a decorrelated set" if given else "these stars, all labels at once"
    if table["flag"].any():
        worst = table.loc[table["slope"].abs().where(table["flag"]).idxmax()]
        why = (
            f"{worst['label']} follows {worst['on']}: on {where}, its error changes by "
            f"{worst['slope']:+.2f} ± {worst['std']:.2f} spreads per spread."
        )
        return True, why, table
    blind = table[other & ~(table["std"] < LARGE)]
    if len(blind):
        pair = blind.loc[blind["std"].fillna(np.inf).idxmax()]
        why = (
            f"{len(blind)} of {other.sum()} slopes are not known to {LARGE:g} (as {pair['label']} on "
            f"{pair['on']}): give more stars, or a set in which the labels are independent."
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


# -- 3 and 4 ---------------------------------------------------------------------------------------


def attribution(a, options):
    """Share of the information on each label that lies within its own lines."""
    windows, reference = options["windows"], options["reference"]
    model, inner = unwrap(a.fitted, a.spectra)
    forward = hasattr(model, "flux_jacobian")
    if not windows and not (forward and reference is not None):
        raise Untestable(
            "no label is an abundance of known lines; give line_windows, or a reference."
        )
    inner = as_spectra(inner)
    if inner.shape[1] != a.spectra.shape[1]:
        raise Untestable("the pixels of the model are not those of the spectra.")
    share = _information_share(a, model, inner) if forward else _noise_share(a)
    alike = _alike(a, model, inner, reference) if forward and reference is not None else {}
    rows = []
    for k, name in enumerate(a.names):
        inside, same = windows.get(name), alike.get(name, np.nan)
        row = {"label": name, "share": np.nan, "pixels": np.nan, "reference": same}
        if inside is not None:
            total = share[:, k].sum() or np.nan  # 0: nothing moves the label
            row |= {"share": share[inside, k].sum() / total, "pixels": inside.mean()}
        rows.append(row | {"flag": forward and bool(row["share"] < OWN_SHARE or same < OWN_SHARE)})
    table = pd.DataFrame(rows)
    return (*_attribution_verdict(table, forward), table)


def _attribution_verdict(table, forward):
    told = [
        f"{row['label']} {100 * row['share']:.0f} %"
        for _, row in table.dropna(subset="share").iterrows()
    ]
    if not forward:
        what = (
            f"own lines bring in {', '.join(told)}, which has no known limit"
            if told
            else ("nothing reaches the labels that have lines of their own")
        )
        why = f"the model has no gradients of the flux; of the noise it takes in, {what}."
        return None, why
    if table["flag"].any():
        worst = table[table["flag"]].iloc[0]
        if worst["share"] < OWN_SHARE:
            return True, (
                f"{100 * worst['share']:.0f} % of the information on {worst['label']} comes from its "
                f"own lines, {100 * worst['pixels']:.0f} % of the pixels."
            )
        return True, (
            f"the gradient of {worst['label']} has {100 * worst['reference']:.0f} % of its information "
            "in common with the reference."
        )
    if told:
        return False, f"information comes from own lines ({', '.join(told)})."
    return False, "gradients are those of the reference."


def _information_share(a, model, inner):
    rows = _some(a, MOST_GRADIENTS)
    noise = "total" if hasattr(model, "noise_variance") else "auto"
    try:
        return information_map(model, a.y[rows], inner[rows], noise=noise).conditional
    except ValueError as error:
        raise Untestable(str(error)) from None


def _alike(a, model, inner, reference):
    """Share of the information of each gradient that lies along that of the reference."""
    rows = _some(a, MOST_GRADIENTS)
    theirs = np.asarray(reference.flux_jacobian(a.y[rows]), dtype=float)
    ours = np.asarray(model.flux_jacobian(a.y[rows]), dtype=float)
    stars = inner[rows]
    variance = model.noise_variance(stars) if hasattr(model, "noise_variance") else stars.variance
    with np.errstate(divide="ignore"):
        weight = 1 / np.asarray(variance, dtype=float)
    weight = np.where(np.isfinite(weight), weight, 0.0 if stars.has_errors else 1.0)[:, :, None]
    both, one, two = (
        np.sum(weight * x * y, axis=(0, 1))
        for x, y in ((ours, theirs), (ours, ours), (theirs, theirs))
    )
    return dict(zip(a.names, both**2 / (one * two)))


def _noise_share(a):
    """What the noise of each pixel does to the labels (P, K), by finite differences.

    For a regression from flux to labels the gradient is :math:`G = \\partial\\ell/\\partial f`, and
    :math:`G_j^2 \\sigma_j^2` what pixel j adds to the variance: of the best linear estimate that is
    the pixel's share of the information with all other labels free.
    """
    n, total = a.spectra.shape[1], 0.0
    for row in _some(a, FEW_GRADIENTS):
        star = a.spectra[[row]]
        sigma = star.flux_err if star.has_errors else np.std(a.spectra.flux, axis=0)
        sigma = np.where(star.good, sigma, 0)[0]
        step = max(1, AT_ONCE // n)
        blocks = [np.arange(n)[start : start + step] for start in range(0, n, step)]
        total = total + np.concatenate([_nudged(a, star, pixels, sigma) for pixels in blocks])
    return total


def _nudged(a, star, pixels, sigma):
    """Squared change (B, K) of the labels when single pixels go up and down by their error."""
    nudge = np.zeros((len(pixels), len(sigma)))
    nudge[np.arange(len(pixels)), pixels] = sigma[pixels]
    stack = star[np.zeros(2 * len(pixels), dtype=int)]
    flux = stack.flux + np.concatenate([nudge, -nudge])
    up, down = np.split(a.predict(stack.replace(flux=flux))[0], 2)
    return (up - down) ** 2


def _some(a, most):
    """Rows of at most so many stars, spread over the set."""
    return np.unique(np.linspace(0, len(a) - 1, min(most, len(a))).astype(int))


def null_line(a, options):
    """Blank the lines of a label, refit, and see whether it is known all the same."""
    rows = []
    for name, inside in options["windows"].items():
        k, usual = a.names.index(name), np.median(a.spectra.flux, axis=0)
        if inside.all() or not a.varies[k]:
            continue
        blank = blanked(a.spectra, inside, usual)
        without = a.out_of_fold(blank)[0]
        left = _error_over_spread(a, k, without[:, k])
        truth, noise, groups = a.y, a.noise, a.groups
        if options["decorrelated"] is not None:
            other, truth, noise = options["decorrelated"]
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
                "flag": bool(left < PRECISE and not own - 2 * std > OWN_SLOPE),
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
    known = table["label"][table["without_over_spread"] < PRECISE]
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


# -- 5 ---------------------------------------------------------------------------------------------


def swap(a, options):
    """Choose training stars such that two labels go together the other way, refit, compare."""
    with np.errstate(invalid="ignore"):  # a constant label goes with none
        rho = np.corrcoef(a.y.T) if len(a.names) > 1 else np.ones((1, 1))
    pairs = [
        (i, j) for i, j in combinations(range(len(a.names)), 2) if abs(rho[i, j]) > SWAPPED_FROM
    ]
    pairs = sorted(pairs, key=lambda pair: -abs(rho[pair]))[:MOST_PAIRS]
    if not pairs:
        why = f"no two labels have |rho| above {SWAPPED_FROM:g}: there is nothing to swap."
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
    if (noise := table["noise"].max()) > CHANGE:
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
        if enough and np.all(np.isfinite(mean)) and got * np.sign(rho) < LARGE:
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
        if len(new) == 0 or len(swapped) < FEWEST:  # few stars, with many spectra each
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
            "flag": bool(excess[k] > CHANGE**2 and square[k] > 4 * noise[k]),
        }
        for k, name in enumerate(a.names)
    ]


def _parts(a, rng, n_parts=4):
    """The stars in parts (boolean arrays), each star in one."""
    star = np.arange(len(a)) if a.groups is None else a.groups
    part = rng.permutation(np.arange(star.max() + 1) % n_parts)[star]
    return [part == number for number in range(n_parts)]


# -- 6 and 7 ---------------------------------------------------------------------------------------


def nuisance(a, options):
    """Rank correlation of errors with what should not matter, all labels held fixed."""
    table = options["nuisances"]
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
        beyond_large = beyond(np.arctanh(np.abs(rho)), std, np.arctanh(LARGE))
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


def attenuation(a, options):
    """Slope of predicted against true labels in bins of S/N."""
    bins = snr_bins(options["snr"]) or [("all", np.ones(len(a), dtype=bool))]
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
    table["flag"] = discoveries(beyond(table["slope"] - 1, table["std"], LARGE))
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


# -- 8 ---------------------------------------------------------------------------------------------


def correlation(a, options):
    """Pairs of labels that go together."""
    pairs = correlated_labels(a.y, a.names, above=-1.0)
    if not pairs:
        raise Untestable("there is one label only, or too few stars.")
    table = pd.DataFrame(pairs, columns=["label", "other", "rho"])
    table["flag"] = table["rho"].abs() > CORRELATED
    if table["flag"].any():
        told = [
            f"{one} and {other} (rho = {rho:+.2f})"
            for one, other, rho, flag in table.itertuples(index=False)
            if flag
        ]
        return True, f"{'; '.join(told)} can hardly be told apart by training.", table
    one, other, rho = table.iloc[0, :3]
    return False, f"the closest pair is {one} and {other}, rho = {rho:+.2f}.", table


#: name -> (title, function, whether it takes refits), in the order of the specification
TESTS = {
    "region": ("Leave a region out", region, True),
    "leakage": ("Leakage between labels", leakage, False),
    "attribution": ("Where the gradients lie", attribution, False),
    "null_line": ("Without its own lines", null_line, True),
    "swap": ("Swapped correlation", swap, True),
    "nuisance": ("Nuisances", nuisance, False),
    "attenuation": ("Attenuation", attenuation, False),
    "correlation": ("Correlated labels", correlation, False),
}
