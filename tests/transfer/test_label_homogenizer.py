import os
import pickle
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

from skspec import Spectra
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import load_spectra
from skspec.forward import TheCannon
from skspec.preprocessing import BadPixelMasker
from skspec.transfer import LabelHomogenizer, LabelTranslator

DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "optical_common" / "optical_common.npz"
OFFSET, TREND = np.array([60.0, -0.1, 0.05]), np.array([0.05, -0.08, 0.1])
CENTRE = np.array([5500.0, 4.0, -0.3])
NOISE = np.array([25.0, 0.03, 0.02])


def scale_b(labels):
    return labels + OFFSET + TREND * (labels - CENTRE)


@pytest.fixture(scope="module")
def surveys(draw_stars):
    """Spectra, measured labels, names and truth of two surveys; 150 stars are common."""
    spectra, truth = draw_stars(300, noise=0.005)
    rng = np.random.default_rng(0)
    measured = [
        scale(truth) + NOISE * rng.normal(size=truth.shape) for scale in (lambda t: t, scale_b)
    ]
    name = np.array([f"star {i}" for i in range(300)])
    rows_a, rows_b = np.arange(0, 225), rng.permutation(np.r_[75:300])
    a = spectra[rows_a, :30], measured[0].iloc[rows_a], name[rows_a], truth.iloc[rows_a]
    b = spectra[rows_b, 20:], measured[1].iloc[rows_b], name[rows_b], scale_b(truth).iloc[rows_b]
    return a, b


def fit(model, a, b, **kwargs):
    return model.fit(a[0], a[1], b[0], b[1], **({"star_a": a[2], "star_b": b[2]} | kwargs))


def quick(method=None, other=None, **kwargs):
    return LabelHomogenizer(method or TheCannon(1), other, **({"cv": 2, "correct": False} | kwargs))


@pytest.fixture(scope="module")
def fitted(surveys):
    return fit(LabelHomogenizer(TheCannon(), cv=3), *surveys, label_std_a=NOISE, label_std_b=NOISE)


def test_stars_are_matched_by_name(fitted, surveys):
    a, b = surveys
    assert sorted(fitted.stars_) == sorted(set(a[2]) & set(b[2]))
    labels = pd.DataFrame(b[1].to_numpy(), index=b[2], columns=b[1].columns)
    assert_allclose(fitted.cv_labels_["b"]["target"], labels.loc[fitted.stars_])
    assert fitted.estimator_a_.n_features_in_ == fitted.estimator_b_.n_features_in_ == 30


def test_planted_offset_and_trend_are_recovered(fitted, surveys):
    """Before, the report sees them; after, on stars of one survey only, nothing is left."""
    report = fitted.report_
    for k, name in enumerate(["teff", "logg", "feh"]):
        before = report.loc[("a", name, "before")]  # labels of B minus those of A, against A
        at = fitted.cv_labels_["a"]["target", name].mean()
        offset = OFFSET[k] + TREND[k] * (at - CENTRE[k])
        assert abs(before["offset"] - offset) < 3.5 * before["offset_std"]
        assert abs(before["trend"] - TREND[k]) < 3.5 * before["trend_std"]
        for scale in "ab":
            after = report.loc[(scale, name, "after")]
            assert abs(after["offset"]) < 3.5 * after["offset_std"]
            assert abs(after["trend"]) < 3.5 * after["trend_std"]
            assert after["scatter"] < 2.5 * NOISE[k]
    a, b = surveys
    for (spectra, _, star, _), apply, other, scale in (
        (a, fitted.to_scale_of_b, scale_b, "b"),
        (b, fitted.to_scale_of_a, lambda x: CENTRE + (x - OFFSET - CENTRE) / (1 + TREND), "a"),
    ):
        alone = ~np.isin(star, fitted.stars_)
        truth = (a if scale == "b" else b)[3][alone]
        result = apply(spectra[alone])
        error = (result.labels - other(truth).to_numpy())[result.inside]
        stated = report.loc[scale].xs("after", level="stage")["offset_std"].to_numpy()
        limit = np.hypot(stated, error.std(axis=0) / np.sqrt(len(error)))
        assert np.all(np.abs(error.mean(axis=0)) < 3.5 * limit)
        z = (result.labels - other(truth).to_numpy()) / result.dist.std()
        assert (
            0.5 < np.mean(np.abs(z[result.inside]) < 1) < 0.95
        )  # errors of B count as the model's


