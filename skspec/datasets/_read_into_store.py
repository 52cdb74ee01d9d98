"""Spectra of files streamed into a store."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._common_grid import chosen_grid, fill_meta
from skspec._wavelengths import pixel_difference
from skspec.datasets._read_spectra import star_keys
from skspec.datasets._store import SpectraStore
from skspec.datasets.readers import SpectrumFileError
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from skspec.datasets._read_spectra import Reading

__all__ = ["read_into_store"]

FIRST, MOST = 128, 512  # files between two appends
CHUNK_BYTES = 2**23  # of these


def read_into_store(reading: Reading, paths: list[str], grid: Any, folder: Path) -> SpectraStore:
    """Chunk by chunk, from where an earlier call has stopped."""
    store = SpectraStore(folder, create=True)
    if len(store):
        _check_asked_for(reading, grid, store)
        done = set(map(os.path.abspath, map(str, store.meta["file"])))
        paths = [path for path in paths if os.path.abspath(path) not in done]
    known = _parts_in(store)
    reading.n_files = len(paths)
    _write_failed(folder, {}, "w")
    waiting: list[Spectra] = []
    start, n_files = 0, FIRST
    while start < len(paths):
        before = set(reading.failed)
        if len(store):
            reading.medium = reading.medium or store.medium
            grid = store[:0]
        read = list(reading.native(paths[start : start + n_files]))
        start += n_files
        parts = [part for part in map(_without(reading, known), [*waiting, *read]) if len(part)]
        parts, waiting = _whole_stars(parts, all_read=start >= len(paths))
        if parts:
            spectra = _for_store(reading.on_one_grid(parts, grid))
            if len(store):
                spectra = _like(reading, spectra, store)
            store.append(spectra)
            known |= _parts_in(spectra)
            n_bytes = max(sum(part.flux.nbytes for part in read), spectra.flux.nbytes)
            n_files = int(np.clip(CHUNK_BYTES * n_files // max(n_bytes, 1), 1, MOST))
        _write_failed(folder, {k: why for k, why in reading.failed.items() if k not in before}, "a")
    if not len(store):
        raise SpectrumFileError(reading.all_failed())
    reading.warn(f"{folder / 'failed.csv'} has all of them")
    return store


def _check_asked_for(reading, grid, store):
    """Refuse to go on with a store of another medium or grid than is asked for now."""
    advice = "leave it out to go on with that, or give another store"
    if None not in (reading.medium, store.medium) and reading.medium != store.medium:
        raise ValueError(
            f"{store.path} holds wavelengths in {store.medium}, not in {reading.medium} (medium=, or "
            f"that of grid=): {advice}."
        )
    if grid is None or isinstance(grid, str):
        return
    wavelength, order = chosen_grid(grid, [])
    other_orders = order is not None and not np.array_equal(order, store.order)
    if other_orders or pixel_difference(np.asarray(store.wavelength), wavelength) > 0:
        raise ValueError(
            f"{store.path} has another grid, of {len(store.wavelength)} pixels, than grid= with "
            f"{len(wavelength)}: {advice}."
        )


# -- stars whose files hold parts ------------------------------------------------------------------


def _parts_in(spectra):
    """Parts that stars have, by the key of the star."""
    if not len(spectra) or "part" not in spectra.meta:
        return {}
    found = zip(star_keys(spectra), spectra.meta["part"])
    return {key: set(str(part).split("+")) for key, part in found if key is not None}


def _without(reading, known):
    """Function that drops the parts of stars that are stored, which cannot be added to."""

    def drop(spectra):
        keep = np.ones(len(spectra), dtype=bool)
        for row, key in enumerate(star_keys(spectra)):
            if key in known:
                keep[row] = False
                file = str(spectra.meta["file"][row])
                if str(spectra.meta["part"][row]) not in known[key]:
                    reading.failed[file] = (
                        f"{file}: the other parts of its star are in the store already; files of one "
                        "star must follow each other."
                    )
        return spectra if keep.all() else spectra[keep]

    return drop


def _whole_stars(parts, all_read):
    """Spectra of which all is read, and those at the end of which more may follow."""
    if all_read or not parts:
        return parts, []
    last = star_keys(parts[-1])[-1]
    if last is None:
        return parts, []
    first = len(parts)
    while first and last in star_keys(parts[first - 1]):
        first -= 1
    return parts[:first], parts[first:]


# -- what a store has one of -----------------------------------------------------------------------


def _for_store(spectra):
    """Resolution as one number per star, whatever the file has."""
    resolution = np.nan if spectra.resolution is None else spectra.resolution
    n_columns = np.shape(resolution)[-1] if np.ndim(resolution) else 1
    rows = np.broadcast_to(resolution, (len(spectra), n_columns))
    return spectra.replace(resolution=np.median(rows, axis=1, keepdims=True))


def _like(reading, spectra, store):
    """The stars that go with those of a store, with the entries of meta that it has."""
    keep = np.ones(len(spectra), dtype=bool)
    for name, allowed in (("frame", ()), ("flux_unit", ("",))):
        stored = getattr(store, name)
        if stored is None:
            continue
        values = spectra.meta[f"star_{name}"]
        for row in np.flatnonzero(keep & ~np.isin(values, (stored, *allowed))):
            keep[row] = False
            file = str(spectra.meta["file"][row])
            reading.failed[file] = (
                f"{file}: its {name.replace('_', ' ')} is {str(values[row]) or 'not known'}, and "
                f"{store.path} holds spectra with {stored}."
            )
    empty, spectra = store[:0], spectra[keep]
    blank = fill_meta([spectra, empty])[0]
    ivar = spectra.ivar
    if ivar is not None and empty.ivar is not None:
        ivar = _cast_ivar(ivar, empty.ivar.dtype)
    return spectra.replace(
        flux=spectra.flux.astype(empty.dtype, copy=False),
        ivar=ivar,
        frame=store.frame,
        flux_unit=store.flux_unit,
        medium=store.medium,
        meta={name: _cast(blank[name], empty.meta[name]) for name in empty.meta},
    )


def _cast_ivar(values, dtype):
    limits = np.finfo(dtype)
    known = (values > 0) & np.isfinite(values)
    return np.where(known, np.clip(values, limits.tiny, limits.max), values).astype(dtype)


def _cast(values, stored):
    """An entry of meta in the type that the store has; what cannot be is missing."""
    values = np.asarray(values)
    if stored.dtype.kind not in "biuf":
        return values.astype(str)
    if values.dtype.kind not in "biuf":
        missing = np.nan if stored.dtype.kind == "f" else 0 if stored.dtype.kind == "b" else -1
        return np.full(values.shape, missing).astype(stored.dtype)
    if stored.dtype.kind in "iu" and values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, -1)
    return values.astype(stored.dtype)


def _write_failed(folder, failed, mode):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "failed.csv", mode, newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["file", "reason"]] if mode == "w" else [])
        writer.writerows(failed.items())
