r"""Covariance of a model's error between pixels, from residuals of stars that it has not seen.

The errors of a model are coherent: they are described by a few spectra :math:`U` and a variance per
pixel,

.. math:: \langle r_i r_i^T \rangle = U^T U + \mathrm{diag}(s^2) + \mathrm{diag}(\sigma_i^2),

with :math:`\sigma_i^2` the photon noise of star `i`. `U` are the principal components of the residuals
whose variance exceeds what photon noise alone would make of the largest (Marchenko & Pastur 1967), less
its part in them, times a strength below 1: the rest of the variance is left to the pixels, as in the
shrinkage of Ledoit & Wolf (2004).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["ResidualComponents", "ResidualPCA"]

MAX_COMPONENTS = 100
MAX_STARS = 2000  # that the components are found from
STARS_PER_COMPONENT = 4
MIN_REST = 0.05  # of the variance of a pixel, left to it alone


class ResidualComponents(NamedTuple):
    """Low-rank covariance between pixels.

    Attributes
    ----------
    spectra : ndarray of shape (q, P)
        `U`: sums of their products are covariances.
    rest : ndarray of shape (P,)
        Variance :math:`s^2` of each pixel beyond them.
    """

    spectra: np.ndarray
    rest: np.ndarray


class ResidualPCA:
    """Principal components of residuals, of all stars or of some.

    Parameters
    ----------
    residual : ndarray of shape (n, P)
    photon : ndarray of shape (n, P)
        Photon variance; ``inf`` at bad pixels, whose residuals do not count.
    random_state : int
        Chooses the stars, where there are more than 2000.
    """

    def __init__(self, residual: np.ndarray, photon: np.ndarray, random_state: int = 0):
        self._rows = np.arange(len(residual))
        if len(residual) > MAX_STARS:
            rng = np.random.default_rng(random_state)
            self._rows = np.sort(rng.choice(len(residual), MAX_STARS, replace=False))
            residual, photon = residual[self._rows], photon[self._rows]
        good = np.isfinite(photon)
        self._total, weight = _scatter(residual, photon, good)
        known = np.where(good, photon, 0.0)
        level = weight @ good
        noise = weight @ known / np.where(level > 0, level, 1.0)
        variance = self._total + noise
        self._unit = np.sqrt(np.where(variance > 0, variance, 1.0))
        self._n_pixels = int(good.any(axis=0).sum())
        #: share of the photons in the variance that the components are made of
        self._noise = float(np.sum(noise / self._unit**2) / max(self._n_pixels, 1))
        weight = np.sqrt(weight / weight.mean())[:, None]
        self._white = np.where(good, residual, 0.0) * weight / self._unit
        self._gram = self._white @ self._white.T

    def components(
        self, seen: np.ndarray | None = None, strength: float = 1.0
    ) -> ResidualComponents:
        """Components of the residuals of some stars.

        Parameters
        ----------
        seen : ndarray of bool of shape (n,), optional
            Stars to find them from. Default: all.
        strength : float
            Fraction of their variance that is shared between pixels.
        """
        rows = slice(None) if seen is None else seen[self._rows]
        white = self._white[rows]
        n, n_pixels = len(white), self._n_pixels
        value, vector = np.linalg.eigh(self._gram[rows][:, rows] / max(n, 1))
        value, vector = value[::-1], vector[:, ::-1]
        edge = max(self._noise * (1 + np.sqrt(n_pixels / max(n, 1))) ** 2, 1e-12)
        most = min(MAX_COMPONENTS, n // STARS_PER_COMPONENT)
        kept = np.flatnonzero(value[:most] > edge)
        value, vector = value[kept], vector[:, kept]
        size = strength * (value - self._noise * n_pixels / max(n, 1))
        spectra = (vector * np.sqrt(size / (n * value))).T @ white * self._unit
        shared = np.einsum("qp,qp->p", spectra, spectra)
        return ResidualComponents(spectra, np.maximum(self._total - shared, MIN_REST * self._total))


def _scatter(residual, photon, good, n_iter=10):
    """Variance of each pixel beyond photon noise, and weight of each star by its noise."""
    # squares in double precision: those of 1e-17 erg/s/cm2/A are beyond single
    excess = np.where(good, residual, 0.0).astype(float) ** 2 - np.where(good, photon, 0.0)
    known, n_good = np.where(good, photon, 0.0), np.maximum(good.sum(axis=1), 1)
    weight = np.ones(len(excess))
    for _ in range(n_iter):
        level = weight @ good
        total = np.maximum(weight @ excess, 0.0) / np.where(level > 0, level, 1.0)
        typical = total + np.median(known, axis=0)
        ratio = (known + good * total) / np.where(typical > 0, typical, np.inf)
        weight = 1.0 / np.maximum(ratio.sum(axis=1) / n_good, 1.0)
    return total, weight
