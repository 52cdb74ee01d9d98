"""Toy stars and the public emulator, for the tests of whole methods."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skspec import Spectra

CENTRE = np.array([5500.0, 4.0, -0.3, 0.1, 8.0])
HALF_RANGE = np.array([800.0, 0.7, 0.5, 0.2, 5.0])
NAMES = ["teff", "logg", "feh", "alpha_m", "vsini"]
DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[2] / "shared" / "data"))


def _draw_stars(
    n=80,
    n_pixels=50,
    *,
    n_labels=3,
    noise=0.01,
    degree=2,
    wiggle=0.0,
    errors="varied",
    bad=0.0,
    scatter=0.0,
    seed=0,
):
    """Stars of a fixed toy world: flux polynomial of the labels, plus `wiggle` of a sine.

    The world (coefficients of each pixel) does not depend on `seed`, only the stars do. `errors`:
    "varied" from pixel to pixel and star to star, "separable" (star times pixel), "same", or None
    (a `Spectra` without errors). `bad` is the fraction of bad pixels; their flux is garbage.
    """
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


@pytest.fixture(scope="session")
def draw_stars():
    """Function that draws `Spectra` and labels of a toy world; see `_draw_stars`."""
    return _draw_stars


@pytest.fixture(scope="session")
def draw_dwarfs():
    """Function that draws noisy spectra of the public APOGEE emulator (El-Badry et al. 2018)."""
    path = DATA / "apogee_emulated" / "emulator_datadriven_normalized.npz"
    if not path.exists():
        pytest.skip(f"no {path}: set SKSPEC_DATA")
    with np.load(path) as net:
        w0, b0, w1, b1 = (net[f"{k}_array_{i}"].astype(float) for i in (0, 1) for k in "wb")
        low, high = net["x_min"].astype(float), net["x_max"].astype(float)

    def draw(n, *, snr=100, pixels=slice(None), inner=1.0, seed=0):
        """Teff, log g and [Fe/H] uniform in the `inner` fraction of the box, the others fixed."""
        rng = np.random.default_rng(seed)
        z = np.zeros((n, 5))
        z[:, :3] = 0.5 * inner * rng.uniform(-1, 1, (n, 3))
        z[:, 3:] = (np.array([0.0, 6.0]) - low[3:]) / (high - low)[3:] - 0.5
        hidden = np.einsum("jkl,nl->njk", w0[pixels], z) + b0[pixels]
        flux = np.einsum("njk,jk->nj", 1 / (1 + np.exp(-hidden)), w1[pixels]) + b1[pixels]
        flux += rng.normal(size=flux.shape) / snr
        labels = (z[:, :3] + 0.5) * (high - low)[:3] + low[:3]
        return Spectra(flux, flux_err=1 / snr), pd.DataFrame(labels, columns=NAMES[:3])

    return draw
