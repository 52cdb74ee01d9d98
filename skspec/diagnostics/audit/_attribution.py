"""Where in the spectrum the information on each label lies."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skspec.base import as_spectra, unwrap
from skspec.diagnostics._information import information_map
from skspec.diagnostics.audit._result import Untestable

MIN_OWN_SHARE = 2 / 3  # of the information on an abundance should come from its own lines
MAX_GRADIENTS, MAX_NUMERICAL_GRADIENTS = 100, 4  # stars with gradients: analytic, numerical
BATCH = 2**22  # values of spectra predicted at once for numerical gradients


def attribution(a, options):
    """Share of the information on each label that lies within its own lines."""
    windows, reference = options.windows, options.reference
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
        rows.append(
            row | {"flag": forward and bool(row["share"] < MIN_OWN_SHARE or same < MIN_OWN_SHARE)}
        )
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
        if worst["share"] < MIN_OWN_SHARE:
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
    rows = _some(a, MAX_GRADIENTS)
    noise = "total" if hasattr(model, "noise") else "auto"
    try:
        return information_map(model, a.y[rows], inner[rows], noise=noise).conditional
    except ValueError as error:
        raise Untestable(str(error)) from None


def _alike(a, model, inner, reference):
    """Share of the information of each gradient that lies along that of the reference."""
    rows = _some(a, MAX_GRADIENTS)
    theirs = np.asarray(reference.flux_jacobian(a.y[rows]), dtype=float)
    ours = np.asarray(model.flux_jacobian(a.y[rows]), dtype=float)
    stars = inner[rows]
    variance = model.noise(stars).variance() if hasattr(model, "noise") else stars.variance
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
    for row in _some(a, MAX_NUMERICAL_GRADIENTS):
        star = a.spectra[[row]]
        sigma = star.flux_err if star.has_errors else np.std(a.spectra.flux, axis=0)
        sigma = np.where(star.good, sigma, 0)[0]
        step = max(1, BATCH // n)
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
