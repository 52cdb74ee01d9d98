"""Libraries of stars, one star a file: MILES, Indo-US, STELIB, IRTF, MaStar's clusters."""

from __future__ import annotations

import re

import numpy as np

from skspec.datasets.readers._cards import (
    flux_unit_of,
    position_of,
    star_of,
    wavelength_unit_of,
)
from skspec.datasets.readers._file import SpectrumFile, card, text
from skspec.datasets.readers._grids import header_grid, ivar_from_sigma, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

MILES_FWHM, INDO_US_FWHM, STELIB_FWHM = 2.5, 1.0, 3.0  # Angstrom


def _has(file, *names):
    """One spectrum in the first HDU, and these cards."""
    image = file.hdus[0].data
    return image is not None and image.ndim == 1 and all(name in file.header for name in names)


def _is_miles(file):
    return _has(file, "TPLLIB") and text(file.header["TPLLIB"]).upper() == "MILES"


def _is_indo_us(file):
    return _has(file, "TEFF", "LOGG", "FEH", "CRVAL1") and (
        text(file.header.get("TELESCOP")).lower() == "kpcdf" or "HDNAME" in file.header
    )


def _is_stelib(file):
    return _has(file, "TEFF", "LOG_G", "FE_H", "CRVAL1")


def _is_mastar_hc(file):
    return _has(file, "CRVAL1") and {"IVAR", "SRES"} <= set(file.extensions)


def _library_spectra(file, fwhm, meta):
    """One star, in air, at rest, without errors."""
    flux = file.image(0, 1)
    wavelength = header_grid(file.header, len(flux))
    return Spectra(
        flux,
        mask=zero_runs(flux),
        wavelength=wavelength,
        medium="air",
        frame="rest",
        resolution=wavelength / fwhm,
        flux_unit=flux_unit_of(file.header.get("BUNIT")),
        meta=meta,
    )


@reader("miles", "MILES: stars of the library", _is_miles)
def read_miles(file: SpectrumFile) -> Spectra:
    """In air, at rest; its labels are in the library's table, by the number in the name of the file."""
    found = re.search(r"m(\d{4})V", file.name)
    meta = {
        "star_id": f"m{found[1]}" if found else file.name.split(".fits")[0],
        "miles_number": int(found[1]) if found else -1,
    }
    return _library_spectra(file, card(file.header, "FWHM", default=MILES_FWHM), meta)


@reader("indo_us", "Indo-US Coude Feed library", _is_indo_us)
def read_indo_us(file: SpectrumFile) -> Spectra:
    """In air, at rest; labels from the header."""
    header = file.header
    names = (text(header.get(name)) for name in ("HDNAME", "OBJNAME", "OBJECT"))
    meta = {
        "star_id": next((name for name in names if name), ""),
        "spectral_type": text(header.get("SPTYPE")),
        **position_of(header, "OBJRA", "OBJDEC"),
        **_labels(header, "TEFF", "LOGG", "FEH"),
    }
    return _library_spectra(file, INDO_US_FWHM, meta)


@reader("stelib", "STELIB library", _is_stelib)
def read_stelib(file: SpectrumFile) -> Spectra:
    """In air, at rest within some 20 km/s; labels from the header. Runs of zeros were not observed."""
    header = file.header
    names = (text(header.get(name)) for name in ("STARIDEN", "OBJECT"))
    meta = {
        "star_id": next((name for name in names if name), ""),
        "spectral_type": text(header.get("SPECTYPE")),
        **_labels(header, "TEFF", "LOG_G", "FE_H"),
    }
    return _library_spectra(file, STELIB_FWHM, meta)


def _labels(header, *names):
    return {label: card(header, name) for label, name in zip(("teff", "logg", "feh"), names)}


@reader("mastar_hc", "MaStar: spectra of hierarchical clusters of its library", _is_mastar_hc)
def read_mastar_hc(file: SpectrumFile) -> Spectra:
    """Means of like stars, in vacuum, at rest, with inverse variance and resolution of each pixel."""
    flux, resolution = file.image(0, 1), file.image("SRES", 1).astype(float)
    return Spectra(
        flux,
        ivar=file.image("IVAR", 1),
        mask=zero_runs(flux),
        wavelength=header_grid(file.header, len(flux)),
        medium="vacuum",
        frame="rest",
        resolution=np.where(resolution > 0, resolution, np.nan),
        meta={"star_id": file.name.split(".fits")[0]},
    )


def _is_irtf(file):
    image = file.hdus[0].data
    rows = image is not None and image.ndim == 2 and 2 <= len(image) <= 4
    return rows and wavelength_unit_of(file.header.get("XUNITS")) is not None


@reader("irtf", "IRTF: stars of the library, and what Spextool writes", _is_irtf)
def read_irtf(file: SpectrumFile) -> Spectra:
    """Rows of wavelengths, flux and error; in vacuum where WAVETYPE does not say air."""
    rows, header = file.image(0, 2).astype(float), file.header
    used = np.isfinite(rows[0]) & (rows[0] > 0)
    wavetype = text(header.get("WAVETYPE")).lower()
    return Spectra(
        rows[1, used],
        ivar=ivar_from_sigma(rows[2, used]) if len(rows) > 2 else None,
        mask=zero_runs(rows[1, used]),
        wavelength=rows[0, used],
        wavelength_unit=wavelength_unit_of(header["XUNITS"]),
        medium="air" if "air" in wavetype else "vacuum",
        flux_unit=flux_unit_of(header.get("YUNITS")),
        meta={"star_id": star_of(header), **position_of(header)},
    )
