"""`RotationalBroadening` and `InstrumentBroadening`: lines as wide as those to come."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from skspec._sklearn import Interval
from skspec.augmentation._base import Augmentation, limits, put, uniform
from skspec.solvers.spectra.broadening import (
    broaden,
    gaussian_reach,
    rotation_reach,
    rotation_transform,
    sight_of,
)
from skspec.solvers.spectra.line_of_sight import C_KMS

if TYPE_CHECKING:
    from skspec._typing import Range

__all__ = ["InstrumentBroadening", "RotationalBroadening"]

BAD_FRACTION = 0.05  # of the kernel; as in Resampler
UNSEEN = 1e-6  # of the kernel: what may lie on another order
FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations


class Broadening(Augmentation):
    """Convolution with a kernel of constant width in ln(wavelength).

    A subclass implements ``_width(draws)``, ``_transfer(a, draws)``, the Fourier transform of the kernel
    at ``a = width * k``, and ``_reach(fraction)``: how far from the middle of the widest kernel that
    fraction of it lies.
    """

    def _sight(self, spectra):
        if spectra.wavelength is None:
            raise ValueError(
                f"{type(self).__name__} needs the wavelengths: pass Spectra(flux, wavelength=...)."
            )
        return sight_of(spectra.wavelength, spectra.order, self._reach(UNSEEN))

    def _apply(self, spectra, draws):
        width = self._width(draws)
        rows = np.flatnonzero(width > 0)
        if not len(rows):
            return spectra
        sight = self._sight(spectra)
        part = spectra if len(rows) == len(spectra) else spectra[rows]
        draws = {key: values[rows] for key, values in draws.items()}
        width = width[rows, None] / sight.step

        def transfer(some):
            part_draws = {key: values[some] for key, values in draws.items()}
            return self._transfer(width[some] * sight.frequency, part_draws)

        good = None if part.ivar is None else part.good
        variance = np.where(part.good, part.variance, 0.0) if part.has_errors else None
        new, good, variance = broaden(sight, part.flux, good, variance, transfer, BAD_FRACTION)
        ivar = spectra.ivar
        if ivar is not None:
            with np.errstate(divide="ignore"):
                ivar = np.where(good, np.inf if variance is None else 1 / variance, 0.0)
            ivar = put(spectra.ivar, rows, ivar)
        return spectra.replace(flux=put(spectra.flux, rows, new), ivar=ivar)

    def _spoilt(self, spectra):
        reach = self._reach(BAD_FRACTION)
        if reach <= 0 or self.p == 0:
            return None
        return self._beyond_ends(self._sight(spectra), spectra, -reach, reach)


class RotationalBroadening(Broadening):
    r"""Let stars rotate: convolve with Gray's profile of a star with linear limb darkening.

    .. math:: G(v) \propto 2 (1 - \epsilon) \sqrt{1 - x^2} + \frac{\pi}{2} \epsilon (1 - x^2),
              \quad x = v / v\sin i

    Parameters
    ----------
    vsini : float or (low, high)
        :math:`v\sin i` of the profile [km/s]; uniform in a range.
    epsilon : float or (low, high)
        Limb darkening, from 0 to 1; uniform in a range.
    label : str, int or None
        Label that is changed where the labels are given: name of a column, or its number. The label
        :math:`v_0` becomes :math:`\sqrt{v_0^2 + (v\sin i)^2}`. None: rotation is a nuisance.

    Raises
    ------
    ValueError
        Without wavelengths, or when these do not ascend within each order; when the profile is wider
        than the spectra.

    Notes
    -----
    Two convolutions with rotation profiles make no third one, but their variances add: that is what the
    label says, exactly for stars that did not rotate before.

    Computed in Fourier space, as the free broadening of forward models, order by order; lines must be
    sampled by two pixels per full width or more. Bad pixels stay bad; they are bridged by straight
    lines, and pixels with more than 5 % of their profile on bad ones become bad, too. So do those with
    more than 5 % of it beyond the end of an order, in the widest profile of the range and in all stars:
    otherwise the bad pixels would tell :math:`v\sin i`.

    The noise of a pixel falls as its profile averages over neighbours, and `ivar` follows, but the
    noise of neighbours is then correlated, which no `ivar` tells. Broaden spectra of little noise, and
    add noise afterwards (:class:`GaussianNoise` counts what is left).

    References
    ----------
    Gray 2005, The Observation and Analysis of Stellar Photospheres, eq. 18.14.

    Examples
    --------
    >>> from skspec.augmentation import RotationalBroadening
    >>> from skspec.datasets import make_spectra
    >>> spectra, labels = make_spectra(
    ...     5, n_pixels=500, labels=["teff", "feh", "vsini"], random_state=0)
    >>> rotation = RotationalBroadening((0, 70), random_state=0)
    >>> faster, new_labels = rotation.augment(spectra, labels)
    >>> bool((new_labels["vsini"] > labels["vsini"]).all())
    True
    """

    _parameter_constraints: dict = {
        "vsini": [Interval(Real, 0, None, closed="left"), tuple, list],
        "epsilon": [Interval(Real, 0, 1, closed="both"), tuple, list],
        "label": [str, Integral, None],
    }

    def __init__(
        self,
        vsini: Range = (0.0, 70.0),
        *,
        epsilon: Range = 0.6,
        label: str | int | None = "vsini",
        **shared,
    ):
        super().__init__(**shared)
        self.vsini = vsini
        self.epsilon = epsilon
        self.label = label

    def _draw(self, spectra, rng):
        vsini, epsilon = limits(self.vsini, "vsini", 0), limits(self.epsilon, "epsilon", 0, 1)
        n = len(spectra)
        return {"vsini": uniform(rng, vsini, n), "epsilon": uniform(rng, epsilon, n)}

    def _width(self, draws):
        return draws["vsini"] / C_KMS

    def _transfer(self, a, draws):
        return rotation_transform(a, draws["epsilon"][:, None])

    def _reach(self, fraction):
        epsilon = limits(self.epsilon, "epsilon", 0, 1)[0]
        return rotation_reach(epsilon, fraction) * limits(self.vsini, "vsini", 0)[1] / C_KMS

    def _combined(self, values, draws):
        return np.hypot(values, draws["vsini"])


class InstrumentBroadening(Broadening):
    r"""Lower the resolving power: convolve with a Gaussian of constant width in ln(wavelength).

    .. math:: \sigma^2 = \frac{1}{8 \ln 2} \left(R^{-2} - R_0^{-2}\right), \qquad
              R = \lambda / \mathrm{FWHM}

    Parameters
    ----------
    resolution : float, (low, high) or None
        Resolving power :math:`R` of the result; log-uniform in a range. None leaves spectra as they are.
    from_resolution : float, optional
        Resolving power :math:`R_0` of the spectra. None: infinite.

    Raises
    ------
    ValueError
        When `resolution` is higher than `from_resolution`; and as :class:`RotationalBroadening`.

    Notes
    -----
    Bad pixels, ends of orders and errors: see :class:`RotationalBroadening`.

    Examples
    --------
    >>> from skspec.augmentation import InstrumentBroadening
    >>> from skspec.datasets import make_spectra
    >>> spectra, _ = make_spectra(5, n_pixels=2000, resolution=20000, random_state=0)
    >>> coarse = InstrumentBroadening(5000, from_resolution=20000).augment(spectra)
    >>> coarse.shape
    (5, 2000)
    """

    _parameter_constraints: dict = {
        "resolution": [Interval(Real, 0, None, closed="neither"), tuple, list, None],
        "from_resolution": [Interval(Real, 0, None, closed="neither"), None],
    }

    _forgets = ("resolution",)

    def __init__(
        self, resolution: Range | None = None, *, from_resolution: float | None = None, **shared
    ):
        super().__init__(**shared)
        self.resolution = resolution
        self.from_resolution = from_resolution

    def _limits(self):
        if self.resolution is None:
            return np.inf, np.inf
        low, high = limits(self.resolution, "resolution", np.finfo(float).tiny)
        if self.from_resolution is not None and high > self.from_resolution:
            raise ValueError(
                f"resolution={self.resolution!r} is higher than from_resolution={self.from_resolution}: "
                "no convolution sharpens spectra."
            )
        return low, high

    def _draw(self, spectra, rng):
        pair = self._limits()
        if self.resolution is None:
            return {"resolution": np.full(len(spectra), np.inf)}
        return {"resolution": uniform(rng, pair, len(spectra), log=True)}

    def _width(self, draws):
        before = 0.0 if self.from_resolution is None else self.from_resolution**-2.0
        return np.sqrt(np.maximum(draws["resolution"] ** -2.0 - before, 0.0)) / FWHM

    def _transfer(self, a, draws):
        return np.exp(-0.5 * a * a)

    def _reach(self, fraction):
        width = self._width({"resolution": np.array(self._limits()[0])})
        return gaussian_reach(fraction) * float(width)
