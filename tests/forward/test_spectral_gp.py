import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone

from skspec import Spectra
from skspec.forward import SpectralGP
from skspec.solvers.kernels.gaussian_process import squared_exponential


def dense_flux(model, spectra, labels, fresh):
    """Every pixel solved on its own: constant mean, full kernel, full covariance of the noise."""
    x, u = (
        (np.asarray(a) - model.label_pivot_) / model.label_scale_ / model._length
        for a in (labels, fresh)
    )
    noise = spectra.variance + model._excess
    flux = np.empty((len(u), spectra.shape[1]))
    for j in range(spectra.shape[1]):
        good = spectra.good[:, j]
        C = squared_exponential(x[good], x[good])
        C += np.diag(noise[good, j]) / model.amplitude_[j] ** 2
        inverse = np.linalg.inv(C)
        mean = inverse.sum(axis=0) @ spectra.flux[good, j] / inverse.sum()
        alpha = inverse @ (spectra.flux[good, j] - mean)
        flux[:, j] = mean + squared_exponential(u, x[good]) @ alpha
    return flux


@pytest.mark.parametrize("errors", ["varied", "separable", "same", None])
def test_every_pixel_is_a_gaussian_process(errors, draw_stars):
    """Uneven noise and bad pixels count in full: the iteration ends within 1e-3 of the noise."""
    spectra, labels = draw_stars(70, n_pixels=16, wiggle=0.5, errors=errors, bad=0.05)
    model = SpectralGP(0, label_covariance=False).fit(spectra, labels)
    fresh = draw_stars(20, n_pixels=16, wiggle=0.5, seed=5)[1]
    expected = dense_flux(model, spectra, labels, fresh)
    noise = np.sqrt(model._excess + model.training_variance_)
    assert np.abs((model.predict_flux(fresh) - expected) / noise).max() < 1e-3


def test_smooth_and_wiggly_worlds(draw_stars):
    """The length scales follow the flux, and the scatter is what the photons leave."""
    lengths, scatter = [], []
    for wiggle in (0.0, 3.0):
        spectra, labels = draw_stars(150, n_pixels=60, wiggle=wiggle, scatter=0.01, noise=0.005)
        model = SpectralGP().fit(spectra, labels)
        lengths.append(model.length_scale_ / model.label_scale_)
        scatter.append(np.median(model.scatter_))
    assert np.all(lengths[1] < lengths[0])
    assert scatter[0] == pytest.approx(0.0105, abs=0.001)
    assert scatter[1] > 0.012  # with an error of the model itself


def test_it_is_better_than_a_quadratic_where_the_world_is_not(draw_stars):
    from skspec.forward import TheCannon

    train, test = (draw_stars(n, wiggle=2.0, seed=s) for n, s in ((200, 0), (100, 1)))
    errors = [
        np.std(m.fit(*train).predict(test[0]) - test[1].to_numpy(), axis=0)
        for m in (SpectralGP(), TheCannon())
    ]
    assert np.all(errors[0] < 0.8 * errors[1])


@pytest.mark.parametrize("mean_degree", [0, 1, 2])
def test_curvature_is_the_derivative_of_the_jacobian(mean_degree, draw_stars):
    spectra, labels = draw_stars(60, n_pixels=8, wiggle=1.0)
    model = SpectralGP(mean_degree, label_covariance=False).fit(spectra, labels)
    x = np.random.default_rng(0).normal(size=(5, 3))
    weight = np.random.default_rng(1).normal(size=(5, len(model.coef_)))
    curvature = model._curvature(x, weight)
    for k in range(3):
        step = 1e-5 * (np.arange(3) == k)
        up, down = (model._features(x + s * step, derivative=True)[1] for s in (1, -1))
        expected = np.einsum("mkq,mq->mk", (up - down) / 2e-5, weight)
        assert_allclose(curvature[:, k], expected, atol=1e-5 * np.abs(curvature).max())


def test_flux_std_is_the_posterior_of_the_process(draw_stars):
    spectra, labels = draw_stars(70, n_pixels=12, wiggle=1.0, errors="same")
    model = SpectralGP(0).fit(spectra, labels)
    fresh = draw_stars(10, n_pixels=12, seed=3)[1]
    x, u = (
        (np.asarray(a) - model.label_pivot_) / model.label_scale_ / model._length
        for a in (labels, fresh)
    )
    std = model.flux_std(fresh)
    for j in range(12):
        inverse = np.linalg.inv(squared_exponential(x, x) + model.nu_[j] * np.eye(70))
        k = squared_exponential(u, x)
        slack = 1 - k @ inverse.sum(axis=0)
        variance = 1 - np.sum(k @ inverse * k, axis=1) + slack**2 / inverse.sum()
        assert_allclose(std[:, j], model.amplitude_[j] * np.sqrt(variance), rtol=1e-3)
    far = labels.max() + 2 * (labels.max() - labels.min())
    assert np.all(model.flux_std(far) > 3 * std.max(axis=0))


