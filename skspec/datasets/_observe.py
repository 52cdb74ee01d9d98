"""From the surface to the detector: rotation, velocity, instrument, sampling, continuum, noise."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.special import j1

from skspec.datasets._lattice import LIGHT_SPEED, Lattice
from skspec.datasets._profiles import blackbody

__all__ = [
    "bad_pixels",
    "broaden_and_sample",
    "continuum_shape",
    "doppler_factor",
    "lattice_for",
    "transfer",
]

LIMB_DARKENING = 0.6  # linear coefficient epsilon of the rotation profile
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # full width at half maximum of a unit Gaussian
PAD = 850.0  # km/s beyond the range: the largest rotation plus the largest velocity, and a margin
LATTICE_STEP = 1.25  # km/s: iron's Doppler width is 1.3 to 2.7 km/s
GAUSSIAN_CUT = 6.5  # frequencies beyond this many 1 / (2 pi sigma) are gone (2e-9 of the amplitude)


def instrument_sigma(resolution):
    """Standard deviation [km/s] of the Gaussian instrument profile of R = lambda / FWHM."""
    return LIGHT_SPEED / (resolution * FWHM)


def doppler_factor(velocity):
    """Observed over emitted wavelength, sqrt((1 + v/c) / (1 - v/c)), of a velocity in km/s."""
    return np.exp(np.arctanh(velocity / LIGHT_SPEED))


def lattice_for(wavelength, resolution):
    """The lattice on which the spectra of these pixels are computed."""
    sigma = instrument_sigma(resolution)
    step = min(LATTICE_STEP, sigma / 2.2)
    return Lattice.covering(np.min(wavelength), np.max(wavelength), step, PAD + 8.0 * sigma)


def rotation_transfer(frequency, vsini):
    """Fourier transform of Gray's rotation profile; 1 at zero, even and smooth in `vsini`.

    G(v) = [2 (1 - e) (1 - x^2)^(1/2) + pi e / 2 (1 - x^2)] / [pi vsini (1 - e / 3)], x = v / vsini
    (Gray 2005, eq. 18.14), e the limb darkening; its transform at u = 2 pi s vsini is
    [2 (1 - e) J1(u) / u + 2 e (sin u - u cos u) / u^3] / (1 - e / 3).
    """
    u = 2.0 * np.pi * vsini * frequency
    small = u < 0.05
    safe = np.where(small, 1.0, u)
    disc = np.where(small, 0.5 - u**2 / 16.0 + u**4 / 384.0, j1(safe) / safe)
    ball = np.where(
        small,
        1.0 / 3.0 - u**2 / 30.0 + u**4 / 840.0,
        (np.sin(safe) - safe * np.cos(safe)) / safe**3,
    )
    return (2.0 * (1.0 - LIMB_DARKENING) * disc + 2.0 * LIMB_DARKENING * ball) / (
        1.0 - LIMB_DARKENING / 3.0
    )


def transfer(frequency, resolution, vsini, rv):
    """Fourier transform of instrument, rotation and Doppler shift together, complex (n, k).

    The shift is exact and relativistic: ln(lambda) moves by artanh(rv / c).
    """
    sigma = instrument_sigma(resolution)
    result = np.exp(-2.0 * (np.pi * sigma * frequency) ** 2).astype(complex)[None, :]
    if np.all(vsini == vsini[0]):
        vsini = vsini[:1]
    result = result * rotation_transfer(frequency, vsini[:, None])
    if np.any(rv):
        shift = LIGHT_SPEED * np.log(doppler_factor(rv))
        result = result * np.exp(-2j * np.pi * frequency * shift[:, None])
    return result


def broaden_and_sample(signal, lattice, wavelength, resolution, vsini, rv):
    """Convolve `signal` (n, size) and read it at the pixels; shape (n, P).

    The instrument leaves no frequency beyond GAUSSIAN_CUT, so the transform back is done on the
    coarsest lattice that samples sigma well enough for interpolation of sixth order (1e-6).
    """
    sigma = instrument_sigma(resolution)
    kept = np.searchsorted(lattice.frequency, GAUSSIAN_CUT / (2.0 * np.pi * sigma)) + 1
    kept = min(kept, lattice.size // 2 + 1)
    size = fft.next_fast_len(int(np.ceil(lattice.size * lattice.step / (sigma / 6.0))), real=True)
    size = max(size, 2 * kept)
    spectrum = fft.rfft(signal, axis=1)[:, :kept]
    spectrum *= transfer(lattice.frequency[:kept], resolution, vsini, rv)
    smooth = fft.irfft(spectrum, size, axis=1) * (size / lattice.size)
    step = lattice.size * lattice.step / size
    offset = LIGHT_SPEED * np.log(wavelength) - lattice.start * lattice.step
    weights = Lattice(0, size, step).weights(offset)
    return (weights @ smooth.T).T


def continuum_shape(kind, wavelength, order, teff, rng):
    """Un-normalised continuum, mean about 1; shape broadcastable to (n, P).

    "blackbody": the Planck function of each Teff; "random": a random cubic per star that varies by
    some 20 %; "blaze": sinc^2 of an echelle order (Schroeder & Hilliard 1980), down to 0.4 at the
    edges; or an array.
    """
    if kind is None:
        return np.ones((1, 1))
    if not isinstance(kind, str):
        shape = np.asarray(kind, dtype=float)
        target = (len(teff), len(wavelength))
        try:
            np.broadcast_to(shape, target)
        except ValueError:
            raise ValueError(
                f"continuum has shape {shape.shape}; give one value per pixel, ({target[1]},), or "
                f"per star and pixel, {target}."
            ) from None
        if not (np.all(np.isfinite(shape)) and np.all(shape > 0)):
            raise ValueError("continuum must be positive and finite everywhere.")
        return np.atleast_2d(shape)
    if kind == "blackbody":
        shape = blackbody(wavelength, teff[:, None])
        return shape / shape.mean(axis=1, keepdims=True)
    if kind == "random":
        coefficients = rng.normal(0.0, [0.2, 0.1, 0.05], (len(teff), 3))
        basis = np.polynomial.legendre.legvander(_position(wavelength, None), 3)[:, 1:]
        return np.exp(coefficients @ basis.T)
    if kind == "blaze":
        return np.sinc(0.56 * _position(wavelength, order))[None, :] ** 2
    raise ValueError(
        f'continuum={kind!r} is not known; use None, "blackbody", "random", "blaze" or an array.'
    )


def _position(wavelength, order):
    """Position in the spectrum (or in its echelle order), from -1 to 1."""
    order = np.zeros(len(wavelength), int) if order is None else np.asarray(order)
    position = np.empty(len(wavelength))
    for number in np.unique(order):
        here = order == number
        low, high = wavelength[here].min(), wavelength[here].max()
        middle, half = 0.5 * (low + high), 0.5 * (high - low) or 1.0
        position[here] = (wavelength[here] - middle) / half
    return position


def bad_pixels(shape, fraction, rng):
    """Boolean array of that shape: half of the bad pixels single, half in runs of 5 to 20."""
    bad = rng.random(shape) < 0.5 * fraction
    mean_run = 12.5
    starts = np.argwhere(rng.random(shape) < 0.5 * fraction / mean_run)
    lengths = rng.randint(5, 21, len(starts))
    for step in range(20):
        rows, columns = starts[step < lengths].T
        inside = columns + step < shape[1]
        bad[rows[inside], columns[inside] + step] = True
    return bad
