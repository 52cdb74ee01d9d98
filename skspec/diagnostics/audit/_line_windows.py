"""Where the lines of a label lie: windows of the package's own line table, or given ones."""

from __future__ import annotations

import re

import numpy as np

from skspec._wavelengths import air_to_vacuum
from skspec.datasets._atmosphere import ALPHA_ELEMENTS, ELEMENTS
from skspec.datasets._lines import atomic_lines
from skspec.forward import censoring_mask

__all__ = ["elements_of", "window_masks"]

HALF_WIDTH = 1.5  # of a window, in units of lambda / R
STRONG = 3.0  # times as wide for lines with damping wings
ALPHA_NAMES = ("alpham", "alphafe", "alphah", "afe", "am")
_ABUNDANCE = re.compile(r"([a-z]{1,2})(fe|h|m)")


def elements_of(name):
    """Elements whose lines measure a label: ``mg_fe``, ``[Si/H]``, ``alpha_m``; else none.

    [Fe/H] and [M/H] have none of their own: the lines of all metals follow them.
    """
    plain = re.sub(r"[^a-z]", "", str(name).lower())
    if plain in ALPHA_NAMES:
        return ALPHA_ELEMENTS
    found = _ABUNDANCE.fullmatch(plain)
    symbol = found[1].capitalize() if found else ""
    return (symbol,) if symbol in ELEMENTS and symbol not in ("H", "Fe") else ()


def window_masks(spectra, names, given=None):
    """Pixels within the windows of each label that has any: ``{name: ndarray of bool (P,)}``.

    Parameters
    ----------
    spectra : Spectra
        Its ``resolution`` and ``medium`` set the width of default windows, and whether
        they are in air.
    names : list of str
        Labels.
    given : dict, optional
        Label name -> list of (lower, upper) [Angstrom], or boolean array (P,), True inside; in place
        of the default windows of that label.

    Raises
    ------
    ValueError
        For a label that is not there, windows without a pixel or without a wavelength.
    """
    given = dict(given or {})
    if unknown := [name for name in given if name not in names]:
        raise ValueError(f"line_windows names {unknown}; the labels are {', '.join(names)}.")
    masks = {}
    for name in names:
        if name in given:
            masks[name] = _given_mask(name, given[name], spectra)
        elif spectra.wavelength is not None and elements_of(name):
            masks[name] = _default_mask(elements_of(name), spectra)
    return {name: mask for name, mask in masks.items() if mask.any()}


def _given_mask(name, windows, spectra):
    windows = np.asarray(windows)
    if windows.dtype == bool:
        if windows.shape != spectra.shape[1:]:
            raise ValueError(
                f"line_windows[{name!r}] has shape {windows.shape}, the spectra have "
                f"{spectra.shape[1]} pixels."
            )
        return windows
    if spectra.wavelength is None:
        raise ValueError("line_windows in Angstrom need spectra with a wavelength.")
    inside = ~censoring_mask(spectra.wavelength, np.reshape(windows, (-1, 2)))
    if not inside.any():
        raise ValueError(
            f"No pixel lies in line_windows[{name!r}]; the spectra cover "
            f"{spectra.wavelength.min():.1f}-{spectra.wavelength.max():.1f} Angstrom."
        )
    return inside


def _default_mask(elements, spectra):
    lines, pixels = atomic_lines(), spectra.wavelength
    if spectra.medium == "air":
        pixels = air_to_vacuum(pixels)
    lines = lines.take([species.split()[0] in elements for species in lines.species])
    width = HALF_WIDTH / _resolution(spectra) * np.where(lines.strong, STRONG, 1.0)
    return np.any(np.abs(pixels[:, None] / lines.wavelength - 1) < width, axis=1)


def _resolution(spectra):
    """R = lambda / FWHM: that of the spectra, else a FWHM of two pixels."""
    if (known := spectra.resolution) is not None:
        return float(np.median(known))
    step = np.abs(np.diff(np.log(np.sort(spectra.wavelength))))
    return 1 / (2 * max(np.median(step), 1e-7))