def test_a_dead_pixel_is_untrained(draw_stars):
    spectra, labels = draw_stars(60, n_pixels=10)
    ivar = spectra.ivar.copy()
    ivar[:, 4], ivar[2:, 7] = 0, 0
    model = SpectralGP(1).fit(spectra.replace(ivar=ivar), labels)
    dead = np.isin(np.arange(10), [4, 7])  # two stars cannot hold four terms
    assert np.isinf(model.scatter_[dead]).all()
    assert np.isfinite(model.scatter_[~dead]).all()
    assert np.isnan(model.flux_std(labels)[:, dead]).all()
    assert np.isfinite(model.predict_flux(labels)).all()


def test_noisy_stars_count_for_less(draw_stars):
    """Half of the stars a hundred times noisier: the model is that of the others."""
    spectra, labels = draw_stars(120, n_pixels=20, errors="same", noise=0.003)
    rng, noisy = np.random.default_rng(0), np.arange(120) % 2 == 1
    flux = spectra.flux + noisy[:, None] * rng.normal(size=spectra.shape) * 0.3
    ivar = np.where(noisy[:, None], 1 / 0.3**2, spectra.ivar)
    both = SpectralGP().fit(Spectra(flux, ivar=ivar), labels)
    alone = SpectralGP().fit(spectra[~noisy], labels[~noisy])
    fresh, truth = draw_stars(100, n_pixels=20, errors="same", noise=1e-9, seed=4)
    errors = [np.sqrt(np.mean((m.predict_flux(truth) - fresh.flux) ** 2)) for m in (both, alone)]
    assert errors[0] < 1.1 * errors[1]


def test_few_stars_few_terms(draw_stars):
    spectra, labels = draw_stars(20, n_pixels=10)
    for mean_degree, terms in ((0, 1), (1, 4), (2, 4)):  # 20 stars cannot hold 10 terms
        assert len(SpectralGP(mean_degree).fit(spectra, labels)._mean) == terms


def test_search_and_rank_can_be_limited(draw_stars):
    spectra, labels = draw_stars(150, n_pixels=20, wiggle=1.0)
    fine = SpectralGP(length_bounds=(0.5, 10.0))
    whole = clone(fine).fit(spectra, labels)
    part = clone(fine).set_params(max_search=100).fit(spectra, labels)
    assert_allclose(np.log(part.length_scale_ / whole.length_scale_), 0, atol=0.4)
    assert np.any(part.length_scale_ != whole.length_scale_)
    other = clone(part).set_params(random_state=1).fit(spectra, labels)
    assert np.any(part.length_scale_ != other.length_scale_)
    small = clone(fine).set_params(max_rank=40).fit(spectra, labels)
    assert len(small.coef_) <= 44 < len(whole.coef_)
    assert small.score(spectra, labels) > 0.9


def test_bad_parameters(draw_stars):
    stars = draw_stars(30, n_pixels=5)
    for bad in ({"mean_degree": 3}, {"max_search": 1}, {"max_rank": 0}):
        with pytest.raises(ValueError, match=f"The '{next(iter(bad))}' parameter of SpectralGP"):
            SpectralGP(**bad).fit(*stars)
    for bounds in ((0.0, 1.0), (3.0, 1.0), (1.0,), (1.0, np.inf)):
        with pytest.raises(ValueError, match="length_bounds must be the smallest and the largest"):
            SpectralGP(length_bounds=bounds).fit(*stars)


def test_length_scales_stay_in_their_bounds(draw_stars):
    spectra, labels = draw_stars(80, n_pixels=20, wiggle=1.0)
    for bounds in ((0.2, 1.5), (8.0, 9.0)):
        model = SpectralGP(length_bounds=bounds).fit(spectra, labels)
        length = model.length_scale_ / labels.std(ddof=0).to_numpy()
        assert np.all((length > bounds[0] * (1 - 1e-9)) & (length < bounds[1] * (1 + 1e-9)))


@pytest.mark.slow
def test_dwarfs_of_the_emulator(draw_dwarfs):
    """Better than the specification's figures for 200 training stars, and honest about it."""
    model = SpectralGP().fit(*draw_dwarfs(200))
    spectra, labels = draw_dwarfs(200, inner=0.9, seed=1)
    dist = model.predict_dist(spectra)
    error = dist.mean() - labels.to_numpy()
    assert np.all(np.sqrt(np.mean(error**2, axis=0)) < [36, 0.033, 0.018])
    within = np.mean(np.abs(error) < dist.std(), axis=0)
    assert np.all((within > 0.5) & (within < 0.85))


def test_spectra_that_a_straight_line_describes_exactly():
    rng = np.random.default_rng(0)
    labels = rng.uniform(-1, 1, (60, 2))
    flux = 1 + labels @ rng.normal(size=(2, 40))
    assert_allclose(SpectralGP().fit(flux, labels).predict(flux), labels, atol=1e-6)
