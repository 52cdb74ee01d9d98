import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import MultivariateNormal
from skspec.diagnostics import attenuation_slope, error_table, snr_bins, snr_table


class TestErrorTable:
    def test_by_hand(self):
        truth = np.zeros((5, 1))
        error = np.array([[-1.0], [0.0], [1.0], [2.0], [8.0]])
        dist = MultivariateNormal(error, scale=np.full((5, 1), 1.5))
        row = error_table(truth, dist, label_names=["teff"]).loc["teff"]
        assert row["n"] == 5
        assert row["bias"] == 1
        assert row["mae"] == pytest.approx(12 / 5)
        assert row["rmse"] == pytest.approx(np.sqrt(70 / 5))
        assert row["std"] == pytest.approx(np.sqrt(70 / 5 - 4))
        assert row["mad"] == 1  # |error - 1| = 2 1 0 1 7
        assert row["robust_std"] == pytest.approx(1.4826, abs=1e-4)
        assert row["coverage_1"] == pytest.approx(3 / 5)
        assert row["coverage_2"] == pytest.approx(4 / 5)
        assert row["sharpness"] == 1.5

    def test_plain_predictions_have_no_calibration(self):
        table = error_table(np.zeros((4, 2)), np.ones((4, 2)))
        assert list(table.index) == ["label_0", "label_1"]
        assert table["coverage_1"].isna().all() and (table["bias"] == 1).all()

    def test_formal_coverage_stands_next_to_the_total(self):
        rng = np.random.default_rng(0)
        errors = 2 * rng.normal(size=(5000, 1))
        total = MultivariateNormal(errors, scale=np.full((5000, 1), 2.0))
        formal = np.ones((5000, 1, 1))
        row = error_table(np.zeros((5000, 1)), total, formal_cov=formal).iloc[0]
        assert row["coverage_1"] == pytest.approx(0.6827, abs=0.02)
        assert row["formal_coverage_1"] == pytest.approx(0.3829, abs=0.02)  # |x| < sigma / 2

    def test_attenuation(self):
        truth = np.linspace(0, 1, 50)[:, None]
        assert_allclose(attenuation_slope(truth, 0.7 * truth + 3), 0.7)


class TestBins:
    def test_slam_layout_highest_first(self):
        snr = np.array([20, 30, 59.9, 60, 99, 100, 199, 200, 250, 300.0])
        bins = snr_bins(np.repeat(snr, 5))
        assert [name for name, _ in bins] == ["200-300", "100-200", "60-100", "20-60"]
        assert [mask.sum() for _, mask in bins] == [15, 10, 10, 15]

    def test_stars_beyond_the_ends_are_kept(self):
        bins = snr_bins(np.repeat([5.0, 30, 80, 900], 6))
        assert [name for name, _ in bins] == ["> 300", "60-100", "20-60", "< 20"]
        assert sum(mask.sum() for _, mask in bins) == 24

    def test_other_ranges_get_quantiles(self):
        snr = np.linspace(400, 800, 100)
        bins = snr_bins(snr)
        assert len(bins) == 4
        assert_array_equal([mask.sum() for _, mask in bins], 25)
        assert bins[0][0] == "700-800"

    @pytest.mark.parametrize("snr", [np.full(5, np.nan), np.full(5, 100.0)])
    def test_unknown_or_constant_has_no_bins(self, snr):
        assert snr_bins(snr) == []

    def test_unknown_stars_are_in_no_bin(self):
        snr = np.repeat([30.0, 80.0, np.nan], 6)
        assert sum(mask.sum() for _, mask in snr_bins(snr)) == 12


class TestSNRTable:
    def test_errors_of_each_bin(self):
        snr = np.repeat([250.0, 40.0], 10)
        truth = np.zeros((20, 1))
        error = np.repeat([1.0, 3.0], 10)[:, None]
        table = snr_table(truth, error, snr, label_names=["teff"]).set_index("snr")
        assert list(table.index) == ["200-300", "20-60"]
        assert table.loc["200-300", "bias"] == 1 and table.loc["20-60", "bias"] == 3

    def test_attenuation_of_each_bin(self):
        snr = np.repeat([250.0, 40.0], 10)
        truth = np.tile(np.linspace(0, 1, 10), 2)[:, None]
        pulled = truth * np.repeat([0.98, 0.6], 10)[:, None]
        table = snr_table(truth, pulled, snr, label_names=["logg"]).set_index("snr")
        assert_allclose(table.loc[["200-300", "20-60"], "slope"], [0.98, 0.6])

    def test_without_snr_is_empty(self):
        table = snr_table(np.zeros((9, 1)), np.zeros((9, 1)), np.full(9, np.nan))
        assert len(table) == 0
