"""Values of pixels as plain numbers: their masks, their units, and which of them tell nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "as_narrow",
    "float_array",
    "in_unit",
    "ivar_from_error",
    "ivar_in",
    "mask_of",
    "plain_array",
    "refuse_containers",
    "without_information",
]

NO_INFORMATION = 1e7  # an error this many times a star's flux and its usual error marks a bad pixel
SURVEYS_BAD, AT_LEAST = 1e9, 1e4  # ... as one this large does (APOGEE: 1e10), if this many times
HOPELESS = 1e8  # ... and this many times the flux, even where the star has no smaller one


def plain_array(values: Any, name: str) -> tuple[np.ndarray, np.ndarray | None, str | None]:
    """Numbers (float32 or float64), their mask and their unit, of whatever holds numbers.

    Knows masked arrays of numpy and astropy, Quantity, table columns, pandas, polars and xarray, and
    lists of these.
    """
    if isinstance(values, (list, tuple)) and any(
        hasattr(v, "mask") or hasattr(v, "unit") for v in values
    ):
        return _rows_of(values, name)
    unit = getattr(values, "unit", None)
    mask = getattr(values, "mask", None) if hasattr(values, "unmasked") else None
    if hasattr(values, "unmasked"):  # astropy's Masked
        values = values.unmasked
    if np.ma.isMaskedArray(values):
        mask = np.ma.getmaskarray(values) if np.ma.is_masked(values) else None
        values = values.data
    values = getattr(values, "value", values) if unit is not None else values
    unit = None if unit is None or not str(unit) else str(unit)
    return float_array(values, name), None if mask is None else np.asarray(mask, bool), unit


def mask_of(values):
    """Mask of a masked array of numpy or astropy; False without one."""
    masked = np.ma.isMaskedArray(values) or hasattr(values, "unmasked")
    return np.asarray(values.mask, bool) if masked else False


def _rows_of(values, name):
    """`plain_array` of a list of spectra, some of which bring a mask or a unit."""
    rows, masks, units = zip(*[plain_array(row, name) for row in values])
    if len(set(units)) > 1:
        different = " and ".join(sorted(map(str, set(units))))
        raise ValueError(f"{name} is a list of spectra in {different}: convert them to one unit.")
    array = float_array(list(rows), name)
    if all(mask is None for mask in masks):
        return array, None, units[0]
    masks = [np.zeros(np.shape(row), bool) if m is None else m for row, m in zip(rows, masks)]
    return array, np.array(masks), units[0]


def refuse_containers(values: Any) -> None:
    """Name the way in for what holds more than a flux."""
    kind = f"{type(values).__module__.partition('.')[0]}.{type(values).__name__}"
    if hasattr(values, "spectral_axis") or (
        isinstance(values, (list, tuple)) and values and hasattr(values[0], "spectral_axis")
    ):
        raise ValueError(f"flux is a {kind}: use Spectra.from_specutils(...).")
    if hasattr(values, "coords") and hasattr(values, "dims"):
        raise ValueError(
            f"flux is a {kind}: use Spectra.from_xarray(...), which keeps wavelengths."
        )
    if hasattr(values, "colnames") or getattr(values, "dtype", np.dtype(float)).names:
        raise ValueError(
            f"flux is a table ({kind}); give its columns: Spectra(table['flux'], ivar=table['ivar'], "
            "wavelength=...)."
        )


def in_unit(values, name, flux_unit, power):
    """Errors in the unit of the flux, and their mask."""
    if values is None:
        return None, None
    if hasattr(values, "represent_as") and hasattr(values, "uncertainty_type"):
        values = _uncertainty(values, name)
    array, mask, unit = plain_array(values, name)
    if unit is None:
        return array, mask
    if flux_unit is None:
        raise ValueError(
            f"{name} has the unit {unit!r} and the flux has none; give flux as a Quantity, or "
            "flux_unit=."
        )
    from astropy import units

    try:
        return units.Quantity(array, unit).to_value(units.Unit(flux_unit) ** power), mask
    except (ValueError, TypeError, units.UnitConversionError) as error:
        raise ValueError(f"{name} does not fit a flux in {flux_unit!r} ({error}).") from None


def ivar_in(ivar, old, new):
    """Inverse variances of a flux in one unit, for another."""
    if ivar is None or str(new) == old:
        return ivar
    from astropy import units

    try:
        return ivar * units.Unit(old).to(new) ** -2.0
    except (ValueError, TypeError, units.UnitConversionError) as error:
        raise ValueError(
            f"flux is in {str(new)!r}, and the errors are those of a flux in {old!r} ({error}); give "
            "flux_err= or ivar=, too."
        ) from None


def _uncertainty(values, name):
    """Array, with its unit, of an NDUncertainty of astropy."""
    from astropy import nddata

    kind = nddata.StdDevUncertainty if name == "flux_err" else nddata.InverseVariance
    values = values.represent_as(kind)
    return values.array if values.unit is None else values.quantity


def float_array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, (list, tuple)):
        lengths = {np.size(row) for row in values}
        if len(lengths) > 1:
            raise ValueError(
                f"{name} is a list of spectra of different lengths, {min(lengths)} to {max(lengths)} "
                "pixels: make Spectra(flux, wavelength=...) of each, and bring them to one grid with "
                "skspec.concatenate(spectra, grid=...), skspec.preprocessing.Resampler, or "
                "skspec.datasets.read_spectra(files, grid=...)."
            )
    if hasattr(values, "isna"):  # pandas, whose missing values are no numbers
        values = values.to_numpy(dtype=float, na_value=np.nan)
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    values = values if isinstance(values, np.memmap) else np.asarray(values)  # no Column of astropy
    if values.dtype in (np.float32, np.float64):
        return values
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex")
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold real numbers ({error}).") from None


def ivar_from_error(error):
    usable = np.isfinite(error) & (error > 0)
    # in double: squared, errors of 1e-20 erg/s/cm2/Angstrom leave the range of single precision
    with np.errstate(divide="ignore", over="ignore"):
        ivar = np.where(usable, 1.0 / np.square(np.where(usable, error, 1.0), dtype=float), 0.0)
    return as_narrow(ivar, error.dtype)


def as_narrow(ivar: np.ndarray, dtype: Any) -> np.ndarray:
    """Inverse variances in `dtype` where its range holds them."""
    limits = np.finfo(dtype)
    known = ivar[(ivar > 0) & np.isfinite(ivar)]
    fits = not known.size or (known.min() > limits.tiny and known.max() < limits.max)
    return ivar.astype(dtype, copy=False) if fits else ivar


def without_information(flux, ivar):
    """Pixels whose error is beyond any use; None for none (found without a median, mostly)."""
    known = (ivar > 0) & np.isfinite(ivar)
    if not known.any():
        return None
    largest = np.max(ivar, initial=0.0, where=known)
    smallest = np.min(ivar, initial=np.inf, where=known)
    brightest = np.max(np.abs(flux), initial=0.0, where=known)
    with np.errstate(over="ignore", under="ignore"):
        suspicious = smallest < np.float64(largest) / AT_LEAST**2
        hopeless = np.sqrt(np.float64(smallest)) * brightest < 1.0 / HOPELESS
    if not (suspicious or hopeless):
        return None
    out = np.zeros(flux.shape, dtype=bool)
    for row in np.flatnonzero(known.any(axis=1)):
        good = np.flatnonzero(known[row])
        size, error = (
            np.abs(flux[row, good]).astype(float),
            1 / np.sqrt(ivar[row, good], dtype=float),
        )
        while len(good):  # without those, the median may tell of more
            brightness = np.median(size / 2) * 2
            typical = max(brightness, np.median(error))
            useless = error / NO_INFORMATION > typical
            useless |= (error >= SURVEYS_BAD) & (error / AT_LEAST > typical)
            if brightness > 0:
                useless |= error / HOPELESS > brightness
            if not useless.any():
                break
            out[row, good[useless]] = True
            good, size, error = good[~useless], size[~useless], error[~useless]
    return out if out.any() else None
