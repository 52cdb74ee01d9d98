"""`Resampler`: bring spectra to another wavelength grid."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils import gen_batches

from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import SpectraTransformer
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
        Wavelengths of the new pixels, increasing [Angstrom]. None leaves spectra as they are.
    method : {"flux_conserving", "linear", "cubic"}, default="flux_conserving"
        - "flux_conserving": mean flux density over the new pixel,
          :math:`w_{ij}` = overlap of pixels i and j over the width of i. Pixel edges lie half way
          between centres. For coarser or similar grids.
        - "linear": linear interpolation between pixel centres.
        - "cubic": Lagrange's cubic through the four nearest pixels, exact for cubics. For finer
          grids; not a spline, so that a bad pixel spoils four pixels and not all.
    bad_fraction : float, default=0.05
        A new pixel is bad when more than this fraction of its (absolute) weight falls on bad
        pixels or outside the spectrum. Below it the rest is renormalised.
    input_wavelength : array-like of shape (P,), optional
        Wavelengths of plain arrays, and of `Spectra` that have none [Angstrom].

    Attributes
    ----------
    matrix_ : scipy.sparse.csr_array of shape (P', P) or None
        The operator for the grid seen at fit.
    wavelength_ : ndarray of shape (P,) or None
        The grid seen at fit [Angstrom].
    n_features_in_ : int
        Number of pixels P.

    Notes
    -----
    :math:`\mathrm{var}(f'_i) = \sum_j w_{ij}^2 \mathrm{var}(f_j)`; the covariance of neighbouring
    new pixels is dropped, so errors of finer grids are not independent. New bad pixels have flux 0
    in a `Spectra`, and in plain arrays, which have no other way to say it.

    `Spectra` on a grid other than the fitted one are resampled from their own wavelengths, so one
    fitted Resampler takes several instruments to one grid. Echelle ``order`` is dropped: overlapping
    orders are interleaved, so normalise them first.

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
    }

    def __init__(
        self,
        wavelength: ArrayLike | None = None,
        *,
        method: str = "flux_conserving",
        bad_fraction: float = 0.05,
        input_wavelength: ArrayLike | None = None,
    ):
        self.wavelength = wavelength
        self.method = method
        self.bad_fraction = bad_fraction
        self.input_wavelength = input_wavelength

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Learn the grid and build the operator; `y` is ignored."""
        spectra, _ = self._validate_spectra(X, reset=True)
        self.matrix_ = None
        self._n_features_out = self.n_features_in_
        if self.wavelength is not None:
            self._new_grid = wavelength_grid(self.wavelength, "wavelength")
            if np.any(np.diff(self._new_grid) <= 0):
                raise ValueError("wavelength, the new grid, must increase.")
            if self.wavelength_ is None:
                self.wavelength_ = self._given_grid()
            self.matrix_ = self._operator(self.wavelength_)
            self._n_features_out = len(self._new_grid)
        return self

    def _given_grid(self):
        if self.input_wavelength is None:
            raise ValueError(
                "Resampler does not know the wavelengths of these spectra: pass "
                "Spectra(flux, wavelength=...), or input_wavelength= for plain arrays."
            )
        given = wavelength_grid(self.input_wavelength, "input_wavelength")
        if len(given) != self.n_features_in_:
            raise ValueError(
                f"input_wavelength has {len(given)} values for {self.n_features_in_} pixels."
            )
        return given

    def _validate_transform(self, X):
        # spectra that bring their own wavelengths need not match the fit: that is the point here
        if isinstance(X, Spectra) and X.wavelength is not None and self.matrix_ is not None:
            return X
        return super()._validate_transform(X)

    def _transform(self, spectra):
        if self.matrix_ is None:
            return spectra
        grid = self.wavelength_ if spectra.wavelength is None else spectra.wavelength
        same = np.array_equal(grid, self.wavelength_)
        matrix = self.matrix_ if same else self._operator(grid)
        parts = [
            resample(matrix, spectra[stars], self.bad_fraction)
            for stars in gen_batches(max(1, len(spectra)), _STARS_AT_ONCE)
        ]
        flux = np.concatenate([part for part, _ in parts])
        ivar = None
        if any(part is not None for _, part in parts):
            ivar = np.concatenate([np.full(f.shape, np.inf) if v is None else v for f, v in parts])
        return Spectra(
            flux.astype(spectra.dtype, copy=False),
            ivar=ivar,
            wavelength=self._new_grid,
            wavelength_unit="Angstrom",
            meta=spectra.meta,
            **spectra.about_on(self._new_grid),
        )

    def _operator(self, grid):
        return resampling_matrix(grid, self._new_grid, self.method)


