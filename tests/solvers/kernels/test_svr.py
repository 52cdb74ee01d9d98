"""Epsilon-SVR of many targets: held against libsvm, the KKT conditions, and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.kernels.svr import (
    admm_operator,
    fit_svr,
    fit_svr_libsvm,
    leave_one_out,
)

P = 7


def problem(n, gamma=0.3, d=3, noise=0.5, seed=0, targets=P):
    """Stars x, kernel, and standardised noisy targets."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    Y = np.sin(x @ rng.normal(size=(d, targets))) + noise * rng.normal(size=(n, targets))
    spread = Y.std(axis=0)
    return x, kernel(x, x, gamma), (Y - Y.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def kernel(a, b, gamma):
    return np.exp(-gamma * ((a[:, None] - b[None]) ** 2).sum(axis=-1))


def mask(shape, fraction=0.2, seed=3):
    return (np.random.default_rng(seed).random(shape) > fraction).astype(float)


def predict(K, solution):
    return K @ solution.dual_coef + solution.intercept


def check_kkt(K, Y, solution, C, epsilon, weight=None, tol=1e-6):
    """The optimality conditions, star by star, from their textbook form."""
    weight = np.ones_like(Y) if weight is None else weight
    residual = Y - predict(K, solution)
    for p in range(Y.shape[1]):
        b, r, c = solution.dual_coef[:, p], residual[:, p], C * weight[:, p]
        assert abs(b.sum()) <= 1e-9 * max(C, 1.0) * len(b)
        assert np.all(np.abs(b) <= c)
        for b_i, r_i, c_i in zip(b, r, c):
            if c_i == 0:
                continue
            if b_i == 0:
                assert abs(r_i) <= epsilon + tol
            elif b_i == c_i:
                assert r_i >= epsilon - tol
            elif b_i == -c_i:
                assert r_i <= -epsilon + tol
            else:
                assert r_i == pytest.approx(np.sign(b_i) * epsilon, abs=tol)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("n", "C", "epsilon", "gamma"),
    [
        (30, 1.0, 0.05, 0.3),
        (150, 1.0, 0.05, 0.3),
        (150, 10.0, 0.05, 0.1),
        (150, 10.0, 0.2, 3.0),
        (150, 0.1, 0.0, 0.3),
        (150, 50.0, 0.1, 0.3),
        (400, 2.0, 0.05, 0.05),
    ],
)
def test_agrees_with_libsvm(n, C, epsilon, gamma, masked):
    _, K, Y = problem(n, gamma)
    weight = mask(Y.shape) if masked else None
    fast = fit_svr(K, Y, C=C, epsilon=epsilon, sample_weight=weight)
    slow = fit_svr_libsvm(K, Y, C=C, epsilon=epsilon, sample_weight=weight)
    assert fast.converged.all() and fast.violation.max() <= 1e-6
    assert_allclose(predict(K, fast), predict(K, slow), atol=1e-4)
    check_kkt(K, Y, fast, C, epsilon, weight)


def test_weights_scale_the_bound():
    _, K, Y = problem(80)
    weight = np.random.default_rng(1).uniform(0, 2, Y.shape)
    fast = fit_svr(K, Y, C=3.0, epsilon=0.1, sample_weight=weight)
    slow = fit_svr_libsvm(K, Y, C=3.0, epsilon=0.1, sample_weight=weight)
    assert_allclose(predict(K, fast), predict(K, slow), atol=1e-4)
    check_kkt(K, Y, fast, 3.0, 0.1, weight)


@pytest.mark.parametrize("rubbish", [0.0, 1e9, np.nan])
def test_masking_is_dropping(rubbish):
    _, K, Y = problem(90)
    keep = np.arange(90) % 4 != 0
    weight = np.broadcast_to(keep[:, None], Y.shape).astype(float)
    dirty = np.where(weight > 0, Y, rubbish)
    masked = fit_svr(K, dirty, C=2.0, epsilon=0.05, sample_weight=weight)
    dropped = fit_svr(K[np.ix_(keep, keep)], Y[keep], C=2.0, epsilon=0.05)
    assert_array_equal(masked.dual_coef[~keep], 0.0)
    assert_allclose(predict(K, masked)[keep], predict(K[np.ix_(keep, keep)], dropped), atol=1e-5)


