import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import RidgeRegressor
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import MultivariateNormal, Spectra, domain_score, predict_dist
from skspec.base import (
    CorrelatedLabelsWarning,
    MissingUncertaintyWarning,
    as_spectra,
    correlated_labels,
    last_step,
    unwrap,
    unwrap_once,
)
from skspec.metrics import (
    coverage_error_scorer,
    neg_crps_scorer,
    neg_energy_score_scorer,
    neg_log_likelihood_scorer,
)
from skspec.preprocessing import ContinuumNormalizer, LabelScaler


@parametrize_with_checks([RidgeRegressor()])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(90, 2)) * [700, 0.3] + [5000, -0.2]
    depth = rng.uniform(0.02, 0.1, (2, 12))
    flux = 1 - ((labels - [5000, -0.2]) / [700, 0.3]) @ depth + 0.02 * rng.normal(size=(90, 12))
    spectra = Spectra(flux, flux_err=0.02, wavelength=np.linspace(5000, 5011, 12))
    return spectra, pd.DataFrame(labels, columns=["teff", "feh"])


def model(**parameters):
    """Fails loudly wherever the errors get lost."""
    return RidgeRegressor(1e-3, need_ivar=True, **parameters)


def pipeline():
    return make_pipeline(ContinuumNormalizer(width=1e4), model())


def scaled_target():
    return TransformedTargetRegressor(model(), transformer=StandardScaler())


WRAPPERS = {
    "bare": model,
    "pipeline": pipeline,
    "pipeline in pipeline": lambda: make_pipeline("passthrough", pipeline()),
    "grid search": lambda: GridSearchCV(model(), {"alpha": [1e-3, 1e4]}, error_score="raise"),
    "randomized search": lambda: RandomizedSearchCV(
        model(), {"alpha": [1e-3, 1e-2]}, n_iter=2, random_state=0, error_score="raise"
    ),
    "scaled target": scaled_target,
    "label scaler": lambda: TransformedTargetRegressor(
        model(), transformer=LabelScaler("percentile")
    ),
    "rotated target": lambda: TransformedTargetRegressor(
        model(), transformer=PCA(2, whiten=True), check_inverse=False
    ),
    "search over target over pipeline": lambda: GridSearchCV(
        TransformedTargetRegressor(pipeline(), transformer=StandardScaler()),
        {"regressor__ridgeregressor__alpha": [1e-3, 1e4]},
        error_score="raise",
    ),
    "target over search": lambda: TransformedTargetRegressor(
        GridSearchCV(model(), {"alpha": [1e-3, 1e-2]}), transformer=StandardScaler()
    ),
}


# -- predict_dist through wrappers -----------------------------------------------------------------


@pytest.mark.parametrize("name", WRAPPERS)
def test_predict_dist_reaches_through(name, data):
    spectra, labels = data
    wrapped = WRAPPERS[name]().fit(spectra[:70], labels[:70])
    dist = predict_dist(wrapped, spectra[70:])
    assert isinstance(dist, MultivariateNormal)
    assert dist.shape == (20, 2)
    assert_allclose(dist.mean(), wrapped.predict(spectra[70:]), rtol=1e-9)
    truth = labels[70:].to_numpy()
    assert np.all(np.abs(dist.mean() - truth).mean(axis=0) < [350, 0.15])
    pull = (dist.mean() - truth) / dist.std()  # label units, covariance included
    assert np.all((pull.std(axis=0) > 0.6) & (pull.std(axis=0) < 1.7))
    assert_allclose(predict_dist(FrozenEstimator(wrapped), spectra[70:]).cov(), dist.cov())


@pytest.mark.parametrize("transformer", [StandardScaler(), LabelScaler("robust"), PCA(2)])
def test_affine_targets_change_nothing_but_numerics(transformer, data):
    spectra, labels = data
    plain = predict_dist(RidgeRegressor(1e-9).fit(spectra, labels), spectra)
    inner = TransformedTargetRegressor(RidgeRegressor(1e-9), transformer=transformer)
    dist = predict_dist(inner.fit(spectra, labels), spectra)
    assert_allclose(dist.mean(), plain.mean(), rtol=1e-6)
    unit = np.outer(plain.std()[0], plain.std()[0])
    assert_allclose(dist.cov() / unit, plain.cov() / unit, atol=1e-6)


class _NoInformation(RidgeRegressor):
    def predict_dist(self, X):
        loc = super().predict_dist(X).mean().copy()
        scale = np.ones_like(loc)
        loc[1], scale[1] = np.nan, np.inf
        return MultivariateNormal(loc, scale=scale)


