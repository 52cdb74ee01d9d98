"""A forward model whose every answer is known in closed form."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from skspec import MultivariateNormal, Spectra
from skspec.base import LabelRegressor
from skspec.likelihood import PixelNoise

NAMES = ["teff", "logg"]
DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[3] / "shared" / "data"))
SCALE = np.array([500.0, 0.5])
CENTRE = np.array([5500.0, 4.0])


def gradients(n_pixels, seed=0):
    """J (P, K), in label units."""
    return 0.05 * np.random.default_rng(seed).normal(size=(n_pixels, 2)) / SCALE


class LinearForward(LabelRegressor):
    """Flux 1 + J (labels - centre), inverted by weighted least squares: efficient by theory."""

    def __init__(self, jacobian=None, inflate=1.0):
        self.jacobian = jacobian
        self.inflate = inflate

    def fit(self, X, y):
        spectra, y = self._validate_fit(X, y)
        if self.jacobian is None:
            design = np.column_stack([np.ones(len(y)), y - CENTRE])
            coef = np.linalg.lstsq(design, spectra.flux, rcond=None)[0]
            self.jacobian_, self.flux_0_ = coef[1:].T, coef[0]
        else:
            self.jacobian_, self.flux_0_ = self.jacobian, np.ones(spectra.shape[1])
        residual = spectra.flux - self.predict_flux(y)
        self.scatter_ = residual.std(axis=0)
        self.training_mse_, self.cv_mse_ = self.scatter_**2, 1.1 * self.scatter_**2
        return self

    def predict_flux(self, labels):
        return self.flux_0_ + (labels - CENTRE) @ self.jacobian_.T

    def flux_jacobian(self, labels):
        return np.broadcast_to(self.jacobian_, (len(labels), *self.jacobian_.shape))

    def noise(self, X):
        return PixelNoise(1 / (X.variance + self.scatter_**2 * (not X.has_errors)))

    def invert(self, X):
        spectra = self._validate_predict(X)
        weights = 1 / self.noise(spectra).variance()
        weighted = weights[:, :, None] * self.jacobian_
        fisher = self.jacobian_.T @ weighted
        right = np.einsum("npk,np->nk", weighted, spectra.flux - self.flux_0_)
        cov = np.linalg.inv(fisher)
        mean = CENTRE + np.einsum("nkl,nl->nk", cov, right)
        dist = MultivariateNormal(mean, cov=cov * self.inflate**2, label_names=self.label_names_in_)
        chi2 = np.sum(weights * (spectra.flux - self.predict_flux(mean)) ** 2, axis=1)
        return SimpleNamespace(
            dist=dist,
            formal_cov=cov,
            model_cov=cov[0] * 0,
            chi2=chi2,
            reduced_chi2=chi2 / (spectra.shape[1] - 2),
            converged=np.ones(len(mean), dtype=bool),
            at_bound=np.zeros(mean.shape, dtype=bool),
            inside_training=np.ones(len(mean), dtype=bool),
        )

    def predict_dist(self, X):
        return self.invert(X).dist


class Failing(LabelRegressor):
    """Falls over in fit."""

    def fit(self, X, y):
        raise RuntimeError("the emulator\nmelted")


@pytest.fixture(scope="session")
def linear_set():
    """Spectra of 400 stars with S/N 20-300, their labels, and the true gradients."""
    rng = np.random.default_rng(1)
    labels = pd.DataFrame(CENTRE + SCALE * rng.uniform(-1, 1, (400, 2)), columns=NAMES)
    jacobian = gradients(60)
    snr = np.exp(rng.uniform(np.log(21), np.log(299), 400))[:, None]
    clean = 1 + (labels.to_numpy() - CENTRE) @ jacobian.T
    flux = clean + rng.normal(size=clean.shape) / snr
    spectra = Spectra(flux, ivar=snr**2, wavelength=np.linspace(5000, 5100, 60))
    return spectra, labels, jacobian


@pytest.fixture
def make_linear():
    return LinearForward


@pytest.fixture
def failing():
    return Failing()


class Emulator:
    """The public data-driven APOGEE network (El-Badry et al. 2018): five sigmoid units per pixel."""

    label_names_in_ = ["teff", "logg", "feh", "mgfe", "vmacro"]
    chip = np.repeat([0, 1, 2], [2920, 2400, 1894])

    def __init__(self, path):
        with np.load(path) as net:
            self.w0, self.b0, self.w1, self.b1 = (
                net[f"{k}_array_{i}"].astype(float) for i in (0, 1) for k in "wb"
            )
            self.low, high = net["x_min"].astype(float), net["x_max"].astype(float)
        self.width = high - self.low

    def _hidden(self, labels):
        z = (labels - self.low) / self.width - 0.5
        return 1 / (1 + np.exp(-np.einsum("jkl,nl->njk", self.w0, z) - self.b0))

    def predict_flux(self, labels):
        return np.einsum("njk,jk->nj", self._hidden(labels), self.w1) + self.b1

    def flux_jacobian(self, labels):
        hidden = self._hidden(labels)
        slope = np.einsum("njk,jk,jkl->njl", hidden * (1 - hidden), self.w1, self.w0)
        return slope / self.width


@pytest.fixture(scope="session")
def emulator():
    path = DATA / "apogee_emulated" / "emulator_datadriven_normalized.npz"
    if not path.exists():
        pytest.skip(f"no {path}: set SKSPEC_DATA")
    return Emulator(path)
