r"""How far a spectrum lies from a set of spectra, in principal components.

With components `V` of variances :math:`v_q`, photon variance :math:`\sigma_j^2` of the spectrum and
scatter :math:`s_j^2` of the set about its components, :math:`w_j = 1 / (\sigma_j^2 + s_j^2)` on good
pixels, the squared Mahalanobis distance from the mean of the set is a sum of two,

.. math:: d^2 = \sum_j w_j (y_j - \mu_j - \hat z V_j)^2 + \sum_q \hat z_q^2 / v_q, \qquad
          \hat z = (V W V^T + \mathrm{diag}(v)^{-1})^{-1} V W (y - \mu):

what the components cannot make (lines of another resolution, another normalisation), and how
unusual a mixture of them it is (a hotter star than any). The first has thousands of degrees of
freedom and would drown the second, so each is measured against spectra that were not used.

The first is measured at several scales of `m` pixels, with
:math:`r = \sqrt w\,(y - \mu - \hat z V)` and 0 or 1 good pixels :math:`g`,

.. math:: d_m^2 = \sum_j \Big(\sum_{i=j}^{j+m-1} r_i\Big)^2 \Big/ \sum_j \sum_{i=j}^{j+m-1} g_i:

noise of neighbours averages out, wrong lines and a wrong continuum do not. What is usual depends on
the star (cool ones are made less well) and on its noise, which hides the rest. So mean and spread of
:math:`\ln d_m` are those of the unseen spectra that are nearest, in the first components and in the
share of the scatter in the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from skspec.solvers.linear.gappy_pca import BATCH, GappyPCA, fit_gappy_pca
from skspec.solvers.linear.weighted_gram import weighted_gram

__all__ = ["SpectrumDomain", "fit_domain"]

LEVEL = 0.99  # of the unseen spectra score below 1
MAX_FITTED = 500  # spectra for the components; with twice as many, the others are the unseen
MAX_UNSEEN = 1000
MIN_SCATTER = 0.01  # of the mean, for pixels that hardly varied
SCALES = (1, 4, 16, 64)  # pixels, at most a quarter of the spectrum
N_PLACE = 3  # components in which a spectrum has its neighbours
NEIGHBOURS = 30
MIN_SPREAD = 0.01  # of the logarithms of their distances
MIN_DISTANCE = 1e-3  # in sigma
MIN_SHARE = 1e-6  # of the scatter in the variance


@dataclass(frozen=True)
class SpectrumDomain:
    """Components of a set of spectra, and how far spectra like them lie from them.

    Attributes
    ----------
    pca : GappyPCA
    scatter : ndarray (P,)
        Variance about the components beyond photon noise; infinite where no pixel was good.
    place : ndarray (m, D)
        Of the unseen spectra, in the first components and in noise.
    logs : ndarray (m, S + 1)
        Logarithms of their distances outside the components, at each scale, and inside.
    limit : ndarray (S + 1,)
        99th percentiles of these, outside in units of the spread of neighbours.
    unit : float
        The 99th percentile of the largest of all.
    """

    pca: GappyPCA
    scatter: np.ndarray
    place: np.ndarray
    logs: np.ndarray
    limit: np.ndarray
    unit: float

    def score(self, flux: np.ndarray, good: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Distance of spectra (n, P), 1 at the 99th percentile; NaN without a good pixel."""
        place, distance = _measure(self.pca, self.scatter, flux, good, variance)
        middle, spread = _usual(place, self.place, self.logs)
        return np.max(distance / np.exp(middle + self.limit * spread), axis=1) / self.unit


def fit_domain(
    flux: np.ndarray,
    good: np.ndarray,
    variance: np.ndarray,
    groups: np.ndarray | None = None,
    n_folds: int = 5,
    random_state: int = 0,
) -> SpectrumDomain:
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
    order = np.random.default_rng(random_state).permutation(n_groups)[groups]
    parts = flux, good, variance
    if n_groups >= 2 * MAX_FITTED:
        pca, scatter = _fit(*_rows(parts, order < MAX_FITTED))
        rest = (order >= MAX_FITTED) & (order < MAX_FITTED + MAX_UNSEEN)
        place, distance = _measure(pca, scatter, *_rows(parts, rest))
        groups = groups[rest]
    else:
        pca, scatter = _fit(*parts)
        place, _ = _measure(pca, scatter, *parts)
        distance = _cross_distances(parts, order % min(n_folds, n_groups))
    known = np.isfinite(distance).all(axis=1)
    return SpectrumDomain(pca, scatter, *_scale(place[known], distance[known], groups[known]))


