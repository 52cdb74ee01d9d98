"""What other packages keep spectra in, as the arguments of `Spectra`: specutils and xarray.

They are known by what they have, so that nothing is imported to read them. The names that columns and
variables go by are those of the readers of tables, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from skspec._wavelengths import FRAMES, MEDIA, to_angstrom

__all__ = [
    "NAMES",
    "POWERS",
    "find_name",
    "from_specutils",
    "from_xarray",
    "medium_of_name",
    "plain_name",
    "to_specutils",
]

Spectra = Any  # the class comes after

#: how columns are called, by what they hold; the first of a list is preferred
NAMES: dict[str, tuple[str, ...]] = {
    "wavelength": (
        *("wavelength", "wave", "lambda", "lam", "wl", "wavelengths", "waves", "wavel", "wlen"),
        *("wvl", "lamb", "lambdas", "spectral_axis", "wavelength_vac", "wavelength_air"),
        *("wave_vac", "wave_air", "lambda_vac", "lambda_air", "vacuum_wavelength"),
        *("air_wavelength", "vac_wave", "air_wave", "wave_vacuum", "wavelength_vacuum"),
    ),
    "log_wavelength": (
        *("loglam", "log_lam", "log_lambda", "loglambda", "log_wave", "logwave", "loglambda10"),
        *("log_wavelength", "logwavelength", "log10_wavelength", "log10_lambda", "log10lam"),
        *("log10_wave", "log_wl", "logwl", "log10wave", "log10lambda", "log10_lam"),
    ),
    "flux": (
        *(
            "flux",
            "fluxes",
            "flux_density",
            "fluxdensity",
            "f",
            "fl",
            "flam",
            "f_lambda",
            "flambda",
        ),
        *("f_lam", "fnu", "f_nu", "normalized_flux", "normalised_flux", "norm_flux", "normflux"),
        *("flux_norm", "flux_normalized", "flux_normalised", "nflux", "rel_flux", "relative_flux"),
        *("intensity", "spectrum", "spec", "counts", "adu"),
    ),
    "ivar": (
        *(
            "ivar",
            "flux_ivar",
            "ivar_flux",
            "invvar",
            "inv_var",
            "inverse_variance",
            "inversevariance",
        ),
        *("fluxivar", "ivars", "flux_inverse_variance"),
    ),
    "variance": (
        "variance",
        "var",
        "flux_var",
        "flux_variance",
        "var_flux",
        "fluxvar",
        "variances",
    ),
    "flux_err": (
        *("flux_err", "flux_error", "error", "err", "sigma", "errors", "errs", "sig", "fluxerr"),
        *(
            "fluxerror",
            "flux_errors",
            "flux_sigma",
            "sigma_flux",
            "err_flux",
            "error_flux",
            "e_flux",
        ),
        *("eflux", "ferr", "f_err", "uncertainty", "flux_uncertainty", "unc", "flux_unc", "uncert"),
        *(
            "uncertainties",
            "noise",
            "std",
            "stdev",
            "stddev",
            "flux_std",
            "dflux",
            "d_flux",
            "serr",
        ),
        *("fluxsigma", "sigmas", "flux_sig", "efluxes", "standard_deviation", "e_f", "sigma_f"),
    ),
    "mask": (
        *("mask", "bad", "bad_pixel", "bad_pixels", "badpix", "is_bad", "masked", "flux_mask"),
        *("mask_flux", "pixmask", "andmask", "and_mask", "dq", "qual", "quality"),
        *("flags", "pixel_flags", "bitmask", "pixel_mask"),
    ),
    "good": ("good", "good_pixel", "good_pixels", "goodpix", "is_good", "valid"),
    "order": ("order", "orders", "echelle_order", "order_number", "arm", "chip", "ccd"),
    "resolution": ("resolution", "resolving_power", "spectral_resolution"),
}
#: of the unit of the flux, in that of errors
POWERS = {"ivar": -2, "variance": 2, "flux_err": 1}
UNITS_OF_NAMES = {
    **dict.fromkeys(("a", "aa", "ang", "angs", "angstrom", "angstroms", "angstroem"), "Angstrom"),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), "nm"),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "mum", "micrometre"), "micron"),
}


def plain_name(name: Any) -> tuple[str, str]:
    """A column's name without its unit, in lower case, and the unit: of ``wave [nm]``, ``wave_nm``."""
    name = str(name).strip().lower()
    # in linear time: a damaged file may have a name of any length
    match = re.fullmatch(r"([^\[({]*)[\[({](.*)[\])}]", name)
    name, unit = (part.strip() for part in match.groups()) if match else (name, "")
    if name in ("log", "log10") and unit:  # log10(wave)
        name, unit = f"{name}_{unit}", ""
    name = re.sub(r"[\s.\-]+", "_", name.strip("# \t")).strip("_")
    stem, _, last = name.rpartition("_")
    if not unit and last in UNITS_OF_NAMES and stem in NAMES["wavelength"]:
        return stem, UNITS_OF_NAMES[last]
    return name, UNITS_OF_NAMES.get(unit, unit)


