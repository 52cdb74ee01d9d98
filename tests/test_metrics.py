import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from skspec import MultivariateNormal, metrics

POINT = [metrics.bias, metrics.mae, metrics.std, metrics.mad, metrics.robust_std, metrics.rmse]


@pytest.fixture
def truth():
    return np.random.default_rng(0).normal(size=(20_000, 2)) * [700, 0.3] + [5000, -0.2]


@pytest.fixture
def dist(truth):
    """Calibrated: the truth is drawn from it."""
    sigma = np.random.default_rng(1).uniform(0.5, 2, truth.shape) * [50, 0.05]
    error = sigma * np.random.default_rng(2).normal(size=truth.shape)
    return MultivariateNormal(truth + error, scale=sigma)


def test_words_mean_what_they_say():
    true, pred = np.array([[0.0], [0], [0], [0]]), np.array([[1.0], [2], [3], [10]])
    expected = {
        "bias": 2.5,
        "mae": 4.0,
        "std": np.std([1, 2, 3, 10]),
        "mad": 1.0,
        "robust_std": 1.482602,
        "rmse": np.sqrt(114 / 4),
    }
    for name, value in expected.items():
        assert_allclose(getattr(metrics, name)(true, pred), [value], rtol=1e-6)
        assert_allclose(getattr(metrics, name)(true[:, 0], pred[:, 0]), value, rtol=1e-6)
    assert_allclose(metrics.bias(true, -pred), [-2.5])


def test_ratios_for_a_gaussian(truth):
    pred = truth + np.random.default_rng(3).normal(size=truth.shape)
    assert_allclose(metrics.mae(truth, pred), 0.798, atol=0.02)
    assert_allclose(metrics.mad(truth, pred), 0.6745, atol=0.02)
    for spread in (metrics.std, metrics.robust_std, metrics.rmse):
        assert_allclose(spread(truth, pred), 1, atol=0.03)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-10, 10), unit=st.floats(0.01, 100))
def test_units_and_shifts(shift, unit):
    rng = np.random.default_rng(4)
    true, pred = rng.normal(size=(2, 30, 2))
    for metric in POINT:
        assert_allclose(metric(unit * true, unit * pred), unit * metric(true, pred))
    for metric in (metrics.std, metrics.mad, metrics.robust_std):
        assert_allclose(metric(true, pred + shift), metric(true, pred), atol=1e-9)
    assert_allclose(metrics.bias(true, pred + shift), metrics.bias(true, pred) + shift, atol=1e-9)
    assert_allclose(
        metrics.rmse(true, pred) ** 2,
        metrics.std(true, pred) ** 2 + (pred - true).mean(axis=0) ** 2,
    )


@pytest.mark.parametrize("metric", POINT)
def test_failed_stars_are_left_out(metric):
    rng = np.random.default_rng(5)
    true, pred = rng.normal(size=(2, 10, 2))
    broken = pred.copy()
    broken[3, 1] = np.nan
    keep = np.arange(10) != 3
    assert_allclose(metric(true, broken), metric(true[keep], pred[keep]))
    assert_allclose(metric(pd.DataFrame(true), broken), metric(true[keep], pred[keep]))
    assert metrics.n_failed(broken) == 1
    assert metrics.n_failed(broken[:, 1]) == 1
    with pytest.raises(ValueError, match="NaN"):
        metric(broken, true)
    with pytest.raises(ValueError, match="shape"):
        metric(true, pred[:, :1])
    with pytest.raises(ValueError, match="No star"):
        metric(true, np.full_like(pred, np.nan))