@pytest.mark.parametrize("transformer", [StandardScaler(), PCA(2)])
def test_stars_without_information_go_through_target_transformers(transformer, data):
    spectra, labels = data
    target = TransformedTargetRegressor(_NoInformation(), transformer=transformer)
    dist = predict_dist(target.fit(spectra, labels), spectra)
    assert np.isnan(dist.mean()[1]).all()
    assert np.isfinite(dist.mean()[[0, 2]]).all()
    assert np.isfinite(dist.cov()[[0, 2]]).all()


def test_vector_targets(data):
    spectra, labels = data
    teff = labels["teff"]
    for wrapped in (model(), scaled_target()):
        wrapped.fit(spectra, teff)
        dist = predict_dist(wrapped, spectra)
        assert dist.shape == (90, 1)
        assert wrapped.predict(spectra).shape == (90,)
        assert_allclose(dist.mean()[:, 0], wrapped.predict(spectra))
    assert_allclose(
        neg_crps_scorer(wrapped, spectra, teff),
        -(dist.crps(teff.to_numpy()[:, None]).mean() / teff.std(ddof=0)),
    )


def test_only_affine_targets(data):
    spectra, labels = data
    log = TransformedTargetRegressor(RidgeRegressor(), func=np.log, inverse_func=np.exp)
    log.fit(spectra, labels["teff"])
    with pytest.raises(ValueError, match="FunctionTransformer is not affine"):
        predict_dist(log, spectra)
    cube = FunctionTransformer(np.cbrt, lambda x: x**3)
    both = TransformedTargetRegressor(RidgeRegressor(), transformer=cube).fit(spectra, labels)
    with pytest.raises(ValueError, match="affine"):
        predict_dist(both, spectra)
    identity = TransformedTargetRegressor(RidgeRegressor()).fit(spectra, labels)
    assert_allclose(predict_dist(identity, spectra).mean(), identity.predict(spectra))


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), make_pipeline(PCA(2), Ridge()), TransformedTargetRegressor(Ridge())],
)
def test_estimators_without_distribution(estimator, data):
    spectra, labels = data
    estimator.fit(spectra.flux, labels)
    with pytest.raises(TypeError, match="predicts no distribution"):
        predict_dist(estimator, spectra)


@pytest.mark.parametrize("name", WRAPPERS)
def test_not_fitted(name, data):
    with pytest.raises(NotFittedError):
        predict_dist(WRAPPERS[name](), data[0])


def test_search_without_refit(data):
    search = GridSearchCV(model(), {"alpha": [1.0]}, refit=False).fit(*data)
    with pytest.raises((ValueError, NotFittedError)):
        predict_dist(search, data[0])


class _Keeps(BaseEstimator):
    """A wrapper that is no class of scikit-learn's, such as a search of optuna's."""

    def __init__(self, estimator, attribute="best_estimator_", refit=True):
        self.estimator, self.attribute, self.refit = estimator, attribute, refit

    def fit(self, X, y):
        self.n_trials_ = 1
        if self.refit:
            setattr(self, self.attribute, clone(self.estimator).fit(X, y))
        return self

    def predict(self, X):
        return getattr(self, self.attribute).predict(X)


@pytest.mark.parametrize("attribute", ["best_estimator_", "estimator_", "regressor_"])
def test_wrappers_of_other_libraries_are_known_by_what_they_keep(attribute, data):
    spectra, labels = data
    wrapped = _Keeps(pipeline(), attribute)
    with pytest.raises(NotFittedError):
        predict_dist(wrapped, spectra)
    dist = predict_dist(wrapped.fit(spectra, labels), spectra)
    assert_array_equal(dist.mean(), wrapped.predict(spectra))
    last, inner = unwrap(wrapped, spectra)
    assert isinstance(last, RidgeRegressor)
    assert_array_equal(last.predict_dist(inner).cov(), dist.cov())
    with pytest.raises(ValueError, match="refit=False"):
        predict_dist(_Keeps(model(), attribute, refit=False).fit(spectra, labels), spectra)


def test_several_estimators_are_no_wrapper(data):
    spectra, labels = data
    bag = BaggingRegressor(RidgeRegressor(), 2).fit(
        spectra.flux, labels
    )  # has an unfitted estimator_
    with pytest.raises(TypeError, match="BaggingRegressor predicts no distribution"):
        predict_dist(bag, spectra)
    assert unwrap(bag, spectra)[0] is bag


def test_unwrap_stops_at_other_label_units(data):
    wrapped = GridSearchCV(scaled_target(), {"regressor__alpha": [1e-3]}).fit(*data)
    last, _ = unwrap(wrapped, data[0])
    assert last is wrapped.best_estimator_
    assert isinstance(last_step(wrapped), RidgeRegressor)


@pytest.mark.parametrize("name", WRAPPERS)
def test_last_step_of_the_unfitted(name):
    assert isinstance(last_step(WRAPPERS[name]()), RidgeRegressor)


