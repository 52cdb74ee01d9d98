import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec.datasets import make_spectra
from skspec.forward import SLAM, TheCannon
from skspec.forward._training import unseen_sums
from skspec.likelihood import Inversion, NormalEquations
from skspec.likelihood._label_errors import (
    LabelErrors,
    LabelErrorSum,
    LocalCovariance,
    excess_covariance,
)

TRUTH = np.array([[4.0, 1.2], [1.2, 1.0]])


def draw_errors(n, rng, heavy=0.0, formal=None):
    """Errors of covariance TRUTH plus a formal one that varies from star to star."""
    if formal is None:
        root = rng.uniform(0.2, 2, (n, 1, 1)) * rng.normal(size=(n, 2, 2))
        formal = root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(2)
    chol = np.linalg.cholesky(formal + TRUTH)
    error = (chol @ rng.normal(size=(n, 2, 1)))[..., 0]
    wrong = rng.random(n) < heavy
    error[wrong] += 100 * rng.normal(size=(wrong.sum(), 2))
    return LabelErrors(error, formal, np.ones(n, dtype=bool))


def test_gaussian_errors_give_back_their_covariance():
    cov = excess_covariance(draw_errors(40_000, np.random.default_rng(0)))
    # the correlation is that of the total errors, so it is a little too weak or too strong
    assert_allclose(np.diag(cov), np.diag(TRUTH), rtol=0.05)
    same = np.full((40_000, 1, 1), 0.01) * np.eye(2)
    cov = excess_covariance(draw_errors(40_000, np.random.default_rng(1), formal=same))
    assert_allclose(cov, TRUTH, rtol=0.05)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 300), st.sampled_from([0.0, 0.1]), st.integers(0, 99))
def test_two_thirds_are_covered_by_construction(n, heavy, seed):
    errors = draw_errors(n, np.random.default_rng(seed), heavy)
    cov = excess_covariance(errors)
    value = np.linalg.eigvalsh(cov)
    assert value.min() >= -1e-9 * max(value.max(), 1e-9)
    assert_allclose(cov, cov.T)
    total = np.diagonal(errors.formal, axis1=1, axis2=2) + np.diag(cov)
    covered = np.mean(errors.error**2 <= total * (1 + 1e-9), axis=0)
    assert np.all(covered >= 0.6827 - 1.5 / n)
    enlarged = np.diag(cov) > 0
    assert np.all(covered[enlarged] <= 0.6827 + 1.5 / n)


def test_no_more_than_needed():
    """Errors smaller than the formal ones need no addition."""
    rng = np.random.default_rng(0)
    formal = np.repeat(np.eye(2)[None], 500, axis=0)
    errors = LabelErrors(0.5 * rng.normal(size=(500, 2)), formal, np.ones(500, dtype=bool))
    assert_array_equal(excess_covariance(errors), 0)


def test_a_few_wrong_labels_do_no_harm():
    rng = np.random.default_rng(0)
    clean = excess_covariance(draw_errors(4000, rng))
    spoilt = excess_covariance(draw_errors(4000, rng, heavy=0.05))
    assert np.all(np.diag(spoilt) < 1.6 * np.diag(clean))
    errors = draw_errors(4000, rng, heavy=0.05)
    assert np.all(errors.error.var(axis=0) > 20 * np.diag(clean))  # the textbook estimate: ruined


def test_a_few_wrong_labels_do_not_turn_the_correlation():
    errors = draw_errors(4000, np.random.default_rng(0))
    before = excess_covariance(errors)
    errors.error[::100] = [100.0, -100.0]
    after = excess_covariance(errors)
    assert before[0, 1] > 0.3
    assert after[0, 1] > 0.6 * before[0, 1]


