"""The formats that can be read, and which of them a file is in."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.datasets.readers._file import (
    SpectrumFile,
    SpectrumFileError,
    SpectrumFileWarning,
)
from skspec.spectra import Spectra, concatenate

if TYPE_CHECKING:
    from skspec._typing import PathLike

__all__ = ["Format", "formats", "read_file", "reader"]

READERS: dict[str, Format] = {}
SHORTEST, LONGEST = 100.0, 1e7  # Angstrom: beyond, it is no wavelength of stars
AFTER_HEADERS = -1  # priority of formats told by their columns: what a header tells is told faster
GARBAGE = 1e30  # a flux beyond marks a bad pixel, in any unit
SPIKE = 1e5  # and one this many times the median of a star: lines of nebulae are 1e3
SHARP = 1e10  # and an inverse variance this many times the median: detectors have 1e6 photons
#: what a star's numbers are at most; beyond, they are not known
LIMITS = {"rv": 1e4, "berv": 100.0, "ra": 360.0, "dec": 90.0}


@dataclass(frozen=True, repr=False)
class Format(ShortRepr):
    """A format of files of spectra.

    Attributes
    ----------
    name : str
        What ``format=`` calls it.
    description : str
        Which survey's, which files.
    identify : callable
        ``identify(file) -> bool``, from the contents of a :class:`SpectrumFile`.
    read : callable
        ``read(file) -> Spectra`` or several of them.
    priority : int
        Of two formats that both know a file, the higher reads it.
    """

    name: str
    description: str
    identify: Callable[[SpectrumFile], bool]
    read: Callable[[SpectrumFile], Spectra | Iterable[Spectra]]
    priority: int = 0


def reader(
    name: str,
    description: str,
    identify: Callable[[SpectrumFile], bool],
    *,
    priority: int = 0,
) -> Callable[[Callable], Callable]:
    """Register a function as the reader of a format (a decorator).

    Parameters
    ----------
    name : str
        What ``format=`` of :func:`~skspec.datasets.read_spectra` calls it. A second reader of the same
        name takes the place of the first.
    description : str
        One line: survey and kind of file.
    identify : callable
        ``identify(file) -> bool``: whether a :class:`SpectrumFile` is in this format, from its contents
        and not from its name. What it raises counts as False.
    priority : int, default=0
        Of several formats that know a file, the highest reads it. General ones are negative.

    Returns
    -------
    callable
        The decorator, which returns the function as it was. That takes a :class:`SpectrumFile` and
        returns the file's `Spectra`: one row per star (or target) on the wavelengths that the file has,
        in its frame, with ``medium``, ``frame``, ``order`` for orders and arms, and in ``meta``

        - ``star_id``: the survey's name of the star (text),
        - ``rv``: velocity of the star in that frame [km/s], where the file knows it,
        - ``berv``: what takes a topocentric spectrum to the barycentre [km/s],
        - ``exposure``: "" for what stands for the star (a combined spectrum), else the name of a single
          visit or exposure, which is read where all are asked for,
        - ``part``: which part of the spectrum the file holds (a camera), where others hold the rest;
          files of one ``observation`` (else ``star_id``) are joined,
        - ``ra``, ``dec`` [degrees], labels and identifiers.

        It raises :class:`SpectrumFileError`, with the reason, for a file that it cannot read.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.datasets.readers import reader
    >>> @reader("mine", "Our own instrument", lambda file: file.lines[0].startswith("# mine"))
    ... def read_mine(file):
    ...     wavelength, flux, error = np.loadtxt(file.lines, unpack=True)
    ...     return Spectra(flux, flux_err=error, wavelength=wavelength, medium="air")
    """

    def register(function):
        READERS[name] = Format(name, description, identify, function, priority)
        return function

    return register


def own_readers() -> dict[str, Format]:
    """Formats that are not of this package: those that users have registered."""
    package = __name__.rpartition(".")[0]
    return {k: form for k, form in READERS.items() if not form.read.__module__.startswith(package)}


def formats() -> dict[str, str]:
    """Names of the formats that can be read, and what they are.

    Examples
    --------
    >>> from skspec.datasets.readers import formats
    >>> formats()["lamost_lrs"]
    'LAMOST low resolution, all releases'
    """
    return {name: READERS[name].description for name in sorted(READERS)}


def read_file(
    path: PathLike, format: str | None = None, *, exposures: bool = False
) -> list[Spectra]:
    """All spectra of one file, as they are in it: on its own wavelengths, in its frame.

    Parameters
    ----------
    path : str or path-like
        A file of any of the `formats`, compressed or not.
    format : str, optional
        Name of the format. By default the contents decide.
    exposures : bool, default=False
        Also the single visits and exposures of files that hold a combined spectrum, too.

    Returns
    -------
    list of Spectra
        One for each grid of pixels in the file. ``meta["file"]`` is the path, ``meta["format"]`` the
        format.

    Raises
    ------
    SpectrumFileError
        When the file is damaged, of no known format, or holds no spectrum; with the reason.
    ImportError
        Without astropy (``pip install "skspec[fits]"``).

    Warns
    -----
    SpectrumFileWarning
        When something in the file is broken, and left out.
    """
    try:
        with warnings.catch_warnings():
            _ignore_warnings_of_libraries()
            file = SpectrumFile(path)
            form = _format_of(file) if format is None else _named(format)
            found = form.read(file)
            found = [found] if isinstance(found, Spectra) else list(found)
            found = [_checked(spectra, path, form) for spectra in found]
    except SpectrumFileError as error:
        raise SpectrumFileError(f"{path}: {error}.") from error.__cause__
    except (ImportError, SpectrumFileWarning):  # warnings that are errors are not of the file
        raise
    except Exception as error:
        # whatever a damaged file makes a library stumble over, the user is told which file it was
        raise SpectrumFileError(
            f"{path}: it is damaged, or not laid out as its format says "
            f"({type(error).__name__}: {error})."
        ) from error
    if not exposures and any(np.any(spectra.meta["exposure"] == "") for spectra in found):
        combined = [spectra.meta["exposure"] == "" for spectra in found]
        found = [s[rows] for s, rows in zip(found, combined) if rows.any()]
    if not found or not sum(map(len, found)):
        raise SpectrumFileError(f"{path}: it holds no spectrum.")
    return found


def one_grid_together(parts: Iterable[Spectra]) -> list[Spectra]:
    """Spectra of a file's stars, those on the same pixels as one `Spectra`."""
    groups: dict[bytes, list[Spectra]] = {}
    for part in parts:
        pixels = [np.asarray(v).tobytes() for v in (part.wavelength, part.order) if v is not None]
        groups.setdefault(b"".join(pixels), []).append(part)
    return [concatenate(group) if len(group) > 1 else group[0] for group in groups.values()]


