"""Smoothing of many spectra at once, blind to bad pixels. Plain arrays in and out."""

from __future__ import annotations

import numpy as np
from sklearn.utils import gen_batches

_BLOCK = 512  # pixels per kernel block: small enough to skip zeros, large enough for BLAS
_WINDOW_VALUES = 4_000_000  # values sorted at once by running_quantile (32 MB)


def gaussian_smooth(flux, weight, coordinate, sigma):
    r"""Weighted Gaussian smoothing, exact on any grid.

    .. math:: \bar f(c) = \frac{\sum_j f_j w_j k(c_j - c)}{\sum_j w_j k(c_j - c)}, \quad
              k(d) = e^{-d^2 / 2\sigma^2}

    with the kernel cut at 5.7 sigma, where it has fallen to 1e-7.

    Parameters
    ----------
    flux, weight : ndarray of shape (n, P)
    coordinate : ndarray of shape (P,), not decreasing
    sigma : float, in units of `coordinate`

    Returns
    -------
    ndarray of shape (n, P)
        NaN where no pixel with weight lies within reach.
    """
    reach = np.sqrt(2 * np.log(1e7)) * sigma
    stacked = np.concatenate([weight * flux, weight])
    out = np.empty(flux.shape)
    for block in gen_batches(len(coordinate), _BLOCK):
        here = coordinate[block]
        band = slice(
            np.searchsorted(coordinate, here[0] - reach, "left"),
            np.searchsorted(coordinate, here[-1] + reach, "right"),
        )
        distance = coordinate[band, None] - here
        kernel = np.exp(-0.5 * (distance / sigma) ** 2)
        kernel[np.abs(distance) > reach] = 0.0
        top, bottom = np.split(stacked[:, band] @ kernel, 2)
        out[:, block] = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
    return out


def running_quantile(flux, good, coordinate, half_width, q=0.5):
    """Quantile `q` of the good pixels within `half_width` of each pixel.

    Taken at knots a quarter of `half_width` apart (at every pixel, where pixels are coarser) and
    interpolated linearly between them.

    Parameters
    ----------
    flux : ndarray of shape (n, P)
    good : ndarray of bool of shape (n, P)
    coordinate : ndarray of shape (P,), not decreasing
    half_width : float, in units of `coordinate`
    q : float
        0.5 for the running median.

    Returns
    -------
    ndarray of shape (n, P)
        NaN where a window holds no good pixel.
    """
    n_pixels = len(coordinate)
    knots = _knots(coordinate, half_width / 4)
    first = np.searchsorted(coordinate, coordinate[knots] - half_width, "left")
    last = np.searchsorted(coordinate, coordinate[knots] + half_width, "right")
    index = first[:, None] + np.arange((last - first).max())
    outside = index >= last[:, None]
    index = np.minimum(index, n_pixels - 1)
    at_knots = np.empty((len(flux), len(knots)))
    for stars in gen_batches(len(flux), max(1, _WINDOW_VALUES // index.size)):
        values = np.where(good[stars], flux[stars], np.inf)[:, index]
        values[:, outside] = np.inf
        at_knots[stars] = _quantile_of_finite(values, q)
    return _interpolate(at_knots, coordinate[knots], coordinate)


def _knots(coordinate, step):
    n_pixels, span = len(coordinate), coordinate[-1] - coordinate[0]
    if span >= step * n_pixels:
        return np.arange(n_pixels)
    wanted = coordinate[0] + step * np.arange(int(span / step) + 1)
    return np.unique(np.append(np.searchsorted(coordinate, wanted), n_pixels - 1))


def _quantile_of_finite(values, q):
    """Quantile along the last axis without the infinite values; NaN where all are. Sorts in place."""
    values.sort(axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    position = q * np.maximum(count - 1, 0)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    lower, upper = (np.take_along_axis(values, at, axis=-1) for at in (low, high))
    with np.errstate(invalid="ignore"):
        out = lower + (position - low) * (upper - lower)
    return np.where(count > 0, out, np.nan)[..., 0]


def _interpolate(values, knots, coordinate):
    """Linear interpolation of (n, K) values to pixels; a NaN knot leaves it to its neighbour."""
    if len(knots) == 1:
        return np.repeat(values, len(coordinate), axis=1)
    right = np.clip(np.searchsorted(knots, coordinate, "right"), 1, len(knots) - 1)
    gap = knots[right] - knots[right - 1]
    fraction = (coordinate - knots[right - 1]) / np.where(gap > 0, gap, 1.0)
    before, after = values[:, right - 1], values[:, right]
    before, after = (
        np.where(np.isnan(before), after, before),
        np.where(np.isnan(after), before, after),
    )
    return before + fraction * (after - before)
