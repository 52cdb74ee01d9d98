import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

from skspec.solvers.kernels.gaussian_process import (
    kernel_basis,
    leave_one_out,
    negative_log_evidence,
    noise_to_signal,
    orthonormal,
    pivoted_cholesky,
    ridge_in_basis,
    search_length_scales,
    squared_exponential,
)

RNG = np.random.default_rng(0)
N, K = 40, 3
X = RNG.normal(size=(N, K))
RHO = RNG.uniform(0.5, 2, N)
MEANS = {
    0: np.ones((N, 1)),
    1: np.column_stack([np.ones(N), X]),
    2: np.column_stack([np.ones(N), X, X**2, X[:, 0] * X[:, 1]]),
}


def smooth_targets(n_targets, seed=1):
    rng = np.random.default_rng(seed)
    return np.sin(X @ rng.normal(size=(K, n_targets))) + 0.1 * rng.normal(size=(N, n_targets))


def dense(kernel, H, noise, y):
    """Coefficients (alpha, beta) of one target from the full system, stars of finite noise only."""
    good, p = np.isfinite(noise), H.shape[1]
    C = kernel[np.ix_(good, good)] + np.diag(noise[good])
    system = np.block([[C, H[good]], [H[good].T, np.zeros((p, p))]])
    solution = np.linalg.solve(system, np.append(y[good], np.zeros(p)))
    alpha = np.zeros(len(y))
    alpha[good] = solution[: good.sum()]
    return alpha, solution[good.sum() :]


def basis_of(degree, length=2.0, noise=RHO, **options):
    basis = kernel_basis(X / length, MEANS[degree], noise, **{"tol": 1e-11, **options})
    raw = np.hstack([MEANS[degree], squared_exponential(X / length, basis.centres)])
    return basis, raw @ basis.transform


# -- hyperparameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", MEANS)
def test_evidence_is_the_density_of_the_contrasts(degree):
    """Restricted likelihood: that of all combinations of the targets that know no mean."""
    Y, H = smooth_targets(7), MEANS[degree]
    contrasts = np.linalg.svd(H)[0][:, H.shape[1] :]
    values = []
    for theta in ([0.3, 0.8, 0.1, -3.0], [1.0, -0.3, 2.0, -1.0]):
        u = X / np.exp(theta[:3])
        C = contrasts.T @ (squared_exponential(u, u) + np.exp(theta[3]) * np.diag(RHO)) @ contrasts
        quadratic = np.sum((contrasts.T @ Y) * np.linalg.solve(C, contrasts.T @ Y))
        direct = 0.5 * np.log(quadratic) + 0.5 * np.linalg.slogdet(C)[1] / len(C)
        value, _ = negative_log_evidence(np.array(theta), X, Y @ Y.T, H, RHO)
        values.append(value - direct)
    assert values[0] == pytest.approx(values[1], abs=1e-9)  # equal but for a constant


@pytest.mark.parametrize("degree", MEANS)
def test_gradient_of_the_evidence_is_the_finite_difference(degree):
    Y = smooth_targets(7)
    theta = np.array([0.3, 0.8, 0.1, -3.0])
    args = X, Y @ Y.T, MEANS[degree], RHO
    _, gradient = negative_log_evidence(theta, *args)
    for k in range(4):
        step = 1e-5 * (np.arange(4) == k)
        up, down = (negative_log_evidence(theta + s * step, *args)[0] for s in (1, -1))
        assert gradient[k] == pytest.approx((up - down) / 2e-5, rel=1e-5)


def test_search_finds_the_length_scales_of_a_process():
    rng = np.random.default_rng(3)
    x, length, nu = rng.uniform(-1.7, 1.7, (120, 2)), np.array([0.8, 2.5]), 0.01
    C = squared_exponential(x / length, x / length) + nu * np.eye(120)
    Y = 5 + np.linalg.cholesky(C) @ rng.normal(size=(120, 400))
    found = search_length_scales(x, Y @ Y.T / 400, np.ones((120, 1)), np.ones(120))
    assert_allclose(found.length, length, rtol=0.05)
    assert found.nu == pytest.approx(nu, rel=0.1)


def test_noise_to_signal_is_the_minimum():
    rng = np.random.default_rng(4)
    square = np.geomspace(50, 1e-6, 20)
    true = np.array([1e-4, 1e-2, 1.0])
    Z2 = (square[:, None] + true) * rng.normal(size=(20, 3)) ** 2
    rest = true * rng.chisquare(30, 3)
    nu, amplitude2 = noise_to_signal(square, Z2, rest, 30, 0.1, width=1.5)
    for j in range(3):

        def cost(t, j=j):
            total = np.append(square + np.exp(t), np.full(30, np.exp(t)))
            quadratic = np.sum(Z2[:, j] / total[:20]) + rest[j] / np.exp(t)
            return 50 * np.log(quadratic) + np.log(total).sum() + (t - np.log(0.1)) ** 2 / 1.5**2

        best = minimize_scalar(cost, bounds=(-12, 5), method="bounded", options={"xatol": 1e-9})
        assert np.log(nu[j]) == pytest.approx(best.x, abs=1e-4)
        expected = (np.sum(Z2[:, j] / (square + nu[j])) + rest[j] / nu[j]) / 50
        assert amplitude2[j] == pytest.approx(expected)
    assert np.all(np.diff(nu) > 0)  # the order of the true ones


# -- the basis -------------------------------------------------------------------------------------