def test_the_result(fitted, surveys):
    spectra = surveys[0][0]
    result = fitted.to_scale_of_b(spectra)
    assert result.dist.label_names == ["teff", "logg", "feh"]
    assert result.homogenisable.all() and result.inside.mean() > 0.85
    frame = result.to_frame()
    assert list(frame.columns[-2:]) == ["inside", "domain_score"]
    assert_array_equal(frame["inside"], frame["domain_score"] <= 1)
    odd = spectra[:2].replace(flux=spectra.flux[:2] + 0.3)
    assert not fitted.to_scale_of_b(odd).inside.any()
    blind = fitted.to_scale_of_b(spectra[:2].replace(ivar=0.0))
    assert np.isnan(blind.labels).all() and not blind.inside.any()


@pytest.mark.slow
def test_trends_that_the_model_leaves_are_taken_out(surveys):
    a, b = surveys
    rough = Spectra(a[0].flux + 0.05 * np.random.default_rng(0).normal(size=a[0].shape))
    # by a regression, which shrinks what it does not know
    model = fit(LabelHomogenizer(ResidualCovarianceRegressor()), (rough, *a[1:]), b)
    report = model.report_.loc["b"].xs("teff")
    assert report.loc["model", "trend"] < -0.08
    assert abs(report.loc["after", "trend"]) < 3 * report.loc["after", "trend_std"]
    left = model.corrections_.loc[("b", "teff")]
    slope = left["slope"]
    assert_allclose(slope - 1, report.loc["model", "trend"], atol=0.02)
    bare = fit(LabelHomogenizer(ResidualCovarianceRegressor(), correct=False), (rough, *a[1:]), b)
    assert_allclose(bare.cv_labels_["b"]["model"], bare.cv_labels_["b"]["after"])
    one, two = (m.to_scale_of_b(rough) for m in (model, bare))
    more = np.hypot(left["offset_std"], left["slope_std"] * (one.labels[:, 0] - left["pivot"]))
    assert_allclose(one.dist.std()[:, 0] * slope, np.hypot(two.dist.std()[:, 0], more))
    assert np.ptp(one.labels[:, 0]) > 1.05 * np.ptp(two.labels[:, 0])


def test_errors_of_the_corrections_are_in_those_of_the_labels(fitted, surveys):
    """By moving offset and slope by their errors, of stars near to the common ones and far."""
    spectra = surveys[0][0][:20]
    result, stated = fitted.to_scale_of_b(spectra), fitted.estimator_a_.predict_dist(spectra)
    left = fitted.corrections_.loc["b"]
    assert (left[["offset_std", "slope_std"]] > 0).all(axis=None)
    expected = stated.cov() / np.outer(left["slope"], left["slope"])
    moved = []
    for key in ("offset", "slope"):
        other = copy(fitted)
        other.corrections_ = fitted.corrections_.copy()
        other.corrections_[key] += 1e-3 * other.corrections_[f"{key}_std"]
        moved.append(1e3 * (other.to_scale_of_b(spectra).labels - result.labels))
    variance = np.square(moved).sum(axis=0)
    assert_allclose(result.dist.cov(), expected + variance[:, :, None] * np.eye(3), rtol=1e-3)
    assert np.all(np.ptp(variance, axis=0) > 0)
    blind = fitted.to_scale_of_b(spectra.replace(ivar=0.0)).dist
    assert np.isinf(blind.std()).all()


def test_visits_of_a_star(surveys):
    """They stay on one side of every fold; their labels are averaged; a star counts once."""
    a, b = surveys
    counted = []

    class Watch(TheCannon):
        def fit(self, X, y):
            self.seen_ = set(X.meta["group_id"])
            return super().fit(X, y)

        def predict_dist(self, X):
            shown = set(X.meta["group_id"])
            assert self.seen_ == shown or not self.seen_ & shown
            counted.append(len(self.seen_ | shown))
            return super().predict_dist(X)

    twice = np.tile(np.arange(225), 2)
    labels = b[1].iloc[twice].assign(teff=lambda t: t["teff"] + np.repeat([30.0, -30.0], 225))
    model = fit(
        quick(Watch(1)),
        (a[0][twice], a[1].iloc[twice], a[2][twice]),
        (b[0][twice], labels, b[2][twice]),
    )
    assert counted == [150] * 6
    once = pd.DataFrame(b[1].to_numpy(), index=b[2]).loc[model.stars_]
    assert_allclose(model.cv_labels_["b"]["target"], once)
    assert len(model.stars_) == 150 == model.report_["n_stars"].max()