def find_name(kind: str, names: Iterable[Any]) -> str | None:
    """Which of these names holds a quantity of `NAMES`; None for none of them."""
    known = {plain_name(name)[0]: name for name in reversed(list(names))}
    return next((known[name] for name in NAMES[kind] if name in known), None)


def medium_of_name(name: Any) -> str | None:
    """Air or vacuum, where a column of wavelengths says so."""
    parts = plain_name(name)[0].split("_")
    if "air" in parts:
        return "air"
    return "vacuum" if {"vac", "vacuum"} & set(parts) else None


# -- specutils -------------------------------------------------------------------------------------


def from_specutils(spectrum: Any) -> list[dict[str, Any]]:
    """Arguments of `Spectra`, one set for each grid, of what specutils keeps spectra in."""
    parts: list[dict[str, Any]] = []
    _collect(spectrum, parts)
    if not parts:
        raise ValueError("There is no spectrum in what was given to from_specutils.")
    return _orders_joined(parts)


def _collect(spectrum, parts):
    if _is_spectrum(spectrum):
        if np.ndim(spectrum.spectral_axis) > 1:  # a SpectrumCollection
            parts.extend(_of_collection(spectrum))
        else:
            parts.append(_of_spectrum(spectrum))
    elif isinstance(spectrum, Iterable) and not isinstance(spectrum, (str, bytes, Mapping)):
        for one in spectrum:
            if one is spectrum:
                break
            _collect(one, parts)
    else:
        raise ValueError(
            f"{type(spectrum).__name__} is no Spectrum, SpectrumList or SpectrumCollection of "
            "specutils, nor a list of these."
        )


def _is_spectrum(value):
    return hasattr(value, "spectral_axis") and hasattr(value, "flux")


def _of_spectrum(spectrum):
    axis = getattr(spectrum, "spectral_axis_index", None)
    ndim = np.ndim(spectrum.flux)
    axis = ndim - 1 if axis is None else int(axis)
    part = _arrays(spectrum, lambda values: np.moveaxis(values, axis, -1))
    n = len(part["flux"])
    part["wavelength"] = _angstrom(spectrum.spectral_axis)
    part["meta"], part["about"] = _known_meta(getattr(spectrum, "meta", None), n)
    velocity = _radial_velocity(spectrum, n)
    if velocity is not None:
        part["meta"]["rv"] = velocity
    return _rising(part)


