"""Keck HIRES: extracted orders of the California Planet Search, and SpecMatch-Emp's library."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers._cards import position_of, star_of
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, column_names, text
from skspec.datasets.readers._grids import ivar_from_sigma, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra


def _is_hires(file):
    image = file.hdus[0].data
    return (
        text(file.header.get("INSTRUME")).upper().startswith("HIRES")
        and image is not None
        and image.ndim == 2
    )


def _is_specmatch(file):
    return len(file.hdus) > 1 and {"S", "W", "SERR"} <= column_names(file.hdus[1])


@reader(
    "keck_hires", "Keck HIRES: extracted orders (counts, relative errors, wavelengths)", _is_hires
)
def read_hires(file: SpectrumFile) -> Spectra:
    """In air, topocentric: wavelengths are those of the instrument, the same for all stars."""
    flux = file.image(0, 2)
    maps = [i for i, hdu in enumerate(file.hdus) if i and _like(hdu, flux) and _is_map(hdu.data)]
    if not maps:
        raise SpectrumFileError("it has no HDU with wavelengths")
    relative = [i for i, hdu in enumerate(file.hdus) if i and _like(hdu, flux) and i not in maps]
    ivar = None
    if relative:
        error = file.image(relative[0], 2)
        ivar = ivar_from_sigma(np.where(error > 0, error * np.abs(flux), 0)).ravel()
    return Spectra(
        flux.ravel(),
        ivar=ivar,
        mask=zero_runs(flux).ravel(),
        wavelength=file.image(maps[0], 2).ravel().astype(float),
        order=np.repeat(np.arange(len(flux)), flux.shape[1]),
        medium="air",
        frame="topocentric",
        flux_unit="counts",
        meta={
            "star_id": star_of(file.header, "TARGNAME"),
            **position_of(file.header),
            "mjd": card(file.header, "MJD"),
        },
    )


def _like(hdu, flux):
    return hdu.data is not None and getattr(hdu.data, "shape", None) == flux.shape


def _is_map(values):
    """Wavelengths [Angstrom], rising or falling along each order."""
    step = np.diff(values, axis=1)
    return bool(np.min(values) > 1000 and (np.all(step > 0) or np.all(step < 0)))


@reader("specmatch_emp", "SpecMatch-Emp: normalised HIRES spectra of its library", _is_specmatch)
def read_specmatch(file: SpectrumFile) -> Spectra:
    """Columns s, serr and w, in air and at rest; labels and names are in the library's catalogue."""
    table = file.columns(1)
    return Spectra(
        table["S"],
        ivar=ivar_from_sigma(table["SERR"]),
        wavelength=table["W"].astype(float),
        medium="air",
        frame="rest",
        meta={"star_id": star_of(file.hdus[1].header, "NAME") or file.name.split(".fits")[0]},
    )