def _ignore_warnings_of_libraries():
    """They tell of the file what is checked here, and, of thousands of files, again and again."""
    warnings.simplefilter("ignore", RuntimeWarning)
    warnings.filterwarnings("ignore", module=r"astropy\.")
    try:
        from astropy.utils.exceptions import AstropyWarning
    except ImportError:  # files of text need none
        return
    warnings.simplefilter("ignore", AstropyWarning)


def _named(name):
    try:
        return READERS[name]
    except KeyError:
        near = difflib.get_close_matches(str(name), READERS, n=3)
        advice = f"did you mean {near}?" if near else f"known are {sorted(READERS)}."
        raise SpectrumFileError(f"format={name!r} is not known; {advice}".rstrip(".")) from None


def _format_of(file):
    for form in sorted(READERS.values(), key=lambda form: -form.priority):
        if _identified(form, file):
            return form
    if file.is_fits:
        if _is_map(file):
            raise SpectrumFileError("it is a map of wavelengths, without a flux")
        kind = "a FITS file in none of the known layouts"
    else:
        kind = "in none of the known formats"
    raise SpectrumFileError(
        f"it is {kind}; name one with format=, or register a function that reads it with "
        "skspec.datasets.readers.reader"
    )


def _is_map(file):
    """Whether the numbers of its only image rise throughout, as no flux does."""
    images = [hdu.data for hdu in file.hdus if isinstance(hdu.data, np.ndarray)]
    if len(images) != 1 or images[0].dtype.names or images[0].dtype.kind not in "iuf":
        return False
    steps = np.diff(np.asarray(images[0], dtype=float))
    return steps.size > 1 and bool(np.all(steps > 0) or np.all(steps < 0))


