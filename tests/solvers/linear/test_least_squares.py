"""Every fast formula against a slow and obviously right one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

from skspec.solvers.linear import normal_equations
from skspec.solvers.linear.least_squares import fit_least_squares_with_scatter
from skspec.solvers.linear.leave_one_out import leave_one_out, leave_one_out_blocks


def quadratic(x):
    """Terms V (n, D) and derivatives dV (n, K, D) of all products up to second order."""
    n, K = x.shape
    i, j = np.triu_indices(K)
    V = np.hstack([np.ones((n, 1)), x, x[:, i] * x[:, j]])
    dV = np.zeros((n, K, V.shape[1]))
    dV[:, range(K), range(1, K + 1)] = 1
    for t, (a, b) in enumerate(zip(i, j), start=K + 1):
        dV[:, a, t] += x[:, b]
        dV[:, b, t] += x[:, a]
    return V, dV


class Problem:
    """Simulated spectra of n stars with K labels, P pixels, noise sigma and scatter s."""

    def __init__(self, n=60, K=2, P=9, s=0.01, bad=0.0, seed=0, hetero=0.5):
        rng = np.random.default_rng(seed)
        self.V, self.dV = quadratic(rng.normal(size=(n, K)))
        self.theta = np.vstack([np.ones(P), 0.05 * rng.normal(size=(self.V.shape[1] - 1, P))])
        sigma = 0.01 * np.exp(hetero * rng.normal(size=(n, P)))
        self.Y = self.V @ self.theta + np.hypot(sigma, s) * rng.normal(size=(n, P))
        self.variance = sigma**2
        self.variance[rng.random((n, P)) < bad] = np.inf

    @property
    def data(self):
        return self.V, self.Y, self.variance


def weighted(V, y, variance, u):
    """Dense weighted least squares of one pixel, bad stars dropped."""
    good = variance < np.inf
    root = 1 / np.sqrt(variance[good] + u)
    return np.linalg.lstsq(V[good] * root[:, None], y[good] * root, rcond=None)[0]


def deviance(V, y, variance, u, reml=False):
    good = variance < np.inf
    r = (y - V @ weighted(V, y, variance, u))[good]
    total = variance[good] + u
    value = np.sum(r**2 / total + np.log(total))
    if reml:
        value += np.linalg.slogdet((V[good].T / total) @ V[good])[1]
    return value


def brute_force(V, y, variance, reml=False):
    """The scatter of one pixel by a grid in ln s and a bounded search around its best point."""
    grid = np.linspace(np.log(1e-4), np.log(1), 60)
    at = [deviance(V, y, variance, np.exp(2 * g), reml) for g in grid]
    k = int(np.argmin(at))
    best = minimize_scalar(
        lambda g: deviance(V, y, variance, np.exp(2 * g), reml),
        bounds=(grid[max(k - 1, 0)], grid[min(k + 1, 59)]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    zero = deviance(V, y, variance, 0.0, reml)
    return 0.0 if zero <= best.fun else np.exp(best.x)


class TestLikelihood:
    @pytest.mark.parametrize("s", [0.0, 0.003, 0.03])
    @pytest.mark.parametrize("reml", [False, True])
    def test_brute_force(self, s, reml):
        p = Problem(s=s, bad=0.05, P=6)
        fit = fit_least_squares_with_scatter(*p.data, scatter="reml" if reml else "ml", tol=1e-14)
        assert fit.converged.all()
        for j in range(6):
            y, v = p.Y[:, j], p.variance[:, j]
            expected = brute_force(p.V, y, v, reml)
            assert_allclose(fit.scatter[j], expected, rtol=1e-4, atol=1e-6)
            theta = weighted(p.V, y, v, fit.scatter[j] ** 2)
            assert_allclose(fit.theta[:, j], theta, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("ratio", [0.3, 1, 3])
    def test_scatter_recovered(self, ratio):
        p = Problem(n=2000, K=2, P=40, s=0.01 * ratio, hetero=0.0)
        fit = fit_least_squares_with_scatter(*p.data)
        assert abs(np.mean(fit.scatter) / (0.01 * ratio) - 1) < 0.05

    def test_reml_undoes_the_bias(self):
        p = Problem(n=20, K=2, P=4000, s=0.01, hetero=0.0)
        ml = fit_least_squares_with_scatter(p.V, p.Y, 0.0)
        reml = fit_least_squares_with_scatter(p.V, p.Y, 0.0, scatter="reml")
        assert_allclose(np.mean(reml.scatter**2), 2e-4, rtol=0.02)
        assert_allclose(ml.scatter**2, reml.scatter**2 * (20 - 6) / 20)

    @pytest.mark.parametrize("scatter", [0.0, 0.02, np.linspace(0, 0.05, 9)])
    def test_fixed_scatter(self, scatter):
        p = Problem()
        fit = fit_least_squares_with_scatter(*p.data, scatter=scatter)
        assert_array_equal(fit.scatter, np.broadcast_to(scatter, 9))
        for j in range(9):
            expected = weighted(p.V, p.Y[:, j], p.variance[:, j], fit.scatter[j] ** 2)
            assert_allclose(fit.theta[:, j], expected, rtol=1e-9)

    @pytest.mark.parametrize("scatter", ["ml", "reml", 0.02])
    @pytest.mark.parametrize("variance", [0.0, 1e-4, np.linspace(0, 1e-3, 9)])
    def test_homoscedastic_shortcut(self, scatter, variance):
        p = Problem()
        fast = fit_least_squares_with_scatter(p.V, p.Y, variance, scatter=scatter)
        full = np.broadcast_to(variance, p.Y.shape)
        slow = fit_least_squares_with_scatter(p.V, p.Y, full, scatter=scatter, tol=1e-14)
        assert_allclose(fast.theta, slow.theta, rtol=1e-8, atol=1e-11)
        assert_allclose(fast.scatter, slow.scatter, rtol=1e-7, atol=1e-9)

    def test_unknown_noise_among_known(self):
        p = Problem(P=5)
        p.variance[::2] = 0.0
        fit = fit_least_squares_with_scatter(*p.data, tol=1e-14)
        for j in range(5):
            y, v = p.Y[:, j], p.variance[:, j]
            best = [deviance(p.V, y, v, (fit.scatter[j] * f) ** 2) for f in (0.99, 1, 1.01)]
            assert best[1] < min(best[0], best[2])

    def test_constant_pixels(self):
        p = Problem(P=4)
        p.Y[:] = [0.0, 1.0, 1e-17, 7.0]
        for variance in (0.0, np.zeros_like(p.Y), p.variance):
            fit = fit_least_squares_with_scatter(p.V, p.Y, variance)
            assert_array_equal(fit.scatter, 0)
            assert_allclose(fit.theta[0], p.Y[0], rtol=1e-12)
            assert_allclose(fit.theta[1:] / np.maximum(p.Y[0], 1e-30), 0, atol=1e-11)

    def test_flux_units(self):
        p = Problem(bad=0.05)
        a = fit_least_squares_with_scatter(*p.data)
        b = fit_least_squares_with_scatter(p.V, p.Y * 1e-17, p.variance * 1e-34)
        assert_allclose(b.theta, a.theta * 1e-17, rtol=1e-8)
        assert_allclose(b.scatter, a.scatter * 1e-17, rtol=1e-6)

    def test_badly_scaled_labels(self):
        x = np.random.default_rng(0).normal(size=(80, 3)) * [100, 0.1, 1e-3] + [5777, 4.4, 0]
        V = quadratic(x)[0]
        p = Problem(n=80, K=3)
        fit = fit_least_squares_with_scatter(V, *p.data[1:], scatter=0.01)
        centred = quadratic((x - [5777, 4.4, 0]) / [100, 0.1, 1e-3])[0]
        reference = fit_least_squares_with_scatter(centred, *p.data[1:], scatter=0.01)
        assert_allclose(V @ fit.theta, centred @ reference.theta, rtol=1e-6)


class TestBadPixels:
    @pytest.mark.parametrize("K", [2, 6])
    def test_bad_equals_dropped(self, K):
        p = Problem(n=90, K=K)
        drop = np.arange(90) % 5 == 0
        p.variance[drop] = np.inf
        p.Y[drop] = np.random.default_rng(1).choice([np.nan, np.inf, 1e9], (18, 9))
        a = fit_least_squares_with_scatter(*p.data, tol=1e-14)
        b = fit_least_squares_with_scatter(*(x[~drop] for x in p.data), tol=1e-14)
        assert_allclose(a.theta, b.theta, rtol=1e-6, atol=1e-9)
        assert_allclose(a.scatter, b.scatter, rtol=1e-5, atol=1e-8)
        left = leave_one_out(*p.data, a)
        assert_allclose(left[~drop], leave_one_out(*(x[~drop] for x in p.data), b), atol=1e-6)

    @pytest.mark.parametrize("variance", ["full", 1e-4])
    def test_nan_flux_is_bad_whatever_its_variance(self, variance):
        p = Problem()
        p.Y[3, 4] = np.nan
        p.Y[5:7, 2] = np.inf, -np.inf
        v = p.variance if variance == "full" else variance
        dropped = np.array(np.broadcast_to(v, p.Y.shape))
        dropped[3, 4] = dropped[5:7, 2] = np.inf
        a = fit_least_squares_with_scatter(p.V, p.Y, v)
        b = fit_least_squares_with_scatter(p.V, np.nan_to_num(p.Y, posinf=1, neginf=1), dropped)
        assert_allclose(a.theta, b.theta, rtol=1e-12)
        assert_allclose(a.scatter, b.scatter, rtol=1e-12)
        assert leave_one_out(p.V, p.Y, v, a)[3, 4] == 0

    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    @pytest.mark.parametrize("variance", [None, 0.0, 1e-4])
    def test_few_stars(self, n, variance):
        p = Problem(n=n, K=2, P=4)
        v = p.variance if variance is None else variance
        fit = fit_least_squares_with_scatter(p.V, p.Y, v)
        assert not fit.trained.any()
        assert_array_equal(fit.scatter, np.inf)
        w = 1 / np.maximum(np.broadcast_to(v, p.Y.shape), 1e-30)
        assert_allclose(fit.theta[0], np.sum(w * p.Y, 0) / np.sum(w, 0))
        assert_array_equal(fit.theta[1:], 0)
        for block in leave_one_out_blocks(p.V, p.Y, v, fit, dV=p.dV):
            assert_array_equal(block.weights, 0)

    def test_some_pixels_untrained(self):
        p = Problem()
        p.variance[5:, 2] = np.inf
        p.variance[:, 4] = np.inf
        fit = fit_least_squares_with_scatter(*p.data)
        assert_array_equal(np.flatnonzero(~fit.trained), [2, 4])
        assert_allclose(fit.theta[0, 2], np.average(p.Y[:5, 2], weights=1 / p.variance[:5, 2]))
        assert_array_equal(fit.theta[:, 4], 0)
        left = leave_one_out(*p.data, fit)
        assert_allclose(left[:, 2], p.Y[:, 2] - fit.theta[0, 2])

    @pytest.mark.parametrize("variance", ["full", 1e-4])
    def test_infinite_scatter_leaves_a_pixel_untrained(self, variance):
        p = Problem(P=2)
        v = p.variance if variance == "full" else variance
        fit = fit_least_squares_with_scatter(p.V, p.Y, v, scatter=[np.inf, 0.01])
        assert_array_equal(fit.trained, [False, True])
        assert_array_equal(fit.theta[1:, 0], 0)
        assert_array_equal(fit.scatter, [np.inf, 0.01])

    def test_as_many_stars_as_terms(self):
        p = Problem(n=6, K=2)
        fit = fit_least_squares_with_scatter(*p.data)
        assert fit.trained.all()
        assert_array_equal(fit.scatter, 0)
        assert_allclose(p.V @ fit.theta, p.Y, rtol=1e-6)
        left, jacobian = leave_one_out(*p.data, fit, dV=p.dV)
        assert_array_equal(left, 0)
        assert_array_equal(jacobian, 0)

    @pytest.mark.parametrize("K", [2, 6])
    def test_rank_deficiency(self, K):
        p = Problem(n=90, K=K)
        V = np.hstack([p.V, p.V[:, 1:3], np.full((90, 1), 2.0)])
        reference = fit_least_squares_with_scatter(*p.data)
        fit = fit_least_squares_with_scatter(V, *p.data[1:])
        assert_allclose(V @ fit.theta, p.V @ reference.theta, atol=1e-6)
        assert_allclose(fit.scatter, reference.scatter, atol=1e-6)
        assert_allclose(
            leave_one_out(V, *p.data[1:], fit), leave_one_out(*p.data, reference), atol=1e-4
        )

    def test_rank_deficient_in_one_pixel_only(self):
        p = Problem()
        p.V[:, 2] = np.where(np.arange(60) < 50, 0.0, p.V[:, 2])  # no spread among the good stars
        p.variance[50:, 3] = np.inf
        fit = fit_least_squares_with_scatter(*p.data, scatter=0.01)
        assert fit.trained.all()
        expected = p.V @ weighted(p.V, p.Y[:, 3], p.variance[:, 3], 1e-4)
        assert_allclose((p.V @ fit.theta)[:50, 3], expected[:50], atol=1e-6)


class TestTerms:
    @pytest.mark.parametrize("K", [2, 6])
    def test_censored_equals_reduced_design(self, K):
        p = Problem(n=90, K=K, bad=0.02)
        rng = np.random.default_rng(2)
        terms = rng.random((p.V.shape[1], 9)) < 0.6
        terms[0], terms[:, 5] = True, True
        fit = fit_least_squares_with_scatter(*p.data, terms=terms, tol=1e-14)
        assert_array_equal(fit.theta[~terms], 0)
        left, jacobian = leave_one_out(*p.data, fit, dV=p.dV)
        for j in range(9):
            on = terms[:, j]
            one = (p.V[:, on], p.Y[:, [j]], p.variance[:, [j]])
            alone = fit_least_squares_with_scatter(*one, tol=1e-14)
            assert_allclose(fit.theta[on, j], alone.theta[:, 0], rtol=1e-5, atol=1e-8)
            assert_allclose(fit.scatter[j], alone.scatter[0], rtol=1e-5, atol=1e-8)
            r, J = leave_one_out(*one, alone, dV=p.dV[..., on])
            assert_allclose(left[:, j], r[:, 0], atol=1e-7)
            assert_allclose(jacobian[:, j], J[:, 0], atol=1e-7)

    def test_needs_only_as_many_stars_as_terms_allowed(self):
        p = Problem(n=5, K=2, P=2)
        terms = np.ones((6, 2), bool)
        terms[3:, 1] = False
        fit = fit_least_squares_with_scatter(*p.data, terms=terms)
        assert_array_equal(fit.trained, [False, True])


class TestConjugateGradients:
    @pytest.mark.parametrize("censored", [False, True])
    @pytest.mark.parametrize("n", [50, 400])
    def test_equals_direct(self, n, censored):
        p = Problem(n=n, K=7, P=20, bad=0.02, hetero=1.0)
        terms = None
        if censored:
            terms = np.random.default_rng(0).random((36, 20)) < 0.7
            terms[0] = True
        kwargs = {"terms": terms, "tol": 1e-14}
        a = fit_least_squares_with_scatter(*p.data, solver="direct", **kwargs)
        b = fit_least_squares_with_scatter(*p.data, solver="pcg", **kwargs)
        assert_allclose(b.theta, a.theta, atol=1e-7)
        assert_allclose(b.scatter, a.scatter, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("iterations", [1, 80])
    def test_hopeless_preconditioner_is_caught(self, iterations, monkeypatch):
        monkeypatch.setattr(normal_equations, "PCG_ITERATIONS", iterations)
        p = Problem(n=120, K=7, P=10)
        p.variance *= 10 ** np.random.default_rng(0).uniform(-8, 8, p.Y.shape)
        a = fit_least_squares_with_scatter(*p.data, solver="direct", scatter=1e-5)
        b = fit_least_squares_with_scatter(*p.data, solver="pcg", scatter=1e-5)
        assert_allclose(b.theta, a.theta, rtol=1e-4, atol=1e-8)

    def test_short_models_too(self):
        p = Problem(bad=0.1)
        a = fit_least_squares_with_scatter(*p.data, solver="direct")
        b = fit_least_squares_with_scatter(*p.data, solver="pcg")
        assert_allclose(b.theta, a.theta, atol=1e-7)


class TestLeaveOneOut:
    @pytest.mark.parametrize("K, n", [(1, 12), (2, 25), (6, 70)])
    def test_real_refits(self, K, n):
        p = Problem(n=n, K=K, P=7, bad=0.05)
        fit = fit_least_squares_with_scatter(*p.data)
        left, jacobian = leave_one_out(*p.data, fit, dV=p.dV, block_size=3)
        for i in range(0, n, 5):
            rest = np.arange(n) != i
            refit = fit_least_squares_with_scatter(
                *(x[rest] for x in p.data), scatter=fit.scatter, solver="direct"
            )
            assert_allclose(left[i], p.Y[i] - p.V[i] @ refit.theta, rtol=1e-6, atol=1e-9)
            assert_allclose(jacobian[i], (p.dV[i] @ refit.theta).T, rtol=1e-6, atol=1e-8)

    def test_bad_star_has_its_plain_residual(self):
        p = Problem(bad=0.2)
        fit = fit_least_squares_with_scatter(*p.data)
        bad = np.isinf(p.variance)
        plain = p.Y - p.V @ fit.theta
        assert_allclose(leave_one_out(*p.data, fit)[bad], plain[bad], rtol=1e-9)

    def test_blocks_hold_what_the_whole_holds(self):
        p = Problem(n=40, bad=0.1, P=11)
        fit = fit_least_squares_with_scatter(*p.data)
        r, J = leave_one_out(*p.data, fit, dV=p.dV)
        W = 1 / (p.variance + fit.scatter**2)
        for block in leave_one_out_blocks(*p.data, fit, dV=p.dV, block_size=4):
            assert_allclose(block.residuals, r[:, block.columns], rtol=1e-10, atol=1e-12)
            assert_allclose(block.weights, W[:, block.columns])
            assert_allclose(
                block.jacobian, np.moveaxis(J[:, block.columns], 2, 1), rtol=1e-9, atol=1e-12
            )

    def test_bad_values_may_be_anything(self):
        p = Problem(n=40, bad=0.1, P=11)
        bad = ~np.isfinite(p.variance)
        assert bad.any()
        fit = fit_least_squares_with_scatter(*p.data)
        left = leave_one_out(*p.data, fit)
        Y = np.where(bad, 1e30, p.Y)
        spoilt = fit_least_squares_with_scatter(p.V, Y, p.variance)
        assert_array_equal(spoilt.theta, fit.theta)
        assert_array_equal(leave_one_out(p.V, Y, p.variance, spoilt)[~bad], left[~bad])

    def test_censored_terms_in_every_block(self):
        p = Problem(n=40, P=11)
        terms = np.ones((p.V.shape[1], 11), dtype=bool)
        terms[2, ::2] = False
        fit = fit_least_squares_with_scatter(*p.data, terms=terms)
        whole = leave_one_out(*p.data, fit)
        assert_allclose(leave_one_out(*p.data, fit, block_size=3), whole, rtol=1e-10)

    def test_without_known_noise(self):
        p = Problem(P=5)
        fit = fit_least_squares_with_scatter(p.V, p.Y, 0.0)
        assert_allclose(
            leave_one_out(p.V, p.Y, 0.0, fit),
            leave_one_out(p.V, p.Y, np.zeros_like(p.Y), fit),
            rtol=1e-9,
        )

    def test_consumer_keeps_its_own_error_state(self):
        p = Problem()
        fit = fit_least_squares_with_scatter(*p.data)
        before = np.geterr()
        for _ in leave_one_out_blocks(*p.data, fit, block_size=4):
            assert np.geterr() == before

    def test_blocks_cover_every_pixel_once(self):
        p = Problem(P=10)
        fit = fit_least_squares_with_scatter(*p.data)
        seen = [b.columns for b in leave_one_out_blocks(*p.data, fit, block_size=4)]
        assert seen == [slice(0, 4), slice(4, 8), slice(8, 10)]


class TestInput:
    @pytest.mark.parametrize("variance", ["full", 0.0])
    def test_never_modified(self, variance):
        p = Problem(bad=0.1)
        p.Y[0, 0] = np.nan
        terms = np.ones((6, 9), bool)
        terms[3, 2] = False
        given_arrays = [p.V, p.Y, p.variance, terms, p.dV]
        copies = [a.copy() for a in given_arrays]
        for a in given_arrays:
            a.setflags(write=False)
        v = p.variance if variance == "full" else variance
        fit = fit_least_squares_with_scatter(p.V, p.Y, v, terms=terms)
        leave_one_out(p.V, p.Y, v, fit, dV=p.dV)
        for a, b in zip(given_arrays, copies):
            assert_array_equal(a, b)

    def test_order_and_precision_of_input(self):
        p = Problem(bad=0.05)
        a = fit_least_squares_with_scatter(*p.data)
        b = fit_least_squares_with_scatter(p.V, np.asfortranarray(p.Y), p.variance.T.copy().T)
        assert_allclose(a.theta, b.theta, rtol=1e-12)
        c = fit_least_squares_with_scatter(p.V, p.Y.astype("f4"), p.variance.astype("f4"))
        assert c.theta.dtype == float
        assert_allclose(a.theta, c.theta, atol=1e-5)

    def test_block_size_changes_nothing(self):
        p = Problem(bad=0.05, P=30)
        a = fit_least_squares_with_scatter(*p.data, block_size=1)
        b = fit_least_squares_with_scatter(*p.data, block_size=30)
        assert_allclose(a.theta, b.theta, rtol=1e-9)
        assert_allclose(a.scatter, b.scatter, rtol=1e-7)

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"V": np.full((60, 6), 2.0)}, "first column"),
            ({"V": np.ones((59, 6))}, "are needed"),
            ({"variance": np.full((60, 9), -1.0)}, "negative"),
            ({"variance": -1.0}, "negative"),
            ({"variance": np.ones((60, 8))}, "match"),
            ({"scatter": "casey"}, "scatter must be"),
            ({"terms": np.zeros((6, 9), bool)}, "constant term"),
        ],
    )
    def test_refused(self, change, message):
        p = Problem()
        arguments = {"V": p.V, "Y": p.Y, "variance": p.variance} | change
        with pytest.raises(ValueError, match=message):
            fit_least_squares_with_scatter(**arguments)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 30),
    K=st.integers(1, 3),
    bad=st.floats(0, 0.9),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-12, 1.0, 1e9]),
    scatter=st.sampled_from(["ml", "reml"]),
)
@example(n=7, K=2, bad=0.0, seed=0, scale=1e-12, scatter="reml")
@example(n=7, K=2, bad=0.0, seed=1, scale=1.0, scatter="reml")
def test_always_finite_and_stationary(n, K, bad, seed, scale, scatter):
    p = Problem(n=n, K=K, P=5, bad=bad, seed=seed)
    V, Y, variance = p.V, p.Y * scale, p.variance * scale**2
    fit = fit_least_squares_with_scatter(V, Y, variance, scatter=scatter)
    assert fit.converged.all()
    assert np.isfinite(fit.theta).all()
    assert_array_equal(np.isinf(fit.scatter), ~fit.trained)
    left, jacobian = leave_one_out(V, Y, variance, fit, dV=p.dV)
    assert np.isfinite(left).all() and np.isfinite(jacobian).all()
    if scatter == "ml":
        for j in np.flatnonzero(fit.trained & (p.variance < np.inf).sum(0) > len(V[0])):
            u = fit.scatter[j] ** 2
            near = [deviance(V, Y[:, j], variance[:, j], u * f) for f in (0.97, 1, 1.03)]
            assert near[1] <= min(near) + 1e-6


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shift=st.floats(-5, 5), factor=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_equivariance(shift, factor, seed):
    p = Problem(n=30, P=4, bad=0.1, seed=seed)
    a = fit_least_squares_with_scatter(*p.data, tol=1e-14)
    b = fit_least_squares_with_scatter(p.V, factor * p.Y + shift, factor**2 * p.variance, tol=1e-14)
    expected = factor * a.theta
    expected[0] += shift
    assert_allclose(b.theta, expected, rtol=1e-5, atol=1e-7)
    assert_allclose(b.scatter, factor * a.scatter, rtol=1e-4, atol=1e-6)
