import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skspec import MultivariateNormal, Spectra, domain_score, predict_dist
from skspec.base import LabelRegressor
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.ensemble import DeepEnsembleRegressor
from skspec.metrics import coverage
from skspec.preprocessing import ContinuumNormalizer

RIDGE = ResidualCovarianceRegressor()


class Drawn(LabelRegressor):
    """Mean and covariance drawn with the seed; `broken` seeds (modulo 4) predict rubbish or NaN."""

    def __init__(self, random_state=None, rubbish=None):
        self.random_state = random_state
        self.rubbish = rubbish

    def fit(self, X, y):
        _, y = self._validate_fit(X, y)
        self.y_, self.n_fitted_ = y, len(y)
        return self

    def predict_dist(self, X):
        rng = np.random.default_rng(self.random_state)
        mean = np.mean(self.y_, axis=0) + rng.normal(size=(len(self._validate_predict(X)), 2))
        if self.random_state % 4 == 0 and self.rubbish is not None:
            mean = mean + self.rubbish
        root = rng.normal(size=(len(mean), 2, 2))
        return MultivariateNormal(
            mean, cov=root @ np.swapaxes(root, 1, 2), label_names=self.label_names_in_
        )


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 4)), rng.normal(size=(30, 2))


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.integers(0, 100))
def test_moments_are_those_of_the_mixture(n_members, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(10, 4)), [100.0, 1e-2] * rng.normal(size=(10, 2))
    model = DeepEnsembleRegressor(Drawn(), n_members, random_state=seed).fit(X, y)
    members, dist = model.predict_members(X), model.predict_dist(X)
    draws = np.concatenate([m.sample(40_000, random_state=k) for k, m in enumerate(members)])
    sigma = dist.std() / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - dist.mean()) < 6 * sigma)
    sampled = np.einsum("sni,snj->nij", draws - dist.mean(), draws - dist.mean()) / len(draws)
    unit = dist.std()[:, :, None] * dist.std()[:, None, :]
    assert np.max(np.abs(sampled - dist.cov()) / unit) < 0.05


def test_far_from_zero_nothing_is_lost():
    """mean(mu^2) - mean(mu)^2 of labels near 1e9 would be rounding only."""
    parts = [MultivariateNormal([[1e9 + step]], scale=[[1e-3]]) for step in (0.0, 2e-3)]
    assert_allclose(MultivariateNormal.mixture(parts).var(), 2e-6, rtol=1e-3)


def test_seeds_make_the_members(noise):
    model = DeepEnsembleRegressor(make_pipeline(Drawn()), 4, random_state=0).fit(*noise)
    last = [member.steps[-1][1] for member in model.estimators_]
    assert len({member.random_state for member in last}) == 4
    assert all(member.n_fitted_ == 30 for member in last)
    again = clone(model).fit(*noise).predict_dist(noise[0])
    assert_array_equal(again.cov(), model.predict_dist(noise[0]).cov())
    other = clone(model).set_params(random_state=1).fit(*noise).predict(noise[0])
    assert not np.allclose(other, model.predict(noise[0]))


def test_stars_make_the_members_of_a_method_without_seeds(draw_stars):
    spectra, labels = draw_stars(100)
    auto = DeepEnsembleRegressor(RIDGE, 3, random_state=0)
    assert [len(m.residuals_) for m in auto.fit(spectra, labels).estimators_] == [64] * 3
    few = DeepEnsembleRegressor(RIDGE, 3, max_samples=20).fit(spectra, labels)
    assert [len(m.residuals_) for m in few.estimators_] == [20] * 3
    star = np.repeat(np.arange(25), 4)
    grouped = spectra.replace(meta={"star_id": star, "row": np.arange(100)})

    class Rows(ResidualCovarianceRegressor):
        def fit(self, X, y):
            self.rows_ = X.meta["row"]
            return super().fit(X, y)

    for member in (
        DeepEnsembleRegressor(Rows(), 3, max_samples=0.4).fit(grouped, labels).estimators_
    ):
        assert_array_equal(np.bincount(star[member.rows_])[np.unique(star[member.rows_])], 4)
        assert len(member.rows_) == 40