def test_pivoted_cholesky():
    u = X / 6.0
    kernel = squared_exponential(u, u)
    pivots, factor = pivoted_cholesky(u, 1e-6, 1000)
    assert len(pivots) < N
    left = np.diag(kernel - factor @ factor.T)
    assert 0 <= left.sum() < 1e-6
    assert_allclose(factor @ factor.T, kernel, atol=1e-6)
    assert_allclose(factor[pivots], np.tril(factor[pivots]), atol=0)
    assert pivoted_cholesky(u, 0.0, 5)[1].shape == (N, 5)


@pytest.mark.parametrize("degree", MEANS)
def test_basis_is_orthogonal_and_holds_the_kernel(degree):
    basis, raw = basis_of(degree)
    Phi = raw / np.sqrt(RHO)[:, None]
    assert_allclose(Phi.T @ Phi, np.diag(basis.square), atol=1e-6)
    H = MEANS[degree]
    contrasts = np.linalg.svd(H)[0][:, H.shape[1] :]
    part = contrasts.T @ raw[:, basis.n_mean :]
    kernel = contrasts.T @ squared_exponential(X / 2.0, X / 2.0) @ contrasts
    assert_allclose(part @ part.T, kernel, atol=1e-9)


def test_constant_columns_of_the_mean_count_once():
    H = np.column_stack([np.ones(N), X, np.zeros(N), np.ones(N)])
    Q, R = orthonormal(H)
    assert Q.shape == (N, 4)
    assert_allclose(H @ R, Q, atol=1e-12)
    assert_allclose(Q.T @ Q, np.eye(4), atol=1e-12)


# -- pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["equal", "stars", "varied", "bad"])
@pytest.mark.parametrize("degree", MEANS)
def test_ridge_is_the_dense_solution_of_every_target(degree, noise):
    rng = np.random.default_rng(5)
    Y, ratio = smooth_targets(6), np.full((N, 6), 0.02) * RHO[:, None]
    if noise == "equal":
        rho, ratio = np.ones(N), np.full((N, 6), 0.02)
    else:
        rho = RHO
    if noise in ("varied", "bad"):
        ratio *= rng.uniform(0.3, 5, ratio.shape)
    if noise == "bad":
        hit = rng.random(ratio.shape) < 0.2
        ratio[hit], Y[hit] = np.inf, 1e4
    basis, raw = basis_of(degree, noise=rho)
    level = 1 / np.sqrt(rho)[:, None]
    weight = rho[:, None] / ratio
    coef = ridge_in_basis(level * raw, basis, level * Y, weight)
    kernel = squared_exponential(X / 2.0, X / 2.0)
    for j in range(6):
        alpha, beta = dense(kernel, MEANS[degree], ratio[:, j], Y[:, j])
        expected = MEANS[degree] @ beta + kernel @ alpha
        error = (raw @ coef[:, j] - expected) / np.sqrt(ratio[:, j])
        assert np.linalg.norm(error) < 3e-4  # the tolerance, in units of the noise


@pytest.mark.parametrize("degree", MEANS)
@pytest.mark.parametrize("varied", [False, True])
def test_leave_one_out_is_a_refit_without_the_star(degree, varied):
    """Exact for noise of star times pixel; within a few per cent of the noise otherwise."""
    rng, length = np.random.default_rng(6), 2.0
    Y, ratio = smooth_targets(3), 0.02 * RHO[:, None] * np.array([1.0, 0.3, 4.0])
    if varied:
        ratio = ratio * rng.uniform(0.5, 2, ratio.shape)
        ratio[7, 1] = np.inf
    basis, raw = basis_of(degree)
    step, slope = 1e-5, np.empty((N, K, raw.shape[1]))
    for k in range(K):
        ends = []
        for s in (1, -1):
            x = X + s * step * (np.arange(K) == k)
            H = {0: np.ones((N, 1)), 1: np.column_stack([np.ones(N), x])}.get(degree)
            if H is None:
                H = np.column_stack([np.ones(N), x, x**2, x[:, 0] * x[:, 1]])
            kernel = squared_exponential(x / length, basis.centres)
            ends.append((H, np.hstack([H, kernel]) @ basis.transform))
        slope[:, k] = (ends[0][1] - ends[1][1]) / (2 * step)
    level = 1 / np.sqrt(RHO)[:, None]
    weight = RHO[:, None] / ratio
    Phi = level * raw
    coef = ridge_in_basis(Phi, basis, level * Y, weight, tol=1e-9)
    without = leave_one_out(
        Phi, basis, level * (Y - raw @ coef), weight, level[:, None] * slope, coef
    )
    residual, jacobian = without.residual / level, without.jacobian / level[:, None]
    for i in (0, 7, 21):
        for j in range(3):
            others = ratio[:, j].copy()
            others[i] = np.inf
            w = RHO[:, None] / others[:, None]
            held = ridge_in_basis(Phi, basis, level * Y[:, [j]], w, tol=1e-9)[:, 0]
            tol = 0.15 * np.sqrt(0.02) if varied else 1e-5
            assert residual[i, j] == pytest.approx(Y[i, j] - raw[i] @ held, abs=tol)
            assert_allclose(jacobian[i, :, j], slope[i] @ held, atol=2 * tol)
            changed = coef[:, j] - without.change[i, j] * without.spread[:, j] * Phi[i]
            assert_allclose(slope[i] @ changed, slope[i] @ held, atol=2 * tol)
            assert_allclose(raw @ changed, raw @ held, atol=2 * tol)
