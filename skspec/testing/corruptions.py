"""Spectra spoilt in the ways that happen: bad pixels with garbage in them, lost errors, blind stars.

Each function returns new spectra and leaves those given to it alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from skspec.spectra import Spectra

__all__ = [
    "as_dtype",
    "blind_stars",
    "fill_bad_pixels",
    "kill_pixels",
    "make_noisier",
    "read_only",
    "without_errors",
]


def fill_bad_pixels(spectra: Spectra, flux: ArrayLike) -> Spectra:
    """The same spectra with `flux` in their bad pixels: no method may tell the difference."""
    return spectra.replace(flux=np.where(spectra.good, spectra.flux, flux))


def kill_pixels(spectra: Spectra, dead: ArrayLike, flux: ArrayLike = 1e6) -> Spectra:
    """Pixels where `dead`, of shape (P,) or (n, P), are bad and hold `flux`."""
    ivar = np.inf if spectra.ivar is None else spectra.ivar
    return spectra.replace(ivar=np.where(dead, 0.0, ivar), flux=np.where(dead, flux, spectra.flux))


def blind_stars(spectra: Spectra, stars: ArrayLike, flux: ArrayLike | None = None) -> Spectra:
    """These `stars` (indices or a mask) have no good pixel left, and hold `flux` if it is given."""
    blind = np.zeros((len(spectra), 1), dtype=bool)
    blind[np.asarray(stars)] = True
    return kill_pixels(spectra, blind, spectra.flux if flux is None else flux)


def make_noisier(spectra: Spectra, factor: ArrayLike) -> Spectra:
    """Errors larger by `factor`; the flux stays."""
    return spectra.replace(ivar=spectra.ivar / np.square(factor))


def without_errors(spectra: Spectra) -> Spectra:
    """The errors are lost; which pixels are bad is still known."""
    return spectra.replace(ivar=None, mask=~spectra.good)


def as_dtype(spectra: Spectra, dtype: DTypeLike) -> Spectra:
    """Flux and errors in single or double precision."""
    ivar = None if spectra.ivar is None else spectra.ivar.astype(dtype)
    return spectra.replace(flux=spectra.flux.astype(dtype), ivar=ivar)


def read_only(spectra: Spectra) -> Spectra:
    """A copy whose arrays cannot be written to."""

    def frozen(array):
        array = np.array(array)
        array.flags.writeable = False
        return array

    parts = {
        name: None if (value := getattr(spectra, name)) is None else frozen(value)
        for name in ("ivar", "wavelength", "order")
    }
    return spectra.replace(flux=frozen(spectra.flux), **parts)
