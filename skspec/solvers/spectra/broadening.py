r"""Many observed spectra broadened or shifted at once, each by an amount of its own.

The kernels of :mod:`skspec.solvers.spectra.line_of_sight`, for spectra that have bad pixels and errors.
A kernel :math:`K` makes of noise of variance :math:`v`, independent from pixel to pixel,

.. math:: v' = \sum_j K_j^2 v_j \approx (K * v) \sum_j K_j^2, \qquad
          \sum_j K_j^2 = \frac{1}{\pi} \int_0^\pi |\hat K(k)|^2 dk

per pixel: exact where the noise is the same over the width of the kernel. What it is now common to
neighbours is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import j1, ndtri, spherical_jn

from skspec.solvers.spectra.line_of_sight import LineOfSight

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "bridge",
    "broaden",
    "gaussian_reach",
    "gray_profile",
    "rotation_reach",
    "rotation_transform",
    "shift",
    "sight_of",
]

VALUES_AT_ONCE = 2**17  # of the uniform grid: what stays in the cache
TABLE_END, TABLE_STEP = 1024.0, 1 / 128  # linear interpolation: 2e-6


@lru_cache(maxsize=8)
def _sight(wavelength, order, reach):
    order = None if order is None else np.frombuffer(order, dtype=int)
    return LineOfSight(np.frombuffer(wavelength), order, reach)


def sight_of(
    wavelength: np.ndarray, order: np.ndarray | None = None, reach: float = 0.0
) -> LineOfSight:
    """`line_of_sight.LineOfSight` of a grid; those last used are kept."""
    wavelength = np.ascontiguousarray(wavelength, dtype=float)
    order = None if order is None else np.asarray(order, int).tobytes()
    return _sight(wavelength.tobytes(), order, reach)


# -- kernels ---------------------------------------------------------------------------------------


def gray_profile(x: np.ndarray, epsilon: np.ndarray | float) -> np.ndarray:
    r"""Rotation profile of a star with linear limb darkening, of unit area; `x` is :math:`v / v\sin i`.

    .. math:: G(x) = \frac{2 (1 - \epsilon) \sqrt{1 - x^2} + \frac{\pi}{2} \epsilon (1 - x^2)}
                          {\pi (1 - \epsilon / 3)}

    Gray 2005, The Observation and Analysis of Stellar Photospheres, eq. 18.14.
    """
    inside = np.clip(1 - np.square(x), 0, None)
    top = 2 * (1 - epsilon) * np.sqrt(inside) + 0.5 * np.pi * epsilon * inside
    return top / (np.pi * (1 - epsilon / 3))


@lru_cache(maxsize=1)
def _rotation_table():
    """Fourier transforms of a disc and of a ball, each 1 at 0, on a grid of arguments."""
    a = np.arange(0, TABLE_END + TABLE_STEP, TABLE_STEP)
    safe = np.where(a > 0, a, 1.0)
    disc = np.where(a > 0, 2 * j1(safe) / safe, 1.0)
    return a, disc, np.where(a > 0, 3 * spherical_jn(1, safe) / safe, 1.0)


@lru_cache(maxsize=8)
def _rotation_curve(share):
    """Arguments, and the transform of a profile of which the ball makes this share."""
    a, disc, ball = _rotation_table()
    return a, disc + share * (ball - disc)


def rotation_transform(a: np.ndarray, epsilon: ArrayLike) -> np.ndarray:
    """Fourier transform of :func:`gray_profile` at the angular frequencies `a`; from a table."""
    epsilon = np.asarray(epsilon)
    share = 2 / 3 * epsilon / (1 - epsilon / 3)  # of the ball: the limb-darkened part
    if share.size and np.all(share == share.flat[0]):
        return np.interp(a, *_rotation_curve(float(share.flat[0])))
    a_table, disc, ball = _rotation_table()
    return (1 - share) * np.interp(a, a_table, disc) + share * np.interp(a, a_table, ball)


def rotation_reach(epsilon: float, fraction: float) -> float:
    """Distance from the middle of :func:`gray_profile` beyond which `fraction` of it lies."""
    x = np.linspace(-1, 1, 2001)
    share = np.cumsum(gray_profile(x, epsilon))
    return float(-np.interp(fraction, share / share[-1], x))


def gaussian_reach(fraction: float) -> float:
    """The same for a Gaussian, in standard deviations."""
    return float(-ndtri(fraction))


# -- spectra ---------------------------------------------------------------------------------------


def bridge(good: np.ndarray, segments: Sequence[tuple[int, int]]) -> Callable[..., Any]:
    """How to replace bad pixels by straight lines between good ones, within each segment.

    At the ends of a segment the nearest good value is taken. One without any is bridged between its
    neighbours, into which kernels let it leak; 0 where nothing is good.

    Parameters
    ----------
    good : ndarray of bool of shape (n, P)
    segments : list of (first, end)

    Returns
    -------
    callable
        From values (n, P) to a copy, with the lines in it.
    """
    index = np.arange(good.shape[1], dtype=np.int32)
    first, end = (np.repeat(edge, np.diff(segments)[:, 0]) for edge in np.transpose(segments))
    star, pixel = np.nonzero(~good)
    before = np.maximum.accumulate(np.where(good, index, -1), axis=1)[star, pixel]
    after = np.where(good, index, len(index))[:, ::-1]
    after = np.minimum.accumulate(after, axis=1)[star, -1 - pixel]
    no_left, no_right = before < first[pixel], after >= end[pixel]
    none = no_left & no_right
    no_left, no_right = no_left & ~(none & (before >= 0)), no_right & ~(none & (after < len(index)))
    left = np.where(no_left, np.where(no_right, 0, after), before)
    right = np.where(no_right, left, after)
    weight = (pixel - left) / np.where(right > left, right - left, 1)
    known = ~(no_left & no_right)

    def filled(values):
        out = np.array(values)
        low, high = values[star, left], values[star, right]
        with np.errstate(invalid="ignore", over="ignore"):
            out[star, pixel] = np.where(known, low + (high - low) * weight, 0)
        return out

    return filled


def _blocks(n, sight):
    step = max(1, VALUES_AT_ONCE // sight.size)
    return [slice(start, start + step) for start in range(0, n, step)]


def broaden(
    sight: LineOfSight,
    flux: np.ndarray,
    good: np.ndarray | None,
    variance: np.ndarray | None,
    transfer: Callable[..., np.ndarray],
    bad_fraction: float = 0.05,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Convolve each spectrum with a kernel of its own.

    Parameters
    ----------
    sight : LineOfSight
    flux : ndarray of shape (n, P)
        May hold anything at bad pixels.
    good : ndarray of bool of shape (n, P) or None
        None: all.
    variance : ndarray of shape (n, P) or None
        Finite at good pixels.
    transfer : callable
        From a slice of the stars to the real Fourier transforms (r, F) of their kernels, at the angular
        frequencies ``sight.frequency`` per step of the uniform grid.
    bad_fraction : float
        A pixel is bad when it was, or when more than this fraction of its kernel lies on bad pixels.

    Returns
    -------
    flux, good, variance : ndarray of shape (n, P), or None as given
    """
    flux, variance = np.array(flux), None if variance is None else np.array(variance, dtype=float)
    new_good = None if good is None else good.copy()

    for rows in _blocks(len(flux), sight):
        kernel = transfer(rows)

        def convolved(values):
            return sight.spectra(sight.transform(values) * kernel)  # noqa: B023

        here = None if good is None or good[rows].all() else good[rows]
        part, noise = flux[rows], None if variance is None else variance[rows]
        if here is not None:
            filled = bridge(here, sight.segments)
            part, noise = filled(part), None if noise is None else filled(noise)
            new_good[rows] &= convolved((~here).astype(float)) <= bad_fraction
        flux[rows] = convolved(part)
        if noise is not None:
            least = noise.min(axis=1, keepdims=True)
            variance[rows] = np.maximum(convolved(noise), least) * _noise_gain(sight, kernel)
    return flux, new_good, variance


