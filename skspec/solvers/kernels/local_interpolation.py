r"""Labels of a spectrum between those of the templates that are most like it.

With the differences :math:`G_{kl} = \sum_j w_j (y_j - t_{kj})(y_j - t_{lj})` of a star from its
nearest templates and weights :math:`p_k` that fall with the distance, the affine combination

.. math:: a = \arg\min_{\sum_k a_k = 1} \Big\|y - \sum_k a_k t_k\Big\|_w^2
          + \lambda \bar G \sum_k \frac{(a_k - p_k)^2}{m\,p_k}
          \;\propto\; \Big(G + \frac{\lambda \bar G}{m} \mathrm{diag}(p)^{-1}\Big)^{-1} 1,

where :math:`\bar G` is the mean of the diagonal, goes from the local linear interpolation of the
templates (small lambda; Roweis & Saul 2000) to the plain weighted mean (large lambda).
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "affine_weights",
    "best_rows",
    "distance_weights",
    "gram_of_differences",
    "template_chi2",
]

BATCH = 2**24  # numbers of the differences of a batch of stars, 128 MB
MIN_WEIGHT = 1e-6  # weight of a template, relative to the best


def template_chi2(
    flux: np.ndarray, weight: np.ndarray, templates: np.ndarray, *, fit_amplitude: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """chi2 (n, T) of spectra (n, P) against templates (T, P), and the amplitudes (n, T).

    ``sum w y^2 - 2 (w y) T^T + w (T^2)^T``: three matrix products.
    """
    # about a mean spectrum, so that the large terms do not cancel
    centre = 0.0 if fit_amplitude else templates.mean(axis=0)
    flux, templates = flux - centre, templates - centre
    weighted = weight * flux
    own = np.einsum("np,np->n", weighted, flux)[:, None]
    cross, square = weighted @ templates.T, weight @ (templates * templates).T
    if not fit_amplitude:
        return np.maximum(own - 2 * cross + square, 0), np.ones_like(cross)
    amplitude = cross / np.where(square > 0, square, 1)
    return np.maximum(own - amplitude * cross, 0), amplitude


def best_rows(chi2: np.ndarray, n_best: int) -> np.ndarray:
    """Columns (n, m) of the lowest chi2 of each row, best first."""
    rows = np.argpartition(chi2, n_best - 1, axis=1)[:, :n_best]
    order = np.argsort(np.take_along_axis(chi2, rows, axis=1), axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)


def distance_weights(chi2: np.ndarray, kind: str) -> np.ndarray:
    """Weights (n, m), of sum 1, of templates of ascending chi2.

    "exp": ``exp(-(chi2 - lowest) / 2T)`` with the temperature at which the last has ``exp(-2)``;
    "1/chi2": as it says.
    """
    lowest, highest = chi2[:, :1], chi2[:, -1:]
    if kind == "exp":
        span = np.where(highest > lowest, highest - lowest, 1)
        weight = np.exp(-2 * (chi2 - lowest) / span)
    else:
        weight = np.where(lowest > 0, lowest, MIN_WEIGHT) / np.maximum(
            chi2, np.where(lowest > 0, lowest, MIN_WEIGHT)
        )
    weight = np.maximum(weight, MIN_WEIGHT)
    return weight / weight.sum(axis=1, keepdims=True)


def gram_of_differences(
    flux: np.ndarray, weight: np.ndarray, templates: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Weighted products (n, m, m) of the differences of spectra from ``templates[rows]``."""
    n, m = rows.shape
    gram = np.empty((n, m, m))
    step = max(1, BATCH // (m * flux.shape[1]))
    for start in range(0, n, step):
        part = slice(start, start + step)
        difference = flux[part, None, :] - templates[rows[part]]
        difference *= np.sqrt(weight[part])[:, None, :]
        gram[part] = difference @ np.swapaxes(difference, 1, 2)
    return gram


def affine_weights(gram: np.ndarray, prior: np.ndarray, smoothing: np.ndarray) -> np.ndarray:
    """Weights `a` (n, m) of sum 1; `prior` (n, m) are the weights of the plain mean."""
    m = prior.shape[1]
    level = np.trace(gram, axis1=1, axis2=2)[:, None] / m
    level = np.where(level > 0, level, 1)
    ridge = np.maximum(smoothing, 1e-9) * level / (m * prior)
    matrix = gram + ridge[:, :, None] * np.eye(m)
    # symmetric scaling: the ridge of far templates is larger by orders of magnitude
    scale = 1 / np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    matrix *= scale[:, :, None] * scale[:, None, :]
    a = scale * np.linalg.solve(matrix, scale[:, :, None])[:, :, 0]
    return a / a.sum(axis=1, keepdims=True)
