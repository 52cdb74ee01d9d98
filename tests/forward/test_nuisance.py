"""Inversion with radial velocity, broadening and continuum free."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.datasets import synthesize
from skspec.diagnostics import compare, cramer_rao_bound
from skspec.forward import SLAM, SpectralGP, TheCannon
from skspec.likelihood import Inversion
from skspec.solvers.spectra.line_of_sight import C_KMS

WAVELENGTH = np.geomspace(5000, 5300, 900)
UNEVEN = np.linspace(5000, 5300, 900)
MODELS = {"TheCannon": TheCannon(), "SLAM": SLAM(C=4, gamma=0.25, cv=3), "SpectralGP": SpectralGP()}


def draw(n, *, wavelength=WAVELENGTH, snr=100.0, rv=0.0, tilt=0.0, seed=0, **fixed):
    """Stars shifted by up to `rv` km/s, not by the code under test, and tilted by up to `tilt`."""
    rng = np.random.default_rng(seed)
    labels = pd.DataFrame(
        {
            "teff": rng.uniform(4800, 6200, n),
            "logg": rng.uniform(3.8, 4.7, n),
            "feh": rng.uniform(-0.6, 0.3, n),
        }
    )
    velocity = rng.uniform(-rv, rv, n)
    flux = synthesize({**labels, "rv": velocity, **fixed}, wavelength)
    flux += rng.normal(size=flux.shape) / snr
    x = np.linspace(-1, 1, len(wavelength))
    curve = 3 * (1 + tilt * (rng.uniform(-1, 1, (n, 1)) * x + rng.uniform(-1, 1, (n, 1)) * x**2))
    curve = curve if tilt else np.ones_like(curve)
    return Spectra(flux * curve, flux_err=curve / snr, wavelength=wavelength), labels, velocity


@pytest.fixture(scope="module")
def train():
    return draw(150, snr=200.0, seed=1)[:2]


@pytest.fixture(scope="module")
def cannon(train):
    """The Cannon with velocity and a quadratic continuum free."""
    return TheCannon(fit_rv=(-300, 300), continuum_degree=2).fit(*train)


@pytest.fixture(scope="module")
def moving():
    return draw(40, snr=60.0, rv=200.0, tilt=0.3, seed=2)


def robust(values):
    return 1.4826 * np.median(np.abs(values), axis=0)


def rms(values):
    return np.sqrt(np.mean(np.square(values), axis=0))


# -- recovery --------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [None, 2])
@pytest.mark.parametrize("name", MODELS)
def test_velocities_and_labels_reach_their_bound(name, degree, train):
    spectra, labels, rv = draw(250, snr=50.0, rv=200.0, tilt=0.3 * (degree is not None), seed=3)
    model = MODELS[name].__class__(**MODELS[name].get_params())
    model.set_params(fit_rv=(-300, 300), continuum_degree=degree).fit(*train)
    result = model.invert(spectra)
    bound = cramer_rao_bound(model, labels, spectra, rv=True, continuum_degree=degree)
    assert result.converged.mean() > 0.98
    assert np.mean(np.abs(result.rv - rv) > 8 * bound.rv_std()) <= 0.01
    assert rms((result.rv - rv) / bound.rv_std()) < 1.2
    assert 0.85 < rms((result.rv - rv) / result.rv_std) < 1.2
    pull = (result.labels - labels.to_numpy()) / result.dist.std()
    assert np.all((rms(pull) > 0.75) & (rms(pull) < 1.3))
    assert_allclose(
        np.mean(result.chi2 / (result.n_good - 4 - 3 * (degree is not None))), 1, atol=0.05
    )


def test_what_is_free_costs_what_theory_says(train):
    """The formal covariance is the bound with the total noise, with all that is free."""
    spectra, labels, _ = draw(30, snr=50.0, seed=4)
    found = {}
    for degree, free in ((None, False), (None, True), (2, False), (2, True)):
        model = TheCannon(fit_rv=free and (-300, 300), continuum_degree=degree)
        result = model.fit(*train).invert(spectra)
        bound = cramer_rao_bound(
            model, result.labels, spectra, noise="total", rv=free, continuum_degree=degree
        )
        assert_allclose(result.formal_dist.std(), bound.std(), rtol=0.06)  # pixels at the ends
        found[degree, free] = result.formal_dist.std()
    for more, less in (
        ((None, True), (None, False)),
        ((2, True), (2, False)),
        ((2, True), (None, True)),
    ):
        assert np.all(np.median(found[more] / found[less], axis=0) > 0.999)
    assert np.mean(found[2, True] / found[None, False]) > 1.03


@pytest.mark.parametrize("kernel", ["gaussian", "rotation"])
def test_broadening_is_recovered(kernel, train):
    width = np.repeat([15.0, 40.0, 80.0], 15)
    if kernel == "rotation":
        spectra, labels, rv = draw(45, snr=100.0, rv=100.0, seed=5, vsini=width)
    else:  # a lower resolution: 60 km/s at R = 5000 are widened
        parts = [draw(15, snr=1e6, rv=100.0, seed=5 + k) for k in range(3)]
        labels = pd.concat([part[1] for part in parts], ignore_index=True)
        rv = np.concatenate([part[2] for part in parts])
        instrument = C_KMS / 5000 / np.sqrt(8 * np.log(2))
        flux = np.vstack(
            [
                synthesize(
                    {**part[1], "rv": part[2]},
                    WAVELENGTH,
                    resolution=5000 * instrument / np.hypot(instrument, w),
                )
                for part, w in zip(parts, (15.0, 40.0, 80.0))
            ]
        )
        flux += np.random.default_rng(0).normal(size=flux.shape) / 100
        spectra = Spectra(flux, flux_err=0.01, wavelength=WAVELENGTH)
    model = TheCannon(fit_rv=(-300, 300), fit_broadening=kernel).fit(*train)
    result = model.invert(spectra)
    pull = (result.broadening - width) / result.broadening_std
    assert result.converged.mean() > 0.97
    assert np.all(robust(result.broadening - width).reshape(-1) < 3)
    assert robust(pull) < 1.6
    assert robust((result.rv - rv) / result.rv_std) < 1.5
    assert np.all(robust((result.labels - labels.to_numpy()) / result.dist.std()) < 1.5)


def test_stars_not_broadened_get_a_width_within_its_error(train):
    spectra, _, _ = draw(30, snr=50.0, seed=6)
    result = TheCannon(fit_broadening=True).fit(*train).invert(spectra)
    assert np.all(result.broadening >= 0)
    assert np.mean(result.broadening < 5 * result.broadening_std) > 0.9  # 2.5 sigma of its square
    assert np.isfinite(result.broadening_std).all()


# -- grids -----------------------------------------------------------------------------------------


def test_a_grid_that_is_not_uniform():
    train, labels, _ = draw(150, snr=200.0, seed=1, wavelength=UNEVEN)
    spectra, truth, rv = draw(60, snr=50.0, rv=200.0, seed=7, wavelength=UNEVEN)
    model = TheCannon(fit_rv=(-300, 300), continuum_degree=1).fit(train, labels)
    bound = cramer_rao_bound(model, truth, spectra, rv=True, continuum_degree=1)
    assert rms((model.invert(spectra).rv - rv) / bound.rv_std()) < 1.25


def test_orders_that_overlap_have_their_own_continuum():
    wavelength = np.concatenate([np.geomspace(5000, 5160, 500), np.geomspace(5130, 5300, 500)])
    order = np.repeat([7, 6], 500)
    train, labels, _ = draw(150, snr=200.0, seed=1, wavelength=wavelength)
    spectra, truth, rv = draw(60, snr=50.0, rv=200.0, seed=8, wavelength=wavelength)
    model = TheCannon(fit_rv=(-300, 300), continuum_degree=2)
    model.fit(train.replace(order=order), labels)
    x = np.r_[np.linspace(-1, 1, 500), np.linspace(-1, 1, 500)]
    blaze = np.where(order == 7, 40 * (1 - 0.6 * x**2), 3 * (1 + 0.5 * x))
    seen = spectra.replace(flux=spectra.flux * blaze, ivar=spectra.ivar / blaze**2, order=order)
    result = model.invert(seen)
    bound = cramer_rao_bound(model, truth, seen, rv=True, continuum_degree=2)
    assert result.continuum.shape == (60, 6)
    assert rms((result.rv - rv) / bound.rv_std()) < 1.25
    z = (seen.flux - model.best_fit(result)) * np.sqrt(seen.ivar)
    assert_allclose(np.nanmean(z**2), 1, atol=0.06)


def test_pixels_without_training_neither_count_nor_ring(train):
    spectra, _, rv = draw(40, snr=50.0, rv=200.0, seed=9)
    dead = np.isin(np.arange(900) % 150, [70, 71, 72])
    blind = train[0].replace(ivar=np.where(dead, 0.0, train[0].ivar))
    model = TheCannon(fit_rv=(-300, 300)).fit(blind, train[1])
    assert np.isinf(model.scatter_[dead]).all()
    result = model.invert(spectra)
    assert robust((result.rv - rv) / result.rv_std) < 1.3
    assert np.median(result.reduced_chi2) < 1.1


# -- laws ------------------------------------------------------------------------------------------


def same(one, other, sigma=1e-3):
    assert np.abs((one.labels - other.labels) / one.dist.std()).max() < sigma
    assert np.abs((one.rv - other.rv) / one.rv_std).max() < sigma
    assert_allclose(one.dist.std(), other.dist.std(), rtol=1e-3)
    assert_allclose(one.rv_std, other.rv_std, rtol=1e-3)
    assert_allclose(one.chi2, other.chi2, rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-17, 0.37, 2e5, 1e25])
def test_the_scale_of_the_flux_is_nothing_to_a_free_continuum(factor, cannon, moving):
    spectra = moving[0]
    scaled = spectra.replace(flux=spectra.flux * factor, ivar=spectra.ivar / factor**2)
    one, other = cannon.invert(spectra), cannon.invert(scaled)
    same(one, other)
    assert_allclose(other.continuum, factor * one.continuum, rtol=1e-3, atol=1e-6 * factor)


def test_nor_without_errors(train, moving):
    spectra = moving[0].replace(ivar=None)
    model = TheCannon(fit_rv=True, continuum_degree=2, ivar="ignore").fit(*train)
    same(model.invert(spectra), model.invert(spectra.replace(flux=1e4 * spectra.flux)))


@pytest.mark.parametrize("garbage", [0.0, np.nan, 1e30, -1e30])
def test_a_masked_pixel_changes_nothing(garbage, cannon, moving):
    spectra = moving[0]
    bad = np.random.default_rng(0).random(spectra.shape) < 0.05
    plain = spectra.replace(ivar=np.where(bad, 0.0, spectra.ivar))
    spoilt = plain.replace(flux=np.where(bad, garbage, spectra.flux))
    same(cannon.invert(plain), cannon.invert(spoilt), sigma=1e-6)
    rv = moving[2]
    assert robust((cannon.invert(spoilt).rv - rv) / cannon.invert(spoilt).rv_std) < 1.5


def test_every_star_stands_alone(cannon, moving):
    whole = cannon.invert(moving[0])
    alone = cannon.invert(moving[0][[5]])
    assert_allclose(alone.rv, whole.rv[[5]], atol=1e-3 * whole.rv_std[5])
    assert_allclose(alone.labels, whole.labels[[5]], rtol=1e-5)


def test_formal_errors_follow_the_noise(train, moving):
    """Where photons rule, ten times the noise is ten times the formal error."""
    spectra = draw(20, snr=20.0, rv=100.0, seed=10)[0]
    model = TheCannon(fit_rv=True, continuum_degree=1).fit(*train)
    one = model.invert(spectra).formal_dist.std()
    ten = model.invert(spectra.replace(ivar=spectra.ivar / 100)).formal_dist.std()
    assert_allclose(np.median(ten / one, axis=0), 10, rtol=0.15)


def test_robust_loss_bears_cosmic_rays(train, moving):
    spectra, labels, rv = moving
    rng = np.random.default_rng(1)
    hit = rng.random(spectra.shape) < 0.01
    flux = np.where(hit, spectra.flux + 2 * rng.random(spectra.shape), spectra.flux)
    error = {}
    for loss in ("linear", "huber", "soft_l1"):
        model = TheCannon(fit_rv=(-300, 300), continuum_degree=2, inversion=Inversion(loss))
        result = model.fit(*train).invert(spectra.replace(flux=flux))
        error[loss] = robust(result.labels - labels.to_numpy())
        assert np.mean(np.abs(result.rv - rv) < 5) > 0.9
    assert np.all(error["huber"] < 0.6 * error["linear"])
    assert np.all(error["soft_l1"] < 0.6 * error["linear"])


def test_best_fit_is_what_was_observed(cannon, moving):
    spectra = moving[0]
    result = cannon.invert(spectra)
    z = (spectra.flux - cannon.best_fit(result)) * np.sqrt(spectra.ivar)
    assert np.isfinite(z[:, 60:-60]).all()
    assert_allclose(np.nanmean(z**2), 1, atol=0.05)


def test_a_star_without_good_pixels(cannon, moving):
    ivar = moving[0].ivar.copy()
    ivar[3] = 0
    result = cannon.invert(moving[0].replace(ivar=ivar))
    assert np.isnan(result.rv[3])
    assert np.isinf(result.rv_std[3])
    assert np.isnan(result.labels[3]).all()
    assert not result.converged[3]
    others = np.arange(40) != 3
    whole = cannon.invert(moving[0])
    assert_allclose(result.rv[others], whole.rv[others], atol=1e-2)
    assert result.converged[others].all()


# -- what goes with it -----------------------------------------------------------------------------


def test_frame_holds_what_was_fitted(cannon, moving):
    result = cannon.invert(moving[0])
    frame = result.to_frame()
    assert_array_equal(frame["rv"], result.rv)
    assert_array_equal(frame["rv_std"], result.rv_std)
    assert "broadening" not in frame


def test_comparisons_take_the_bound_with_all_that_is_free(train):
    run = {}
    for free in (False, True):
        model = TheCannon(fit_rv=free, continuum_degree=2 if free else None)
        run[free] = compare({"cannon": model}, *train, random_state=0).bound.std()
    assert np.all(run[True] >= run[False])
    assert np.mean(run[True] / run[False]) > 1.02


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"fit_rv": (50, -50)}, r"fit_rv must be True, False or a range \(lowest, highest\)"),
        ({"fit_rv": (-50, 0, 50)}, r"fit_rv must be True, False or a range \(lowest, highest\)"),
        ({"fit_rv": (-4e5, 50)}, r"fit_rv must be True, False or a range \(lowest, highest\)"),
        ({"fit_rv": (-2e4, 2e4)}, "narrower range"),
        ({"fit_broadening": "box"}, "fit_broadening"),
        ({"continuum_degree": -1}, "continuum_degree"),
    ],
)
def test_bad_parameters(parameters, message, train):
    with pytest.raises(ValueError, match=message):
        TheCannon(**parameters).fit(*train).predict(train[0])


@pytest.mark.parametrize("switch", [{"fit_rv": True}, {"fit_broadening": True}])
def test_velocities_need_wavelengths(switch, train):
    with pytest.raises(ValueError, match=r"wavelength of each pixel: pass Spectra"):
        TheCannon(**switch).fit(train[0].flux, train[1])
    backward = train[0].replace(wavelength=WAVELENGTH[::-1])
    with pytest.raises(ValueError, match="ascend"):
        TheCannon(**switch).fit(backward, train[1])
