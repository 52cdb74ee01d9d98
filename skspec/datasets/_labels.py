"""The labels of synthetic stars: names, limits, defaults, and how they are drawn."""

from __future__ import annotations

import numpy as np

from skspec._label_values import filled

__all__ = [
    "DEFAULT_LABELS",
    "DEFAULT_RANGES",
    "LABEL_LIMITS",
    "check_labels",
    "draw_box",
    "draw_field",
    "label_ranges_for",
]

#: What a label is when it is neither drawn nor given: the Sun.
DEFAULT_LABELS = {
    "teff": 5772.0,
    "logg": 4.44,
    "feh": 0.0,
    "alpha_m": 0.0,
    "vsini": 2.0,
    "rv": 0.0,
}

#: Where labels are drawn unless `label_ranges` says otherwise.
DEFAULT_RANGES = {
    "teff": (4500.0, 7000.0),
    "logg": (1.5, 4.8),
    "feh": (-1.5, 0.4),
    "alpha_m": (-0.1, 0.4),
    "vsini": (1.0, 50.0),
    "rv": (-50.0, 50.0),
}

#: Where the sketch can be computed; beyond, molecules, helium and winds would matter.
LABEL_LIMITS = {
    "teff": (3800.0, 8500.0),
    "logg": (0.0, 5.5),
    "feh": (-4.0, 1.0),
    "alpha_m": (-1.0, 1.0),
    "vsini": (0.0, 300.0),
    "rv": (-500.0, 500.0),
}
UNITS = {"teff": "K", "logg": "dex", "feh": "dex", "alpha_m": "dex", "vsini": "km/s", "rv": "km/s"}

#: log g of the main sequence at its Teff [K]: solar-metallicity stars of a few Gyr.
MAIN_SEQUENCE = (
    [3800.0, 4200.0, 4600.0, 5000.0, 5500.0, 6000.0, 6500.0, 7000.0, 8500.0],
    [4.75, 4.70, 4.63, 4.56, 4.47, 4.33, 4.22, 4.15, 4.05],
)
DWARF_SHARE = 0.6


def check_labels(labels):
    """All six labels as float arrays of one length (n,), the missing ones solar.

    Raises
    ------
    ValueError
        For unknown names, values outside LABEL_LIMITS, or arrays of different lengths.
    """
    unknown = [name for name in labels if name not in DEFAULT_LABELS]
    if unknown:
        raise ValueError(f"Unknown labels {unknown}; the labels are {list(DEFAULT_LABELS)}.")
    arrays = {}
    for name, default in DEFAULT_LABELS.items():
        values = np.atleast_1d(filled(labels[name], name) if name in labels else default)
        low, high = LABEL_LIMITS[name]
        if values.ndim > 1:
            raise ValueError(f"{name} has shape {values.shape}; give one value per star.")
        if not np.all((values >= low) & (values <= high)):
            raise ValueError(
                f"{name} must lie within {low:g} and {high:g} {UNITS[name]}; "
                f"got {np.min(values):g} to {np.max(values):g}."
            )
        arrays[name] = values
    try:
        return dict(zip(arrays, np.broadcast_arrays(*arrays.values())))
    except ValueError:
        lengths = {name: len(values) for name, values in arrays.items() if len(values) > 1}
        raise ValueError(f"Labels of different lengths, {lengths}; give one per star.") from None


def label_ranges_for(names, label_ranges):
    """The (low, high) of each label in `names`, checked against LABEL_LIMITS."""
    given = dict(label_ranges or {})
    idle = [name for name in given if name not in names]
    if idle:
        raise ValueError(
            f"label_ranges names {idle}, which are not among the labels that vary, {list(names)}; "
            "add them to labels, or use fixed_labels."
        )
    ranges = {}
    for name in names:
        low, high = given.get(name, DEFAULT_RANGES[name])
        least, most = LABEL_LIMITS[name]
        if not least <= low <= high <= most:
            raise ValueError(
                f"label_ranges[{name!r}] = ({low:g}, {high:g}) must increase and lie within "
                f"{least:g} and {most:g} {UNITS[name]}."
            )
        ranges[name] = (float(low), float(high))
    return ranges


def draw_box(names, ranges, n, rng):
    """Every label uniform in its range, independent of the others."""
    return {name: rng.uniform(*ranges[name], n) for name in names}


def draw_field(names, ranges, n, rng):
    """Main-sequence stars and red giants; labels outside their ranges are drawn again."""
    kept, attempts = {name: np.empty(0) for name in names}, 0
    while len(kept[names[0]]) < n:
        stars = _field_stars(max(4 * n, 1000), rng)
        inside = np.ones(len(stars["teff"]), dtype=bool)
        for name in names:
            inside &= (stars[name] >= ranges[name][0]) & (stars[name] <= ranges[name][1])
        kept = {name: np.concatenate([kept[name], stars[name][inside]]) for name in names}
        attempts += 1
        if attempts >= 50:
            raise ValueError(
                'population="field" has next to no stars within these label_ranges; '
                'widen them or use population="box".'
            )
    return {name: values[:n] for name, values in kept.items()}


def _field_stars(n, rng):
    """Six labels of `n` stars, scattered about simple relations of field stars near the Sun."""
    dwarf = rng.random(n) < DWARF_SHARE
    teff = np.where(dwarf, rng.uniform(4200.0, 7000.0, n), rng.uniform(3900.0, 5300.0, n))
    feh = -0.25 + 0.35 * rng.standard_normal(n)
    # The giant branch: cooler, and at the same log g cooler still when metal-rich.
    giant = 2.4 + (teff - 4700.0 + 350.0 * feh) / 480.0
    logg = np.where(dwarf, np.interp(teff, *MAIN_SEQUENCE), giant)
    logg = logg + np.where(dwarf, 0.1, 0.2) * rng.standard_normal(n)
    alpha_m = np.clip(-0.3 * feh, -0.05, 0.3) + 0.05 * rng.standard_normal(n)
    typical = np.where(dwarf, np.interp(teff, [4200, 5500, 6200, 7000], [2.0, 3.0, 7.0, 20.0]), 3.0)
    vsini = typical * np.exp(0.5 * rng.standard_normal(n))
    rv = 30.0 * rng.standard_normal(n)
    return {"teff": teff, "logg": logg, "feh": feh, "alpha_m": alpha_m, "vsini": vsini, "rv": rv}
