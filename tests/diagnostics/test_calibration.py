import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.pipeline import make_pipeline

from skspec import MultivariateNormal, Spectra, metrics, predict_dist
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.diagnostics import calibration_report, interval_coverage
from skspec.preprocessing import ContinuumNormalizer

COV = np.array([[1e4, 6.0], [6.0, 1e-2]])


def draw(n=4000, factor=1.0, shift=0.0, seed=0):
    """True labels, and distributions whose error bars are `factor` times the errors."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 2)) @ np.linalg.cholesky(COV).T
    loc = np.full((n, 2), shift) * np.sqrt(np.diag(COV))
    return y, MultivariateNormal(loc, cov=factor**2 * COV, label_names=["teff", "logg"])


def test_an_honest_gaussian():
    y, dist = draw()
    report = calibration_report(dist, None, y)
    table = report.table
    assert list(table.index) == ["teff", "logg", "joint"]
    for level in report.levels:
        assert_allclose(table[level], level, atol=0.02)
    assert np.all(table["pit_distance"] < 1.8 / np.sqrt(4000))
    assert_allclose(table["z_std"][:2], 1, atol=0.04)
    assert report.intervals is None and report.by_snr.empty
    assert stats.kstest(report.joint_pit, "uniform").pvalue > 0.01


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_dishonest_ones(factor):
    y, dist = draw(factor=factor)
    table = calibration_report(dist, None, y, levels=[0.6827]).table
    expected = 2 * stats.norm.cdf(factor) - 1
    assert_allclose(table[0.6827][:2], expected, atol=0.03)
    assert table[0.6827]["joint"] == pytest.approx(
        stats.chi2.cdf(factor**2 * stats.chi2.ppf(0.6827, 2), 2), abs=0.03
    )
    assert_allclose(table["z_std"][:2], 1 / factor, rtol=0.05)
    assert np.all(table["pit_distance"] > 0.1)


def test_a_bias_shows():
    y, dist = draw(shift=0.5)
    table = calibration_report(dist, None, y).table
    assert_allclose(table["z_mean"][:2], 0.5, atol=0.06)
    assert np.all(table["pit_distance"][:2] > 0.15)


def test_scores_are_those_of_the_metrics():
    y, dist = draw(300)
    report = calibration_report(dist, None, y)
    table = report.table
    assert_allclose(table["crps"][:2], metrics.crps(y, dist))
    assert_allclose(table["nll"][:2], metrics.neg_log_likelihood(y, dist, marginal=True))
    assert table["nll"]["joint"] == pytest.approx(metrics.neg_log_likelihood(y, dist))
    assert_allclose(table["sharpness"][:2], metrics.sharpness(dist))
    assert_allclose(table[0.6827][:2], metrics.coverage(y, dist), atol=1e-9)
    for k, name in enumerate(["teff", "logg"]):
        distance = stats.kstest(report.pit[:, k], "uniform").statistic
        assert table["pit_distance"][name] == pytest.approx(distance)


def test_by_snr_and_stars_without_prediction():
    """Error bars right at high S/N, too small at low; a star without prediction is left out."""
    y, dist = draw(2000)
    snr = np.where(np.arange(2000) < 1000, 30.0, 150.0)
    loc = dist.mean().copy()
    loc[3] = np.nan
    cov = np.where((snr < 100)[:, None, None], 0.25 * COV, COV)
    dist = MultivariateNormal(loc, cov=cov, label_names=["teff", "logg"])
    report = calibration_report(dist, None, y, snr=snr)
    assert report.table["n"].tolist() == [1999] * 3 and len(report.pit) == 1999
    part = report.by_snr.set_index(["label", "snr"])
    assert part.loc[("teff", "20-60"), "n"] == 999
    assert part.loc[("teff", "20-60"), 0.6827] == pytest.approx(0.383, abs=0.05)
    assert part.loc[("joint", "100-200"), 0.6827] == pytest.approx(0.6827, abs=0.05)
    spectra = Spectra(np.ones((2000, 3)), flux_err=1 / snr[:, None])
    same = calibration_report(dist, spectra, y).by_snr
    pd.testing.assert_frame_equal(same, report.by_snr)
    other = Spectra(np.ones((2000, 3)), meta={"snr": snr})  # as in the files of surveys
    pd.testing.assert_frame_equal(calibration_report(dist, other, y).by_snr, report.by_snr)


def test_printed(draw_stars):
    train, (spectra, labels) = draw_stars(150), draw_stars(200, seed=1)
    inner = CalibratedRegressor(ResidualCovarianceRegressor(), method="conformal", cv=3)
    model = make_pipeline(ContinuumNormalizer(width=1e4), inner).fit(*train)
    report = calibration_report(model, spectra, labels)
    seen = model[:-1].transform(spectra)
    last = model.steps[-1][1]
    assert_allclose(
        report.intervals.loc["logg", 0.9], interval_coverage(last, seen, labels, [0.9])[0, 1]
    )
    assert report.intervals.loc["joint", 0.9] == np.mean(last.contains(seen, labels, 0.9))
    assert_allclose(
        report.table[0.6827][:3], metrics.coverage(labels, predict_dist(model, spectra))
    )
    text = str(report)
    titles = [table.title for table in report.tables()]
    assert titles[:2] == ["coverage [%]", "coverage of predict_interval [%]"]
    assert titles[2].startswith("scores") and titles[3] == "teff by S/N: coverage [%]"
    assert all(title in text for title in titles)
    assert "50  68.27    90  95.45    99" in text and "standard error" in text
    assert "nan" not in text


def test_one_label(draw_stars):
    spectra, labels = draw_stars(100)
    model = CalibratedRegressor(method="conformal").fit(spectra, labels["teff"])
    report = calibration_report(model, spectra, labels["teff"])
    assert report.label_names == ["teff"]
    assert list(report.table.index) == list(report.intervals.index) == ["teff"]


def test_mistakes_get_a_sentence():
    y, dist = draw(20)
    with pytest.raises(ValueError, match="levels must lie between 0 and 1"):
        calibration_report(dist, None, y, levels=[68])
    with pytest.raises(ValueError, match=r"snr of shape \(3,\) for 20 stars"):
        calibration_report(dist, None, y, snr=[1, 2, 3])
    with pytest.raises(ValueError, match="NaN or infinite"):
        calibration_report(dist, None, np.where(y > 0, y, np.nan))
    with pytest.raises(ValueError, match="No star has a finite distribution"):
        calibration_report(MultivariateNormal(np.nan * y, scale=[1.0, 1.0]), None, y)