def test_stars_without_information_do_not_count():
    rng = np.random.default_rng(0)
    errors = draw_errors(300, rng)
    informed = rng.random(300) < 0.7
    error = np.where(informed[:, None], errors.error, 1e6)
    some = excess_covariance(LabelErrors(error, errors.formal, informed))
    dropped = excess_covariance(
        LabelErrors(errors.error[informed], errors.formal[informed], informed[informed])
    )
    assert_array_equal(some, dropped)
    one = LabelErrors(errors.error, errors.formal, np.arange(300) == 5)
    assert_array_equal(excess_covariance(one), 0)


def add(total, weight, residual, jacobian, curvature):
    """Some pixels of all stars."""
    n_good = np.count_nonzero(weight, axis=1)
    total.put(slice(None), NormalEquations.of(jacobian, residual, weight), n_good, curvature)


def test_one_newton_step_solves_a_quadratic():
    """For flux linear in the labels the step is exact; with curvature it is Newton's."""
    rng = np.random.default_rng(0)
    jacobian, weight = rng.normal(size=(5, 2, 30)), rng.uniform(1, 3, (5, 30))
    off = rng.normal(size=(5, 2))
    residual = np.einsum("nk,nkp->np", off, jacobian)
    total = LabelErrorSum(5, 2)
    for pixels in (slice(0, 10), slice(10, 30)):
        add(
            total,
            weight[:, pixels],
            residual[:, pixels],
            jacobian[..., pixels],
            0.0,
        )
    errors = total.errors()
    assert_allclose(errors.error, off, rtol=1e-5)
    fisher = np.einsum("nkp,np,nlp->nkl", jacobian, weight, jacobian)
    assert_allclose(errors.formal, np.linalg.inv(fisher), rtol=1e-5)
    assert errors.informed.all()
    bent = LabelErrorSum(5, 2)
    curvature = 0.2 * fisher
    add(bent, weight, residual, jacobian, curvature)
    assert_allclose(bent.errors().error, off / 0.8, rtol=1e-5)
    assert_allclose(bent.errors().first_order, off, rtol=1e-5)
    wild = LabelErrorSum(5, 2)  # a maximum of chi2: the step stays bounded
    add(wild, weight, residual, jacobian, 3 * fisher)
    assert_allclose(wild.errors().error, off / 0.2, rtol=1e-5)


def test_a_star_without_weight_is_not_informed():
    total = LabelErrorSum(2, 1)
    weight = np.array([[1.0, 2.0], [0.0, 0.0]])
    add(total, weight, np.ones((2, 2)), np.ones((2, 1, 2)), 0.0)
    assert_array_equal(total.errors().informed, [True, False])
    assert np.isfinite(total.errors().formal).all()


def test_outliers_are_robust():
    errors = draw_errors(500, np.random.default_rng(3))
    wrong = np.arange(0, 500, 20)
    errors.error[wrong, 0] += 60
    found = np.flatnonzero(errors.outliers(excess_covariance(errors), 5))
    assert set(wrong) <= set(found)
    assert len(found) <= len(wrong) + 3
    errors.informed[wrong[0]] = False
    assert wrong[0] not in np.flatnonzero(errors.outliers(excess_covariance(errors), 5))


def test_a_weakly_held_label_is_not_a_wrong_one():
    """Curvature that magnifies an error five times makes no outlier; a wrong label does."""
    rng = np.random.default_rng(0)
    off = rng.normal(size=(400, 2))
    off[7] = 12.0
    jacobian, weight = rng.normal(size=(400, 2, 30)), np.ones((400, 30))
    residual = np.einsum("nk,nkp->np", off, jacobian)
    fisher = jacobian @ np.swapaxes(jacobian, 1, 2)
    weak = np.arange(400) % 10 == 0
    total = LabelErrorSum(400, 2)
    add(total, weight, residual, jacobian, 3 * fisher * weak[:, None, None])
    errors = total.errors()
    assert_allclose(errors.error[weak], 5 * off[weak], rtol=1e-5)  # counts in the covariance
    assert_array_equal(np.flatnonzero(errors.outliers(np.zeros((2, 2)), 5)), [7])


