"""Stars and settings in which a careless sum divides by zero: what is said of them, and by whom."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from skspec.datasets import make_spectra
from skspec.diagnostics import cramer_rao_bound, information_map
from skspec.forward import FullSpectrumFit, SpectralGP, TheCannon, sample_posterior
from skspec.likelihood import Inversion, LabelPopulation
from skspec.likelihood._normal_equations import with_least_information

BOX = {"teff": (4500, 6500), "logg": (3.0, 4.8), "feh": (-0.8, 0.3)}
EVERYTHING = {
    "fit_rv": True,
    "fit_broadening": "rotation",
    "continuum_degree": 2,
    "coherence": 0.2,
    "label_prior": "training",
}
MODELS = {
    "at_rest": TheCannon(log_labels=["teff"]),
    "everything": TheCannon(**EVERYTHING),
    "full_spectrum": FullSpectrumFit(continuum_degree=2),
}


@pytest.fixture(scope="module")
def data():
    how = {"n_pixels": 260, "snr": 60, "resolution": 4000, "label_ranges": BOX}
    train, y = make_spectra(150, random_state=1, **how)
    test, _ = make_spectra(6, random_state=2, **how)
    return train, y, test


@pytest.mark.parametrize("name", MODELS)
def test_blind_star(data, name):
    train, y, test = data
    model = MODELS[name].fit(train, y)
    ivar = test.ivar.copy()
    ivar[3] = 0
    stars, others = test.replace(ivar=ivar), [0, 1, 2, 4, 5]
    result = model.invert(stars)
    assert np.isnan(result.labels[3]).all() and np.isinf(result.dist.std()[3]).all()
    for error in (result.rv_std, result.broadening_std):
        assert error is None or (np.isinf(error[3]) and np.isfinite(error[others]).all())
    assert np.isnan(model.best_fit(result)[3]).all()
    assert np.isfinite(model.best_fit(result)[others, 20:-20]).all()
    fisher = model.fisher_information(result, stars)
    assert_allclose(fisher[3], 0.0)
    assert_allclose(fisher[others], model.fisher_information(result[others], stars[others]))
    for noise in ("photon", "total"):
        std = cramer_rao_bound(model, result, stars, noise=noise).std()
        assert np.isnan(std[3]).all() and np.isfinite(std[others]).all()
        assert information_map(model, result, stars, noise=noise).n_stars == 5
    assert "median" in repr(result[3]) and len(result.to_frame()) == 6


def test_blind_star_is_sampled(data):
    pytest.importorskip("emcee")
    train, y, test = data
    model = TheCannon(**EVERYTHING).fit(train, y)
    found = sample_posterior(
        model, test.replace(ivar=0 * test.ivar)[:1], n_steps=4, n_burn=2, random_state=0
    )
    assert np.isnan(found.samples).all()


@pytest.mark.parametrize("continuum_degree", [None, 2])
def test_errors_left_aside_are_left_aside_by_all(data, continuum_degree):
    train, y, test = data
    model = TheCannon(ivar="ignore", continuum_degree=continuum_degree).fit(train, y)
    result, same = model.invert(test), test.replace(ivar=None)
    fisher = model.fisher_information(result, test)
    assert_allclose(fisher, model.fisher_information(result, same), rtol=1e-12)
    assert_allclose(model.noise(test).weight, model.noise(same).weight)
    assert_allclose(np.linalg.inv(fisher), result.formal_cov, rtol=1e-4)
    assert_allclose(cramer_rao_bound(model, result, test, noise="total").fisher, fisher)
    # who asks what photons permit means the errors that were given
    slope = model.flux_jacobian(y[:6])
    photon = cramer_rao_bound(model, y[:6], test, noise="photon", continuum_degree=None)
    assert_allclose(photon.fisher, np.einsum("npk,np,npl->nkl", slope, test.ivar, slope))


@pytest.mark.parametrize("fit_rv", [False, True])
def test_pixels_of_unknown_noise_tell_nothing_of_photons(data, fit_rv):
    train, y, test = data
    model, ivar, masked = TheCannon(fit_rv=fit_rv).fit(train, y), test.ivar.copy(), test.ivar.copy()
    ivar[:, ::3], masked[:, ::3] = np.inf, 0.0
    fisher = [
        cramer_rao_bound(model, y[:6], test.replace(ivar=part), noise="photon").fisher
        for part in (ivar, masked)
    ]
    assert np.isfinite(fisher).all()
    assert_allclose(*fisher)


def test_spectra_of_another_grid_are_refused(data):
    train, y, test = data
    model = TheCannon().fit(train, y)
    for ask in (model.noise, lambda X: model.fisher_information(y[:6], X)):
        with pytest.raises(ValueError, match="have 259 pixels, those of the fit 260"):
            ask(test[:, 1:])
        with pytest.raises(ValueError, match="Angstrom"):
            ask(test.replace(wavelength=test.wavelength + 1))


def test_what_is_not_known_has_a_huge_error_however_bright_the_star():
    bright = np.diag([1e10, 0.0, 1e8, 0.0])[None]
    cov = np.linalg.inv(with_least_information(bright, 2))[0]
    assert_allclose(np.diag(cov), [1e-10, 1e6, 1e-8, 1e6], rtol=1e-3)


def test_rounding_leaves_no_negative_variance():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 5, 2))  # rank 2 of 5
    information = rows @ np.swapaxes(rows, 1, 2)
    information -= 1e-13 * np.eye(5)
    for scale in (1e-20, 1e-6, 1.0, 1e10, 1e25):
        cov = np.linalg.inv(with_least_information(scale * information, 3))
        assert np.all(np.diagonal(cov, axis1=1, axis2=2) > 0), scale
    regular = information + np.eye(5)
    assert_allclose(with_least_information(regular, 3), regular + 1e-6 * np.diag([1, 1, 1, 0, 0]))


def test_variances_of_nearly_blind_stars_are_positive(data):
    train, y, test = data
    rng = np.random.default_rng(0)
    train, test = (
        s.replace(ivar=np.where(rng.random(s.shape) < 0.95, 0.0, s.ivar)) for s in (train, test)
    )
    model = TheCannon(1, **EVERYTHING).fit(train, y)
    result = model.invert(test)
    known = result.n_good > 0
    assert known.any()
    assert np.all(np.diagonal(result.formal_cov[known], axis1=1, axis2=2) > 0)
    assert np.all(result.rv_std[known] > 0) and np.all(result.broadening_std[known] > 0)


@pytest.mark.parametrize("width", [1e-12, 1e-6, 1.0])
def test_density_of_labels_that_go_together(width):
    rng = np.random.default_rng(0)
    along = rng.normal(size=(20, 1)) @ [[1.0, 2.0, -0.5]]
    cov = np.cov(along, rowvar=False) + width * np.eye(3)
    population = LabelPopulation(along, np.full(20, 0.99 / 20), cov, np.zeros(3), 4.0 * np.eye(3))
    x = along[:5] + 1e-7 * rng.normal(size=(5, 3))
    found = population.log_density(x)
    assert np.isfinite(found).all()
    if width > 1e-12:
        parts = [multivariate_normal.pdf(x, c, cov) for c in along]
        alone = multivariate_normal.pdf(x, np.zeros(3), 4 * np.eye(3))
        expected = np.log(0.99 * np.mean(parts, axis=0) + 0.01 * alone)
        assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_labels_drawn_behind_an_error(size):
    rng = np.random.default_rng(0)
    centres, root = rng.normal(size=(30, 2)), rng.normal(size=(2, 2))
    cov = size**2 * root @ root.T
    population = LabelPopulation(
        centres, np.full(30, 0.99 / 30), 0.02 * np.eye(2), np.ones(2), np.diag([4.0, 9.0])
    )
    for seen in ([0.2, -0.3], [5.0, 7.0]):  # among the stars, and where the background is
        drawn = population.draw(np.tile(seen, (40_000, 1)), cov, rng)
        mean, left = population.posterior(np.array([seen]), cov[None] + 1e-12 * np.eye(2))
        std = np.sqrt(np.diag(left[0]))
        assert_allclose(drawn.mean(axis=0), mean[0], atol=0.02 * std.max() + 1e-9)
        assert_allclose(np.cov(drawn.T), left[0], atol=0.04 * std.max() ** 2 + 1e-9)
    x = rng.normal(size=(6, 2))
    wide = population.widened(cov)
    z = rng.multivariate_normal(np.zeros(2), cov, size=20_000, method="eigh")
    expected = [np.log(np.mean(np.exp(population.log_density(one - z)))) for one in x]
    assert_allclose(wide.log_density(x), expected, atol=0.1)


@pytest.mark.parametrize("loss", ["linear", "huber", "soft_l1"])
@pytest.mark.parametrize("options", [{}, {"continuum_degree": 2, "coherence": 0.2}])
def test_garbage_in_bad_pixels(data, loss, options):
    train, y, test = data
    model = TheCannon(inversion=Inversion(loss), **options).fit(train, y)
    flux, ivar = test.flux.copy(), test.ivar.copy()
    flux[:, 10:20], ivar[:, 10:20] = 1e100, 0.0
    first, second = (
        model.invert(s) for s in (test.replace(ivar=ivar), test.replace(flux=flux, ivar=ivar))
    )
    assert_allclose(first.labels, second.labels, rtol=1e-9)
    assert_allclose(first.formal_cov, second.formal_cov, rtol=1e-9, atol=1e-12)


def test_stars_beyond_the_range_of_velocities_have_not_converged(data):
    train, y, test = data
    wide = TheCannon(fit_rv=True).fit(train, y)
    narrow = TheCannon(fit_rv=(-10, 10)).fit(train, y)
    grid, step = test.wavelength, 1 + 40 / 299792.458
    moved = test.replace(flux=np.array([np.interp(grid, grid * step, f) for f in test.flux]))
    assert wide.invert(moved).converged.all() and np.all(wide.invert(moved).rv > 30)
    assert not narrow.invert(moved).converged.any()
    at_rest = narrow.invert(test)
    assert_allclose(at_rest.converged, np.abs(at_rest.rv) <= 10)
    assert at_rest.converged.any()


def test_gaussian_process_of_stars_that_cleaning_left_alone(data):
    """One star, which the mean describes exactly, is refused in a sentence."""
    train, y, _ = data
    model = SpectralGP(clean_training=4.0, label_prior="training")
    with pytest.raises(ValueError, match="No pixel could be trained with 1 stars"):
        model.fit(train[:3], y[:3])
