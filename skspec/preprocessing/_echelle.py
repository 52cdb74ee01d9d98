"""`EchelleLayout`: from a 1-D spectrum to the orders of an echelle spectrograph, and back."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_array, hstack, vstack
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import SpectraTransformer, as_spectra
from skspec.preprocessing._base import fit_weights
from skspec.preprocessing._smoothing import _quantile_of_finite
from skspec.solvers.spectra.resampling import (
    pixel_edges,
    resample,
    resampling_matrix,
    wavelength_grid,
)
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from skspec._typing import Labels, SpectraLike

__all__ = ["EchelleLayout"]

_VALUES_AT_ONCE = 2**23  # bounds the memory of float64 copies (64 MB each)


class EchelleLayout(ClassNamePrefixFeaturesOutMixin, SpectraTransformer):
    r"""Lay 1-D spectra out as overlapping echelle orders, as a pipeline delivers them.

    The grating fixes the geometry: with the order number :math:`m`, :math:`m\lambda` is the same at
    the middle of all orders, so each has the same width in :math:`1/\lambda` and redder orders are
    longer. Within an order the pixels are equal in wavelength. The light of the wavelength
    :math:`\lambda` falls on order :math:`m` with the share of the blaze function

    .. math:: b_m(\lambda) = \mathrm{sinc}^2 X, \qquad X = m (1 - \lambda_m / \lambda),

    :math:`\lambda_m` its middle, :math:`\mathrm{sinc}\,x = \sin(\pi x) / \pi x`; the shares of all
    orders sum to 1, and an order is down to 0.41 where it hands over to the next.

    Parameters
    ----------
    n_orders : int, default=8
        Number of orders. HARPS-N has 69.
    n_pixels : int, default=4096
        Pixels of each order, at least 2.
    overlap : float, default=0.2
        Share of an order that its neighbour sees as well, in [0, 1).
    blaze : bool, default=True
        Multiply the flux by the blaze function. The errors stay: S/N falls with the blaze, and the
        ``ivar`` of the flux freed from the blaze with its square, as where the detector's noise
        rules. (Of photons alone it would fall with the blaze itself.)
    normalize : {"median"} or None, default="median"
        Divide every order by the median of its good pixels.
    wavelength_range : (low, high), optional
        What the orders cover [Angstrom]. Default: all of the spectra given at fit. Pixels beyond a
        spectrum are padded: flux 0, ``ivar`` 0.
    method : {"flux_conserving", "linear", "cubic"}, default="flux_conserving"
        How the flux is resampled, see :class:`Resampler`; "cubic" where pixels become finer.

    Attributes
    ----------
    order_wavelength_ : ndarray of shape (n_orders, n_pixels)
        Wavelength of each pixel [Angstrom], increasing along an order and from order to order;
        pixel numbers of the input for spectra without wavelength.
    blaze_ : ndarray of shape (n_orders, n_pixels)
        Blaze function; 1 with ``blaze=False``.
    matrix_ : scipy.sparse.csr_array of shape (n_orders * n_pixels, P)
        The resampling.
    wavelength_ : ndarray of shape (P,) or None
        The grid seen at fit [Angstrom].
    n_features_in_ : int
        Number of pixels P.

    Raises
    ------
    ValueError
        For spectra that have orders already, and for a single pixel.

    Notes
    -----
    The result has ``order`` 0 (the bluest) to ``n_orders - 1`` and its pixels order by order:
    ``flux.reshape(n, n_orders, n_pixels)`` is the image. ``meta["order_scale"]`` (n, n_orders)
    keeps the medians for `inverse_transform`; their own noise is neglected. An order whose median
    is not positive is bad. `Spectra` on other grids than that of the fit are laid out from their
    own wavelengths; without any wavelengths, orders are cut by pixel number.

    Errors are conservative: pixels finer than those of the spectrum share its information, as if
    each had counted its part of the photons, :math:`\mathrm{var}(f'_i) = \sum_j |w_{ij}| \max(
    |w_{ij}|, \Delta_j / \Delta_i)\, \mathrm{var}(f_j)` with pixel widths :math:`\Delta`, so none is
    gained by resampling. Noise that is in the flux already is multiplied by the blaze like the
    flux, is the same in both orders where they overlap, and is then smaller than the stated error.
    To imitate observations lay out noise-free flux with the errors it shall have, and draw
    noise from the errors of the result.

    References
    ----------
    Schroeder & Hilliard 1980, Appl. Opt. 19, 2833 (blaze function).

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.preprocessing import EchelleLayout
    >>> star = Spectra(np.ones((1, 600)), flux_err=0.01, wavelength=np.linspace(5000, 5600, 600))
    >>> layout = EchelleLayout(n_orders=4, n_pixels=100).fit(star)
    >>> orders = layout.transform(star)
    >>> orders.shape, np.unique(orders.order).tolist()
    ((1, 400), [0, 1, 2, 3])
    >>> merged = layout.inverse_transform(orders)
    >>> bool(np.allclose(merged.flux, 1)), merged.shape
    (True, (1, 600))
    """

    _parameter_constraints: dict = {
        "n_orders": [Interval(Integral, 1, None, closed="left")],
        "n_pixels": [Interval(Integral, 2, None, closed="left")],
        "overlap": [Interval(Real, 0, 1, closed="left")],
        "blaze": ["boolean"],
        "normalize": [StrOptions({"median"}), None],
        "wavelength_range": ["array-like", None],
        "method": [StrOptions({"flux_conserving", "linear", "cubic"})],
    }

    def __init__(
        self,
        n_orders: int = 8,
        n_pixels: int = 4096,
        *,
        overlap: float = 0.2,
        blaze: bool = True,
        normalize: str | None = "median",
        wavelength_range: tuple[float, float] | None = None,
        method: str = "flux_conserving",
    ):
        self.n_orders = n_orders
        self.n_pixels = n_pixels
        self.overlap = overlap
        self.blaze = blaze
        self.normalize = normalize
        self.wavelength_range = wavelength_range
        self.method = method

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Place the orders; `y` is ignored."""
        spectra, _ = self._validate_spectra(X, reset=True)
        _refuse_orders(spectra)
        if self.n_features_in_ < 2:
            raise ValueError("EchelleLayout needs at least two pixels; got n_features = 1.")
        self._grid = self._grid_of(spectra)
        self._place_orders(*self._range())
        self.matrix_ = self._operator(self._grid)
        self._n_features_out = self.order_wavelength_.size
        return self

    def inverse_transform(self, X: SpectraLike) -> Spectra | np.ndarray:
        """Merge the orders into one spectrum on the grid seen at fit, for plotting.

        The blaze and the medians are taken off, then every pixel is the mean of what the orders
        know of it, weighted by ``ivar``; without errors, by the square of the blaze. Orders count
        as independent exposures.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, n_orders * n_pixels)
            Spectra as `transform` returns them. Without ``meta["order_scale"]`` orders keep the
            medians that they were given, and steps may be seen between them.

        Returns
        -------
        Spectra or ndarray
            Of shape (n, P); a `Spectra` for a `Spectra`. Pixels that no order covers have flux 0
            and ``ivar`` 0.

        Raises
        ------
        ValueError
            When the number of pixels is not ``n_orders * n_pixels``.
        """
        check_is_fitted(self)
        orders = as_spectra(X)
        if orders.shape[1] != self.blaze_.size:
            raise ValueError(
                f"inverse_transform takes {self.blaze_.shape[0]} orders of {self.blaze_.shape[1]} "
                f"pixels, one after the other; got {orders.shape[1]} pixels."
            )
        out = self._merge(orders)
        return out if isinstance(X, Spectra) else out.flux

    # -- geometry --------------------------------------------------------------------------------

    def _grid_of(self, spectra):
        if spectra.wavelength is None:
            return np.arange(spectra.shape[1], dtype=float)
        grid = wavelength_grid(spectra.wavelength, "the wavelength of the spectra")
        if grid.min() <= 0:
            raise ValueError("The wavelengths of the spectra must be positive [Angstrom].")
        return grid

    def _range(self):
        if self.wavelength_range is None:
            return self._grid.min(), self._grid.max()
        if self.wavelength_ is None:
            raise ValueError(
                "wavelength_range needs spectra with wavelengths: pass Spectra(flux, wavelength=...)."
            )
        given = np.asarray(self.wavelength_range, dtype=float)
        if given.shape != (2,) or not 0 < given[0] < given[1] < np.inf:
            raise ValueError(
                f"wavelength_range={self.wavelength_range!r}; give (low, high) in Angstrom, "
                "0 < low < high."
            )
        return given

    def _place_orders(self, low, high):
        """Pixels and blaze, from the position u: order k lies at k to k + 1 and the overlaps."""
        half = 0.5 * self.overlap
        # linear in 1 / wavelength, as m = const / lambda; pixel numbers have no such law
        forth, back = (np.array, np.array) if self.wavelength_ is None else (_inverse, _inverse)
        ends = forth([low, high])
        scale = (ends[1] - ends[0]) / (self.n_orders + 2 * half)
        first = np.arange(self.n_orders) - half
        blue, red = (
            back(ends[0] + scale * (u + half))[:, None] for u in (first, first + 1 + 2 * half)
        )
        pixel = (np.arange(self.n_pixels) + 0.5) / self.n_pixels
        self.order_wavelength_ = blue + (red - blue) * pixel
        u = (forth(self.order_wavelength_) - ends[0]) / scale - half
        middle = np.arange(self.n_orders)[:, None] + 0.5
        self.blaze_ = np.sinc(u - middle) ** 2 if self.blaze else np.ones_like(u)

    def _operator(self, grid):
        parts = [resampling_matrix(grid, pixels, self.method) for pixels in self.order_wavelength_]
        return vstack(parts, format="csr")

    # -- there -----------------------------------------------------------------------------------

    def _validate_transform(self, X):
        # spectra that bring their own wavelengths need not match the fit, as in Resampler
        own = isinstance(X, Spectra) and X.wavelength is not None and self.wavelength_ is not None
        spectra = X if own else super()._validate_transform(X)
        _refuse_orders(spectra)
        return spectra

    def _transform(self, spectra):
        own = spectra.wavelength is not None and self.wavelength_ is not None
        grid = self._grid_of(spectra) if own else self._grid
        matrix = self.matrix_ if np.array_equal(grid, self._grid) else self._operator(grid)
        spread = self._variance_matrix(matrix, grid)
        size = max(1, _VALUES_AT_ONCE // self.blaze_.size)
        flux = np.empty((len(spectra), self.blaze_.size), dtype=spectra.dtype)
        ivar, scale = None, np.ones((len(spectra), self.n_orders))
        for stars in gen_batches(max(1, len(spectra)), size):
            part, known, scale[stars] = self._lay_out(spectra[stars], matrix, spread)
            flux[stars] = part
            if known is not None and ivar is None:
                kind = spectra.dtype if spectra.ivar is None else spectra.ivar.dtype
                ivar = np.full(flux.shape, np.inf, dtype=kind)
            if known is not None:
                ivar[stars] = known
        meta = spectra.meta if self.normalize is None else spectra.meta | {"order_scale": scale}
        wavelength = None if self.wavelength_ is None else self.order_wavelength_.ravel()
        return Spectra(
            flux,
            ivar=ivar,
            meta=meta,
            wavelength=wavelength,
            wavelength_unit="Angstrom",
            order=np.repeat(np.arange(self.n_orders), self.n_pixels),
            **spectra.about_on(wavelength),
        )

    def _variance_matrix(self, matrix, grid):
        """Weights of the variances: parts of a pixel are as noisy as if they shared its photons."""
        old = np.empty(len(grid))
        order = np.argsort(grid, kind="stable")
        old[order] = _widths(grid[order])
        new = np.concatenate([_widths(pixels) for pixels in self.order_wavelength_])
        entries = matrix.tocoo()
        size = np.abs(entries.data)
        value = size * np.maximum(size, old[entries.col] / new[entries.row])
        return csr_array((value, (entries.row, entries.col)), shape=matrix.shape)

    def _lay_out(self, spectra, matrix, spread):
        """Flux, ivar (None where nothing has errors or is bad) and medians of a batch."""
        flux, ivar = resample(matrix, spectra.flux, spectra.ivar, variance_matrix=spread)
        flux = flux * self.blaze_.ravel()
        if self.normalize is None:
            return flux, ivar, 1.0
        image = flux.reshape(-1, *self.blaze_.shape)
        scale = _order_medians(image, None if ivar is None else ivar.reshape(image.shape) > 0)
        usable = scale > 0
        safe = np.where(usable, scale, 1.0)[:, :, None]
        flux = np.where(usable[:, :, None], image / safe, 0.0).reshape(flux.shape)
        if ivar is None and not usable.all():
            ivar = np.full(flux.shape, np.inf)
        if ivar is not None:
            ivar = np.where(usable[:, :, None], ivar.reshape(image.shape) * safe**2, 0.0)
            ivar = ivar.reshape(flux.shape)
        return flux, ivar, np.where(usable, scale, np.nan)

    # -- and back --------------------------------------------------------------------------------

    def _merge(self, orders):
        share = self._shares()
        scale = np.asarray(orders.meta.get("order_scale", np.ones((len(orders), self.n_orders))))
        scale = np.repeat(np.where(np.isfinite(scale), scale, 1.0), self.n_pixels, axis=1)
        unit = self.blaze_.ravel() / scale  # from the star's flux to that of the order
        weight = fit_weights(orders) * unit**2
        total = (share @ weight.T).T
        seen = total > 0
        flux = (share @ (weight * np.where(orders.good, orders.flux, 0.0) / unit).T).T
        flux = np.where(seen, flux / np.where(seen, total, 1.0), 0.0)
        ivar = None
        if orders.ivar is not None:
            ivar = (share @ (orders.ivar * unit**2).T).T
        meta = {name: value for name, value in orders.meta.items() if name != "order_scale"}
        return Spectra(
            flux.astype(orders.dtype, copy=False),
            ivar=ivar,
            mask=None if seen.all() else ~seen,
            wavelength=self.wavelength_,
            wavelength_unit="Angstrom",
            meta=meta,
            **orders.about_on(self.wavelength_),
        )

    def _shares(self):
        """Share (P, n_orders * n_pixels) of every order pixel that falls on a pixel of the star."""
        order = np.argsort(self._grid, kind="stable")
        width = _widths(self._grid[order])
        parts = []
        for pixels in self.order_wavelength_:
            part = resampling_matrix(pixels, self._grid[order], "flux_conserving").tocoo()
            value = part.data * width[part.row] / _widths(pixels)[part.col]
            parts.append(csr_array((value, (order[part.row], part.col)), shape=part.shape))
        return hstack(parts, format="csr")


def _widths(grid):
    lower, upper = pixel_edges(grid)
    return upper - lower


def _inverse(values):
    return 1.0 / np.asarray(values)


def _refuse_orders(spectra):
    if spectra.order is not None and len(np.unique(spectra.order)) > 1:
        raise ValueError(
            "EchelleLayout takes 1-D spectra, but these have several orders already; merge them "
            "first, for instance with Resampler."
        )


def _order_medians(image, good):
    """Median (n, orders) of the good pixels of (n, orders, pixels); NaN where none is good."""
    if good is None or good.all():
        return np.median(image, axis=2)
    return _quantile_of_finite(np.where(good, image, np.inf), 0.5)
