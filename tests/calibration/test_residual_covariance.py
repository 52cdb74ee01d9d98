from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.ensemble import AdaBoostRegressor
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import check_estimator

from skspec import Spectra, domain_score, predict_dist
from skspec.calibration import ResidualCovarianceRegressor
from skspec.metrics import coverage


@pytest.fixture(scope="module")
def stars():
    rng = np.random.default_rng(0)
    labels = np.array([5500, 4.0]) + np.array([500, 0.5]) * rng.normal(size=(900, 2))
    flux = 1 + (labels - [5500, 4.0]) / [500, 0.5] @ (0.05 * rng.normal(size=(2, 40)))
    flux += 0.02 * rng.normal(size=flux.shape)
    return flux, pd.DataFrame(labels, columns=["teff", "logg"])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("robust", [False, True])
def test_check_estimator(robust):
    assert SkipTestWarning  # only the array-API check skips itself
    check_estimator(ResidualCovarianceRegressor(robust=robust))


@pytest.mark.parametrize("robust", [False, True])
def test_covers_what_it_promises(stars, robust):
    flux, labels = stars
    model = ResidualCovarianceRegressor(robust=robust).fit(flux[:600], labels[:600])
    dist = model.predict_dist(flux[600:])
    truth = labels[600:].to_numpy()
    assert_allclose(coverage(truth, dist, 1), 0.6827, atol=0.07)
    assert_allclose(coverage(truth, dist, 2), 0.9545, atol=0.03)
    assert np.mean(dist.mahalanobis(truth) ** 2) == pytest.approx(2, rel=0.2)


def test_covariance_is_that_of_the_out_of_fold_residuals(stars):
    flux, labels = stars
    cv = KFold(4)
    model = ResidualCovarianceRegressor(LinearRegression(), cv=cv).fit(flux, labels)
    y = labels.to_numpy()
    residuals = y - cross_val_predict(LinearRegression(), flux, y, cv=cv)
    assert_allclose(model.residuals_, residuals, atol=1e-6)
    assert_allclose(model.label_covariance_, residuals.T @ residuals / len(y), rtol=1e-6)
    assert_allclose(model.predict(flux), LinearRegression().fit(flux, y).predict(flux))


def test_robust_shrugs_off_outliers(stars):
    flux, labels = stars
    spoilt = labels.copy()
    spoilt.iloc[::50, 0] += 5_000
    plain = ResidualCovarianceRegressor().fit(flux, spoilt).label_covariance_
    robust = ResidualCovarianceRegressor(robust=True).fit(flux, spoilt).label_covariance_
    assert robust[0, 0] < 0.2 * plain[0, 0]
    np.linalg.cholesky(robust)


def test_label_units_change_only_units(stars):
    flux, labels = stars
    unit = np.array([1000.0, 1.0])
    one = ResidualCovarianceRegressor().fit(flux, labels).predict_dist(flux[:5])
    other = ResidualCovarianceRegressor().fit(flux, labels / unit).predict_dist(flux[:5])
    assert_allclose(other.mean() * unit, one.mean(), rtol=1e-6)
    assert_allclose(other.cov() * np.outer(unit, unit), one.cov(), rtol=1e-6)


def test_bad_pixels_change_nothing(stars):
    flux, labels = stars
    mask = np.random.default_rng(1).random(flux.shape) < 0.1
    spoilt = np.where(mask, 1e6, flux)
    model = ResidualCovarianceRegressor()
    one = model.fit(Spectra(flux, mask=mask), labels).predict(Spectra(flux, mask=mask))
    other = model.fit(Spectra(spoilt, mask=mask), labels).predict(Spectra(spoilt, mask=mask))
    assert_allclose(one, other)


def test_star_without_pixels_is_unknown(stars):
    flux, labels = stars
    model = ResidualCovarianceRegressor().fit(flux, labels)
    ivar = np.full((2, flux.shape[1]), np.inf)
    ivar[1] = 0
    dist = model.predict_dist(Spectra(flux[:2], ivar=ivar))
    assert np.isfinite(dist.mean()[0]).all() and np.isnan(dist.mean()[1]).all()
    assert np.isinf(dist.std()[1]).all()


