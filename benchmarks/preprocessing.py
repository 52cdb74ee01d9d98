"""asv: Spectra -> Spectra transformers on spectra with structure, errors and bad pixels."""

import numpy as np

from skspec import Spectra
from skspec.preprocessing import (
    BadPixelMasker,
    ContinuumNormalizer,
    Resampler,
    to_rest_frame,
)

METHODS = ("gaussian", "chebyshev", "sincos", "running_median")


def observed(n, P, seed=0):
    """Spectra with a sloping continuum, weak lines, noise and 1 % of bad pixels."""
    rng = np.random.default_rng(seed)
    wavelength = np.geomspace(4000, 6800, P)
    lines = np.clip(1 - 0.3 * rng.gamma(0.3, size=P), 0.1, 1)
    slope = 1 + 0.3 * rng.normal(size=(n, 1)) * np.linspace(-1, 1, P)
    flux = lines * slope + 0.02 * rng.normal(size=(n, P))
    ivar = np.where(rng.random((n, P)) < 0.01, 0.0, 0.02**-2)
    return Spectra(flux, ivar=ivar, wavelength=wavelength)


class Continuum:
    params = [METHODS, [100], [2000, 7000]]
    param_names = ["method", "n", "P"]

    def setup(self, method, n, P):
        self.spectra = observed(n, P)
        self.step = ContinuumNormalizer(method=method).fit(self.spectra)

    def time_transform(self, method, n, P):
        self.step.transform(self.spectra)

    def peakmem_transform(self, method, n, P):
        self.step.transform(self.spectra)


class OtherSteps:
    params = [["Resampler", "BadPixelMasker"], [100], [2000, 7000]]
    param_names = ["step", "n", "P"]

    def setup(self, step, n, P):
        self.spectra = observed(n, P)
        steps = {
            "Resampler": lambda: Resampler(np.linspace(4010, 6790, P // 2)),
            "BadPixelMasker": BadPixelMasker,
        }
        self.step = steps[step]().fit(self.spectra)

    def time_transform(self, step, n, P):
        self.step.transform(self.spectra)


class RestFrame:
    params = [["cubic", "flux_conserving"], [1000], [4000]]
    param_names = ["method", "n", "P"]

    def setup(self, method, n, P):
        self.spectra = observed(n, P)
        self.rv = np.random.default_rng(1).normal(0, 50, n)

    def time_shift(self, method, n, P):
        to_rest_frame(self.spectra, self.rv, method=method)
