"""`read_spectra`: survey files, any number of them, as `Spectra` on one grid."""

from __future__ import annotations

import glob as globbing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from sklearn.utils.parallel import Parallel, delayed

from skspec._common_grid import chosen_grid, fill_meta, onto_grid
from skspec._short_repr import ShortRepr
from skspec.datasets.readers import SpectrumFileError, SpectrumFileWarning, read_file
from skspec.datasets.readers._registry import READERS, own_readers
from skspec.solvers.spectra.line_of_sight import ln_shift, velocity
from skspec.spectra import Spectra, concatenate

if TYPE_CHECKING:
    from skspec._typing import PathLike
    from skspec.datasets._store import SpectraStore

__all__ = ["FileReport", "UnreadFilesWarning", "read_spectra"]

BATCH = 16  # files that a worker reads at a time
STARS = ("rest",)
SOLAR_SYSTEM = ("barycentric", "heliocentric")  # apart by 15 m/s at most


class UnreadFilesWarning(UserWarning):
    """Some files could not be read, or not be brought to the frame or medium asked for."""


@dataclass(frozen=True, repr=False)
class FileReport(ShortRepr):
    """What became of the files that `read_spectra` was given.

    Attributes
    ----------
    n_files : int
        Files given.
    failed : dict of str to str
        Path of each file that could not be read, and why.
    warned : dict of str to str
        Path of each file that was read with something wrong, such as errors that are none.
    not_at_rest : tuple of str
        Paths of the files with a star whose velocity is not known, or which lack a frame.
    """

    n_files: int
    failed: dict[str, str] = field(default_factory=dict)
    warned: dict[str, str] = field(default_factory=dict)
    not_at_rest: tuple[str, ...] = ()


@overload
def read_spectra(
    files: PathLike | Iterable[PathLike],
    format: str | None = ...,
    grid: Any = ...,
    frame: str | None = ...,
    medium: str | None = ...,
    errors: str = ...,
    *,
    exposures: bool = ...,
    store: None = ...,
    n_jobs: int | None = ...,
    verbose: bool = ...,
) -> Spectra: ...


@overload
def read_spectra(
    files: PathLike | Iterable[PathLike],
    format: str | None = ...,
    grid: Any = ...,
    frame: str | None = ...,
    medium: str | None = ...,
    errors: str = ...,
    *,
    exposures: bool = ...,
    store: PathLike,
    n_jobs: int | None = ...,
    verbose: bool = ...,
) -> SpectraStore: ...


