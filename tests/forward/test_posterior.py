import sys

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge

from skspec.forward import SLAM, TheCannon, sample_posterior

emcee = pytest.importorskip("emcee")


@pytest.fixture(scope="module")
def train(draw_stars):
    return draw_stars(100, n_labels=2, degree=1)


@pytest.fixture(scope="module")
def test(draw_stars):
    return draw_stars(3, n_labels=2, degree=1, seed=5)[0]


@pytest.fixture(scope="module")
def linear(train):
    return TheCannon(1).fit(*train)


@pytest.fixture(scope="module")
def found(linear, test):
    return sample_posterior(linear, test, label_covariance=False, n_steps=1200, random_state=0)


def test_linear_model_is_gaussian(linear, test, found):
    """Then the posterior is the Gaussian of the inversion, but for the counting error."""
    result = linear.invert(test)
    sigma = result.formal_dist.std()
    assert found.samples.shape == (3, 32 * 1200, 2)
    assert found.converged.all() and (found.n_effective > 1000).all()
    assert_allclose((found.mean() - result.labels) / sigma, 0, atol=0.1)
    unit = sigma[:, :, None] * sigma[:, None, :]
    assert_allclose(found.cov() / unit, result.formal_cov / unit, atol=0.12)
    lower, upper = found.interval(0.6827)
    assert_allclose((upper - lower) / (2 * sigma), 1, atol=0.08)
    assert_allclose(found.dist.std(), np.sqrt(np.diagonal(found.cov(), axis1=1, axis2=2)))
    assert ((found.acceptance > 0.15) & (found.acceptance < 0.6)).all()


def test_total_error_contains_that_of_the_model(linear, test):
    total = sample_posterior(linear, test, n_steps=800, random_state=1).dist
    expected = linear.invert(test).dist
    assert_allclose(total.std() / expected.std(), 1, atol=0.12)


def test_curved_model_has_the_density_of_chi2(draw_stars):
    """One label, little light: the samples follow exp(-chi2 / 2) on a grid."""
    spectra, labels = draw_stars(80, n_labels=1, degree=2, n_pixels=16)
    model = TheCannon().fit(spectra, labels)
    one = spectra[:1].replace(ivar=spectra.ivar[:1] / 400)
    found = sample_posterior(model, one, label_covariance=False, n_steps=1200, random_state=0)
    low, high = (
        model.label_pivot_ + end * model.label_scale_
        for end in (model._likelihood.training.lower, model._likelihood.training.upper)
    )
    grid = np.linspace(low[0], high[0], 2001)
    chi2 = np.sum(
        (one.flux - model.predict_flux(grid[:, None])) ** 2 / model.noise(one).variance(), axis=1
    )
    density = np.exp(-0.5 * (chi2 - chi2.min()))
    share = np.cumsum(density) / density.sum()
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    expected = np.interp(levels, share, grid)
    spread = expected[3] - expected[1]
    assert spread > 0.1 * (high - low)[0]  # so wide that the box cuts it off
    assert_allclose(np.quantile(found.samples[0, :, 0], levels), expected, atol=0.08 * spread)
    assert found.samples.min() >= low[0] - 1e-9 and found.samples.max() <= high[0] + 1e-9


def test_kernel_model(train, test):
    model = SLAM(C=2, gamma=0.25, epsilon=0.05, cv=3).fit(*train)
    found = sample_posterior(
        model, test, n_steps=150, n_burn=50, label_covariance=False, random_state=0
    )
    result = model.invert(test)
    assert_allclose((found.mean() - result.labels) / result.formal_dist.std(), 0, atol=0.5)


def test_seed_decides_and_workers_do_not(linear, test):
    options = {"n_steps": 20, "n_burn": 5, "random_state": 3}
    one = sample_posterior(linear, test, **options)
    with parallel_config("threading"):
        two = sample_posterior(linear, test, linear.invert(test), n_jobs=2, **options)
    assert_array_equal(one.samples, two.samples)
    other = sample_posterior(linear, test, **options | {"random_state": 4})
    assert not np.array_equal(one.samples, other.samples)
    assert len(one) == 3 and not one.converged.any()


def test_star_without_pixels(linear, test):
    mask = np.zeros(test.shape, dtype=bool)
    mask[1] = True
    found = sample_posterior(linear, test.replace(mask=mask), n_steps=20, random_state=0)
    assert np.isnan(found.samples[1]).all() and np.isnan(found.acceptance[1])
    assert np.isfinite(found.samples[[0, 2]]).all() and not found.converged[1]


def test_bad_questions(linear, test, train, monkeypatch):
    with pytest.raises(TypeError, match="Ridge is no forward model"):
        sample_posterior(Ridge(), test)
    with pytest.raises(
        ValueError, match="even, 6 or more, and at least twice the 2 parameters, got 4"
    ):
        sample_posterior(linear, test, n_walkers=4)
    with pytest.raises(ValueError, match="n_steps must be 1 or more"):
        sample_posterior(linear, test, n_steps=0)
    with pytest.raises(ValueError, match="result is of 1 stars, X of 3"):
        sample_posterior(linear, test, linear.invert(test[:1]))
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(ImportError, match=r'pip install "skspec\[mcmc\]"'):
        sample_posterior(linear, test)
