import numpy as np
from numpy.testing import assert_allclose

from skspec.solvers.linear.slopes import pixel_slopes


def stars(n=60, n_pixels=15, seed=0):
    rng = np.random.default_rng(seed)
    u, slopes = rng.normal(size=(n, 3)), rng.normal(size=(3, n_pixels))
    good = rng.random((n, n_pixels)) > 0.3
    flux = np.where(good, 1 + u @ slopes + 0.1 * rng.normal(size=good.shape), np.nan)
    return u, flux, good


def test_equals_least_squares_of_every_pixel():
    u, flux, good = stars()
    found = pixel_slopes([(u, flux, good)])
    for j, use in enumerate(good.T):
        design = np.column_stack([np.ones(use.sum()), u[use]])
        wanted = np.linalg.lstsq(design, flux[use, j], rcond=None)[0][1:]
        assert_allclose(found[:, j], wanted, rtol=1e-6)


def test_parts_change_nothing():
    u, flux, good = stars()
    parts = [(u[k : k + 13], flux[k : k + 13], good[k : k + 13]) for k in range(0, 60, 13)]
    assert_allclose(pixel_slopes(parts), pixel_slopes([(u, flux, good)]), rtol=1e-9)


def test_too_few_stars():
    u, flux, good = stars()
    good[:, 3], good[4:, 5] = False, False
    found = pixel_slopes([(u, flux, good)])
    assert np.isnan(found[:, [3, 5]]).all()
    assert np.isfinite(np.delete(found, [3, 5], axis=1)).all()
