r"""Radial velocities by chi2 against templates at all velocities, through Fourier transforms.

Data and templates are divided by their own low-order polynomial, which leaves :math:`1 + d_i` with
weight :math:`w_i` and :math:`1 + \tau`. On a grid uniform in ln(wavelength) a velocity is a lag, and

.. math:: \chi^2(v) = \min_a \sum_i w_i\,[1 + d_i - a\,(1 + \tau(u_i - z))]^2

needs no more than the correlations of :math:`w d` with :math:`\tau` and of :math:`w` with
:math:`\tau` and :math:`\tau^2`. The ones are taken out before, so that single precision will do. The
lags are few and the pixels many: the data are cut into blocks about as long as the range of lags,
whose transforms are multiplied and summed before one short transform back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from scipy.fft import irfft, rfft
from scipy.interpolate import CubicSpline
from scipy.sparse import csr_array

from skspec.solvers.spectra.line_of_sight import C_KMS, LineOfSight, ln_shift, velocity

__all__ = ["VelocityScan", "velocity_scan"]

BATCH = 2**17  # pixels of all stars of a batch
MIN_TRANSFORM = 256  # of the transforms
POSITIVE = 0.05  # of its mean: where a fitted continuum is lower, the pixel is not used


@dataclass(frozen=True)
class VelocityScan:
    """Velocity and template of lowest chi2 of `n` stars.

    Attributes
    ----------
    rv : ndarray of shape (n,)
        Radial velocity [km/s], positive when receding; NaN for a star without a usable pixel.
    template : ndarray of int of shape (n,)
        Row of the best template.
    chi2 : ndarray of shape (n,)
        Its chi2, over the pixels that every velocity of the range leaves inside the templates.
    error : ndarray of shape (n,)
        Standard deviation of the velocity by the curvature of chi2 [km/s]; ``inf`` where the minimum
        is an end of the range.
    """

    rv: np.ndarray
    template: np.ndarray
    chi2: np.ndarray
    error: np.ndarray


def velocity_scan(
    flux: np.ndarray,
    weight: np.ndarray,
    templates: np.ndarray,
    wavelength: np.ndarray,
    velocities: Sequence[float],
    *,
    degree: int = 4,
    order: np.ndarray | None = None,
) -> VelocityScan:
    """Radial velocity of every star, and the template that is most like it.

    Parameters
    ----------
    flux : ndarray of shape (n, P)
        May hold anything where the weight is 0.
    weight : ndarray of shape (n, P)
        Inverse variance, finite; 0 marks a bad pixel.
    templates : ndarray of shape (T, P)
        Spectra at rest on the same grid.
    wavelength : ndarray of shape (P,)
        Ascending or descending [Angstrom]; gaps are seen and not bridged.
    velocities : tuple of float
        Range of velocities (lowest, highest) [km/s].
    degree : int
        Of the Chebyshev polynomial, in ln(wavelength), by which spectra and templates are divided.
    order : ndarray of int of shape (P,), optional
        Echelle order or chip of each pixel; then wavelengths need only ascend within each.

    Returns
    -------
    VelocityScan

    Raises
    ------
    ValueError
        On shapes that do not agree, weights that are not finite, an empty range of velocities, or one
        so wide that no pixel stays inside the templates.

    Notes
    -----
    The minimum is refined by a parabola through three velocities. It is the first guess of a fit, or
    good to a few per cent of a pixel where lines are sampled by two pixels or more.
    """
    flux, weight, templates = np.asarray(flux), np.asarray(weight), np.asarray(templates, float)
    wavelength = np.asarray(wavelength, dtype=float)
    low, high = _checked(flux, weight, templates, wavelength, velocities)
    if np.all(np.diff(wavelength) < 0):
        flux, weight, templates = flux[:, ::-1], weight[:, ::-1], templates[:, ::-1]
        wavelength, order = wavelength[::-1], None if order is None else np.asarray(order)[::-1]
    grid = _Grid(wavelength, order)
    first = int(np.floor(ln_shift(low) / grid.step)) - 1
    last = int(np.ceil(ln_shift(high) / grid.step)) + 1
    used = grid.sight.covers(*(np.array([lag * grid.step]) for lag in (first, last)))[0]
    if not used.any():
        raise ValueError(
            f"Velocities from {low:g} to {high:g} km/s shift every pixel out of the templates, which "
            f"span {C_KMS * np.ptp(np.log(wavelength)):.0f} km/s: give a narrower range."
        )
    u = np.log(wavelength)
    basis = chebvander((2 * u - u[0] - u[-1]) / np.ptp(u), degree)
    tau = grid.lay(_departure(templates, np.ones_like(templates), basis)[0])
    correlation = _Correlation(tau, first, last)
    step = max(1, BATCH // len(u))
    parts = []
    for start in range(0, max(1, len(flux)), step):
        rows = slice(start, start + step)
        d, w, unit = _departure(flux[rows], weight[rows] * used, basis)
        chi2 = _chi2(d, w, unit, grid, correlation)
        parts.append(_minimum(chi2, first, grid.step, low, high))
    return VelocityScan(*(np.concatenate(values) for values in zip(*parts)))


def _checked(flux, weight, templates, wavelength, velocities):
    n_pixels = len(wavelength)
    if flux.ndim != 2 or flux.shape != weight.shape or flux.shape[1] != n_pixels:
        raise ValueError(
            f"flux {flux.shape} and weight {weight.shape} must both be (stars, {n_pixels})."
        )
    if templates.ndim != 2 or templates.shape[1] != n_pixels or not len(templates):
        raise ValueError(f"templates are {templates.shape}; they must be (templates, {n_pixels}).")
    low, high = velocities
    if not -C_KMS < low < high < C_KMS:
        raise ValueError(f"velocities must be (lowest, highest) [km/s], not ({low}, {high}).")
    if not np.all(np.isfinite(weight)):
        raise ValueError("weight must be finite; take 1 where a good pixel has no known error.")
    return low, high


class _Grid:
    """Uniform grid in ln(wavelength), with the segments of the pixels one after the other."""

    def __init__(self, wavelength, order):
        self.sight = LineOfSight(wavelength, order)
        self._u = u = np.log(wavelength)
        self._bounds = self.sight.segments
        inside = np.concatenate([np.diff(u[a:b]) for a, b in self._bounds])
        self.step = float(np.median(inside))
        self._starts, self.size = [], 0
        position, base = np.empty(len(u)), np.empty(len(u), dtype=int)
        for a, b in self._bounds:
            start = self.size
            self._starts.append(start)
            position[a:b] = start + (u[a:b] - u[a]) / self.step
            self.size += max(4, int(np.ceil((u[b - 1] - u[a]) / self.step - 1e-3)) + 1)
            base[a:b] = np.clip(np.floor(position[a:b]), start + 1, self.size - 3)
        self._same = len(u) == self.size and np.ptp(position - np.arange(len(u))) < 1e-3
        self._spread = _cubic_taps(base, position - base, self.size)

    def lay(self, rows):
        """Values of spectra (r, P) on the grid, (r, G), by cubic splines."""
        out = np.empty((len(rows), self.size), dtype=np.float32)
        ends = [*self._starts[1:], self.size]
        for (a, b), start, end in zip(self._bounds, self._starts, ends):
            at = np.minimum(self._u[a] + self.step * np.arange(end - start), self._u[b - 1])
            part = rows[:, a:b]
            out[:, start:end] = CubicSpline(self._u[a:b], part, axis=1)(at) if b - a > 1 else part
        return out

    def gather(self, rows):
        """What makes ``rows @ interpolated values`` a sum over the grid: (r, P) to (r, G)."""
        return rows if self._same else rows @ self._spread


def _cubic_taps(base, t, size):
    """Sparse (P, size): cubic interpolation among the four values from ``base - 1`` on."""
    taps = np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t * t - 1) * (t - 2) / 2,
            -t * (t + 1) * (t - 2) / 2,
            t * (t * t - 1) / 6,
        ]
    ).astype(np.float32)
    pixels = np.tile(np.arange(len(t)), 4)
    columns = np.concatenate([base + k for k in range(-1, 3)])
    return csr_array((taps.ravel(), (pixels, columns)), shape=(len(t), size))


def _departure(flux, weight, basis):
    """Spectra over their weighted polynomial, less 1; the weights of that, and the unit of those."""
    n, n_terms = len(flux), basis.shape[1]
    good = weight > 0
    flux = np.where(good, flux, 0)
    count = np.maximum(good.sum(axis=1, keepdims=True), 1)
    level = np.abs(flux).sum(axis=1, keepdims=True, dtype=float) / count
    flux = (flux / np.where(level > 0, level, 1)).astype(np.float32)
    mean = weight.sum(axis=1, keepdims=True, dtype=float) / count
    share = (weight / np.where(mean > 0, mean, 1)).astype(np.float32)
    basis = basis.astype(np.float32)
    pairs = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    normal = (share @ pairs).astype(float).reshape(n, n_terms, n_terms)
    right = ((share * flux) @ basis).astype(float)
    # a star with fewer pixels than terms gets the lowest terms, by a slight preference for 0
    normal += 1e-6 * np.maximum(normal[:, :1, :1], 1e-30) * np.eye(n_terms)
    curve = np.linalg.solve(normal, right[:, :, None])[:, :, 0].astype(np.float32) @ basis.T
    share *= curve > POSITIVE
    curve = np.maximum(curve, np.float32(POSITIVE))
    weight = share * curve**2
    # relative weights, whatever the units of the flux, stay within the range of single precision
    return np.where(share > 0, flux / curve - 1, 0), weight, mean[:, 0] * level[:, 0] ** 2


class _Correlation:
    """``sum_i x_i tau_{i - lag}`` for all lags of a range, of many x with a few tau and tau^2."""

    def __init__(self, tau, first, last):
        n_lags = last - first + 1
        self._n_lags = n_lags
        self._length = max(MIN_TRANSFORM, 2 ** int(np.ceil(np.log2(2 * n_lags))))
        self._block = self._length - n_lags + 1
        self._n_blocks = -(-tau.shape[1] // self._block)
        reach = (self._n_blocks - 1) * self._block + self._length
        before, after = max(last, 0), max(reach - last - tau.shape[1], 0)
        padded = np.pad(tau, ((0, 0), (before, after)))[:, before - last :]
        starts = self._block * np.arange(self._n_blocks)
        cut = padded[:, starts[:, None] + np.arange(self._length)]
        self._tau, self._square = self._transform(cut), self._transform(cut * cut)

    def _transform(self, blocks):
        """Blocks (r, b, B) to frequency by row by block, ready for a product of matrices."""
        return np.ascontiguousarray(rfft(blocks, self._length, axis=-1).transpose(2, 0, 1))

    def __call__(self, x, w):
        """Correlations (n, T, L) of x with tau, of w with tau and with tau^2; lags ascend."""
        xs, ws = (self._transform(self._cut(rows)).conj() for rows in (x, w))
        pairs = ((xs, self._tau), (ws, self._tau), (ws, self._square))
        return [self._back(rows @ tau.transpose(0, 2, 1)) for rows, tau in pairs]

    def _cut(self, rows):
        missing = self._n_blocks * self._block - rows.shape[1]
        rows = np.pad(rows, ((0, 0), (0, missing)))
        return rows.reshape(len(rows), self._n_blocks, self._block)

    def _back(self, product):
        full = irfft(product.transpose(1, 2, 0), self._length, axis=-1)
        return full[:, :, self._n_lags - 1 :: -1]


def _chi2(d, w, unit, grid, correlation):
    """chi2 (n, T, L) of all templates at all lags with the best amplitude."""
    wd = w * d
    a, b, c = correlation(grid.gather(wd), grid.gather(w))
    total, first, square = (
        s.astype(float)[:, None, None] for s in (w.sum(1), wd.sum(1), np.einsum("np,np->n", wd, d))
    )
    # sum w (d - tau)^2, less what an amplitude other than 1 gains
    unscaled = square - 2 * a + c
    gain = (first + a - b - c) ** 2 / np.maximum(total + 2 * b + c, 1e-30)
    chi2 = np.maximum(unscaled - gain, 0) * unit[:, None, None]
    chi2[total[:, 0, 0] <= 0] = np.nan
    return chi2


def _minimum(chi2, first, step, low, high):
    """Velocity, template, chi2 and error of the lowest minimum, by a parabola in the lag."""
    n, _, n_lags = chi2.shape
    blind = np.isnan(chi2[:, 0, 0])
    inner = np.where(blind[:, None, None], 0, chi2[:, :, 1:-1]).reshape(n, -1)
    template, lag = np.divmod(np.argmin(inner, axis=1), n_lags - 2)
    left, centre, right = (chi2[np.arange(n), template, lag + j] for j in range(3))
    curvature = left - 2 * centre + right
    convex = curvature > 0
    curvature = np.where(convex, curvature, 1)
    offset = np.where(convex, np.clip(0.5 * (left - right) / curvature, -1, 1), 0)
    rv = velocity((first + 1 + lag + offset) * step)
    bound = ~convex | (rv <= low) | (rv >= high)
    error = np.where(bound, np.inf, np.sqrt(2 / curvature) * step * C_KMS)
    error[blind] = np.inf
    rv = np.where(blind, np.nan, np.clip(rv, low, high))
    return rv, template, centre - 0.25 * (left - right) * offset, error