def test_kernel_of_any_scale():
    _, K, Y = problem(120)
    one = fit_svr(K, Y, C=2.0, epsilon=0.05)
    hundred = fit_svr(100 * K, Y, C=0.02, epsilon=0.05)
    assert_allclose(predict(100 * K, hundred), predict(K, one), atol=1e-5)
    check_kkt(100 * K, Y, hundred, 0.02, 0.05)


def test_shared_operator_and_single_precision():
    _, K, Y = problem(120)
    own = fit_svr(K, Y, C=2.0, epsilon=0.05)
    shared = fit_svr(K, Y, C=2.0, epsilon=0.05, operator=admm_operator(K))
    single = fit_svr(K.astype(np.float32), Y.astype(np.float32), C=2.0, epsilon=0.05)
    assert_array_equal(own.dual_coef, shared.dual_coef)
    assert_allclose(predict(K, single), predict(K, own), atol=1e-4)
    assert single.converged.all()


def test_blocks_do_not_matter():
    _, K, Y = problem(60, targets=300)
    whole = fit_svr(K, Y, C=2.0, epsilon=0.05)
    part = fit_svr(K, Y[:, 100:130], C=2.0, epsilon=0.05)
    assert_allclose(predict(K, part), predict(K, whole)[:, 100:130], atol=1e-5)


def test_loose_tolerance_is_kept():
    _, K, Y = problem(200)
    solution = fit_svr(K, Y, C=2.0, epsilon=0.05, tol=1e-3)
    assert solution.violation.max() <= 1e-3
    check_kkt(K, Y, solution, 2.0, 0.05, tol=1e-3)


def test_inputs_unchanged():
    _, K, Y = problem(60)
    weight = mask(Y.shape)
    copies = K.copy(), Y.copy(), weight.copy()
    solution = fit_svr(K, Y, C=2.0, epsilon=0.05, sample_weight=weight)
    leave_one_out(K, Y, solution, C=2.0, epsilon=0.05, sample_weight=weight)
    fit_svr_libsvm(K, Y, C=2.0, epsilon=0.05, sample_weight=weight)
    for was, now in zip(copies, (K, Y, weight)):
        assert_array_equal(was, now)


class TestDegenerate:
    @pytest.mark.parametrize("n", [1, 2, 3, 10])
    @pytest.mark.parametrize("C", [0.1, 1.0, 1e4])
    @pytest.mark.parametrize("epsilon", [0.0, 0.05, 5.0])
    def test_few_stars(self, n, C, epsilon):
        _, K, Y = problem(n, noise=0.1)
        solution = fit_svr(K, Y, C=C, epsilon=epsilon)
        assert solution.converged.all()
        check_kkt(K, Y, solution, C, epsilon)
        loo = leave_one_out(K, Y, solution, C=C, epsilon=epsilon)
        assert np.isfinite(loo).all()

    @pytest.mark.parametrize("value", [0.0, 3.0])
    @pytest.mark.parametrize("epsilon", [0.0, 0.05])
    def test_constant_target(self, value, epsilon):
        _, K, _ = problem(50)
        solution = fit_svr(K, np.full((50, 2), value), C=1.0, epsilon=epsilon)
        assert_array_equal(solution.dual_coef, 0.0)
        assert_allclose(solution.intercept, value)
        assert solution.converged.all()

    def test_everything_masked(self):
        _, K, Y = problem(50)
        weight = np.ones_like(Y)
        weight[:, 2] = 0.0
        weight[1:, 3] = 0.0
        solution = fit_svr(K, Y, C=1.0, epsilon=0.05, sample_weight=weight)
        assert solution.converged.all()
        assert_array_equal(solution.dual_coef[:, 2:4], 0.0)
        assert solution.intercept[2] == 0.0
        assert solution.intercept[3] == pytest.approx(Y[0, 3])
        args = {"C": 1.0, "epsilon": 0.05, "sample_weight": weight}
        assert_allclose(leave_one_out(K, Y, solution, **args)[:, 2], Y[:, 2])

    @pytest.mark.parametrize("C", [1.0, 100.0])
    def test_duplicated_stars(self, C):
        x, _, Y = problem(40)
        x = np.concatenate([x, x, x[:5]])
        Y = np.concatenate([Y, Y + 0.01, Y[:5]])
        K = kernel(x, x, 0.3)
        solution = fit_svr(K, Y, C=C, epsilon=0.05)
        assert solution.converged.all()
        check_kkt(K, Y, solution, C, 0.05)
        assert np.isfinite(leave_one_out(K, Y, solution, C=C, epsilon=0.05)).all()

    def test_no_targets(self):
        _, K, Y = problem(20)
        solution = fit_svr(K, Y[:, :0], C=1.0, epsilon=0.05)
        assert solution.dual_coef.shape == (20, 0)

    def test_huge_C(self):
        _, K, Y = problem(60, gamma=1.0, noise=0.05)
        solution = fit_svr(K, Y, C=1e4, epsilon=0.05)
        assert_array_equal(solution.converged, solution.violation <= 1e-6)
        done = solution.converged
        check_kkt(K, Y[:, done], _columns(solution, done), 1e4, 0.05, tol=1e-5)
        assert done.mean() > 0.5


