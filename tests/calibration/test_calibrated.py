import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline

from skspec import MultivariateNormal, Spectra, domain_score, predict_dist
from skspec.base import LabelRegressor
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.forward import TheCannon
from skspec.metrics import coverage
from skspec.preprocessing import ContinuumNormalizer

CORR = np.array([[1.0, 0.6], [0.6, 1.0]])
UNIT = np.array([100.0, 0.2])


class Claims(LabelRegressor):
    """Reads the labels off the first two pixels and claims errors `claim` times `UNIT`."""

    def __init__(self, claim=1.0):
        self.claim = claim

    def fit(self, X, y):
        self._validate_fit(X, y)
        return self

    def predict_dist(self, X):
        flux = self._validate_predict(X).flux
        cov = self.claim**2 * CORR * np.outer(UNIT, UNIT)
        return MultivariateNormal(flux[:, :2], cov=cov, label_names=self.label_names_in_)


def draw(n, seed=0, *, tails=np.inf, noise=None, corr=CORR):
    """Spectra of S/N 20-200 whose first two pixels are the labels with errors of Student's t."""
    rng = np.random.default_rng(seed)
    labels = np.array([5500.0, 4.0]) + np.array([500, 0.5]) * rng.normal(size=(n, 2))
    snr = rng.uniform(20, 200, n)
    error = rng.normal(size=(n, 2)) @ np.linalg.cholesky(corr).T
    if np.isfinite(tails):
        error /= np.sqrt(rng.chisquare(tails, size=(n, 1)) / tails)
    scale = 1.0 if noise is None else (noise / snr)[:, None]
    flux = np.hstack([labels + scale * error * UNIT, np.ones((n, 5))])
    return Spectra(flux, flux_err=np.abs(flux) / snr[:, None]), pd.DataFrame(
        labels, columns=["teff", "logg"]
    )