def resampling_matrix(grid, new_grid, method):
    """Sparse matrix (P', P); rows sum to the fraction of the new pixel that is covered."""
    order = np.argsort(grid, kind="stable")
    old = wavelength_grid(grid[order], "the wavelength of the spectra")
    build = {"flux_conserving": _overlap, "linear": _linear, "cubic": _cubic}[method]
    row, column, value = build(old, new_grid)
    matrix = csr_array((value, (row, order[column])), shape=(len(new_grid), len(old)))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def wavelength_grid(values, name):
    """`values` as a vector of distinct finite wavelengths; `name` is for the complaint."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be a vector of at least two finite wavelengths.")
    if len(np.unique(values)) < len(values):
        raise ValueError(f"{name} holds the same wavelength twice; Resampler cannot order them.")
    return values


def resample(matrix, spectra, bad_fraction, variance_matrix=None):
    """Flux and ivar (n, P') of the new pixels; ivar None where nothing is bad or has errors.

    `variance_matrix` takes the variances to the new pixels; by default the squares of `matrix`.
    """
    size = abs(matrix).sum(axis=1)
    missing = np.maximum(1 - matrix.sum(axis=1), 0)
    good = spectra.good
    if good.all():
        spoiled = np.broadcast_to(missing, (len(spectra), len(missing)))
        covered = np.broadcast_to(matrix.sum(axis=1), spoiled.shape)
        flux = (matrix @ spectra.flux.T).T
    else:
        on_bad = (abs(matrix) @ (~good).T.astype(float)).T
        spoiled = on_bad / np.maximum(size, 1) + missing
        covered = (matrix @ good.T.astype(float)).T
        flux = (matrix @ np.where(good, spectra.flux, 0).T).T
    bad = (spoiled > bad_fraction + 1e-9) | (covered <= 0)
    covered = np.where(bad, 1.0, covered)
    flux = np.where(bad, 0.0, flux / covered)
    if spectra.ivar is None and not bad.any():
        return flux, None
    if variance_matrix is None:
        variance_matrix = matrix.power(2)
    variance = np.where(good, spectra.variance, 0.0)
    variance = (variance_matrix @ variance.T).T / covered**2
    with np.errstate(divide="ignore"):
        return flux, np.where(bad, 0.0, 1 / variance)


def pixel_edges(grid):
    """Edges (P + 1,) of pixels: half way between their centres."""
    middle = 0.5 * (grid[1:] + grid[:-1])
    return np.concatenate(
        [[1.5 * grid[0] - 0.5 * grid[1]], middle, [1.5 * grid[-1] - 0.5 * grid[-2]]]
    )


def _overlap(old, new):
    old_edges, new_edges = pixel_edges(old), pixel_edges(new)
    # between two consecutive edges of either grid lies at most one pixel of each
    edges = np.union1d(old_edges, new_edges)
    centre, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    column = np.searchsorted(old_edges, centre) - 1
    row = np.searchsorted(new_edges, centre) - 1
    both = (column >= 0) & (column < len(old)) & (row >= 0) & (row < len(new))
    row, column = row[both], column[both]
    return row, column, width[both] / np.diff(new_edges)[row]


def _inside(old, new):
    slack = 1e-9 * (old[-1] - old[0])  # the ends of two grids may differ by rounding
    return np.flatnonzero((new >= old[0] - slack) & (new <= old[-1] + slack))


def _linear(old, new):
    row = _inside(old, new)
    left = np.clip(np.searchsorted(old, new[row], "right") - 1, 0, len(old) - 2)
    right_weight = np.clip((new[row] - old[left]) / (old[left + 1] - old[left]), 0, 1)
    return (
        np.concatenate([row, row]),
        np.concatenate([left, left + 1]),
        np.concatenate([1 - right_weight, right_weight]),
    )


def _cubic(old, new):
    n_points = min(4, len(old))
    row = _inside(old, new)
    first = np.searchsorted(old, new[row], "right") - n_points // 2
    first = np.clip(first, 0, len(old) - n_points)
    column = first[:, None] + np.arange(n_points)
    node = old[column]
    # Lagrange: prod_{m != k} (x - x_m) / (x_k - x_m)
    top = np.repeat((new[row, None] - node)[:, None, :], n_points, axis=1)
    bottom = node[:, :, None] - node[:, None, :]
    k = np.arange(n_points)
    top[:, k, k] = bottom[:, k, k] = 1.0
    weight = (top / bottom).prod(axis=2)
    return np.repeat(row, n_points), column.ravel(), weight.ravel()
