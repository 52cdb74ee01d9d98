"""Toy stars on which methods are tried: the problem is easy and takes no time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skspec.spectra import Spectra

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw_stars"]

CENTRE = np.array([5500.0, 4.0, -0.3, 0.1, 8.0])
HALF_RANGE = np.array([800.0, 0.7, 0.5, 0.2, 5.0])
NAMES = ["teff", "logg", "feh", "alpha_m", "vsini"]


def draw_stars(
    n: int = 80,
    n_pixels: int = 50,
    *,
    n_labels: int = 3,
    noise: float = 0.01,
    degree: int = 2,
    wiggle: float = 0.0,
    errors: str | None = "varied",
    bad: float = 0.0,
    scatter: float = 0.0,
    seed: int = 0,
) -> tuple[Spectra, pd.DataFrame]:
    """Stars of a fixed toy world: flux polynomial of the labels, plus `wiggle` of a sine.

    The world (coefficients of each pixel) does not depend on `seed`, only the stars do.

    Parameters
    ----------
    n, n_pixels, n_labels : int
        Numbers of stars, of pixels and of labels (up to 5).
    noise : float
        Standard deviation of the photon noise, before it varies as `errors` says.
    degree : {1, 2}
        Degree of the polynomial.
    wiggle : float
        Amplitude of what no polynomial describes.
    errors : {"varied", "separable", "same"} or None
        "varied" from pixel to pixel and star to star, "separable" (star times pixel), "same", or
        None: a `Spectra` without errors.
    bad : float
        Fraction of bad pixels; their flux is garbage.
    scatter : float
        Noise that the errors do not know of.
    seed : int
        Of the stars.

    Returns
    -------
    spectra : Spectra
    labels : DataFrame

    Examples
    --------
    >>> from skspec.testing import draw_stars
    >>> spectra, labels = draw_stars(30, bad=0.02)
    >>> spectra.shape, labels.columns.tolist()
    ((30, 50), ['teff', 'logg', 'feh'])
    """
    import pandas as pd

    world, rng = np.random.default_rng(42), np.random.default_rng(seed)
    linear = world.normal(size=(5, n_pixels))[:n_labels]
    bent = 0.3 * world.normal(size=(5, 5, n_pixels))[:n_labels, :n_labels]
    waves = world.normal(size=(5, n_pixels))[:n_labels]
    u = rng.uniform(-1, 1, (n, n_labels))
    flux = 1 + 0.05 * u @ linear + 0.05 * wiggle * np.sin(2 * u @ waves)
    if degree == 2:
        flux += 0.05 * np.einsum("na,nb,abp->np", u, u, bent)
    sigma = np.full((n, n_pixels), noise)
    if errors in ("varied", "separable"):
        sigma *= rng.uniform(0.5, 2, (n, 1)) * rng.uniform(0.7, 1.5, n_pixels)
    if errors == "varied":
        sigma *= rng.uniform(0.7, 1.4, (n, n_pixels))
    flux += rng.normal(size=flux.shape) * np.sqrt(sigma**2 + scatter**2)
    ivar = None if errors is None else 1 / sigma**2
    if bad:
        hit = rng.random(flux.shape) < bad
        flux[hit] = rng.choice([1e6, -30.0, 0.0, np.nan], size=hit.sum())
        ivar = np.where(hit, 0.0, np.inf if ivar is None else ivar)
    labels = pd.DataFrame(CENTRE[:n_labels] + HALF_RANGE[:n_labels] * u, columns=NAMES[:n_labels])
    wavelength = np.linspace(5000, 5000 + 0.5 * (n_pixels - 1), n_pixels)
    return Spectra(flux, ivar=ivar, wavelength=wavelength), labels