# -- what is promised ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["scale", "conformal"])
@pytest.mark.parametrize("claim", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("tails", [np.inf, 3])
def test_one_sigma_holds_whatever_was_claimed(method, claim, tails):
    model = CalibratedRegressor(Claims(claim), method=method).fit(*draw(2000, tails=tails))
    spectra, labels = draw(4000, seed=1, tails=tails)
    dist = predict_dist(model, spectra)
    assert_allclose(coverage(labels, dist, 1), 0.6827, atol=0.03)
    assert_allclose(dist.corr(), np.broadcast_to(CORR, (4000, 2, 2)), atol=1e-9)
    assert_array_equal(dist.mean(), spectra.flux[:, :2])
    if np.isinf(tails):
        assert_allclose(model.scale_ * claim, 1, rtol=0.08)
        assert_allclose(coverage(labels, dist, 2), 0.9545, atol=0.015)


@pytest.mark.parametrize("level", [0.5, 0.6827, 0.9, 0.9545, 0.99])
def test_conformal_intervals_hold_at_every_level(level):
    """Student's t of 3 degrees: the Gaussian is wrong in the tails, order statistics are not."""
    model = CalibratedRegressor(Claims(), method="conformal").fit(*draw(3000, tails=3))
    spectra, labels = draw(6000, seed=1, tails=3)
    truth = labels.to_numpy()
    lower, upper = model.predict_interval(spectra, level)
    inside = np.mean((lower <= truth) & (truth <= upper), axis=0)
    assert_allclose(inside, level, atol=0.022)
    assert np.mean(model.contains(spectra, truth, level)) == pytest.approx(level, abs=0.022)
    gaussian = CalibratedRegressor(Claims()).fit(*draw(3000, tails=3))
    lower, upper = gaussian.predict_interval(spectra, 0.99)
    assert np.all(np.mean((lower <= truth) & (truth <= upper), axis=0) < 0.975)


@settings(deadline=None, max_examples=8)
@given(st.integers(20, 60), st.sampled_from([0.5, 0.8, 0.9]), st.integers(0, 1000))
def test_split_conformal_covers_at_least_the_level(n, level, seed):
    """On average over many small calibrations, of a method fitted before."""
    frozen = FrozenEstimator(Claims().fit(*draw(6)))
    spectra, labels = draw(2000, seed + 5000, tails=2)  # the same each time: they must be many
    rate, joint = [], []
    for k in range(60):
        model = CalibratedRegressor(frozen, method="conformal")
        model.fit(*draw(n, 100 * seed + k, tails=2))
        lower, upper = model.predict_interval(spectra, level)
        rate.append(np.mean((lower <= labels) & (labels <= upper)))
        joint.append(np.mean(model.contains(spectra, labels, level)))
    sigma = np.std(rate) / np.sqrt(60) + 0.5 / np.sqrt(
        2000
    )  # of the calibrations, and of the stars
    assert np.mean(rate) > level - 4 * sigma
    assert np.mean(joint) > level - 4 * sigma


def test_joint_region_is_honest_where_the_correlations_are_not():
    """Errors of the other correlation: intervals hold, the Gaussian ellipse does not."""
    wrong = {"corr": np.array([[1.0, -0.8], [-0.8, 1.0]])}
    train, (spectra, labels) = draw(2000, **wrong), draw(4000, seed=1, **wrong)
    scaled = CalibratedRegressor(Claims()).fit(*train)
    conformal = CalibratedRegressor(Claims(), method="conformal").fit(*train)
    assert_allclose(coverage(labels, scaled.predict_dist(spectra)), 0.6827, atol=0.03)
    assert np.mean(scaled.contains(spectra, labels)) < 0.6
    assert np.mean(conformal.contains(spectra, labels)) == pytest.approx(0.6827, abs=0.03)
    centre, matrix = conformal.joint_region(spectra, 0.9)
    offset = (labels.to_numpy() - centre)[:, :, None]
    inside = (np.swapaxes(offset, 1, 2) @ np.linalg.solve(matrix, offset))[:, 0, 0] <= 1
    assert_array_equal(inside, conformal.contains(spectra, labels, 0.9))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_gaussian_joint_region_is_that_of_chi_square():
    spectra, labels = draw(4000)
    model = CalibratedRegressor(Claims()).fit(spectra, labels)
    assert np.mean(model.contains(spectra, labels, 0.9)) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("method", ["scale", "conformal"])
@pytest.mark.parametrize("bins", [4, [40, 80, 140]])
def test_bins_of_snr_hold_in_each_bin(method, bins):
    """Errors go with 1 / S/N, which the method does not know."""
    train, (spectra, labels) = draw(20_000, noise=100), draw(20_000, seed=1, noise=100)
    plain = CalibratedRegressor(Claims(), method=method, noise_term=False)
    pooled, binned = clone(plain).fit(*train), clone(plain).set_params(snr_bins=bins).fit(*train)
    assert binned.scale_.shape == (5, 2)
    assert np.all(np.diff(binned.scale_[:4], axis=0) < 0)
    low, high = spectra.snr < binned.snr_edges_[0], spectra.snr >= binned.snr_edges_[-1]
    one, other = (coverage(labels[low], m.predict_dist(spectra[low])) for m in (pooled, binned))
    assert np.all(one < 0.55)
    assert_allclose(other, 0.6827, atol=0.04)
    assert_allclose(coverage(labels[high], binned.predict_dist(spectra[high])), 0.6827, atol=0.03)
    lower, upper = binned.predict_interval(spectra[low], 0.95)
    assert_allclose(np.mean((lower <= labels[low]) & (labels[low] <= upper)), 0.95, atol=0.04)
    unknown = spectra[:3].replace(ivar=None)  # unknown noise: as all stars
    with pytest.warns(UserWarning, match="without"):
        assert_allclose(
            binned.predict_dist(unknown).std(), pooled.scale_[0] * UNIT * np.ones((3, 1))
        )


@pytest.mark.parametrize("tails", [np.inf, 3])
def test_the_noise_term_makes_error_bars_follow_the_noise(tails):
    """Errors go with 1 / S/N, which the method does not know."""
    model = CalibratedRegressor(Claims(0.2)).fit(*draw(3000, noise=100, tails=tails))
    spectra, labels = draw(20_000, seed=1, noise=100, tails=tails)
    dist = predict_dist(model, spectra)
    for part in (spectra.snr < 50, spectra.snr > 150):
        assert_allclose(coverage(labels[part], dist[part], 1), 0.6827, atol=0.04)
    assert_allclose(model.noise_ * model.scale_[0], 100 * UNIT, rtol=0.2 if tails > 3 else 0.5)
    assert_allclose(dist.corr(), np.broadcast_to(CORR, (20_000, 2, 2)), atol=1e-9)
    unknown = spectra[:3].replace(ivar=None)  # a typical noise
    with pytest.warns(UserWarning, match="without"):
        low, high = np.quantile(dist.std()[:, 0], [0.3, 0.7])
        assert np.all(
            (low < model.predict_dist(unknown).std()[:, 0])
            & (model.predict_dist(unknown).std()[:, 0] < high)
        )


def test_no_noise_term_where_none_is_needed():
    spectra, labels = draw(3000)  # errors are the same at each S/N
    assert_array_equal(CalibratedRegressor(Claims()).fit(spectra, labels).noise_, 0)
    assert_array_equal(CalibratedRegressor(Claims()).fit(spectra.flux, labels).noise_, 0)
    model = CalibratedRegressor(Claims(), noise_term=False).fit(*draw(3000, noise=100))
    assert_array_equal(model.noise_, 0)


def test_maximum_likelihood_is_the_root_mean_square():
    spectra, labels = draw(500, tails=4)
    model = CalibratedRegressor(Claims(2.0), level=None).fit(spectra, labels)
    z = (labels - spectra.flux[:, :2]).to_numpy() / (2 * UNIT)
    assert_allclose(model.scale_[0], np.sqrt(np.mean(z**2, axis=0)))
    best = -predict_dist(model, spectra).marginal("teff").log_prob(labels[["teff"]]).mean()
    for factor in (0.9, 1.1):
        other = MultivariateNormal(spectra.flux[:, :1], scale=factor * model.scale_[0, 0] * 200)
        assert best < -other.log_prob(labels[["teff"]]).mean()


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from(["scale", "conformal"]), st.floats(1e-3, 1e3), st.booleans(), st.integers(0, 99)
)
def test_what_was_claimed_does_not_matter(method, claim, binned, seed):
    options = {"method": method, "snr_bins": 2 if binned else None, "cv": 3}
    train, test = draw(120, seed), draw(20, seed + 1)[0]
    one, other = (CalibratedRegressor(Claims(c), **options).fit(*train) for c in (1.0, claim))
    assert_allclose(one.predict_dist(test).cov(), other.predict_dist(test).cov(), rtol=1e-9)
    for lower, upper in zip(one.predict_interval(test, 0.9), other.predict_interval(test, 0.9)):
        assert_allclose(lower, upper, rtol=1e-9)


