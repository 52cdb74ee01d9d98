"""One spectrum as the image of a FITS file, with wavelengths by its header: anybody's."""

from __future__ import annotations

import numpy as np

from skspec._containers import find_name
from skspec.datasets.readers._cards import (
    berv_of,
    flux_unit_of,
    frame_of,
    medium_of,
    position_of,
    resolution_of,
    star_of,
    wavelength_unit_of,
)
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, text
from skspec.datasets.readers._grids import header_grid, ivar_from_sigma, questioned, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

#: what extensions beside that of the flux hold, by their names
BESIDE = ("flux_err", "variance", "ivar", "mask", "good", "wavelength", "log_wavelength", "order")
#: cards and words of axes along which no wavelengths run
OTHER_AXES = ("VELO", "VRAD", "VOPT", "FREQ", "PIXEL", "TIME", "RA--", "DEC-", "STOKES")


def _image(file):
    """Position of the first HDU with an image of one spectrum, and not of its errors; None for none."""
    for position, hdu in enumerate(file.hdus):
        data = hdu.data
        if data is not None and not data.dtype.names and not _is_beside(hdu):
            return position if max(data.shape) == data.size > 1 else None
    return None


def _is_beside(hdu):
    return any(find_name(kind, [hdu.name]) for kind in BESIDE)


def _is_fits_1d(file):
    position = _image(file)
    if position is None:
        return False
    known = np.isfinite(card(_header(file, position), "CRVAL1"))
    return known or _named(file, "wavelength", file.hdus[position].data) is not None


def _header(file, position):
    """Of an extension, with the cards of the primary header that it lacks."""
    header = file.hdus[position].header
    if position:
        header = header.copy()
        header.update({k: v for k, v in file.header.items() if k and k not in header and v != ""})
    return header


@reader(
    "fits_1d", "FITS image of one spectrum, linear or log wavelengths", _is_fits_1d, priority=-10
)
def read_fits_1d(file: SpectrumFile) -> Spectra:
    """Errors, masks and wavelengths from extensions of such names. No frame unless SPECSYS names it.

    Even wavelengths in the optical are in air where the header says nothing else, as IRAF's are.
    """
    position = _image(file)
    header = _header(file, position)
    flux = file.image(position).ravel()
    axis = text(header.get("CTYPE1")).upper()
    if axis.startswith(OTHER_AXES):
        raise SpectrumFileError(f"its axis is {axis}, which is no wavelength")
    wavelength = _named(file, "wavelength", flux)
    if wavelength is None:
        wavelength = header_grid(header, len(flux))
        unit = wavelength_unit_of(header.get("CUNIT1"), _iraf_units(header), axis)
    else:
        beside = file.extensions[_name(file, "wavelength")].header
        unit = wavelength_unit_of(beside.get("BUNIT"), beside.get("CUNIT1"))
    unit = questioned(wavelength, unit)
    frame, berv = frame_of(header), berv_of(header)
    if frame is None and np.isfinite(card(header, "ESO QC VRAD BARYCOR")):
        frame = "topocentric"  # the pipelines of ESO leave it to the user
    return Spectra(
        flux,
        ivar=_ivar(file, flux),
        mask=zero_runs(flux) | _mask(file, flux),
        wavelength=wavelength,
        wavelength_unit=unit,
        medium=medium_of(header, wavelength if unit == "Angstrom" else None),
        frame=frame,
        resolution=resolution_of(header),
        flux_unit=flux_unit_of(header.get("BUNIT")),
        meta={"star_id": star_of(header), "berv": berv, **position_of(header)},
    )


def _iraf_units(header):
    return text(header.get("WAT1_001")).lower().partition("units=")[2].split(" ")[0]


def _name(file, kind):
    """Name of the extension that holds a quantity; None for none."""
    return find_name(kind, file.extensions)


def _named(file, kind, flux):
    name = _name(file, kind)
    hdu = None if name is None else file.extensions[name]
    if hdu is None or hdu.data is None or hdu.data.dtype.names or hdu.data.size != flux.size:
        return None
    return file.image(name).ravel().astype(float)


def _ivar(file, flux):
    error = _named(file, "flux_err", flux)
    if error is not None:
        return ivar_from_sigma(error)
    variance = _named(file, "variance", flux)
    if variance is not None:
        return ivar_from_sigma(np.sqrt(np.maximum(variance, 0)))
    return _named(file, "ivar", flux)


def _mask(file, flux):
    mask, good = (_named(file, kind, flux) for kind in ("mask", "good"))
    bad = np.zeros(flux.shape, bool) if mask is None else mask != 0
    return bad if good is None else bad | (good == 0)


def _is_popler(file):
    image = file.hdus[0].data
    return (
        image is not None
        and image.ndim == 2
        and len(image) < 20
        and (
            text(file.header.get("CTYPE1")).upper() == "LOGLIN"
            or "UVES_popler" in str(file.header.get("HISTORY", ""))
        )
    )


@reader("uves_popler", "UVES_popler: combined spectrum as rows of an image", _is_popler)
def read_uves_popler(file: SpectrumFile) -> Spectra:
    """The normalised spectrum and its error, the first two rows; vacuum, heliocentric."""
    rows = file.image(0, 2)
    if len(rows) < 2:
        raise SpectrumFileError("it has no row of errors")
    return Spectra(
        rows[0],
        ivar=ivar_from_sigma(rows[1]),
        wavelength=header_grid(file.header, rows.shape[1]),
        medium="vacuum",
        frame="heliocentric",
        meta={"star_id": star_of(file.header), **position_of(file.header)},
    )
