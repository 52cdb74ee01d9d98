r"""How far a spectrum lies from a set of spectra, in principal components.

With components `V` of variances :math:`v_q`, photon variance :math:`\sigma_j^2` of the spectrum and
scatter :math:`s_j^2` of the set about its components, :math:`w_j = 1 / (\sigma_j^2 + s_j^2)` on good
pixels, the squared Mahalanobis distance from the mean of the set is a sum of two,

.. math:: d^2 = \sum_j w_j (y_j - \mu_j - \hat z V_j)^2 + \sum_q \hat z_q^2 / v_q, \qquad
          \hat z = (V W V^T + \mathrm{diag}(v)^{-1})^{-1} V W (y - \mu):

what the components cannot make (lines of another resolution, another normalisation), and how
unusual a mixture of them it is (a hotter star than any). The first has thousands of degrees of
freedom and would drown the second, so each is measured against spectra that were not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec.solvers.gappy_pca import BATCH, GappyPCA, fit_gappy_pca

__all__ = ["SpectrumDomain", "fit_domain"]

LEVEL = 0.99  # of the unseen spectra score below 1
MOST_FITTED = 500  # spectra for the components; with twice as many, the others are the unseen
LEAST_SCATTER = 0.01  # of the mean, for pixels that hardly varied


@dataclass(frozen=True)
class SpectrumDomain:
    """Components of a set of spectra, and how far spectra like them lie from them.

    Attributes
    ----------
    pca : GappyPCA
    scatter : ndarray (P,)
        Variance about the components beyond photon noise; infinite where no pixel was good.
    limit : ndarray (2,)
        Usual distances outside and inside the components.
    unit : float
        The 99th percentile of the larger of both.
    """

    pca: GappyPCA
    scatter: np.ndarray
    limit: np.ndarray
    unit: float

    def score(self, flux, good, variance):
        """Distance of spectra (n, P), 1 at the 99th percentile; NaN without a good pixel."""
        distance = _distances(self.pca, self.scatter, flux, good, variance)
        return np.max(distance / self.limit, axis=1) / self.unit


def fit_domain(flux, good, variance, groups=None, n_folds=5, random_state=0) -> SpectrumDomain:
    """Domain of a set of spectra, its scale set by spectra that the components have not seen.

    Parameters
    ----------
    flux : ndarray (n, P)
        Anything where not good.
    good : ndarray (n, P) of bool
    variance : ndarray (n, P)
        Of photons; 0 where unknown.
    groups : ndarray (n,) of int, optional
        Star of each spectrum: those of a star are seen, or not, together.
    n_folds : int
        Of small sets; of large ones, some stars make the components and others the scale.
    random_state : int
        Seed of the choice.
    """
    groups = np.arange(len(flux)) if groups is None else groups
    n_groups = groups.max() + 1
    place = np.random.default_rng(random_state).permutation(n_groups)[groups]
    large = n_groups >= 2 * MOST_FITTED
    if large:  # seen, unseen
        splits = [(place < MOST_FITTED, (place >= MOST_FITTED) & (place < 2 * MOST_FITTED))]
    else:
        n_folds = min(n_folds, n_groups) if n_groups > 1 else 0
        splits = [(place % n_folds != fold, place % n_folds == fold) for fold in range(n_folds)]
    unseen = [np.empty((0, 2))]
    for seen, rest in splits:
        fitted = _fit(flux[seen], good[seen], variance[seen])
        unseen.append(_distances(*fitted, flux[rest], good[rest], variance[rest]))
    pca, scatter = fitted if large else _fit(flux, good, variance)
    distance = np.concatenate(unseen)
    distance = distance[np.isfinite(distance).all(axis=1)]
    limit = _positive(_level(distance)) if len(distance) else np.ones(2)
    unit = _level(np.max(distance / limit, axis=1)) if len(distance) else 1.0
    return SpectrumDomain(pca, scatter, limit, float(_positive(unit)))


def _level(distance):
    return np.quantile(distance, LEVEL, axis=0)


def _positive(values):
    return np.where(values > 0, values, 1.0)


def _fit(flux, good, variance):
    """Components, and the variance about them of each pixel, both mainly of the better spectra."""
    photons = np.sum(np.where(good, variance, 0), axis=1) / np.maximum(good.sum(axis=1), 1)
    usual = np.median(photons)
    weight = usual / (usual + photons) if usual > 0 else np.ones(len(flux))
    pca = fit_gappy_pca(flux, good, weight=weight)
    share, total = weight @ good, np.zeros(flux.shape[1])
    for rows in _batches(len(flux)):
        residual, known = flux[rows] - pca.mean, good[rows]
        residual = np.where(known, residual, 0).astype(float)
        filled = pca.fill(flux[rows], known) - pca.mean
        residual -= np.where(known, (filled @ pca.components.T) @ pca.components, 0)
        total += weight[rows] @ (residual**2 - np.where(known, variance[rows], 0))
    scatter = np.maximum(total / np.where(share > 0, share, 1), 0)
    least = LEAST_SCATTER * max(scatter[good.any(axis=0)].mean(), pca.noise)
    scatter = np.maximum(scatter, least if least > 0 else 1.0)
    return pca, np.where(good.any(axis=0), scatter, np.inf)


def _distances(pca, scatter, flux, good, variance):
    """Root mean square residual in sigma, and length in the components (n, 2)."""
    V, q = pca.components, len(pca.components)
    pairs = (V[:, None] * V[None]).reshape(q * q, V.shape[1])
    out = np.full((len(flux), 2), np.nan)
    for rows in _batches(len(flux)):
        known = good[rows] & np.isfinite(scatter)
        weight = np.where(known, 1 / (np.where(known, variance[rows], 1) + scatter), 0)
        y = np.where(known, flux[rows] - pca.mean, 0).astype(float)
        normal = (weight @ pairs.T).reshape(len(y), q, q) + np.diag(1 / pca.variance)
        z = np.linalg.solve(normal, ((weight * y) @ V.T)[:, :, None])[:, :, 0]
        chi2 = np.sum(weight * (y - z @ V) ** 2, axis=1)
        n_good = known.sum(axis=1)
        length = np.sqrt(np.sum(z**2 / pca.variance, axis=1))
        distance = np.stack([np.sqrt(chi2 / np.maximum(n_good, 1)), length], axis=1)
        out[rows] = np.where(n_good[:, None] > 0, distance, np.nan)
    return out


def _batches(n):
    return [slice(start, start + BATCH) for start in range(0, n, BATCH)]