def test_quality_cuts_in_both_surveys(surveys):
    a, b = surveys
    limit, good_b = np.median(a[0].snr), b[1]["teff"].to_numpy() > 5200
    known = a[1]["feh"] <= 0
    model = fit(quick(), (a[0], a[1].where(known), a[2]), b, quality_a=limit, quality_b=good_b)
    wanted = set(a[2][(a[0].snr >= limit) & known]) & set(b[2][good_b])
    assert set(model.stars_) | set(model.clipped_.index) == wanted


def test_mismatched_stars_are_clipped_and_listed(surveys):
    a, b = surveys
    labels = b[1].copy()
    common = np.flatnonzero(np.isin(b[2], a[2]))
    wrong = common[np.argsort(labels["teff"].to_numpy()[common])[[0, 1, 2, -1, -2, -3]]]
    labels.iloc[wrong] = labels.iloc[wrong[::-1]].to_numpy()
    model = fit(quick(), a, (b[0], labels, b[2]))
    assert set(b[2][wrong]) <= set(model.clipped_.index)
    assert not set(model.clipped_.index) & set(model.stars_)
    assert {"teff_a", "teff_b", "distance"} <= set(model.clipped_)
    assert np.all(model.clipped_["distance"] > 4)


@pytest.mark.parametrize(
    "method", [TheCannon(1), pytest.param(ResidualCovarianceRegressor(), marks=pytest.mark.slow)]
)
def test_labels_that_the_spectra_do_not_know(method, surveys):
    a, b = surveys
    labels = b[1].assign(luck=np.random.default_rng(0).normal(size=len(b[1])))
    model = fit(quick(method, TheCannon(1), correct=True), a, (b[0], labels, b[2]))
    table = model.homogenisable_
    assert_array_equal(table.loc["b", "homogenisable"], [True, True, True, False])
    assert table.loc["a", "homogenisable"].all()
    assert table.loc[("b", "luck"), "error"] > 0.9 * table.loc[("b", "luck"), "prior"]
    result = model.to_scale_of_b(a[0])
    assert np.isnan(result.labels[:, 3]).all() and np.isinf(result.dist.std()[:, 3]).all()
    assert np.isfinite(result.labels[:, :3]).all()
    assert not result.dist.cov()[:, 3, :3].any()
    assert result.inside.mean() > 0.8  # judged by the others
    assert ("b", "luck", "before") not in model.report_.index
    assert model.corrections_.loc[("b", "luck"), "slope"] == 1
    if not isinstance(method, TheCannon):  # shrinking counts
        known = table.loc["b"].iloc[:3].astype(float)
        bound = 1 / np.sqrt(1 / known["error"] ** 2 - 1 / known["prior"] ** 2)
        assert_allclose(known["bound"], bound)


def test_bound_of_a_forward_model(fitted, surveys):
    a, _ = surveys
    spectra = a[0][np.isin(a[2], fitted.stars_)]
    labels = fitted.estimator_a_.predict(spectra)
    cov = np.linalg.inv(fitted.estimator_a_.fisher_information(labels, spectra))
    expected = np.median(np.sqrt(np.diagonal(cov, axis1=1, axis2=2)), axis=0)
    assert_allclose(fitted.homogenisable_.loc["b", "bound"], expected, rtol=1e-6)


@pytest.mark.slow
def test_wrapped_forward_models_have_their_bound(fitted, surveys):
    a, _ = surveys
    spectra, expected = a[0], fitted.homogenisable_.loc["b", "bound"]
    wrapped = fit(quick(make_pipeline(BadPixelMasker(), TheCannon())), *surveys)
    assert_allclose(wrapped.homogenisable_.loc["b", "bound"], expected, rtol=0.1)
    assert wrapped.to_scale_of_b(spectra).inside.mean() > 0.85


def test_translation_of_labels_comes_along(fitted, surveys):
    a, b = surveys
    assert isinstance(fitted.translators_["b"], LabelTranslator)
    translated = fitted.report_.xs("translated", level="stage").loc["b"]
    assert np.all(translated["offset"].abs() < 3.5 * translated["offset_std"])
    dist = fitted.translators_["b"].predict_dist(a[1], NOISE)
    error = dist.mean() - a[3].pipe(scale_b).to_numpy()
    assert_allclose(error.std(axis=0), dist.std().mean(axis=0), rtol=0.25)


