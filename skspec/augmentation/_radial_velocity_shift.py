"""`RadialVelocityShift`: lines where those to come may be."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from skspec._sklearn import Interval
from skspec.augmentation._base import Augmentation, limits, put, uniform
from skspec.solvers.spectra.broadening import shift, sight_of
from skspec.solvers.spectra.line_of_sight import C_KMS, ln_shift, velocity

if TYPE_CHECKING:
    from skspec._typing import Range

__all__ = ["RadialVelocityShift"]


class RadialVelocityShift(Augmentation):
    r"""Move stars: shift spectra by radial velocities.

    .. math:: \ln\lambda' = \ln\lambda + \operatorname{artanh}(v / c)

    Parameters
    ----------
    rv : float or (low, high)
        Radial velocity :math:`v` [km/s], positive when receding; uniform in a range. For spectra
        brought to rest, what their velocities are uncertain by.
    label : str, int or None
        Label that is changed where the labels are given: name of a column, or its number. Velocities
        are added relativistically. None: velocity is a nuisance.

    Raises
    ------
    ValueError
        Without wavelengths, or when these do not ascend within each order; when a velocity shifts every
        pixel out of the spectra.

    Notes
    -----
    Computed in Fourier space on pixels uniform in ln(wavelength), without interpolation; on other grids
    through splines. Lines must be sampled by two pixels per full width or more. Order by order: pixels
    into which any velocity of the range would shift something from beyond the end of an order are bad,
    in all stars: otherwise the bad pixels would tell the velocity.

    Bad pixels move along, bridged by straight lines, and spoil every pixel that is made of them. A
    pixel's `ivar` is that of the nearest pixel it comes from: noise stays as it is on pixels uniform
    in ln(wavelength), and is a little less than stated half way between pixels of other grids. Windows
    that are bad in all stars would still tell the velocity: mask such windows afterwards
    (:class:`TelluricMask`), not before.

    Examples
    --------
    >>> from skspec.augmentation import RadialVelocityShift
    >>> from skspec.datasets import make_spectra
    >>> spectra, labels = make_spectra(5, n_pixels=500, random_state=0)
    >>> moved, new_labels = RadialVelocityShift(30.0).augment(spectra, labels.assign(rv=-30.0))
    >>> new_labels["rv"].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    _parameter_constraints: dict = {
        "rv": [Interval(Real, -C_KMS, C_KMS, closed="neither"), tuple, list],
        "label": [str, Integral, None],
    }

    _forgets = ("frame",)

    def __init__(self, rv: Range = (-5.0, 5.0), *, label: str | int | None = "rv", **shared):
        super().__init__(**shared)
        self.rv = rv
        self.label = label

    def _limits(self):
        return limits(self.rv, "rv", *np.nextafter((-C_KMS, C_KMS), 0))

    def _sight(self, spectra):
        if spectra.wavelength is None:
            raise ValueError(
                "RadialVelocityShift needs the wavelengths: pass Spectra(flux, wavelength=...)."
            )
        return sight_of(spectra.wavelength, spectra.order)

    def _draw(self, spectra, rng):
        return {"rv": uniform(rng, self._limits(), len(spectra))}

    def _apply(self, spectra, draws):
        rows = np.flatnonzero(draws["rv"])
        if not len(rows):
            return spectra
        part = spectra if len(rows) == len(spectra) else spectra[rows]
        good = None if part.ivar is None else part.good
        new, good, moved = shift(
            self._sight(spectra), part.flux, good, part.ivar, ln_shift(draws["rv"][rows])
        )
        ivar = spectra.ivar
        if ivar is not None:
            ivar = put(ivar, rows, np.where(good, moved, 0.0))
        return spectra.replace(flux=put(spectra.flux, rows, new), ivar=ivar)

    def _spoilt(self, spectra):
        low, high = ln_shift(self._limits())
        if (low == high == 0) or self.p == 0:
            return None
        return self._beyond_ends(self._sight(spectra), spectra, low, high)

    def _combined(self, values, draws):
        return velocity(ln_shift(values) + ln_shift(draws["rv"]))
