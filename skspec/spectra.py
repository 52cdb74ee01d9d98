"""`Spectra`: the one carrier of flux, per-pixel errors and wavelength.

A plain class rather than an ``ndarray`` subclass: it goes untouched through scikit-learn's
splitters, searches and pickles, so that the errors still arrive at test time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Spectra", "concatenate"]


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
        Wavelength of each pixel [Angstrom].
    order : array-like of int of shape (P,), optional
        Echelle order (or detector chip, or arm) of each pixel.
    meta : dict, optional
        Anything else. Arrays, lists and Series whose length is `n` are sliced with the rows.

    Attributes
    ----------
    flux, ivar, wavelength, order, meta
        As given; `ivar` is None when there are neither errors nor bad pixels.

    Raises
    ------
    ValueError
        When shapes do not agree, or both `ivar` and `flux_err` are given.

    Notes
    -----
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
    ):
        if ivar is not None and flux_err is not None:
            raise ValueError("Give either ivar or flux_err, not both: ivar = 1 / flux_err**2.")
        if isinstance(flux, Spectra):
            raise ValueError("flux is a Spectra already; use spectra.replace(...) to change it.")
        given: list[Any] = [flux, ivar, flux_err]
        # a mask that hides in any of the arrays (astropy tables hand out such) must not get lost
        hidden = [np.ma.getmask(a) for a in given if np.ma.is_masked(a)]
        given = [a.data if isinstance(a, np.ma.MaskedArray) else a for a in given]
        values, ivar, flux_err = _float_array(given[0], "flux"), *given[1:]
        self.flux = values[None, :] if values.ndim == 1 else values
        if self.flux.ndim != 2:
            raise ValueError(
                f"flux has shape {values.shape}; it must be (stars, pixels). Reshape echelle images "
                "to (stars, orders * pixels) and name the order of each pixel with `order=`."
            )
        if flux_err is not None:
            ivar = _ivar_from_error(_float_array(flux_err, "flux_err"))
        for more in hidden:
            more = self._full(more, "mask")
            mask = more if mask is None else more | np.asarray(mask, dtype=bool)
        self.ivar = self._clean_ivar(ivar, mask)
        self.wavelength = self._pixel_vector(wavelength, "wavelength", float)
        self.order = self._pixel_vector(order, "order", int)
        self.meta = dict(meta or {})

    def _clean_ivar(self, ivar, mask):
        """Fold bad values and the mask into `ivar`; blank the flux where it is not finite."""
        bad = ~np.isfinite(self.flux)
        if bad.any():
            self.flux = np.where(bad, 0, self.flux)
        else:
            bad = None
        if mask is not None:
            mask = self._full(np.asarray(mask, dtype=bool), "mask")
            bad = mask if bad is None else bad | mask
        if ivar is None:
            if bad is None:
                return None
            return np.where(bad, 0.0, np.inf)
        ivar = self._full(_float_array(ivar, "ivar"), "ivar")
        wrong = ~(ivar >= 0)
        if bad is not None:
            wrong |= bad
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
        values = np.asarray(values, dtype=kind)
        if values.shape != self.shape[1:]:
            raise ValueError(
                f"{name} has shape {values.shape}, but the spectra have {self.shape[1]} pixels; "
                f"give one {name} per pixel, shared by all stars."
            )
        if kind is float and not np.all(np.isfinite(values)):
            raise ValueError(f"{name} holds NaN or infinite values.")
        return values

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
        )

    @classmethod
    def _from_clean(cls, flux, ivar, wavelength, order, meta):
        """Assemble from parts that are already consistent, without looking at every pixel again."""
        self = cls.__new__(cls)
        self.flux, self.ivar, self.wavelength, self.order, self.meta = (
            flux,
            ivar,
            wavelength,
            order,
            meta,
        )
        return self

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
        """A new `Spectra` with some of flux, ivar, flux_err, mask, wavelength, order, meta changed.

        A `mask` is added to what is masked already.
        """
        parts = {
            name: getattr(self, name) for name in ("flux", "ivar", "wavelength", "order", "meta")
        }
        if "flux_err" in changes:
            del parts["ivar"]
        return type(self)(**(parts | changes))

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
            parts.append(f"{self.wavelength.min():.1f}-{self.wavelength.max():.1f} Angstrom")
        if self.order is not None:
            parts.append(f"{len(np.unique(self.order))} orders")
        if self.has_errors:
            parts.append(f"median S/N {np.nanmedian(self.snr):.0f}")
        else:
            parts.append("no errors")
        if self.ivar is not None and self.size:
            parts.append(f"{100 * np.mean(self.ivar == 0):.1f} % bad")
        return f"<Spectra: {', '.join(parts)}>"


def concatenate(spectra: Iterable[Spectra], *, n_stars: int | None = None) -> Spectra:
    """Stack the stars of several `Spectra` that share one pixel grid.

    Per-star entries of `meta` that all of them have are joined; the rest is dropped.

    Parameters
    ----------
    spectra : iterable of Spectra
    n_stars : int, optional
        Of all together. Where it is given, what an iterator yields is let go once it is copied.

    Raises
    ------
    ValueError
        When there are none, the grids differ, or `n_stars` is not their number.
    """
    if n_stars is None:
        spectra = list(spectra)
        n_stars = sum(map(len, spectra))
    grid = flux = ivar = None
    metas, end = [], 0
    for part in spectra:
        if grid is None:
            grid = _grid_of(part)
            flux = np.empty((n_stars, part.shape[1]), part.dtype)
        elif not all(np.array_equal(a, b) for a, b in zip(grid, _grid_of(part))):
            raise ValueError("The spectra lie on different grids; use Resampler first.")
        rows = slice(end, end + len(part))
        end = rows.stop
        if end > n_stars:
            break
        flux = _put(flux, rows, part.flux)
        if ivar is None and part.ivar is not None:
            ivar = np.full(flux.shape, np.inf, part.ivar.dtype)
        if part.ivar is not None:
            ivar = _put(ivar, rows, part.ivar)
        metas.append({k: v for k, v in part.meta.items() if _is_per_star(v, len(part))})
    if grid is None:
        raise ValueError("Nothing to concatenate: the list of spectra is empty.")
    if end != n_stars:
        raise ValueError(f"n_stars={n_stars} is not the number of stars to concatenate.")
    shared = [name for name in metas[0] if all(name in meta for meta in metas)]
    meta = {name: np.concatenate([np.asarray(meta[name]) for meta in metas]) for name in shared}
    return Spectra._from_clean(flux, ivar, *grid[1:], meta)


def _put(out, rows, values):
    """`out`, in a type that holds the values, too, with these in some rows."""
    out = out.astype(np.result_type(out, values), copy=False)
    out[rows] = values
    return out


def _grid_of(spectra: Spectra) -> tuple[Any, Any, Any]:
    return spectra.shape[1:], spectra.wavelength, spectra.order


def _float_array(values: Any, name: str) -> np.ndarray:
    values = np.asarray(values) if not isinstance(values, np.ndarray) else values
    if values.dtype in (np.float32, np.float64):
        return values
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex")
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold real numbers ({error}).") from None


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


def _ivar_from_error(error):
    usable = np.isfinite(error) & (error > 0)
    # in double: squared, errors of 1e-20 erg/s/cm2/Angstrom leave the range of single precision
    with np.errstate(divide="ignore", over="ignore"):
        ivar = np.where(usable, 1.0 / np.square(np.where(usable, error, 1.0), dtype=float), 0.0)
    limits, positive = np.finfo(error.dtype), ivar[ivar > 0]
    fits = not positive.size or (positive.min() > limits.tiny and positive.max() < limits.max)
    return ivar.astype(error.dtype, copy=False) if fits else ivar


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
