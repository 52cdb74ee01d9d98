"""Information under correlated noise against the matrices written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from skspec.solvers.spectra.correlated_noise import correlated_information, residual_correlation


@given(
    n=st.integers(1, 3),
    n_pixels=st.integers(2, 40),
    length=st.integers(1, 50),
    n_orders=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_equals_the_sandwich_written_out(n, n_pixels, length, n_orders, seed):
    rng = np.random.default_rng(seed)
    jacobian, residual = rng.normal(size=(n, 2, n_pixels)), rng.normal(size=(n, n_pixels))
    order = rng.integers(0, n_orders, n_pixels) if n_orders > 1 else None
    got = correlated_information(jacobian, residual, length, order)
    rho = residual_correlation(residual, length, order)
    place = np.empty(n_pixels, dtype=int)
    for one in range(n_orders):  # pixels of an order follow each other as they stand
        mine = np.ones(n_pixels, bool) if order is None else order == one
        place[mine] = np.arange(mine.sum())
    distance = np.abs(place[:, None] - place)
    for star in range(n):
        R = np.where(distance <= length, rho[star][np.minimum(distance, length)], 0.0)
        if order is not None:
            R *= order[:, None] == order
        J = jacobian[star]
        spread = J @ R @ J.T
        if np.linalg.cond(spread) > 1e4:
            continue
        F = J @ J.T
        np.testing.assert_allclose(got[star], F @ np.linalg.solve(spread, F), rtol=1e-4)


@given(n_pixels=st.integers(2, 60), length=st.integers(1, 80), seed=st.integers(0, 99))
def test_the_correlation_is_one_of_a_true_covariance(n_pixels, length, seed):
    rng = np.random.default_rng(seed)
    residual = np.cumsum(rng.normal(size=(2, n_pixels)), axis=1) * (rng.random(n_pixels) > 0.2)
    for rho in residual_correlation(residual, length):
        padded = np.zeros(n_pixels)
        padded[: len(rho)] = rho[:n_pixels]
        assert np.linalg.eigvalsh(toeplitz(padded))[0] > -1e-10


def test_independent_residuals_change_little():
    rng = np.random.default_rng(0)
    jacobian, residual = rng.normal(size=(5, 3, 20000)), rng.normal(size=(5, 20000))
    got = correlated_information(jacobian, residual, 5)
    np.testing.assert_allclose(got, jacobian @ np.swapaxes(jacobian, 1, 2), rtol=0.05, atol=600)


def test_smoothed_noise_costs_a_smooth_gradient_what_theory_says():
    """Mean of three neighbours: a slowly changing gradient loses a factor 3 of its information."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(20, 30002))
    residual = (noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]) / np.sqrt(3)
    gradient = np.cos(np.linspace(0, 20, 30000))[None, None].repeat(20, axis=0)
    lost = np.sum(gradient**2, axis=-1)[..., None] / correlated_information(gradient, residual, 60)
    assert np.mean(lost) == pytest.approx(3.0, rel=0.1)


def test_a_star_without_residuals_or_information():
    jacobian = np.stack([np.ones((2, 10)), np.zeros((2, 10))])
    jacobian[0, 1, ::2] = -1
    got = correlated_information(jacobian, np.zeros((2, 10)), 3)
    np.testing.assert_allclose(got[0], 10 * np.eye(2), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got[1], 0.0)
