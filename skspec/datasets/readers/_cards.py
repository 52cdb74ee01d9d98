"""What header cards say of a spectrum, in the many ways in which observatories say it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from skspec.datasets.readers._file import card, missing_number, text

__all__ = [
    "berv_of",
    "flux_unit_of",
    "frame_of",
    "medium_of",
    "position_of",
    "resolution_of",
    "star_of",
    "velocity",
    "wavelength_unit_of",
]

#: SPECSYS of the FITS standard (paper III, table 12), and what else is written there
FRAMES = {
    "TOPOCENT": "topocentric",
    "GEOCENTR": None,
    "BARYCENT": "barycentric",
    "HELIOCEN": "heliocentric",
    "SOURCE": "rest",
    "REST": "rest",
}
UNITS = {
    "ANGSTROM": "Angstrom",
    "ANG": "Angstrom",
    "AA": "Angstrom",
    "A": "Angstrom",
    "NM": "nm",
    "NANOMETER": "nm",
    "MICRON": "micron",
    "MICROMETER": "micron",
    "UM": "micron",
    "M": "m",
    "METER": "m",
}
#: barycentric correction [km/s], which is added to a topocentric velocity
BERV = (
    "ESO QC BERV",
    "ESO DRS BERV",
    "TNG DRS BERV",
    "TNG QC BERV",
    "OHP DRS BERV",
    "ESO QC VRAD BARYCOR",
    "BERV",
)
NAMES = ("ESO OBS TARG NAME", "TARGNAME", "OBJECT", "OBJNAME", "TARGET")
FASTEST = 3000.0  # km/s: no star is faster; pipelines write -99999 for what failed
LINEAR_AIR = (2000.0, 11_000.0)  # Angstrom


def velocity(header: Any, *names: str) -> float:
    """The first of these cards that holds a velocity that a star can have [km/s]; NaN for none."""
    for name in names:
        value = card(header, name)
        if abs(value) < FASTEST:
            return value
    return np.nan


def berv_of(header: Any) -> float:
    """What takes topocentric velocities to the barycentre [km/s]; NaN where the header is silent."""
    return velocity(header, *BERV)


def frame_of(header: Any) -> str | None:
    """Frame by SPECSYS."""
    return FRAMES.get(text(header.get("SPECSYS")).upper()[:8])


def wavelength_unit_of(*names: Any) -> str | None:
    """Unit of wavelengths as `Spectra` call it, of the first of the cards that names one."""
    for name in names:
        word = re.sub(r"[\s\[\]()]", "", text(name)).upper()
        for spelling in (word, word.removesuffix("S")):
            if spelling in UNITS:
                return UNITS[spelling]
    return None


def medium_of(header: Any, wavelength: np.ndarray | None = None) -> str | None:
    """Air or vacuum: what the header says, else what linear wavelengths [Angstrom] mean.

    Even steps in the optical are in air unless the header speaks of vacuum: the convention of IRAF and
    of the pipelines of spectrographs on the ground. Of logarithmic wavelengths and of the infrared, to
    which none applies, it is not known.
    """
    kind = text(header.get("CTYPE1")).upper()
    if kind.startswith("AWAV"):
        return "air"
    if re.fullmatch("WAVE(-(LOG|TAB|W2W|F2W|V2W|GRI).*)?", kind):
        return "vacuum"  # paper III, table 1
    flag = header.get("VACUUM")
    if flag is True or text(flag).upper() in ("T", "TRUE", "YES", "1"):
        return "vacuum"
    if flag is False or text(flag).upper() in ("F", "FALSE", "NO"):
        return "air"
    for name in ("AIRORVAC", "WAVETYPE", "MEDIUM", "WAT1_001", "CTYPE1", "CUNIT1"):
        words = text(header.get(name)).upper()
        if "VAC" in words:
            return "vacuum"
        if re.search(r"\bAIR\b", words):
            return "air"
    if wavelength is None or len(wavelength) < 3:
        return None
    steps = np.diff(wavelength)
    even = np.max(np.abs(steps - steps[0])) < 1e-5 * np.abs(steps[0])
    return "air" if even and _is_optical(wavelength) else None


def _is_optical(wavelength):
    return np.min(wavelength) >= LINEAR_AIR[0] and np.max(wavelength) <= LINEAR_AIR[1]


def resolution_of(header: Any) -> float | None:
    """Resolving power of the card SPEC_RES."""
    value = card(header, "SPEC_RES")
    return value if value > 1 else None


def flux_unit_of(unit: Any) -> str | None:
    """Unit of the flux as text: many spellings are none of the FITS standard."""
    return text(unit) or None


def star_of(header: Any, *names: str) -> str:
    """Name of the star: of these cards, or of those where it usually stands."""
    found = (text(header.get(name)) for name in (*names, *NAMES))
    return next((name for name in found if name), "")


def position_of(header: Any, ra: str = "RA", dec: str = "DEC") -> dict[str, float]:
    """``ra`` and ``dec`` [degrees], of numbers or of sexagesimal text (then ``ra`` is in hours)."""
    alpha, delta = header.get(ra), header.get(dec)
    out = {"ra": _angle(alpha, 15.0), "dec": _angle(delta, 1.0)}
    possible = 0 <= out["ra"] <= 360 and abs(out["dec"]) <= 90
    return out if possible else {"ra": np.nan, "dec": np.nan}


def _angle(value, degrees):
    found = re.fullmatch(r"([+-]?)(\d+)[:\s](\d+)[:\s](\d+\.?\d*)", text(value))
    if found is None:
        return missing_number(value)
    size = int(found[2]) + int(found[3]) / 60 + float(found[4]) / 3600
    return degrees * (-size if found[1] == "-" else size)