def _of_collection(collection):
    """One set for each row: every one may have pixels of its own."""
    axis = collection.spectral_axis
    whole = _arrays(collection, lambda values: values)
    n = len(whole["flux"])
    rows = axis.reshape(n, axis.shape[-1])
    metas = getattr(collection, "meta", None)
    metas = list(metas) if isinstance(metas, (list, tuple)) and len(metas) == n else [metas] * n
    for i in range(n):
        part = {
            name: values[i : i + 1] if name in ("flux", "ivar", "flux_err", "mask") else values
            for name, values in whole.items()
        }
        meta, about = _known_meta(metas[i], 1)
        part |= {"wavelength": _angstrom(rows[i]), "meta": meta, "about": about}
        yield _rising(part)


def _arrays(spectrum, last):
    """Flux, errors and mask as (n, P), with the unit of the flux."""
    flux = spectrum.flux
    unit = str(getattr(flux, "unit", "") or "")
    values = last(np.asarray(getattr(flux, "value", flux)))
    n_pixels = values.shape[-1]

    def rows(array):
        return last(np.broadcast_to(array, np.shape(flux))).reshape(-1, n_pixels)

    part: dict[str, Any] = {"flux": values.reshape(-1, n_pixels), "flux_unit": unit or None}
    if getattr(spectrum, "uncertainty", None) is not None:
        name, errors = _errors(spectrum.uncertainty, flux)
        part[name] = rows(errors)
    if getattr(spectrum, "mask", None) is not None:
        part["mask"] = rows(np.asarray(spectrum.mask) != 0)
    return part


def _errors(uncertainty, flux):
    """Name and numbers, in the unit of the flux, of an NDUncertainty."""
    kind = getattr(uncertainty, "uncertainty_type", "unknown")
    powers = {"std": 1, "var": 2, "ivar": -2}
    if kind not in powers:
        raise ValueError(
            f"The uncertainty of the spectrum is of the type {kind!r}, which does not say what the "
            "numbers are; give astropy's StdDevUncertainty, VarianceUncertainty or InverseVariance."
        )
    array = np.asarray(getattr(uncertainty.array, "value", uncertainty.array))
    wanted = getattr(flux, "unit", None)
    if uncertainty.unit is not None and wanted is not None:
        array = array * uncertainty.unit.to(wanted ** powers[kind])
    if kind == "var":
        with np.errstate(invalid="ignore"):
            array = np.sqrt(np.asarray(array, dtype=float))
    return ("ivar" if kind == "ivar" else "flux_err"), array


def _angstrom(axis):
    """Of a spectral axis in any unit, velocities of a line included."""
    unit = str(getattr(axis, "unit", ""))
    if unit in ("", "pix", "pixel"):
        raise ValueError(
            f"The spectral axis of the spectrum is in {unit or 'no unit'}: it has no wavelengths. Give "
            "spectral_axis a unit of wavelength, frequency, wave number or energy."
        )
    try:
        return to_angstrom(axis)
    except ValueError:
        convertible = hasattr(axis, "doppler_rest") and axis.doppler_rest is not None
        if not convertible:
            raise
    from astropy import units

    return axis.to_value(units.AA)


def _resolution(about, n_pixels, falls):
    """Of one number, or one per pixel; anything else is none of ours."""
    values = np.asarray(about.pop("resolution", np.nan))
    if values.dtype.kind in "iuf" and values.shape in ((), (n_pixels,)) and np.all(values > 0):
        about["resolution"] = values[::-1] if values.ndim and falls else values[()]
    return about


def _rising(part):
    """Blue to red: frequencies fall."""
    n_pixels = len(part["wavelength"])
    falls = n_pixels > 1 and bool(np.all(np.diff(part["wavelength"]) < 0))
    part["about"] = _resolution(part["about"], n_pixels, falls)
    if falls:
        for name in ("flux", "ivar", "flux_err", "mask", "wavelength"):
            if name in part:
                part[name] = part[name][..., ::-1]
    return part


def _radial_velocity(spectrum, n):
    """[km/s] of each star, where one is set: specutils has 0 where it does not know."""
    velocity = getattr(spectrum, "radial_velocity", None)
    if velocity is None:
        return None
    velocity = np.ravel(velocity.to_value("km/s") if hasattr(velocity, "to_value") else velocity)
    if velocity.size not in (1, n) or not np.any(velocity):
        return None
    return np.broadcast_to(velocity, n).astype(float)


