import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import MultivariateNormal, predict_dist
from skspec.base import MissingUncertaintyWarning
from skspec.transfer import LabelTranslator

NOISE_A, NOISE_B = np.array([80.0, 0.1]), np.array([50.0, 0.05])


def true_b(labels):
    return labels.assign(
        teff=1.06 * labels["teff"] - 250 - 40 * labels["feh"], feh=0.9 * labels["feh"] + 0.05
    )


def draw(n=250, seed=0):
    """Labels of both surveys with errors, and the truth."""
    rng = np.random.default_rng(seed)
    truth = pd.DataFrame({"teff": rng.uniform(4200, 6500, n), "feh": rng.uniform(-1.2, 0.4, n)})
    a = truth + NOISE_A * rng.normal(size=truth.shape)
    return a, true_b(truth) + NOISE_B * rng.normal(size=truth.shape), truth


@pytest.fixture(scope="module")
def fitted():
    a, b, _ = draw()
    return LabelTranslator().fit(a, b, label_std_a=NOISE_A, label_std_b=NOISE_B)


@pytest.mark.filterwarnings("ignore", category=SkipTestWarning)
@parametrize_with_checks([LabelTranslator()])
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_planted_offset_and_trends_within_errors(fitted):
    pivot = pd.DataFrame([fitted.pivot_], columns=["teff", "feh"])
    offset = (true_b(pivot) - pivot).to_numpy()[0]
    assert np.all(np.abs(fitted.offset_ - offset) < 3 * fitted.offset_std_)
    trend = np.array([[0.06, -40.0], [0.0, -0.1]])
    assert np.all(np.abs(fitted.trend_ - trend) < 3 * fitted.trend_std_)
    assert np.all(fitted.trend_std_ < [[0.01, 20], [1e-4, 0.03]])
    assert np.all(fitted.scatter_ < 0.6 * NOISE_B)  # there is none
    frame = fitted.to_frame()
    assert frame.loc["teff", "trend_feh"] == fitted.trend_[0, 1]
    assert frame.loc["feh", "offset"] == fitted.offset_[1]


def test_predictions_hold_the_truth(fitted):
    """On other stars: errors of the labels, of the coefficients and intrinsic scatter together."""
    rng = np.random.default_rng(3)
    a, _, truth = draw(1200, seed=7)
    intrinsic = np.array([90.0, 0.12])
    b = true_b(truth) + np.hypot(intrinsic, NOISE_B) * rng.normal(size=truth.shape)
    model = LabelTranslator().fit(a[:600], b[:600], NOISE_A, NOISE_B)
    assert_allclose(model.scatter_, intrinsic, rtol=0.25)
    dist = model.predict_dist(a[600:], NOISE_A)
    unseen = true_b(truth)[600:] + intrinsic * rng.normal(size=(600, 2))
    z = (dist.mean() - unseen.to_numpy()) / dist.std()
    assert np.all(np.abs(z.mean(axis=0)) < 0.15)
    assert_allclose(z.std(axis=0), 1, atol=0.12)
    assert_allclose(np.mean(dist.mahalanobis(unseen.to_numpy()) ** 2), 2, atol=0.25)


def test_errors_in_a_do_not_flatten_slopes():
    a, b, _ = draw(1500)
    noisy = a + [600, 0.4] * np.random.default_rng(1).normal(size=a.shape)
    std = np.hypot(NOISE_A, [600, 0.4])
    blind = LabelTranslator().fit(noisy, b)
    aware = LabelTranslator().fit(noisy, b, std, NOISE_B)
    assert blind.trend_[0, 0] < -0.3
    assert abs(aware.trend_[0, 0] - 0.06) < 3 * aware.trend_std_[0, 0] < 0.15


def test_outliers_are_clipped_and_recorded():
    a, b, _ = draw()
    wrong = np.arange(0, 250, 10)
    b.iloc[wrong] += [900, -0.8]
    model = LabelTranslator().fit(a, b, NOISE_A, NOISE_B)
    assert_array_equal(np.flatnonzero(model.clipped_), wrong)
    rest = LabelTranslator(clip=None).fit(a[~model.clipped_], b[~model.clipped_], NOISE_A, NOISE_B)
    assert_allclose(
        model.offset_, rest.offset_ + rest.trend_ @ (model.pivot_ - rest.pivot_), rtol=1e-4
    )
    assert np.all(model.distance_[wrong] > 4)
    assert not LabelTranslator(clip=None).fit(a, b).clipped_.any()


def test_units_change_only_units(fitted):
    a, b, _ = draw()
    unit, shift = np.array([1e-3, 10.0]), np.array([0.0, 2.0])
    other = LabelTranslator().fit(a * unit + shift, b * unit, NOISE_A * unit, NOISE_B * unit)
    first = fitted.predict_dist(a[:9], NOISE_A).affine(unit, 0)
    second = other.predict_dist(a[:9] * unit + shift, NOISE_A * unit)
    assert_allclose(first.mean(), second.mean(), rtol=2e-4)
    assert_allclose(first.cov(), second.cov(), rtol=1e-2, atol=1e-6)


