"""Sums over pixels with shared errors integrated over equal those of the full covariance."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec.likelihood import PixelNoise, Polynomials
from skspec.solvers.spectra.correlated_noise import residual_correlation
from skspec.solvers.spectra.nuisance import continuum_basis

N, Q, M, P = 4, 3, 2, 60


def draw(kind, seed=0):
    """Noise of some stars with a bad pixel, a design and residuals."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2, (N, P))
    weight[:, 3] = 0.0
    if kind == "alike":
        weight = np.tile(weight[:1], (N, 1))
    size = {"none": (0, P), "own": (N, Q, P)}.get(kind, (Q, P))
    noise = PixelNoise(weight, rng.normal(size=size))
    return noise, rng.normal(size=(N, M, P)), rng.normal(size=(N, P))


def dense(noise, i):
    """Inverse covariance of the good pixels of a star, and these."""
    good = noise.weight[i] > 0
    shared = (noise.shared if noise.shared.ndim == 2 else noise.shared[i])[:, good]
    return np.linalg.inv(np.diag(1 / noise.weight[i, good]) + shared.T @ shared), good


KINDS = pytest.mark.parametrize("kind", ["none", "common", "alike", "own"])


@KINDS
@pytest.mark.parametrize("degree", [None, 2])
@pytest.mark.parametrize("real", [float, np.float32])
def test_normal_equations_are_those_of_the_full_covariance(kind, degree, real):
    noise, design, residual = draw(kind)
    flux = 1 + 0.1 * residual
    linear, curve = None, np.ones((N, P))
    if degree is not None:
        rows = continuum_basis(np.arange(P), degree)
        linear = noise.fit_linear(Polynomials(rows).times(flux), 2 + residual)
        curve, residual = linear.curve, 2 + residual - linear.flux
    normal, slope = noise.normal_equations(design, residual, linear, scale=curve, real=real)
    tolerance = {"rtol": 1e-9} if real is float else {"rtol": 1e-4, "atol": 1e-4}
    for i in range(N):
        inverse, good = dense(noise, i)
        J, r = (design[i] * curve[i])[:, good], residual[i, good]
        full = J @ inverse @ J.T
        if degree is not None:
            C = (rows * flux[i])[:, good]
            cross = J @ inverse @ C.T
            assert_allclose(C @ inverse @ r, 0.0, atol=1e-9)  # at their best
            full -= cross @ np.linalg.solve(C @ inverse @ C.T, cross.T)
            assert_allclose(slope[i], -np.linalg.solve(C @ inverse @ C.T, cross.T), **tolerance)
        assert_allclose(normal.chi2[i], r @ inverse @ r, **tolerance)
        assert_allclose(normal.score[i], J @ inverse @ r, **tolerance)
        assert_allclose(normal.information[i], full, **tolerance)
    assert_allclose(noise.chi2(residual), normal.chi2, **tolerance)
    assert_allclose(
        noise.information(design, residual, linear, scale=curve), normal.information, **tolerance
    )


@KINDS
def test_solve_variance_and_shared_part(kind):
    noise, design, residual = draw(kind)
    solved, shared = noise.solve(design), noise.shared_part(residual)
    for i in range(N):
        inverse, good = dense(noise, i)
        assert_allclose(solved[i][:, good], design[i][:, good] @ inverse)
        assert_allclose(np.diag(np.linalg.inv(inverse)), noise.variance()[i, good])
        # what is left once the shared part is taken off has only errors of its own
        left = noise.weight[i] * (residual[i] - shared[i])
        assert_allclose(left[good], inverse @ residual[i, good], rtol=1e-9)
    assert np.all(np.isinf(noise.variance()[:, 3])) and np.all(solved[..., 3] == 0)


@KINDS
def test_some_of_the_stars(kind):
    noise, design, residual = draw(kind)
    noise.prepare()
    rows = np.array([2, 0])
    some = noise[rows].normal_equations(design[rows], residual[rows])[0]
    whole = noise.normal_equations(design, residual)[0]
    for a, b in zip(some, whole[rows]):
        assert_allclose(a, b)
    halved = noise.with_weight(0.5 * noise.weight)
    fresh = PixelNoise(0.5 * noise.weight, noise.shared)
    assert_allclose(halved.chi2(residual), fresh.chi2(residual))


@KINDS
@pytest.mark.parametrize("length", [0, 4])
def test_shares_of_pixels_add_up_to_the_covariance(kind, length):
    noise, design, residual = draw(kind)
    if length and noise.n_shared:
        pytest.skip("a likelihood knows one way in which pixels are correlated")
    noise = PixelNoise(noise.weight, noise.shared, correlation_length=length)
    marginal, conditional = noise.pixel_shares(design, residual)
    cov = np.linalg.inv(noise.information(design, residual))
    assert_allclose(marginal.sum(axis=2), np.diagonal(cov, axis1=1, axis2=2), rtol=1e-6)
    for k in range(M):
        alone = noise.information(design[:, [k]], residual)[:, 0, 0]
        assert_allclose(conditional[:, k].sum(axis=1), 1 / alone, rtol=1e-6)


def test_the_sandwich_of_autocorrelated_noise():
    noise, design, residual = draw("none")
    noise = PixelNoise(noise.weight, correlation_length=5)
    found = noise.information(design, residual)
    rho = residual_correlation(residual * np.sqrt(noise.weight), 5)
    apart = np.abs(np.arange(P)[:, None] - np.arange(P))
    for i in range(N):
        R = np.where(apart <= 5, rho[i][np.minimum(apart, 5)], 0.0)
        J = design[i] * np.sqrt(noise.weight[i])
        inverse = np.linalg.inv(J @ J.T)
        assert_allclose(np.linalg.inv(found[i]), inverse @ J @ R @ J.T @ inverse, rtol=1e-6)
    # without residuals nothing is known of the correlation
    assert_allclose(
        noise.information(design), noise.normal_equations(design, residual)[0].information
    )


@pytest.mark.parametrize("order", [None, np.repeat([0, 1], [70, 50])])
def test_solution_is_weighted_least_squares_star_by_star(order):
    rng = np.random.default_rng(0)
    polynomials = Polynomials(continuum_basis(np.linspace(4000, 5000, 120), 3, order))
    model, flux = 1 + 0.3 * rng.normal(size=(2, 4, 120))
    weight = rng.uniform(0.5, 2, size=(4, 120)) * (rng.random((4, 120)) > 0.1)
    fit = PixelNoise(weight).fit_linear(polynomials.times(model), flux)
    for i in range(4):
        root = np.sqrt(weight[i])
        design = (polynomials.rows * model[i]).T * root[:, None]
        expected = np.linalg.lstsq(design, flux[i] * root, rcond=None)[0]
        assert_allclose(fit.coef[i], expected, rtol=1e-8, atol=1e-10)
        assert_allclose(fit.information[i], design.T @ design, rtol=1e-9, atol=1e-9)


def test_a_common_model_and_an_order_without_good_pixels():
    order = np.repeat([0, 1], 40)
    polynomials = Polynomials(continuum_basis(np.arange(80.0), 2, order))
    weight = np.ones((2, 80))
    weight[0, 40:] = 0
    weight[1] = 0
    columns = polynomials.times(np.ones((2, 80)))
    fit = PixelNoise(weight).fit_linear(columns, np.full((2, 80), 3.0))
    assert_allclose(fit.coef, [[3, 0, 0, 0, 0, 0], [0] * 6], atol=1e-10)
