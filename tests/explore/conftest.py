"""Toy spectra whose latent numbers are known, and a model that tells them exactly."""

import signal

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin

from skspec import Spectra
from skspec.explore import LatentSpace

N_NODES, N_PIXELS = 6, 120


class LinearModel(TransformerMixin, BaseEstimator):
    """Flux = 1 + z A with orthonormal A; the last nodes are never used."""

    n_latent = N_NODES

    def fit(self, X=None, y=None):
        basis = np.random.default_rng(1).normal(size=(N_PIXELS, N_NODES))
        self.basis_ = np.linalg.qr(basis)[0].T
        self.wavelength_ = np.linspace(5100.0, 5300.0, N_PIXELS)
        return self

    def transform(self, X):
        z = (np.asarray(X) - 1) @ self.basis_.T
        z[:, 4:] = 0
        return z

    def inverse_transform(self, X):
        used = np.asarray(X) * (np.arange(N_NODES) < 4)
        return 1 + used @ self.basis_


def draw(n=150, noise=0.01, seed=0):
    """Spectra, their labels (node 2 is teff, node 0 is feh) and latent numbers."""
    rng = np.random.default_rng(seed)
    model = LinearModel().fit()
    z = rng.normal(size=(n, N_NODES)) * [0.5, 1.0, 2.0, 0.8, 0, 0]
    flux = model.inverse_transform(z) + noise * rng.normal(size=(n, N_PIXELS))
    labels = pd.DataFrame({"teff": 5500 + 400 * z[:, 2], "feh": -0.3 + 0.4 * z[:, 0]})
    labels.iloc[:5] = np.nan
    meta = {
        "survey": np.array(["one", "two", "one"])[np.arange(n) % 3],
        "star_id": np.array([f"<b>HD {k}" for k in range(n)]),
    }
    spectra = Spectra(flux, flux_err=noise, wavelength=model.wavelength_, meta=meta)
    return model, spectra, labels


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C works, as it does for a user; a shell starts background jobs deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def draw_toy():
    """Function that draws model, spectra and labels."""
    return draw


@pytest.fixture
def toy():
    """Model, spectra and labels."""
    return draw()


@pytest.fixture
def space(toy):
    model, spectra, labels = toy
    return LatentSpace(model, spectra, labels)


@pytest.fixture
def bare():
    """A model without stars."""
    return LatentSpace(LinearModel().fit())
