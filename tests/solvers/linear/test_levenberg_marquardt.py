import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import least_squares

from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt, solve_normal


class Curves:
    """Residuals ``a exp(-b t) + c - y`` of n curves: the usual exercise."""

    def __init__(self, y, t):
        self.y, self.t, self.calls = y, t, 0

    def residual(self, x, row):
        return x[0] * np.exp(-x[1] * self.t) + x[2] - self.y[row]

    def __call__(self, x, rows):
        self.calls += 1
        a, b, c = (x[..., k, None] for k in range(3))
        decay = np.exp(-b * self.t)
        r = a * decay + c - self.y[rows][:, None]
        J = np.stack([decay, -a * self.t * decay, np.ones_like(decay)], axis=-2)
        return (
            np.sum(r**2, axis=-1),
            np.einsum("mskp,msp->msk", J, r),
            np.einsum("mskp,mslp->mskl", J, J),
        )


@pytest.fixture
def curves():
    rng = np.random.default_rng(0)
    t = np.linspace(0, 4, 30)
    truth = rng.uniform([1, 0.5, -1], [3, 2, 1], (12, 3))
    y = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:]
    return Curves(y + 0.05 * rng.normal(size=y.shape), t)


BOXES = {"wide": ([-50, 0, -50], [50, 30, 50]), "tight": ([1.5, 0.8, -0.5], [2.5, 1.5, 0.5])}


@pytest.mark.parametrize("box", BOXES)
def test_as_scipy_curve_by_curve(curves, box):
    lower, upper = (np.array(side, dtype=float) for side in BOXES[box])
    start = np.array([2.0, 1.0, 0.0])
    found = levenberg_marquardt(curves, np.tile(start, (12, 2, 1)), lower, upper, max_iter=200)
    assert found.converged.all()
    bound = 0
    for i in range(12):
        fit = least_squares(
            curves.residual, start, bounds=(lower, upper), args=(i,), xtol=1e-12, ftol=1e-12
        )
        assert_allclose(found.chi2[i], 2 * fit.cost, rtol=1e-5)
        assert_allclose(found.x[i, 0], fit.x, atol=2e-3)
        assert_array_equal(found.x[i, 0], found.x[i, 1])  # twice the same start
        bound += np.sum((found.x[i, 0] == lower) | (found.x[i, 0] == upper))
        chi2, _, normal = curves(found.x[i : i + 1], np.array([i]))
        assert_allclose(found.chi2[i], chi2[0])
        assert_allclose(found.normal[i], normal[0])
    assert (bound > 3) == (box == "tight")


def test_problems_do_not_know_of_each_other(curves):
    lower, upper = (np.array(side, dtype=float) for side in BOXES["wide"])
    x0 = np.random.default_rng(1).uniform([0.5, 0.3, -1], [4, 3, 1], (12, 3, 3))
    together = levenberg_marquardt(curves, x0, lower, upper)
    alone = levenberg_marquardt(lambda x, rows: curves(x, rows + 7), x0[7:8, 1:2], lower, upper)
    assert_allclose(together.x[7, 1], alone.x[0, 0], rtol=1e-12)
    assert together.n_iter[7, 1] == alone.n_iter[0, 0]


def test_it_never_climbs_and_admits_defeat(curves):
    lower, upper = (np.array(side, dtype=float) for side in BOXES["wide"])
    x0 = np.tile([40.0, 0.01, -40.0], (12, 1, 1))
    last = curves(x0, np.arange(12))[0]
    for steps in (1, 2, 4, 8):
        found = levenberg_marquardt(curves, x0, lower, upper, max_iter=steps)
        assert np.all(found.chi2 <= last)
        assert np.all(found.n_iter <= steps)
        last = found.chi2
        if steps < 3:
            assert not found.converged.any()
    assert_array_equal(x0, np.tile([40.0, 0.01, -40.0], (12, 1, 1)))


def test_those_that_have_converged_cost_nothing_more(curves):
    lower, upper = (np.array(side, dtype=float) for side in BOXES["wide"])
    found = levenberg_marquardt(curves, np.tile([2.0, 1.0, 0.0], (12, 1, 1)), lower, upper)
    curves.calls = 0
    again = levenberg_marquardt(curves, found.x, lower, upper, max_iter=1000)
    assert curves.calls <= 4
    assert again.converged.all()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(0, 9), st.booleans())
def test_solve_normal(n_labels, seed, singular):
    rng = np.random.default_rng(seed)
    unit = 10.0 ** rng.integers(-6, 6, n_labels)
    J = rng.normal(size=(4, 20, n_labels)) * unit
    if singular:
        J[..., 0] = 0
    A, g = np.swapaxes(J, 1, 2) @ J, rng.normal(size=(4, n_labels)) * unit
    if singular:
        g[:, 0] = 0
    damping = np.array([0.0, 1e-3, 1.0, 100.0])
    z = solve_normal(A, g, damping)
    assert np.isfinite(z).all()
    damped = A + damping[:, None, None] * A * np.eye(n_labels)
    left = (damped @ z[..., None])[..., 0]
    assert_allclose(left / unit, g / unit, atol=1e-8)
    if singular:
        assert_array_equal(z[:, 0], 0)


def test_solve_normal_holds_what_is_not_free():
    rng = np.random.default_rng(0)
    J = rng.normal(size=(2, 20, 3))
    A, g = np.swapaxes(J, 1, 2) @ J, rng.normal(size=(2, 3))
    free = np.array([[True, False, True], [True, True, True]])
    z = solve_normal(A, np.where(free, g, 0), 0.0, free)
    assert z[0, 1] == 0
    keep = [0, 2]
    assert_allclose(z[0, keep], np.linalg.solve(A[0][np.ix_(keep, keep)], g[0, keep]), rtol=1e-9)
    assert_allclose(z[1], np.linalg.solve(A[1], g[1]), rtol=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8, 0.9])
def test_without_confirmation_slow_progress_is_not_taken_for_arrival(rate):
    """Residuals x + 1 and rate x^2 + x - 1 (Dennis & Schnabel 1983): steps shrink by `rate`."""

    def evaluate(x, rows):
        residual = np.stack([x + 1, rate * x**2 + x - 1])
        slope = np.stack([np.ones_like(x), 2 * rate * x + 1])
        gradient = np.sum(slope * residual, axis=0)
        return np.sum(residual**2, axis=0)[..., 0], gradient, np.sum(slope**2, axis=0)[..., None]

    start, tol = np.array([[[0.1]], [[0.4]]]), 1e-4
    found = levenberg_marquardt(
        evaluate, start, np.array([-5.0]), np.array([5.0]), tol=tol, max_iter=500, confirm=False
    )
    assert found.converged.all()
    assert np.all(2 * found.x**2 < 2 * tol)  # squared distance in sigma: J^T J = 2 at the minimum
