import numpy as np
import pandas as pd
import pytest
from helpers import RidgeRegressor
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.model_selection import GroupKFold, KFold

from skspec import Spectra
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.discriminative import KernelPCARegressor
from skspec.ensemble import ConsensusRegressor
from skspec.model_selection import star_groups, star_splits


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(90, 2)) * [700, 0.3] + [5000, -0.2]
    depth = rng.uniform(0.02, 0.1, (2, 12))
    flux = 1 - ((labels - [5000, -0.2]) / [700, 0.3]) @ depth + 0.02 * rng.normal(size=(90, 12))
    spectra = Spectra(flux, flux_err=0.02, wavelength=np.linspace(5000, 5011, 12))
    return spectra, pd.DataFrame(labels, columns=["teff", "feh"])


def test_star_groups(data):
    spectra = data[0][:4]
    assert star_groups(spectra) is None
    assert star_groups(spectra.flux) is None
    spectra = spectra.replace(meta={"star_id": np.array(["b", "a", "b", "c"])})
    assert_array_equal(star_groups(spectra), [1, 0, 1, 2])
    assert_array_equal(star_groups(spectra, [7, 7, 5, 5]), [1, 1, 0, 0])
    spectra.meta["group_id"] = np.array([3, 3, 3, 1])
    assert_array_equal(star_groups(spectra), [1, 1, 1, 0])
    with pytest.raises(ValueError, match=r"groups of shape \(3,\) for 4 spectra"):
        star_groups(spectra, [0, 1, 2])


@pytest.mark.parametrize(
    "method",
    [
        lambda cv: ResidualCovarianceRegressor(cv=cv),
        lambda cv: KernelPCARegressor(gamma=0.5, cv=cv),
        lambda cv: CalibratedRegressor(RidgeRegressor(), cv=cv),
        lambda cv: ConsensusRegressor([("a", RidgeRegressor()), ("b", RidgeRegressor(2))], cv=cv),
    ],
)
def test_folds_that_tear_stars_apart_are_told(data, method):
    spectra, y = data
    visits = spectra.replace(meta={"star_id": np.arange(90) // 2})
    torn = KFold(3, shuffle=True, random_state=0)
    with pytest.warns(
        UserWarning, match=r"cv=KFold\(.*spectra of \d+ stars .* both sides of a fold"
    ):
        method(torn).fit(visits, y)
    for cv in (KFold(3), GroupKFold(3), 3, None):  # the pairs are neighbours
        method(cv).fit(visits, y)
    method(torn).fit(spectra, y)


def test_splits_of_a_comparison_that_tear_stars_apart_are_told():
    with pytest.warns(UserWarning, match="puts spectra of 10 stars"):
        star_splits(20, cv=KFold(2), groups=np.tile(list("abcdefghij"), 2))


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 15), min_size=30, max_size=80).filter(
        lambda g: len(set(g)) >= 5
    ),
    cv=st.sampled_from([None, 2, 4]),
    seed=st.integers(0, 5),
)
def test_groups_never_straddle(groups, cv, seed):
    groups = np.array(groups)
    splits = star_splits(len(groups), 0.3, cv, groups, seed)
    for train, test in splits:
        assert not set(groups[train]) & set(groups[test])
    if cv:
        assert_array_equal(np.sort(np.concatenate([t for _, t in splits])), range(len(groups)))


def test_same_seed_same_split():
    one, two = (star_splits(50, 0.2, None, None, 7)[0][1] for _ in range(2))
    assert_array_equal(one, two)
