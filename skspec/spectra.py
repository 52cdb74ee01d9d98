"""`Spectra`: the one carrier of flux, per-pixel errors and wavelength.

A plain class rather than an ``ndarray`` subclass: it goes untouched through scikit-learn's
splitters, searches and pickles, so that the errors still arrive at test time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._pixel_values import (
    in_unit,
    ivar_from_error,
    ivar_in,
    mask_of,
    plain_array,
    refuse_containers,
    without_information,
)
from skspec._wavelengths import (
    FRAMES,
    MEDIA,
    air_to_vacuum,
    pixel_difference,
    to_angstrom,
    vacuum_to_air,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Spectra", "concatenate"]

#: what the numbers mean, for all stars
ABOUT = ("medium", "frame", "resolution", "flux_unit")


class Spectra:
    """Spectra of `n` stars on one grid of `P` pixels.

    Parameters
    ----------
    flux : array-like of shape (n, P) or (P,)
        Flux, in any unit. One spectrum may be given as a vector. Float32 and float64 are kept,
        memory maps are not copied. Non-finite values become 0 with ``ivar`` 0.
    ivar : array-like of shape (n, P), (P,) or scalar, optional
        Inverse variance of the flux, ``1 / sigma**2``; 0 marks a bad pixel and ``inf`` a good pixel
        of unknown (or negligible) noise. Negative and NaN values become 0.
    flux_err : array-like, optional
        Standard deviation of the flux instead of `ivar`. Zero, negative or non-finite errors mark
        bad pixels.
    mask : array-like of bool of shape (n, P) or (P,), optional
        True marks a bad pixel, as in numpy's masked arrays.
    wavelength : array-like of shape (P,), optional
        Wavelength of each pixel: numbers in Angstrom, or an astropy Quantity of any spectral unit.
    order : array-like of int of shape (P,), optional
        Echelle order (or detector chip, or arm) of each pixel.
    meta : dict, optional
        Anything else. Arrays, lists and Series whose length is `n` are sliced with the rows. A single
        ``medium``, ``frame``, ``resolution`` or ``flux_unit`` in it counts as given by itself.
    wavelength_unit : str or astropy unit, optional
        Of a `wavelength` without one: "Angstrom", "nm", "micron", "log10(Angstrom)", ... Needed where
        wavelengths below 2000 Angstrom are meant.
    medium : {"air", "vacuum"}, optional
        What the wavelengths were measured in, or converted to.
    frame : {"rest", "barycentric", "heliocentric", "topocentric"}, optional
        Whose rest frame the wavelengths are of; "rest" is that of each star. What was taken out to
        get there [km/s] is ``meta["rv_removed"]``.
    resolution : float or array-like of shape (P,), (n, 1) or (n, P), optional
        Resolving power, wavelength / FWHM: one number, per pixel, or per star.
    flux_unit : str, optional
        Unit of the flux; that of `flux` where it is a Quantity.

    Attributes
    ----------
    flux, ivar, wavelength, order, meta, medium, frame, resolution, flux_unit
        As given, `wavelength` in Angstrom; `ivar` is None when there are neither errors nor bad
        pixels.

    Raises
    ------
    ValueError
        When shapes do not agree, both `ivar` and `flux_err` are given, or bare wavelengths are too
        short to be Angstrom without a word.

    Notes
    -----
    A pixel whose error is ten million times the star's median flux, and its median error, tells
    nothing, and is bad; so is one of 1e9 or more, as surveys write there, from ten thousand times on.

    Errors given as a Quantity are converted to the unit of the flux; without a unit they have it
    already.

    ``numpy.asarray(spectra)`` is the flux, so any scikit-learn transformer takes a `Spectra`
    directly (and then loses the errors: put such transformers last).

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> spectra = Spectra(np.ones((3, 5)), flux_err=0.01, wavelength=np.linspace(5000, 5010, 5))
    >>> spectra
    <Spectra: 3 stars x 5 pixels, 5000.0-5010.0 Angstrom, median S/N 100, 0.0 % bad>
    >>> spectra[:2].shape
    (2, 5)
    """

    ndim = 2
    flux: np.ndarray
    ivar: np.ndarray | None
    wavelength: np.ndarray | None
    order: np.ndarray | None
    meta: dict[str, Any]
    medium: str | None
    frame: str | None
    resolution: float | np.ndarray | None
    flux_unit: str | None

    def __init__(
        self,
        flux: ArrayLike,
        *,
        ivar: ArrayLike | None = None,
        flux_err: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        wavelength: ArrayLike | None = None,
        order: ArrayLike | None = None,
        meta: dict[str, Any] | None = None,
        wavelength_unit: Any = None,
        medium: str | None = None,
        frame: str | None = None,
        resolution: ArrayLike | None = None,
        flux_unit: str | None = None,
    ):
        if ivar is not None and flux_err is not None:
            raise ValueError("Give either ivar or flux_err, not both: ivar = 1 / flux_err**2.")
        if isinstance(flux, Spectra):
            raise ValueError("flux is a Spectra already; use spectra.replace(...) to change it.")
        refuse_containers(flux)
        about = {"medium": medium, "frame": frame, "resolution": resolution, "flux_unit": flux_unit}
        meta, about = _words_out_of_meta(meta, about)
        flux_unit = about["flux_unit"]
        # a mask that hides in any of the arrays (astropy tables hand out such) must not get lost
        flux, hidden_flux, unit = plain_array(flux, "flux")
        flux_unit = unit if flux_unit is None else flux_unit
        ivar, hidden_ivar = in_unit(ivar, "ivar", flux_unit, -2)
        flux_err, hidden_error = in_unit(flux_err, "flux_err", flux_unit, 1)
        self.flux = flux[None, :] if flux.ndim == 1 else flux
        if self.flux.ndim != 2:
            raise ValueError(
                f"flux has shape {flux.shape}; it must be (stars, pixels). Reshape echelle images "
                "to (stars, orders * pixels) and name the order of each pixel with `order=`."
            )
        if flux_err is not None:
            ivar = ivar_from_error(flux_err)
        for hidden in (hidden_flux, hidden_ivar, hidden_error):
            if hidden is not None:
                hidden = self._full(hidden, "mask")
                mask = hidden if mask is None else hidden | np.asarray(mask, bool) | mask_of(mask)
        self.ivar = self._clean_ivar(ivar, mask)
        if wavelength is not None and not np.any(mask_of(wavelength)):
            wavelength = to_angstrom(wavelength, wavelength_unit)
        self.wavelength = self._pixel_vector(wavelength, "wavelength", float)
        self.order = self._pixel_vector(order, "order", int)
        self._describe(meta, about | {"flux_unit": flux_unit})

    def _describe(self, meta, about):
        """Set what is known of the spectra, beside their pixels."""
        self.meta = meta
        self.medium = _one_of(about["medium"], "medium", MEDIA)
        self.frame = _one_of(about["frame"], "frame", FRAMES)
        self.resolution = self._checked_resolution(about["resolution"])
        self.flux_unit = None if about["flux_unit"] is None else str(about["flux_unit"])

    def _clean_ivar(self, ivar, mask):
        """Fold bad values and the mask into `ivar`; blank the flux where it is not finite."""
        bad = ~np.isfinite(self.flux)
        if bad.any():
            self.flux = np.where(bad, 0, self.flux)
        else:
            bad = None
        if mask is not None:  # what is masked in a mask is not known to be good
            mask = self._full(np.asarray(mask, dtype=bool) | mask_of(mask), "mask")
            bad = mask if bad is None else bad | mask
        if ivar is None:
            if bad is None:
                return None
            return np.where(bad, 0.0, np.inf)
        ivar = self._full(ivar, "ivar")
        wrong = ~(ivar >= 0)
        if bad is not None:
            wrong |= bad
        useless = without_information(self.flux, np.where(wrong, 0, ivar))
        if useless is not None:
            wrong |= useless
        return np.where(wrong, 0, ivar) if wrong.any() else ivar

    def _full(self, values, name):
        try:
            return values if values.shape == self.shape else np.broadcast_to(values, self.shape)
        except ValueError:
            raise ValueError(
                f"{name} has shape {values.shape}, which does not fit the flux of shape "
                f"{self.shape}; give one value per pixel."
            ) from None

    def _pixel_vector(self, values, name, kind):
        if values is None:
            return None
        if np.any(mask_of(values)):
            raise ValueError(
                f"{name} is masked in places; every pixel needs one, so leave those out."
            )
        values = np.asarray(values, dtype=kind)
        if values.shape != self.shape[1:]:
            raise ValueError(
                f"{name} has shape {values.shape}, but the spectra have {self.shape[1]} pixels; "
                f"give one {name} per pixel, shared by all stars."
            )
        if kind is float and not np.all(np.isfinite(values)):
            raise ValueError(f"{name} holds NaN or infinite values.")
        return values

    def _checked_resolution(self, values):
        if values is None or np.ndim(values) == 0:
            values = None if values is None else float(values)
        else:
            values, mask, _ = plain_array(values, "resolution")
            values = values.astype(float) if mask is None else np.where(mask, np.nan, values)
            n, n_pixels = self.shape
            if values.shape == (n,) != (n_pixels,):
                values = values[:, None]
            if values.shape not in {(n_pixels,), (n, 1), (n, n_pixels)}:
                raise ValueError(
                    f"resolution has shape {values.shape}; give one number, one per pixel "
                    f"({n_pixels},), or one per star ({n}, 1)."
                )
        # surveys leave it unknown (NaN) in places
        if values is not None and np.any(np.asarray(values) <= 0):
            raise ValueError("resolution must be positive: it is wavelength / FWHM.")
        return values

    # -- other packages' containers --------------------------------------------------------------

    @classmethod
    def from_specutils(cls, spectrum: Any, grid: Any = None) -> Spectra:
        """Spectra of specutils: a `Spectrum`, `SpectrumList` or `SpectrumCollection`, or several.

        Parameters
        ----------
        spectrum : Spectrum, SpectrumList, SpectrumCollection, or iterable of these
            Of any unit of the spectral axis, with standard deviations, variances or inverse variances.
            A flux of several dimensions makes one star of each vector along the spectral axis, in C
            order.
        grid : array-like of shape (P,), Spectra or "common", optional
            Pixels for all of them, as in :func:`skspec.concatenate`. Needed where they have different
            ones.

        Returns
        -------
        Spectra of shape (n, P)
            Blue to red. A ``radial_velocity`` that is set is ``meta["rv"]`` [km/s]; numbers and texts of
            ``meta`` are kept, of which ``medium``, ``frame`` and ``resolution`` say what the wavelengths
            are (specutils itself does not know).

        Raises
        ------
        ValueError
            When the grids differ and `grid` is None, the axis has no unit of a wavelength, or the
            uncertainties are of unknown type.

        Examples
        --------
        >>> from astropy import units as u  # doctest: +SKIP
        >>> from specutils import Spectrum  # doctest: +SKIP
        >>> flux, axis = [1, 0.8, 1] * u.Jy, [500, 501, 502] * u.nm  # doctest: +SKIP
        >>> spectrum = Spectrum(flux=flux, spectral_axis=axis)  # doctest: +SKIP
        >>> Spectra.from_specutils(spectrum)  # doctest: +SKIP
        <Spectra: 1 star x 3 pixels, 5000.0-5020.0 Angstrom, no errors>
        """
        from skspec._containers import from_specutils

        parts = []
        for part in from_specutils(spectrum):
            part = part.pop("about") | {k: v for k, v in part.items() if v is not None}
            parts.append(cls(**part, wavelength_unit="Angstrom"))
        if len(parts) == 1 and grid is None:
            return parts[0]
        return concatenate(parts, grid=grid)

    def to_specutils(self) -> Any:
        """As a `SpectrumList` of specutils: one `Spectrum` for each star, and for each of its orders.

        Errors are `InverseVariance`, bad pixels the mask, ``meta["rv"]`` the ``radial_velocity`` of
        spectra that are not at rest. ``meta`` holds medium, frame, resolution and the star's entries of
        ``self.meta``; from orders also ``order`` and ``row``, the number of the star.
        `from_specutils` reads all of it back.

        Raises
        ------
        ValueError
            When there are no wavelengths, or they neither rise nor fall throughout (in each order).
        ImportError
            Without specutils (``pip install "skspec[fits]"``).
        """
        from skspec._containers import to_specutils

        return to_specutils(self)

    @classmethod
    def from_xarray(cls, array: Any) -> Spectra:
        """Spectra of an xarray `DataArray` or `Dataset` with a coordinate of wavelengths.

        Parameters
        ----------
        array : DataArray or Dataset
            The flux, or ``flux`` and its errors: variables or coordinates named ``ivar``, ``flux_err``,
            ``variance``, ``mask`` and the like. Wavelengths have one dimension, the unit of their
            attribute ``units`` (or Angstrom), and may be logarithms (``loglam``).

        Returns
        -------
        Spectra of shape (n, P)
            One star for each vector along the wavelengths, in C order of the other dimensions, whose
            coordinates go to ``meta``. Attributes ``units``, ``medium``, ``frame`` and ``resolution``
            are kept.

        Raises
        ------
        ValueError
            When there is no coordinate of wavelengths, no flux, or errors have units that do not fit.
        """
        from skspec._containers import from_xarray

        return cls(**from_xarray(array), wavelength_unit="Angstrom")

    # -- what numpy and scikit-learn ask of an X -------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(stars, pixels)."""
        return self.flux.shape

    @property
    def dtype(self) -> np.dtype:
        """Data type of the flux."""
        return self.flux.dtype

    @property
    def size(self) -> int:
        """Number of stars times number of pixels."""
        return self.flux.size

    def __len__(self) -> int:
        return self.flux.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.array(self.flux, dtype=dtype, copy=copy)

    def __getitem__(self, key: Any) -> Spectra:
        """Rows (always a `Spectra`, also for one integer), or ``[rows, pixels]``."""
        key = key if isinstance(key, tuple) else (key,)
        if len(key) > 2:
            raise IndexError(f"Spectra have two axes, stars and pixels; got {len(key)} indices.")
        rows, pixels = (_as_index(k, n) for k, n in zip((*key, slice(None)), self.shape))

        def take(values):
            return None if values is None else values[rows][:, pixels]

        return self._from_clean(
            take(self.flux),
            take(self.ivar),
            None if self.wavelength is None else self.wavelength[pixels],
            None if self.order is None else self.order[pixels],
            {name: _take_rows(value, rows, len(self)) for name, value in self.meta.items()},
            self.about | {"resolution": _take_resolution(self.resolution, rows, pixels)},
        )

    @classmethod
    def _from_clean(cls, flux, ivar, wavelength, order, meta, about):
        """Assemble from parts that are already consistent, without looking at every pixel again."""
        self = cls.__new__(cls)
        self.flux, self.ivar, self.wavelength, self.order, self.meta = (
            flux,
            ivar,
            wavelength,
            order,
            meta,
        )
        for name in ABOUT:
            setattr(self, name, about.get(name))
        return self

    @property
    def about(self) -> dict[str, Any]:
        """What the numbers mean: medium, frame, resolution and flux_unit, by name."""
        return {name: getattr(self, name) for name in ABOUT}

    def about_on(self, wavelength: np.ndarray | None) -> dict[str, Any]:
        """`about` of the same spectra on another grid: `resolution` per pixel is interpolated."""
        about = self.about
        values = about["resolution"]
        if np.ndim(values) == 0 or np.shape(values)[-1] == 1:
            return about
        if wavelength is None or self.wavelength is None:
            return about | {"resolution": None}
        by = np.argsort(self.wavelength, kind="stable")
        rows = [
            np.interp(wavelength, self.wavelength[by], row[by]) for row in np.atleast_2d(values)
        ]
        return about | {"resolution": np.array(rows) if values.ndim == 2 else rows[0]}

    # -- derived quantities ----------------------------------------------------------------------

    @property
    def good(self) -> np.ndarray:
        """Boolean array (n, P): pixels that may be used."""
        return np.ones(self.shape, dtype=bool) if self.ivar is None else self.ivar > 0

    @property
    def has_errors(self) -> bool:
        """Whether any pixel has a known, finite error."""
        if self.ivar is None:
            return False
        return bool(np.any((self.ivar > 0) & np.isfinite(self.ivar)))

    @property
    def variance(self) -> np.ndarray:
        """Variance of the flux (n, P): ``1 / ivar``; ``inf`` at bad pixels, 0 where unknown."""
        if self.ivar is None:
            return np.zeros(self.shape)
        with np.errstate(divide="ignore", over="ignore"):
            return 1.0 / np.asarray(self.ivar, dtype=float)

    @property
    def mean_variance(self) -> np.ndarray:
        """Mean variance of each pixel (P,) over the stars that know it; 0 where none does."""
        if not self.has_errors:
            return np.zeros(self.shape[1])
        variance = self.variance
        known = np.isfinite(variance) & (variance > 0)
        if known.all():
            return variance.mean(axis=0)
        return np.sum(variance, axis=0, where=known) / np.maximum(known.sum(axis=0), 1)

    @property
    def flux_err(self) -> np.ndarray:
        """Standard deviation of the flux (n, P); ``inf`` at bad pixels, 0 where unknown."""
        return np.sqrt(self.variance)

    @property
    def snr(self) -> np.ndarray:
        """Median signal-to-noise ratio per good pixel of each star (n,); NaN where unknown."""
        if self.ivar is None:
            return np.full(len(self), np.nan)
        known = (self.ivar > 0) & np.isfinite(self.ivar)
        ratio = np.abs(self.flux) * np.sqrt(np.where(known, self.ivar, 0))
        out = np.full(len(self), np.nan)
        some = known.any(axis=1)
        if some.any():
            out[some] = np.nanmedian(np.where(known[some], ratio[some], np.nan), axis=1)
        return out

    def replace(self, **changes: Any) -> Spectra:
        """A new `Spectra` with some of the parameters changed.

        A `mask` is added to what is masked already. With a `flux` that is a Quantity of another unit,
        errors are converted.

        Raises
        ------
        ValueError
            As of `Spectra`; also when errors cannot be converted to the unit of a new `flux`.
        """
        if changes.keys() <= {"meta", *ABOUT}:  # pixels that are clean already
            clean = self.flux, self.ivar, self.wavelength, self.order
            out = self._from_clean(*clean, {}, {})
            meta = changes.pop("meta", self.meta)
            out._describe(*_words_out_of_meta(meta, self.about | changes))
            return out
        names = ("flux", "ivar", "wavelength", "order", "meta", *ABOUT)
        parts = {name: getattr(self, name) for name in names}
        if "flux_err" in changes:
            del parts["ivar"]
        if "wavelength" not in changes:
            parts["wavelength_unit"] = "Angstrom"
        unit = getattr(changes.get("flux"), "unit", None)
        if "flux_unit" not in changes and unit is not None:
            del parts["flux_unit"]
            if "ivar" in parts and "ivar" not in changes and self.flux_unit is not None:
                parts["ivar"] = ivar_in(self.ivar, self.flux_unit, unit)
        return type(self)(**(parts | changes))

    def to_medium(self, medium: str) -> Spectra:
        """The spectra with wavelengths in air or vacuum; fluxes stay.

        Parameters
        ----------
        medium : {"air", "vacuum"}

        Raises
        ------
        ValueError
            When there are no wavelengths, or theirs is not known to be of either.

        See Also
        --------
        skspec.air_to_vacuum : The formula.
        """
        medium = _one_of(medium, "medium", MEDIA)
        if self.wavelength is None or self.medium is None:
            missing = "wavelengths" if self.wavelength is None else "known medium"
            raise ValueError(
                f"These spectra have no {missing}; say which with spectra.replace(wavelength=..., "
                "medium='air')."
            )
        if medium == self.medium:
            return self
        convert = air_to_vacuum if medium == "vacuum" else vacuum_to_air
        out = self[:]
        out.wavelength, out.medium = convert(self.wavelength), medium
        return out

    def window(self, lower: float, upper: float) -> Spectra:
        """The pixels with ``lower <= wavelength <= upper`` [Angstrom].

        Raises
        ------
        ValueError
            When there is no wavelength, or no pixel lies in the window.
        """
        if self.wavelength is None:
            raise ValueError("These spectra have no wavelength; give `wavelength=` to Spectra.")
        inside = (self.wavelength >= lower) & (self.wavelength <= upper)
        if not inside.any():
            raise ValueError(
                f"No pixel lies in {lower}-{upper} Angstrom; the spectra cover "
                f"{self.wavelength.min():.1f}-{self.wavelength.max():.1f}."
            )
        return self[:, inside]

    def __repr__(self) -> str:
        n, n_pixels = self.shape
        parts = [f"{n} star{'s' * (n != 1)} x {n_pixels} pixels"]
        if self.wavelength is not None and n_pixels:
            medium = "" if self.medium is None else f" ({self.medium})"
            parts.append(
                f"{self.wavelength.min():.1f}-{self.wavelength.max():.1f} Angstrom{medium}"
            )
        if self.order is not None:
            parts.append(f"{len(np.unique(self.order))} orders")
        if self.has_errors:
            parts.append(f"median S/N {np.nanmedian(self.snr):.0f}")
        else:
            parts.append("no errors")
        if self.ivar is not None and self.size:
            parts.append(f"{100 * np.mean(self.ivar == 0):.1f} % bad")
        return f"<Spectra: {', '.join(parts)}>"