# -- how it is fitted ------------------------------------------------------------------------------


class Memory(LabelRegressor):
    """Knows the spectra it was fitted to by heart, and says 0 for others."""

    def fit(self, X, y):
        spectra, y = self._validate_fit(X, y)
        self.known_ = {flux[0]: labels for flux, labels in zip(spectra.flux, y)}
        return self

    def predict_dist(self, X):
        flux = self._validate_predict(X).flux
        mean = np.array([self.known_.get(value, np.zeros(1)) for value in flux[:, 0]])
        return MultivariateNormal(mean, scale=np.ones(mean.shape))


def test_scores_are_out_of_fold_and_spectra_of_a_star_stay_together():
    rng = np.random.default_rng(0)
    star = rng.permutation(np.repeat(np.arange(30), 4))
    flux = star[:, None] + np.ones((1, 3))  # the spectra of a star are all alike
    y = 1.0 + rng.random((30, 1))[star]
    alone = CalibratedRegressor(Memory(), method="conformal").fit(flux, y)
    assert np.mean(alone.scores_[0] == 0) > 0.9  # told by the other spectra of the star
    for model in (
        CalibratedRegressor(Memory()).fit(flux, y, groups=star),
        CalibratedRegressor(Memory()).fit(Spectra(flux, meta={"star_id": star}), y),
        CalibratedRegressor(Memory(), n_jobs=2).fit(Spectra(flux, meta={"group_id": star}), y),
    ):
        assert_allclose(model.scores_[0], np.sort(y, axis=0))
        assert_array_equal(model.predict(flux), y)  # the final fit has seen all
    with pytest.raises(ValueError, match="at least 2 stars in each of 3 folds, got 5"):
        alone.fit(flux[star < 5], y[star < 5], groups=star[star < 5])