def _known_meta(meta, n):
    """Entries of one number or text, or one for each star; and what `Spectra` know themselves."""
    about: dict[str, Any] = {}
    out: dict[str, Any] = {}
    for name, value in (meta or {}).items() if isinstance(meta, Mapping) else ():
        text = value.strip().lower() if isinstance(value, str) else value
        if name == "medium" and isinstance(text, str) and text in MEDIA:
            about["medium"] = text
        elif name == "frame" and isinstance(text, str) and text in FRAMES:
            about["frame"] = text
        elif name == "resolution":
            about["resolution"] = value
        elif name == "flux_unit" and isinstance(value, str):
            about["flux_unit"] = value
        elif isinstance(value, (str, bool, int, float, np.generic)):
            out[str(name)] = np.full(n, value)
        elif isinstance(value, (list, tuple, np.ndarray)) and np.shape(value) == (n,) and n > 1:
            out[str(name)] = np.asarray(value)
    return out, about


def _orders_joined(parts):
    """Spectra that say which order of which star they are, as one for each star."""
    known = [{"order", "row"} <= part["meta"].keys() and len(part["flux"]) == 1 for part in parts]
    if not all(known):
        return parts
    stars: dict[int, list[dict[str, Any]]] = {}
    for part in parts:
        stars.setdefault(int(part["meta"]["row"][0]), []).append(part)
    out = []
    for orders in stars.values():
        first = orders[0]
        joined = {name: first[name] for name in ("flux_unit", "about", "meta")}
        sizes = [len(part["wavelength"]) for part in orders]
        joined["order"] = np.repeat([int(part["meta"]["order"][0]) for part in orders], sizes)
        for name in ("wavelength", "flux", "ivar", "flux_err", "mask"):
            if all(name in part for part in orders):
                joined[name] = np.concatenate([part[name] for part in orders], axis=-1)
        resolution = [part["about"].get("resolution") for part in orders]
        if any(np.ndim(values) for values in resolution):
            rows = [np.broadcast_to(r, n) for r, n in zip(resolution, sizes)]
            joined["about"] = first["about"] | {"resolution": np.concatenate(rows)}
        for name in ("order", "row"):
            del joined["meta"][name]
        out.append(joined)
    return out


def to_specutils(spectra: Spectra) -> Any:
    """`SpectrumList` with one `Spectrum` for each star and order."""
    if spectra.wavelength is None:
        raise ValueError("These spectra have no wavelengths, which specutils asks for.")
    try:
        from astropy import units
        from astropy.nddata import InverseVariance
        from specutils import Spectrum, SpectrumList
    except ImportError as error:
        raise ImportError(
            'to_specutils needs specutils: python -m pip install "skspec[fits]".'
        ) from error
    unit, unit_name = _unit(spectra.flux_unit, units)
    about: dict[str, Any] = {
        name: value for name in ("medium", "frame") if (value := getattr(spectra, name)) is not None
    }
    if unit_name:
        about["flux_unit"] = unit_name
    n, n_pixels = spectra.shape
    orders = [slice(None)]
    if spectra.order is not None:
        orders = [np.flatnonzero(spectra.order == k) for k in dict.fromkeys(spectra.order.tolist())]
    out = SpectrumList()
    for i in range(n):
        star = about | _meta_of(spectra.meta, i, n)
        velocity = {}
        if spectra.frame != "rest" and np.isfinite(_number(star.get("rv"))):
            velocity["radial_velocity"] = float(star["rv"]) * units.km / units.s
        for pixels in orders:
            meta = dict(star)
            if spectra.order is not None:
                meta |= {"row": i, "order": int(spectra.order[pixels][0])}
            if spectra.resolution is not None:
                full = np.shape(spectra.resolution)
                values = spectra.resolution[i] if len(full) == 2 else spectra.resolution
                meta["resolution"] = values[pixels] if np.shape(values) == (n_pixels,) else values
                if np.size(meta["resolution"]) == 1:
                    meta["resolution"] = float(np.ravel(meta["resolution"])[0])
            parts: dict[str, Any] = {}
            if spectra.ivar is not None:
                ivar = spectra.ivar[i, pixels]
                parts["mask"] = ivar == 0
                if spectra.has_errors:
                    parts["uncertainty"] = InverseVariance(ivar, unit=unit**-2)
            try:
                one = Spectrum(
                    flux=spectra.flux[i, pixels] * unit,
                    spectral_axis=spectra.wavelength[pixels] * units.AA,
                    meta=meta,
                    **parts,
                    **velocity,
                )
            except ValueError as error:
                raise ValueError(
                    f"specutils does not take these wavelengths ({error}) Name the order of each "
                    "pixel with spectra.replace(order=...)."
                ) from error
            out.append(one)
    return out