def concatenate(
    spectra: Iterable[Spectra], *, n_stars: int | None = None, grid: Any = None
) -> Spectra:
    """Stack the stars of several `Spectra`.

    Per-star entries of `meta` that all of them have are joined, and what is the same number or text
    in all of them is kept; the rest is dropped.

    Parameters
    ----------
    spectra : iterable of Spectra
    n_stars : int, optional
        Of all together. Where it is given, what an iterator yields is let go once it is copied.
    grid : array-like of shape (P,), Spectra or "common", optional
        Pixels for all of them: wavelengths [Angstrom, or a Quantity], those of `Spectra` with their
        orders and in their medium, or "common", the grid of most of them, or one like theirs. None:
        they share one.
        Spectra are resampled as by :class:`~skspec.preprocessing.Resampler`, conserving flux on
        coarser pixels and cubic on others, order by order.

    Raises
    ------
    ValueError
        When there are none, the grids, media, frames or flux units differ, or `n_stars` is not their
        number. What is not known of some is taken to be as in the others.
    """
    if grid is not None:
        return _on_one_grid(list(spectra), grid)
    if n_stars is None:
        spectra = list(spectra)
        n_stars = sum(map(len, spectra))
    first = flux = ivar = None
    about: dict[str, Any] = {}
    metas, resolutions, end = [], [], 0
    for part in spectra:
        if first is None:
            first = (part.shape[1], part.wavelength, part.order)
            # not empty: what lies there may be no float that another type can hold
            flux = np.zeros((n_stars, part.shape[1]), part.dtype)
        else:
            _check_one_grid(first, part)
        about = _common_about(about, part)
        rows = slice(end, end + len(part))
        end = rows.stop
        if end > n_stars:
            break
        flux = _put(flux, rows, part.flux)
        if ivar is None and part.ivar is not None:
            ivar = np.full(flux.shape, np.inf, part.ivar.dtype)
        if part.ivar is not None:
            ivar = _put(ivar, rows, part.ivar)
        metas.append((part.meta, len(part)))
        resolutions.append((part.resolution, len(part)))
    if first is None:
        raise ValueError("Nothing to concatenate: the list of spectra is empty.")
    if end != n_stars:
        raise ValueError(f"n_stars={n_stars} is not the number of stars to concatenate.")
    about["resolution"] = _common_resolution(resolutions)
    return Spectra._from_clean(flux, ivar, *first[1:], _common_meta(metas), about)


