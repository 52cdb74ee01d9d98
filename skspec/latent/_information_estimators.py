"""The two estimators of mutual information, with their errors and their null distributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from skspec.solvers.statistics.conformal import conformal_quantile
from skspec.solvers.statistics.mutual_information import (
    bin_numbers,
    class_information,
    histogram_information,
    neighbour_information,
    normal_scores,
    score_grid,
)

__all__ = ["Column", "Histogram", "Neighbours", "Sample", "measure"]

LEVEL = 0.99  # of the permutations stay below the null
SKEWNESS = 5.0  # of the null of nearest neighbours times sqrt(n): 1-10 were measured


class Sample(NamedTuple):
    """A label of the stars that know it: values, or codes of classes."""

    y: np.ndarray
    n_classes: int  # 0 for a number


class Column(NamedTuple):
    """What was found for one label: an entry of the result each."""

    mi: np.ndarray
    std: np.ndarray
    null: np.ndarray
    p_value: np.ndarray
    n_stars: int


class Neighbours:
    """The estimator of nearest neighbours, on normal scores."""

    n_parts, n_splits = 4, 3  # for the errors: small parts are quick

    def __init__(self, n_neighbors, rng):
        self.n_neighbors, self.rng, self._null = n_neighbors, rng, {}

    def n_cells(self, sample):
        return 0  # enough stars at all times

    def __call__(self, x, sample):
        return self._information(normal_scores(x, self.rng), sample)

    def _information(self, scores, sample):
        if sample.n_classes:
            return class_information(scores, sample.y, self.n_neighbors)
        y = normal_scores(sample.y[:, None], self.rng)[:, 0]
        return neighbour_information(scores, y, self.n_neighbors)

    def null(self, mi, x, sample, n_permutations):
        """Level and p-values: those of the largest of independent nodes."""
        mean, spread, skew = self._moments(sample, n_permutations)
        dof = n_permutations - 1
        level = _skewed(student.isf(-np.expm1(np.log(LEVEL) / len(mi)), dof), skew)
        single = student.sf(_symmetric((mi - mean) / spread, skew), dof)
        return mean + spread * level, -np.expm1(len(mi) * np.log1p(-np.minimum(single, 1 - 1e-12)))

    def _moments(self, sample, n_permutations):
        """Mean, spread and skewness of permutations: those of any node and label of that size."""
        sizes = np.bincount(sample.y) if sample.n_classes else []
        key = (len(sample.y), *np.sort(sizes), n_permutations)
        if key not in self._null:
            grid = score_grid(len(sample.y))
            scores = np.stack([self.rng.permutation(grid) for _ in range(n_permutations)], axis=1)
            values = self._information(scores, sample)
            self._null[key] = _moments(values, len(sample.y))
        return self._null[key]


def _moments(values, n):
    """Mean, standard deviation and skewness, for the prediction of one more value."""
    spread = values.std(ddof=1) * np.sqrt(1 + 1 / len(values))  # the mean has an error
    # the skewness falls with the number of stars; a measured one has an error of sqrt(6 / R)
    prior, error = SKEWNESS**2 / n, 6 / len(values)
    skewness = np.mean((values - values.mean()) ** 3) / values.std() ** 3
    return values.mean(), spread, np.clip(skewness * prior / (prior + error), 1e-6, 1.0)


def _symmetric(z, skew):
    """Wilson & Hilferty: a standardised gamma variable made nearly normal; `_skewed` undoes it."""
    return 6 / skew * (np.cbrt(1 + skew * z / 2) - 1) + skew / 6


def _skewed(w, skew):
    return 2 / skew * ((1 + skew * w / 6 - skew**2 / 36) ** 3 - 1)


class Histogram:
    """The estimator of counts in cells."""

    n_parts, n_splits = 2, 10  # for the errors: in small parts too many cells are empty

    def __init__(self, n_bins, correction, rng):
        self.n_bins, self.correction, self.rng = n_bins, correction, rng

    def __call__(self, x, sample):
        cells = bin_numbers(x, self.n_bins), self._cells(sample)
        return histogram_information(*cells, self.correction)[:, 0]

    def _cells(self, sample):
        y = sample.y[:, None]
        return y if sample.n_classes else bin_numbers(y, self.n_bins)

    def n_cells(self, sample):
        return self.n_bins * (sample.n_classes or self.n_bins)

    def null(self, mi, x, sample, n_permutations):
        """Level and p-values: those of the largest over nodes in each permutation."""
        y = self._cells(sample)[:, 0]
        y = np.stack([self.rng.permutation(y) for _ in range(n_permutations)], axis=1)
        values = histogram_information(bin_numbers(x, self.n_bins), y, self.correction)
        largest = np.sort(values.max(axis=0))
        above = n_permutations - np.searchsorted(largest, mi)
        return conformal_quantile(largest, LEVEL), (above + 1) / (n_permutations + 1)


def measure(estimator, x, sample, n_permutations, n_splits, rng):
    """One label with all nodes. What is constant, node or label, shares nothing with anything."""
    n_nodes, varies = x.shape[1], np.ptp(x, axis=0) > 0
    if np.ptp(sample.y) == 0:
        varies[:] = False
    mi, std, p_value = np.zeros(n_nodes), np.zeros(n_nodes), np.ones(n_nodes)
    null = 0.0
    if varies.any():
        x = x[:, varies]
        mi[varies] = estimator(x, sample)
        std[varies] = _error(estimator, x, sample, n_splits, rng)
        if n_permutations:
            null, p_value[varies] = estimator.null(mi[varies], x, sample, n_permutations)
    if not n_permutations:
        null, p_value = np.nan, np.full(n_nodes, np.nan)
    return Column(mi, std, np.full(n_nodes, null), p_value, len(sample.y))


def _error(estimator, x, sample, n_splits, rng):
    """Standard error (D,) from the differences between parts of the sample."""
    n_splits = estimator.n_splits if n_splits is None else n_splits
    if n_splits == 0:
        return np.nan
    m, size = estimator.n_parts, len(x) // estimator.n_parts
    variance = 0.0
    for _ in range(n_splits):
        parts = rng.permutation(len(x))[: m * size].reshape(m, size)
        values = [estimator(x[part], sample._replace(y=sample.y[part])) for part in parts]
        variance = variance + np.var(values, axis=0, ddof=1) / m
    return np.sqrt(variance / n_splits)