def read_spectra(
    files: PathLike | Iterable[PathLike],
    format: str | None = None,
    grid: Any = None,
    frame: Literal["rest", "barycentric"] | str | None = "rest",
    medium: Literal["air", "vacuum"] | str | None = None,
    errors: Literal["report", "raise"] | str = "report",
    *,
    exposures: bool = False,
    store: PathLike | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> Spectra | SpectraStore:
    """Read spectra from the files of surveys, onto one grid.

    Parameters
    ----------
    files : path, pattern, folder, or iterable of these
        Files of any of the formats in :func:`skspec.datasets.readers.formats`, compressed or not. A
        pattern such as ``"night1/*.fits.gz"``; all files of a folder and those in it.
    format : str, optional
        Name of the format. By default the contents of each file decide.
    grid : array-like of shape (P,), Spectra or "common", optional
        Pixels for all spectra: wavelengths [Angstrom, or a Quantity], or those of `Spectra` with their
        orders (the medium of which is then asked for, too). "common" is the grid of most of the files,
        or one like theirs; by default, too: spectra stay on the pixels of their file where these are
        the same for all.
    frame : {"rest", "barycentric"} or None, default="rest"
        "rest" takes out the velocity of each star where the file knows it; "barycentric" that of the
        observer, from topocentric spectra. Others stay in their frame, with a warning. None leaves all
        as they are in the file.
    medium : {"air", "vacuum"}, optional
        What wavelengths are converted to. By default they stay, or are those in vacuum where files
        differ.
    errors : {"report", "raise"}, default="report"
        What a file that cannot be read does: "report" goes on, warns at the end, and lists it in
        ``spectra.meta["report"].failed``; "raise" stops.
    exposures : bool, default=False
        Also the single visits and exposures of files that hold combined spectra; ``meta["exposure"]``
        names them.
    store : str or path-like, optional
        Folder of a :class:`SpectraStore` that is written chunk by chunk, for more spectra than fit into
        memory. Interrupted, the same call goes on after the files that are in it. The first chunk
        decides what a store has one of: the ``grid`` where it is None, entries of meta, flux unit and
        frame; later files that have another flux unit or frame fail, and a call that asks for another
        medium or grid is refused. ``failed.csv`` in the folder has the files that failed.
    n_jobs : int, optional
        Processes that read. None is one, -1 as many as there are cores.
    verbose : bool, default=False
        Tell how many files were read, on standard error.

    Returns
    -------
    Spectra of shape (n, P)
        In the order of the files. In ``meta``: ``file``, ``format``, ``star_id``, ``rv``, ``star_frame``
        and ``star_flux_unit`` of each star, what else the files know (missing where others do not: NaN,
        "" or -1), and the ``report``, a `FileReport`. ``rv_removed`` is the velocity taken out [km/s],
        NaN for spectra that are at rest in a file that does not tell it.
    SpectraStore
        With `store`.

    Raises
    ------
    SpectrumFileError
        When no file can be read, or one cannot and ``errors="raise"``.
    FileNotFoundError
        When nothing matches a pattern, or there is no such file.
    ImportError
        Without astropy (``pip install "skspec[fits]"``).

    Warns
    -----
    UnreadFilesWarning
        When some files could not be read, or some stars' frame or medium is not what was asked for.

    See Also
    --------
    skspec.datasets.readers.read_file : One file, as it is.
    match_labels : Labels of a catalogue for the spectra.

    Notes
    -----
    Resampling is cubic, or conserves flux where new pixels are coarser; once, with the velocity. Orders
    and arms stay apart (``order``) on the common grid, and are averaged by inverse variance on a `grid`
    without them. Files that each hold a part of a star's spectrum (GALAH's four cameras) make one star.

    Examples
    --------
    >>> from skspec.datasets import read_spectra
    >>> spectra = read_spectra("night1/*.fits.gz", n_jobs=-1)  # doctest: +SKIP
    >>> spectra.meta["report"].failed  # doctest: +SKIP
    {}
    """
    _check_options(frame, medium, errors)
    paths = _paths(files)
    reading = Reading(format, frame, medium, errors, exposures, n_jobs, verbose, len(paths))
    if medium is None and isinstance(grid, Spectra):
        reading.medium = grid.medium
    if store is not None:
        from skspec.datasets._read_into_store import read_into_store

        return read_into_store(reading, paths, grid, Path(store))
    parts = list(reading.native(paths))
    if not parts:
        raise SpectrumFileError(reading.all_failed())
    spectra = reading.on_one_grid(parts, grid)
    spectra.meta["report"] = reading.report()
    reading.warn("spectra.meta['report'].failed has all of them")
    return spectra


class Reading:
    """One call of `read_spectra`: its options, and what became of the files."""

    def __init__(self, format, frame, medium, errors, exposures, n_jobs, verbose, n_files):
        self.format, self.frame, self.medium, self.errors = format, frame, medium, errors
        self.exposures, self.n_jobs, self.verbose, self.n_files = (
            exposures,
            n_jobs,
            verbose,
            n_files,
        )
        self.failed: dict[str, str] = {}
        self.told: dict[str, str] = {}  # what readers warned of
        self.left: dict[str, list[str]] = {}  # what could not be done -> files
        self.not_at_rest: list[str] = []
        self.n_read = 0

    def native(self, paths: list[str]) -> Iterator[Spectra]:
        """Spectra on their own pixels, those of a batch that share some together."""
        batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
        own = own_readers()  # other processes know those of the package alone
        work = Parallel(n_jobs=self.n_jobs, return_as="generator")(
            delayed(_read_batch)(batch, self.format, self.exposures, self.errors == "raise", own)
            for batch in batches
        )
        for batch, (found, failed, told) in zip(batches, work):
            self.failed |= failed
            self.told |= told
            self.n_read += len(batch)
            if self.verbose:
                done = f"{self.n_read} of {self.n_files} files read, {len(self.failed)} failed"
                print(f"\r{done}", end="" if self.n_read < self.n_files else "\n", file=sys.stderr)
            yield from found

    def on_one_grid(self, parts: list[Spectra], grid: Any) -> Spectra:
        """All of one medium, frame and grid, in the order of the files."""
        parts = self._one_medium(_same_grids_together(parts))
        parts = [part.replace(meta=meta) for part, meta in zip(parts, fill_meta(parts))]
        factors, parts = zip(*[self._doppler(part) for part in parts])
        wavelength, order = chosen_grid("common" if grid is None else grid, parts)
        parts = [onto_grid(part, wavelength, order, factor) for part, factor in zip(parts, factors)]
        for part in parts:
            blank = ~part.good.any(axis=1)
            self._leave("without any good pixel on this grid", part.meta["file"][blank])
        frames = {part.frame for part in parts}
        if len(frames) > 1:  # of each star, in meta
            parts = [part.replace(frame=None) for part in parts]
        if len({part.flux_unit for part in parts}) > 1:
            parts = [part.replace(flux_unit=None) for part in parts]
        spectra = concatenate(parts)
        spectra = spectra[np.argsort(spectra.meta["_row"], kind="stable")]
        del spectra.meta["_row"]
        return _joined(spectra)

    def _one_medium(self, parts):
        media = {part.medium for part in parts} - {None}
        wanted = self.medium or ("vacuum" if len(media) > 1 else None)
        if wanted is None:
            return parts
        out = []
        for part in parts:
            if part.medium is None and self.medium is not None:
                self._leave(f"not known to be in {wanted}, and not converted", part.meta["file"])
            out.append(part if part.medium is None else part.to_medium(wanted))
        return out

    def _doppler(self, part):
        """Factor by which the wavelengths of each star are too long, and the spectra without it."""
        n, meta = len(part), dict(part.meta)
        shift = np.zeros(n)
        frame = part.frame
        frames = np.full(n, frame or "", dtype="<U16")
        if self.frame is not None and frame == "topocentric" and "berv" in meta:
            known = np.isfinite(meta["berv"])
            shift -= np.where(known, ln_shift(np.where(known, meta["berv"], 0.0)), 0.0)
            frames[known] = "barycentric"
            if "rv" in meta:  # seen from the barycentre
                meta["rv"] = velocity(ln_shift(_known(meta["rv"])) - shift)
        if frame == "rest":  # by whoever wrote the file
            meta.setdefault("rv_removed", np.full(n, np.nan))
        elif self.frame == "rest":
            rv = np.asarray(meta.get("rv", np.full(n, np.nan)), dtype=float)
            known = np.isfinite(rv) & (frames != "")
            removed = np.where(known, ln_shift(np.where(known, rv, 0.0)), 0.0)
            meta["rv_removed"] = velocity(removed)
            shift += removed
            frames[known] = "rest"
        wanted = {"rest": STARS, "barycentric": SOLAR_SYSTEM}.get(self.frame, ())
        if wanted:
            left = ~np.isin(frames, wanted)
            files = self._leave(
                f"not brought to the {self.frame} frame: no velocity", meta["file"][left]
            )
            self.not_at_rest += files
        meta["star_frame"] = frames
        meta["star_flux_unit"] = np.full(n, part.flux_unit or "")
        one = frames[0] if n and np.all(frames == frames[0]) else ""
        factor = np.exp(shift) if np.any(shift) else None
        return factor, part.replace(meta=meta, frame=str(one) or None)

    def _leave(self, why, files):
        files = list(dict.fromkeys(map(str, files)))
        if files:
            self.left.setdefault(why, []).extend(files)
        return files

    # -- what became of the files ----------------------------------------------------------------

    def report(self) -> FileReport:
        told = {path: why for path, why in self.told.items() if path not in self.failed}
        return FileReport(self.n_files, dict(self.failed), told, tuple(self.not_at_rest))

    def all_failed(self) -> str:
        if not self.failed:
            return "There is no file to read."
        first = next(iter(self.failed.values()))
        return f"None of {self.n_files} files could be read. The first: {first}"

    def warn(self, where: str) -> None:
        told = []
        if self.failed:
            first = next(iter(self.failed.values()))
            told.append(
                f"{len(self.failed)} of {self.n_files} files could not be read; {where}. "
                f"The first: {first}"
            )
        if self.told:
            first = next(iter(self.told.values()))
            told.append(f"{len(self.told)} files have something wrong (the first: {first})")
        for why, files in self.left.items():
            told.append(f"Spectra of {len(files)} files are {why} (the first: {files[0]}).")
        if told:
            warnings.warn(" ".join(told), UnreadFilesWarning, stacklevel=3)


def _check_options(frame, medium, errors):
    for name, value, allowed in [
        ("frame", frame, ("rest", "barycentric", None)),
        ("medium", medium, ("air", "vacuum", None)),
        ("errors", errors, ("report", "raise")),
    ]:
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not known; use one of {list(allowed)}.")


def _paths(files):
    """Every file that is meant, in the order given; of folders and patterns, by name."""
    alone = isinstance(files, (str, bytes)) or hasattr(files, "__fspath__")
    if not (alone or isinstance(files, Iterable)):
        raise ValueError(f"files={files!r} is no path, pattern or folder, nor several of these.")
    out: list[str] = []
    for entry in [files] if alone else files:
        if not (isinstance(entry, (str, bytes)) or hasattr(entry, "__fspath__")):
            raise ValueError(f"{entry!r}, one of the files, is no path.")
        entry = os.fsdecode(entry)
        path = Path(os.path.expanduser(entry))
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
        elif path.exists():
            found = [path]
        else:
            found = sorted(map(Path, globbing.glob(str(path), recursive=True)))
            found = [p for p in found if p.is_file()]
            if not found and not (alone or globbing.has_magic(str(entry))):
                found = [path]  # one of many: the report says that it cannot be opened
        if not found:
            kind = "The folder is empty" if path.is_dir() else "There is no such file"
            raise FileNotFoundError(f"{kind}: {entry}.")
        out.extend(map(str, found))
    if not out:
        raise FileNotFoundError("There is no file to read: the list is empty.")
    once: dict[str, str] = {}
    for path in out:
        once.setdefault(os.path.abspath(path), path)
    return list(once.values())


def _read_batch(paths, format, exposures, strict, own):
    """Spectra of some files, why others have none, and what was warned of."""
    READERS.update(own)
    found, failed, told = [], {}, {}
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SpectrumFileWarning)
            try:
                found.extend(read_file(path, format, exposures=exposures))
            except SpectrumFileError as error:
                if strict:
                    raise
                failed[path] = str(error)
        # a warning of a worker would reach nobody
        about = [str(w.message) for w in caught if issubclass(w.category, SpectrumFileWarning)]
        if about:
            told[path] = " ".join(about)
    return found, failed, told