def test_single_label_reaches_single_target_regressors(stars):
    flux, labels = stars
    model = ResidualCovarianceRegressor(SVR()).fit(flux[:100], labels["logg"][:100])
    mean, std = model.predict(flux[:3], return_std=True)
    assert mean.shape == std.shape == (3,)


def test_inside_a_search(stars):
    flux, labels = stars
    search = GridSearchCV(ResidualCovarianceRegressor(), {"robust": [False, True]}, cv=2)
    dist = predict_dist(search.fit(flux[:100], labels[:100]), flux[:4])
    assert dist.label_names == ["teff", "logg"]


def test_spectra_of_a_star_are_never_on_both_sides(stars):
    """Labels without any relation to the flux, five spectra of each star: only a leak predicts."""
    rng = np.random.default_rng(0)
    star = rng.permutation(np.repeat(np.arange(40), 5))
    flux = rng.normal(size=(40, 60))[star] + 0.01 * rng.normal(size=(200, 60))
    labels = rng.normal(size=(40, 1))[star]
    spectra = Spectra(flux, meta={"star_id": star})
    one = ResidualCovarianceRegressor(LinearRegression()).fit(flux, labels)
    assert one.label_covariance_[0, 0] < 0.05
    assert ResidualCovarianceRegressor().fit(spectra, labels).label_covariance_[0, 0] > 0.7
    with pytest.raises(ValueError, match="All spectra are of one star"):
        ResidualCovarianceRegressor().fit(spectra[star == 0], labels[star == 0])


class Folds(GroupKFold):
    """Three folds by group, noted."""

    seen: ClassVar[list] = []

    def split(self, X, y=None, groups=None):
        for fit, out in super().split(X, y, groups):
            self.seen.append((groups[fit], groups[out]))
            yield fit, out


@pytest.mark.parametrize("with_stars", [True, False])
@pytest.mark.parametrize(
    "around",
    [
        lambda search: search,
        lambda search: make_pipeline(StandardScaler(), MultiOutputRegressor(search)),
    ],
)
def test_a_search_by_group_gets_the_stars(around, with_stars, stars):
    flux, labels = stars
    star = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 3))
    search = GridSearchCV(Ridge(), {"alpha": [1.0, 10.0]}, cv=Folds(3))
    spectra = Spectra(flux[:90], meta={"star_id": star} if with_stars else {})
    Folds.seen = []
    model = ResidualCovarianceRegressor(around(search), cv=2).fit(spectra, labels[:90])
    # out of fold two fits to half of the stars, then one to all
    n_searches = 1 if around(search) is search else 2
    assert len(Folds.seen) == 3 * 3 * n_searches
    n_stars = 30 if with_stars else 90
    sizes = [len(set(fit) | set(out)) for fit, out in Folds.seen]
    assert sizes == [n_stars // 2] * 6 * n_searches + [n_stars] * 3 * n_searches
    assert not any(set(fit) & set(out) for fit, out in Folds.seen)
    assert model.predict(spectra).shape == (90, 2)


def test_a_meta_estimator_that_passes_nothing_on(stars):
    """Routing of metadata is asked for nobody who cannot have it."""
    flux, labels = stars
    spectra = Spectra(flux[:60], meta={"star_id": np.arange(60) // 2})
    boosted = AdaBoostRegressor(Ridge(), n_estimators=3, random_state=0)
    model = ResidualCovarianceRegressor(boosted).fit(spectra, labels["teff"][:60])
    assert np.isfinite(model.label_covariance_).all()


def test_domain_score(stars):
    flux, labels = stars
    model = ResidualCovarianceRegressor().fit(flux[:600], labels[:600])
    score = domain_score(model, flux[600:])
    assert score.shape == (300,)
    assert 0 < np.mean(score > 1) < 0.05
    assert np.median(domain_score(model, flux[600:, ::-1])) > 1.5
