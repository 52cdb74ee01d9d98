"""Nuisance parameters of a spectrum: their gradient spectra, and the information left by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from scipy.interpolate import CubicSpline

from skspec.solvers.spectra.line_of_sight import C_KMS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "continuum_basis",
    "nuisance_gradients",
    "velocity_derivatives",
]

#: information that rounding alone leaves, as a fraction of what was there
ROUNDING = 1e-12


def velocity_derivatives(
    flux: ArrayLike, wavelength: ArrayLike, order: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""First and second derivative of spectra with respect to velocity, by cubic splines.

    Velocity is :math:`c\ln\lambda` (so that a receding star, whose lines move to longer wavelengths,
    changes by minus the first derivative). Broadening by a narrow Gaussian of variance
    :math:`\sigma^2` adds :math:`\sigma^2 / 2` times the second.

    Parameters
    ----------
    flux : ndarray of shape (n, P)
    wavelength : ndarray of shape (P,)
        In any order [Angstrom].
    order : ndarray of int of shape (P,), optional
        Echelle order or chip of each pixel; no derivative is taken across its edges.

    Returns
    -------
    first, second : ndarray of shape (n, P)
        Per km/s and per (km/s)^2.

    Raises
    ------
    ValueError
        When two pixels of an order have the same wavelength, or one is not positive.
    """
    flux, wavelength = np.asarray(flux, dtype=float), np.asarray(wavelength, dtype=float)
    if not np.all(wavelength > 0):
        raise ValueError("wavelength must be positive.")
    velocity = C_KMS * np.log(wavelength)
    first, second = np.zeros(flux.shape), np.zeros(flux.shape)
    for pixels in _segments(velocity, order):
        if len(pixels) < 2:
            continue
        if not np.all(np.diff(velocity[pixels]) > 0):
            raise ValueError(
                "Two pixels have the same wavelength: give the echelle order of each pixel, "
                "Spectra(order=...)."
            )
        first[:, pixels] = _slope(velocity[pixels], flux[:, pixels])
        # the slope of the slope: of fourth order, the curvature of the spline is of second only
        second[:, pixels] = _slope(velocity[pixels], first[:, pixels])
    return first, second


def _slope(x, values):
    return CubicSpline(x, values, axis=1)(x, 1)


def nuisance_gradients(
    flux: np.ndarray,
    wavelength: np.ndarray | None,
    order: ArrayLike | None = None,
    *,
    rv: bool = False,
    broadening: bool = False,
    polynomials: np.ndarray | None = None,
) -> np.ndarray:
    r"""Derivatives of spectra at rest with respect to everything but labels.

    Parameters
    ----------
    flux : ndarray of shape (n, P)
    wavelength, order
        As in :func:`velocity_derivatives`.
    rv, broadening : bool
        With respect to radial velocity [km/s], and to squared Gaussian width [(km/s)^2].
    polynomials : ndarray of shape (Q, P), optional
        Of a multiplicative continuum.

    Returns
    -------
    ndarray of shape (n, M, P)
        In this order.
    """
    parts = [np.empty((len(flux), 0, flux.shape[1]))]
    if rv or broadening:
        first, second = velocity_derivatives(flux, wavelength, order)
        parts += [-first[:, None]] * bool(rv) + [0.5 * second[:, None]] * bool(broadening)
    if polynomials is not None:
        parts.append(flux[:, None] * polynomials)
    return np.concatenate(parts, axis=1)


def continuum_basis(
    coordinate: ArrayLike, degree: int, order: ArrayLike | None = None
) -> np.ndarray:
    """Chebyshev polynomials of each order, zero outside of it.

    Parameters
    ----------
    coordinate : ndarray of shape (P,)
        Wavelength or pixel number.
    degree : int
    order : ndarray of int of shape (P,), optional
        Echelle order or chip of each pixel; None means that all pixels share a continuum.

    Returns
    -------
    ndarray of shape (Q, P)
        ``Q = (degree + 1) * n_orders``.

    Examples
    --------
    >>> continuum_basis([1.0, 2.0, 3.0, 7.0, 9.0], 1, order=[0, 0, 0, 1, 1])
    array([[ 1.,  1.,  1.,  0.,  0.],
           [-1.,  0.,  1.,  0.,  0.],
           [ 0.,  0.,  0.,  1.,  1.],
           [ 0.,  0.,  0., -1.,  1.]])
    """
    coordinate = np.asarray(coordinate, dtype=float)
    blocks = []
    for pixels in _segments(coordinate, order):
        low, high = coordinate[pixels[0]], coordinate[pixels[-1]]
        x = (2 * coordinate[pixels] - low - high) / (high - low if high > low else 1.0)
        block = np.zeros((degree + 1, len(coordinate)))
        block[:, pixels] = chebvander(x, degree).T
        blocks.append(block)
    return np.vstack(blocks)


def _segments(coordinate, order):
    """Pixels of each order, sorted by their coordinate."""
    if order is None:
        return [np.argsort(coordinate, kind="stable")]
    order = np.asarray(order)
    members = [np.flatnonzero(order == one) for one in np.unique(order)]
    return [m[np.argsort(coordinate[m], kind="stable")] for m in members]
