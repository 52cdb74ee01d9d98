"""GALAH (HERMES): one file for each of the four cameras."""

from __future__ import annotations

import re
import warnings

import numpy as np

from skspec.datasets.readers._cards import velocity
from skspec.datasets.readers._file import (
    MISSING,
    SpectrumFile,
    SpectrumFileError,
    SpectrumFileWarning,
    card,
    text,
)
from skspec.datasets.readers._grids import LIGHT_SPEED, header_grid, ivar_from_sigma
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

#: middle of the cameras [Angstrom]: blue, green, red, infrared
CAMERAS = (4808.0, 5761.0, 6608.0, 7736.0)
CAMERA_WIDTH = 250.0  # Angstrom, either side of the middle
RESOLUTION, RESOLUTION_WITH_MASK = 28_000.0, 42_000.0
KNOWN_ERRORS = 0.5  # of the pixels; with fewer, errors are broken


def _is_old(file):
    return "INPUT_SIGMA" in file.extensions and file.hdus[0].data is not None


def _is_new(file):
    return "RELATIVE_ERROR" in file.extensions and file.hdus[0].data is not None


@reader("galah_dr3", "GALAH DR1 to DR3: one camera, in five HDUs", _is_old)
def read_galah_dr3(file: SpectrumFile) -> list[Spectra]:
    """The normalised spectrum, in air and at rest; the counts, barycentric, as exposure "counts".

    Both have wavelengths of their own, whose ratio is the velocity of the star. The file has relative
    errors of the counts.
    """
    counts, relative = file.image(0, 1), file.image("INPUT_SIGMA", 1)
    barycentric = header_grid(file.header, len(counts))
    relative = _sound(relative, file)
    meta = _meta(file, barycentric)
    normalised = _unnamed(file)
    if normalised is None:
        return [_spectra(file, counts, relative, barycentric, "barycentric", meta)]
    header = file.hdus[normalised].header
    flux = file.image(normalised, 1)
    rest = header_grid(header, len(flux))
    # by the steps, not by the ends: the infrared camera's begins later
    shift = (_step(file.header) / _step(header) - 1) * LIGHT_SPEED
    of_flux = None
    if relative is not None:
        of_flux = np.interp(rest * (1 + shift / LIGHT_SPEED), barycentric, relative)
    out = [_spectra(file, flux, of_flux, rest, "rest", meta | {"rv_removed": shift})]
    of_counts = meta | {"exposure": "counts", "rv": shift}
    out.append(_spectra(file, counts, relative, barycentric, "barycentric", of_counts, "counts"))
    return out


def _step(header):
    return card(header, "CDELT1", "CD1_1")


def _unnamed(file):
    """Position of the HDU of the normalised spectrum, which has no name."""
    for position, hdu in enumerate(file.hdus[1:], start=1):
        if hdu.name.upper() in ("", "NORMALIZED", "NORMALISED") and hdu.data is not None:
            return position
    return None


@reader("galah_dr4", "GALAH DR4: one camera, in eight HDUs", _is_new)
def read_galah_dr4(file: SpectrumFile) -> list[Spectra]:
    """The normalised spectrum, in air and barycentric; the counts as exposure "counts".

    The velocity is that of all cameras, else that of this one, where the pipeline trusts it.
    """
    header = file.header
    counts = file.image(0, 1)
    relative = _sound(file.image("RELATIVE_ERROR", 1), file)
    wavelength = header_grid(header, len(counts))
    meta = _meta(file, wavelength)
    meta["rv"] = next(
        (
            velocity(header, name)
            for name in ("RVCOM", "RV")
            if card(header, f"{name}_OK", default=1.0) == 1 and np.isfinite(velocity(header, name))
        ),
        np.nan,
    )
    out = []
    name = next((n for n in ("NORMALIZED", "NORMALISED") if n in file.extensions), None)
    if name is not None:
        flux = file.image(name, 1)
        out.append(_spectra(file, flux, relative, wavelength, "barycentric", meta))
        meta = meta | {"exposure": "counts"}
    out.append(_spectra(file, counts, relative, wavelength, "barycentric", meta, "counts"))
    return out


def _sound(relative, file):
    """Relative errors (P,); None, with a warning, where most of them are no errors."""
    if np.mean(relative > 0) >= KNOWN_ERRORS:
        return relative
    warnings.warn(
        f"{file.path}: {np.mean(~(relative > 0)):.0%} of its errors are not positive; its spectrum is "
        "read without errors.",
        SpectrumFileWarning,
        stacklevel=2,
    )
    return None


def _spectra(file, flux, relative, wavelength, frame, meta, unit=None):
    if relative is not None and len(relative) != len(flux):
        raise SpectrumFileError(f"it has {len(flux)} pixels and errors for {len(relative)}")
    ivar = None
    if relative is not None:
        ivar = ivar_from_sigma(np.where(relative > 0, relative * np.abs(flux), 0.0))
    return Spectra(
        flux,
        ivar=ivar,
        wavelength=wavelength,
        order=np.full(len(flux), meta["ccd"]),
        medium="air",
        frame=frame,
        resolution=_resolution(file, wavelength),
        flux_unit=unit,
        meta=meta,
    )


def _resolution(file, wavelength):
    if "RESOLUTION_PROFILE" in file.extensions:
        fwhm = file.image("RESOLUTION_PROFILE", 1)
        if len(fwhm) == len(wavelength) and np.all(fwhm > 0):
            return wavelength / fwhm
    masked = text(file.header.get("SLITMASK")).upper() == "IN"
    return RESOLUTION_WITH_MASK if masked else RESOLUTION


def _meta(file, wavelength):
    header = file.header
    middle = np.mean(wavelength[[0, -1]])
    ccd = int(np.argmin(np.abs(np.array(CAMERAS) - middle))) + 1
    if abs(CAMERAS[ccd - 1] - middle) > CAMERA_WIDTH:
        raise SpectrumFileError(
            f"{middle:.0f} Angstrom, its middle, is of none of the four cameras"
        )
    named = re.match(r"(\d{15})[1-4](?!\d)", file.name)
    combined = text(header.get("COMB0"))[:15]  # the same exposures in all cameras
    observation = named[1] if named else combined
    names = [text(header.get(name)) for name in ("GALAH_ID", "OBJ_NAME")]
    names = [name for name in names if name.lower() not in MISSING | {"0"}]
    return {
        "star_id": names[0] if names else observation,
        "sobject_id": observation,
        "observation": observation,
        "part": str(ccd),
        "ccd": ccd,
        "ra": card(header, "RA_OBJ"),
        "dec": card(header, "DEC_OBJ"),
        "snr": card(header, "SNR"),
    }
