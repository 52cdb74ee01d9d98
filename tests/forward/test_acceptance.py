"""systems.md 16.1: a model's own spectra come back at the physical limit, with honest errors."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec import Spectra
from skspec.diagnostics import cramer_rao_bound, efficiency
from skspec.forward import SLAM, TheCannon
from skspec.likelihood import Inversion

MODELS = {
    "TheCannon linear": (TheCannon(1, label_covariance=False), 20_000),
    "TheCannon quadratic": (TheCannon(label_covariance=False), 20_000),
    "SLAM": (SLAM(C=4, gamma=0.15, label_covariance=False), 20_000),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "SLAM" else ()) for n in MODELS]
)
def test_own_spectra_come_back_at_the_limit(name, draw_stars):
    """eta has a statistical error of 2.3 / sqrt(n), 0.016; coverage one of 0.3 %."""
    model, n = MODELS[name]
    spectra, labels = draw_stars(150, n_pixels=100, noise=0.004, scatter=0.002)
    model.fit(spectra, labels)
    rng = np.random.default_rng(0)
    low, high = labels.min().to_numpy(), labels.max().to_numpy()
    truth = low + (high - low) * rng.uniform(0.15, 0.85, (n, 3))
    snr = rng.uniform(150, 400, (n, 1)) * rng.uniform(0.7, 1.3, (n, 100))
    ivar = np.where(rng.random(snr.shape) < 0.02, 0, snr**2)
    sigma2 = 1 / snr**2 + model.scatter_**2
    flux = model.predict_flux(truth) + np.sqrt(sigma2) * rng.normal(size=snr.shape)
    fresh = Spectra(flux, ivar=ivar, wavelength=spectra.wavelength)
    result = model.invert(fresh)
    bound = cramer_rao_bound(model, truth, fresh, noise="total")
    score = efficiency(truth, result.labels, bound, n_bootstrap=0)
    z = (result.labels - truth) / result.formal_dist.std()
    covered = np.mean(np.abs(z) < 1, axis=0)
    print(
        name,
        "eta",
        score.eta.round(3),
        "eta_vec",
        round(score.eta_vec, 3),
        "coverage",
        covered.round(3),
        "chi2r",
        result.reduced_chi2.mean().round(4),
        "converged",
        result.converged.mean(),
    )
    assert np.all((score.eta > 0.9) & (score.eta < 1.05))
    assert 0.9 < score.eta_vec < 1.05
    assert np.all((covered > 0.66) & (covered < 0.70))
    assert result.reduced_chi2.mean() == pytest.approx(1, abs=0.02)
    assert_allclose(z.mean(axis=0), 0, atol=0.05)
    assert_allclose(z.std(axis=0), 1, atol=0.04)
    assert np.mean(np.abs(z) < 2) == pytest.approx(0.9545, abs=0.01)
    assert result.converged.mean() > 0.99
    assert_allclose(np.median(result.formal_dist.std() / bound.std(), axis=0), 1, atol=0.03)


@pytest.mark.parametrize("loss", ["soft_l1", "huber"])
def test_robust_losses_are_honest_where_there_is_nothing_to_guard_against(loss, draw_stars):
    spectra, labels = draw_stars(150, n_pixels=100, noise=0.004, scatter=0.002)
    model = TheCannon(label_covariance=False, inversion=Inversion(loss)).fit(spectra, labels)
    rng = np.random.default_rng(0)
    low, high = labels.min().to_numpy(), labels.max().to_numpy()
    truth = low + (high - low) * rng.uniform(0.15, 0.85, (2000, 3))
    sigma = np.sqrt(0.005**2 + model.scatter_**2)
    flux = model.predict_flux(truth) + sigma * rng.normal(size=(2000, 100))
    result = model.invert(Spectra(flux, flux_err=0.005))
    z = (result.labels - truth) / result.formal_dist.std()
    # rather too wide than too narrow: the weights count every pixel for less
    assert np.all((np.mean(np.abs(z) < 1, axis=0) > 0.66) & (z.std(axis=0) > 0.85))
    assert result.reduced_chi2.mean() == pytest.approx(1, abs=0.05)
    assert result.converged.mean() > 0.99


# -- spectra of the emulator: coverage without calibration data ------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500, 1000])
@pytest.mark.parametrize("model", [TheCannon(), SLAM()], ids=["TheCannon", "SLAM"])
def test_coverage_of_fresh_dwarfs(model, n, draw_dwarfs):
    pixels = slice(None, None, 4)
    model.fit(*draw_dwarfs(n, pixels=pixels, seed=0))
    spectra, labels = draw_dwarfs(200, pixels=pixels, inner=0.9, seed=1)
    result = model.invert(spectra)
    error = np.abs(result.labels - labels.to_numpy())
    total = np.mean(error < result.dist.std(), axis=0)
    formal = np.mean(error < result.formal_dist.std(), axis=0)
    print(
        type(model).__name__,
        n,
        "total",
        total.round(3),
        "formal",
        formal.round(3),
        "rmse",
        np.sqrt(np.mean(error**2, axis=0)).round(4),
        "converged",
        result.converged.mean(),
    )
    assert 0.60 < total.mean() < 0.76
    assert np.all((total > 0.55) & (total < 0.82))
    # a quarter of the pixels: photons weigh more against the model error than with all of them
    assert formal.mean() < (0.45 if n < 1000 else 0.65)
    assert formal.mean() < total.mean() - 0.15
    assert result.converged.mean() > 0.97
