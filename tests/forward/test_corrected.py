"""CorrectedModel: a forward model behind a correction."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skspec import Spectra
from skspec.base import CorrelatedLabelsWarning
from skspec.ensemble import DeepEnsembleRegressor
from skspec.forward import CorrectedModel, SpectralGP, TheCannon

P = 40
WAY = np.random.default_rng(0).normal(size=(3, P)) * 0.05


class Translation(BaseEstimator):
    """Knows the gap: an offset, and a pattern as strong as a split number says."""

    def __init__(self, gap=0.1, spread=None, random_state=None):
        self.gap = gap
        self.spread = spread
        self.random_state = random_state

    def fit(self, synthetic, observed):
        self.n_observed_ = len(observed)
        if self.spread is not None:
            rng = np.random.default_rng(1)
            self.split_ = 2 + self.spread * rng.normal(size=(300, 2)) * [1.0, 0.0]
        return self

    def transform(self, X, split=None):
        flux = X.flux + self.gap
        if split is not None:
            flux = flux + split[:, :1] * WAY[2]
        return X.replace(flux=flux)


def stars(n, seed, gap=0.0, spread=0.0, noise=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(-1, 1, (n, 2))
    flux = 1 + labels @ WAY[:2] + gap + (2 + spread * rng.normal(size=(n, 1))) * WAY[2] * (gap > 0)
    frame = pd.DataFrame(labels, columns=["teff", "feh"])
    if not noise:
        return Spectra(flux), frame
    flux = flux + noise * rng.normal(size=flux.shape)
    return Spectra(flux, flux_err=np.full(flux.shape, noise)), frame


def test_a_gap_that_is_the_same_in_all_stars():
    synthetic, labels = stars(80, 1)
    observed, truth = stars(50, 2, gap=0.1, noise=0.01)
    observed = observed.replace(flux=observed.flux - 2 * WAY[2])
    model = CorrectedModel(TheCannon(1), Translation()).fit(synthetic, labels, observed=observed)
    assert model.correction_.n_observed_ == 50 and model.n_split_ == 0
    dist = model.predict_dist(observed)
    assert dist.label_names == ["teff", "feh"]
    pull = (dist.mean() - truth.to_numpy()) / dist.std()
    assert 0.8 < pull.std() < 1.2
    assert_allclose(model.predict_flux(truth), model.model_.predict_flux(truth))
    wrong = TheCannon(1, ivar="ignore").fit(synthetic, labels).predict(observed)
    assert (
        np.abs(wrong - truth).to_numpy().mean() > 3 * np.abs(dist.mean() - truth).to_numpy().mean()
    )


def test_split_numbers_are_free_and_count_in_the_errors():
    synthetic, labels = stars(150, 1)
    observed, truth = stars(200, 2, gap=0.1, spread=0.5, noise=0.01)
    model = CorrectedModel(TheCannon(1), Translation(spread=0.5), n_copies=2, random_state=0).fit(
        synthetic, labels, observed=observed
    )
    assert model.n_split_ == 1  # the other number is the same for all stars
    result = model.invert(observed)
    assert result.dist.label_names == ["teff", "feh", "split_0"]
    error = model.predict(observed) - truth.to_numpy()
    pull = error / model.predict_dist(observed).std()
    assert 0.85 < pull.std() < 1.15
    assert 0.9 < np.median(result.reduced_chi2) < 1.1
    assert model.flux_jacobian(truth[:3]).shape == (3, P, 2)
    assert model.predict_flux(truth[:3]).shape == (3, P)
    assert_allclose(model.best_fit(result), observed.flux, atol=0.06)
    fixed = CorrectedModel(TheCannon(1), Translation(spread=0.5), n_directions=0)
    fixed.fit(synthetic, labels, observed=observed)
    assert fixed.n_split_ == 0


def test_fitted_corrections():
    synthetic, labels = stars(60, 1)
    observed, _ = stars(30, 2, gap=0.1)
    model = CorrectedModel(TheCannon(1), Translation())
    with pytest.raises(NotFittedError, match="Translation is not fitted: pass fit"):
        model.fit(synthetic, labels)
    fitted = Translation().fit(synthetic, observed)
    model = CorrectedModel(TheCannon(1), FrozenEstimator(fitted)).fit(synthetic, labels)
    assert_allclose(clone(model).fit(synthetic, labels).predict(observed), model.predict(observed))


def test_without_a_correction_it_is_the_model():
    synthetic, labels = stars(60, 1)
    model = CorrectedModel().fit(synthetic, labels)
    assert isinstance(model.model_, SpectralGP)
    assert_allclose(
        model.predict(synthetic), SpectralGP().fit(synthetic, labels).predict(synthetic)
    )


def test_observed_spectra_without_a_correction_are_refused():
    synthetic, labels = stars(30, 1)
    with pytest.raises(ValueError, match="there is none: give one"):
        CorrectedModel(TheCannon(1)).fit(synthetic, labels, observed=synthetic)


def test_correlated_labels_are_told_once():
    synthetic, labels = stars(60, 1)
    twin = labels[["feh"]] + 0.1 * np.random.default_rng(0).normal(size=(60, 1))
    twins = np.column_stack([labels, twin])
    with pytest.warns(CorrelatedLabelsWarning) as told:
        CorrectedModel(TheCannon(1)).fit(synthetic, twins)
    assert len(told) == 1


def test_members_of_an_ensemble_get_the_observed_spectra():
    synthetic, labels = stars(60, 1)
    observed, _ = stars(30, 2, gap=0.1)
    model = CorrectedModel(TheCannon(1), Translation(spread=0.5))
    ensemble = DeepEnsembleRegressor(model, 2, random_state=0)
    ensemble.fit(synthetic, labels, observed=observed)
    assert [each.correction_.n_observed_ for each in ensemble.estimators_] == [30, 30]