def _unit(name, units):
    """Astropy's unit; and the name, where it does not know it."""
    if name is None:
        return units.dimensionless_unscaled, ""
    try:
        unit = units.Unit(name)
    except (ValueError, TypeError):
        return units.dimensionless_unscaled, name
    return unit, "" if str(unit) == name else name


def _meta_of(meta, row, n):
    """Numbers and texts of a star, or of all of them."""
    out = {}
    for name, value in meta.items():
        if isinstance(value, (str, bool, int, float, np.generic)):
            out[name] = value
        elif np.ndim(value) == 1 and len(value) == n:
            value = np.asarray(value)[row]
            out[name] = value.item() if isinstance(value, np.generic) else value
    return out


def _number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


# -- xarray ----------------------------------------------------------------------------------------


def from_xarray(array: Any) -> dict[str, Any]:
    """Arguments of `Spectra` of a DataArray or Dataset with a coordinate of wavelengths."""
    if not (hasattr(array, "dims") and hasattr(array, "coords")):
        raise ValueError(f"{type(array).__name__} is no DataArray or Dataset of xarray.")
    variables = dict(array.coords.items())
    if hasattr(array, "data_vars"):
        variables |= dict(array.data_vars.items())
        flux = _flux_of_dataset(array)
    else:
        flux = array
    name = find_name("wavelength", variables) or find_name("log_wavelength", variables)
    if name is None:
        raise ValueError(
            f"There is no coordinate of wavelengths (wavelength, wave, loglam, ...) among "
            f"{sorted(map(str, variables))}; rename yours: array.rename(x='wavelength')."
        )
    coordinate = variables[name]
    if coordinate.ndim != 1 or coordinate.dims[0] not in flux.dims:
        raise ValueError(
            f"The wavelengths {name!r} have the dimensions {coordinate.dims}; Spectra need one grid "
            f"for all stars, along one dimension of the flux {flux.dims}."
        )
    pixel = coordinate.dims[0]
    stars = [dim for dim in flux.dims if dim != pixel]
    shape = [flux.sizes[dim] for dim in (*stars, pixel)]
    n = int(np.prod(shape[:-1]))
    about = array.attrs | flux.attrs
    part: dict[str, Any] = {
        "flux": _as_rows(flux, stars, pixel, shape),
        "wavelength": _coordinate(name, coordinate),
        "meta": {},
    }
    part |= {"medium": medium_of_name(name)} | _about(about, coordinate.attrs)
    for kind in ("ivar", "flux_err", "variance", "mask", "good", "order"):
        found = find_name(kind, variables)
        if found is not None and pixel in variables[found].dims:
            part[kind] = variables[found]
    if "order" in part:
        part["order"] = np.asarray(part["order"].values).astype(int)
    for kind in ("ivar", "flux_err", "variance", "mask", "good"):
        if kind in part:
            factor = _to_unit_of_flux(kind, part[kind].attrs, part.get("flux_unit"))
            part[kind] = _as_rows(part[kind], stars, pixel, shape)
            if factor != 1:
                part[kind] = factor * part[kind]
    for name, values in variables.items():
        if stars and set(values.dims) and set(values.dims) <= set(stars):
            full = values.broadcast_like(flux.isel({pixel: 0})).transpose(*stars)
            part["meta"][str(name)] = np.asarray(full.values).reshape(n)
        elif not values.dims and np.ndim(values.values) == 0:
            part["meta"][str(name)] = np.full(n, values.values)
    return _with_one_error(part)


