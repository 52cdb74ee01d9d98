import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.linear.gappy_pca import fit_gappy_pca


def draw(n=120, n_pixels=40, noise=0.01):
    rng = np.random.default_rng(0)
    flux = 1 + rng.normal(size=(n, 3)) @ rng.normal(size=(3, n_pixels))
    return flux + noise * rng.normal(size=flux.shape), rng.random(flux.shape) > 0.2


def test_without_holes_these_are_the_principal_components():
    flux, _ = draw()
    model = fit_gappy_pca(flux, np.ones(flux.shape, dtype=bool), 3)
    _, value, V = np.linalg.svd(flux - flux.mean(axis=0), full_matrices=False)
    assert_allclose(np.abs(np.sum(model.components * V[:3], axis=1)), 1, rtol=1e-6)
    assert_allclose(model.variance, value[:3] ** 2 / 120)
    assert_allclose(model.noise, np.sum(value[3:] ** 2) / 120 / 40)


def test_more_pixels_than_stars_or_fewer():
    flux, good = draw(n=60, n_pixels=59)
    model = fit_gappy_pca(flux[:, :59], good, 3)
    assert_allclose(model.components @ model.components.T, np.eye(3), atol=1e-8)
    wide = fit_gappy_pca(np.tile(flux, 2), np.tile(good, 2), 3)
    assert_allclose(wide.variance, 2 * model.variance, rtol=1e-3)


def test_holes_hold_what_the_rest_tells():
    flux, good = draw()
    for garbage in (np.nan, 1e9):
        spoilt = np.where(good, flux, garbage)
        filled = fit_gappy_pca(spoilt, good, 3).fill(spoilt, good)
        assert_array_equal(filled[good], flux[good])
        error = (filled - flux)[~good]
        assert np.std(error) < 0.03  # the flux varies by 1.7, its noise is 0.01
    blind = np.zeros((1, 40), dtype=bool)
    model = fit_gappy_pca(flux, good, 3)
    assert_allclose(model.fill(np.full((1, 40), np.nan), blind)[0], model.mean)


def test_the_conditional_mean_of_a_gaussian():
    flux, good = draw()
    model = fit_gappy_pca(flux, good, 5)
    cov = (model.components.T * model.variance) @ model.components
    g = good[0]
    inner = cov[np.ix_(g, g)] + model.noise * np.eye(g.sum())
    expected = model.mean + cov[:, g] @ np.linalg.solve(inner, (flux[0] - model.mean)[g])
    assert_allclose(model.fill(flux[:1], good[:1])[0, ~g], expected[~g], rtol=1e-6)


def test_equal_spectra_and_dead_pixels():
    flux, good = np.ones((6, 5)), np.ones((6, 5), dtype=bool)
    good[0, 1] = good[:, 4] = False
    filled = fit_gappy_pca(flux, good).fill(flux, good)
    assert_allclose(filled[:, :4], 1)
    assert_allclose(filled[:, 4], 0)
    for n in (30, 90):  # fewer and more stars than pixels
        flux, good = draw(n)
        good[:, 7] = False
        filled = fit_gappy_pca(flux, good).fill(flux, good)
        assert np.ptp(filled[:, 7]) == 0
