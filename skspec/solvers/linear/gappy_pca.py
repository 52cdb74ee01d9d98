r"""Principal components of spectra with holes, and what they expect in the holes.

A spectrum is :math:`y = \mu + z V + \epsilon` with :math:`z_q \sim N(0, v_q)` and
:math:`\epsilon \sim N(0, \sigma^2)`. Its good pixels give

.. math:: \hat z = (V_g V_g^T + \sigma^2 \mathrm{diag}(v)^{-1})^{-1} V_g (y_g - \mu_g),

and :math:`\mu + \hat z V` fills the bad ones. The components come from the filled spectra, again and
again (probabilistic PCA by expectation-maximisation, less its covariances).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec.solvers.linear.weighted_gram import weighted_gram

__all__ = ["GappyPCA", "fit_gappy_pca"]

BATCH = 256  # stars whose normal matrices are made together


@dataclass(frozen=True)
class GappyPCA:
    """Mean and components of spectra.

    Attributes
    ----------
    mean : ndarray (P,)
    components : ndarray (q, P)
        Orthonormal rows.
    variance : ndarray (q,)
        Of the spectra along each.
    noise : float
        Variance of what is left, per pixel.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    noise: float

    def fill(self, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
        """Flux (n, P) in double precision, with what is expected where it is not good."""
        flux = np.where(good, flux, self.mean).astype(float)
        holes = np.flatnonzero(~good.all(axis=1))
        for start in range(0, len(holes), BATCH):
            rows = holes[start : start + BATCH]
            expected = self._expected(flux[rows], good[rows])
            flux[rows] = np.where(good[rows], flux[rows], expected)
        return flux

    def _expected(self, flux, good):
        V = self.components
        normal = weighted_gram(V, good.astype(float)) + np.diag(self.noise / self.variance)
        right = np.where(good, flux - self.mean, 0) @ V.T
        return self.mean + np.linalg.solve(normal, right[:, :, None])[:, :, 0] @ V


def fit_gappy_pca(
    flux: np.ndarray,
    good: np.ndarray,
    n_components: int = 20,
    n_iter: int = 4,
    weight: np.ndarray | None = None,
) -> GappyPCA:
    """Principal components of spectra with bad pixels.

    Parameters
    ----------
    flux : ndarray (n, P)
        Anything where not good.
    good : ndarray (n, P) of bool
    n_components : int
        At most; never more than a third of the stars.
    n_iter : int
        Rounds of filling, if anything is to be filled.
    weight : ndarray (n,), optional
        Of each star in mean and variances; default: all alike.
    """
    weight = np.ones(len(flux)) if weight is None else weight / np.mean(weight)
    count = good.sum(axis=0)
    share = weight @ good
    mean = weight @ np.where(good, flux, 0).astype(float) / np.where(count > 0, share, 1)
    q = max(1, min(n_components, len(flux) // 3))
    model = GappyPCA(mean, np.zeros((0, len(mean))), np.zeros(0), 0.0)
    rounds = 1 if good.all() else n_iter
    for _ in range(rounds):
        filled = model.fill(flux, good)
        mean = weight @ filled / len(filled)
        model = _components(filled, mean, weight, q, np.count_nonzero(count))
    return model


def _components(flux, mean, weight, q, n_pixels):
    offset = np.sqrt(weight)[:, None] * (flux - mean)
    total = np.sum(offset**2) / len(flux)
    small = len(offset) <= offset.shape[1]
    square = offset @ offset.T if small else offset.T @ offset
    value, vector = np.linalg.eigh(square)
    value, vector = value[::-1][:q], vector[:, ::-1][:, :q]
    keep = value > 1e-12 * max(value[0], np.finfo(float).tiny)
    value, vector = value[keep], vector[:, keep]
    V = (vector.T @ offset) / np.sqrt(value)[:, None] if small else vector.T
    V = np.where(offset.any(axis=0), V, 0.0)  # dead pixels hold exactly the mean
    variance = value / len(flux)
    noise = max(total - variance.sum(), 1e-9 * total) / n_pixels
    return GappyPCA(mean, V, variance, float(noise))
