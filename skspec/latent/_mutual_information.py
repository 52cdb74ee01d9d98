"""What the nodes of a latent space tell about labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.utils import check_array, check_random_state

from skspec._label_values import columns_of, filled, label_names, refuse_sentinels
from skspec._short_repr import ShortRepr
from skspec.latent._balance import codes
from skspec.latent._information_estimators import Histogram, Neighbours, Sample, measure
from skspec.solvers.statistics.mutual_information import partial_correlation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Labels, RandomState

__all__ = ["MutualInformation", "latent_mutual_information", "partial_rank_correlation"]

_MIN_STARS = 20  # stars that know a label
_PER_CELL = 2  # stars per cell, on average, of the histogram that is reported
_ROUNDS = 100  # of sigma clipping at most


@dataclass(frozen=True)
class MutualInformation(ShortRepr):
    """Mutual information of latent nodes with labels.

    Attributes
    ----------
    mi : DataFrame
        Nodes x labels [nat]. It scatters about 0 where there is nothing in common, and is not cut there.
    std : DataFrame
        Standard error of `mi`.
    null : DataFrame
        What the largest `mi` of all nodes with a label stays below in 99 % of permutations of that
        label; the same for all nodes.
    p_value : DataFrame
        Probability that a permuted label has as large an `mi` with any of the nodes.
    n_stars : Series
        Stars that each label was measured on.
    by_bins : dict of int to MutualInformation
        Of histograms: the result with each number of bins.
    """

    mi: pd.DataFrame
    std: pd.DataFrame
    null: pd.DataFrame
    p_value: pd.DataFrame
    n_stars: pd.Series
    by_bins: dict[int, MutualInformation] = field(default_factory=dict, repr=False)

    @property
    def normalised(self) -> pd.DataFrame:
        """`mi`, divided by the largest of all nodes with each label; 0 where it is negative."""
        positive = self.mi.clip(lower=0)
        largest = positive.max()
        return positive / largest.where(largest > 0, 1.0)

    def stands_out(self, fraction: float = 0.5) -> pd.DataFrame:
        """Nodes that are associated with a label, nodes x labels.

        They have at least `fraction` of the largest mutual information that any node has with the label,
        and not less than the `null`, if there is one: of histograms, with every number of bins.
        """
        every = self.by_bins.values() or [self]
        found = [(r.normalised >= fraction) & ~(r.mi <= r.null) for r in every]
        return pd.DataFrame(np.all(found, axis=0), self.mi.index, self.mi.columns)


def latent_mutual_information(
    latents: ArrayLike,
    labels: Labels,
    *,
    method: str = "ksg",
    n_neighbors: int = 3,
    bins: int | Sequence[int] = (5, 10, 20, 40, 80, 160),
    correction: str = "grassberger",
    sigma_clip: float | None = 5.0,
    groups: ArrayLike | None = None,
    n_permutations: int = 99,
    n_splits: int | None = None,
    random_state: RandomState | None = None,
) -> MutualInformation:
    r"""What each node tells about each label,

    .. math:: I(z; l) = \int p(z, l) \ln \frac{p(z, l)}{p(z)\,p(l)}\,dz\,dl,

    in nats: 0 when they are independent, :math:`-\frac{1}{2} \ln(1 - \rho^2)` for Gaussians of
    correlation :math:`\rho`, whatever the shape of the relation. A label is measured on the stars that
    know it.

    Parameters
    ----------
    latents : array-like of shape (n, D)
        Latent means of `n` stars. Those that are not finite are left out.
    labels : DataFrame, Series or array-like of shape (n, L) or (n,)
        Labels, NaN where unknown. Strings, booleans and categories are classes, such as the survey or
        the spectral type; the class of a star that is alone in it counts as unknown. `latents`
        themselves show which nodes depend on each other (but on the diagonal).
    method : {"ksg", "histogram"}
        "ksg" is the estimator of Kraskov et al. from nearest neighbours (of Ross for classes), as in
        :func:`~sklearn.feature_selection.mutual_info_regression`, on ranks. "histogram" counts in cells
        of equal width between the smallest and the largest value, as Sedaghat et al. do.
    n_neighbors : int
        Neighbours of "ksg": fewer have less bias, more have less scatter.
    bins : int or sequence of int
        Cells per axis of "histogram". Every number is tried; the largest that leaves 2 stars per cell,
        on average, is reported, and all are in `by_bins`.
    correction : {"grassberger", "miller_madow", "none"}
        For the bias of "histogram", which is about the number of cells over `2n`; see
        :mod:`skspec.solvers.statistics.mutual_information`.
    sigma_clip : float or None
        Of "histogram": labels so many standard deviations from the mean, found again without them, are
        left out.
    groups : array-like of shape (n,), optional
        Star of each spectrum. Spectra of one star are not independent: one of them, drawn at random
        among those that know the label, stands for the star. One whose star is missing (None, NaN or an
        empty string) is a star of its own.
    n_permutations : int
        For `null` and `p_value`: 0, or at least 99.
    n_splits : int, optional
        Splits of the sample, for `std`; 0 leaves it out. Default: 3 for "ksg", 10 for "histogram".
    random_state : int, RandomState instance or None
        Of ties, draws, permutations and splits.

    Returns
    -------
    MutualInformation

    Raises
    ------
    ValueError
        When fewer than 20 stars, or 4 (`n_neighbors` + 2), know a label, and on lengths that differ.

    See Also
    --------
    partial_rank_correlation : Does a node know a label, or only another one that goes with it?

    Notes
    -----
    **Errors** are not from a bootstrap: nearest neighbours of a sample that holds stars twice lie at
    distance 0, and its information is too high. Instead the stars are split into `m` parts (4, and 2 for
    histograms), each is measured, and the variance between them is divided by `m`, as it is inversely
    proportional to the number of stars (Holmes & Nemenman 2019).

    **The null** is for all nodes together: with 128 nodes, one or two that know nothing exceed the 99 %
    level of their own. The histograms of all nodes are counted again with the same permuted label, and
    the largest of each permutation taken, so that nodes that depend on each other count as they should.
    On ranks, "ksg" has the same distribution for all nodes if they know nothing: its mean, spread and
    skewness come from permutations of one, and the level as if the nodes were independent, which is on
    the safe side.

    References
    ----------
    Sedaghat et al. 2021, MNRAS 501, 6026; Kraskov, Stoegbauer & Grassberger 2004, PRE 69, 066138; Ross
    2014, PLoS ONE 9, e87357; Holmes & Nemenman 2019, PRE 100, 022404; Grassberger 2003, physics/0307138.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skspec.latent import latent_mutual_information
    >>> rng = np.random.default_rng(0)
    >>> latents = rng.normal(size=(2000, 3))
    >>> labels = pd.DataFrame({
    ...     "teff": 5500 + 400 * latents[:, 0] + 300 * rng.normal(size=2000),
    ...     "survey": np.where(latents[:, 1] > 0, "MILES", "LAMOST"),
    ... })
    >>> found = latent_mutual_information(latents, labels, random_state=0)
    >>> found.mi.max().round(2)                                 # 0.51 and 0.69 are expected
    teff      0.52
    survey    0.69
    dtype: float64
    >>> found.stands_out()
           teff  survey
    node
    0      True   False
    1     False    True
    2     False   False
    """
    rng = check_random_state(random_state)
    latents, nodes = _as_latents(latents)
    table = _as_table(labels, len(latents))
    estimators = _estimators(method, n_neighbors, bins, correction, rng)
    _check_counts(n_permutations, n_splits, sigma_clip)
    clip = sigma_clip if method == "histogram" else None
    draw = _Draw(latents, groups, clip, Neighbours.n_parts * (n_neighbors + 2), rng)
    columns: dict[str, dict] = {key: {} for key in estimators}
    reported = {}
    for name in table:
        rows, sample = draw(table[name])
        for key, estimator in estimators.items():
            columns[key][name] = measure(
                estimator, latents[rows], sample, n_permutations, n_splits, rng
            )
        reported[name] = columns[_finest(estimators, sample)][name]
    result = _assemble(reported, nodes, table.columns)
    if method == "ksg":
        return result
    by_bins = {key: _assemble(found, nodes, table.columns) for key, found in columns.items()}
    return replace(result, by_bins=by_bins)


class _Draw:
    """Chooses the stars that a label is measured on."""

    def __init__(self, latents, groups, sigma_clip, fewest, rng):
        self.usable = np.isfinite(latents).all(axis=1)
        self.groups = None if groups is None else _as_groups(groups, len(latents))
        self.sigma_clip, self.fewest, self.rng = sigma_clip, max(_MIN_STARS, fewest), rng

    def __call__(self, label):
        """Rows, and the label there."""
        is_class = not pd.api.types.is_numeric_dtype(label) or pd.api.types.is_bool_dtype(label)
        if is_class:
            y = codes(label)
            rows = self._one_per_star(np.flatnonzero(self.usable & (y >= 0)))
            y = np.unique(y[rows], return_inverse=True)[1]
            shared = np.bincount(y, minlength=1)[y] > 1
            rows, y = rows[shared], np.unique(y[shared], return_inverse=True)[1]
        else:
            y = pd.to_numeric(label).to_numpy(dtype=float, na_value=np.nan)
            rows = self._one_per_star(np.flatnonzero(self.usable & np.isfinite(y)))
            if self.sigma_clip is not None:
                rows = rows[_within(y[rows], self.sigma_clip)]
            y = y[rows]
        if len(rows) < self.fewest:
            raise ValueError(
                f"Only {len(rows)} stars know the label {label.name!r}, at least {self.fewest} are "
                "needed; leave it out."
            )
        return rows, Sample(y, int(y.max()) + 1 if is_class else 0)

    def _one_per_star(self, rows):
        if self.groups is None:
            return rows
        rows = self.rng.permutation(rows)
        return np.sort(rows[np.unique(self.groups[rows], return_index=True)[1]])


def _within(values, n_sigma):
    """Which values lie within so many standard deviations of the mean of those that do."""
    keep = np.ones(len(values), dtype=bool)
    for _ in range(_ROUNDS):
        mean, std = values[keep].mean(), values[keep].std()
        inside = keep & (np.abs(values - mean) <= n_sigma * std)
        if inside.sum() == keep.sum():
            break
        keep = inside
    return keep


def _estimators(method, n_neighbors, bins, correction, rng):
    if method == "ksg":
        if not (isinstance(n_neighbors, Integral) and n_neighbors >= 1):
            raise ValueError(f"n_neighbors must be an integer >= 1, got {n_neighbors!r}.")
        return {None: Neighbours(n_neighbors, rng)}
    if method != "histogram":
        raise ValueError(f"method must be 'ksg' or 'histogram', got {method!r}.")
    if correction not in ("grassberger", "miller_madow", "none"):
        raise ValueError(
            f"correction must be 'grassberger', 'miller_madow' or 'none', got {correction!r}."
        )
    bins = np.unique(bins)
    if bins.size == 0 or bins.dtype.kind not in "iu" or bins[0] < 2:
        raise ValueError(f"bins must be integers >= 2, got {bins.tolist()}.")
    return {int(n_bins): Histogram(int(n_bins), correction, rng) for n_bins in bins}


def _finest(estimators, sample):
    """The histogram with most cells of those with enough stars per cell, else the coarsest."""
    enough = [
        key for key, e in estimators.items() if len(sample.y) >= _PER_CELL * e.n_cells(sample)
    ]
    return enough[-1] if enough else next(iter(estimators))


def _check_counts(n_permutations, n_splits, sigma_clip):
    if not (isinstance(n_permutations, Integral) and (n_permutations == 0 or n_permutations >= 99)):
        raise ValueError(
            f"n_permutations must be 0 or at least 99, the least that has a 99 % level; got "
            f"{n_permutations!r}."
        )
    if not (n_splits is None or (isinstance(n_splits, Integral) and n_splits >= 0)):
        raise ValueError(f"n_splits must be an integer >= 0 or None, got {n_splits!r}.")
    if sigma_clip is not None and not sigma_clip > 0:
        raise ValueError(f"sigma_clip must be positive or None, got {sigma_clip!r}.")


def _assemble(columns, nodes, names):
    parts = {
        key: pd.DataFrame(
            np.column_stack([getattr(c, key) for c in columns.values()]), nodes, names
        )
        for key in ("mi", "std", "null", "p_value")
    }
    n_stars = pd.Series([c.n_stars for c in columns.values()], index=names, name="n_stars")
    return MutualInformation(**parts, n_stars=n_stars)


def _as_latents(latents):
    """Latents (n, D) and the names of the nodes."""
    nodes = getattr(latents, "columns", None)
    latents = check_array(latents, dtype=float, input_name="latents", ensure_all_finite=False)
    nodes = range(latents.shape[1]) if nodes is None else nodes
    return latents, pd.Index(nodes, name="node")


def _as_table(labels, n):
    """Labels as a DataFrame, one row per star."""
    names = label_names(labels)
    if isinstance(labels, pd.DataFrame | pd.Series):
        table = pd.DataFrame(labels)
    else:
        columns = columns_of(labels)
        parts = [_numbers_or_classes(each) for each in ([labels] if columns is None else columns)]
        table = pd.concat([pd.DataFrame(part) for part in parts], axis=1)
    table.columns = names or [f"label_{k}" for k in range(table.shape[1])]
    if len(table) != n:
        raise ValueError(f"{len(table)} sets of labels for {n} stars; give one each.")
    for name, column in table.items():
        if column.dtype.kind == "f":
            refuse_sentinels(column.to_numpy(), [name])
    return table.infer_objects()


def _numbers_or_classes(column):
    text = np.asarray(column).dtype.kind in "OSU"
    return np.asarray(column) if text else filled(column, "The labels")


def _as_groups(groups, n):
    """Number of the star of each spectrum; one whose star is missing is a star of its own."""
    if np.shape(groups) != (n,):
        raise ValueError(
            f"groups of shape {np.shape(groups)} for {n} spectra; give the star of each."
        )
    groups = codes(groups)
    return np.where(groups < 0, n + np.arange(n), groups)


def partial_rank_correlation(latents: ArrayLike, labels: Labels) -> pd.DataFrame:
    r"""Rank correlation of each node with each label while all other labels are held fixed.

    Labels go together in every sample: a node that knows the temperature also shares information with
    the gravity of main-sequence stars. It has a partial correlation with what it knows, and none with
    what only comes along (as far as ranks depend on each other along straight lines).

    Parameters
    ----------
    latents : array-like of shape (n, D)
    labels : DataFrame or array-like of shape (n, L)
        Numbers. Stars that lack any of them are left out.

    Returns
    -------
    DataFrame
        Nodes x labels, from -1 to 1.

    Raises
    ------
    ValueError
        When a label is a class, or fewer than 20 stars have all labels.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skspec.latent import partial_rank_correlation
    >>> rng = np.random.default_rng(0)
    >>> teff = rng.normal(size=1000)
    >>> logg = -0.9 * teff + 0.4 * rng.normal(size=1000)
    >>> node = teff + 0.3 * rng.normal(size=1000)
    >>> labels = pd.DataFrame({"teff": teff, "logg": logg})
    >>> labels.corrwith(pd.Series(node), method="spearman").round(2)
    teff    0.95
    logg   -0.85
    dtype: float64
    >>> partial_rank_correlation(node[:, None], labels).round(1)
          teff  logg
    node
    0      0.8  0.0
    """
    latents, nodes = _as_latents(latents)
    table = _as_table(labels, len(latents))
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"The label {name!r} is a class, which has no rank; leave it out.")
    values = table.to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(values).all(axis=1) & np.isfinite(latents).all(axis=1)
    if known.sum() < _MIN_STARS:
        raise ValueError(
            f"{known.sum()} stars have all labels, at least {_MIN_STARS} are needed; leave out labels "
            "that few stars have."
        )
    ranks = rankdata(latents[known], axis=0), rankdata(values[known], axis=0)
    return pd.DataFrame(partial_correlation(*ranks), nodes, table.columns)
