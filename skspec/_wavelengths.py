"""Wavelengths as numbers: their units, air and vacuum, and when two grids are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["FRAMES", "MEDIA", "air_to_vacuum", "pixel_difference", "to_angstrom", "vacuum_to_air"]

MEDIA = ("air", "vacuum")
FRAMES = ("rest", "barycentric", "heliocentric", "topocentric")
#: names of units without astropy; `None` is the logarithm
FACTORS = {
    "angstrom": 1.0,
    "angstroms": 1.0,
    "aa": 1.0,
    "a": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
    "um": 1e4,
    "micron": 1e4,
    "microns": 1e4,
    "micrometer": 1e4,
    "m": 1e10,
    "log10(angstrom)": None,
    "log10": None,
}
SHORTEST = 2000.0  # Angstrom; bare numbers below are more often nm, micron or logarithms
SAME_PIXEL = 4e-3  # of a pixel: what two grids may differ by, ...
SAME_VELOCITY = 1.2e-7  # ... or relative: rounding to single precision, 36 m/s


def to_angstrom(values: Any, unit: Any = None) -> np.ndarray:
    """Wavelengths in Angstrom, float64, whatever their unit.

    Parameters
    ----------
    values : array-like of shape (P,)
        Numbers or an astropy Quantity; of frequencies, wave numbers and energies, too.
    unit : str or astropy unit, optional
        Of bare numbers: "Angstrom", "nm", "micron", "log10(Angstrom)", ...

    Raises
    ------
    ValueError
        When bare numbers lie below 2000, which may be nm, micron or logarithms, or the unit is none
        of a wavelength.
    """
    own = getattr(values, "unit", None)
    if own is not None and str(own):
        return _converted(getattr(values, "value", values), own)
    values = np.asarray(values, dtype=float)
    if unit is not None:
        factor = FACTORS.get(str(unit).strip().lower(), np.nan)
        if factor is None:
            return 10.0**values
        if factor == 1.0:
            return values
        return values * factor if np.isfinite(factor) else _converted(values, unit)
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() < SHORTEST:
        raise ValueError(
            f"wavelength runs from {finite.min():g} to {finite.max():g}: is that Angstrom? Say so with "
            f"wavelength_unit='Angstrom', or name the unit: {_guess(finite)}. An astropy Quantity "
            "brings its own; what is no wavelength does not belong here."
        )
    return values


def _guess(values):
    low, high = values.min(), values.max()
    if low > 2.9 and high < 5.5:
        return "wavelength_unit='log10(Angstrom)'"
    if high < 30:
        return "wavelength_unit='micron'"
    return "wavelength_unit='nm'"


def _converted(values, unit):
    try:
        from astropy import units
    except ImportError:
        raise ValueError(
            f"wavelength_unit={unit!r} is not known without astropy; use one of {sorted(FACTORS)}, or "
            'python -m pip install "skspec[fits]".'
        ) from None
    try:
        quantity = units.Quantity(np.asarray(values, dtype=float), units.Unit(unit))
        return quantity.to_value(units.AA, equivalencies=units.spectral())
    except (ValueError, TypeError, units.UnitConversionError) as error:
        raise ValueError(
            f"wavelength has the unit {str(unit)!r}, which is none of a wavelength ({error})."
        ) from None


def air_to_vacuum(wavelength: ArrayLike) -> np.ndarray:
    r"""Vacuum wavelengths of air wavelengths.

    Parameters
    ----------
    wavelength : array-like
        In air [Angstrom], or an astropy Quantity. `Spectra` are converted as by
        :meth:`~skspec.Spectra.to_medium`.

    Returns
    -------
    ndarray
        In vacuum [Angstrom]; below 2000 Angstrom, where wavelengths are always those in vacuum,
        as they are.

    See Also
    --------
    skspec.Spectra.to_medium : For spectra.

    Notes
    -----
    :math:`\lambda_{vac} = n \lambda_{air}` with, for :math:`s = 10^4 / \lambda_{air}`,

    .. math:: n = 1 + 8.336624212083 \times 10^{-5} + \frac{0.02408926869968}{130.1065924522 - s^2}
              + \frac{0.0001599740894897}{38.92568793293 - s^2},

    the inverse (N. Piskunov, for VALD) of the dispersion formula of Birch & Downs 1994, Metrologia
    31, 315; good to 1e-5 Angstrom from 2000 Angstrom to the near infrared.

    Examples
    --------
    >>> from skspec import air_to_vacuum
    >>> air_to_vacuum(6562.80).round(2)
    np.float64(6564.61)
    """
    if hasattr(wavelength, "to_medium"):
        return wavelength.to_medium("vacuum")
    wavelength = to_angstrom(wavelength, "Angstrom")
    squared = (1e4 / wavelength) ** 2
    index = (
        1.00008336624212083
        + 0.02408926869968 / (130.1065924522 - squared)
        + 0.0001599740894897 / (38.92568793293 - squared)
    )
    return np.where(wavelength < SHORTEST, wavelength, wavelength * index)[()]


def vacuum_to_air(wavelength: ArrayLike) -> np.ndarray:
    """Air wavelengths of vacuum wavelengths: the inverse of `air_to_vacuum`, to 1e-9 Angstrom.

    Parameters
    ----------
    wavelength : array-like
        In vacuum [Angstrom], or an astropy Quantity, or `Spectra`.

    Returns
    -------
    ndarray
        In air [Angstrom]; below 2000 Angstrom as they are.

    Examples
    --------
    >>> from skspec import vacuum_to_air
    >>> vacuum_to_air(6564.61).round(2)
    np.float64(6562.8)
    """
    if hasattr(wavelength, "to_medium"):
        return wavelength.to_medium("air")
    vacuum = to_angstrom(wavelength, "Angstrom")
    air = vacuum
    for _ in range(4):  # a contraction by 1e-7 at least
        air = air * vacuum / air_to_vacuum(air)
    return np.where(vacuum < SHORTEST, vacuum, air)[()]


def pixel_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two grids [pixels]; 0 where it is none, inf for unequal lengths."""
    if one.shape != other.shape:
        return np.inf
    if len(one) < 2:
        apart = np.abs(one - other)
        return float(np.max(apart / np.abs(one), initial=0.0)) if np.any(apart) else 0.0
    apart = np.abs(one - other)
    if not apart.any():
        return 0.0
    step = np.abs(np.diff(one))
    pixel = np.minimum(np.append(step, step[-1]), np.append(step[0], step))
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.where(apart > SAME_VELOCITY * np.abs(one), apart / pixel, 0.0)
    return float(difference.max()) if difference.max() > SAME_PIXEL else 0.0
