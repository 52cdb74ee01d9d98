import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.linear.output_layer import PENALTIES, refit_output_layer


@pytest.fixture
def linear():
    rng = np.random.default_rng(0)
    phi = np.hstack([np.ones((50, 1)), rng.normal(size=(50, 4))])
    truth = rng.normal(size=(5, 9))
    Y = phi @ truth + 0.1 * rng.normal(size=(50, 9))
    return phi, Y, truth


def refit(phi, Y, weight, coef):
    fit, valid = slice(0, 35), slice(35, None)
    return refit_output_layer(
        phi[fit], Y[fit], weight[fit], coef, phi[valid], Y[valid], weight[valid]
    )


def ridge(phi, Y, weight, coef, penalty):
    """Pixel by pixel."""
    out = np.empty_like(coef)
    for j in range(Y.shape[1]):
        w = weight[:, j]
        normal = phi.T @ (w[:, None] * phi) + penalty * np.eye(len(coef))
        out[:, j] = np.linalg.solve(normal, phi.T @ (w * Y[:, j]) + penalty * coef[:, j])
    return out


def test_it_is_the_ridge_of_every_pixel(linear):
    phi, Y, truth = linear
    star = np.random.default_rng(1).uniform(0.5, 2, (50, 1))
    weight = np.broadcast_to(star, Y.shape)
    start = truth + 0.3
    coef, penalty = refit(phi, Y, weight, start)
    assert penalty in PENALTIES
    unit = np.trace(phi[:35].T @ (star[:35] * phi[:35])) / 5
    assert_allclose(coef, ridge(phi[:35], Y[:35], weight[:35], start, penalty * unit), rtol=1e-9)
    assert np.abs(coef - truth).max() < 0.15


def test_bad_pixels_are_left_out(linear):
    phi, Y, truth = linear
    weight = (np.random.default_rng(2).random(Y.shape) > 0.05).astype(float)
    coef, penalty = refit(phi, Y, weight, truth + 0.3)
    spoilt, same = refit(phi, np.where(weight > 0, Y, 1e9), weight, truth + 0.3)
    assert_array_equal(coef, spoilt)
    assert penalty == same
    star = weight[:35] / np.maximum(weight[:35].mean(axis=1, keepdims=True), 1e-9)
    exact = ridge(phi[:35], Y[:35], (star > 0).astype(float), truth + 0.3, 0.0)
    assert np.abs(coef - exact).max() < 0.02


def test_the_layer_is_kept_where_nothing_is_better(linear):
    phi, Y, _ = linear
    best = np.linalg.lstsq(phi[35:], Y[35:])[0]  # what the validation stars would choose
    coef, penalty = refit(phi, Y, np.ones_like(Y), best)
    assert penalty == np.inf
    assert coef is best