def test_members_that_are_all_the_same(draw_stars):
    ridge = ResidualCovarianceRegressor(Ridge())  # has a seed, and no use for it
    with pytest.warns(UserWarning, match="members are all the same.*max_samples=0.632"):
        DeepEnsembleRegressor(ridge, 2).fit(*draw_stars(40))
    DeepEnsembleRegressor(ridge, 2, max_samples=0.632).fit(*draw_stars(40))


def test_better_and_no_less_honest_than_a_member(draw_stars):
    """Where few stars make the members vary."""
    train, (spectra, labels) = draw_stars(60, noise=0.03), draw_stars(1000, noise=0.03, seed=1)
    model = DeepEnsembleRegressor(RIDGE, 8, random_state=0).fit(*train)
    dist, truth = model.predict_dist(spectra), labels.to_numpy()
    error = np.abs(dist.mean() - truth).mean(axis=0)
    alone = [np.abs(d.mean() - truth).mean(axis=0) for d in model.predict_members(spectra)]
    assert np.all(error < np.mean(alone, axis=0))
    assert np.all(dist.var() > np.mean([d.var() for d in model.predict_members(spectra)], axis=0))
    # sixty stars would tell their own coverage to 6 % only
    calibrated = CalibratedRegressor(FrozenEstimator(model)).fit(
        *draw_stars(600, noise=0.03, seed=2)
    )
    assert_allclose(coverage(labels, calibrated.predict_dist(spectra)), 0.6827, atol=0.06)


@pytest.mark.parametrize("rubbish", [50.0, np.nan])
@pytest.mark.parametrize("max_samples", [1.0, 0.5])
def test_failed_members_are_dropped(noise, rubbish, max_samples):
    model = DeepEnsembleRegressor(
        Drawn(rubbish=rubbish), 12, drop=3.5, max_samples=max_samples, random_state=1
    ).fit(*noise)
    seeds = np.random.RandomState(1).randint(2**31 - 1, size=12)  # noqa: NPY002
    assert 0 < np.sum(seeds % 4 == 0) < 6
    assert not model.kept_[seeds % 4 == 0].any()
    assert len(model.estimators_) == model.kept_.sum() >= 6
    assert np.abs(model.predict(noise[0])).max() < 3
    everyone = clone(model).set_params(drop=None).fit(*noise)
    assert len(everyone.estimators_) == 12
    assert not np.abs(everyone.predict(noise[0])).max() < 3
    assert np.isnan(everyone.member_errors_).all()


def test_every_member_failed(noise):
    class Failed(Drawn):
        def predict_dist(self, X):
            dist = super().predict_dist(X)
            return MultivariateNormal(np.nan * dist.mean(), cov=dist.cov())

    with pytest.raises(ValueError, match="Every member of the ensemble predicts NaN"):
        DeepEnsembleRegressor(Failed(), drop=3.5, random_state=0).fit(*noise)


def test_stars_without_information_and_domain_score(draw_stars):
    spectra, labels = draw_stars(60)
    model = DeepEnsembleRegressor(RIDGE, 3, random_state=0).fit(spectra, labels)
    ivar = spectra.ivar.copy()
    ivar[5] = 0
    spectra = spectra.replace(ivar=ivar)
    dist, score = model.predict_dist(spectra), domain_score(model, spectra)
    assert np.isnan(dist.mean()[5]).all() and np.isinf(dist.std()[5]).all()
    assert np.isnan(score[5])
    each = [domain_score(member, spectra) for member in model.estimators_]
    assert_array_equal(score, np.mean(each, axis=0))
    shifted = Spectra(np.roll(spectra.flux, 3, axis=1), ivar=spectra.ivar)
    assert np.nanmedian(domain_score(model, shifted)) > np.nanmedian(score)


def test_in_pipelines_and_searches(draw_stars):
    spectra, labels = draw_stars(60)
    pipeline = make_pipeline(ContinuumNormalizer(width=1e4), DeepEnsembleRegressor(RIDGE, 2))
    grid = {"deepensembleregressor__n_members": [1, 3]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(spectra, labels)
    assert predict_dist(search, spectra).label_names == ["teff", "logg", "feh"]