def _on_one_grid(parts, grid):
    from skspec._common_grid import chosen_grid, fill_meta, onto_grid

    if not parts:
        raise ValueError("Nothing to concatenate: the list of spectra is empty.")
    wavelength, order = chosen_grid(grid, parts)
    medium = getattr(grid, "medium", None)
    if medium is not None:  # the new pixels are in it
        parts = [part if part.medium is None else part.to_medium(medium) for part in parts]
    parts = [part.replace(meta=meta) for part, meta in zip(parts, fill_meta(parts))]
    return concatenate([onto_grid(part, wavelength, order) for part in parts])


def _check_one_grid(one, other):
    n_pixels, wavelength, order = one
    same = n_pixels == other.shape[1] and np.array_equal(order, other.order)
    if same and wavelength is not None and other.wavelength is not None:
        same = pixel_difference(wavelength, other.wavelength) == 0
    elif same:
        same = wavelength is other.wavelength
    if not same:
        raise ValueError(
            "The spectra lie on different grids; concatenate(..., grid='common') resamples them, as "
            "skspec.preprocessing.Resampler does."
        )


def _common_about(known, part):
    words = ("medium", "frame", "flux_unit")
    for name in words:
        here, there = known.get(name), getattr(part, name)
        if here is not None and there is not None and here != there:
            advice = {
                "medium": "spectra.to_medium(...) converts them",
                "frame": "skspec.preprocessing.to_rest_frame takes velocities out",
                "flux_unit": "convert them, or normalise them",
            }[name]
            raise ValueError(f"The spectra have different {name}, {here} and {there}; {advice}.")
    return {name: known.get(name) or getattr(part, name) for name in words}


