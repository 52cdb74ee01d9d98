import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.linear.errors_in_variables import fit_errors_in_variables, monomials

A = np.array([[1.1, -0.2], [0.1, 0.9]])
C = np.array([0.3, -0.2])


def stars(n=300, error_x=(0.4, 0.2), error_y=0.1, scatter=0.2, seed=0):
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, 2)) * [1.0, 1.3]
    x = t + error_x * rng.normal(size=t.shape)
    y = C + t @ A.T + np.hypot(error_y, scatter) * rng.normal(size=t.shape)
    cov_x, cov_y = np.diag(np.square(error_x)), error_y**2 * np.eye(2)
    return x, y, np.tile(cov_x, (n, 1, 1)), np.tile(cov_y, (n, 1, 1))


def test_without_errors_it_is_least_squares():
    x, y, cov_x, cov_y = stars()
    found = fit_errors_in_variables(x, y, 0 * cov_x, 0 * cov_y, clip=None, prior=1e6)
    phi = np.column_stack([np.ones(len(x)), x])
    coef, *_ = np.linalg.lstsq(phi, y, rcond=None)
    assert_allclose(found.coef, coef.T, rtol=1e-6)
    residual = y - phi @ coef
    V = residual.T @ residual / (len(x) - 3)  # restricted likelihood: degrees of freedom count
    assert_allclose(found.scatter_cov, V, rtol=1e-3)
    expected = np.einsum("kl,qr->kqlr", V, np.linalg.inv(phi.T @ phi))
    assert_allclose(found.coef_cov, expected, atol=1e-3 * expected.max())


def test_errors_are_those_of_the_scatter_over_samples():
    """Coefficients recovered without attenuation, pulls of unit variance, errors in x dominating."""
    pulls, scatter = [], []
    for seed in range(100, 124):
        found = fit_errors_in_variables(*stars(150, seed=seed))
        std = np.sqrt(np.einsum("kqkq->kq", found.coef_cov))
        pulls.append((found.coef - np.column_stack([C, A])) / std)
        scatter.append(np.diag(found.scatter_cov))
    pulls = np.array(pulls)
    assert np.all(np.abs(pulls.mean(axis=0)) < 4 / np.sqrt(24))
    assert 0.8 < pulls.std() < 1.2
    assert_allclose(np.mean(scatter, axis=0), 0.2**2, rtol=0.3)


def test_ignored_errors_attenuate():
    x, y, cov_x, cov_y = stars(3000, error_x=(1.0, 0.0))
    blind = fit_errors_in_variables(x, y, 0 * cov_x, cov_y)
    aware = fit_errors_in_variables(x, y, cov_x, cov_y)
    assert_allclose(blind.coef[0, 1], A[0, 0] / 2, atol=0.06)
    assert_allclose(aware.coef[0, 1], A[0, 0], atol=0.1)


def test_correlated_errors_of_x():
    rng = np.random.default_rng(1)
    n, cov = 4000, np.array([[0.5, 0.4], [0.4, 0.5]])
    t = rng.normal(size=(n, 2))
    x = t + rng.multivariate_normal([0, 0], cov, n)
    y = C + t @ A.T + 0.1 * rng.normal(size=t.shape)
    found = fit_errors_in_variables(x, y, np.tile(cov, (n, 1, 1)), np.zeros((n, 2, 2)))
    assert_allclose(found.coef[:, 1:], A, atol=0.08)


def test_quadratic_terms_with_errors():
    rng = np.random.default_rng(0)
    n = 3000
    t = rng.normal(size=(n, 1))
    x = t + 0.3 * rng.normal(size=t.shape)
    y = 0.5 + t + 0.4 * t**2 + 0.1 * rng.normal(size=t.shape)
    error = np.full((n, 1, 1), 0.09)
    found = fit_errors_in_variables(x, y, error, 0 * error, degree=2, clip=None)
    assert_allclose(found.coef, [[0.5, 1.0, 0.4]], atol=0.03)


def test_many_outliers_do_not_deceive():
    x, y, cov_x, cov_y = stars(error_x=(0.1, 0.1))
    rng = np.random.default_rng(5)
    bad = rng.choice(len(x), 60, replace=False)
    y[bad] += np.array([4.0, -6.0]) + rng.normal(size=(60, 2))  # all to the same side
    found = fit_errors_in_variables(x, y, cov_x, cov_y)
    assert set(bad) <= set(np.flatnonzero(~found.kept)) and (~found.kept).sum() <= 62
    clean = fit_errors_in_variables(*(v[found.kept] for v in (x, y, cov_x, cov_y)), clip=None)
    assert_allclose(found.coef, clean.coef, atol=1e-3)
    assert fit_errors_in_variables(x, y, cov_x, cov_y, clip=None).kept.all()


def test_coefficients_that_are_not_free_stay_zero():
    x, y, cov_x, cov_y = stars()
    free = np.array([[True, True, False], [True, False, True]])
    found = fit_errors_in_variables(x, y, cov_x, cov_y, free=free, known=np.eye(2))
    assert_array_equal(found.coef != 0, free)
    std = np.sqrt(np.einsum("kqkq->kq", found.coef_cov))
    assert_array_equal(std > 0, free)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_derivative_of_the_monomials(degree):
    t = np.random.default_rng(0).normal(size=(5, 3))
    phi, slope = monomials(t, degree)
    assert phi.shape[1] == (1, 4, 10)[degree]
    for d in range(3):
        step = 1e-6 * np.eye(3)[d]
        up, down = monomials(t + step, degree)[0], monomials(t - step, degree)[0]
        assert_allclose((up - down) / 2e-6, slope[:, :, d], atol=1e-8)


def test_a_perfect_relation_and_a_constant_column():
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[:, 1] = 0.5
    zero = np.zeros((30, 2, 2))
    found = fit_errors_in_variables(x, 2 * x, zero, zero)
    assert_allclose(found.coef[0, 1], 2.0, rtol=1e-6)
    assert np.isfinite(found.coef_cov).all() and found.kept.all()
    some = fit_errors_in_variables(x, 2 * x, zero + 0.01 * np.eye(2), zero)
    assert np.isfinite(some.coef).all()
