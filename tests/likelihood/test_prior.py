"""The population of the training stars as a prior of the labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.base import clone

from skspec import MultivariateNormal
from skspec.datasets import make_spectra
from skspec.diagnostics import compare
from skspec.forward import SLAM, CorrectedModel, SpectralGP, TheCannon, ThePayne, sample_posterior
from skspec.likelihood._prior import BACKGROUND_WEIGHT, LabelPopulation
from skspec.metrics import coverage

MODELS = {
    "TheCannon": TheCannon(1),
    "SpectralGP": SpectralGP(),
    "SLAM": SLAM(C=2, n_jobs=1),
    "ThePayne": ThePayne((20,), cv=3, max_iter=60, random_state=0),
}
NUMBER = st.floats(-3, 3)


def population(n=40, n_labels=2, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n, n_labels)) * [3.0, 0.5][:n_labels]
    weight = (1 - BACKGROUND_WEIGHT) * rng.dirichlet(np.ones(n))
    width = 0.1 * np.cov(centres.T).reshape(2 * (n_labels,))
    return LabelPopulation(
        centres, weight, width, np.full(n_labels, 0.5), np.diag([9.0, 4.0][:n_labels])
    )


def by_quadrature(density, mean, cov, without=()):
    """Moments of density times likelihood on a fine grid of two labels."""
    std = np.sqrt(np.diag(cov))
    low = np.minimum(density.centres.min(axis=0) - 2, mean - 9 * std)
    high = np.maximum(density.centres.max(axis=0) + 2, mean + 9 * std)
    axes = [np.linspace(a, b, 700) for a, b in zip(low, high)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    prior = BACKGROUND_WEIGHT * multivariate_normal(
        density.background_mean, density.background_cov
    ).pdf(x)
    for j, (centre, share) in enumerate(zip(density.centres, density.weight)):
        if j not in without:
            prior += share * multivariate_normal(centre, density.width).pdf(x)
    weight = prior * multivariate_normal(mean, cov).pdf(x)
    weight /= weight.sum()
    first = np.einsum("ij,ijk->k", weight, x)
    return first, np.einsum("ij,ijk,ijl->kl", weight, x - first, x - first)


@pytest.mark.parametrize("without", [None, 3])
@pytest.mark.parametrize("mean", [(0.5, 0.2), (-4.0, 1.0), (9.0, -3.0)])
def test_moments_are_those_of_prior_times_likelihood(mean, without):
    density, cov = population(), np.array([[0.8, 0.3], [0.3, 0.4]])
    rows = None if without is None else np.array([without])
    found = density.posterior(np.array([mean]), cov[None], without=rows)
    expected = by_quadrature(density, np.array(mean), cov, () if without is None else (without,))
    assert_allclose(found[0][0], expected[0], atol=2e-3)
    assert_allclose(found[1][0], expected[1], atol=2e-3)


def test_one_gaussian_is_with_prior():
    density = LabelPopulation(
        np.array([[1.0, 2.0]]), np.ones(1), np.diag([0.5, 2.0]), np.zeros(2), 1e20 * np.eye(2)
    )
    mean, cov = np.array([[0.3, 1.0]]), np.array([[[0.4, 0.1], [0.1, 0.3]]])
    found = density.posterior(mean, cov)
    expected = MultivariateNormal(mean, cov=cov).with_prior([1.0, 2.0], density.width)
    assert_allclose(found[0], expected.mean(), rtol=1e-6)
    assert_allclose(found[1], expected.cov(), rtol=1e-6)


@given(arrays(float, (5, 3), elements=NUMBER), arrays(float, (5, 3, 3), elements=NUMBER))
def test_covariances_stay_covariances(mean, root):
    rng = np.random.default_rng(1)
    density = LabelPopulation(
        rng.normal(size=(30, 3)), np.full(30, 0.033), 0.04 * np.eye(3), np.zeros(3), 9 * np.eye(3)
    )
    cov = root @ np.swapaxes(root, 1, 2) + 1e-8 * np.eye(3)
    found, left = density.posterior(mean, cov)
    assert np.all(np.linalg.eigvalsh(left) > -1e-9 * np.trace(cov, axis1=1, axis2=2)[:, None])
    assert np.isfinite(found).all()


def test_who_stays_as_he_is():
    """Stars that the spectrum knows better than the population, even far off, or not at all."""
    density = population()
    mean = np.array([[0.3, 0.1], [40.0, 9.0], [np.nan, np.nan]])
    cov = np.stack([1e-10 * np.eye(2), 0.01 * np.eye(2), np.diag([np.inf, np.inf])])
    found, left = density.posterior(mean, cov)
    assert_allclose(found[0], mean[0], atol=1e-8)
    assert_allclose(found[1], mean[1], rtol=0.01)
    assert_allclose(left[1], cov[1], rtol=0.01, atol=1e-6)
    assert_array_equal(found[2], mean[2])
    assert_array_equal(left[2], cov[2])
    assert np.isfinite(mean[0]).all()  # the caller's arrays are left alone


def test_batches_do_not_matter(monkeypatch):
    density, rng = population(), np.random.default_rng(2)
    mean, cov = rng.normal(size=(50, 2)), np.tile(0.3 * np.eye(2), (50, 1, 1))
    whole = density.posterior(mean, cov)
    monkeypatch.setattr("skspec.likelihood._prior.batch_rows", lambda _: 7)
    for part, same in zip(density.posterior(mean, cov), whole):
        assert_allclose(part, same, rtol=1e-12, atol=1e-14)


def test_bandwidth_follows_the_population():
    """Clumps are drawn sharply where labels are uncertain, a smooth population is not."""
    rng = np.random.default_rng(3)
    smooth = rng.normal(size=(400, 2))
    clumps = rng.integers(0, 4, size=(400, 2)) + rng.normal(scale=0.02, size=(400, 2))
    width = []
    for x in (smooth, clumps):
        cov = np.tile(np.cov(x.T) * 0.1, (400, 1, 1))
        found = MultivariateNormal(x, cov=cov).sample(random_state=rng)
        density = LabelPopulation.learn(x, x.min(axis=0), x.max(axis=0), x, found, cov)
        width.append(np.sqrt(density.width[0, 0] / np.var(x[:, 0])))
    assert width[1] < 0.1 < width[0]


@pytest.fixture(scope="module")
def sequence():
    """Stars of the main sequence and the giant branch, whose spectra tell gravity badly."""
    spectra, labels = make_spectra(
        600, population="field", wavelength=(5250, 5400), n_pixels=120, snr=25, random_state=4
    )
    return spectra[:350], labels[:350], spectra[350:], labels[350:].to_numpy()


@pytest.mark.parametrize(
    "name",
    [
        "TheCannon",
        "SpectralGP",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("SLAM", "ThePayne")),
    ],
)
def test_a_sequence_helps_what_the_spectrum_says_badly(sequence, name):
    train, y, test, truth = sequence
    model = clone(MODELS[name]).set_params(label_prior="training").fit(train, y)
    result = model.invert(test)
    error, flat = (np.abs(part - truth) for part in (result.labels, result.likelihood.mean()))
    assert np.all(error.mean(axis=0) < 1.02 * flat.mean(axis=0))
    assert error[:, 1].mean() < 0.75 * flat[:, 1].mean()
    assert np.all(np.abs(coverage(truth, result.dist) - 0.683) < 0.11)
    crps, alone = (part.crps(truth).mean(axis=0) for part in (result.dist, result.likelihood))
    assert np.all(crps < 1.02 * alone)


def test_flat_prior_is_the_likelihood(sequence):
    train, y, test, _ = sequence
    prior = TheCannon(1, label_prior="training").fit(train, y).invert(test)
    flat = TheCannon(1).fit(train, y).invert(test)
    assert flat.dist is flat.likelihood
    assert_array_equal(prior.likelihood.mean(), flat.labels)
    assert_array_equal(prior.formal_dist.mean(), flat.labels)
    assert_array_equal(prior.chi2, flat.chi2)
    assert np.all(np.linalg.det(prior.dist.corr()) > 0)


def test_best_fit_is_that_of_the_likelihood(sequence):
    train, y, test, _ = sequence
    model = TheCannon(1, label_prior="training").fit(train, y)
    result = model.invert(test)
    assert_allclose(model.best_fit(result), model.predict_flux(result.likelihood.mean()))


@pytest.mark.parametrize(
    "options",
    [
        {"label_covariance": False},
        {"clean_training": 3},
        {"coherence": 0.2},
        {"fit_rv": True},
        {"continuum_degree": 1},
    ],
)
def test_with_other_options(sequence, options):
    train, y, test, truth = sequence
    model = TheCannon(1, label_prior="training", **options).fit(train, y)
    result = model.invert(test)
    error, flat = (np.abs(part - truth) for part in (result.labels, result.likelihood.mean()))
    assert error[:, 1].mean() < flat[:, 1].mean()
    assert np.isfinite(result.dist.std()).all()


def test_spectra_that_say_nothing_get_the_population():
    density = population()
    found, left = density.posterior(np.array([[50.0, -30.0]]), 1e8 * np.eye(2)[None])
    mean = density.weight @ density.centres + BACKGROUND_WEIGHT * density.background_mean
    assert_allclose(found[0], mean, atol=0.01)
    away = density.centres - mean
    spread = density.width * (1 - BACKGROUND_WEIGHT) + (density.weight * away.T) @ away
    apart = density.background_mean - mean
    spread += BACKGROUND_WEIGHT * (density.background_cov + np.outer(apart, apart))
    assert_allclose(left[0], spread, rtol=1e-3)


def test_spectra_of_one_star_are_one_star():
    """Copies do not sharpen the density, and a star is left out with all of them."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(150, 2))
    box, cov = (x.min(axis=0), x.max(axis=0)), np.tile(0.2 * np.eye(2), (150, 1, 1))
    found = MultivariateNormal(x, cov=cov).sample(random_state=rng)
    once = LabelPopulation.learn(x, *box, x, found, cov)
    often = LabelPopulation.learn(
        np.repeat(x, 5, axis=0), *box, *(np.repeat(part, 5, axis=0) for part in (x, found, cov))
    )
    assert_array_equal(often.centres, once.centres)
    assert_allclose(often.weight, once.weight)
    assert_allclose(often.width, once.width, rtol=0.01)


