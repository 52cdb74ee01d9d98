"""What a translator sees of spectra: some components of them, or all their pixels."""

from __future__ import annotations

import numpy as np

from skspec.networks import FluxScaler
from skspec.solvers.linear.component_projection import project
from skspec.solvers.linear.gappy_pca import fit_gappy_pca
from skspec.spectra import concatenate

__all__ = ["ComponentSpace", "PixelSpace"]

MAX_STARS = 1000  # of each domain, to learn components or scales from
BATCH = 1024  # stars at once


class ComponentSpace:
    """Principal components of both domains together: linear, so that distances need no pixels.

    Parameters
    ----------
    synthetic, observed : Spectra
    rng : RandomState
        Of the stars that components are learned from, where there are many.
    n_components : int
    error_floor : float
        Smallest error of a pixel in distances.

    Attributes
    ----------
    mean : ndarray of shape (P,)
    components : ndarray of shape (q, P)
        Of standard deviation 1 over the stars.
    """

    def __init__(self, synthetic, observed, rng, n_components, error_floor):
        some = _some(synthetic, observed, rng)
        pool = concatenate(some)
        self.error_floor = error_floor
        self.pixels = pool.good.any(axis=0)
        unit = _noise_shape(observed, self.pixels)
        flux, good = pool.flux[:, self.pixels] / unit, pool.good[:, self.pixels]
        weight = np.concatenate([_precision(part, unit, self.pixels) for part in some])
        pca = fit_gappy_pca(flux, good, n_components, weight=weight)
        self.mean, self.components = pca.mean * unit, pca.components * unit
        scale = np.sqrt(pca.variance)[:, None]
        self.components = self.components * scale

    def arrays(self, spectra):
        """Components, metric and noise factors of spectra, in float32."""
        return _joined(spectra, self._arrays)

    def _arrays(self, spectra, noisy):
        flux = np.asarray(spectra.flux, dtype=float)[:, self.pixels]
        good = spectra.good[:, self.pixels]
        variance = np.where(good, spectra.variance[:, self.pixels], np.inf)
        error2 = np.maximum(variance, self.error_floor**2)
        prior = np.ones(len(self.components))
        coef, gram, noise = project(
            np.where(good, flux - self.mean, 0.0),
            error2,
            np.where(good, variance, 0.0) if noisy else None,
            self.components,
            prior,
        )
        gram /= len(self.components)
        return tuple(None if a is None else a.astype(np.float32) for a in (coef, gram, noise))

    def flux(self, x):
        """Spectra (n, P) of components; NaN at pixels that were bad in all training stars."""
        out = np.full((len(x), len(self.pixels)), np.nan)
        out[:, self.pixels] = self.mean + np.asarray(x, dtype=float) @ self.components
        return out


class PixelSpace:
    """Standardised pixels.

    Parameters
    ----------
    synthetic, observed : Spectra
    rng : RandomState
        Of the stars that means and scales are learned from, where there are many.
    error_floor : float
    """

    def __init__(self, synthetic, observed, rng, error_floor):
        pool = concatenate(_some(synthetic, observed, rng))
        self.scaler, self.error_floor = FluxScaler(pool, rng), error_floor
        self.pixels = self.scaler.pixels

    def arrays(self, spectra):
        """Pixels, metric and noise factors of spectra, in float32."""
        return _joined(spectra, self._arrays)

    def _arrays(self, spectra, noisy):
        scaler, n = self.scaler, len(spectra)
        x = scaler.tensor(spectra)[:, : scaler.shape[1]].reshape(n, -1)
        used = spectra[:, self.pixels]
        variance = np.where(used.good, used.variance, 0.0)
        weight = used.good * scaler.scale**2 / np.maximum(variance, self.error_floor**2)
        weight /= np.maximum(used.good.sum(axis=1), 1)[:, None]
        noise = None
        if noisy:
            noise = scaler.image(np.sqrt(variance) / scaler.scale).reshape(n, -1)
        return x, scaler.image(weight).reshape(n, -1), noise

    def flux(self, x):
        out = np.full((len(x), len(self.pixels)), np.nan)
        out[:, self.pixels] = self.scaler.flux(np.asarray(x, dtype=float))
        return out


def _some(synthetic, observed, rng):
    """Not too many stars of both domains."""
    return [
        part[rng.permutation(len(part))[:MAX_STARS]].replace(meta={})
        for part in (synthetic, observed)
    ]


def _joined(spectra, function):
    """Arrays of all stars: double precision is taken of a batch at a time."""
    noisy = spectra.has_errors
    parts = [function(spectra[k : k + BATCH], noisy) for k in range(0, len(spectra), BATCH)]
    return tuple(None if some[0] is None else np.concatenate(some) for some in zip(*parts))


def _noise_shape(spectra, pixels):
    """Typical error of each pixel, in units of the median pixel."""
    if not spectra.has_errors:
        return np.ones(int(pixels.sum()))
    variance = spectra.mean_variance[pixels]
    variance = np.where(variance > 0, variance, np.median(variance[variance > 0]))
    return np.sqrt(variance / np.median(variance))


def _precision(spectra, unit, pixels):
    """Weight of each star in the components: less for noisier ones, none for blind ones."""
    seen = spectra.good.any(axis=1)
    if not spectra.has_errors:
        return seen.astype(float)
    variance = spectra.variance[:, pixels] / unit**2
    known = np.isfinite(variance)
    noise2 = np.sum(variance, axis=1, where=known) / np.maximum(known.sum(axis=1), 1)
    return seen / (1.0 + noise2 / np.median(noise2[noise2 > 0]))  # 0 where it is not known
