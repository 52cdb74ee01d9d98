"""`to_rest_frame`: stars at rest, on pixels that all share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skspec._common_grid import resampled
from skspec._pixel_values import plain_array
from skspec._wavelengths import to_angstrom
from skspec.solvers.spectra.line_of_sight import C_KMS, ln_shift, velocity
from skspec.solvers.spectra.resampling import BAD_FRACTION, MAX_GAP
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["to_rest_frame"]

_MISSING = (-9999.0, -999.0, 9999.0, 99999.0)  # how catalogues say that they do not know


def to_rest_frame(
    spectra: Spectra,
    rv: ArrayLike | None = None,
    grid: ArrayLike | None = None,
    *,
    method: str = "cubic",
    bad_fraction: float = BAD_FRACTION,
    max_gap: float = MAX_GAP,
) -> Spectra:
    r"""Take the radial velocity out of each spectrum.

    .. math:: \lambda_{rest} = \lambda \sqrt{\frac{1 - v / c}{1 + v / c}}

    Parameters
    ----------
    spectra : Spectra
        With wavelengths.
    rv : float or array-like of shape (n,), optional
        Radial velocity :math:`v` of each star against the frame of the spectra, positive when receding
        [km/s, or a Quantity]. Default: ``spectra.meta["rv"]``.
    grid : array-like of shape (P',), optional
        Wavelengths of the new pixels, increasing [Angstrom, or a Quantity]. Default: those of the
        spectra, with their orders.
    method : {"cubic", "linear", "flux_conserving"}
        How the flux is resampled, see :class:`Resampler`. "cubic" keeps lines as sharp as they are;
        "flux_conserving" is for coarser grids, and averages neighbours on pixels of the same size.
    bad_fraction, max_gap : float
        See :class:`Resampler`.

    Returns
    -------
    Spectra
        With ``frame="rest"``. ``meta["rv_removed"]`` (n,) is the velocity taken out [km/s]; what had
        been removed before is added, relativistically.

    Raises
    ------
    ValueError
        Without wavelengths or velocities; for spectra at rest (``frame="rest"``) unless `rv` is given,
        which then is what is left of it; for velocities that are missing, masked, or none.

    See Also
    --------
    Resampler : For the same velocity of all stars, or none.
    skspec.augmentation.RadialVelocityShift : The other way round, for training.

    Notes
    -----
    Errors, bad pixels, holes of the grid and orders are treated as by :class:`Resampler`: pixels that
    come from a hole, from bad pixels or from beyond the ends have ``ivar`` 0. With the default grid each
    order stays by itself; on a given `grid` they are averaged, and ``order`` is None.

    `resolution` per pixel is taken to the new pixels without the shift, by which it changes little.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.preprocessing import to_rest_frame
    >>> wavelength = np.linspace(6500, 6640, 281)
    >>> line = 1 - 0.5 * np.exp(-0.5 * (wavelength - 6562.8 * (1 + 200 / 299792.458)) ** 2)
    >>> star = Spectra(line, wavelength=wavelength, frame="barycentric")
    >>> rest = to_rest_frame(star, 200.0)
    >>> rest.frame, rest.meta["rv_removed"].round(3).tolist()
    ('rest', [200.0])
    >>> line = rest.window(6550, 6580)
    >>> float(line.wavelength[line.flux[0].argmin()])
    6563.0
    """
    if not isinstance(spectra, Spectra):
        raise ValueError("to_rest_frame takes Spectra(flux, wavelength=...), not an array.")
    if spectra.wavelength is None:
        raise ValueError("to_rest_frame needs the wavelengths: pass Spectra(flux, wavelength=...).")
    shift = ln_shift(_velocities(spectra, rv))
    new_grid = spectra.wavelength if grid is None else to_angstrom(grid, "Angstrom")
    if grid is not None and np.ndim(new_grid) == 1 and np.any(np.diff(new_grid) <= 0):
        raise ValueError("grid, the wavelengths of the new pixels, must increase.")
    new_order = spectra.order if grid is None else None

    flux, ivar = resampled(
        spectra,
        new_grid,
        np.exp(shift),
        method,
        new_order=new_order,
        bad_fraction=bad_fraction,
        max_gap=max_gap,
    )
    removed = ln_shift(np.broadcast_to(spectra.meta.get("rv_removed", 0.0), len(spectra)))
    return spectra.replace(
        flux=flux,
        ivar=ivar,
        wavelength=new_grid,
        wavelength_unit="Angstrom",
        order=new_order,
        meta=spectra.meta | {"rv_removed": velocity(removed + shift)},
        **spectra.about_on(new_grid) | {"frame": "rest"},
    )


def _velocities(spectra, rv):
    """Velocities (n,) in km/s, all known."""
    if rv is None and spectra.frame == "rest":
        raise ValueError(
            "These spectra are at rest already (frame='rest'); give rv= to take out what is left."
        )
    if rv is None and "rv" not in spectra.meta:
        raise ValueError(
            "to_rest_frame does not know the velocities: give rv=, or spectra with meta={'rv': ...} "
            "[km/s]."
        )
    values, mask, unit = plain_array(spectra.meta["rv"] if rv is None else rv, "rv")
    if unit is not None:
        values = _in_km_s(values, unit)
    if mask is not None:
        values = np.where(mask, np.nan, values)
    if values.shape not in {(), (len(spectra),), (len(spectra), 1)}:
        raise ValueError(
            f"rv has shape {values.shape}; give one velocity, or one for each of the {len(spectra)} "
            "stars."
        )
    values = np.broadcast_to(values.ravel() if values.ndim else values, len(spectra))
    wrong = ~(np.abs(values) < C_KMS) | np.isin(values, _MISSING)
    if wrong.any():
        rows = np.flatnonzero(wrong)
        raise ValueError(
            f"The velocities of {len(rows)} of {len(values)} stars are missing or none (rows "
            f"{', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}: "
            f"{values[rows[0]]:g} km/s); leave these stars out or give their velocities."
        )
    return values


def _in_km_s(values, unit):
    from astropy import units

    try:
        return units.Quantity(values, unit).to_value("km/s")
    except (ValueError, units.UnitConversionError) as error:
        raise ValueError(
            f"rv has the unit {unit!r}, which is none of a velocity ({error})."
        ) from None