@pytest.mark.filterwarnings("ignore::skspec.base.CorrelatedLabelsWarning")
@pytest.mark.parametrize("more", ["constant", "multiple"])
def test_a_label_that_says_nothing_new_changes_nothing(sequence, more):
    train, y, test, truth = sequence
    extra = {"constant": 1.0, "multiple": 2 * y["feh"] + 0.1}[more]
    rmse = [
        np.sqrt(np.mean((model.fit(train, labels).predict(test)[:, :3] - truth) ** 2, axis=0))
        for model, labels in (
            (TheCannon(1, label_prior="training"), y),
            (TheCannon(1, label_prior="training"), y.assign(more=extra)),
        )
    ]
    assert_allclose(rmse[1], rmse[0], rtol=0.05)


def test_constant_label_and_few_stars(sequence):
    train, y, test, _ = sequence
    same = y[:12].assign(feh=0.1)
    found = TheCannon(1, label_prior="training").fit(train[:12], same).predict_dist(test)
    assert_allclose(found.mean()[:, 2], 0.1, atol=1e-6)
    assert np.isfinite(found.mean()).all() and np.isfinite(found.std()).all()


def test_one_label(sequence):
    train, y, test, truth = sequence
    model = TheCannon(1, label_prior="training").fit(train, y["teff"])
    flat = model.invert(test).likelihood.mean()[:, 0]
    assert np.mean(np.abs(model.predict(test) - truth[:, 0])) < np.mean(np.abs(flat - truth[:, 0]))


