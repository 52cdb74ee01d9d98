"""Estimators of mutual information against slow formulas, scikit-learn and theory."""

import numpy as np
import pytest
from scipy.special import digamma, exp1
from scipy.stats import poisson, spearmanr
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from skspec.solvers.statistics.mutual_information import (
    bin_numbers,
    class_information,
    histogram_information,
    neighbour_information,
    normal_scores,
    partial_correlation,
)


def plain_information(i, j):
    """Sum of p ln(p / (p_x p_y)), by loops."""
    total = 0.0
    for a in np.unique(i):
        for b in np.unique(j):
            p = np.mean((i == a) & (j == b))
            if p > 0:
                total += p * np.log(p / (np.mean(i == a) * np.mean(j == b)))
    return total


def gaussian_pair(rho, n, n_columns=1, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    x = rho * y[:, None] + np.sqrt(1 - rho**2) * rng.normal(size=(n, n_columns))
    return x, y


class TestBinNumbers:
    def test_equal_width(self):
        cells = bin_numbers(np.array([[0.0, 5], [0.99, 5], [1, 5], [3.9, 5], [4, 5]]), 4)
        assert cells[:, 0].tolist() == [0, 0, 1, 3, 3]
        assert cells[:, 1].tolist() == [0] * 5

    def test_equals_numpy(self):
        values = np.random.default_rng(0).normal(size=(500, 1))
        counts = np.bincount(bin_numbers(values, 12)[:, 0], minlength=12)
        assert np.array_equal(counts, np.histogram(values, 12)[0])


@pytest.fixture
def cells():
    """Numbers of the cells of five variables and three others."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 6, (300, 5)), rng.integers(0, 40, (300, 3))


class TestHistogram:
    def test_plug_in_equals_the_sum_over_cells(self, cells):
        x, y = cells
        found = histogram_information(x, y, "none")
        for d in range(5):
            for r in range(3):
                assert found[d, r] == pytest.approx(plain_information(x[:, d], y[:, r]))

    def test_miller_madow_counts_occupied_cells(self, cells):
        x, y = cells
        off = histogram_information(x, y, "none") - histogram_information(x, y, "miller_madow")
        k_x, k_y = len(np.unique(x[:, 1])), len(np.unique(y[:, 2]))
        k_xy = len(np.unique(np.stack([x[:, 1], y[:, 2]]), axis=1).T)
        assert off[1, 2] == pytest.approx((k_xy - k_x - k_y + 1) / (2 * len(x)))

    def test_grassberger_terms_expect_what_is_taken_off(self):
        """By the recursion of G, and its mean over a Poisson distribution."""
        k = np.arange(1, 200)
        G = np.empty(199)
        G[0] = -np.euler_gamma - np.log(2)
        for m in range(1, 199):  # G(2m+1) = G(2m), G(2m+2) = G(2m) + 2/(2m+1)
            G[m] = G[m - 1] if m % 2 == 0 else G[m - 1] + 2 / m
        n, x, y = 200, np.arange(200) % 2, np.arange(200) // 100
        counts = [np.bincount(c) for c in (x, y, 2 * x + y)]
        entropy = [np.log(n) - np.sum(c * G[c - 1]) / n for c in counts]
        found = histogram_information(x[:, None], y[:, None])[0, 0]
        assert found == pytest.approx(entropy[0] + entropy[1] - entropy[2], abs=1e-9)
        lam = 1.7
        mean = np.sum(poisson.pmf(k, lam) * k * G)
        assert mean == pytest.approx(lam * np.log(lam) + lam * exp1(2 * lam))

    @pytest.mark.parametrize(("n_bins", "part"), [(5, 0.2), (20, 0.2), (60, 1)])
    def test_independent_variables_scatter_about_zero(self, n_bins, part):
        """Also where most cells are empty."""
        x, y = gaussian_pair(0.0, 1000, 150)
        found = histogram_information(bin_numbers(x, n_bins), bin_numbers(y[:, None], n_bins))
        assert abs(found.mean()) < part * found.std()
        plain = histogram_information(
            bin_numbers(x, n_bins), bin_numbers(y[:, None], n_bins), "none"
        )
        assert plain.mean() > 2 * found.std()

    def test_blocks_change_nothing(self, cells, monkeypatch):
        x, y = cells
        whole = histogram_information(x, y)
        monkeypatch.setattr("skspec.solvers.statistics.mutual_information._BLOCK", 1)
        assert np.allclose(histogram_information(x, y), whole)


class TestNeighbours:
    def test_equals_scikit_learn(self):
        x, y = gaussian_pair(0.7, 400, 3)
        x, y = x / x.std(axis=0), y / y.std()
        expected = mutual_info_regression(x, y, n_neighbors=4, random_state=0)
        assert np.allclose(neighbour_information(x, y, 4), expected, atol=1e-6)

    def test_equals_the_definition(self):
        x, y = gaussian_pair(0.5, 80)
        near = np.abs(x - x.T), np.abs(y[:, None] - y)
        both = np.sort(np.maximum(*near), axis=1)[:, 3]  # of itself, 1, 2, 3
        counts = [np.sum(d < both[:, None], axis=1) for d in near]  # itself makes the + 1
        expected = digamma(3) + digamma(80) - np.mean(digamma(counts[0]) + digamma(counts[1]))
        assert neighbour_information(x, y, 3)[0] == pytest.approx(expected)

    @pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
    def test_gaussian(self, rho):
        x, y = gaussian_pair(rho, 1000, 20)
        found = neighbour_information(x, y)
        error = found.std() / np.sqrt(20) + 0.005
        assert found.mean() == pytest.approx(-0.5 * np.log(1 - rho**2), abs=4 * error)


class TestClasses:
    def test_equals_scikit_learn(self):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 4, 300)
        x = y[:, None] * [0.0, 0.5, 3.0] + rng.normal(size=(300, 3))
        y[0], y[1:3] = 7, 8  # a class of one, and one of two
        expected = mutual_info_classif(x, y, random_state=0)  # counts a few stars on the edge
        assert np.allclose(class_information(x, y), expected, atol=5e-4)

    def test_equals_the_definition(self):
        rng = np.random.default_rng(0)
        y = np.repeat([0, 1, 2], [50, 30, 3])
        x = 0.5 * y[:, None] + rng.normal(size=(83, 1))
        near, same, total = np.abs(x - x.T), y[:, None] == y, 0.0
        for i in range(83):
            k = min(4, same[i].sum() - 1)
            radius = np.sort(near[i, same[i]])[k]
            total += digamma(k) - digamma(same[i].sum()) - digamma(np.sum(near[i] < radius))
        assert class_information(x, y, 4)[0] == pytest.approx(digamma(83) + total / 83)

    def test_separate_classes_tell_their_entropy(self):
        y = np.repeat([0, 1, 2], [100, 200, 300])
        x = 100.0 * y + np.random.default_rng(0).normal(size=600)
        share = np.array([1, 2, 3]) / 6
        entropy = -np.sum(share * np.log(share))
        assert class_information(x[:, None], y)[0] == pytest.approx(entropy, abs=0.01)

    def test_no_class_of_two(self):
        assert class_information(np.arange(3.0)[:, None], np.arange(3)).tolist() == [0.0]


class TestNormalScores:
    def test_keeps_the_order_and_breaks_ties(self):
        values = np.array([[3.0, 0], [1, 0], [2, 0], [2, 0]])
        scores = normal_scores(values, np.random.default_rng(0))
        assert scores[1, 0] < min(scores[2:, 0]) and max(scores[2:, 0]) < scores[0, 0]
        assert len(np.unique(scores[:, 1])) == 4
        assert np.allclose(scores.mean(axis=0), 0)

    def test_ties_of_two_columns_are_broken_independently(self):
        scores = normal_scores(np.zeros((2000, 2)), np.random.default_rng(0))
        assert abs(np.corrcoef(scores.T)[0, 1]) < 0.1


class TestPartialCorrelation:
    def test_equals_the_correlation_of_residuals(self):
        rng = np.random.default_rng(0)
        y = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
        x = y @ rng.normal(size=(4, 3)) + rng.normal(size=(200, 3))
        found = partial_correlation(x, y)
        for k in range(4):
            others = np.column_stack([np.ones(200), np.delete(y, k, axis=1)])
            left = [v - others @ np.linalg.lstsq(others, v, rcond=None)[0] for v in (x, y[:, [k]])]
            expected = np.corrcoef(left[0].T, left[1].T)[:3, 3]
            assert np.allclose(found[:, k], expected)

    def test_one_label_is_the_plain_correlation(self):
        x, y = gaussian_pair(0.6, 100, 2)
        found = partial_correlation(
            x.argsort(axis=0).argsort(axis=0), y.argsort().argsort()[:, None]
        )
        assert found[1, 0] == pytest.approx(spearmanr(x[:, 1], y).statistic)

    def test_constant_columns(self):
        x, y = gaussian_pair(0.6, 100, 2)
        y = np.column_stack([y, np.ones(100)])
        x[:, 1] = 3
        found = partial_correlation(x, y)
        assert found[0, 0] == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1])
        assert not found[1].any() and not found[:, 1].any()