class Moody(Claims):
    """Claims what its seed, here the labels of the first stars, says; a fifth of what it should."""

    def fit(self, X, y):
        seed = int(np.sum(np.asarray(y)[:5]) * 1e3)
        self.mood_ = 0.2 * np.random.default_rng(seed).lognormal(0, 0.7)
        return super().fit(X, y)

    def predict_dist(self, X):
        dist = super().predict_dist(X)
        return MultivariateNormal(
            dist.mean(), cov=dist.cov() * self.mood_**2, label_names=self.label_names_in_
        )


@pytest.mark.parametrize("ensemble", [False, True])
def test_models_that_claim_what_they_like(ensemble):
    """Fold by fold other error bars; the final model's are calibrated all the same."""
    for seed in range(4):
        train, (spectra, labels) = draw(1000, 2 * seed), draw(4000, 2 * seed + 1)
        model = CalibratedRegressor(Moody(), ensemble=ensemble).fit(*train)
        dist = model.predict_dist(spectra)
        assert_allclose(coverage(labels, dist), 0.6827, atol=0.05)
        assert np.mean(model.contains(spectra, labels, 0.9)) == pytest.approx(0.9, abs=0.04)


def test_frozen_estimators_are_calibrated_by_all_stars():
    flux, y = np.arange(40.0)[:, None] * np.ones((1, 3)), np.ones((40, 1))
    fitted = Memory().fit(flux[:20], y[:20])
    model = CalibratedRegressor(FrozenEstimator(fitted)).fit(flux[10:], y[10:])
    assert_array_equal(model.scores_[0][:, 0], np.repeat([0.0, 1.0], [10, 20]))
    assert model.estimators_[0].estimator is fitted
    with pytest.raises(ValueError, match="predicts 1 labels; y has 2"):
        CalibratedRegressor(FrozenEstimator(fitted)).fit(flux, np.ones((40, 2)))
    spectra, labels = draw(60)
    frozen = FrozenEstimator(Claims().fit(spectra, labels))
    with pytest.raises(ValueError, match="predicts teff, logg; y holds logg, teff. Give these"):
        CalibratedRegressor(frozen).fit(spectra, labels[["logg", "teff"]])
    assert CalibratedRegressor(frozen).fit(spectra, labels.to_numpy()).scale_.shape == (1, 2)


def test_ensemble_keeps_the_models_of_the_folds(draw_stars):
    train, (spectra, labels) = draw_stars(200, bad=0.02), draw_stars(300, seed=1)
    one = CalibratedRegressor(TheCannon(1), cv=4).fit(*train)
    many = CalibratedRegressor(TheCannon(1), cv=4, ensemble=True).fit(*train)
    assert (len(one.estimators_), len(many.estimators_)) == (1, 4)
    mixture = MultivariateNormal.mixture([predict_dist(m, spectra) for m in many.estimators_])
    dist = many.predict_dist(spectra)
    assert_allclose(dist.mean(), mixture.mean())
    assert_allclose(dist.std(), many.scale_ * mixture.std())
    for model in (one, many):
        assert_allclose(coverage(labels, model.predict_dist(spectra)), 0.6827, atol=0.12)


