"""Wavelengths from header cards, in double precision."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from skspec._pixel_values import SURVEYS_BAD, ivar_from_error
from skspec._wavelengths import SHORTEST
from skspec.datasets.readers._cards import wavelength_unit_of
from skspec.datasets.readers._file import SpectrumFileError, card, text
from skspec.solvers.spectra.line_of_sight import C_KMS

__all__ = [
    "FLUX_UNIT",
    "LIGHT_SPEED",
    "header_grid",
    "ivar_from_sigma",
    "log_grid",
    "mask_bits",
    "questioned",
    "split_orders",
    "zero_runs",
]

LIGHT_SPEED = C_KMS
FLUX_UNIT = "1e-17 erg / (s cm2 Angstrom)"  # of SDSS, APOGEE and DESI
LARGEST = 10.0  # log10 wavelength, in whatever unit
ROUNDED = 1e-6  # single precision leaves log10 wavelengths this far from the grid they mean
SAME = 1e-6  # relative: rounding of a card
SHORTEST_ORDER = 20  # pixels, on average: shorter ones are no orders but disorder


def header_grid(header: Any, n_pixels: int, axis: int = 1) -> np.ndarray:
    r"""Wavelengths (n_pixels,) of the linear or log10 axis of a header, in its own unit.

    Not astropy's WCS: surveys write log10 wavelengths under CTYPEs that mean something else. They are
    logarithms where DC-FLAG is 1, CTYPE or WFITTYPE names a logarithm, or the numbers can be nothing
    else; of WAVE-LOG and AWAV-LOG with wavelengths in CRVAL, those of the FITS standard (paper III,
    equation 5), :math:`\lambda = \lambda_r \exp(w / \lambda_r)`.

    Raises
    ------
    SpectrumFileError
        When the header has no such axis, or two that differ.
    """
    start = card(header, f"CRVAL{axis}", "COEFF0", "WAVEMIN0")
    step = card(header, f"CDELT{axis}", f"CD{axis}_{axis}", "COEFF1")
    first = card(header, f"CRPIX{axis}", default=1.0)  # left out by some who mean 1
    if not (np.isfinite(start) and np.isfinite(step) and step != 0 and start != 0):
        raise SpectrumFileError("its header gives no wavelengths (CRVAL1 and CDELT1)")
    _check_agree(header, f"CDELT{axis}", f"CD{axis}_{axis}")
    if abs(start) < LARGEST and first == 1:
        _check_agree(header, f"CRVAL{axis}", "COEFF0")
        _check_agree(header, f"CD{axis}_{axis}", "COEFF1")
    grid = start + step * (np.arange(n_pixels) + 1 - first)
    kinds = text(header.get(f"CTYPE{axis}")).upper() + text(header.get("WFITTYPE")).upper()
    logarithm = card(header, "DC-FLAG") == 1 or "LOG" in kinds
    # metres and microns are as small
    angstrom = wavelength_unit_of(header.get(f"CUNIT{axis}")) in (None, "Angstrom")
    standard = bool(re.match("(AWAV|WAVE)-LOG", kinds)) and (abs(start) > LARGEST or not angstrom)
    logarithm |= abs(start) < 5 and abs(step) < 1e-2 and angstrom
    if logarithm and np.max(np.abs(grid)) < LARGEST and (angstrom or not standard):
        return 10.0**grid
    return start * np.exp(grid / start - 1) if standard else grid


def questioned(wavelength: np.ndarray, unit: str | None) -> str:
    """Unit of the wavelengths of a file: Angstrom where it names none and they can be nothing else.

    Raises
    ------
    SpectrumFileError
        When it names none, and they are so short that they may be nm or micron.
    """
    if unit is None and np.min(wavelength) < SHORTEST:
        raise SpectrumFileError(
            f"its wavelengths run from {np.min(wavelength):g} to {np.max(wavelength):g}, and its header "
            "does not say in which unit (CUNIT1, TUNIT): write it there"
        )
    return unit or "Angstrom"


def _check_agree(header, *names):
    """Refuse a header that says one thing in two ways, of which one is wrong."""
    one, other = (card(header, name) for name in names)
    if np.isfinite(one + other) and one * other and abs(one - other) > SAME * abs(one):
        raise SpectrumFileError(
            f"its header gives two wavelengths: {names[0]} is {one:.9g}, {names[1]} is {other:.9g}"
        )


def log_grid(logarithm: np.ndarray, header: Any | None = None) -> np.ndarray:
    """Wavelengths (n_pixels,) of log10 wavelengths that a table has in single precision, 0.16 km/s.

    Those of the grid of COEFF0 and COEFF1, or of an even one between the ends, where that is what was
    rounded; else as they are.

    Raises
    ------
    SpectrumFileError
        When they are no log10 wavelengths.
    """
    logarithm = np.asarray(logarithm, dtype=float)
    if not np.all(np.abs(logarithm) < LARGEST):
        raise SpectrumFileError("some of its log10 wavelengths are no such numbers")
    pixels = np.arange(len(logarithm))
    grids = [np.linspace(logarithm[0], logarithm[-1], len(logarithm))]
    if header is not None:
        start, step = card(header, "COEFF0"), card(header, "COEFF1")
        if np.isfinite(start) and step > 0 and np.isfinite(logarithm[0]):
            grids.insert(0, start + step * (np.round((logarithm[0] - start) / step) + pixels))
    for grid in grids:
        if np.max(np.abs(grid - logarithm)) < ROUNDED:
            return 10.0**grid
    return 10.0**logarithm


def ivar_from_sigma(sigma: np.ndarray) -> np.ndarray:
    """Inverse variance; 0 where the error is zero, negative, not finite or 1e9 and more."""
    sigma = np.asarray(sigma, dtype=float)
    return ivar_from_error(np.where(sigma < SURVEYS_BAD, sigma, 0.0))


def mask_bits(mask: np.ndarray) -> np.ndarray:
    """Bit masks as integers, also those stored as floats; all bits are set where that is no number."""
    mask = np.asarray(mask)
    if mask.dtype.kind in "iub":
        return mask.astype(np.int64)
    known = np.abs(mask) < 2.0**53
    return np.where(known, np.where(known, mask, 0).astype(np.int64), -1)


def zero_runs(flux: np.ndarray, shortest: int = 3) -> np.ndarray:
    """Pixels (..., P) in runs of at least `shortest` fluxes of exactly 0: gaps between detectors."""
    zero = np.atleast_2d(np.asarray(flux) == 0)
    out = np.zeros_like(zero)
    for row, mask in zip(zero, out):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        for start, stop in edges.reshape(-1, 2):
            mask[start:stop] = stop - start >= shortest
    return out.reshape(np.shape(flux))


def split_orders(wavelength: np.ndarray) -> np.ndarray | None:
    """Number of the order (P,) of each pixel, one more at each step back; None where there is none.

    Raises
    ------
    SpectrumFileError
        When there are too many steps back for orders.
    """
    steps = np.diff(wavelength)
    rising = np.sum(steps > 0) >= np.sum(steps < 0)
    back = steps <= 0 if rising else steps >= 0
    if not back.any():
        return None
    if SHORTEST_ORDER * (back.sum() + 1) > len(wavelength):
        raise SpectrumFileError("its wavelengths neither rise nor fall throughout, nor in orders")
    return np.concatenate([[0], np.cumsum(back)])