def test_others_can_register(data):
    class Wrapper(BaseEstimator):
        def __init__(self, inner):
            self.inner = inner

    unwrap_once.register(Wrapper, lambda model, X: (model.inner, X))
    fitted = model().fit(*data)
    assert_allclose(
        predict_dist(Wrapper(fitted), data[0]).mean(), fitted.predict_dist(data[0]).mean()
    )


# -- errors at test time, scorers ------------------------------------------------------------------

SCORING = {
    "nll": neg_log_likelihood_scorer,
    "crps": neg_crps_scorer,
    "energy": neg_energy_score_scorer,
    "coverage": coverage_error_scorer,
    "r2": "r2",
}


def test_scorers_in_a_search_in_two_processes(data):
    spectra, labels = data
    search = GridSearchCV(
        TransformedTargetRegressor(pipeline(), transformer=StandardScaler()),
        {"regressor__ridgeregressor__alpha": [1e-3, 1e4]},
        scoring=SCORING,
        refit="nll",
        n_jobs=2,
        cv=3,
        error_score="raise",
    )
    search.fit(spectra, labels)
    assert search.best_params_ == {"regressor__ridgeregressor__alpha": 1e-3}
    for name in SCORING:
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    for name in ("nll", "crps", "energy", "r2"):  # larger is better
        good, bad = search.cv_results_[f"mean_test_{name}"]
        assert good > bad
    assert predict_dist(search, spectra).shape == (90, 2)


@pytest.mark.parametrize("scorer", list(SCORING)[:4])
def test_cross_val_score(scorer, data):
    scores = cross_val_score(
        pipeline(), *data, scoring=SCORING[scorer], n_jobs=2, error_score="raise"
    )
    assert np.isfinite(scores).all()


def test_lost_errors_are_noticed(data):
    spectra, labels = data
    stock = make_pipeline(StandardScaler(), model())
    with pytest.raises(RuntimeError, match="errors got lost"):
        stock.fit(spectra, labels)
    fitted = RidgeRegressor().fit(spectra, labels)
    assert fitted.uses_ivar_
    with pytest.warns(MissingUncertaintyWarning, match="fitted with flux errors.*without"):
        fitted.predict(spectra.flux)
    without = RidgeRegressor().fit(spectra.flux, labels)
    assert not without.uses_ivar_
    with pytest.warns(MissingUncertaintyWarning, match="fitted without.*with"):
        without.predict(spectra)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict(spectra)
        without.predict(spectra.flux)
        fitted.predict(spectra.replace(ivar=0.0))  # nothing to say about errors: all bad


def test_ivar_policies(data):
    spectra, labels = data
    required = RidgeRegressor(ivar="require")
    with pytest.raises(ValueError, match="needs flux errors"):
        required.fit(spectra.flux, labels)
    with pytest.raises(ValueError, match="needs flux errors"):
        required.fit(spectra, labels).predict(spectra.flux)
    ignoring = RidgeRegressor(ivar="ignore").fit(spectra, labels)
    assert not ignoring.uses_ivar_
    ignoring.predict(spectra)
    ignoring.predict(spectra.flux)
    mask = np.arange(12) == 3
    kept, _ = ignoring._validate_fit(spectra.replace(mask=mask), labels)
    assert_array_equal(kept.good, np.tile(~mask, (90, 1)))
    assert not kept.has_errors


# -- input checks ----------------------------------------------------------------------------------


def test_another_grid(data):
    spectra, labels = data
    fitted = RidgeRegressor().fit(spectra, labels)
    with pytest.raises(ValueError, match="another grid.*Resampler"):
        fitted.predict(spectra.replace(wavelength=spectra.wavelength + 0.01))
    with pytest.raises(ValueError, match="12 features"):
        fitted.predict(spectra[:, :5])
    nearly = spectra.replace(wavelength=spectra.wavelength * (1 + 1e-12))
    assert_allclose(fitted.predict(nearly), fitted.predict(spectra))
    unknown = spectra.replace(wavelength=None)
    assert_allclose(fitted.predict(unknown), fitted.predict(spectra))


def test_all_pixels_bad_and_label_mistakes(data):
    spectra, labels = data
    with pytest.raises(ValueError, match="Every pixel"):
        RidgeRegressor().fit(spectra.replace(ivar=0.0), labels)
    with pytest.raises(ValueError, match="NaN"):
        RidgeRegressor().fit(spectra, labels.replace({"feh": labels["feh"][3]}, np.nan))
    with pytest.raises(ValueError, match="inconsistent"):
        RidgeRegressor().fit(spectra, labels[:-1])


