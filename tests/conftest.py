"""Toy stars and the public emulator, for the tests of whole methods."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skspec import Spectra, testing

DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def draw_stars():
    """Function that draws `Spectra` and labels of a toy world."""
    return testing.draw_stars


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
        return Spectra(flux, flux_err=1 / snr), pd.DataFrame(
            labels, columns=["teff", "logg", "feh"]
        )

    return draw
