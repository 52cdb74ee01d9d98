import numpy as np
from numpy.testing import assert_allclose

from skspec.solvers.statistics.biweight import best_weights, biweight_location


def test_is_the_fixed_point_of_its_formula():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 50))
    values[0, ::3] = 30
    location, share = biweight_location(values, 1.5, np.ones((9, 50)), n_iter=100)
    for column, found in zip(values.T, location):
        centre = np.median(column)
        for _ in range(100):
            bell = np.clip(1 - ((column - centre) / 6) ** 2, 0, None) ** 2
            centre = np.average(column, weights=bell)
        assert_allclose(found, centre, atol=1e-9)
    assert_allclose(share.sum(axis=0), 1)
    assert np.all(share[0, ::3] == 0)


def test_without_outliers_it_is_nearly_the_weighted_mean():
    rng = np.random.default_rng(0)
    sigma = np.array([0.5, 1.0, 2.0])[:, None]
    values = sigma * rng.normal(size=(3, 4000))
    location, _ = biweight_location(values, 1e6 * sigma, 1 / sigma**2 * np.ones((3, 4000)))
    assert_allclose(location, np.average(values, axis=0, weights=np.ravel(sigma**-2)), atol=1e-6)
    location, _ = biweight_location(values, sigma, 1 / sigma**2 * np.ones((3, 4000)))
    assert np.std(location) < 1.3 * np.sum(sigma**-2) ** -0.5


def test_unused_values_and_mutual_outliers():
    values = np.array([[1.0, np.nan, 0.0], [3.0, 5.0, 0.0], [np.nan, np.nan, 100.0]])
    weight = np.array([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    location, share = biweight_location(values, np.ones((3, 3)), weight)
    assert_allclose(location, [2.0, 5.0, np.nan])
    assert_allclose(share[:, 0], [0.5, 0.5, 0])
    assert_allclose(share[:, 2], 0)
    location, share = biweight_location(np.array([[0.0], [100.0]]), 1.0, np.ones((2, 1)))
    assert_allclose(location, 50)


def test_best_weights_of_correlated_errors():
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(1, 20000)), rng.normal(size=(3, 20000))
    errors = np.array([[1.0], [1.0], [2.0]]) * common + np.array([[0.5], [1.0], [0.3]]) * own
    errors[0, :20] = 1e6
    weight = best_weights(errors)
    assert_allclose(weight.sum(), 1)
    assert_allclose(weight[:2], [0.8, 0.2], atol=0.03)  # by 1 / 0.5^2 and 1 / 1^2
    assert_allclose(weight[2], 0, atol=0.02)  # never negative
    assert 0.04 < best_weights(errors, 0.05)[2] < 0.06
    assert_allclose(best_weights(np.zeros((4, 9))), 0.25)