def _same_grids_together(parts):
    """Spectra of exactly the same pixels as one; `meta["_row"]` is where each was."""
    groups: dict[tuple, list[Spectra]] = {}
    row = 0
    for part in parts:
        rows = np.arange(row, row + len(part))
        row += len(part)
        part = part.replace(meta=part.meta | {"_row": rows})
        key = (
            part.wavelength.tobytes(),
            None if part.order is None else part.order.tobytes(),
            *(part.medium, part.frame, part.flux_unit),
        )
        groups.setdefault(key, []).append(part)
    out = []
    for group in groups.values():
        group = [part.replace(meta=meta) for part, meta in zip(group, fill_meta(group))]
        out.append(concatenate(group))
    return out


def _joined(spectra):
    """Stars whose files each hold a part of the spectrum, as one row each."""
    part = np.asarray(spectra.meta.get("part", np.full(len(spectra), "")), dtype=str)
    if not np.any(part != ""):
        return spectra
    meta = spectra.meta
    keys, taken = [], Counter()
    for row, key in enumerate(star_keys(spectra)):
        taken[key, part[row]] += 1  # the same part again is of another spectrum
        keys.append(("", row) if key is None else (*key, taken[key, part[row]]))
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    rows = sorted(first.values())
    parts = [[] for _ in keys]
    for row, key in enumerate(keys):
        parts[first[key]].append(part[row])
    ivar = np.full(spectra.shape, np.inf) if spectra.ivar is None else spectra.ivar.copy()
    flux = np.where(ivar > 0, spectra.flux, 0).astype(spectra.dtype)
    for row, key in enumerate(keys):
        if row == (to := first[key]):
            continue
        both = (ivar[row] > 0) & (ivar[to] > 0)
        new = (ivar[row] > 0) & ~both
        flux[to, new], ivar[to, new] = flux[row, new], ivar[row, new]
        if both.any():
            a, b = (np.where(np.isinf(ivar[k, both]), 1.0, ivar[k, both]) for k in (to, row))
            flux[to, both] = (a * flux[to, both] + b * flux[row, both]) / (a + b)
            ivar[to, both] += ivar[row, both]
    joined = np.array(["+".join(dict.fromkeys(names)) for names in parts])
    return spectra.replace(flux=flux, ivar=ivar, meta=meta | {"part": joined})[rows]


def star_keys(spectra: Spectra) -> list[tuple[str, ...] | None]:
    """What tells whether two spectra are parts of one; None for those that are whole."""
    part = np.asarray(spectra.meta.get("part", np.full(len(spectra), "")), dtype=str)
    names = [np.asarray(spectra.meta[k], str) for k in ("format", "star_id", "exposure")]
    if "observation" in spectra.meta:  # a star may have been observed before
        observation = np.asarray(spectra.meta["observation"], str)
        names[1] = np.where(observation != "", observation, names[1])
    return [tuple(key) if some and key[1] else None for some, *key in zip(part, *names)]


def _known(values):
    return np.where(np.isfinite(values), values, np.nan)
