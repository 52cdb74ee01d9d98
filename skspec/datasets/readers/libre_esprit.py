"""Libre-ESpRIT: text of ESPaDOnS and NARVAL (`.s`), FITS of the CFHT (`p.fits`, `i.fits`)."""

from __future__ import annotations

import re

import numpy as np

from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, text
from skspec.datasets.readers._grids import ivar_from_sigma, split_orders
from skspec.datasets.readers._registry import AFTER_HEADERS, reader
from skspec.datasets.readers._tables import is_number
from skspec.spectra import Spectra

SHORTEST = 200.0  # nm; what begins below is a profile in velocities


def _is_libre_esprit(file):
    """A comment, two counts, and lines of as many numbers as the second says, and the wavelength."""
    lines = file.lines
    try:
        n_pixels, n_columns = map(int, lines[1].split())
        if all(map(is_number, lines[0].split())):  # a spectrum of whole Angstrom and counts
            return False
        return n_pixels > 0 and len(list(map(float, lines[2].split()))) == n_columns + 1
    except ValueError:
        return False


@reader(
    "libre_esprit",
    "Libre-ESpRIT text of ESPaDOnS and NARVAL",
    _is_libre_esprit,
    priority=AFTER_HEADERS,
)
def read_libre_esprit(file: SpectrumFile) -> Spectra:
    """Columns: wavelength [nm], intensity, others of polarisation, and sigma last if there are three.

    Air, heliocentric. Orders overlap: there is a new one at each step back.
    """
    n_pixels, n_columns = map(int, file.lines[1].split())
    lines = [line for line in file.lines[2:] if line.strip()]
    try:
        columns = np.array([line.split() for line in lines], dtype=float).T
    except ValueError:
        raise SpectrumFileError(
            f"some of its lines do not hold the {n_columns + 1} numbers of the others: it is cut off "
            "or damaged"
        ) from None
    wavelength, intensity = columns[:2]
    if not np.all(np.isfinite(wavelength)):
        raise SpectrumFileError("some of its wavelengths are no numbers")
    if wavelength.min() < SHORTEST:
        raise SpectrumFileError(
            f"its first column runs from {wavelength.min():g} to {wavelength.max():g}: it is a profile "
            "in velocities (LSD), no spectrum"
        )
    shortest = min(map(len, lines[:-1]), default=0)
    if not file.data.endswith(b"\n") and len(lines[-1].rstrip()) < shortest:
        raise SpectrumFileError("it is cut off within the last number")
    if len(lines) < n_pixels - 1:  # one less is usual
        raise SpectrumFileError(
            f"it is truncated: its header promises {n_pixels} lines, it has {len(lines)}"
        )
    return Spectra(
        intensity,
        ivar=ivar_from_sigma(columns[-1]) if n_columns > 1 else None,
        wavelength=wavelength * 10,
        order=split_orders(wavelength),
        medium="air",
        frame="heliocentric",
        meta={"star_id": _star(file.lines[0])},
    )


def _is_cfht(file):
    return text(file.header.get("COL1")) == "Wavelength" and file.hdus[0].data.ndim == 2


@reader("cfht_espadons", "ESPaDOnS as the CFHT gives it out, p.fits and i.fits", _is_cfht)
def read_cfht_espadons(file: SpectrumFile) -> Spectra:
    """Rows of an image, named by the cards COLn: the normalised spectrum comes first.

    Its wavelengths [nm] are those in air, heliocentric, corrected by telluric lines.
    """
    image = file.image(0, 2).astype(float)
    names = [text(file.header.get(f"COL{k + 1}")) for k in range(len(image))]
    rows = dict(zip(reversed(names), image[::-1]))  # of each name the first
    if "Intensity" not in rows:
        raise SpectrumFileError(f"none of its rows is an Intensity; they are {names}")
    wavelength = rows["Wavelength"]
    return Spectra(
        rows["Intensity"],
        ivar=ivar_from_sigma(rows["ErrorBar"]) if "ErrorBar" in rows else None,
        wavelength=wavelength * 10,
        order=split_orders(wavelength),
        medium="air",
        frame="heliocentric",
        meta={"star_id": text(file.header.get("OBJECT"))},
    )


def _star(comment):
    """Of "***Reduced spectrum of 'HD 1'"."""
    found = re.search(r"spectrum of\s+[\"']?(.*?)[\"'\s]*$", comment)
    return found.group(1) if found else ""