def test_inside_a_corrected_model(sequence):
    train, y, test, truth = sequence
    model = CorrectedModel(TheCannon(1, label_prior="training")).fit(train, y)
    flat = model.invert(test).likelihood.mean()
    assert np.mean(np.abs(model.predict(test) - truth)[:, 1]) < np.mean(np.abs(flat - truth)[:, 1])


def test_formal_errors_are_not_put_around_posterior_means(sequence):
    train, y, *_ = sequence
    methods = {p: TheCannon(1, label_prior=p) for p in ("flat", "training")}
    run = compare(methods, train, y, cv=3, random_state=0)
    assert run.results["flat"].formal_cov is not None
    assert run.results["training"].formal_cov is None


@pytest.mark.parametrize("label_covariance", [False, True])
def test_samples_are_those_of_the_prior_times_the_likelihood(label_covariance):
    pytest.importorskip("emcee")
    box = {"teff": (5300, 6100), "logg": (3.6, 4.6), "feh": (-0.4, 0.2)}
    spectra, labels = make_spectra(320, n_pixels=300, snr=100, random_state=0, label_ranges=box)
    # of a linear model, whose likelihood is a Gaussian
    model = TheCannon(1, label_prior="training", label_covariance=label_covariance)
    model.fit(spectra[:300], labels[:300])
    test, box = spectra[300:], model._likelihood.training
    result = model.invert(test)
    x = model._to_scaled(result.likelihood.mean())
    room = np.minimum(x - box.lower, box.upper - x) / (result.likelihood.std() / model.label_scale_)
    # the box cuts the samples, but not the Gaussian
    inside = np.flatnonzero(room.min(axis=1) > 3)[:3]
    assert len(inside) == 3
    expected = model.invert(test[inside]).dist
    found = sample_posterior(model, test[inside], n_steps=1500, random_state=0)
    assert np.all(np.abs(found.mean() - expected.mean()) < 0.15 * expected.std())
    assert_allclose(found.dist.std(), expected.std(), rtol=0.15)
