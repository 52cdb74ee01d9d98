import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspec import MultivariateNormal
from skspec.base import LabelRegressor
from skspec.calibration import ResidualCovarianceRegressor
from skspec.ensemble import ConsensusRegressor
from skspec.forward import TheCannon
from skspec.metrics import coverage


class Spoilt(LabelRegressor):
    """The Cannon, off by `shift` in the first label of every fifth star, with errors too small."""

    def __init__(self, shift=1000.0, shrink=1.0):
        self.shift = shift
        self.shrink = shrink

    def fit(self, X, y):
        spectra, _ = self._validate_fit(X, y)
        self.cannon_ = TheCannon(1).fit(spectra, y)
        return self

    def predict_dist(self, X):
        dist = self.cannon_.predict_dist(self._validate_predict(X))
        mean = dist.mean().copy()
        mean[::5, 0] += self.shift
        return MultivariateNormal(
            mean, cov=self.shrink**2 * dist.cov(), label_names=self.label_names_in_
        )


METHODS = [
    ("linear", TheCannon(1)),
    ("quadratic", TheCannon()),
    ("ridge", ResidualCovarianceRegressor(make_pipeline(StandardScaler(), Ridge(1.0)))),
]


@pytest.fixture(scope="module")
def train(draw_stars):
    return draw_stars(200, noise=0.03)


@pytest.fixture(scope="module")
def test(draw_stars):
    return draw_stars(300, noise=0.03, seed=1)


@pytest.fixture(scope="module")
def model(train):
    return ConsensusRegressor(METHODS, cv=3).fit(*train)


def mae(model, stars):
    return np.abs(model.predict(stars[0]) - stars[1].to_numpy()).mean(axis=0)


def test_nearly_as_good_as_the_best_method_with_errors_that_are_true(model, test):
    each = np.array([mae(method, test) for method in model.estimators_])
    # one of them is the exact model of the toy: robustness costs a little
    assert np.all(mae(model, test) < 1.1 * each.min(axis=0))
    assert np.all(mae(model, test) < 0.95 * np.median(each, axis=0))
    dist = model.predict_dist(test[0])
    truth = test[1].to_numpy()
    assert_allclose(coverage(truth, dist, 1), 0.6827, atol=0.1)
    # as if the methods were independent, they would promise far too much
    std = model.combine(test[0]).std
    independent = np.sum(std**-2.0, axis=0) ** -0.5
    assert np.all(np.mean(np.abs(dist.mean() - truth) < independent, axis=0) < 0.6)


def test_outliers_are_dropped_and_widen_the_error(train, test):
    methods = [*METHODS[:2], ("spoilt", Spoilt())]
    result = ConsensusRegressor(methods, cv=3).fit(*train).combine(test[0])
    assert np.all(result.weights[2, ::5, 0] == 0)
    assert np.mean(result.weights[2, 1::5, 0] > 0) > 0.6
    spread = np.median(result.between_std[::5, 0]), np.median(result.between_std[1::5, 0])
    assert spread[0] > 1.2 * spread[1]
    error = np.abs(result.dist.mean() - test[1].to_numpy())[:, 0]
    assert error[::5].mean() < 1.5 * error[1::5].mean()


def test_a_method_that_promises_too_much_is_seen_through(train, test):
    methods = [("linear", TheCannon(1)), ("bold", Spoilt(shift=0.0, shrink=0.1))]
    model = ConsensusRegressor(methods, cv=3).fit(*train)
    assert_allclose(model.error_scale_[1], 10 * model.error_scale_[0], rtol=1e-6)
    result = model.combine(test[0])
    assert_allclose(result.weights, 0.5, atol=1e-6)
    assert_allclose(coverage(test[1].to_numpy(), result.dist, 1), 0.6827, atol=0.12)


def test_ranges_of_validity(model, train, test):
    valid = {
        "linear": {"teff": (5500, 9000)},
        "quadratic": {"snr": (0, 30)},
        "ridge": {"snr": (20, 1e9)},
    }
    ranged = ConsensusRegressor(METHODS, valid=valid, cv=3).fit(*train)
    result = ranged.combine(test[0])
    teff, snr = np.median(result.labels, axis=0)[:, 0], test[0].snr
    expected = [teff >= 5500, snr <= 30, snr >= 20]
    assert_array_equal(result.valid, expected)
    assert_array_equal(result.weights.sum(axis=0)[result.valid.any(axis=0)].round(9), 1)
    assert np.all(result.weights[~result.valid] == 0)
    only = ConsensusRegressor(METHODS, valid={n: {"snr": (1e8, 1e9)} for n, _ in METHODS}, cv=3)
    only.set_params(valid={n: {"teff": (0, 5000)} for n, _ in METHODS})
    result = only.fit(*train).combine(test[0])
    nobody = ~result.valid.any(axis=0)
    assert nobody.any()
    assert not nobody.all()
    assert_array_equal(np.isnan(result.dist.mean()).all(axis=1), nobody)
    assert_array_equal(np.isinf(result.dist.std()).all(axis=1), nobody)


def test_table_of_what_was_used(model, test):
    result = model.combine(test[0][:4])
    table = result.to_frame()
    assert list(table.index.names) == ["star", "label", "method"]
    assert table.shape == (36, 4)
    row = table.loc[(2, "logg", "ridge")]
    assert row["value"] == result.labels[2, 2, 1]
    assert row["weight"] == result.weights[2, 2, 1]
    assert_allclose(table["weight"].groupby(level=[0, 1]).sum(), 1)


def test_methods_are_parameters(model, train):
    assert model.named_estimators_["quadratic"] is model.estimators_[1]
    other = clone(model).set_params(quadratic__degree=3, ridge="drop")
    assert other.get_params()["quadratic"].degree == 3
    assert METHODS[1][1].degree == 2 or other.get_params()["quadratic"] is not METHODS[1][1]
    assert len(other.fit(*train).estimators_) == 2
    default = ConsensusRegressor(cv=2).fit(train[0][:60], train[1][:60])
    assert list(default.named_estimators_) == ["ridge", "kernel_pca"]


def test_out_of_fold_errors_keep_the_order_of_the_stars(model, train):
    spectra, labels = train
    error = model.cv_label_errors_
    own = model.predict(spectra) - labels.to_numpy()
    assert np.corrcoef(error[:, 0], own[:, 0])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"estimators": []}, "at least one method"),
        ({"estimators": [("a", "drop")]}, "at least one method"),
        ({"estimators": [("a", TheCannon()), ("a", TheCannon(1))]}, "not unique: a, a"),
        ({"valid": {"b": {"snr": (0, 1)}}}, "valid names 'b'; the methods are a"),
        ({"valid": {"a": {"mass": (0, 1)}}}, "names 'mass'; it may name snr and the labels, teff"),
    ],
)
def test_bad_input_gets_a_sentence(train, parameters, message):
    given = {"estimators": [("a", TheCannon(1))]} | parameters
    with pytest.raises(ValueError, match=message):
        ConsensusRegressor(**given).fit(*train)


def test_methods_without_a_distribution(train):
    with pytest.raises(TypeError, match="predicts no distribution"):
        ConsensusRegressor([("ridge", Ridge())], cv=2).fit(train[0].flux, pd.DataFrame(train[1]))