def test_calibrated_distribution(truth, dist):
    assert_allclose(metrics.coverage(truth, dist), 0.6827, atol=0.015)
    assert_allclose(metrics.coverage(truth, dist, n_sigma=2), 0.9545, atol=0.01)
    assert_allclose(metrics.sharpness(dist), np.median(dist.std(), axis=0))
    pit = metrics.pit(truth, dist)
    assert pit.shape == truth.shape
    assert stats.kstest(pit[:, 0], "uniform").pvalue > 1e-3
    reference = stats.norm(dist.mean(), dist.std()).logpdf(truth)
    marginal = metrics.neg_log_likelihood(truth, dist, marginal=True)
    assert_allclose(marginal, -reference.mean(axis=0))
    assert_allclose(metrics.neg_log_likelihood(truth, dist), marginal.sum())
    assert_allclose(metrics.crps(truth, dist), dist.crps(truth).mean(axis=0))


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_proper_scores_prefer_the_calibrated(truth, dist, factor):
    truth, dist = truth[:2000], dist[:2000]
    wrong = MultivariateNormal(dist.mean(), scale=factor * dist.std())
    assert np.all(metrics.crps(truth, wrong) > metrics.crps(truth, dist))
    assert metrics.energy_score(truth, wrong) > metrics.energy_score(truth, dist)
    assert metrics.neg_log_likelihood(truth, wrong) > metrics.neg_log_likelihood(truth, dist)
    error = metrics._coverage_error
    assert np.all(error(truth, wrong) > error(truth, dist))


def test_stars_without_information_are_left_out(truth, dist):
    truth, dist = truth[:50], dist[:50]
    mean, std = dist.mean().copy(), dist.std()
    mean[7], std[7], std[8] = np.nan, np.inf, np.inf
    broken = MultivariateNormal(mean, scale=std)
    keep = ~np.isin(np.arange(50), [7, 8])
    for metric in (metrics.coverage, metrics.crps, metrics.neg_log_likelihood):
        assert_allclose(metric(truth, broken), metric(truth[keep], dist[keep]))
    assert_allclose(metrics.sharpness(broken), metrics.sharpness(dist[keep]))
    assert metrics.pit(truth, broken).shape == (48, 2)
    nothing = MultivariateNormal(np.full((3, 2), np.nan), scale=np.inf)
    for score in (lambda d: metrics.crps(truth[:3], d), metrics.sharpness):
        with pytest.raises(ValueError, match="No star"):
            score(nothing)


def test_labels_of_the_wrong_shape_are_refused_not_reshaped(truth, dist):
    truth, dist = truth[:6], dist[:6]
    for wrong in (truth.T, truth.reshape(3, 4), truth[:, 0], truth[:5]):
        with pytest.raises(ValueError, match="shape"):
            metrics.crps(wrong, dist)
    one = dist.marginal(0)
    assert_allclose(metrics.crps(truth[:, 0], one), metrics.crps(truth[:, :1], one))


def test_certain_and_wrong_is_infinitely_bad():
    certain = MultivariateNormal([[1.0]], scale=0.0)
    assert metrics.neg_log_likelihood([[2.0]], certain) == np.inf
    assert metrics.neg_log_likelihood([[2.0]], certain, marginal=True) == np.inf


class Fixed:
    def __init__(self, dist):
        self.dist = dist

    def predict_dist(self, X):
        return self.dist[X]


def test_scorers(truth, dist):
    model, X, y = Fixed(dist), np.arange(100), truth[:100]
    part = dist[:100]
    assert_allclose(
        metrics.neg_log_likelihood_scorer(model, X, y), -metrics.neg_log_likelihood(y, part)
    )
    spread = y.std(axis=0)
    assert_allclose(metrics.neg_crps_scorer(model, X, y), -(metrics.crps(y, part) / spread).mean())
    assert_allclose(
        metrics.neg_energy_score_scorer(model, X, pd.DataFrame(y)), -metrics.energy_score(y, part)
    )
    coverage = metrics.coverage(y, part)
    assert_allclose(
        metrics.coverage_error_scorer(model, X, y), -np.abs(coverage - 0.682689).mean(), rtol=1e-4
    )
    up = metrics.make_dist_scorer(metrics.coverage, greater_is_better=True, n_sigma=2)
    assert_allclose(up(model, X, y), metrics.coverage(y, part, 2).mean())
    assert repr(up) == "make_dist_scorer(coverage, greater_is_better=True, n_sigma=2)"
    again = pickle.loads(pickle.dumps(up))
    assert again(model, X, y) == up(model, X, y)


def test_everything_public_exists():
    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__ or name.endswith("_scorer")