def _common_resolution(parts):
    """One for all where it is; else a row per star."""
    first = parts[0][0]
    if all(np.array_equal(first, other) for other, _ in parts) and np.ndim(first) < 2:
        return first
    if any(values is None for values, _ in parts):
        return None
    rows = [
        np.broadcast_to(values, (n, np.shape(values)[-1] if np.ndim(values) else 1))
        for values, n in parts
    ]
    width = max(values.shape[1] for values in rows)
    return np.concatenate([np.broadcast_to(values, (len(values), width)) for values in rows])


def _common_meta(metas):
    first, _ = metas[0]
    out = {}
    for name, value in first.items():
        if not all(name in meta for meta, _ in metas):
            continue
        if all(_is_per_star(meta[name], n) for meta, n in metas):
            out[name] = np.concatenate([np.asarray(meta[name]) for meta, _ in metas])
        elif isinstance(value, (str, bool, int, float, np.generic)) and all(
            type(meta[name]) is type(value) and meta[name] == value for meta, _ in metas
        ):
            out[name] = value
    return out


def _put(out, rows, values):
    """`out`, in a type that holds the values, too, with these in some rows."""
    out = out.astype(np.result_type(out, values), copy=False)
    out[rows] = values
    return out


def check_same_pixels(one: Spectra, other: Spectra, what: str) -> None:
    """Refuse two sets whose wavelengths are known to differ, or to be in different media.

    Raises
    ------
    ValueError
        Which difference, and what mends it; `what` names the two.
    """
    if None not in (one.medium, other.medium) and one.medium != other.medium:
        raise ValueError(
            f"{what}: wavelengths of one are in {one.medium}, of the other in {other.medium}; "
            f"spectra.to_medium({one.medium!r}) converts them, and Resampler takes them to one grid."
        )
    if one.wavelength is None or other.wavelength is None:
        return
    if (apart := pixel_difference(one.wavelength, other.wavelength)) == 0:
        return
    raise ValueError(
        f"{what} lie on different wavelengths, up to {apart:.3g} pixels apart; use "
        "skspec.preprocessing.Resampler first."
    )


