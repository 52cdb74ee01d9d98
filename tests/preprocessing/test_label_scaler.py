import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec.preprocessing import LabelScaler

METHODS = ["standard", "percentile", "robust"]


@parametrize_with_checks([LabelScaler(method=method) for method in METHODS])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(5000, 700, 400), rng.uniform(-2, 0.4, 400)])


def test_definitions(labels):
    standard = LabelScaler().fit(labels)
    assert_allclose(standard.pivot_, labels.mean(axis=0))
    assert_allclose(standard.scale_, labels.std(axis=0))
    ho = LabelScaler("percentile").fit(labels)
    assert_allclose(ho.pivot_, np.median(labels, axis=0))
    spread = np.percentile(labels, 97.5, axis=0) - np.percentile(labels, 2.5, axis=0)
    assert_allclose(ho.scale_, spread / 4)
    assert_allclose(LabelScaler("percentile", factor=2.0).fit(labels).scale_, 2 * spread)
    p16, p84 = np.percentile(labels, [16, 84], axis=0)
    robust = LabelScaler("robust").fit(labels)
    assert_allclose(robust.pivot_, (p84 + p16) / 2)
    assert_allclose(robust.scale_, (p84 - p16) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_round_trip_and_covariance(method, labels):
    scaler = LabelScaler(method).fit(labels)
    scaled = scaler.transform(labels)
    assert_allclose(scaler.inverse_transform(scaled), labels)
    cov = np.cov(labels.T)
    assert_allclose(scaler.transform_covariance(cov), np.cov(scaled.T))
    stack = np.stack([cov, 2 * cov])
    there = scaler.transform_covariance(stack)
    assert_allclose(scaler.inverse_transform_covariance(there), stack)


@settings(max_examples=25, deadline=None)
@given(unit=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3), method=st.sampled_from(METHODS))
def test_scaled_labels_do_not_depend_on_units(unit, shift, method):
    labels = np.random.default_rng(1).normal(size=(50, 2))
    before = LabelScaler(method).fit_transform(labels)
    after = LabelScaler(method).fit_transform(unit * labels + shift)
    assert_allclose(after, before, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.1, 5777.3, -1e-9])
def test_constant_label_has_scale_one(method, value):
    scaler = LabelScaler(method).fit(np.full((11, 1), value))
    assert_array_equal(scaler.scale_, [1.0])
    assert_allclose(scaler.transform([[value + 3]]), [[3.0]])


def test_percentiles_that_miss_rare_values_fall_back_to_the_standard_deviation():
    labels = np.zeros((100, 1))
    labels[0] = 1
    assert_allclose(LabelScaler("robust").fit(labels).scale_, labels.std(axis=0))


def test_failed_star_stays_nan(labels):
    scaler = LabelScaler().fit(labels)
    back = scaler.inverse_transform([[np.nan, 0.0], [0.0, 0.0]])
    assert np.isnan(back[0, 0])
    assert_allclose(back[1], scaler.pivot_)


def test_data_frame_and_set_output(labels):
    frame = pd.DataFrame(labels, columns=["teff", "feh"])
    scaler = LabelScaler().set_output(transform="pandas").fit(frame)
    assert list(scaler.transform(frame).columns) == ["teff", "feh"]
    assert list(scaler.feature_names_in_) == ["teff", "feh"]


@pytest.mark.parametrize("vector", [True, False])
def test_in_transformed_target_regressor(vector, labels):
    y = labels[:, 0] if vector else labels
    X = labels @ [[1.0, 2.0, 0.5], [0.3, -1.0, 0.0]]
    model = TransformedTargetRegressor(LinearRegression(), transformer=LabelScaler()).fit(X, y)
    assert_allclose(model.predict(X), y)