def test_local_covariance_follows_the_errors():
    """Three times the error on one side: each side has its own two thirds."""
    rng = np.random.default_rng(0)
    errors = draw_errors(6000, rng, formal=np.tile(0.01 * np.eye(2), (6000, 1, 1)))
    x = rng.uniform(-2, 2, (6000, 2))
    worse = x[:, 0] > 0
    errors.error[worse] *= 3
    local = LocalCovariance.around(x, x, errors)
    cov = local.near(np.arange(6000)[:, None])
    assert np.linalg.eigvalsh(cov).min() > 0
    far = np.abs(x[:, 0]) > 0.8  # no neighbours from the other side
    covered = errors.error**2 < 0.01 + np.diagonal(cov, axis1=1, axis2=2)
    for side, factor in ((worse, 9), (~worse, 1)):
        assert_allclose(cov[far & side].mean(axis=0), factor * TRUTH, rtol=0.25)
        assert_allclose(covered[side].mean(axis=0), 0.68, atol=0.04)
    overall = 0.01 + np.diag(excess_covariance(errors))
    assert np.all((errors.error[~worse] ** 2 < overall).mean(axis=0) > 0.85)  # too wide there


def test_local_covariance_goes_as_the_quantile_of_the_nearest_stars():
    """And holds the share of all stars that it promises, those at the edge included."""
    rng = np.random.default_rng(1)
    errors, x = draw_errors(450, rng), rng.normal(size=(450, 3))
    informed = rng.random(450) < 0.8
    error = np.where(informed[:, None], errors.error, 1e6)
    error *= 1 + np.linalg.norm(x, axis=1)[:, None]  # worse outside
    local = LocalCovariance.around(x, x, LabelErrors(error, errors.formal, informed))
    excess, ratio = error**2 - errors.formal_variance, []
    for centre, variance in zip(x[:7], local.variance):
        distance = np.where(informed, np.linalg.norm(x - centre, axis=1), np.inf)
        near = np.argsort(distance)[:200]
        ratio.append(variance / np.quantile(excess[near], 0.682689492, axis=0).clip(0))
    assert_allclose(ratio, np.tile(ratio[0], (7, 1)))
    held = (excess <= local.variance)[informed].mean(axis=0)
    assert_allclose(held, 0.6827, atol=0.005)
    assert np.all(ratio[0] > 1)
    rows = np.array([[0, 1, 2], [4, 5, 6]])
    diagonal = np.diagonal(local.near(rows), axis1=1, axis2=2)
    assert_allclose(diagonal, local.variance[rows].mean(axis=1))


@pytest.mark.parametrize("n", [0, 1, 2, 200])
def test_few_stars_share_one_covariance(n):
    rng = np.random.default_rng(2)
    errors, x = draw_errors(250, rng), rng.normal(size=(250, 2))
    few = LabelErrors(errors.error, errors.formal, np.arange(250) < n)
    cov = LocalCovariance.around(x, x, few).near(np.arange(12).reshape(4, 3))
    assert_allclose(cov, np.tile(excess_covariance(few), (4, 1, 1)), atol=1e-12)


# -- in the models ---------------------------------------------------------------------------------

MODELS = {"TheCannon": TheCannon(), "SLAM": SLAM(C=2, gamma=0.2)}
every_model = pytest.mark.parametrize("name", MODELS)


def new(name, **parameters):
    return type(MODELS[name])(**(MODELS[name].get_params() | parameters))


@every_model
def test_covariance_is_that_of_the_errors_of_the_training_stars(name, draw_stars):
    spectra, labels = draw_stars(150, wiggle=1.0, noise=0.003)
    model = new(name).fit(spectra, labels)
    result = model.invert(spectra)
    assert_allclose(result.dist.cov(), result.formal_cov + model.label_covariance_, rtol=1e-9)
    z = np.abs(model.cv_label_errors_) / result.dist.std()
    assert_allclose(np.mean(z < 1, axis=0), 0.68, atol=0.07)
    if name == "TheCannon":  # SLAM knows how to follow the sine
        formal = np.abs(model.cv_label_errors_) / result.formal_dist.std()
        assert np.mean(formal < 1) < 0.6


