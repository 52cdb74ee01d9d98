import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skspec.networks import ACTIVATIONS, Perceptron


def random_network(activation, widths, seed=0):
    rng = np.random.default_rng(seed)
    layers = [
        (rng.normal(size=(a, b)) / np.sqrt(a), rng.normal(size=b))
        for a, b in zip(widths, widths[1:])
    ]
    return Perceptron(layers, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=20, deadline=None)
@given(widths=st.lists(st.integers(1, 6), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_derivatives_are_finite_differences(activation, widths, seed):
    network, rng = random_network(activation, widths, seed), np.random.default_rng(seed)
    x, step = rng.normal(size=(3, widths[0])), 1e-5
    phi, slope = network(x, derivative=True)
    assert_allclose(network(x), phi)
    assert phi.shape == (3, len(network)) == (3, widths[-1] + 1)
    weight = rng.normal(size=phi.shape)
    curvature = network.curvature(x, weight)
    for k in range(widths[0]):
        moved = step * np.eye(widths[0])[k]
        (up, slope_up), (down, slope_down) = (network(x + s * moved, True) for s in (1, -1))
        if activation == "leaky_relu" and not np.allclose(slope_up, slope_down):
            continue  # across a kink
        assert_allclose(slope[:, k], (up - down) / (2 * step), atol=1e-7)
        second = np.einsum("mkq,mq->mk", slope_up - slope_down, weight) / (2 * step)
        assert_allclose(curvature[:, k], second, atol=1e-5)


def test_the_constant_has_no_slope():
    phi, slope = random_network("tanh", [2, 3])(np.zeros((4, 2)), derivative=True)
    assert_allclose(phi[:, 0], 1)
    assert_allclose(slope[:, :, 0], 0)
