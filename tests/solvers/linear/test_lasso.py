"""The batched lasso against scikit-learn, and against its own optimality conditions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Lasso

from skspec.solvers.linear.lasso import (
    fit_lasso,
    fit_lasso_with_scatter,
    kkt_violation,
    lambda_max,
    lasso_path,
)
from skspec.solvers.linear.least_squares import fit_least_squares_with_scatter


def problem(n=60, K=3, P=8, s=0.01, bad=0.0, seed=0, density=0.4):
    """V, Y, variance and the sparse truth of P pixels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, K))
    i, j = np.triu_indices(K)
    V = np.hstack([np.ones((n, 1)), x, x[:, i] * x[:, j]])
    theta = 0.05 * rng.normal(size=(V.shape[1], P)) * (rng.random((V.shape[1], P)) < density)
    theta[0] = 1
    sigma = 0.01 * np.exp(0.5 * rng.normal(size=(n, P)))
    Y = V @ theta + np.hypot(sigma, s) * rng.normal(size=(n, P))
    variance = sigma**2
    variance[rng.random((n, P)) < bad] = np.inf
    return V, Y, variance, theta


def dense_violation(V, y, variance, s, theta, lam):
    """Optimality of one pixel, written out term by term; Lambda_max too."""
    good = np.isfinite(variance)
    V, y, w = V[good], y[good], 1 / (variance[good] + s**2)
    r = y - V @ theta
    worst = abs(2 * np.sum(w * r))
    top = 0.0
    for d in range(1, V.shape[1]):
        g = 2 * np.sum(w * V[:, d] * r)
        worst = max(worst, abs(g) - lam if theta[d] == 0 else abs(g - lam * np.sign(theta[d])))
        top = max(top, 2 * abs(np.sum(w * V[:, d] * (y - np.average(y, weights=w)))))
    return worst, top


def objective(V, Y, variance, s, theta, lam):
    r = Y - V @ theta
    return np.sum(r**2 / (variance + s**2), axis=0) + lam * np.abs(theta[1:]).sum(axis=0)