def test_star_names_from_meta_and_bad_input(surveys):
    a, b = surveys
    meta_a, meta_b = (part[0].replace(meta={"star_id": part[2]}) for part in (a, b))
    model = quick(clip=None).fit(meta_a[60:120], a[1][60:120], meta_b, b[1])
    assert len(model.stars_) == 45
    with pytest.raises(ValueError, match="star of survey A|which star each spectrum of survey A"):
        LabelHomogenizer(TheCannon(1)).fit(a[0], a[1], b[0], b[1], star_b=b[2])
    with pytest.raises(ValueError, match="have 0 stars in common.*written alike"):
        fit(model, a, b, star_b=np.arange(len(b[2])))
    with pytest.raises(ValueError, match="star_b of shape .3,. for 225 spectra"):
        fit(model, a, b, star_b=b[2][:3])
    with pytest.raises(ValueError, match="limit in S/N, but the spectra have no errors"):
        fit(model, (Spectra(a[0].flux), *a[1:]), b, quality_a=50)
    with pytest.raises(ValueError, match="quality_b must be a number or 225 booleans"):
        fit(model, a, b, quality_b=np.arange(225))
    with pytest.raises(ValueError, match="3 rows of labels_a for 225 spectra"):
        fit(model, (a[0], a[1][:3], a[2]), b)
    with pytest.raises(TypeError, match="predicts no distribution"):
        fit(quick(Ridge()), a, b)


def test_stars_of_several_folds_are_corrected_once(surveys):
    a, b = surveys
    folds = [*KFold(2).split(np.arange(150)), *KFold(3).split(np.arange(150))]
    method = ResidualCovarianceRegressor(Ridge(3.0))
    model = fit(quick(method, cv=folds, correct=True), a, b, label_std_a=NOISE, label_std_b=NOISE)
    trend = model.report_["trend"].xs("teff", level="label")["b"]
    assert trend["model"] < -0.15 and abs(trend["after"]) < 0.1


def test_an_ensemble_of_the_other_survey(surveys):
    with pytest.raises(TypeError, match="RandomForestRegressor predicts no distribution"):
        fit(quick(TheCannon(1), RandomForestRegressor(3)), *surveys)


def test_a_good_citizen(fitted, surveys):
    model = LabelHomogenizer(TheCannon(1), ResidualCovarianceRegressor(), cv=3, clip=5.0)
    assert model.get_params()["estimator_a__degree"] == 1
    copy = clone(model).set_params(estimator_a__degree=2, n_jobs=2)
    assert copy.estimator_a.degree == 2 and model.estimator_a.degree == 1
    spectra = surveys[0][0]
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.to_scale_of_b(spectra).labels, fitted.to_scale_of_b(spectra).labels)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="SKSPEC_DATA: no real spectra here")
def test_miles_and_a_noisy_survey():
    """Real spectra; the change that was planted into the labels of one survey goes."""
    spectra, labels = load_spectra(REAL, ["teff", "logg", "feh"])
    keep = (np.asarray(spectra.meta["survey"]) == "MILES") & labels["teff"].between(4000, 7000)
    spectra, labels = spectra[keep.to_numpy()].replace(meta={}), labels[keep].reset_index(drop=True)
    rng = np.random.default_rng(0)
    noisy = Spectra(spectra.flux + rng.normal(size=spectra.shape) / 50)
    star, common = np.arange(len(labels)), rng.random(len(labels)) < 0.5
    model = LabelHomogenizer(ResidualCovarianceRegressor()).fit(
        noisy, scale_b(labels), spectra[common], labels[common], star_a=star, star_b=star[common]
    )
    before, after = (model.report_.loc["b"].xs(s, level="stage") for s in ("before", "after"))
    assert np.all(before["offset"].abs() > 10 * before["offset_std"])
    assert np.all(after["offset"].abs() < 3.5 * after["offset_std"])
    result = model.to_scale_of_b(noisy[~common])
    error = (result.labels - labels[~common])[result.inside]
    limit = np.hypot(after["offset_std"], error.std() / np.sqrt(len(error)))
    assert np.all(error.mean().abs() < 3.5 * limit)
