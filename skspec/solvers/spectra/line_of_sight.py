r"""Radial velocity and broadening of model spectra, in Fourier space on a uniform ln-lambda grid.

A velocity `v` moves every line by :math:`z = \ln\sqrt{(1 + \beta) / (1 - \beta)}`, :math:`\beta = v/c`,
in :math:`u = \ln\lambda`, and broadening convolves with a kernel of constant width in `u`: both multiply
the Fourier transform of a spectrum,

.. math:: \hat f(k) \to \hat f(k)\, e^{-ikz}\, H(k; s), \qquad s = \mathrm{width}^2,

and so do their derivatives. Nothing is interpolated where the pixels are uniform in `u` already;
other grids are read off a finer uniform grid by cubic B-splines, whose prefilter is one more factor.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.interpolate import BSpline, CubicSpline, make_interp_spline
from scipy.sparse.linalg import splu
from scipy.special import j1, jn, spherical_jn

from skspec.solvers.spectra.resampling import long_steps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["C_KMS", "KERNELS", "LineOfSight", "ln_shift", "velocity"]

C_KMS = 299792.458  # speed of light [km/s]
UNIFORM = 1e-4  # of a pixel: largest spread of the steps of a uniform grid
GAP = 2.5  # pixels: a longer step between neighbours is a gap
OVERSAMPLING = 2  # of the finest pixels, where the grid is not uniform
PAD = 64  # pixels between segments, over which one blends into the next
MIN_PIXELS = 16
LIMB_DARKENING = 0.6


def ln_shift(velocity: ArrayLike) -> np.ndarray:
    """Shift in ln(wavelength) of a radial velocity [km/s], positive when receding."""
    return np.arctanh(np.asarray(velocity) / C_KMS)


def velocity(shift: ArrayLike) -> np.ndarray:
    """Radial velocity [km/s] of a shift in ln(wavelength)."""
    return C_KMS * np.tanh(shift)


def gaussian_kernel(k, s):
    """Fourier transform of a Gaussian of variance `s`, and its derivative with respect to `s`."""
    half = -0.5 * k * k
    value = np.exp(half * s)
    return value, half * value


def rotation_kernel(k, s, epsilon=LIMB_DARKENING):
    r"""The same of rotation with :math:`v\sin i = \sqrt{s}` and linear limb darkening (Gray)."""
    a = np.maximum(k * np.sqrt(s), 1e-3)
    norm = 1 - epsilon / 3
    value = ((1 - epsilon) * 2 * j1(a) / a + 2 * epsilon * spherical_jn(1, a) / a) / norm
    # H'(a) / a is finite at a = 0, which is why the parameter is the square of the width
    bend = ((1 - epsilon) * 2 * jn(2, a) + 2 * epsilon * spherical_jn(2, a)) / (norm * a * a)
    return value, -0.5 * k * k * bend


KERNELS = {"gaussian": gaussian_kernel, "rotation": rotation_kernel}


class LineOfSight:
    """A wavelength grid on which spectra can be shifted and broadened.

    Segments between gaps of the grid (detector chips, echelle orders) lie one after the other on the
    uniform grid, with a smooth transition between them.

    Parameters
    ----------
    wavelength : array-like of shape (P,)
        Ascending within each segment [Angstrom].
    order : array-like of int of shape (P,), optional
        Echelle order or chip of each pixel; a new one begins a new segment.
    reach : float
        Half width in ln(wavelength) of the widest kernel. So far beyond its ends a segment is continued
        by its last values, for no kernel to see the next.

    Attributes
    ----------
    step : float
        Of the uniform grid, in ln(wavelength).
    size : int
        Its length.
    segments : list of (first, end)
        Pixels between gaps.
    """

    def __init__(self, wavelength: ArrayLike, order: ArrayLike | None = None, reach: float = 0.0):
        self._u = np.log(np.asarray(wavelength, dtype=float))
        gap = np.diff(self._u)
        if len(self._u) < MIN_PIXELS:
            raise ValueError(f"Velocities need {MIN_PIXELS} pixels or more, not {len(self._u)}.")
        cut = gap <= 0
        if order is not None:
            cut |= np.diff(order) != 0
        for run in np.split(np.arange(len(gap)), np.flatnonzero(cut)):
            run = run[~cut[run]]
            cut[run] = long_steps(gap[run], GAP)[0]
        cuts = np.flatnonzero(cut) + 1
        self.segments = list(zip(np.r_[0, cuts], np.r_[cuts, len(self._u)]))
        inner = gap[~cut]
        if len(self.segments) > len(self._u) // 4:
            raise ValueError(
                "Velocities need wavelengths that ascend pixel by pixel (within each echelle order, if "
                "Spectra(order=...) gives one): sort the pixels."
            )
        self._uniform = bool(np.ptp(inner) < UNIFORM * np.median(inner))
        self.step = float(np.median(inner) if self._uniform else inner.min() / OVERSAMPLING)
        self._held = int(np.ceil(reach / self.step))
        self._starts, self._ends, end = [], [], 0
        for a, b in self.segments:
            length = (self._u[b - 1] - self._u[a]) / self.step
            self._starts.append(end)
            self._ends.append(end + (b - a if self._uniform else int(np.ceil(length)) + 1))
            end = self._ends[-1] + PAD + 2 * self._held
        self.size = next_fast_len(end, real=True)

    @cached_property
    def pixel_steps(self) -> np.ndarray:
        """Width (P,) of each pixel, in steps of the uniform grid."""
        if self._uniform:
            return np.ones(len(self._u))
        parts = [np.gradient(self._u[a:b]) if b - a > 1 else [self.step] for a, b in self.segments]
        return np.maximum(np.concatenate(parts) / self.step, 1.0)

    @cached_property
    def frequency(self) -> np.ndarray:
        """Angular frequencies (F,) per step of the uniform grid."""
        return 2 * np.pi * np.arange(self.size // 2 + 1) / self.size

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key != "_splines"}

    def _resampled(self, part, a, length):
        """Values (r, length) on the uniform grid, of the segment that begins at pixel `a`."""
        u = self._u[a : a + part.shape[1]]
        at = np.minimum(u[0] + self.step * np.arange(length), u[-1])
        if len(u) == 1:
            return np.repeat(part, length, axis=1)
        if len(u) < 4:
            return CubicSpline(u, part, axis=1)(at)
        if a not in self._splines:
            knots = make_interp_spline(u, u).t
            factors = splu(BSpline.design_matrix(u, knots, 3).tocsc())
            self._splines[a] = factors, BSpline.design_matrix(at, knots, 3)
        factors, values = self._splines[a]
        return (values @ factors.solve(np.ascontiguousarray(part.T))).T

    @cached_property
    def _splines(self):
        """Of each segment: factors of the spline matrix of its pixels, splines on the uniform grid."""
        return {}

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Fourier transforms (r, F) of spectra (r, P), ready for :meth:`spectra`."""
        rows = np.asarray(rows, dtype=float)
        laid = np.empty((len(rows), self.size))
        for (a, b), start, end in zip(self.segments, self._starts, self._ends):
            part = rows[:, a:b]
            laid[:, start:end] = part if self._uniform else self._resampled(part, a, end - start)
        following = [*self._starts[1:], self.size]
        for end, start in zip(self._ends, following):  # the last leads to the first
            length = start - end - 2 * self._held
            at = np.arange(1, start - end + 1) - self._held
            ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(at / (length + 1), 0, 1))
            last, first = laid[:, [end - 1]], laid[:, [start % self.size]]
            laid[:, end:start] = last + ramp * (first - last)
        hat = rfft(laid, axis=1)
        if not self._uniform:
            hat /= (2 + np.cos(self.frequency)) / 3  # to coefficients of cubic B-splines
        return hat

    @cached_property
    def _taps(self):
        """Index of the first of four B-splines at each pixel, and their values (4, P)."""
        position = np.concatenate(
            [
                s + (self._u[a:b] - self._u[a]) / self.step
                for (a, b), s in zip(self.segments, self._starts)
            ]
        )
        whole = np.floor(position).astype(int)
        t = position - whole
        values = (
            np.stack(
                [
                    (1 - t) ** 3,
                    3 * t**3 - 6 * t**2 + 4,
                    3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4,
                    t**3,
                ]
            )
            / 6
        )
        return whole, values

    def spectra(self, hat: np.ndarray) -> np.ndarray:
        """Spectra (..., P) on the pixels from Fourier transforms (..., F); `hat` may be spoilt."""
        full = irfft(hat, self.size, axis=-1, overwrite_x=True)
        if not self._uniform:
            whole, values = self._taps
            out = np.zeros((*full.shape[:-1], len(whole)), dtype=full.dtype)
            part = np.empty_like(out)
            for t in range(4):
                np.take(full, (whole + t - 1) % self.size, axis=-1, out=part, mode="clip")
                part *= values[t].astype(full.dtype)
                out += part
            return out
        if len(self.segments) == 1:
            return full[..., : len(self._u)]
        return np.concatenate(
            [full[..., s : s + b - a] for (a, b), s in zip(self.segments, self._starts)], axis=-1
        )

    def phase(self, shift: np.ndarray, dtype: Any = complex) -> np.ndarray:
        """``exp(-i k shift)`` (n, F) for shifts (n,) in steps: an outer product of two short ones."""
        shift = np.asarray(shift, dtype=float)[:, None]
        n = len(self.frequency)
        fine = int(np.sqrt(n)) + 1
        first = np.exp(-1j * shift * self.frequency[1] * np.arange(fine)).astype(dtype)
        coarse = np.exp(-1j * shift * self.frequency[1] * fine * np.arange(-(-n // fine)))
        product = coarse.astype(dtype)[:, :, None] * first[:, None, :]
        return product.reshape(len(shift), -1)[:, :n]

    def covers(
        self, low: np.ndarray, high: np.ndarray, good: np.ndarray | None = None
    ) -> np.ndarray:
        """Pixels (n, P) whose rest wavelength is known for all shifts from `low` to `high` (n,).

        Shifts are in ln(wavelength). Of a segment, what lies beyond the first and the last of the pixels
        `good` (P,) is not known.
        """
        inside = np.empty((len(low), len(self._u)), dtype=bool)
        slack = 1e-9
        for a, b in self.segments:
            u = self._u[a:b]
            known = u if good is None else u[good[a:b]]
            first, last = (known[0], known[-1]) if len(known) else (np.inf, -np.inf)
            inside[:, a:b] = (u - high[:, None] >= first - slack) & (
                u - low[:, None] <= last + slack
            )
        return inside

    def pixels_at(self, shift: np.ndarray) -> np.ndarray:
        """Pixel (n, P) nearest to where each pixel's rest wavelength is observed.

        Shifts (n,) are in ln(wavelength).
        """
        pixels = np.empty((len(shift), len(self._u)), dtype=int)
        for a, b in self.segments:
            u = self._u[a:b]
            at = u + np.asarray(shift)[:, None]
            if self._uniform:
                at -= u[0]
                at /= self.step
                nearest = np.clip(np.rint(at, out=at), 0, b - a - 1, out=at)
            else:
                nearest = np.searchsorted(0.5 * (u[1:] + u[:-1]), at)
            pixels[:, a:b] = nearest
            pixels[:, a:b] += a
        return pixels

    def nearest_pixels(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same pixels, and whether they are where the rest wavelength is observed."""
        inside = np.empty((len(shift), len(self._u)), dtype=bool)
        for a, b in self.segments:
            u = self._u[a:b]
            at = u + np.asarray(shift)[:, None]
            first, last = (u[1] - u[0], u[-1] - u[-2]) if b - a > 1 else (self.step, self.step)
            inside[:, a:b] = (at > u[0] - 0.5 * first) & (at < u[-1] + 0.5 * last)
        return self.pixels_at(shift), inside