class TestOptimum:
    @pytest.mark.parametrize("K", [3, 7])
    @pytest.mark.parametrize("fraction", [0.003, 0.1, 0.5])
    def test_scikit_learn(self, K, fraction):
        V, Y, variance, _ = problem(n=100, K=K, P=4)
        fit = fit_lasso(V, Y, variance, 0.01, fraction, relative=True, tol=1e-10)
        for j in range(4):
            w = 1 / (variance[:, j] + 1e-4)
            centre = np.average(V[:, 1:], axis=0, weights=w), np.average(Y[:, j], weights=w)
            root = np.sqrt(w)
            reference = Lasso(
                alpha=fit.lambdas[j] / (2 * len(V)),
                fit_intercept=False,
                tol=1e-13,
                max_iter=100000,
            ).fit((V[:, 1:] - centre[0]) * root[:, None], (Y[:, j] - centre[1]) * root)
            assert_allclose(fit.theta[1:, j], reference.coef_, atol=1e-7)
            assert_array_equal(fit.theta[1:, j] == 0, reference.coef_ == 0)
            assert_allclose(fit.theta[0, j], centre[1] - centre[0] @ reference.coef_, rtol=1e-8)

    @pytest.mark.parametrize("K, n", [(3, 60), (3, 6), (7, 100), (7, 30), (7, 37)])
    @pytest.mark.parametrize("fraction", [1e-3, 0.03, 0.3])
    def test_conditions(self, K, n, fraction):
        V, Y, variance, _ = problem(n=n, K=K, P=6, bad=0.1)
        fit = fit_lasso(V, Y, variance, 0.01, fraction, relative=True)
        assert fit.converged.all()
        ours = kkt_violation(V, Y, variance, 0.01, fit.theta, fit.lambdas)
        for j in range(6):
            worst, top = dense_violation(
                V, Y[:, j], variance[:, j], 0.01, fit.theta[:, j], fit.lambdas[j]
            )
            assert_allclose(fit.lambdas[j], fraction * top, rtol=1e-9)
            assert worst <= 1.1e-6 * top
            assert_allclose(ours[j], worst / top, atol=1e-9)

    def test_violation_notices(self):
        V, Y, variance, _ = problem()
        fit = fit_lasso(V, Y, variance, 0.01, 0.1, relative=True)
        for d in range(3):
            theta = fit.theta.copy()
            theta[d] += 1e-3
            assert np.all(kkt_violation(V, Y, variance, 0.01, theta, fit.lambdas) > 1e-4)

    def test_no_penalty_is_least_squares(self):
        V, Y, variance, _ = problem(bad=0.1)
        fit = fit_lasso(V, Y, variance, 0.02, 0.0)
        expected = fit_least_squares_with_scatter(V, Y, variance, scatter=0.02)
        assert_allclose(fit.theta, expected.theta, atol=1e-8)

    @pytest.mark.parametrize("factor", [1, 1.5, 1e6])
    def test_all_zero_from_lambda_max(self, factor):
        V, Y, variance, _ = problem(bad=0.1)
        top = lambda_max(V, Y, variance, 0.01)
        for j in range(8):
            expected = dense_violation(V, Y[:, j], variance[:, j], 0.01, 0 * V[0], 0)[1]
            assert_allclose(top[j], expected, rtol=1e-12)
        fit = fit_lasso(V, Y, variance, 0.01, factor * top, block_size=3)
        assert_array_equal(fit.theta[1:], 0)
        w = 1 / (variance + 1e-4)
        assert_allclose(fit.theta[0], np.sum(w * Y, 0) / np.sum(w, 0))

    def test_one_term_enters_below_lambda_max(self):
        V, Y, variance, _ = problem(P=30)
        fit = fit_lasso(V, Y, variance, 0.01, 1 - 1e-9, relative=True, tol=1e-12)
        assert_array_equal(np.count_nonzero(fit.theta[1:], axis=0), 1)

    def test_path_warm_equals_cold(self):
        V, Y, variance, _ = problem(n=80, K=5, P=12, bad=0.05)
        fractions = np.geomspace(1, 1e-3, 8)
        path = lasso_path(V, Y, variance, 0.01, fractions, relative=True, tol=1e-9)
        assert path.theta.shape == (8, 21, 12)
        for i, fraction in enumerate(fractions):
            cold = fit_lasso(V, Y, variance, 0.01, fraction, relative=True, tol=1e-9)
            assert_allclose(path.theta[i], cold.theta, atol=1e-7)
            assert_allclose(path.lambdas[i], cold.lambdas, rtol=1e-12)

    def test_duplicated_terms(self):
        V, Y, variance, _ = problem()
        twice = np.hstack([V, V[:, 1:4], np.full((60, 1), 3.0)])
        fit = fit_lasso(twice, Y, variance, 0.01, 0.05, relative=True)
        once = fit_lasso(V, Y, variance, 0.01, 0.05, relative=True)
        assert fit.converged.all()
        assert_allclose(twice @ fit.theta, V @ once.theta, atol=1e-5)

    def test_debias(self):
        V, Y, variance, _ = problem(bad=0.05)
        sparse = fit_lasso(V, Y, variance, 0.01, 0.1, relative=True)
        fit = fit_lasso(V, Y, variance, 0.01, 0.1, relative=True, debias=True)
        support = sparse.theta != 0
        assert_array_equal(fit.theta != 0, support)
        refit = fit_least_squares_with_scatter(V, Y, variance, terms=support, scatter=0.01)
        assert_allclose(fit.theta, refit.theta)

    def test_out_of_rounds_is_told(self):
        V, Y, variance, _ = problem(n=80, K=6)
        fit = fit_lasso(V, Y, variance, 0.01, 1e-4, relative=True, max_iter=0, tol=1e-12)
        assert not fit.converged.any()


class TestPixels:
    @pytest.mark.parametrize("K", [3, 7])
    def test_censored_equals_reduced_design(self, K):
        V, Y, variance, _ = problem(n=90, K=K, P=6)
        terms = np.random.default_rng(1).random((V.shape[1], 6)) < 0.5
        terms[0] = True
        fit = fit_lasso(V, Y, variance, 0.01, 0.05, relative=True, terms=terms, tol=1e-10)
        assert_array_equal(fit.theta[~terms], 0)
        for j in range(6):
            alone = fit_lasso(
                V[:, terms[:, j]], Y[:, [j]], variance[:, [j]], 0.01, 0.05, relative=True, tol=1e-10
            )
            assert_allclose(fit.theta[terms[:, j], j], alone.theta[:, 0], atol=1e-7)
        assert np.all(
            kkt_violation(V, Y, variance, 0.01, fit.theta, fit.lambdas, terms=terms) < 1e-6
        )

    def test_bad_equals_dropped(self):
        V, Y, variance, _ = problem()
        drop = np.arange(60) % 4 == 0
        dirty, infinite = Y.copy(), variance.copy()
        dirty[drop], infinite[drop] = np.nan, np.inf
        a = fit_lasso(V, dirty, infinite, 0.01, 100.0, tol=1e-10)
        b = fit_lasso(V[~drop], Y[~drop], variance[~drop], 0.01, 100.0, tol=1e-10)
        assert_allclose(a.theta, b.theta, atol=1e-8)

    def test_without_stars(self):
        V, Y, variance, _ = problem()
        variance[:, 1] = np.inf
        variance[1:, 2] = np.inf
        s = np.full(8, 0.01)
        s[3] = np.inf
        fit = fit_lasso(V, Y, variance, s, 10.0)
        assert_array_equal(np.flatnonzero(~fit.trained), [1, 2, 3])
        assert_array_equal(fit.scatter[[1, 2, 3]], np.inf)
        assert_array_equal(fit.theta[1:, 1:4], 0)
        mean = np.average(Y[:, 3], weights=1 / variance[:, 3])
        assert_allclose(fit.theta[0, 1:4], [0, Y[0, 2], mean])

    def test_constant_flux(self):
        V, Y, variance, _ = problem()
        Y[:] = 1
        for v in (variance, 0.0):
            fit = fit_lasso_with_scatter(V, Y, v, 0.1, relative=True)
            assert_allclose(fit.theta[0], 1)
            assert_allclose(fit.theta[1:], 0, atol=1e-12)
            assert_array_equal(fit.scatter, 0)

    def test_penalty_per_pixel_and_blocks(self):
        V, Y, variance, _ = problem(P=9)
        lambdas = np.geomspace(1, 1e4, 9)
        a = fit_lasso(V, Y, variance, 0.01, lambdas, block_size=2, tol=1e-10)
        b = fit_lasso(V, Y, variance, 0.01, lambdas, tol=1e-10)
        assert_allclose(a.theta, b.theta, atol=1e-9)

    def test_input_never_modified(self):
        V, Y, variance, _ = problem(bad=0.1)
        arrays = [V, Y, variance]
        copies = [a.copy() for a in arrays]
        for a in arrays:
            a.setflags(write=False)
        fit_lasso_with_scatter(V, Y, variance, 0.1, relative=True, debias=True)
        for a, b in zip(arrays, copies):
            assert_array_equal(a, b)

    def test_refused(self):
        V, Y, variance, _ = problem()
        with pytest.raises(ValueError, match="negative"):
            fit_lasso(V, Y, variance, 0.01, -1.0)