def _to_unit_of_flux(kind, attrs, flux_unit):
    """What errors with a unit of their own are multiplied by, to be in that of the flux."""
    unit = attrs.get("units", attrs.get("unit"))
    power = POWERS.get(kind)
    if not unit or power is None:
        return 1.0
    if not flux_unit:
        raise ValueError(f"{kind} has the unit {unit!r} and the flux has none; give it one, too.")
    from astropy import units

    try:
        return units.Unit(unit).to(units.Unit(flux_unit) ** power)
    except (ValueError, TypeError, units.UnitConversionError) as error:
        if power == 1 and str(unit) == str(flux_unit):
            return 1.0  # spelled in a way that astropy does not know
        raise ValueError(
            f"{kind} in {unit!r} does not fit a flux in {flux_unit!r} ({error})."
        ) from None


def _flux_of_dataset(dataset):
    name = find_name("flux", dataset.data_vars)
    if name is None:
        raise ValueError(
            f"There is no variable of fluxes (flux, f_lambda, counts, ...) among "
            f"{sorted(map(str, dataset.data_vars))}; rename yours: dataset.rename(x='flux')."
        )
    return dataset[name]


def _as_rows(values, stars, pixel, shape):
    dims = [dim for dim in (*stars, pixel) if dim in values.dims]
    array = np.asarray(values.transpose(*dims, ...).values)
    where = [slice(None) if dim in dims else None for dim in (*stars, pixel)]
    array = np.broadcast_to(array[tuple(where)], shape)
    return array.reshape(-1, shape[-1])


def _coordinate(name, coordinate):
    plain, unit = plain_name(name)
    unit = coordinate.attrs.get("units", coordinate.attrs.get("unit", unit)) or unit
    unit = UNITS_OF_NAMES.get(str(unit).strip().lower(), unit)
    values = np.asarray(coordinate.values, dtype=float)
    if plain in NAMES["log_wavelength"]:
        return to_angstrom(values, "log10(Angstrom)")
    return to_angstrom(values, unit or None)


def _about(attrs, of_wavelength):
    out: dict[str, Any] = {}
    for name, allowed in (("medium", MEDIA), ("frame", FRAMES)):
        value = str(attrs.get(name, of_wavelength.get(name, ""))).strip().lower()
        if value in allowed:
            out[name] = value
    unit = attrs.get("units", attrs.get("unit"))
    if unit is not None and str(unit).strip():
        out["flux_unit"] = str(unit)
    resolution = attrs.get("resolution")
    if isinstance(resolution, (int, float, np.number)):
        out["resolution"] = float(resolution)
    return out


def _with_one_error(part):
    """Errors of whichever kind there are as `ivar` or `flux_err`; good pixels as a mask of bad."""
    variance = part.pop("variance", None)
    if "ivar" in part:
        part.pop("flux_err", None)
    elif "flux_err" not in part and variance is not None:
        with np.errstate(invalid="ignore"):
            part["flux_err"] = np.sqrt(np.asarray(variance, dtype=float))
    mask = part.pop("mask", None)
    good = part.pop("good", None)
    if mask is not None or good is not None:
        bad = np.zeros(part["flux"].shape, dtype=bool) if mask is None else np.asarray(mask) != 0
        part["mask"] = bad if good is None else bad | ~(np.asarray(good) != 0)
    return part
