"""Nuisance parameters of a spectrum: their gradient spectra, and the information left by them."""

from __future__ import annotations

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from scipy.interpolate import CubicSpline

from skspec.solvers.spectra.line_of_sight import C_KMS

__all__ = [
    "Continuum",
    "continuum_basis",
    "inverse_information",
    "marginal_information",
    "nuisance_gradients",
    "velocity_derivatives",
]

#: information that rounding alone leaves, as a fraction of what was there
ROUNDING = 1e-12


def velocity_derivatives(flux, wavelength, order=None):
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
    flux, wavelength, order=None, *, rv=False, broadening=False, polynomials=None
):
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


def continuum_basis(coordinate, degree: int, order=None) -> np.ndarray:
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


class Continuum:
    """Multiplicative polynomials, solved for all stars at once.

    Parameters
    ----------
    coordinate, degree, order
        As in :func:`continuum_basis`.

    Attributes
    ----------
    polynomials : ndarray of shape (Q, P)
    """

    def __init__(self, coordinate, degree: int, order=None):
        self.polynomials = continuum_basis(coordinate, degree, order)
        first, second = np.tril_indices(len(self.polynomials))
        present = (self.polynomials != 0).astype(float)
        meet = (present @ present.T)[first, second] > 0  # orders apart have nothing in common
        self._pairs = first[meet], second[meet]
        self._products = self.polynomials[first[meet]] * self.polynomials[second[meet]]

    def solve(self, model, flux, weight):
        r"""Coefficients with which the model comes closest to the flux.

        Minimises :math:`\sum_j w_j (y_j - m_j \sum_q c_q T_q(\lambda_j))^2`.

        Parameters
        ----------
        model : ndarray of shape (n, P) or (P,)
        flux, weight : ndarray of shape (n, P)

        Returns
        -------
        coef : ndarray of shape (n, Q)
            0 for an order without a good pixel.
        normal : ndarray of shape (n, Q, Q)
        """
        weighted = weight * np.asarray(model, dtype=float)
        normal = self._normal(weighted, model)
        right = (weighted * flux) @ self.polynomials.T
        return np.linalg.solve(normal, right[..., None])[..., 0], normal

    def project_out(self, rows, model):
        """What is left of rows (n, M, P) that no polynomial times the model (n, P) can imitate.

        Both in units of the noise.
        """
        right = (rows * model[:, None]) @ self.polynomials.T
        coef = np.linalg.solve(self._normal(model, model), np.swapaxes(right, 1, 2))
        return rows - (np.swapaxes(coef, 1, 2) @ self.polynomials) * model[:, None]

    def _normal(self, weighted, model):
        """Normal matrices (n, Q, Q) of the coefficients."""
        size = len(self.polynomials)
        normal = np.zeros((len(weighted), size, size))
        first, second = self._pairs
        normal[:, first, second] = (weighted * model) @ self._products.T
        normal[:, second, first] = normal[:, first, second]
        diagonal = np.diagonal(normal, axis1=1, axis2=2)
        least = ROUNDING * diagonal.max(axis=1, keepdims=True, initial=0.0)
        ridge = np.where(diagonal > least, ROUNDING * diagonal, 1.0)
        normal[:, np.arange(size), np.arange(size)] += ridge
        return normal


def _segments(coordinate, order):
    """Pixels of each order, sorted by their coordinate."""
    if order is None:
        return [np.argsort(coordinate, kind="stable")]
    order = np.asarray(order)
    members = [np.flatnonzero(order == one) for one in np.unique(order)]
    return [m[np.argsort(coordinate[m], kind="stable")] for m in members]


def inverse_information(fisher) -> np.ndarray:
    """Pseudo-inverse of Fisher matrices (n, M, M), in units in which their diagonal is one.

    Parameters (or combinations of them) that the spectrum says nothing about are left out.
    """
    unit = np.sqrt(np.diagonal(fisher, axis1=1, axis2=2))
    unit = np.where(unit > 0, unit, 1.0)
    unit = unit[:, :, None] * unit[:, None, :]
    return np.linalg.pinv(fisher / unit, rcond=ROUNDING, hermitian=True) / unit


def marginal_information(fisher, keep) -> np.ndarray:
    r"""Fisher information of some parameters when all others are free too.

    The Schur complement :math:`F_{kk} - F_{kf} F_{ff}^{-1} F_{fk}` of the free block.

    Parameters
    ----------
    fisher : ndarray of shape (n, M, M)
    keep : sequence of int
        Parameters whose information is asked for.

    Returns
    -------
    ndarray of shape (n, len(keep), len(keep))
        NaN where `fisher` is not finite; 0 for a parameter that the others can imitate.
    """
    fisher = np.asarray(fisher, dtype=float)
    keep = np.asarray(keep)
    free = np.setdiff1d(np.arange(fisher.shape[-1]), keep)
    kept = fisher[:, keep[:, None], keep].copy()
    usable = np.flatnonzero(np.isfinite(fisher).all(axis=(1, 2)))
    if not free.size or not usable.size:
        return kept
    inverse = inverse_information(fisher[usable[:, None, None], free[:, None], free])
    cross = fisher[usable[:, None, None], keep[:, None], free]
    before = np.diagonal(kept[usable], axis1=1, axis2=2)
    left = kept[usable] - cross @ inverse @ np.swapaxes(cross, 1, 2)
    gone = np.diagonal(left, axis1=1, axis2=2) <= 1e2 * ROUNDING * before
    left[gone] = 0.0
    np.swapaxes(left, 1, 2)[gone] = 0.0
    kept[usable] = left
    return kept
