"""APOGEE: combined spectra, what ASPCAP has normalised and labelled, and single visits."""

from __future__ import annotations

from typing import Any

import numpy as np

from skspec.datasets.readers._file import (
    SpectrumFile,
    SpectrumFileError,
    card,
    column_names,
    missing_number,
    text,
)
from skspec.datasets.readers._grids import FLUX_UNIT, header_grid, ivar_from_sigma, mask_bits
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

RESOLUTION = 22_500.0
#: bits 0-7 and 14 of APOGEE_PIXMASK: bad, cosmic ray, saturated, ..., no sky, too little of the PSF
BAD_PIXEL = 16639
H_BAND = (14_000.0, 18_500.0)  # Angstrom
USELESS = 10.0  # an error of so many continua, by which ASPCAP marks pixels that it has not used
COMBINED = ("", "global weights")  # the first rows of apStar; the others are visits
GRID = {"CRVAL1": 4.179, "CDELT1": 6e-6}  # of all of them, log10 Angstrom


def bad_pixels(mask: np.ndarray) -> np.ndarray:
    """Pixels of which APOGEE_PIXMASK, signed or not, says that they cannot be used."""
    return (mask_bits(mask) & BAD_PIXEL) != 0


def _images(file, *positions):
    """Shapes of image HDUs; None where there is no image."""
    hdus = [file.hdus[k] if k < len(file.hdus) else None for k in positions]
    return [getattr(hdu.data, "shape", None) if _is_image(hdu) else None for hdu in hdus]


def _is_image(hdu):
    return hdu is not None and hdu.data is not None and hdu.data.dtype.names is None


def _has_labels(file):
    return any({"PARAM", "FPARAM"} & column_names(hdu) for hdu in file.hdus[1:])


def _is_apstar(file):
    flux, error, mask = _images(file, 1, 2, 3)
    return (
        flux is not None
        and flux == error == mask
        and "NVISITS" in file.header
        and not _has_labels(file)
    )


def _is_aspcapstar(file):
    flux, error = _images(file, 1, 2)
    return flux is not None and flux == error and _has_labels(file)


def _is_apvisit(file):
    flux, error, mask, wavelength = _images(file, 1, 2, 3, 4)
    return (
        flux is not None
        and len(flux) == 2
        and flux == error == mask == wavelength
        and "NVISITS" not in file.header
        and H_BAND[0] < np.nanmedian(file.hdus[4].data) < H_BAND[1]
    )


@reader("apogee_apstar", "APOGEE apStar and asStar: combined spectra and visits", _is_apstar)
def read_apstar(file: SpectrumFile) -> Spectra:
    """Vacuum, in the rest frame. One row for a star seen once, 2 + visits for others.

    Of two ways to combine the visits, the first row stands for the star. The second is the exposure
    "global weights", visits have the names of their files. RVTEFF and the like are those of a
    template, no labels.
    """
    flux = np.atleast_2d(file.image(1, (1, 2)))
    error = np.atleast_2d(file.image(2, (1, 2)))
    mask = np.atleast_2d(file.image(3, (1, 2)))
    n = len(flux)
    visits = _visits(file, n - len(COMBINED))
    removed = [card(file.header, "VHELIO", "VHELIOBARY", "VHBARY")] * min(n, len(COMBINED))
    removed += [velocity for _, velocity in visits]
    return Spectra(
        flux,
        ivar=ivar_from_sigma(error),
        mask=bad_pixels(mask),
        wavelength=_grid(file, flux.shape[1]),
        medium="vacuum",
        frame="rest",
        resolution=RESOLUTION,
        flux_unit=FLUX_UNIT,
        meta=_meta(file.header)
        | {
            "rv_removed": np.array(removed),
            "exposure": [*COMBINED, *(name for name, _ in visits)][:n],
        },
    )


def _visits(file, n_visits):
    """Names of visits, and the velocities of the star in them [km/s]."""
    header = file.header
    table = _table(file, "FILE")
    out: list[tuple[str, float]] = []
    for k in range(max(n_visits, 0)):
        name = text(header.get(f"SFILE{k + 1}")) or text(_cell(table, "FILE", k))
        velocity = card(header, f"VHELIO{k + 1}", f"VHBARY{k + 1}")
        if np.isnan(velocity):
            velocity = missing_number(_cell(table, "VHELIO", k))
        out.append((name.removesuffix(".fits") or f"visit {k + 1}", velocity))
    return out


