"""Errors that pixels have in common, in the likelihood of forward models."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares
from sklearn.base import clone

from skspec import Spectra
from skspec.datasets import make_spectra
from skspec.forward import (
    SLAM,
    FullSpectrumFit,
    SpectralGP,
    TheCannon,
    ThePayne,
    sample_posterior,
)
from skspec.likelihood import Inversion, NoiseBudget, PixelNoise, Solution
from skspec.metrics import coverage

MODELS = {
    "TheCannon": TheCannon(),
    "SpectralGP": SpectralGP(),
    "SLAM": SLAM(C=2, n_jobs=1),
    "ThePayne": ThePayne((20,), cv=3, max_iter=60, random_state=0),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("SLAM", "ThePayne")]


@pytest.fixture(scope="module")
def data():
    """A box too wide for a quadratic."""
    spectra, labels = make_spectra(
        700,
        n_pixels=250,
        snr=100,
        random_state=5,
        label_ranges={"teff": (4200, 7000), "logg": (2.5, 4.8), "feh": (-1.5, 0.3)},
    )
    return spectra[:300], labels[:300], spectra[300:], labels[300:].to_numpy()


def covariance(model, spectra):
    """Of the pixels of each star, (n, P, P)."""
    return model.noise(spectra).covariance()


def test_a_stiff_model_gains_and_its_errors_stay_honest(data):
    train, y, test, truth = data
    plain = TheCannon().fit(train, y)
    model = TheCannon(coherence=0.2).fit(train, y)
    rmse = [np.sqrt(np.mean((m.predict(test) - truth) ** 2, axis=0)) for m in (plain, model)]
    assert np.all(rmse[1] < 0.85 * rmse[0])
    assert np.all(np.abs(coverage(truth, model.predict_dist(test)) - 0.683) < 0.1)
    assert np.mean(model.domain_score(test) > 1) < 0.05
    assert len(model.error_components_) > 3
    assert len(plain.error_components_) == 0


@pytest.mark.parametrize("name", ["TheCannon", "SpectralGP"])
@pytest.mark.parametrize("noise", ["equal", "uneven", "unknown"])
def test_inversion_minimises_chi2_of_the_full_covariance(data, name, noise):
    train, y, test, _ = data
    test = test[:6]
    if noise == "uneven":
        rng = np.random.default_rng(0)
        ivar = test.ivar * rng.uniform(0.1, 2, test.shape) * (rng.random(test.shape) > 0.05)
        test = test.replace(ivar=ivar)
    elif noise == "unknown":
        train, test = Spectra(train.flux), Spectra(test.flux)
    model = clone(MODELS[name]).set_params(coherence=0.5).fit(train, y)
    result = model.invert(test)
    for i, sigma in enumerate(covariance(model, test)):
        good = test.good[i]
        root = np.linalg.cholesky(np.linalg.inv(sigma[np.ix_(good, good)])).T
        scale = model.label_scale_

        def residual(x, i=i, good=good, root=root, scale=scale):
            return root @ (model.predict_flux(x * scale)[0] - test.flux[i])[good]

        found = least_squares(residual, result.labels[i] / scale, x_scale="jac", xtol=1e-12)
        formal = result.formal_dist.std()[i]
        assert np.all(np.abs(found.x * scale - result.labels[i]) < 0.02 * formal)
        assert_allclose(result.chi2[i], 2 * found.cost, rtol=1e-3)
        expected = np.linalg.inv(found.jac.T @ found.jac) * np.outer(scale, scale)
        assert_allclose(
            result.formal_cov[i], expected, rtol=0.03, atol=0.03 * np.abs(expected).max()
        )
        fisher = model.fisher_information(result.labels[i : i + 1], test[i : i + 1])[0]
        assert_allclose(np.linalg.inv(fisher), result.formal_cov[i], rtol=1e-3)


@pytest.mark.parametrize("name", ["SpectralGP", *SLOW])
def test_errors_hardly_shared_are_independent_errors(data, name):
    train, y, test, _ = data
    train = Spectra(train.flux, flux_err=np.full(train.shape, 0.01))
    plain = clone(MODELS[name]).fit(train, y)
    model = clone(plain).set_params(coherence=1e-12).fit(train, y)
    assert_allclose(
        model.cv_label_errors_,
        plain.cv_label_errors_,
        rtol=1e-2,
        atol=1e-3 * plain.label_scale_.max(),
    )
    assert_allclose(model.label_covariance_, plain.label_covariance_, rtol=1e-2)
    assert_allclose(model.cv_mse_, plain.cv_mse_, rtol=1e-4)
    spread = plain.predict_dist(test).std()
    assert np.all(np.abs(model.predict(test) - plain.predict(test)) < 0.02 * spread)


@pytest.mark.parametrize("name", ["TheCannon", "SpectralGP", *SLOW])
def test_held_out_errors_are_those_of_new_stars(data, name):
    train, y, test, truth = data
    model = clone(MODELS[name]).set_params(coherence=0.2).fit(train, y)
    seen = np.quantile(np.abs(model.cv_label_errors_), 0.6827, axis=0)
    new = np.quantile(np.abs(model.predict(test) - truth), 0.6827, axis=0)
    assert np.all(np.abs(np.log(seen / new)) < np.log(1.4))


def test_wrong_labels_are_found_and_outliers_resisted(data):
    train, y, test, truth = data
    y = y.copy()
    y.iloc[::30, 0] += 1200
    model = TheCannon(coherence=0.2, clean_training=4).fit(train, y)
    assert np.isin(np.arange(0, 300, 30), model.training_outliers_).mean() >= 0.8
    flux = test.flux.copy()
    flux[:, ::25] += 0.3
    spoilt = test.replace(flux=flux)
    plain = np.mean((model.predict(spoilt) - truth) ** 2, axis=0)
    robust = np.mean(
        (model.set_params(inversion__loss="soft_l1").predict(spoilt) - truth) ** 2, axis=0
    )
    assert np.all(robust < 0.8 * plain)


def test_noise_of_stars_and_pixels_without_training(data):
    train, y, test, _ = data
    ivar = train.ivar.copy()
    ivar[:, 7] = 0.0
    model = TheCannon(coherence=0.2).fit(train.replace(ivar=ivar), y)
    assert_allclose(model.error_components_[:, 7], 0.0)
    assert np.all(np.isinf(model.noise(test).variance()[:, 7]))
    total = model.noise(test).variance()
    assert np.all(np.delete(total - test.variance, 7, axis=1) > 0)
    assert np.isfinite(model.predict(test)).all()


def test_posterior_samples_the_same_likelihood(data):
    pytest.importorskip("emcee")
    train, y, test, _ = data
    model = TheCannon(coherence=0.3).fit(train, y)
    result = model.invert(test[:1])
    found = sample_posterior(model, test[:1], n_steps=1500, label_covariance=False, random_state=0)
    assert_allclose(found.samples[0].std(axis=0), result.formal_dist.std()[0], rtol=0.3)


def test_what_it_cannot_be_combined_with(data):
    with pytest.raises(ValueError, match="cannot be combined with correlation_length=3"):
        TheCannon(coherence=0.2, inversion=Inversion(correlation_length=3)).fit(data[0], data[1])
    model = TheCannon(coherence=0.2).fit(data[0], data[1])
    with pytest.raises(ValueError, match="cannot be combined with correlation_length=3"):
        model.set_params(inversion__correlation_length=3).invert(data[2])


# -- with velocity, broadening and continuum free --------------------------------------------------

FREE = {
    "continuum": {"continuum_degree": 2},
    "velocity": {"fit_rv": (-300, 300)},
    "all": {"fit_rv": True, "fit_broadening": True, "continuum_degree": 2},
}


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_sums_are_those_of_the_full_covariance(data, free, real):
    train, y, test, truth = data
    model = TheCannon(coherence=0.3, **FREE[free]).fit(train, y)
    view, n = model._likelihood.spectrum_model(), 4
    x = model._to_scaled(truth[:n])
    at = Solution(x, np.linspace(-90, 90, n), np.full(n, 900.0))
    p, shift = view.to_steps(at)
    rng = np.random.default_rng(0)
    curve = 1 + 0.1 * rng.random((n, 1)) * np.linspace(-1, 1, test.shape[1])
    weight = test.ivar[:n] * (rng.random((n, test.shape[1])) > 0.1)
    noise = view._with_shared(PixelNoise(weight), p, shift, curve)
    assert noise.n_shared == len(model.error_components_) > 3
    y_ = test.flux[:n] * curve
    batch = view.batch(
        y_,
        NoiseBudget(
            1 / np.maximum(weight, 1e-300), np.zeros(test.shape[1]), model.error_components_
        ),
    )
    normal, linear, _ = batch._normal_equations(p, shift, y_, noise, real=real)
    chi2, score, information = normal
    for i in range(n):
        good = weight[i] > 0
        V = noise.shared[i][:, good].astype(float)
        inverse = np.linalg.inv(np.diag(1 / weight[i, good]) + V.T @ V)
        flux, *jacobian = view.rows(p[i : i + 1], shift[i : i + 1])[0][:, good].astype(float)
        columns = np.zeros((0, good.sum()))
        if view.polynomials is not None:
            columns = flux * view.polynomials.rows[:, good]
        inner = columns @ inverse @ columns.T
        best = np.linalg.solve(inner, columns @ inverse @ y_[i, good])
        if linear is not None:
            assert_allclose(linear.coef[i], best, rtol=1e-4, atol=1e-5)
        made = best @ columns if len(columns) else flux
        scaled = np.array(jacobian) * (made / flux)
        residual = y_[i, good] - made
        tolerance = 2e-3 if real is np.float32 else 1e-4
        assert_allclose(chi2[i], residual @ inverse @ residual, rtol=tolerance)
        slope = scaled @ inverse @ residual
        cross = scaled @ inverse @ columns.T
        full = scaled @ inverse @ scaled.T - cross @ np.linalg.solve(inner, cross.T)
        unit = np.sqrt(np.diag(full))
        assert_allclose(score[i] / unit, slope / unit, atol=tolerance * np.sqrt(chi2[i]))
        assert_allclose(
            information[i] / np.outer(unit, unit), full / np.outer(unit, unit), atol=5e-3
        )


def test_errors_move_with_the_star_and_scale_with_its_continuum(data):
    train, y, *_ = data
    model = TheCannon(coherence=0.3, fit_rv=True, continuum_degree=1).fit(train, y)
    view, curve = model._likelihood.spectrum_model(), np.full((2, train.shape[1]), [[1.0], [3.0]])
    p, shift = view.to_steps(Solution(np.zeros((2, 3)), np.array([0.0, 60.0])))
    noise = view._with_shared(PixelNoise(np.ones_like(curve)), p, shift, curve)
    at_rest, moved = noise.shared
    assert np.std(at_rest - model.error_components_) < 0.03 * np.std(at_rest)
    where = np.log(train.wavelength) - shift[1] * view.line_of_sight.step
    inner = slice(20, -20)
    for one, other in zip(at_rest, moved):
        expected = 3 * CubicSpline(np.log(train.wavelength), one)(where)
        assert np.std((other - expected)[inner]) < 0.1 * np.std(expected[inner])


@pytest.fixture(scope="module")
def moving():
    """The same stars at rest and moving, on a continuum of their own."""
    box = {"teff": (4200, 7000), "logg": (2.5, 4.8), "feh": (-1.5, 0.3)}
    how = {"n_pixels": 700, "snr": 100, "resolution": 4000}
    train, y = make_spectra(300, label_ranges=box, random_state=5, **how)
    test, labels = make_spectra(
        200,
        labels=(*box, "rv"),
        label_ranges={**box, "rv": (-150, 150)},
        continuum="random",
        random_state=6,
        **how,
    )
    return train, y, test, labels[list(box)].to_numpy(), labels["rv"].to_numpy()


@pytest.mark.parametrize(
    "name", ["TheCannon", pytest.param("SpectralGP", marks=pytest.mark.slow), *SLOW]
)
def test_labels_of_moving_stars(moving, name):
    train, y, test, truth, rv = moving
    free = {"fit_rv": True, "continuum_degree": 3}
    plain = clone(MODELS[name]).set_params(**free).fit(train, y).invert(test)
    model = clone(MODELS[name]).set_params(coherence=0.2, **free).fit(train, y)
    result = model.invert(test)
    rmse = [np.sqrt(np.mean((r.labels - truth) ** 2, axis=0)) for r in (plain, result)]
    assert np.all(rmse[1] < (0.85 if name == "TheCannon" else 1.1) * rmse[0])
    off = [np.abs(coverage(truth, found.dist) - 0.683) for found in (result, plain)]
    assert np.all(off[0] < np.maximum(off[1] + 0.08, 0.1))
    assert np.mean(result.converged) > 0.97
    assert np.std(result.rv - rv) < 1.1 * np.std(plain.rv - rv)
    seen = np.quantile(np.abs(model.cv_label_errors_), 0.6827, axis=0)
    new = np.quantile(np.abs(result.labels - truth), 0.6827, axis=0)
    assert np.all(np.abs(np.log(seen / new)) < np.log(1.5))


def test_moving_stars_in_batches_and_with_outliers(moving, monkeypatch):
    train, y, test, truth, _ = moving
    model = TheCannon(coherence=0.2, fit_rv=True, continuum_degree=3).fit(train, y)
    whole = model.invert(test)
    monkeypatch.setattr("skspec.likelihood._observed.SHARED_BYTES", 2**20)
    assert np.all(np.abs(model.predict(test) - whole.labels) < 0.01 * whole.formal_dist.std())
    flux = test.flux.copy()
    flux[:, ::25] *= 1.3
    spoilt = test.replace(flux=flux)
    plain = np.mean((model.predict(spoilt) - truth) ** 2, axis=0)
    robust = np.mean(
        (model.set_params(inversion__loss="soft_l1").predict(spoilt) - truth) ** 2, axis=0
    )
    assert np.all(robust < 0.8 * plain)


def test_in_full_spectrum_fits(moving):
    train, y, test, truth, _ = moving
    rmse = [
        np.sqrt(np.mean((model.fit(train, y).predict(test) - truth) ** 2, axis=0))
        for model in (FullSpectrumFit(TheCannon(), coherence=c, n_rounds=2) for c in (None, 0.2))
    ]
    assert np.all(rmse[1] < 0.9 * rmse[0])
    for coherence, shared in ((None, True), (0.0, False)):  # the default model has them
        fit = FullSpectrumFit(coherence=coherence, n_rounds=1).fit(train, y)
        assert (len(fit.error_components_) > 0) == shared


def test_cleaned_and_on_orders(moving):
    train, y, test, truth, rv = moving
    order = np.arange(train.shape[1]) // 350
    train, test = (
        Spectra(s.flux, ivar=s.ivar, wavelength=s.wavelength, order=order) for s in (train, test)
    )
    y = y.copy()
    y.iloc[::40, 0] += 1500
    model = TheCannon(coherence=0.2, fit_rv=True, continuum_degree=3, clean_training=5)
    result = model.fit(train, y).invert(test)
    assert np.isin(np.arange(0, 300, 40), model.training_outliers_).all()
    assert np.all(np.abs(coverage(truth, result.dist) - 0.683) < 0.15)
    assert np.median(np.abs(result.rv - rv)) < 1.0


@pytest.mark.parametrize("unit", [1e-19, 1e-30])
def test_unit_of_the_flux_does_not_matter(unit):
    """Of 1e-19 erg/s/cm2/A squares of residuals are beyond single precision."""
    train, y = make_spectra(150, n_pixels=200, snr=100, random_state=0)
    first = TheCannon(coherence=0.2).fit(train, y)
    scaled = train.replace(flux=train.flux * unit, ivar=train.ivar / unit**2)
    second = TheCannon(coherence=0.2).fit(scaled, y)
    assert len(first.error_components_) == len(second.error_components_) > 0
    assert_allclose(first.predict_dist(train).std(), second.predict_dist(scaled).std(), rtol=1e-3)
