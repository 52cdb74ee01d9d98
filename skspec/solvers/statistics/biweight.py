r"""Mean of a few values of unequal and correlated errors, that outliers do not move."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

__all__ = ["best_weights", "biweight_location"]

N_SIGMA = 4.0  # six median absolute deviations, as is usual
CLIP = 3.0  # robust standard deviations, beyond which an error counts as that


def best_weights(errors: np.ndarray, least: float = 0.0) -> np.ndarray:
    r"""Weights :math:`w \ge 0` of sum 1 and least :math:`w^T C w`.

    With non-negative least squares: on :math:`C = L L^T`, `w` is proportional to the minimum of
    :math:`|L^T x - L^{-1} 1|` over :math:`x \ge 0`.

    Parameters
    ----------
    errors : ndarray of shape (M, n)
        Of M methods on the same n stars; `C` are their second moments. Clipped at three robust
        standard deviations.
    least : float
        No weight is smaller.

    Returns
    -------
    ndarray of shape (M,)
    """
    limit = CLIP * 1.4826 * np.median(np.abs(errors), axis=1, keepdims=True)
    errors = np.clip(errors, -limit, limit)
    C = errors @ errors.T / errors.shape[1]
    unit = np.mean(np.diag(C))
    if not unit > 0:
        return np.full(len(C), 1 / len(C))
    L = np.linalg.cholesky(C / unit + 1e-6 * np.eye(len(C)))
    weight = nnls(L.T, np.linalg.solve(L, np.ones(len(C))))[0]
    weight = np.maximum(weight / weight.sum(), least)
    return weight / weight.sum()


def biweight_location(
    values: np.ndarray, scale: np.ndarray, weight: np.ndarray, *, n_iter: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    r"""Location along the first axis, and the weights that make it.

    From the median on, :math:`x = \sum_m w_m b_m x_m / \sum_m w_m b_m` with
    :math:`b_m = (1 - u_m^2)_+^2`, :math:`u_m = (x_m - x) / 4 s_m`. Where all values are outliers of
    one another, there is none and b is 1.

    Parameters
    ----------
    values, scale, weight : ndarray of shape (M, ...)
        Values, the standard deviations `s` of those that agree, and weights `w`, 0 for values that
        are not to be used and may be NaN.

    Returns
    -------
    location : ndarray of shape (...)
        NaN where no value may be used.
    share : ndarray of shape (M, ...)
        Weights of sum 1; 0 where no value may be used.
    """
    used = weight > 0
    some = used.any(axis=0)
    values = np.where(used, values, 0.0)
    unused = np.where(used, values, np.inf)
    order, count = np.sort(unused, axis=0), used.sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    middle = [
        np.take_along_axis(order, at[None], axis=0)[0]
        for at in (low, np.minimum(high, len(values) - 1))
    ]
    location = np.where(some, 0.5 * (middle[0] + np.where(count > 1, middle[1], middle[0])), 0.0)
    share = np.zeros_like(values)
    for _ in range(n_iter):
        u = (values - location) / (N_SIGMA * scale)
        bell = np.maximum(1 - u * u, 0) ** 2
        share = weight * bell
        share = np.where(share.sum(axis=0) > 0, share, weight)
        share = share / np.where(some, share.sum(axis=0), 1)
        location = np.sum(share * values, axis=0)
    return np.where(some, location, np.nan), share