@every_model
def test_fresh_stars_are_covered(name, draw_stars):
    """A model that is wrong (the sine) covers fresh stars all the same; photons alone do not."""
    model = new(name).fit(*draw_stars(250, wiggle=1.0, noise=0.003))
    spectra, labels = draw_stars(600, wiggle=1.0, noise=0.003, seed=1)
    result = model.invert(spectra)
    error = np.abs(result.labels - labels.to_numpy())
    assert 0.6 < np.mean(error < result.dist.std()) < 0.77
    if name == "TheCannon":
        assert np.mean(error < result.formal_dist.std()) < 0.6


def test_each_star_has_the_covariance_of_its_neighbours(draw_stars):
    """The sine leaves larger errors in some places than in others."""
    train, (spectra, _) = draw_stars(400, wiggle=1.0, noise=0.003), draw_stars(50, seed=1)
    model = TheCannon().fit(*train)
    result = model.invert(spectra)
    assert result.model_cov.shape == (50, 3, 3)
    assert_allclose(result.dist.cov(), result.formal_cov + result.model_cov, rtol=1e-9)
    share = np.diagonal(result.model_cov, axis1=1, axis2=2) / np.diag(model.label_covariance_)
    assert np.all(share.max(axis=0) > 1.2 * share.min(axis=0))
    units = np.array([1e-3, 10.0, 1.0])
    other = TheCannon().fit(train[0], train[1] * units).invert(spectra)
    scale = np.sqrt(np.outer(*2 * [np.diag(model.label_covariance_)]))
    assert_allclose(
        other.model_cov / np.outer(units, units) / scale, result.model_cov / scale, atol=1e-2
    )
    alone = model.invert(spectra[7:8])
    assert_allclose(alone.model_cov[0] / scale, result.model_cov[7] / scale, atol=1e-3)


def test_stars_removed_by_cleaning_count_for_their_neighbours(draw_stars):
    spectra, labels = draw_stars(300)
    wrong = np.flatnonzero(labels["teff"] < np.quantile(labels["teff"], 0.5))[::5]
    spoilt = labels.copy()
    spoilt.iloc[wrong, 0] += 800
    model = TheCannon(clean_training=4.0).fit(spectra, spoilt)
    assert len(set(wrong) & set(model.training_outliers_)) > 0.5 * len(wrong)
    kept = np.setdiff1d(np.arange(300), model.training_outliers_)
    again = TheCannon().fit(spectra[kept], spoilt.iloc[kept])
    fresh, _ = draw_stars(50, seed=1)
    variance, without = (m.invert(fresh).model_cov[:, 0, 0] for m in (model, again))
    assert variance.mean() > 1.15 * without.mean()


@every_model
@pytest.mark.parametrize("n_sigma", [4.0, 6.0])
def test_cleaning_finds_planted_wrong_labels(name, n_sigma, draw_stars):
    spectra, labels = draw_stars(200, bad=0.01)
    rng = np.random.default_rng(1)
    cool = np.flatnonzero(labels["teff"] < 5500)
    wrong = np.sort(rng.choice(cool, 10, replace=False))  # 5 %
    spoilt = labels.copy()
    spoilt.iloc[wrong, 0] += 800
    model = new(name, clean_training=n_sigma).fit(spectra, spoilt)
    assert set(wrong) <= set(model.training_outliers_)  # rows of the set as it was given
    assert len(model.training_outliers_) <= 10 + (14 if n_sigma == 4 else 5)
    assert_array_equal(model.training_outliers_, np.unique(model.training_outliers_))
    assert model.cv_label_errors_.shape == (200, 3)
    assert np.all(model.cv_label_errors_[wrong, 0] < -500)  # predicted minus given
    plain = new(name).fit(spectra, spoilt)
    assert not hasattr(plain, "training_outliers_") or plain.training_outliers_.size == 0
    fresh, truth = draw_stars(200, seed=7)
    error = [np.abs(m.predict(fresh) - truth)["teff"].mean() for m in (plain, model)]
    assert error[1] < 0.9 * error[0]
    kept = np.setdiff1d(np.arange(200), model.training_outliers_)
    again = new(name).fit(spectra[kept], spoilt.iloc[kept])
    if name == "SLAM":  # TheCannon keeps the scaling of all labels, and the polynomial the same
        assert model.dual_coef_.shape == (len(kept), 50)
    else:
        assert_allclose(model.predict_flux(truth), again.predict_flux(truth), atol=1e-5)