def test_own_terms_and_offsets_only():
    a, b, _ = draw()
    own = LabelTranslator(terms="own").fit(a, b)
    assert_array_equal(own.trend_ != 0, np.eye(2, dtype=bool))
    shift = LabelTranslator(0).fit(a, b)
    assert not shift.trend_.any()
    assert_allclose(shift.offset_, (b - a)[~shift.clipped_].mean())
    with pytest.raises(ValueError, match="survey A lacks mg; *|lacks mg. Use degree=1"):
        LabelTranslator(0).fit(a, b.assign(mg=b["feh"]))


def test_quadratic():
    a, _, truth = draw(400)
    bent = truth.assign(teff=truth["teff"] + 2e-5 * (truth["teff"] - 5300) ** 2)
    straight, curved = (LabelTranslator(degree).fit(truth, bent) for degree in (1, 2))
    assert curved.scatter_[0] < 0.01 < 1 < straight.scatter_[0]
    dist = curved.predict_dist(truth)
    assert_allclose(dist.mean(), bent, rtol=1e-4)


def test_labels_that_a_does_not_have():
    a, b, truth = draw()
    b = b.assign(mg=0.3 * truth["feh"] - 1e-4 * (truth["teff"] - 5000))[["mg", "teff"]]
    model = LabelTranslator(terms="own").fit(a, b, NOISE_A, 0.01)
    assert model.label_names_in_ == ["mg", "teff"]
    assert_allclose(model.trend_[0], [-1e-4, 0.3], rtol=0.15)
    assert model.trend_[1, 1] == 0
    assert_allclose(model.predict(a)[:, 0], b["mg"], atol=0.2)


def test_distributions_in_and_out(fitted):
    a, b, _ = draw()
    cov = np.tile(np.diag(NOISE_A**2), (len(a), 1, 1))
    dist_a = MultivariateNormal(a.to_numpy(), cov=cov, label_names=["teff", "feh"])
    dist_b = MultivariateNormal(b.to_numpy(), scale=NOISE_B, label_names=["teff", "feh"])
    model = LabelTranslator().fit(dist_a, dist_b)
    assert_allclose(model.trend_, fitted.trend_)
    assert_allclose(predict_dist(model, dist_a).cov(), fitted.predict_dist(a, cov).cov())
    assert_allclose(model.domain_score(dist_a), fitted.domain_score(a))
    mean, std = model.predict(a, NOISE_A, return_std=True)
    assert_allclose(std, fitted.predict_dist(a, NOISE_A).std())
    assert_allclose(mean, fitted.predict(a))
    with pytest.raises(ValueError, match="bring their errors: no label_std_a"):
        LabelTranslator().fit(dist_a, b, label_std_a=1.0)


def test_missing_errors_are_noticed(fitted):
    a, b, _ = draw()
    with pytest.warns(MissingUncertaintyWarning, match="fitted with errors.*without"):
        fitted.predict_dist(a)
    with pytest.warns(MissingUncertaintyWarning, match="fitted without errors.*with"):
        LabelTranslator().fit(a, b).predict_dist(a, 1.0)


def test_extrapolation_is_flagged(fitted):
    a, _, _ = draw(seed=5)
    assert np.mean(fitted.domain_score(a) <= 1) > 0.95
    far = pd.DataFrame({"teff": [7500, 5000], "feh": [0.0, -2.5]})
    assert np.all(fitted.domain_score(far) > 1.2)
    near, away = (fitted.predict_dist(x, NOISE_A).std() for x in (a.iloc[:1], far.iloc[:1]))
    assert np.all(away > near)


def test_few_stars_get_large_error_bars():
    a, b, _ = draw()
    few, many = (LabelTranslator().fit(a[:n], b[:n], NOISE_A, NOISE_B) for n in (3, 200))
    assert np.all(few.trend_std_ > 3 * many.trend_std_)
    assert np.isfinite(few.predict_dist(a, NOISE_A).cov()).all()


def test_bad_input():
    a, b, _ = draw(30)
    with pytest.raises(ValueError, match="at least 3 common stars, got n_samples = 2"):
        LabelTranslator().fit(a[:2], b[:2])
    with pytest.raises(ValueError, match="label_std_a has shape .3,. for labels of shape .30, 2."):
        LabelTranslator().fit(a, b, label_std_a=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="label_std_b holds negative, NaN"):
        LabelTranslator().fit(a, b, label_std_b=-1.0)
    with pytest.raises(ValueError, match="NaN"):
        LabelTranslator().fit(a.mask(a["feh"] > 0), b)


def test_a_good_citizen(fitted):
    a, b, _ = draw()
    before = a.copy(), b.copy()
    std = np.tile(NOISE_A, (len(a), 1))
    std.flags.writeable = False
    model = clone(LabelTranslator(2, terms="own")).fit(a, b, std, NOISE_B)
    assert a.equals(before[0]) and b.equals(before[1])
    copy = pickle.loads(pickle.dumps(model))
    assert_array_equal(copy.predict(a), model.predict(a))
    search = GridSearchCV(LabelTranslator(), {"degree": [0, 1]}, cv=2)
    assert search.fit(a, b).best_params_["degree"] == 1
