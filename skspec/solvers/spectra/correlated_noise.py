"""Information that a spectrum holds when the noise of its pixels is correlated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["autocorrelated", "correlated_information", "residual_correlation"]

TINY = 1e-12  # of the diagonal, so that directions without information can be inverted


def residual_correlation(
    residual: ArrayLike, length: int, order: np.ndarray | None = None
) -> np.ndarray:
    r"""Correlation of residuals `k` pixels apart, tapered so that it makes a true covariance.

    .. math:: \rho_k = \Big(1 - \frac{k}{L + 1}\Big) \frac{\sum_j z_j z_{j+k}}{\sum_j z_j^2},
              \qquad k \le L

    Parameters
    ----------
    residual : ndarray of shape (n, P)
        In units of sigma; 0 at bad pixels.
    length : int
        Longest distance `L` [pixels].
    order : ndarray of int of shape (P,), optional
        Echelle order or chip of each pixel: pixels of two orders are not compared.

    Returns
    -------
    ndarray of shape (n, length + 1)
        First column 1.

    Examples
    --------
    >>> residual_correlation([[1.0, 1.0, -1.0, -1.0]], 1)
    array([[1.   , 0.125]])
    """
    layout, size = _layout(np.shape(residual)[1], length, order)
    power = np.abs(rfft(_laid_out(np.asarray(residual, dtype=float), layout, size), axis=-1)) ** 2
    product = irfft(power, size, axis=-1)[:, : length + 1]
    level = product[:, :1]
    rho = np.divide(product, level, out=np.zeros_like(product), where=level > 0)
    rho[:, 0] = 1.0
    return rho * (1 - np.arange(length + 1) / (length + 1))


def correlated_information(
    jacobian: np.ndarray, residual: np.ndarray, length: int, order: np.ndarray | None = None
) -> np.ndarray:
    r"""Inverse covariance of a least-squares fit that took its pixels to be independent.

    With whitened derivatives :math:`J` and correlations :math:`R` of the residuals, measured on each
    star and taken to depend on the distance of two pixels alone, that fit has the covariance

    .. math:: (J^T J)^{-1}\, J^T R J\, (J^T J)^{-1},

    the heteroscedasticity and autocorrelation consistent estimate of Newey & West (1987,
    Econometrica 55, 703).

    Parameters
    ----------
    jacobian : ndarray of shape (n, M, P)
        Derivatives divided by sigma; 0 at bad pixels. Other parameters projected out.
    residual : ndarray of shape (n, P)
        Divided by sigma; 0 at bad pixels.
    length, order
        As in :func:`residual_correlation`.

    Returns
    -------
    ndarray of shape (n, M, M)
    """
    layout, size = _layout(jacobian.shape[2], length, order)
    power = _power_spectrum(residual, length, order, size)
    weight = np.full(power.shape[-1], 2.0 / size)  # of rfft, in a sum over all frequencies
    weight[0] /= 2
    if size % 2 == 0:
        weight[-1] /= 2
    hat = rfft(_laid_out(jacobian, layout, size), axis=-1)
    weight = weight * power
    spread = ((hat * weight[:, None]) @ np.swapaxes(hat.conj(), 1, 2)).real
    information = jacobian @ np.swapaxes(jacobian, 1, 2)
    diagonal = np.diagonal(spread, axis1=1, axis2=2)
    unit = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    white = information / unit[:, :, None]
    scaled = spread / (unit[:, :, None] * unit[:, None, :]) + TINY * np.eye(spread.shape[1])
    return np.swapaxes(white, 1, 2) @ np.linalg.solve(scaled, white)


def autocorrelated(
    rows: np.ndarray, residual: np.ndarray, length: int, order: np.ndarray | None = None
) -> np.ndarray:
    """Rows (n, M, P) in units of sigma, times the correlation matrix that the residuals show.

    Parameters
    ----------
    rows : ndarray of shape (n, M, P)
    residual, length, order
        As in :func:`correlated_information`.

    Returns
    -------
    ndarray of shape (n, M, P)
    """
    layout, size = _layout(rows.shape[2], length, order)
    power = _power_spectrum(residual, length, order, size)
    hat = rfft(_laid_out(rows, layout, size), axis=-1) * power[:, None]
    return irfft(hat, size, axis=-1)[..., layout]


def _power_spectrum(residual, length, order, size):
    """Of the symmetric correlation (n, F): a Bartlett taper leaves it positive."""
    rho = residual_correlation(residual, length, order)
    return np.maximum(2 * rfft(rho, size, axis=-1).real - 1.0, 0.0)


def _layout(n_pixels, length, order):
    """Place of each pixel, orders `length` apart, and the length of the transforms."""
    place = np.arange(n_pixels)
    if order is not None:
        order = np.asarray(order)
        rank = np.argsort(np.argsort(order, kind="stable"), kind="stable")
        place = rank + length * np.unique(order, return_inverse=True)[1]
    return place, next_fast_len(int(place.max(initial=0)) + 1 + length, real=True)


def _laid_out(values, place, size):
    out = np.zeros((*values.shape[:-1], size))
    out[..., place] = values
    return out
