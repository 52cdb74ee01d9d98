import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from skspec import Spectra
from skspec.calibration import ResidualCovarianceRegressor
from skspec.diagnostics._tuned_svr import TunedSVR


@pytest.fixture
def line_and_wave():
    """Two numbers that make the flux; one label is a straight line in them, the other a wave."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (150, 2))
    y = np.c_[x[:, 0], np.sin(6 * x[:, 1])] + 0.02 * rng.normal(size=(150, 2))
    return x @ np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]]), y / y.std(axis=0)


def test_each_label_chooses_for_itself(line_and_wave):
    flux, y = line_and_wave
    model = TunedSVR(2, random_state=0).fit(flux[:100], y[:100])
    line, wave = model.best_params_
    assert line["gamma"] < wave["gamma"]
    error = model.predict(flux[100:]) - y[100:]
    assert np.all(np.mean(np.abs(error), axis=0) < [0.1, 0.2])


def by_hand(train, y, test, C, gamma):
    """scikit-learn's SVR on the components of the training stars alone."""
    steps = make_pipeline(StandardScaler(), PCA(2, random_state=0))
    seen = steps.fit_transform(train)
    unit = np.sum(seen.var(axis=0, ddof=1))
    return SVR(C=C, gamma=gamma / unit, epsilon=0.02).fit(seen, y).predict(steps.transform(test))


def test_is_scikit_learns_svr_with_the_parameters_chosen(line_and_wave):
    flux, y = line_and_wave
    model = TunedSVR(2, C=[10.0], gamma=[0.5], random_state=0).fit(flux, y[:, 1])
    assert_allclose(model.predict(flux), by_hand(flux, y[:, 1], flux, 10.0, 0.5), atol=1e-3)


def test_components_of_a_split_are_those_of_its_training_stars(line_and_wave):
    """Those of all stars would know the noise of the stars left out."""
    flux, y = line_and_wave
    flux = flux + np.random.default_rng(1).normal(size=flux.shape)
    train, test = np.arange(20), np.arange(20, 150)
    grid = [{"C": 1.0, "gamma": 0.5}, {"C": 10.0, "gamma": 0.5}]
    error = TunedSVR(2, random_state=0)._errors(flux, y, grid, train, test)
    wanted = [
        [
            np.mean(np.abs(by_hand(flux[train], label[train], flux[test], **params) - label[test]))
            for label in y.T
        ]
        for params in grid
    ]
    assert_allclose(error, wanted, rtol=1e-3)


class Noted(TunedSVR):
    """Its splits are in ``splits``."""

    def _errors(self, X, y, grid, train, test):
        self.splits = [*getattr(self, "splits", []), (train, test)]
        return super()._errors(X, y, grid, train, test)


@pytest.mark.parametrize("known", [True, False])
def test_spectra_of_a_star_are_never_on_both_sides(line_and_wave, known):
    flux, y = line_and_wave
    star = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 3))
    model = Noted(2, C=[1.0], gamma=[1.0], random_state=0)
    model.fit(flux, y, groups=star if known else None)
    assert [(len(train), len(test)) for train, test in model.splits] == 3 * [
        (99, 51) if known else (100, 50)
    ]
    shared = [set(star[train]) & set(star[test]) for train, test in model.splits]
    assert not any(shared) if known else all(shared)


def test_gets_the_stars_of_the_spectra(line_and_wave):
    flux, y = line_and_wave
    star = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 3))
    model = ResidualCovarianceRegressor(Noted(2, C=[1.0], gamma=[1.0], random_state=0), cv=2)
    splits = model.fit(Spectra(flux, meta={"star_id": star}), y).estimator_.splits
    assert len(splits) == 3
    assert not any(set(star[train]) & set(star[test]) for train, test in splits)


def test_large_sets_are_searched_with_a_part(monkeypatch, line_and_wave):
    monkeypatch.setattr("skspec.diagnostics._tuned_svr.SEARCHED", 30)
    model = Noted(2, C=[1.0], gamma=[1.0], random_state=0).fit(*line_and_wave)
    assert [(len(train), len(test)) for train, test in model.splits] == 3 * [(20, 10)]


def test_same_seed_same_result(line_and_wave):
    flux, y = line_and_wave
    model = TunedSVR(C=[1.0, 10.0], gamma=[1.0], random_state=0)
    first, second = (clone(model).fit(flux, y).predict(flux) for _ in range(2))
    assert_array_equal(first, second)
    assert first.shape == y.shape