def _rows(parts, rows):
    return [part[rows] for part in parts]


def _cross_distances(parts, fold):
    """Distances (n, S + 1) of spectra from the components of the other folds."""
    distance = np.full((len(fold), len(_scales(parts[0].shape[1])) + 1), np.nan)
    for k in range(fold.max() + 1):
        if (fold != k).any():
            fitted = _fit(*_rows(parts, fold != k))
            distance[fold == k] = _measure(*fitted, *_rows(parts, fold == k))[1]
    return distance


def _scale(place, distance, groups):
    """Place, logarithms of distances, their limits and the unit, of unseen spectra."""
    logs = np.log(np.maximum(distance, MIN_DISTANCE))
    if not len(logs):
        return place, logs, np.zeros(logs.shape[1]), 1.0
    middle, spread = _usual(place, place, logs, groups)
    relative = (logs - middle) / spread
    limit = np.quantile(relative, LEVEL, axis=0)
    unit = np.exp(np.quantile(np.max((relative - limit) * spread, axis=1), LEVEL))
    return place, logs, limit, float(unit)


def _usual(place, known, logs, groups=None):
    """Mean and spread (n, S + 1) of the logarithms among neighbours; 0 and 1 for the length inside.

    With the stars `groups` of the known spectra, these themselves are looked at: their own star is
    no neighbour.
    """
    middle, spread = np.zeros((len(place), logs.shape[1])), np.ones((len(place), logs.shape[1]))
    own = 0 if groups is None else np.bincount(groups).max()
    k = min(NEIGHBOURS, len(known) - own)
    for rows in _batches(len(place)) if k > 0 else []:
        apart = cdist(place[rows], known)
        if own:
            apart[groups[rows, None] == groups] = np.inf
        near = logs[np.argpartition(apart, k - 1, axis=1)[:, :k], :-1]
        middle[rows, :-1] = near.mean(axis=1)
        spread[rows, :-1] = np.hypot(near.std(axis=1), MIN_SPREAD)
    return middle, spread


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
    least = MIN_SCATTER * max(scatter[good.any(axis=0)].mean(), pca.noise)
    scatter = np.maximum(scatter, least if least > 0 else 1.0)
    return pca, np.where(good.any(axis=0), scatter, np.inf)


def _measure(pca, scatter, flux, good, variance):
    """Places (n, D) of spectra, and their distances (n, S + 1) outside and inside the components."""
    V, n = pca.components, len(flux)
    scales = _scales(len(scatter))
    place, distance = np.zeros((n, N_PLACE + 1)), np.full((n, len(scales) + 1), np.nan)
    for rows in _batches(n):
        known = good[rows] & np.isfinite(scatter)
        weight = np.where(known, 1 / (np.where(known, variance[rows], 1) + scatter), 0)
        y = np.where(known, flux[rows] - pca.mean, 0).astype(float)
        normal = weighted_gram(V, weight) + np.diag(1 / pca.variance)
        z = np.linalg.solve(normal, ((weight * y) @ V.T)[:, :, None])[:, :, 0]
        residual = np.sqrt(weight) * (y - z @ V)
        z /= np.sqrt(pca.variance)
        n_good = np.maximum(known.sum(axis=1), 1)
        share = np.sum(weight * np.where(known, scatter, 0), axis=1) / n_good
        place[rows, : min(N_PLACE, z.shape[1])] = z[:, :N_PLACE]
        place[rows, -1] = np.log(np.maximum(share, MIN_SHARE))
        inside = np.linalg.norm(z, axis=1)
        both = np.stack([*_coherent(residual, known, scales), inside], axis=1)
        distance[rows] = np.where(known.any(axis=1)[:, None], both, np.nan)
    return place, distance


def _coherent(residual, known, scales):
    """Root mean square sums of `m` neighbouring residuals, in units of those of independent ones."""
    total = np.cumsum(np.pad(residual, ((0, 0), (1, 0))), axis=1)
    for m in scales:
        part = total[:, m:] - total[:, :-m]
        n_sums = np.convolve(np.ones(part.shape[1]), np.ones(m))  # in which each pixel is
        yield np.sqrt(np.einsum("ij,ij->i", part, part) / np.maximum(known @ n_sums, 1))


def _scales(n_pixels):
    return [m for m in SCALES if m <= max(n_pixels // 4, 1)]


def _batches(n):
    return [slice(start, start + BATCH) for start in range(0, n, BATCH)]
