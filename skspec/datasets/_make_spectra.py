"""Synthetic stellar spectra with known labels: `make_spectra` and `synthesize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from skspec._wavelengths import air_to_vacuum
from skspec.datasets._labels import (
    DEFAULT_LABELS,
    check_labels,
    draw_box,
    draw_field,
    label_ranges_for,
)
from skspec.datasets._lines import WAVELENGTH_LIMITS
from skspec.datasets._observe import (
    bad_pixels,
    broaden_and_sample,
    continuum_shape,
    doppler_factor,
    lattice_for,
)
from skspec.datasets._profiles import Absorber, line_layers, residual_depth
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import RandomState

__all__ = ["make_spectra", "synthesize"]

BLOCK = 2**21  # lattice points worked on at once (16 MB): stays within the processor's cache
RESOLUTION_LIMITS = (200.0, 200_000.0)


def synthesize(
    labels: Mapping[str, ArrayLike] | pd.DataFrame,
    wavelength: ArrayLike,
    *,
    resolution: float = 5000.0,
    medium: str = "vacuum",
) -> np.ndarray:
    """Noise-free, continuum-normalised spectra of given labels.

    Parameters
    ----------
    labels : mapping or pandas.DataFrame
        Label name -> scalar or array of shape (n,). Names: ``teff`` [K], ``logg`` [dex, cgs],
        ``feh`` [dex], ``alpha_m`` [dex], ``vsini`` [km/s], ``rv`` [km/s, positive is receding].
        Labels not given are those of the Sun: 5772, 4.44, 0, 0, 2, 0.
    wavelength : array-like of shape (P,)
        Pixel centres [Angstrom], in any order, within 3800-9000.
    resolution : float, default=5000
        R = lambda / FWHM of the Gaussian instrument profile, which includes the pixel's own width.
    medium : {"vacuum", "air"}, default="vacuum"
        What `wavelength` refers to.

    Returns
    -------
    flux : ndarray of shape (n, P)
        1 is the continuum.

    Raises
    ------
    ValueError
        For unknown labels, labels or wavelengths outside the range of the sketch.

    See Also
    --------
    make_spectra : Random labels and noise on top of this.

    Notes
    -----
    One Milne-Eddington layer in LTE. The gas at continuum optical depth 0.15 (hydrogen: 0.93 in
    the Sun) of a grey, hydrostatic atmosphere absorbs with eta, the ratio of line to continuum
    opacity, and the flux is

        r = 1 - [1 - B(T0) / B(Teff)] eta / (1 + eta),     T0 = 0.78 Teff,

    then broadened by rotation and instrument and shifted. Level populations follow Saha and
    Boltzmann, the continuum is H-, H I and Thomson scattering, metal lines are Voigt profiles,
    hydrogen lines have Stark wings. There are 700 real lines and 6000 invented weak ones, the same
    in every call. Profiles are sampled every 1.25 km/s, which is good to 1e-3 of the continuum.

    **It is a sketch, not a substitute for radiative transfer**: trends with every label have the
    right sign and rough size, and the Sun's strong lines have their equivalent widths within 25 %
    (a few of the strongest, Ca II K among them, within 40 %), but Balmer cores are too wide, there
    are no molecules (so no G band, no TiO) and no departures from LTE. Do not measure real stars
    with it.

    The flux is a smooth function of the labels: finite differences give clean gradients. A star's
    spectrum does not depend on the other stars of the call.

    References
    ----------
    Gray, D. F. 2005, *The Observation and Analysis of Stellar Photospheres*, 3rd ed.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import synthesize
    >>> flux = synthesize({"teff": [5000, 6500]}, np.linspace(4840, 4890, 100))
    >>> flux.shape
    (2, 100)
    """
    table = check_labels(labels)
    pixels = _check_wavelength(wavelength, medium)
    resolution = _check_resolution(resolution)
    lattice = lattice_for(pixels, resolution)
    layers = line_layers(*(table[name] for name in ("teff", "logg", "feh", "alpha_m")))
    absorber = Absorber(lattice)
    flux = np.empty((len(table["teff"]), len(pixels)))
    block = max(1, BLOCK // lattice.size)
    for start in range(0, len(flux), block):
        rows = slice(start, start + block)
        share = absorber(*(layer.take(rows) for layer in layers))
        vsini, rv = table["vsini"][rows], table["rv"][rows]
        share = broaden_and_sample(share, lattice, pixels, resolution, vsini, rv)
        emitted = pixels / doppler_factor(rv[:, None])
        flux[rows] = 1.0 - residual_depth(emitted, table["teff"][rows, None]) * share
    return flux


def make_spectra(
    n_samples: int = 1000,
    *,
    wavelength: tuple[float, float] | ArrayLike = (4800.0, 5400.0),
    n_pixels: int = 2000,
    resolution: float = 5000.0,
    medium: str = "vacuum",
    order: ArrayLike | None = None,
    snr: float | tuple[float, float] | ArrayLike | None = 100.0,
    labels: Sequence[str] = ("teff", "logg", "feh"),
    label_ranges: Mapping[str, tuple[float, float]] | None = None,
    fixed_labels: Mapping[str, float] | None = None,
    population: str = "box",
    bad_pixel_fraction: float = 0.0,
    continuum: str | ArrayLike | None = None,
    random_state: RandomState | None = None,
) -> tuple[Spectra, pd.DataFrame]:
    """Random stars with known labels, observed with known noise.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of stars.
    wavelength : (float, float) or array-like of shape (P,), default=(4800, 5400)
        Range or pixel centres [Angstrom], within 3800-9000. The default has H-beta and Mg b.
    n_pixels : int, default=2000
        Number of equal pixels, when `wavelength` is a range.
    resolution : float, default=5000
        R = lambda / FWHM of the instrument.
    medium : {"vacuum", "air"}, default="vacuum"
        What `wavelength` refers to.
    order : array-like of int of shape (P,), optional
        Echelle order of each pixel, handed on to `Spectra` (the wavelengths may overlap).
    snr : float, (low, high), array-like of shape (n_samples,) or None, default=100
        Signal-to-noise ratio per pixel in the continuum. A tuple of two draws it log-uniformly, per
        star. None or ``inf``: no noise, and `Spectra` without errors.
    labels : sequence of str, default=("teff", "logg", "feh")
        The labels that vary, out of ``teff, logg, feh, alpha_m, vsini, rv``; see `synthesize`.
    label_ranges : dict, optional
        Label name -> (low, high). Defaults: teff 4500-7000 K, logg 1.5-4.8, feh -1.5 to 0.4,
        alpha_m -0.1 to 0.4, vsini 1-50 km/s, rv -50 to 50 km/s.
    fixed_labels : dict, optional
        Label name -> value of labels that do not vary. Defaults: the Sun, vsini 2 and rv 0 km/s.
    population : {"box", "field"}, default="box"
        "box" draws every label uniformly and independently: easy to learn and to judge. "field"
        draws 60 % main-sequence stars and 40 % red giants along their relations of logg with teff
        (and of alpha_m with feh), within the same ranges: labels are then correlated, as they are
        in a survey.
    bad_pixel_fraction : float, default=0
        Share of pixels, alone and in runs, that hold garbage and have ``ivar`` 0.
    continuum : {None, "blackbody", "random", "blaze"} or array-like, default=None
        Shape multiplied to the normalised flux: of a black body, a random cubic per star, the blaze
        of (each) order, or an array of shape (P,) or (n_samples, P).
    random_state : int, RandomState instance or None, default=None
        Decides labels, noise and bad pixels, never the physics: line list and forest are fixed.

    Returns
    -------
    spectra : Spectra of shape (n_samples, P)
        With `resolution` and `medium`; ``meta`` holds the ``snr`` of each star.
    labels : pandas.DataFrame of shape (n_samples, n_labels)
        Columns in the order asked for.

    Raises
    ------
    ValueError
        For unknown names and for values outside the range of the sketch, with what is allowed.

    See Also
    --------
    synthesize : The noise-free flux of given labels.

    Notes
    -----
    The noise is that of photons: Gaussian of variance ``flux * mean(continuum) / snr**2``, with the
    noise-free flux of each pixel, and `ivar` is exactly its inverse.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> spectra, labels = make_spectra(n_samples=5, random_state=0)
    >>> spectra.shape
    (5, 2000)
    >>> list(labels)
    ['teff', 'logg', 'feh']
    """
    if not (isinstance(n_samples, Integral) and n_samples > 0):
        raise ValueError(f"n_samples={n_samples!r}; give a whole number of stars, at least 1.")
    rng = check_random_state(random_state)
    names = _check_names(labels)
    ranges = label_ranges_for(names, label_ranges)
    table = _fixed_values(names, fixed_labels)
    draw = {"box": draw_box, "field": draw_field}.get(population)
    if draw is None:
        raise ValueError(f'population={population!r} is not known; use "box" or "field".')
    table.update(draw(names, ranges, n_samples, rng))
    pixels = _pixels(wavelength, n_pixels)
    flux = synthesize(
        {name: np.broadcast_to(value, n_samples) for name, value in table.items()},
        pixels,
        resolution=resolution,
        medium=medium,
    )
    shape = continuum_shape(
        continuum, pixels, order, np.broadcast_to(table["teff"], len(flux)), rng
    )
    snr = _draw_snr(snr, len(flux), rng)
    flux, ivar = _add_noise(flux * shape, np.mean(shape, axis=1, keepdims=True), snr, rng)
    flux, ivar = _spoil(flux, ivar, bad_pixel_fraction, rng)
    spectra = Spectra(
        flux,
        ivar=ivar,
        wavelength=pixels,
        order=order,
        meta={"snr": snr},
        medium=medium,
        resolution=resolution,
    )
    return spectra, pd.DataFrame({name: table[name] for name in names})


def _check_names(labels):
    names = [labels] if isinstance(labels, str) else list(labels)
    unknown = [name for name in names if name not in DEFAULT_LABELS]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"labels={names} cannot be drawn; name each at most once, "
            f"out of {list(DEFAULT_LABELS)}."
        )
    return names


def _fixed_values(names, fixed_labels):
    fixed = dict(fixed_labels or {})
    both = sorted(set(fixed) & set(names))
    if both:
        raise ValueError(f"{both} are both in labels and in fixed_labels; leave them in one.")
    check_labels(fixed)
    for name, value in fixed.items():
        if np.ndim(value):
            raise ValueError(f"fixed_labels[{name!r}] must be one number; for arrays: synthesize.")
    return {name: DEFAULT_LABELS[name] for name in DEFAULT_LABELS} | fixed


def _pixels(wavelength, n_pixels):
    if isinstance(wavelength, (tuple, list)) and len(wavelength) == 2:
        if n_pixels < 2:
            raise ValueError(
                f"n_pixels={n_pixels}; a range of wavelengths needs at least 2 pixels."
            )
        return np.linspace(*wavelength, int(n_pixels))
    return np.asarray(wavelength, dtype=float)


def _check_wavelength(wavelength, medium):
    pixels = np.asarray(wavelength, dtype=float)
    low, high = WAVELENGTH_LIMITS
    if medium not in ("vacuum", "air"):
        raise ValueError(f'medium={medium!r} is not known; use "vacuum" or "air".')
    if pixels.ndim != 1 or not len(pixels):
        raise ValueError(f"wavelength has shape {pixels.shape}; give a vector of pixel centres.")
    if not (np.all(pixels >= low) and np.all(pixels <= high)):
        raise ValueError(
            f"wavelength reaches {np.min(pixels):.0f}-{np.max(pixels):.0f} Angstrom; the line list "
            f"covers {low:.0f}-{high:.0f}."
        )
    return air_to_vacuum(pixels) if medium == "air" else pixels


def _check_resolution(resolution):
    low, high = RESOLUTION_LIMITS
    if not low <= resolution <= high:
        raise ValueError(f"resolution={resolution} must lie within {low:.0f} and {high:.0f}.")
    return float(resolution)


def _draw_snr(snr, n, rng):
    """S/N per star (n,); inf means no noise."""
    if snr is None:
        return np.full(n, np.inf)
    if isinstance(snr, tuple) and len(snr) == 2:
        low, high = snr
        if not 0 < low <= high < np.inf:
            raise ValueError(f"snr={snr}; a range needs 0 < low <= high.")
        return np.exp(rng.uniform(np.log(low), np.log(high), n))
    values = np.asarray(snr, dtype=float)
    if values.ndim and values.shape != (n,):
        raise ValueError(
            f"snr has shape {values.shape}; give one number, a (low, high) tuple or "
            f"one value for each of the {n} stars."
        )
    if not np.all(values > 0):
        raise ValueError("snr must be positive; use None for spectra without noise.")
    return np.array(np.broadcast_to(values, n))


def _add_noise(flux, level, snr, rng):
    if np.all(np.isinf(snr)):
        return flux, None
    sigma = np.sqrt(flux * level) / snr[:, None]
    with np.errstate(divide="ignore"):
        ivar = 1.0 / sigma**2
    return flux + sigma * rng.normal(size=flux.shape), ivar


def _spoil(flux, ivar, fraction, rng):
    if not 0 <= fraction < 1:
        raise ValueError(f"bad_pixel_fraction={fraction} must lie in [0, 1).")
    if fraction == 0:
        return flux, ivar
    bad = bad_pixels(flux.shape, fraction, rng)
    garbage = rng.choice([0.0, 5.0, -1.0, 100.0], size=int(bad.sum()))
    flux = flux.copy()
    flux[bad] = garbage
    ivar = np.full(flux.shape, np.inf) if ivar is None else ivar
    return flux, np.where(bad, 0.0, ivar)
