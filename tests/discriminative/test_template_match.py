import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.discriminative import TemplateMatch
from skspec.metrics import coverage
from skspec.solvers.spectra.line_of_sight import C_KMS, ln_shift


def lines(wavelength, labels, rv=0.0):
    """Sixty lines whose depths and widths follow two labels in -1..1."""
    rng = np.random.default_rng(3)
    u = np.log(wavelength) - ln_shift(rv)
    centre = rng.uniform(np.log(4990), np.log(5160), 60)
    depth = 0.15 * np.exp(labels @ rng.normal(size=(2, 60)) * 0.5)
    width = 25.0 * (1 + 0.2 * labels[1])
    return 1 - np.exp(-0.5 * ((u[:, None] - centre) * C_KMS / width) ** 2) @ depth


def draw_lines(n, *, rv=None, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    wavelength = 5000.0 * np.exp(np.arange(1000) * 3e-5)
    labels = rng.uniform(-1, 1, (n, 2))
    rv = np.zeros(n) if rv is None else rng.uniform(*rv, n)
    flux = np.array([lines(wavelength, x, v) for x, v in zip(labels, rv)])
    flux += noise * rng.normal(size=flux.shape)
    spectra = Spectra(flux, flux_err=noise, wavelength=wavelength)
    return spectra, pd.DataFrame(labels, columns=["a", "b"]), rv


@pytest.fixture(scope="module")
def stars(draw_stars):
    return draw_stars(300), draw_stars(200, seed=1)


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("weight", ["exp", "1/chi2"])
def test_error_bars_are_right_and_interpolation_helps(stars, weight, interpolate):
    train, (spectra, labels) = stars
    model = TemplateMatch(weight=weight, interpolate=interpolate).fit(*train)
    result = model.match(spectra)
    truth = labels.to_numpy()
    assert_allclose(coverage(truth, result.dist, 1), 0.6827, atol=0.1)
    mae = np.abs(result.labels - truth).mean(axis=0) / [800, 0.7, 0.5]
    assert np.all(mae < (0.06 if interpolate else 0.25))


def test_plain_mean_by_hand(stars):
    (spectra, labels), (others, _) = stars
    plain = Spectra(spectra.flux)
    result = (
        TemplateMatch(4, weight="1/chi2", interpolate=False)
        .fit(plain, labels)
        .match(others.flux[:5])
    )
    for i in range(5):
        chi2 = np.sum((others.flux[i] - spectra.flux) ** 2, axis=1)
        best = np.argsort(chi2)[:4]
        assert_array_equal(result.templates[i], best)
        weights = 1 / chi2[best] / np.sum(1 / chi2[best])
        assert_allclose(result.weights[i], weights)
        values = labels.to_numpy()[best]
        assert_allclose(result.labels[i], weights @ values)
        assert_allclose(result.best_chi2[i], chi2[best[0]])
        offset = values - weights @ values
        assert_allclose(result.scatter_cov[i], (weights[:, None] * offset).T @ offset)


def test_leave_one_out_is_a_fit_without_the_star(stars):
    (spectra, labels), _ = stars
    few, y = spectra[:40], labels[:40]
    model = TemplateMatch(8, interpolate=False).fit(few, y)
    for i in (0, 17, 39):
        keep = np.arange(40) != i
        other = TemplateMatch(8, interpolate=False).fit(few[keep], y[keep])
        other.training_variance_ = model.training_variance_
        error = other.match(few[[i]]).labels[0] - y.to_numpy()[i]
        assert_allclose(model.cv_label_errors_[i], error, atol=1e-8)


def test_result_tells_what_was_matched(stars):
    train, (spectra, _) = stars
    model = TemplateMatch().fit(*train)
    result = model.match(spectra)
    assert result.rv is None
    assert_allclose(result.weights.sum(axis=1), 1)
    assert_allclose(
        result.labels,
        np.einsum("nm,nmk->nk", result.weights, model.template_labels_[result.templates]),
    )
    assert_allclose(result.dist.cov(), result.formal_cov + result.model_cov)
    assert np.all(result.chi2 < result.best_chi2)
    # sixty templates follow part of the noise of fifty pixels
    assert 0.1 < np.median(result.reduced_chi2) < 1
    flux = np.einsum("nm,nmp->np", result.weights, model.templates_[result.templates])
    variance = spectra.variance + model.training_variance_
    assert_allclose(result.chi2, np.sum((spectra.flux - flux) ** 2 / variance, axis=1), rtol=1e-8)


def test_amplitude_of_each_star(stars):
    train, (spectra, _) = stars
    factor = np.linspace(0.2, 5, len(spectra))[:, None]
    scaled = spectra.replace(flux=factor * spectra.flux, ivar=spectra.ivar / factor**2)
    bare = TemplateMatch(fit_amplitude=True).fit(train[0].flux, train[1])
    assert_allclose(bare.predict(scaled.flux), bare.predict(spectra.flux), rtol=1e-6)


def test_velocity_is_found_and_taken_out():
    train, labels, _ = draw_lines(150)
    spectra, truth, rv = draw_lines(40, rv=(-250, 250), seed=1)
    model = TemplateMatch(fit_rv=(-300, 300)).fit(train, labels)
    result = model.match(spectra)
    assert np.abs(result.rv - rv).max() < 3
    assert np.mean(np.abs(result.rv - rv) < 2 * result.rv_std) > 0.8
    at_rest = TemplateMatch().fit(train, labels).match(draw_lines(40, seed=1)[0])
    # the same stars, but their edges were shifted out of the window
    error, best = (np.abs(r.labels - truth.to_numpy()).mean() for r in (result, at_rest))
    assert error < 1.6 * best + 0.01
    assert result.n_good.min() < 1000


def test_velocity_does_not_mind_bad_pixels_or_missing_errors():
    train, labels, _ = draw_lines(100)
    spectra, truth, rv = draw_lines(20, rv=(-250, 250), seed=1)
    bad = np.random.default_rng(0).random(spectra.shape) < 0.05
    spectra = spectra.replace(flux=np.where(bad, 1e6, spectra.flux), ivar=None, mask=bad)
    model = TemplateMatch(fit_rv=(-300, 300)).fit(train.replace(ivar=None), labels)
    result = model.match(spectra)
    assert np.abs(result.rv - rv).max() < 3
    assert np.abs(result.labels - truth.to_numpy()).mean() < 0.1
    blind = model.match(spectra.replace(mask=np.ones_like(bad)))
    assert np.isnan(blind.rv).all()
    assert np.isinf(blind.rv_std).all()
    assert np.isnan(blind.labels).all()


def test_bad_input_gets_a_sentence(stars):
    (spectra, labels), _ = stars
    with pytest.raises(ValueError, match="fit_rv=True needs wavelengths"):
        TemplateMatch(fit_rv=True).fit(spectra.flux, labels)
    with pytest.raises(
        ValueError, match=r"fit_rv must be True, False or a range \(lowest, highest\)"
    ):
        TemplateMatch(fit_rv=(5, -5)).fit(spectra, labels)
