"""Components of spectra by weighted least squares."""

import numpy as np
from numpy.testing import assert_allclose

from skspec.solvers.linear.component_projection import project


def world(n=40, n_pixels=50, q=3, seed=0):
    rng = np.random.default_rng(seed)
    V = rng.normal(size=(q, n_pixels))
    error = rng.uniform(0.05, 0.5, (n, n_pixels))
    error[rng.random(error.shape) < 0.1] = np.inf
    return rng, V, error, rng.normal(size=(n, q))


def test_agrees_with_least_squares_star_by_star():
    rng, V, error, truth = world()
    y = truth @ V + rng.normal(size=error.shape) * np.where(np.isfinite(error), error, 0.0)
    prior = np.array([1.0, 4.0, 0.25])
    found = project(y, error**2, None, V, prior)
    assert found.noise is None
    for star in range(len(y)):
        W = np.diag(1 / error[star] ** 2)
        gram = V @ W @ V.T
        assert_allclose(found.gram[star], gram, rtol=1e-9)
        expected = np.linalg.solve(gram + np.diag(1 / prior), V @ W @ y[star])
        assert_allclose(found.coef[star], expected, rtol=1e-8)


def test_the_gram_matrix_is_chi2_within_the_subspace():
    _, V, error, truth = world()
    other = truth + 0.3
    gram = project(truth @ V, error**2, None, V, np.ones(3)).gram
    difference = other - truth
    chi2 = np.sum(((difference @ V) / error) ** 2, axis=1)
    assert_allclose(np.einsum("ni,nij,nj->n", difference, gram, difference), chi2, rtol=1e-9)


def test_noise_of_the_components():
    """Errors with a floor weigh less than the photon noise says: the sandwich is needed."""
    rng, V, error, truth = world(n=1)
    error2 = np.maximum(error**2, 0.09)
    variance = np.where(np.isfinite(error), error**2, 0.0)
    draws = truth @ V + np.sqrt(variance) * rng.normal(size=(20000, V.shape[1]))
    wide = np.full(3, 1e3)
    coef = project(draws, np.repeat(error2, 20000, axis=0), None, V, wide).coef
    L = project(truth @ V, error2, variance, V, wide).noise[0]
    white = np.linalg.solve(L, (coef - truth).T)
    assert_allclose(np.cov(white), np.eye(3), atol=0.05)


def test_what_is_bad_does_not_matter():
    rng, V, error, truth = world()
    y = truth @ V
    changed = np.where(np.isfinite(error), y, 1e6)
    one, two = (
        project(z, error**2, np.where(np.isfinite(error), error**2, 0), V, np.ones(3))
        for z in (y, changed)
    )
    for a, b in zip(one, two):
        assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    blind = project(y, np.full(error.shape, np.inf), np.zeros(error.shape), V, np.ones(3))
    assert_allclose(blind.coef, 0)
    assert np.isfinite(blind.noise).all()
