"""Woodbury: sums over pixels with common errors integrated over equal those of the full covariance."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec.solvers.linear.coherent_errors import CoherentErrors


@pytest.mark.parametrize("alike", [False, True])
def test_equals_the_full_covariance(alike):
    rng = np.random.default_rng(0)
    n, q, K, P = 4, 3, 2, 30
    U, J, r = rng.normal(size=(q, P)), rng.normal(size=(n, K, P)), rng.normal(size=(n, P))
    weight = rng.uniform(0.5, 2, (n, P))
    weight[:, 3] = 0.0  # a bad pixel
    if alike:
        weight = np.tile(weight[:1], (n, 1))
    errors = CoherentErrors(U, weight)
    Jw, good = J * weight[:, None], weight[0] > 0
    found = errors.take_off(
        np.einsum("np,np->n", r * weight, r),
        np.einsum("nkp,np->nk", Jw, r),
        Jw @ np.swapaxes(J, 1, 2),
        (weight * r) @ U.T,
        Jw @ U.T,
    )
    for i in range(n):
        inverse = np.linalg.inv(np.diag(1 / weight[i, good]) + U[:, good].T @ U[:, good])
        j, y = J[i][:, good], r[i, good]
        assert_allclose(found[0][i], y @ inverse @ y)
        assert_allclose(found[1][i], j @ inverse @ y)
        assert_allclose(found[2][i], j @ inverse @ j.T)
        # what is left has only errors of its own
        amplitude = errors.amplitudes((weight * r) @ U.T)[i]
        assert_allclose(weight[i] * (r[i] - amplitude @ U) @ J[i].T, j @ inverse @ y)
        assert_allclose(errors[np.array([i])].amplitudes(((weight * r) @ U.T)[[i]])[0], amplitude)


def test_no_components_change_nothing():
    errors = CoherentErrors(np.zeros((0, 5)), np.ones((2, 5)))
    chi2, score, information = np.ones(2), np.ones((2, 3)), np.ones((2, 3, 3))
    found = errors.take_off(chi2, score, information, np.zeros((2, 0)), np.zeros((2, 3, 0)))
    for before, after in zip((chi2, score, information), found):
        assert_allclose(after, before)
