"""Spectra of several grids brought to one: which one, and how.

Knows `Spectra` by what they have, not by their class, which is made of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from skspec._pixel_values import as_narrow
from skspec._wavelengths import pixel_difference, to_angstrom
from skspec.solvers.spectra.resampling import BAD_FRACTION, MAX_GAP, Resampling

Spectra = Any  # the class comes after

__all__ = ["chosen_grid", "common_grid", "onto_grid", "resampled"]

VALUES_AT_ONCE = 2**16  # new pixels of a batch, whose operator takes 15 MB
CANDIDATES = 20  # grids that could be that of most spectra
COARSER = 1.5  # times the old pixels, new ones are means and not interpolated


def chosen_grid(grid: Any, parts: Sequence[Spectra]) -> tuple[np.ndarray, np.ndarray | None]:
    """Wavelengths and orders that `grid` stands for: "common", `Spectra`, or wavelengths.

    Raises
    ------
    ValueError
        When it is none of these, or does not increase.
    """
    if isinstance(grid, str):
        if grid != "common":
            raise ValueError(f"grid={grid!r} is not known; give wavelengths, Spectra or 'common'.")
        return common_grid(parts)
    if hasattr(grid, "wavelength"):
        if grid.wavelength is None:
            raise ValueError("grid, as Spectra, has no wavelengths.")
        return grid.wavelength, grid.order
    wavelength = to_angstrom(grid)
    if wavelength.ndim != 1 or len(wavelength) < 2 or not np.all(np.diff(wavelength) > 0):
        raise ValueError("grid must be a vector of increasing wavelengths [Angstrom].")
    return wavelength, None


def common_grid(parts: Sequence[Spectra]) -> tuple[np.ndarray, np.ndarray | None]:
    """The grid of more than half of the spectra, or one like all of theirs.

    That one has their median ends and pixels, even in wavelength or in its logarithm. Where all have
    orders, each order has a grid, found so from the spectra with this order.

    Raises
    ------
    ValueError
        When some have no wavelengths, or they have none in common.
    """
    if not parts:
        raise ValueError("There are no spectra that could have a common grid.")
    if any(part.wavelength is None for part in parts):
        raise ValueError("Some of the spectra have no wavelengths, so there is no common grid.")
    n = np.array([len(part) for part in parts])
    first = parts[0]
    if all(_same_grid(first, part) for part in parts):
        return first.wavelength, first.order
    if any(part.order is None for part in parts):
        found = _majority(parts, n)
        if found is not None:
            return found.wavelength, found.order
        return _even_grid([part.wavelength for part in parts], n), None
    grids, orders = [], []
    for order in np.unique(np.concatenate([part.order for part in parts])):
        some = [order in part.order for part in parts]
        of = [part[:0, part.order == order] for part, has in zip(parts, some) if has]
        found = _majority(of, n[some])
        if found is None:
            grids.append(_even_grid([part.wavelength for part in of], n[some]))
        else:
            grids.append(found.wavelength)
        orders.append(np.full(len(grids[-1]), order))
    return np.concatenate(grids), np.concatenate(orders)


def _majority(parts, n):
    """One of the `parts`, with `n` stars each, whose grid more than half of the stars have."""
    left = np.ones(len(parts), dtype=bool)
    for candidate in np.argsort(-n, kind="stable")[:CANDIDATES]:
        if left[candidate]:
            part = parts[candidate]
            same = np.array([_same_grid(part, other) for other in parts])
            if 2 * n[same].sum() > n.sum():
                return part
            left &= ~same
    return None


def _same_grid(one, other):
    if one.shape[1] != other.shape[1] or abs(one.wavelength[0] / other.wavelength[0] - 1) >= 1e-5:
        return False  # before all pixels are compared
    return _is_grid(other, one.wavelength, one.order)


def _even_grid(grids, weights):
    """A grid with the median ends and step of these, log or linear as most of them are."""
    ends, steps, logs = [], [], 0
    for grid, weight in zip(grids, weights):
        grid = np.sort(grid)
        even = np.ptp(np.diff(grid)) / np.median(np.diff(grid))
        log = np.ptp(np.diff(np.log(grid))) / np.median(np.diff(np.log(grid)))
        logs += weight * np.sign(even - log)
        ends.append(np.log(grid[[0, -1]]))
        steps.append(np.median(np.diff(np.log(grid))))
    rows = np.repeat(np.arange(len(grids)), np.maximum(weights, 1))
    # of two in the middle the lower one, whose pixels are those of some spectra
    low, high = np.quantile(np.array(ends)[rows], 0.5, axis=0, method="lower")
    step = np.median(np.array(steps)[rows])
    start, stop = np.array(ends).T
    apart = (start >= high) | (stop <= low)
    if 2 * np.sum(apart[rows]) >= len(rows):
        one, other = np.exp(np.array(ends))[[np.argmin(apart), np.argmax(apart)]]
        raise ValueError(
            "The spectra have no wavelengths in common (some have {:.0f}-{:.0f} Angstrom, others "
            "{:.0f}-{:.0f}): treat them apart, or give grid=.".format(*one, *other)
        )
    n_pixels = int(round((high - low) / step)) + 1
    if logs > 0:
        return np.exp(np.linspace(low, high, n_pixels))
    return np.linspace(np.exp(low), np.exp(high), n_pixels)


def onto_grid(
    spectra: Spectra,
    grid: np.ndarray,
    order: np.ndarray | None = None,
    factor: np.ndarray | None = None,
    method: str = "auto",
) -> Spectra:
    """Spectra on other pixels; as they are where these are theirs.

    Parameters
    ----------
    spectra : Spectra of shape (n, P)
    grid, order : ndarray of shape (P',)
        New pixels; those of an order are taken from this order alone, if the spectra have any.
    factor : ndarray of shape (n,), optional
        Wavelengths are divided by it.
    method : {"auto", "cubic", "linear", "flux_conserving"}
        "auto" conserves flux on coarser pixels and is cubic on others.
    """
    if factor is not None and np.all(factor == 1):
        factor = None
    if factor is None and _is_grid(spectra, grid, order):
        same = np.array_equal(spectra.wavelength, grid)
        return spectra if same else spectra.replace(wavelength=grid, wavelength_unit="Angstrom")
    if method == "auto":
        coarse = _typical_step(grid, order) > COARSER * _typical_step(
            spectra.wavelength, spectra.order
        )
        method = "flux_conserving" if coarse else "cubic"
    new_order = None if spectra.order is None else order
    factor = np.ones(len(spectra)) if factor is None else np.asarray(factor, dtype=float)
    flux, ivar = resampled(spectra, grid, factor, method, new_order=new_order)
    return spectra.replace(
        flux=flux,
        ivar=None if ivar is None else as_narrow(ivar, spectra.dtype),
        wavelength=grid,
        wavelength_unit="Angstrom",
        order=order,
        **spectra.about_on(grid),
    )


def resampled(
    spectra: Spectra,
    grid: np.ndarray,
    factor: np.ndarray,
    method: str,
    *,
    new_order: np.ndarray | None = None,
    bad_fraction: float = BAD_FRACTION,
    max_gap: float = MAX_GAP,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Flux and ivar (None: no errors, nothing bad) of all stars, a batch at a time."""

    def operator(factor):
        return Resampling(
            spectra.wavelength,
            grid,
            method,
            order=spectra.order,
            new_order=new_order,
            factor=factor,
            max_gap=max_gap,
        )

    flux = np.empty((len(spectra), len(grid)), dtype=spectra.dtype)
    ivar = None
    same = len(factor) > 0 and np.all(factor == factor[0])
    size = max(1, VALUES_AT_ONCE // len(grid))
    shared = operator(factor[:1]) if same else None
    for start in range(0, len(spectra), size):
        rows = slice(start, start + size)
        part = None if spectra.ivar is None else spectra.ivar[rows]
        resampling = operator(factor[rows]) if shared is None else shared
        flux[rows], known = resampling(spectra.flux[rows], part, bad_fraction=bad_fraction)
        if known is not None:
            if ivar is None:
                ivar = np.full(flux.shape, np.inf)
            ivar[rows] = known
    return flux, ivar


def _is_grid(spectra, grid, order):
    return (
        spectra.shape[1] == len(grid)
        and np.array_equal(spectra.order, order)
        and pixel_difference(grid, spectra.wavelength) == 0
    )


def _typical_step(grid, order):
    parts = [grid] if order is None else [grid[order == k] for k in np.unique(order)]
    return np.median(np.concatenate([np.abs(np.diff(np.log(part))) for part in parts]))


def fill_meta(parts: Iterable[Spectra]) -> list[dict[str, Any]]:
    """`meta` of each, with the entries per star that only others have: NaN, "", -1 or False."""
    parts = list(parts)
    known: dict[str, np.ndarray] = {}
    for part in parts:
        for name, value in part.meta.items():
            if np.ndim(value) and len(value) == len(part):
                known.setdefault(name, np.asarray(value)[:0])
    out = []
    for part in parts:
        n = len(part)
        missing = {
            name: _blank(values, n) for name, values in known.items() if name not in part.meta
        }
        out.append(part.meta | missing)
    return out


def _blank(values, n):
    blank = {"f": np.nan, "U": "", "S": b"", "T": "", "i": -1, "b": False}.get(values.dtype.kind)
    dtype = values.dtype if blank is not None else object
    return np.full((n, *values.shape[1:]), blank, dtype=dtype)
