"""`Resampler`: bring spectra to another wavelength grid."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils import gen_batches

from skspec._sklearn import Interval, StrOptions, fit_context
from skspec._wavelengths import to_angstrom
from skspec.base import SpectraTransformer
from skspec.solvers.spectra.resampling import BAD_FRACTION, MAX_GAP, Resampling, wavelength_grid
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Labels, SpectraLike

__all__ = ["Resampler"]

_STARS_AT_ONCE = 256  # bounds the memory of float64 copies


class Resampler(ClassNamePrefixFeaturesOutMixin, SpectraTransformer):
    r"""Resample to a new grid by a linear operator: :math:`f'_i = \sum_j w_{ij} f_j`.

    Parameters
    ----------
    wavelength : array-like of shape (P',), optional
        Wavelengths of the new pixels, increasing [Angstrom, or a Quantity]. None leaves spectra as
        they are.
    method : {"flux_conserving", "linear", "cubic"}, default="flux_conserving"
        - "flux_conserving": mean flux density over the new pixel,
          :math:`w_{ij}` = overlap of pixels i and j over the width of i. Pixel edges lie half way
          between centres, but for holes. For coarser or similar grids.
        - "linear": linear interpolation between pixel centres.
        - "cubic": Lagrange's cubic through the four nearest pixels, exact for cubics. For finer
          grids; not a spline, so that a bad pixel spoils four pixels and not all.
    bad_fraction : float, default=0.05
        A new pixel is bad when more than this fraction of its (absolute) weight falls on bad
        pixels or outside the spectrum. Below it the rest is renormalised.
    input_wavelength : array-like of shape (P,), optional
        Wavelengths of plain arrays, and of `Spectra` that have none [Angstrom].
    max_gap : float, default=3.5
        Where neighbouring pixels, old or new, are more than so many pixels apart, there is a hole, and
        no new pixel lies across it: those that reach too far into it are bad. By default two missing
        pixels in a row are bridged, three are a hole. ``numpy.inf``: no holes.

    Attributes
    ----------
    matrix_ : scipy.sparse.csr_array of shape (P', P) or None
        The operator for the grid seen at fit. If it has several orders, of shape (R, P), with a row for
        each new pixel and order that sees it.
    wavelength_ : ndarray of shape (P,) or None
        The grid seen at fit [Angstrom].
    n_features_in_ : int
        Number of pixels P.

    Raises
    ------
    ValueError
        When wavelengths are unknown, not finite, or the same for two pixels of one order.

    Notes
    -----
    :math:`\mathrm{var}(f'_i) = \sum_j w_{ij}^2 \mathrm{var}(f_j)`; the covariance of neighbouring
    new pixels is dropped, so errors of finer grids are not independent. New bad pixels have flux 0
    in a `Spectra`, and in plain arrays, which have no other way to say it.

    Pixels count as long as is usual near them, by medians of a few steps on either side, on the side
    where they are longer. So holes are found on grids uniform in wavelength or its logarithm, on those
    that stretch, on interleaved exposures, and on chips of different dispersion, and a grid that is
    coarse has none. Pixels beside a hole keep their own width. Pixels that are missing and pixels
    that are bad (``ivar`` 0) leave the same new pixels bad; "cubic" goes to the very edge of missing
    ones.

    `Spectra` with ``order`` are resampled order by order, nothing is interpolated between two of them,
    and orders may overlap and run in any direction. Where several give a new pixel, it is their mean
    weighted by ``ivar``, or their plain mean if the noise of one is unknown; so orders must share a flux
    scale: normalise them first. The result is one spectrum: its ``order`` is None. A pixel of the new
    grid that no order covers alone, within `bad_fraction`, is bad.

    `Spectra` on a grid other than the fitted one are resampled from their own wavelengths, so one
    fitted Resampler takes several instruments to one grid.

    References
    ----------
    "flux_conserving" is the rule of SpectRes: Carnall 2017, arXiv:1705.05165.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.preprocessing import Resampler
    >>> spectra = Spectra([[1.0, 2.0, 3.0, 4.0]], ivar=1.0, wavelength=[5001, 5002, 5003, 5004])
    >>> coarse = Resampler([5001.5, 5003.5]).fit_transform(spectra)
    >>> coarse.flux.tolist(), coarse.ivar.tolist()
    ([[1.5, 3.5]], [[2.0, 2.0]])
    """

    _parameter_constraints: dict = {
        "wavelength": ["array-like", None],
        "method": [StrOptions({"flux_conserving", "linear", "cubic"})],
        "bad_fraction": [Interval(Real, 0, 1, closed="left")],
        "input_wavelength": ["array-like", None],
        "max_gap": [Interval(Real, 1, None, closed="both")],
    }

    def __init__(
        self,
        wavelength: ArrayLike | None = None,
        *,
        method: str = "flux_conserving",
        bad_fraction: float = BAD_FRACTION,
        input_wavelength: ArrayLike | None = None,
        max_gap: float = MAX_GAP,
    ):
        self.wavelength = wavelength
        self.method = method
        self.bad_fraction = bad_fraction
        self.input_wavelength = input_wavelength
        self.max_gap = max_gap

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Learn the grid and build the operator; `y` is ignored."""
        spectra, _ = self._validate_spectra(X, reset=True)
        self.matrix_ = None
        self._n_features_out = self.n_features_in_
        if self.wavelength is not None:
            self._new_grid = wavelength_grid(to_angstrom(self.wavelength, "Angstrom"), "wavelength")
            if np.any(np.diff(self._new_grid) <= 0):
                raise ValueError("wavelength, the new grid, must increase.")
            if self.wavelength_ is None:
                self.wavelength_ = self._given_grid(spectra.order)
            self._order = spectra.order
            self._resampling = self._operator(self.wavelength_, spectra.order)
            self.matrix_ = self._resampling.matrix
            self._n_features_out = len(self._new_grid)
        return self

    def _given_grid(self, order):
        if self.input_wavelength is None:
            raise ValueError(
                "Resampler does not know the wavelengths of these spectra: pass "
                "Spectra(flux, wavelength=...), or input_wavelength= for plain arrays."
            )
        n_values = np.size(self.input_wavelength)
        if n_values != self.n_features_in_:
            raise ValueError(
                f"input_wavelength has {n_values} values for {self.n_features_in_} pixels."
            )
        given = to_angstrom(self.input_wavelength, "Angstrom")
        return wavelength_grid(given, "input_wavelength", order)

    def _validate_transform(self, X):
        # spectra that bring their own wavelengths need not match the fit: that is the point here
        if isinstance(X, Spectra) and X.wavelength is not None and self.matrix_ is not None:
            return X
        return super()._validate_transform(X)

    def _transform(self, spectra):
        if self.matrix_ is None:
            return spectra
        resampling = self._resampling
        if spectra.wavelength is not None or spectra.order is not None:
            grid = self.wavelength_ if spectra.wavelength is None else spectra.wavelength
            if not (
                np.array_equal(grid, self.wavelength_)
                and np.array_equal(spectra.order, self._order)  # None equals None alone
            ):
                resampling = self._operator(grid, spectra.order)
        parts = []
        for stars in gen_batches(max(1, len(spectra)), _STARS_AT_ONCE):
            ivar = None if spectra.ivar is None else spectra.ivar[stars]
            parts.append(resampling(spectra.flux[stars], ivar, bad_fraction=self.bad_fraction))
        flux = np.concatenate([part for part, _ in parts])
        ivar = None
        if any(part is not None for _, part in parts):
            ivar = np.concatenate([np.full(f.shape, np.inf) if v is None else v for f, v in parts])
        return spectra.replace(
            flux=flux.astype(spectra.dtype, copy=False),
            ivar=ivar,
            wavelength=self._new_grid,
            wavelength_unit="Angstrom",
            order=None,
            **spectra.about_on(self._new_grid),
        )

    def _operator(self, grid, order):
        return Resampling(grid, self._new_grid, self.method, order=order, max_gap=self.max_gap)