def _identified(form, file):
    try:
        return bool(form.identify(file))
    except ImportError:
        raise
    except Exception:  # a file of another kind may be anything
        return False


def _checked(spectra, path, form):
    """Spectra of a reader, with what all have in common, and without what cannot be."""
    wavelength = spectra.wavelength
    if wavelength is None or not len(wavelength):
        raise SpectrumFileError("it has no wavelengths")
    if len(wavelength) < 2 or wavelength.min() < SHORTEST or wavelength.max() > LONGEST:
        raise SpectrumFileError(
            f"its wavelengths run from {wavelength.min():.6g} to {wavelength.max():.6g} Angstrom, "
            "which are none of a star's spectrum"
        )
    for order in [None] if spectra.order is None else np.unique(spectra.order):
        part = wavelength if order is None else wavelength[spectra.order == order]
        step = np.diff(part)
        if len(part) > 1 and not (np.all(step > 0) or np.all(step < 0)):
            raise SpectrumFileError("its wavelengths neither rise nor fall throughout")
    spectra = _without_garbage(spectra)
    n = len(spectra)
    meta = {name: _per_star(value, n) for name, value in spectra.meta.items()}
    exposure = np.array([str(name) for name in meta.pop("exposure", [""] * n)], dtype=str)
    for name, limit in LIMITS.items():
        if name in meta and meta[name].dtype.kind in "if":
            value = meta[name].astype(float)
            meta[name] = np.where(np.abs(value) <= limit, value, np.nan)
    meta.setdefault("star_id", np.full(n, "", dtype=str))
    meta |= {"file": np.full(n, str(path)), "format": np.full(n, form.name), "exposure": exposure}
    return spectra.replace(meta=meta)


def _without_garbage(spectra):
    """Values that no instrument gives are bad: fills, and bytes that were lost."""
    size = np.abs(spectra.flux)
    good = spectra.good & (spectra.flux != 0)
    typical = [np.median(row[ok]) if ok.any() else 0.0 for row, ok in zip(size, good)]
    limit = np.where(np.array(typical) > 0, SPIKE * np.array(typical), GARBAGE)
    garbage = size > np.minimum(limit, GARBAGE)[:, None]
    if spectra.has_errors:
        known = good & np.isfinite(spectra.ivar)
        typical = [
            np.median(row[ok]) if ok.any() else np.inf for row, ok in zip(spectra.ivar, known)
        ]
        garbage |= known & (spectra.ivar > SHARP * np.array(typical, dtype=float)[:, None])
        infinite = spectra.good & np.isinf(spectra.ivar)
        garbage |= infinite & known.any(axis=1)[:, None]  # among others that are not
    return spectra.replace(mask=garbage) if garbage.any() else spectra


def _per_star(value, n):
    """An entry of meta as an array with one entry per star."""
    if np.ndim(value) == 0 or isinstance(value, (str, bytes)):
        value = [value] * n
    value = np.asarray(value)
    if value.dtype.kind == "u":  # -1 stands for none
        fits = not value.size or value.max() <= np.iinfo(np.int64).max
        return value.astype(np.int64 if fits else str)
    return value if value.dtype.kind in "biufU" else value.astype(str)