def test_any_splitter_and_pipelines_and_searches(draw_stars):
    spectra, labels = draw_stars(120)
    pipeline = make_pipeline(ContinuumNormalizer(width=1e4), TheCannon(1))
    cv = ShuffleSplit(1, test_size=0.5, random_state=0)
    model = CalibratedRegressor(pipeline, cv=cv).fit(spectra, labels)
    assert model.scores_[0].shape == (60, 3)  # the others were never predicted
    search = GridSearchCV(
        CalibratedRegressor(ResidualCovarianceRegressor(), cv=3),
        {"estimator__robust": [False, True]},
        cv=2,
    )
    assert predict_dist(search.fit(spectra, labels), spectra).shape == (120, 3)
    teff = CalibratedRegressor(TheCannon(1), method="conformal").fit(spectra, labels["teff"])
    lower, upper = teff.predict_interval(spectra, 0.8)
    assert lower.shape == upper.shape == (120,)
    assert teff.contains(spectra, labels["teff"], 0.8).shape == (120,)


def test_domain_score_is_that_of_the_method(draw_stars):
    spectra, labels = draw_stars(60)
    model = CalibratedRegressor(ResidualCovarianceRegressor()).fit(spectra, labels)
    assert_array_equal(domain_score(model, spectra), domain_score(model.estimators_[0], spectra))
    with pytest.raises(TypeError, match="Claims does not know how far"):
        domain_score(CalibratedRegressor(Claims()).fit(*draw(50)), draw(5)[0])


def test_stars_without_information(draw_stars):
    spectra, labels = draw_stars(80, bad=0.02)
    ivar = spectra.ivar.copy()
    ivar[[3, 70]] = 0
    spectra = spectra.replace(ivar=ivar)
    for bins in (None, 2):
        model = CalibratedRegressor(TheCannon(1), method="conformal", snr_bins=bins)
        model.fit(spectra, labels)
        assert len(model.scores_[-1]) == 78
        lower, upper = model.predict_interval(spectra, 0.5)
        _, matrix = model.joint_region(spectra, 0.5)
        for values in (lower, upper, matrix[:, 0, 0]):
            assert_array_equal(np.flatnonzero(~np.isfinite(values.reshape(80, -1)[:, 0])), [3, 70])
        assert not model.contains(spectra, labels, 0.9)[[3, 70]].any()


# -- mistakes --------------------------------------------------------------------------------------


def test_too_few_stars_for_a_level():
    model = CalibratedRegressor(Claims(), method="conformal").fit(*draw(15))
    lower, upper = model.predict_interval(draw(3)[0], 0.95)
    assert np.isneginf(lower).all() and np.isposinf(upper).all()
    assert model.contains(*draw(3), 0.95).all()
    assert np.isfinite(
        model.set_params(level=0.99).fit(*draw(15)).predict_dist(draw(3)[0]).std()
    ).all()


def test_mistakes_get_a_sentence():
    spectra, labels = draw(60)
    model = CalibratedRegressor(Claims()).fit(spectra, labels)
    for method in (model.predict_interval, model.joint_region):
        with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
            method(spectra, 95)
    with pytest.raises(ValueError, match="rising edges"):
        CalibratedRegressor(Claims(), snr_bins=[100, 50]).fit(spectra, labels)
    with pytest.raises(TypeError, match="predicts no distribution"):
        CalibratedRegressor(LinearRegression()).fit(spectra, labels)
    with pytest.raises(ValueError, match="groups of shape"):
        CalibratedRegressor(Claims()).fit(spectra, labels, groups=[1, 2])