class TestScatter:
    @pytest.mark.parametrize("ratio", [0.3, 1, 3])
    def test_recovered(self, ratio):
        V, Y, _, _ = problem(n=1500, P=30, s=0.0, density=0.3)
        rng = np.random.default_rng(5)
        s = 0.01 * ratio
        clean = V @ problem(n=1500, P=30, density=0.3)[3]
        Y = clean + np.hypot(0.01, s) * rng.normal(size=clean.shape)
        fit = fit_lasso_with_scatter(V, Y, 1e-4, 0.003, relative=True)
        assert fit.converged.all()
        assert abs(np.mean(fit.scatter) / s - 1) < 0.05

    def test_joint_objective_falls_and_settles(self):
        V, Y, variance, _ = problem(P=20, s=0.02)
        lam = 30.0

        def joint(fit):
            return objective(V, Y, variance, fit.scatter, fit.theta, lam) + np.sum(
                np.log(variance + fit.scatter**2), axis=0
            )

        values = [
            joint(fit_lasso_with_scatter(V, Y, variance, lam, n_sweeps=k, scatter_tol=0))
            for k in (1, 2, 4, 30)
        ]
        for before, after in zip(values, values[1:]):
            assert np.all(after <= before + 1e-6)
        fit = fit_lasso_with_scatter(V, Y, variance, lam, n_sweeps=40, scatter_tol=1e-7)
        assert fit.converged.all()
        r2 = (Y - V @ fit.theta) ** 2
        w = 1 / (variance + fit.scatter**2)
        slope = np.sum(w - w**2 * r2, axis=0) / np.sum(w, axis=0)
        assert np.all(np.where(fit.scatter > 0, np.abs(slope), np.maximum(-slope, 0)) < 1e-4)
        assert np.all(kkt_violation(V, Y, variance, fit.scatter, fit.theta, lam) < 1e-6)

    def test_zero_when_the_noise_explains_all(self):
        V, Y, variance, _ = problem(s=0.0)
        fit = fit_lasso_with_scatter(V, Y, 4 * variance, 0.01, relative=True)
        assert_array_equal(fit.scatter, 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40),
    K=st.integers(1, 4),
    bad=st.floats(0, 0.6),
    seed=st.integers(0, 999),
    fraction=st.floats(1e-4, 2),
    s=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_optimal_and_no_worse_than_others(n, K, bad, seed, fraction, s):
    V, Y, variance, truth = problem(n=n, K=K, P=4, bad=bad, seed=seed)
    fit = fit_lasso(V, Y, variance, s, fraction, relative=True)
    assert fit.converged.all()
    assert np.all(kkt_violation(V, Y, variance, s, fit.theta, fit.lambdas) < 1.1e-6)
    best = objective(V, Y, variance, s, fit.theta, fit.lambdas)
    other = objective(V, Y, variance, s, truth, fit.lambdas)
    assert np.all((best <= other * (1 + 1e-6) + 1e-9) | ~fit.trained)
    if fraction >= 1:
        assert_array_equal(fit.theta[1:], 0)
