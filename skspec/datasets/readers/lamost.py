"""LAMOST: low resolution (an image up to DR7, a table from DR8 on) and medium resolution."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, text
from skspec.datasets.readers._grids import LIGHT_SPEED, header_grid, log_grid
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

ARMS = {"B": 0, "R": 1}
LRS_RESOLUTION = 1800.0
SAME_WAVELENGTH = 0.01  # Angstrom; single precision is good to 0.0005
MRS_RESOLUTION = 7500.0


def _is_lamost(file):
    return text(file.header.get("TELESCOP")).upper() == "LAMOST"


def _is_lrs(file):
    if not _is_lamost(file):
        return False
    image = file.hdus[0].data
    if image is not None:
        return image.ndim == 2 and len(image) == 5
    return "COADD" in file.extensions


def _is_mrs(file):
    return _is_lamost(file) and any(
        name.startswith(("COADD_", "B-", "R-")) for name in file.extensions
    )


@reader("lamost_lrs", "LAMOST low resolution, all releases", _is_lrs)
def read_lamost_lrs(file: SpectrumFile) -> Spectra:
    """Wavelengths from COEFF0 and COEFF1: row 2 of the image is the normalised flux in DR1.

    Vacuum, heliocentric; Z is the velocity of the star. Pixels with any bit of ANDMASK are bad.
    """
    header = file.header
    if file.hdus[0].data is not None:
        rows = file.image(0, 2)
        flux, ivar, mask = rows[0], rows[1], rows[3]
        wavelength = header_grid(header, len(flux))
        if np.nanmedian(rows[2]) > 1000:  # not in DR1
            wavelength = _of_both(wavelength, rows[2])
    else:
        table = file.columns("COADD")
        flux, ivar, mask = table["FLUX"], table["IVAR"], table["ANDMASK"]
        wavelength = table["WAVELENGTH"].astype(float)
        exact = _lrs_grid(header, len(flux))
        if exact is not None:
            wavelength = _of_both(exact, wavelength)
    return Spectra(
        flux,
        ivar=ivar,
        mask=mask != 0,
        wavelength=wavelength,
        medium="vacuum",
        frame="heliocentric",
        resolution=LRS_RESOLUTION,
        meta=_meta(header),
    )


def _of_both(exact, stored):
    """Wavelengths of the header, of which those among the data are a copy in single precision."""
    with np.errstate(invalid="ignore"):
        apart = ~(np.abs(exact - stored) < SAME_WAVELENGTH)
    if 2 * apart.sum() > len(apart):
        return stored.astype(float)
    if apart.any():
        raise SpectrumFileError(
            f"{apart.sum()} of its wavelengths are not those of its header: it is damaged"
        )
    return exact


def _lrs_grid(header, n_pixels):
    start, step = card(header, "COEFF0"), card(header, "COEFF1")
    return 10 ** (start + step * np.arange(n_pixels)) if np.isfinite(start + step) else None


@reader("lamost_mrs", "LAMOST medium resolution: both arms, combined or single exposures", _is_mrs)
def read_lamost_mrs(file: SpectrumFile) -> list[Spectra]:
    """The arms B and R as orders 0 and 1; exposures are read as spectra of their own.

    A file without combined spectra has its exposures only.
    """
    exposures: dict[str, dict[str, tuple]] = {}
    for name, hdu in file.extensions.items():
        arm, _, number = name.replace("COADD_", "").partition("-")
        if (name.startswith("COADD_") or number) and arm in ARMS:
            exposures.setdefault(number, {})[arm] = _mrs_arm(file, name, hdu.header)
    if not exposures:
        raise SpectrumFileError("it has neither combined spectra nor exposures")
    out = []
    for number, arms in exposures.items():
        parts = [arms[arm] for arm in ARMS if arm in arms]
        order = np.concatenate([np.full(len(p[0]), ARMS[a]) for a, p in zip(sorted(arms), parts)])
        wavelength, flux, ivar = (np.concatenate(values) for values in zip(*parts))
        spectra = Spectra(
            flux,
            ivar=ivar,
            wavelength=wavelength,
            order=order,
            medium="vacuum",
            frame="heliocentric",
            resolution=MRS_RESOLUTION,
            meta=_meta(file.header) | {"exposure": number},
        )
        out.append(spectra)
    return out


def _mrs_arm(file, name, header):
    """Wavelength, flux and ivar of one arm, blue to red."""
    table = file.columns(name)
    mask = table["ANDMASK"] if "ANDMASK" in table else table["PIXMASK"]
    if "WAVELENGTH" in table:
        wavelength = table["WAVELENGTH"].astype(float)
    else:
        wavelength = log_grid(table["LOGLAM"])
    ivar = np.where(mask != 0, 0.0, table["IVAR"])
    by = slice(None, None, -1 if wavelength[0] > wavelength[-1] else 1)
    return wavelength[by], table["FLUX"][by], ivar[by]


def _meta(header):
    """What the header knows of the star; labels are in catalogues only, by OBSID."""
    z = card(header, "Z")
    named = [text(header.get(name)) for name in ("DESIG", "OBSID")]
    star = named[0].removeprefix("LAMOST").strip() or named[1]
    return {
        "star_id": star,
        "obsid": int(card(header, "OBSID", default=-1)),
        "rv": z * LIGHT_SPEED if text(header.get("CLASS")) in ("STAR", "") else np.nan,
        "ra": card(header, "RA", "RA_OBS"),
        "dec": card(header, "DEC", "DEC_OBS"),
        "subclass": text(header.get("SUBCLASS")),
        "snr_g": card(header, "SNRG"),
    }
