r"""Straight lines between two sets of spectra, pixel by pixel, and their shrinkage.

Every quantity comes with the variance of its estimate. Photon noise of known variance is told from the
rest: with :math:`\sigma_{ij}` of photons and an intrinsic variance :math:`V_j`, a star has weight
:math:`w_{ij} = u_i / (V_j + \sigma_{ij}^2)`, and the moments are taken by turns with the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Lines", "Moments", "pixel_moments", "shrink", "straight_lines"]

N_TURNS = 5  # of weights and moments
MIN_VARIANCE = 1e-12  # of the mean square of a pixel: the weight of noiseless stars stays finite
MIN_SIGNAL = 1e-3  # of the variance of x that is not noise: below, no slope is known


class Moments(NamedTuple):
    """Mean and intrinsic variance of P pixels, and the variances of both estimates."""

    mean: np.ndarray
    mean_error2: np.ndarray
    variance: np.ndarray
    variance_error2: np.ndarray


class Lines(NamedTuple):
    """Lines ``y = centre + offset + slope * (x - centre)`` of P pixels."""

    centre: np.ndarray
    offset: np.ndarray
    offset_error2: np.ndarray
    slope: np.ndarray
    slope_error2: np.ndarray
    scatter2: np.ndarray


def shrink(
    estimate: np.ndarray, variance: np.ndarray, n_iter: int = 500, tol: float = 1e-6
) -> tuple[np.ndarray, float]:
    r"""Many estimates drawn towards zero, as far as their own distribution says (empirical Bayes).

    With :math:`d_j \sim N(\delta_j, v_j)` and :math:`\delta_j \sim \sum_k \pi_k N(0, \tau_k^2)`,

    .. math:: \hat\delta_j = d_j \sum_k r_{jk}\, \frac{\tau_k^2}{\tau_k^2 + v_j}, \qquad
              r_{jk} \propto \pi_k\, N(d_j; 0, \tau_k^2 + v_j),

    over a grid of :math:`\tau_k` that starts with 0; :math:`\pi_k` by expectation-maximisation (Stephens
    2017, Biostatistics 18, 275). A few large ones among many that are nil are hardly shrunk, as those of
    one Gaussian would be.

    Parameters
    ----------
    estimate, variance : ndarray of shape (P,)
        Estimates and their variances; infinite where nothing is known, 0 where there is no error.
    n_iter : int
    tol : float
        Change of the mixing weights at which to stop.

    Returns
    -------
    shrunk : ndarray of shape (P,)
        0 where nothing is known.
    tau2 : float
        :math:`\sum_k \pi_k \tau_k^2`, variance of the true values.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.spectra.pixel_correction import shrink
    >>> rng = np.random.default_rng(0)
    >>> delta = np.where(np.arange(500) < 5, 10.0, 0.0)
    >>> shrunk, _ = shrink(delta + rng.normal(size=500), np.ones(500))
    >>> shrunk[:5].round(), bool(np.abs(shrunk[5:]).mean() < 0.05)
    (array([10., 10., 10., 10.,  9.]), True)
    """
    known = np.isfinite(variance) & np.isfinite(estimate)
    shrunk = np.where(known, estimate, 0.0)
    uncertain = known & (variance > 0)
    d, v = estimate[uncertain], variance[uncertain]
    if not d.any():
        return shrunk, float(np.mean(shrunk[known] ** 2)) if known.any() else 0.0
    tau2 = _grid(d, v)
    total = tau2 + v[:, None]
    density = np.log(total) + d[:, None] ** 2 / total
    density = np.exp(-0.5 * (density - density.min(axis=1, keepdims=True)))
    share = np.full(len(tau2), 1 / len(tau2))
    for _ in range(n_iter):
        member = share * density
        member /= member.sum(axis=1, keepdims=True)
        old, share = share, member.mean(axis=0)
        if np.abs(share - old).max() < tol:
            break
    shrunk[uncertain] = d * np.sum(member * tau2 / total, axis=1)
    return shrunk, float(share @ tau2)


def _grid(d, v):
    """Variances of the prior: 0, and steps of two from well below the errors to above all estimates."""
    low, high = 0.1 * np.sqrt(v.min()), 2 * np.abs(d).max()
    n = max(int(np.ceil(np.log2(high / low))), 0) + 1
    return np.concatenate([[0.0], (high * 0.5 ** np.arange(min(n, 30))) ** 2])


def pixel_moments(
    flux: np.ndarray, good: np.ndarray, noise: np.ndarray, weight: np.ndarray
) -> Moments:
    """Mean and intrinsic variance of each pixel, and the variances of both estimates.

    Parameters
    ----------
    flux : ndarray (n, P)
        Anything where not good.
    good : ndarray (n, P) of bool
    noise : ndarray (n, P)
        Variance of the flux where good; 0 where unknown.
    weight : ndarray (n,)
        Of the stars, such as those that match the labels of two sets.

    Returns
    -------
    Moments
        The variance has the noise taken off, and can be negative where noise is all there is. The
        variances of estimates are infinite where fewer than 3 stars are good.
    """
    x, noise, u, least, known = _prepare(flux, good, noise, weight)
    V = least
    for _ in range(N_TURNS):
        w = u / (np.maximum(V, least) + noise)
        share = w / np.where(known, w.sum(axis=0), 1)
        mean = np.sum(share * x, axis=0)
        e = (x - mean) ** 2
        bessel = 1 - np.sum(share**2, axis=0)
        V = np.sum(share * e, axis=0) / np.where(known, bessel, 1) - np.sum(share * noise, axis=0)
    mean_error2 = np.sum(share**2 * (np.maximum(V, 0) + noise), axis=0)
    error2 = np.sum(share**2 * (e - noise - V) ** 2, axis=0)
    return Moments(mean, np.where(known, mean_error2, np.inf), V, np.where(known, error2, np.inf))


def straight_lines(
    x: np.ndarray,
    y: np.ndarray,
    good: np.ndarray,
    x_noise: np.ndarray,
    y_noise: np.ndarray,
    weight: np.ndarray,
    *,
    slope: bool = True,
    offset: bool = True,
) -> Lines:
    """Line of each pixel through pairs with noise in both, weighted least squares with scatter.

    Parameters
    ----------
    x, y : ndarray (n, P)
        Anything where not good.
    good : ndarray (n, P) of bool
        In both.
    x_noise, y_noise : ndarray (n, P)
        Variances where good; 0 where unknown.
    weight : ndarray (n,)
    slope, offset : bool
        Whether the slope is free (else 1) and whether the line may miss the origin (else the centre
        is the origin).

    Returns
    -------
    Lines
        The centre is the mean of `x`, where offset and slope have independent errors. The noise of `x`
        is taken off its variance, lest it flatten the slope. Variances are infinite where nothing is
        known: fewer than 3 stars, or nothing but noise in `x`. The scatter (variance) is what the line
        and the noise leave.
    """
    x, x_noise, u, least, known = _prepare(x, good, x_noise, weight)
    y, y_noise, *_ = _prepare(y, good, y_noise, weight)
    n = np.count_nonzero(u, axis=0)
    lost = n / np.maximum(n - slope - offset, 1)
    b, s2 = np.ones(x.shape[1]), least
    b_error2, d_error2 = np.zeros_like(b), np.zeros_like(b)
    for _ in range(N_TURNS):
        noise = y_noise + b**2 * x_noise
        total = np.maximum(s2, least) + noise
        w = u / total
        share = w / np.where(known, w.sum(axis=0), 1)
        centre, mean = np.sum(share * x, axis=0) * offset, np.sum(share * y, axis=0) * offset
        dx, dy = x - centre, y - mean
        if slope:
            raw = np.sum(share * dx**2, axis=0)
            signal = raw - np.sum(share * x_noise, axis=0)
            some = known & (signal > MIN_SIGNAL * raw)
            signal = np.where(some, signal, 1)
            b = np.where(some, np.sum(share * dx * dy, axis=0) / signal, 1.0)
            b_error2 = np.sum(share**2 * total * dx**2, axis=0) / signal**2
            b_error2 = np.where(some, b_error2, np.inf)
        s2 = lost * np.sum(share * (dy - b * dx) ** 2, axis=0) - np.sum(share * noise, axis=0)
    if offset:
        d_error2 = np.where(known, np.sum(share**2 * total, axis=0), np.inf)
    scatter2 = np.where(known, np.maximum(s2, 0), np.nan)
    return Lines(centre, mean - centre, d_error2, b, b_error2, scatter2)


def _prepare(flux, good, noise, weight):
    """Flux and noise without garbage, weights (n, P), least variance, and pixels that 3 stars know."""
    x = np.where(good, flux, 0.0).astype(float)
    u = np.where(good, weight[:, None], 0.0)
    count = np.count_nonzero(u, axis=0)
    least = MIN_VARIANCE * np.sum(x**2, axis=0) / np.maximum(count, 1)
    return x, np.where(good, noise, 0.0), u, np.where(least > 0, least, 1.0), count >= 3