def _columns(solution, done):
    return type(solution)(
        solution.dual_coef[:, done],
        solution.intercept[done],
        solution.violation[done],
        solution.n_iter[done],
        solution.converged[done],
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    Y=arrays(np.float64, (12, 2), elements=st.floats(-5, 5)),
    weight=arrays(np.float64, (12, 2), elements=st.sampled_from([0.0, 1.0])),
    C=st.sampled_from([0.05, 1.0, 20.0]),
    epsilon=st.sampled_from([0.0, 0.1]),
)
def test_any_target_gives_feasible_duals(Y, weight, C, epsilon):
    _, K, _ = problem(12)
    solution = fit_svr(K, Y, C=C, epsilon=epsilon, sample_weight=weight)
    assert np.all(np.abs(solution.dual_coef) <= C * weight)
    assert_allclose(solution.dual_coef.sum(axis=0), 0.0, atol=1e-9 * C * 12)
    assert_array_equal(solution.converged, solution.violation <= 1e-6)
    done = solution.converged
    check_kkt(K, Y[:, done], _columns(solution, done), C, epsilon, weight[:, done], tol=1e-5)


GAMMA = 0.3
BOX = {"C": 2.0, "epsilon": 0.1}


def sets(solution):
    """0 for no support vector, +-1 free, +-2 at the bound."""
    b = solution.dual_coef
    return np.sign(b) * (1 + (np.abs(b) == BOX["C"])) * (np.abs(b) > 1e-9)


@pytest.fixture(scope="module")
def refits():
    """A fit, brute-force refits with each star masked in turn, and where the sets stayed."""
    n = 40
    x, K, Y = problem(n, GAMMA)
    solution = fit_svr(K, Y, **BOX)
    star, pixel = np.tile(np.arange(n), P), np.repeat(np.arange(P), n)
    held = star, np.arange(star.size)
    weight = np.ones((n, star.size))
    weight[held] = 0.0
    refit = fit_svr(K, Y[:, pixel], sample_weight=weight, **BOX)
    before, after = sets(solution)[:, pixel], sets(refit)
    before[held] = 0
    same = (before == after).all(axis=0)
    return x, K, Y, solution, refit, star, pixel, same


class TestLeaveOneOut:
    def test_exact_where_the_sets_stay(self, refits):
        _, K, Y, solution, refit, star, pixel, same = refits
        closed = leave_one_out(K, Y, solution, **BOX)[star, pixel]
        true = Y[star, pixel] - predict(K, refit)[star, np.arange(star.size)]
        support = solution.dual_coef[star, pixel] != 0
        assert (same & support).sum() >= 10
        assert_allclose(closed[same], true[same], atol=2e-5)
        # and elsewhere near enough for a mean square
        assert np.mean(closed**2) == pytest.approx(np.mean(true**2), rel=0.25)

    def test_masked_stars_keep_their_residual(self):
        _, K, Y = problem(60)
        weight = mask(Y.shape)
        args = {"C": 2.0, "epsilon": 0.05, "sample_weight": weight}
        solution = fit_svr(K, Y, **args)
        closed = leave_one_out(K, Y, solution, **args)
        plain = Y - predict(K, solution)
        assert_allclose(closed[weight == 0], plain[weight == 0])
        inside = (weight > 0) & (solution.dual_coef == 0)
        assert_allclose(closed[inside], plain[inside])
        assert np.all(np.abs(closed) >= np.abs(plain) - 1e-6)