def _table(file, column):
    """First row of the first table with this column; {} without one."""
    rows = map(file.row, range(1, len(file.hdus)))
    return next((row for row in rows if column in row), {})


def _cell(row, name, k):
    """Entry k of a vector in a table."""
    values = np.atleast_1d(row.get(name, []))
    return values[k] if k < len(values) else None


def _grid(file, n_pixels):
    """Of the image, of the primary header, or the one of all APOGEE spectra."""
    for header in (file.hdus[1].header, file.header, GRID):
        try:
            wavelength = header_grid(header, n_pixels)
        except SpectrumFileError:
            continue
        if header is not GRID or n_pixels == 8575:
            return wavelength
    raise SpectrumFileError("its header gives no wavelengths (CRVAL1 and CDELT1)")


@reader(
    "apogee_aspcapstar",
    "APOGEE aspcapStar: normalised spectra and labels",
    _is_aspcapstar,
    priority=1,
)
def read_aspcapstar(file: SpectrumFile) -> Spectra:
    """Vacuum, rest frame, continuum divided out; `teff`, `logg` and `feh` where ASPCAP calibrated them.

    There is no mask: gaps have flux and error 0, pixels that were not used errors of many continua.
    `feh` is [M/H]. What is not calibrated (PARAM -9999; M dwarfs) is NaN: FPARAM are raw numbers of the
    fit.
    """
    flux, error = (np.atleast_2d(file.image(k, (1, 2))) for k in (1, 2))
    table = _table(file, "FPARAM") or _table(file, "PARAM")
    names = {"teff": 0, "logg": 1, "feh": 3}
    labels = {name: missing_number(_cell(table, "PARAM", k)) for name, k in names.items()}
    # rows beyond the first are those of other flavours of the same star
    return Spectra(
        flux[:1],
        ivar=ivar_from_sigma(error[:1]),
        mask=(flux[:1] == 0) | (error[:1] > USELESS),
        wavelength=_grid(file, flux.shape[1]),
        medium="vacuum",
        frame="rest",
        resolution=RESOLUTION,
        meta=_meta(table | dict(file.header))
        | labels
        | {"rv_removed": card(file.header, "VHELIO")},
    )


@reader("apogee_apvisit", "APOGEE apVisit and asVisit: single visits, by chip", _is_apvisit)
def read_apvisit(file: SpectrumFile) -> Spectra:
    """Chips as orders 0 (blue) to 2, vacuum, as observed; ``berv`` takes them to the barycentre.

    The velocity of the star from one visit (VREL, VHELIO) fails by hundreds of km/s for M and L dwarfs,
    and nothing in the file tells where: it is ``meta["rv_visit"]``, and no `rv`.
    """
    flux, error, mask, wavelength = (file.image(k, 2) for k in (1, 2, 3, 4))
    if not np.all(np.isfinite(wavelength)):
        raise SpectrumFileError("some of its wavelengths are not finite")
    chips = np.argsort(np.median(wavelength, axis=1), kind="stable")  # they run red to blue
    within = np.argsort(wavelength[chips], axis=1, kind="stable")
    flux, error, mask, wavelength = (
        np.take_along_axis(values[chips], within, axis=1).ravel()
        for values in (flux, error, mask, wavelength)
    )
    header = file.header
    table = _table(file, "BC") or _table(file, "FILE")
    names = [text(header.get(name)) for name in ("PLATE", "MJD5", "FIBERID")]
    exposure = text(table.get("FILE")).removesuffix(".fits") or "-".join(filter(None, names))
    return Spectra(
        flux,
        ivar=ivar_from_sigma(error),
        mask=bad_pixels(mask),
        wavelength=wavelength,
        order=np.repeat(np.arange(len(chips)), within.shape[1]),
        medium="vacuum",
        frame="topocentric",
        resolution=RESOLUTION,
        flux_unit=FLUX_UNIT,
        meta=_meta(header)
        | {
            "berv": card(header, "BC", default=missing_number(table.get("BC"))),
            "rv_visit": card(header, "VREL", "VRAD", default=missing_number(table.get("VREL"))),
            "exposure": exposure or file.name,
        },
    )


def _meta(header: Any) -> dict[str, Any]:
    star = next(
        (text(header[name]) for name in ("OBJID", "OBJ", "APOGEE_ID") if header.get(name)), ""
    )
    return {
        "star_id": star,
        "apogee_id": star,
        "ra": card(header, "RA"),
        "dec": card(header, "DEC"),
        "snr_survey": card(header, "SNR"),
        "starflag": int(card(header, "STARFLAG", default=0)),
    }
