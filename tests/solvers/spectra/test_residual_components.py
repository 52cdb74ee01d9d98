"""Components of residuals: what pixels share, and nothing where they share nothing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec.solvers.spectra.residual_components import ResidualPCA


def draw(n, n_pixels, shared, own, photon, rng):
    """Residuals of three shared patterns of standard deviation `shared`."""
    patterns = np.sin(np.outer([2, 5, 9], np.linspace(0, np.pi, n_pixels))) * np.sqrt(2)
    residual = shared * rng.normal(size=(n, 3)) @ patterns
    residual += own * rng.normal(size=(n, n_pixels))
    return residual + np.sqrt(photon) * rng.normal(size=(n, n_pixels)), patterns


@pytest.mark.parametrize("n_pixels", [60, 900])
def test_components_and_the_rest_are_the_covariance(n_pixels):
    rng = np.random.default_rng(0)
    photon = np.full((400, n_pixels), 0.25)
    residual, patterns = draw(400, n_pixels, 1.0, 0.1, photon, rng)
    spectra, rest = ResidualPCA(residual, photon).components()
    expected = patterns.T @ patterns + 0.01 * np.eye(n_pixels)
    found = spectra.T @ spectra + np.diag(rest)
    assert np.linalg.norm(found - expected) < 0.25 * np.linalg.norm(expected)
    assert np.sum(rest) < 0.1 * np.trace(found)


def test_noise_alone_shares_nothing():
    rng = np.random.default_rng(1)
    photon = np.full((300, 500), 4.0)
    residual, _ = draw(300, 500, 0.0, 0.0, photon, rng)
    spectra, _ = ResidualPCA(residual, photon).components()
    assert np.sum(spectra**2) < 0.02 * photon[0].sum()


def test_strength_moves_variance_from_the_components_to_the_rest():
    rng = np.random.default_rng(2)
    photon = np.zeros((200, 80))
    residual, _ = draw(200, 80, 1.0, 0.5, photon, rng)
    pca = ResidualPCA(residual, photon)
    for strength in (0.2, 0.8):
        spectra, rest = pca.components(strength=strength)
        assert_allclose(np.sum(spectra**2, axis=0) + rest, np.mean(residual**2, axis=0), rtol=1e-6)
    weak, strong = (np.sum(pca.components(strength=s).spectra ** 2) for s in (0.2, 0.8))
    assert_allclose(strong, 4 * weak, rtol=1e-9)


def test_stars_not_seen_have_no_part():
    rng = np.random.default_rng(3)
    photon = np.zeros((100, 50))
    residual, patterns = draw(100, 50, 0.0, 1.0, photon, rng)
    residual[:20] += 10 * rng.normal(size=(20, 1)) * patterns[0]
    pca, seen = ResidualPCA(residual, photon), np.arange(100) >= 20
    along = patterns[0] / np.linalg.norm(patterns[0])
    variance = [np.sum((pca.components(rows).spectra @ along) ** 2) for rows in (None, seen)]
    assert variance[0] > 20 * variance[1]


def test_bad_pixels_noisy_stars_and_dead_pixels():
    rng = np.random.default_rng(4)
    photon = np.full((300, 70), 0.01)
    photon[250:] = 100.0  # these say nothing
    photon[:, 5] = np.inf
    photon[rng.random(photon.shape) < 0.1] = np.inf
    residual, patterns = draw(300, 70, 1.0, 0.5, np.where(np.isfinite(photon), photon, 0), rng)
    residual[~np.isfinite(photon)] = 0.0
    spectra, rest = ResidualPCA(residual, photon).components()
    assert_allclose(spectra[:, 5], 0.0, atol=1e-12)
    assert np.isfinite(rest).all() and np.all(rest >= 0)
    found = np.delete(np.sum(spectra**2, axis=0) + rest, 5)
    expected = np.delete(np.sum(patterns**2, axis=0) + 0.25, 5)
    assert np.linalg.norm(found - expected) < 0.25 * np.linalg.norm(expected)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_stars_and_perfect_models(n):
    pca = ResidualPCA(np.zeros((n, 6)), np.full((n, 6), 0.1))
    spectra, rest = pca.components(strength=0.5)
    assert spectra.shape[1] == 6
    assert_allclose(spectra, 0.0)
    assert_allclose(rest, 0.0)


def test_a_random_choice_of_many_stars(monkeypatch):
    monkeypatch.setattr("skspec.solvers.spectra.residual_components.MAX_STARS", 100)
    rng = np.random.default_rng(5)
    photon = np.zeros((400, 40))
    residual, patterns = draw(400, 40, 1.0, 0.1, photon, rng)
    seen = np.arange(400) < 200
    spectra, _ = ResidualPCA(residual, photon).components(seen)
    assert_allclose(np.sum(spectra**2), np.sum(patterns**2), rtol=0.3)
