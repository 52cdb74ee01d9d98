"""SDSS, SEGUE, BOSS and SDSS-V BOSS: spectra of single targets, and of whole plates."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers._file import (
    SpectrumFile,
    SpectrumFileError,
    card,
    column_names,
    identifier,
    text,
)
from skspec.datasets.readers._grids import FLUX_UNIT, LIGHT_SPEED, header_grid, log_grid, mask_bits
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

RESOLUTION = 2000.0
#: bits of SPPIXMASK: FULLREJECT, NOSKY, NODATA
BAD_PIXEL = 1 << 18 | 1 << 22 | 1 << 24
SPECTRUM = {"FLUX", "LOGLAM", "IVAR"}
CATALOGUES = ("SPECOBJ", "SPALL", "ZALL", "ZLINE", "SPZLINE", "ZBEST")  # hold no spectra
ROUNDING = 1e-7  # degrees, far below the last digit of a name by position


def _is_spec(file):
    return len(file.hdus) > 1 and SPECTRUM <= column_names(file.hdus[1])


def _is_plate(file):
    flux, ivar = file.hdus[0].data, file.hdus[1].data
    return (
        flux is not None
        and flux.ndim == 2
        and np.shape(ivar) == flux.shape
        and "COEFF0" in file.header
        and _plug_map(file, len(flux)) is not None
    )


@reader("sdss_spec", "SDSS, BOSS and SDSS-V spec files, full and lite", _is_spec)
def read_spec(file: SpectrumFile) -> list[Spectra]:
    """Vacuum, heliocentric; Z is the velocity of a star. Full files have single exposures, too.

    Pixels are bad where ivar is 0, or where the mask that is of all exposures (AND) says that nothing
    is known. ELODIE_TEFF and the like are those of a template, no labels.
    """
    catalogue = _catalogue(file)
    if _is_sky(catalogue.get("OBJTYPE")):
        raise SpectrumFileError("it is of the sky, not of a target")
    meta = _meta(file.header, catalogue)
    out = []
    for k, hdu in enumerate(file.hdus[1:], 1):
        if k > 1 and (not SPECTRUM <= column_names(hdu) or hdu.name.upper() in CATALOGUES):
            continue
        exposure = "" if k == 1 else hdu.name.strip() or f"HDU {k}"
        if k > 1 and not len(hdu.data):
            continue
        out.append(_spectrum(file, k, meta | {"exposure": exposure}))
    return out


def _spectrum(file, k, meta):
    table = file.columns(k)
    flux, ivar = table["FLUX"], table["IVAR"]
    mask = table.get("AND_MASK", table.get("MASK"))  # OR: bad in any of the exposures
    # exposures are on pixels of their own, not on the grid of the header
    wavelength = log_grid(table["LOGLAM"], None if meta["exposure"] else file.header)
    by = np.argsort(wavelength, kind="stable")
    return Spectra(
        flux[by],
        ivar=ivar[by],
        mask=None if mask is None else bad_pixels(mask)[by],
        wavelength=wavelength[by],
        medium="vacuum",
        frame="heliocentric",
        resolution=RESOLUTION,
        flux_unit=FLUX_UNIT,
        meta=meta,
    )


def bad_pixels(mask: np.ndarray) -> np.ndarray:
    """Pixels of which SPPIXMASK, integers or floats, says that nothing is known."""
    return (mask_bits(mask) & BAD_PIXEL) != 0


def _catalogue(file):
    """What is known of the target, in HDU 2 by one of several names."""
    rows = [
        row for row in map(file.row, range(2, len(file.hdus))) if "CLASS" in row or "PLUG_RA" in row
    ]
    return rows[0] if rows else {}


@reader("sdss_plate", "SDSS and BOSS spPlate, SDSS-V spField: all fibres of a plate", _is_plate)
def read_plate(file: SpectrumFile) -> Spectra:
    """Vacuum, heliocentric. Fibres on the sky, unplugged or without any data are left out."""
    flux, ivar = file.image(0, 2), file.image(1, 2)
    try:
        mask = bad_pixels(file.image(2, 2))
    except SpectrumFileError:
        mask = np.zeros(flux.shape, dtype=bool)
    fibres = _plug_map(file, len(flux))
    kept = ~np.array([_is_sky(kind) for kind in fibres.get("OBJTYPE", [""] * len(flux))])
    kept &= np.any((ivar > 0) & ~mask, axis=1)
    if not kept.any():
        raise SpectrumFileError("none of its fibres has the spectrum of a target")
    rows = np.flatnonzero(kept)
    metas = [
        _meta(file.header, {name: values[row] for name, values in fibres.items()}) for row in rows
    ]
    return Spectra(
        flux[rows],
        ivar=ivar[rows],
        mask=mask[rows],
        wavelength=header_grid(file.header, flux.shape[1]),
        medium="vacuum",
        frame="heliocentric",
        resolution=RESOLUTION,
        flux_unit=FLUX_UNIT,
        meta={name: np.array([meta[name] for meta in metas]) for name in metas[0]},
    )


def _is_sky(kind):
    return text(kind).upper().startswith(("SKY", "BLANK"))  # "NA": ancillary programmes of BOSS


def _plug_map(file, n_fibres):
    """Columns of the table with one row per fibre; None without one."""
    for k, hdu in enumerate(file.hdus[2:], 2):
        if {"OBJTYPE", "FIBERID"} & column_names(hdu) and len(hdu.data) == n_fibres:
            names = hdu.data.dtype.names
            return {name.upper(): hdu.data[name] for name in names} if n_fibres else file.columns(k)
    return None


def _meta(header, row):
    """Identifiers, and the velocity of what was found to be a star."""
    ra, dec = (
        _first(row, header, *names)
        for names in (
            ("PLUG_RA", "RACAT", "FIBER_RA", "RA"),
            ("PLUG_DEC", "DECCAT", "FIBER_DEC", "DEC"),
        )
    )
    plate, mjd, fiber = (
        int(_first(row, header, *names, default=-1))
        for names in (("PLATE", "FIELD", "PLATEID", "FIELDID"), ("MJD",), ("FIBERID", "FIBER"))
    )
    is_star = text(row.get("CLASS")).upper() == "STAR"
    return {
        "star_id": _star_id(row, ra, dec) or f"{plate}-{mjd}-{fiber}",
        "rv": card(row, "Z") * LIGHT_SPEED if is_star else np.nan,
        "ra": ra,
        "dec": dec,
        "plate": plate,
        "mjd": mjd,
        "fiberid": fiber,
        "specobjid": text(row.get("SPECOBJID")),
        "class": text(row.get("CLASS")),
        "subclass": text(row.get("SUBCLASS")),
        "zwarning": int(card(row, "ZWARNING", default=-1)),
    }


def _first(row, header, *names, default=np.nan):
    """Of the target's own row; of the header only where that cannot be the plate's."""
    value = card(row, *names)
    own = [name for name in names if name not in ("RA", "DEC")]
    return value if np.isfinite(value) else card(header, *own, default=default)


def _star_id(row, ra, dec):
    """SDSS-V's number of the star, else its name by position, the same in all releases."""
    number = identifier(row.get("SDSS_ID"))
    return str(number) if number > 0 else position_name(ra, dec)


def position_name(ra: float, dec: float) -> str:
    """SDSS JHHMMSS.ss+DDMMSS.s of a position [degrees], cut off and not rounded; "" for none."""
    if not (np.isfinite(ra) and abs(dec) <= 90):
        return ""
    hundredths = int(np.floor((ra % 360 + ROUNDING) / 15 * 360_000))
    tenths = int(np.floor((abs(dec) + ROUNDING) * 36_000))
    minutes, seconds = divmod(hundredths, 6000)
    arcminutes, arcseconds = divmod(tenths, 600)
    return (
        f"SDSS J{minutes // 60:02d}{minutes % 60:02d}{seconds / 100:05.2f}"
        f"{'-' if dec < 0 else '+'}{arcminutes // 60:02d}{arcminutes % 60:02d}{arcseconds / 10:04.1f}"
    )