def _words_out_of_meta(meta, about):
    """`meta` and `about`, to which words for all stars belong that are in meta."""
    meta, about = dict(meta or {}), dict(about)
    for name, value in about.items():
        if value is None and isinstance(meta.get(name), (str, int, float, np.number)):
            about[name] = meta.pop(name)
    return meta, about


def _one_of(value, name, allowed):
    if value is not None and value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; use one of {list(allowed)}, or None.")
    return value


def _as_index(key, n):
    """A slice or an index array: both keep the axis."""
    if key is Ellipsis:
        return slice(None)
    if isinstance(key, slice):
        return key
    key = np.asarray(key)
    if key.ndim > 1 or (key.ndim == 0 and key.dtype.kind not in "iu"):
        raise IndexError("Index spectra with integers, slices, or vectors of integers or booleans.")
    if key.ndim == 0:
        if not -n <= key < n:
            raise IndexError(f"index {key} is out of range for {n}")
        return slice(int(key), int(key) + 1 or None)
    return key.astype(int) if key.size == 0 and key.dtype != bool else key


def _take_resolution(values, rows, pixels):
    if np.ndim(values) == 0:
        return values
    if values.ndim == 1:
        return values[pixels]
    return values[rows] if values.shape[1] == 1 else values[rows][:, pixels]


def _is_per_star(value, n):
    return (
        not isinstance(value, (str, bytes, dict, set, frozenset))
        and hasattr(value, "__len__")
        and len(value) == n
    )


def _take_rows(value, rows, n):
    if not _is_per_star(value, n):
        return value
    values = value.iloc if np.ndim(value) == 2 and hasattr(value, "iloc") else np.asarray(value)
    return values[rows]
