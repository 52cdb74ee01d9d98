"""AugmentedRegressor fits a method to copies of its stars, labels included."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from helpers import RidgeRegressor
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra, concatenate, domain_score
from skspec.augmentation import Compose, GaussianNoise, RotationalBroadening
from skspec.base import CorrelatedLabelsWarning
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import make_spectra
from skspec.ensemble import AugmentedRegressor


class Recorder(RidgeRegressor):
    """Keeps what it was fitted to."""

    def fit(self, X, y):
        self.seen_ = X, y
        return super().fit(X, y)


@pytest.fixture(scope="module")
def slow_stars():
    return make_spectra(
        80,
        n_pixels=120,
        wavelength=(5165, 5185),
        resolution=15000,
        snr=None,
        labels=("teff", "feh", "vsini"),
        label_ranges={"vsini": (0, 5)},
        random_state=0,
    )


ROTATION = Compose([RotationalBroadening((0, 90)), GaussianNoise(100)])


def test_copies_and_their_labels(slow_stars):
    spectra, y = slow_stars
    model = AugmentedRegressor(Recorder(), ROTATION, 3, keep=True, random_state=0).fit(*slow_stars)
    seen, labels = model.estimator_.seen_
    assert seen.shape == (320, 120) and list(labels.columns) == list(y.columns)
    assert labels["vsini"][:240].max() > 80 and labels["vsini"][240:].max() < 5
    order = np.lexsort(y.to_numpy().T)
    assert_array_equal(labels["teff"], np.tile(y["teff"].to_numpy()[order], 4))
    assert_array_equal(seen.meta["star_id"], np.tile(np.arange(80), 4))
    assert_array_equal(seen.flux[240:], spectra.flux[order])
    assert not np.allclose(seen.flux[:80], seen.flux[80:160])
    assert model.uses_ivar_ and model.label_names_in_ == ["teff", "feh", "vsini"]


def test_copies_are_in_memory_once():
    class Nothing(RidgeRegressor):
        def fit(self, X, y):
            return self

    spectra = Spectra(np.ones((1000, 1000)), ivar=100.0)
    model = AugmentedRegressor(Nothing(), GaussianNoise(20), 8)
    y = np.random.default_rng(0).normal(size=1000)
    tracemalloc.start()
    model.fit(spectra, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * 8 * 2 * spectra.flux.nbytes


def test_groups_that_are_known_are_kept(slow_stars):
    spectra, y = slow_stars
    visits = spectra.replace(meta={"group_id": np.arange(80) // 2})
    seen = AugmentedRegressor(Recorder(), ROTATION, 2).fit(visits, y).estimator_.seen_[0]
    order = np.lexsort(y.to_numpy().T)
    assert_array_equal(seen.meta["group_id"], np.tile(order // 2, 2))


def test_it_labels_stars_that_rotate(slow_stars):
    fast, truth = make_spectra(
        60,
        n_pixels=120,
        wavelength=(5165, 5185),
        resolution=15000,
        snr=100,
        labels=("teff", "feh", "vsini"),
        label_ranges={"vsini": (10, 80)},
        random_state=1,
    )
    ridge = ResidualCovarianceRegressor()
    plain = AugmentedRegressor(ridge, GaussianNoise(100), 6, random_state=0).fit(*slow_stars)
    model = AugmentedRegressor(ridge, ROTATION, 6, random_state=0).fit(*slow_stars)
    errors = [np.median(np.abs(m.predict(fast) - truth.to_numpy()), axis=0) for m in (plain, model)]
    assert errors[1][2] < 12 < errors[0][2]
    assert errors[1][1] < errors[0][1]
    score = [np.median(domain_score(m, fast)) for m in (plain, model)]
    assert score[1] < 1.5 < score[0]


def test_no_augmentation_and_plain_arrays(draw_stars):
    spectra, y = draw_stars(40)
    plain = RidgeRegressor().fit(spectra, y).predict(spectra)
    assert_allclose(AugmentedRegressor(RidgeRegressor()).fit(spectra, y).predict(spectra), plain)
    vector = AugmentedRegressor(RidgeRegressor(), GaussianNoise(1e9), 1)
    flux, teff = np.asarray(spectra.flux), y["teff"].to_numpy()
    with pytest.warns(UserWarning, match="fitted with flux errors"):
        predicted = vector.fit(flux, teff).predict(flux)
    assert_allclose(predicted, RidgeRegressor().fit(flux, teff).predict(flux), atol=1)


def test_correlated_labels_are_told_once(draw_stars):
    spectra, y = draw_stars(40)
    with pytest.warns(CorrelatedLabelsWarning) as told:
        AugmentedRegressor(RidgeRegressor(), GaussianNoise(50)).fit(
            spectra, y.assign(twice=y["feh"])
        )
    assert len(told) == 1


def test_one_star_is_too_few():
    star = Spectra(np.ones((1, 20)))
    with pytest.raises(ValueError, match="at least 2 stars"):
        AugmentedRegressor(RidgeRegressor(), GaussianNoise()).fit(star, pd.Series([1.0]))


def test_the_stars_of_the_caller_are_untouched(slow_stars):
    spectra, y = slow_stars
    before = concatenate([spectra]), y.copy()
    AugmentedRegressor(RidgeRegressor(), ROTATION, random_state=0).fit(spectra, y)
    assert_array_equal(spectra.flux, before[0].flux)
    assert "star_id" not in spectra.meta or "star_id" in before[0].meta
    pd.testing.assert_frame_equal(y, before[1])