def test_label_names(data):
    spectra, labels = data
    assert RidgeRegressor().fit(spectra, labels).label_names_in_ == ["teff", "feh"]
    assert RidgeRegressor().fit(spectra, labels["feh"]).label_names_in_ == ["feh"]
    array = RidgeRegressor().fit(spectra, labels.to_numpy())
    assert array.label_names_in_ == ["label_0", "label_1"]
    dist = RidgeRegressor().fit(spectra, labels).predict_dist(spectra)
    assert dist.label_names == ["teff", "feh"]
    assert list(dist.to_frame()) == ["teff", "feh", "teff_std", "feh_std"]


def test_return_std(data):
    spectra, labels = data
    fitted = make_pipeline(ContinuumNormalizer(width=1e4), RidgeRegressor()).fit(spectra, labels)
    mean, std = fitted.predict(spectra, return_std=True)
    assert_allclose(mean, fitted.predict(spectra))
    assert_allclose(std, predict_dist(fitted, spectra).std())
    one = RidgeRegressor().fit(spectra, labels["feh"])
    assert [part.shape for part in one.predict(spectra, return_std=True)] == [(90,), (90,)]


def test_attributes_of_the_fit(data):
    spectra, labels = data
    fitted = RidgeRegressor().fit(spectra, labels)
    assert fitted.n_features_in_ == 12
    assert_array_equal(fitted.wavelength_, spectra.wavelength)
    assert RidgeRegressor().fit(spectra.flux, labels).wavelength_ is None
    assert not hasattr(clone(fitted), "wavelength_")


def test_as_spectra(data):
    assert as_spectra(data[0]) is data[0]
    assert as_spectra([[1.0, 2.0]]).shape == (1, 2)


class _Spy(TransformerMixin, BaseEstimator):
    """Records what it was given."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        assert isinstance(X, Spectra) and X.has_errors
        return X


def test_pipelines_hand_spectra_on(data):
    make_pipeline(_Spy(), ContinuumNormalizer(width=1e4), _Spy(), model()).fit(*data)


# -- domain score ----------------------------------------------------------------------------------


class _Domain(RidgeRegressor):
    """Mean flux as the score."""

    def domain_score(self, X):
        return self._validate_predict(X).flux.mean(axis=1)


@pytest.mark.parametrize("name", WRAPPERS)
def test_domain_score_reaches_through(name, data, monkeypatch):
    monkeypatch.setattr(RidgeRegressor, "domain_score", _Domain.domain_score, raising=False)
    spectra, labels = data
    wrapped = WRAPPERS[name]()
    with pytest.raises(NotFittedError):
        domain_score(wrapped, spectra)
    score = domain_score(wrapped.fit(spectra[:70], labels[:70]), spectra[70:])
    expected = spectra[70:].flux.mean(axis=1)
    if "pipeline" in name:  # as the last step sees it
        expected = ContinuumNormalizer(width=1e4).fit_transform(spectra[70:]).flux.mean(axis=1)
    assert_allclose(score, expected)
    assert_array_equal(domain_score(FrozenEstimator(wrapped), spectra[70:]), score)


def test_estimators_without_domain_score(data):
    spectra, labels = data
    with pytest.raises(TypeError, match="RidgeRegressor does not know how far"):
        domain_score(RidgeRegressor().fit(spectra, labels), spectra)
    with pytest.raises(TypeError, match="LinearRegression does not know"):
        domain_score(make_pipeline(PCA(2), LinearRegression()).fit(spectra, labels), spectra)


@pytest.mark.parametrize("sign", [1, -1])
def test_correlated_labels_are_warned_of(data, sign):
    """Of either sign, with the line of the caller; not of few stars."""
    spectra, labels = data
    rng = np.random.default_rng(0)
    locked = labels.assign(feh=sign * labels["teff"] / 1000 + 0.2 * rng.normal(size=90))
    with pytest.warns(
        CorrelatedLabelsWarning, match=rf"teff and feh: [{'+-'[sign < 0]}]0\.9"
    ) as seen:
        RidgeRegressor().fit(spectra, locked.assign(logg=4.5))  # a constant has no correlation
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RidgeRegressor().fit(spectra[:19], locked[:19])
        RidgeRegressor().fit(spectra, labels)
        RidgeRegressor().fit(spectra, labels["teff"])


def test_pairs_of_correlated_labels():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60, 3))
    y[:, 2] = -y[:, 0] + 0.1 * rng.normal(size=60)
    y[:10, 2] = np.nan  # as the labels of a few stars may be
    ((one, other, rho),) = correlated_labels(y, ["a", "b", "c"])
    assert (one, other) == ("a", "c")
    assert rho == pytest.approx(np.corrcoef(y[10:, 0], y[10:, 2])[0, 1])
    y[:45, 2] = np.nan
    assert correlated_labels(y, ["a", "b", "c"]) == []