def _noise_gain(sight, kernel):
    """What a kernel leaves of the variance of white noise, (r, 1) or (r, P).

    The mean of its squared transform, up to the highest frequency that the pixels hold.
    """
    power = np.square(kernel)
    power[:, 0] *= 0.5
    if sight.pixel_steps.max() == 1:
        return power.sum(axis=1, keepdims=True) / (power.shape[1] - 0.5)
    mean = np.cumsum(power, axis=1) / (np.arange(power.shape[1]) + 0.5)
    last = np.rint((power.shape[1] - 1) / sight.pixel_steps).astype(int)
    return np.take(mean, last, axis=1)


def shift(
    sight: LineOfSight,
    flux: np.ndarray,
    good: np.ndarray | None,
    variance: np.ndarray | None,
    shifts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Shift each spectrum in ln(wavelength).

    Parameters
    ----------
    sight : LineOfSight
    flux : ndarray of shape (n, P)
        May hold anything at bad pixels.
    good : ndarray of bool of shape (n, P) or None
        None: all.
    variance : ndarray of shape (n, P) or None
    shifts : ndarray of shape (n,)
        In ln(wavelength), positive to the red.

    Returns
    -------
    flux, good, variance : ndarray of shape (n, P), or None as given
        Pixels that come from outside hold anything: ``sight.covers`` tells which. A pixel is bad
        when one of the two that it comes from may be; its variance is that of the nearest.
    """
    flux, shifts = np.array(flux), np.asarray(shifts, dtype=float)
    good, variance = (None if x is None else np.array(x) for x in (good, variance))
    for rows in _blocks(len(flux), sight):
        part = flux[rows]
        here = None if good is None or good[rows].all() else good[rows]
        if here is not None:
            part = bridge(here, sight.segments)(part)
        hat = sight.transform(part) * sight.phase(shifts[rows] / sight.step)
        flux[rows] = sight.spectra(hat)
        if variance is None and here is None:
            continue
        source = sight.pixels_at(-shifts[rows])
        if variance is not None:
            variance[rows] = np.take_along_axis(variance[rows], source, axis=1)
        if here is not None:
            both = here.copy()
            both[:, 1:] &= here[:, :-1]
            both[:, :-1] &= here[:, 1:]
            good[rows] = np.take_along_axis(both, source, axis=1)
    return flux, good, variance
