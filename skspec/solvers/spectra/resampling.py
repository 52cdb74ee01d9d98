r"""Spectra on other pixels: a sparse linear operator, :math:`f'_i = \sum_j w_{ij} f_j`.

Nothing is taken across a hole of the grid or from one echelle order into the next. Where several
orders see a new pixel, each gives a value of its own, and these are averaged.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import csr_array, vstack

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "BAD_FRACTION",
    "MAX_GAP",
    "Resampling",
    "long_steps",
    "pixel_edges",
    "resample",
    "resampling_matrix",
    "wavelength_grid",
]

MAX_GAP = 3.5  # pixels: two that were cut out are bridged, three are a hole
BAD_FRACTION = 0.05  # of a new pixel's weight
ONE_SIDE = 5  # pairs of steps on either side of a step tell how long it should be
ENOUGH = 3  # fewer tell nothing
SLIVER = 1e-12  # of a new pixel: overlap by rounding
NODES = {"linear": 2, "cubic": 4}


class Resampling:
    r"""The operator from one wavelength grid to another, order by order.

    Parameters
    ----------
    grid : array-like of shape (P,)
        Wavelengths of the pixels, in any sequence [Angstrom].
    new_grid : array-like of shape (P',)
        Wavelengths of the new pixels, in any sequence.
    method : {"flux_conserving", "linear", "cubic"}
        See :func:`resampling_matrix`.
    order : array-like of int of shape (P,), optional
        Echelle order (chip, arm) of each pixel; None: all are one.
    new_order : array-like of int of shape (P',), optional
        Takes the new pixels of an order from this order alone. None: from all that see them.
    factor : array-like of shape (n,), optional
        Of each star: its wavelengths are divided by it, as by a Doppler factor. The operator is then
        one for these `n` stars, in their sequence. A single factor is one for all stars.
    max_gap : float
        Longest step between neighbouring pixels, in pixels, see :func:`pixel_edges`.

    Attributes
    ----------
    matrix : scipy.sparse.csr_array of shape (R, P)
        One row per new pixel, or, if there are several orders, per new pixel and order that sees it.
        With `factor`, of shape (R, n P): the stars one after the other.
    pixel : ndarray of int of shape (R,) or None
        New pixel (with `factor`, of all the stars' new pixels) of each row. None: row i is pixel i.

    Raises
    ------
    ValueError
        When a grid is not finite, is too short, or holds a wavelength twice in one order.
    """

    def __init__(
        self,
        grid: ArrayLike,
        new_grid: ArrayLike,
        method: str = "flux_conserving",
        *,
        order: ArrayLike | None = None,
        new_order: ArrayLike | None = None,
        factor: ArrayLike | None = None,
        max_gap: float = MAX_GAP,
    ):
        grid = wavelength_grid(grid, "the wavelength of the spectra", order)
        new_grid = wavelength_grid(new_grid, "the new grid", new_order)
        self._n_stars = 1 if factor is None else np.size(factor)
        self._n_pixels = len(new_grid)
        factor = np.ones(1) if factor is None else np.asarray(factor, dtype=float)
        shape = (len(factor) * len(new_grid), len(factor) * len(grid))
        parts, targets = [], []
        for columns, pixels in _pieces(len(grid), order, len(new_grid), new_order):
            row, column, value = _entries(grid[columns], new_grid[pixels], factor, method, max_gap)
            star, row = np.divmod(row, len(pixels))
            row = star * len(new_grid) + pixels[row]
            column = star * len(grid) + columns[column]
            part = csr_array((value, (row, column)), shape=shape)
            part.sum_duplicates()
            part.eliminate_zeros()
            parts.append(part)
            targets.append(np.flatnonzero(np.diff(part.indptr)))
        self.pixel = None if len(parts) == 1 else np.concatenate(targets)
        if len(parts) == 1:
            self.matrix = parts[0]
        else:
            seen = [part[rows] for part, rows in zip(parts, targets)]
            self.matrix = csr_array(vstack(seen, format="csr"))

    def __call__(
        self,
        flux: np.ndarray,
        ivar: np.ndarray | None = None,
        *,
        bad_fraction: float = BAD_FRACTION,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Flux and inverse variance on the new pixels.

        Parameters
        ----------
        flux : ndarray of shape (n, P)
            May hold anything finite at bad pixels.
        ivar : ndarray of shape (n, P), optional
            0 at bad pixels, inf where the noise is not known. None: no noise known, nothing bad.
        bad_fraction : float
            See :func:`resample`.

        Returns
        -------
        flux, ivar : ndarray of shape (n, P')
            In double precision; 0 at bad pixels. `ivar` is None if nothing is bad and no noise known.
        """
        if self._n_stars > 1:
            flux, ivar = (None if x is None else np.reshape(x, (1, -1)) for x in (flux, ivar))
        flux, ivar = resample(self.matrix, flux, ivar, bad_fraction=bad_fraction)
        if self.pixel is not None:
            flux, ivar = _mean_of_orders(flux, ivar, self.pixel, self._n_stars * self._n_pixels)
        shape = (-1, self._n_pixels)
        return flux.reshape(shape), None if ivar is None else ivar.reshape(shape)


def resampling_matrix(
    grid: ArrayLike, new_grid: ArrayLike, method: str, max_gap: float = MAX_GAP
) -> csr_array:
    """Sparse matrix (P', P) for a grid of one order.

    "flux_conserving" takes the mean flux density over the new pixel, "linear" and "cubic" interpolate
    between pixel centres (Lagrange), from pixels on one side of a hole. Rows sum to the fraction of the
    new pixel that is covered.
    """
    return Resampling(grid, new_grid, method, max_gap=max_gap).matrix


def resample(
    matrix: csr_array,
    flux: np.ndarray,
    ivar: np.ndarray | None = None,
    *,
    bad_fraction: float = BAD_FRACTION,
    variance_matrix: csr_array | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Flux and ivar (n, R) of the new pixels; ivar None where nothing is bad or has errors.

    Parameters
    ----------
    matrix : csr_array of shape (R, P)
        Of :func:`resampling_matrix`.
    flux : ndarray of shape (n, P)
    ivar : ndarray of shape (n, P), optional
        0 at bad pixels, inf where the noise is not known.
    bad_fraction : float
        A new pixel is bad when more than this fraction of its (absolute) weight falls on bad pixels or
        outside the spectrum. Below it the rest is renormalised.
    variance_matrix : csr_array of shape (R, P), optional
        Takes the variances to the new pixels; by default the squares of `matrix`.
    """
    size = abs(matrix).sum(axis=1)
    missing = np.maximum(1 - matrix.sum(axis=1), 0)
    good = None if ivar is None else ivar > 0
    if good is None or good.all():
        spoiled = np.broadcast_to(missing, (len(flux), len(missing)))
        covered = np.broadcast_to(matrix.sum(axis=1), spoiled.shape)
        flux = (matrix @ flux.T).T
    else:
        on_bad = (abs(matrix) @ (~good).T.astype(float)).T
        spoiled = on_bad / np.maximum(size, 1) + missing
        covered = (matrix @ good.T.astype(float)).T
        flux = (matrix @ np.where(good, flux, 0).T).T
    bad = (spoiled > bad_fraction + 1e-9) | (covered <= 0)
    covered = np.where(bad, 1.0, covered)
    flux = np.where(bad, 0.0, flux / covered)
    if ivar is None:
        return flux, np.where(bad, 0.0, np.inf) if bad.any() else None
    if variance_matrix is None:
        variance_matrix = matrix.power(2)
    with np.errstate(divide="ignore", over="ignore"):
        variance = np.where(good, 1 / np.asarray(ivar, dtype=float), 0.0)
    variance = (variance_matrix @ variance.T).T / covered**2
    with np.errstate(divide="ignore"):
        return flux, np.where(bad, 0.0, 1 / variance)


def wavelength_grid(values: ArrayLike, name: str, order: ArrayLike | None = None) -> np.ndarray:
    """`values` as a vector of wavelengths, finite and distinct within each order.

    `name` is for the complaint.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be a vector of at least two finite wavelengths.")
    if order is None:
        if len(np.unique(values)) < len(values):
            raise ValueError(
                f"{name} holds the same wavelength twice; pixels of overlapping echelle orders need "
                "Spectra(order=...), others have to be merged first."
            )
        return values
    by_order = np.lexsort((values, order))
    twice = (np.diff(values[by_order]) == 0) & (np.diff(np.asarray(order)[by_order]) == 0)
    if twice.any():
        pixel = by_order[np.argmax(twice)]
        raise ValueError(
            f"{name} holds the same wavelength twice in order {np.asarray(order)[pixel]} "
            f"({values[pixel]:.4f} Angstrom); merge or remove these pixels first."
        )
    return values


# -- pixels and holes ------------------------------------------------------------------------------


def _spacings(step):
    """Typical length of the steps (3, S): left of each step, right of it, and what it should be.

    Of two neighbouring steps the longer one counts, as exposures may be interleaved in pairs of pixels.
    Medians do not see the holes among these, and the longer of both sides counts, so that two chips may
    differ in dispersion. A side with fewer than `ENOUGH` steps says nothing (NaN).
    """
    blank = np.full(ONE_SIDE + 1, np.nan)
    window = sliding_window_view(np.concatenate([blank, step, blank]), 2 * ONE_SIDE + 3)
    left, right = window[:, : ONE_SIDE + 1], window[:, ONE_SIDE + 2 :]
    left, right = np.fmax(left[:, 1:], left[:, :-1]), np.fmax(right[:, 1:], right[:, :-1])
    one_sided = [_low_median(side, ENOUGH) for side in (left, right)]
    usual = np.fmax(*one_sided)
    alone = np.isnan(usual)  # in grids of a few pixels
    usual[alone] = _low_median(np.hstack([left, right])[alone], 1)
    return np.stack([*one_sided, usual])


def _low_median(values, enough):
    """Lower median of each row, without NaN; NaN where it has not enough values."""
    values = np.sort(values, axis=1)
    number = np.sum(~np.isnan(values), axis=1)
    middle = np.take_along_axis(values, np.maximum(number - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.where(number >= enough, middle, np.nan)


def pixel_edges(grid: np.ndarray, max_gap: float = MAX_GAP) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edges (P,) of pixels at ascending centres.

    Edges lie half way between centres. A step that is longer than `max_gap` times what is usual near it
    (on the side where pixels are longer) is a hole: there, pixels end where their own width ends. A
    grid that is coarse, or that stretches, has no holes. Steps at the ends of a grid and between fewer
    than three pixels are judged by the others.
    """
    step = np.diff(grid)
    if not len(step):
        return grid, grid  # the width of a lone pixel is not known
    below, above = 0.5 * np.r_[step[0], step], 0.5 * np.r_[step, step[-1]]
    hole, usual_left, usual_right = long_steps(step, max_gap)
    for i in np.flatnonzero(hole):  # few
        inner = [step[i - 1]] if i > 0 and not hole[i - 1] else []
        above[i] = 0.5 * min(usual_left[i], step[i], *inner)
        inner = [step[i + 1]] if i + 1 < len(step) and not hole[i + 1] else []
        below[i + 1] = 0.5 * min(usual_right[i], step[i], *inner)
        if i == 0:
            below[0] = above[0]
        if i == len(step) - 1:
            above[-1] = below[-1]
    return grid - below, grid + above


def long_steps(step: np.ndarray, max_gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which steps between ascending pixels are holes (S,), and what is usual left and right of them.

    As :func:`pixel_edges` says.
    """
    if not step.size or step.max() <= max_gap * step.min():
        return np.zeros(len(step), dtype=bool), step, step
    left, right, usual = _spacings(step)
    left, right = (np.where(np.isnan(side), usual, side) for side in (left, right))
    return step > max_gap * (1 + 1e-9) * usual, left, right  # NaN: the only step is none


def _pieces(n_pixels, order, n_new, new_order):
    """Pixels and new pixels that may see each other, for each order."""
    everything = np.arange(n_new)
    if order is None:
        yield np.arange(n_pixels), everything
        return
    order = np.asarray(order)
    for number in np.unique(order):
        new = everything if new_order is None else np.flatnonzero(np.equal(new_order, number))
        yield np.flatnonzero(order == number), new


# -- weights ---------------------------------------------------------------------------------------


def _entries(old, new, factor, method, max_gap):
    """Rows (star by star, new pixel by new pixel), columns and values of the operator of one order."""
    by_wavelength = np.argsort(old, kind="stable")
    old = old[by_wavelength]
    if method == "flux_conserving":
        ascending = np.argsort(new, kind="stable")
        lower, upper = np.empty_like(new), np.empty_like(new)
        lower[ascending], upper[ascending] = pixel_edges(new[ascending], max_gap)
        lower, upper = (np.multiply.outer(factor, edge).ravel() for edge in (lower, upper))
        row, column, value = _overlap(*pixel_edges(old, max_gap), lower, upper)
    else:
        at = np.multiply.outer(factor, new).ravel()
        ends = np.flatnonzero(long_steps(np.diff(old), max_gap)[0]) + 1
        row, column, value = _lagrange(old, ends, at, NODES[method])
    return row, by_wavelength[column], value


def _overlap(old_lower, old_upper, lower, upper):
    """Share of each interval that lies in each of the old ones, which ascend."""
    first = np.searchsorted(old_upper, lower, side="right")
    end = np.searchsorted(old_lower, upper, side="left")
    number = np.maximum(end - first, 0)
    row = np.repeat(np.arange(len(lower)), number)
    column = np.arange(len(row)) + np.repeat(first - np.cumsum(number) + number, number)
    both = np.minimum(upper[row], old_upper[column]) - np.maximum(lower[row], old_lower[column])
    width = (upper - lower)[row]
    some = both > SLIVER * width
    return row[some], column[some], both[some] / width[some]


def _lagrange(old, ends, at, n_nodes):
    """Lagrange's polynomials through the nodes nearest to each place, all in one segment.

    Segments end before the pixels `ends`; short ones have fewer nodes.
    """
    starts, ends = np.r_[0, ends], np.r_[ends, len(old)]
    slack = 1e-9 * (old[-1] - old[0])  # the ends of two grids may differ by rounding
    segment = np.maximum(np.searchsorted(old[starts], at + slack, "right") - 1, 0)
    low, high = old[starts][segment], old[ends - 1][segment]
    row = np.flatnonzero((at >= low - slack) & (at <= high + slack))
    at = np.clip(at, low, high)[row]
    start, end = starts[segment[row]], ends[segment[row]]
    number = np.minimum(n_nodes, end - start)
    first = np.searchsorted(old, at, "right") - number // 2
    first = np.clip(first, start, end - number)
    parts = []
    for n in np.unique(number):
        here = slice(None) if len(starts) == 1 else number == n
        begin, x = first[here], at[here]
        # prod_{m != k} (x - x_m) / (x_k - x_m); the lower product once for each set of nodes
        node = [old[k : len(old) - n + 1 + k] for k in range(n)]
        away = [x - node[k][begin] for k in range(n)]
        for k in range(n):
            others = [m for m in range(n) if m != k]
            top = _product([away[m] for m in others], x)
            bottom = _product([node[k] - node[m] for m in others], old)
            parts.append((row[here], begin + k, top / bottom[begin]))
    if not parts:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    return tuple(np.concatenate(part) for part in zip(*parts))


def _product(factors, like):
    return reduce(np.multiply, factors) if factors else np.ones(len(like))


def _mean_of_orders(flux, ivar, pixel, n_pixels):
    """Mean (n, n_pixels) of the rows (n, R) of a pixel, weighted by ivar; equally if one is inf."""
    join = csr_array((np.ones(len(pixel)), (pixel, np.arange(len(pixel)))), (n_pixels, len(pixel)))

    def total(values):
        return (join @ values.T).T

    if ivar is None:
        ivar = np.full(flux.shape, np.inf)
    unknown = np.isinf(ivar)
    equal = total(unknown.astype(float)) > 0
    at_rows = equal[:, pixel]
    weight = np.where(at_rows, ivar > 0, np.where(unknown, 1.0, ivar))
    sum_of_weights = total(weight)
    seen = sum_of_weights > 0
    safe = np.where(seen, sum_of_weights, 1.0)
    flux = np.where(seen, total(weight * flux) / safe, 0.0)
    with np.errstate(divide="ignore"):
        variance = np.where(weight > 0, 1 / np.where(ivar > 0, ivar, np.inf), 0.0)
        of_equal = safe**2 / total(variance * at_rows)
    ivar = np.where(equal, of_equal, sum_of_weights)
    if seen.all() and np.isinf(ivar).all():
        return flux, None
    return flux, np.where(seen, ivar, 0.0)