@every_model
def test_cleaning_a_clean_set_removes_next_to_nothing(name, draw_stars):
    spectra, labels = draw_stars(200)
    assert len(new(name, clean_training=6.0).fit(spectra, labels).training_outliers_) <= 3
    one = (
        new(name, clean_training=2.0, inversion=Inversion(clean_rounds=1))
        .fit(spectra, labels)
        .training_outliers_
    )
    more = (
        new(name, clean_training=2.0, inversion=Inversion(clean_rounds=3))
        .fit(spectra, labels)
        .training_outliers_
    )
    assert 5 < len(one) < len(more)
    assert set(one) <= set(more)


def test_reduced_chi2_is_that_of_the_best_fit():
    """Residuals less what the labels explain, per degree of freedom, in whatever pieces they come."""
    rng = np.random.default_rng(3)
    jacobian, residual = rng.normal(size=(4, 2, 50)), rng.normal(size=(4, 50))
    weight = rng.uniform(0.5, 2, size=(4, 50))
    weight[:, 10] = 0.0
    weight[3, 2:] = 0.0
    total = LabelErrorSum(4, 2)
    for part in (slice(0, 20), slice(20, 50)):
        add(total, weight[:, part], residual[:, part], jacobian[:, :, part], 0.0)
    got = total.errors().reduced_chi2
    for star in range(3):
        root = np.sqrt(weight[star])
        left = np.linalg.lstsq((jacobian[star] * root).T, residual[star] * root)[1]
        assert_allclose(got[star], left[0] / 47, rtol=1e-4)
    assert np.isnan(got[3])


def test_domain_score_needs_stars_held_out(draw_stars):
    model = TheCannon(label_covariance=False).fit(*draw_stars(60))
    assert model.invert(draw_stars(5)[0]).domain_score is None
    with pytest.raises(ValueError, match="label_covariance=True"):
        model.domain_score(draw_stars(5)[0])


@pytest.mark.parametrize("options", [{}, {"censoring": {"feh": np.arange(400) % 3 == 0}}])
def test_errors_of_noisy_stars_are_those_of_models_without_them(options):
    """Their noise is in the curvature of the model as well, and adds up over pixels."""
    spectra, labels = make_spectra(250, population="field", snr=6, n_pixels=400, random_state=0)
    model = TheCannon(**options).fit(spectra, labels)
    stars, expected = np.arange(0, 250, 9), []
    for i in stars:
        rest = np.arange(250) != i
        other = TheCannon(label_covariance=False, **options).fit(spectra[rest], labels[rest])
        x = other._to_scaled(labels[~rest].to_numpy())
        sums = unseen_sums(other, x, spectra[~rest], other._errors)
        expected.append(sums.errors().error[0] * other.label_scale_)
    expected, found = np.array(expected), model.cv_label_errors_[stars]
    assert np.all(np.std(found - expected, axis=0) < 0.1 * np.std(expected, axis=0))
    assert_allclose(np.std(found, axis=0), np.std(expected, axis=0), rtol=0.05)
