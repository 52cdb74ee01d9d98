"""Options of forward models set from outside, before and after the fit, and fits after other fits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV

from skspec.datasets import make_spectra
from skspec.diagnostics import cramer_rao_bound
from skspec.forward import CorrectedModel, FullSpectrumFit, TheCannon
from skspec.likelihood import Inversion

BOX = {"teff": (4500, 6500), "logg": (3.0, 4.8), "feh": (-0.8, 0.3)}
WITH_ORDERS = {"order": np.repeat([0, 1], 130)}


@pytest.fixture(scope="module")
def data():
    how = {"n_pixels": 260, "snr": 60, "resolution": 4000, "label_ranges": BOX}
    train, y = make_spectra(150, random_state=1, **how)
    test, _ = make_spectra(12, random_state=2, **how)
    return train, y, test


def test_searches_leave_a_shared_inversion_alone(data):
    train, y, _ = data
    shared = Inversion(n_init=2)
    grids = {"inversion__loss": ["huber"]}, {"inversion__correlation_length": [3]}
    for grid in grids:
        search = GridSearchCV(TheCannon(inversion=shared), grid, cv=2).fit(train, y)
        name, (value,) = next(iter(grid.items()))
        assert search.best_estimator_.get_params()[name] == value
        assert shared.get_params() == Inversion(n_init=2).get_params()


def test_nested_options_begin_with_those_of_the_model_inside():
    model = FullSpectrumFit(TheCannon(inversion=Inversion(n_init=7, correlation_length=3)))
    model.set_params(inversion__loss="huber")
    expected = Inversion("huber", n_init=7, correlation_length=3).get_params()
    assert model.inversion.get_params() == expected
    assert model.model.inversion.loss == "linear"


def test_options_of_a_wrapper_are_its_own_or_those_of_its_model(data):
    train, y, test = data
    model = CorrectedModel(TheCannon(fit_rv=(-50, 50), inversion=Inversion(n_init=2)))
    model.set_params(inversion__loss="huber", coherence=0.1).fit(train, y)
    assert model.inversion.get_params() == Inversion("huber", n_init=2).get_params()
    assert model.model_.coherence == 0.1 and model.model_.fit_rv == (-50, 50)
    assert model.invert(test).rv is not None
    with pytest.raises(ValueError, match="Invalid parameter 'loss'"):
        model.set_params(loss="huber")


@pytest.mark.parametrize("kind", [TheCannon, FullSpectrumFit])
def test_options_set_after_the_fit(data, kind):
    train, y, test = data
    model = kind(continuum_degree=2).fit(train, y)
    before = model.invert(test).labels
    assert not np.allclose(model.set_params(inversion__loss="huber").invert(test).labels, before)
    assert_allclose(model.set_params(inversion=None).invert(test).labels, before)
    with pytest.raises(ValueError, match="'inversion' parameter"):
        model.set_params(inversion="huber").invert(test)


@pytest.mark.parametrize("wrap", [lambda m: m, CorrectedModel, FullSpectrumFit])
def test_nothing_is_left_of_an_earlier_fit(data, wrap):
    train, y, _ = data
    model = wrap(TheCannon()).fit(train, y)
    fresh = wrap(TheCannon(label_covariance=False))
    model.set_params(**fresh.get_params(deep=False)).fit(train, y)
    assert set(vars(model)) == set(vars(fresh.fit(train, y)))


@pytest.mark.parametrize(
    "model",
    [
        FullSpectrumFit(),
        CorrectedModel(TheCannon(fit_rv=(-100, 100), fit_broadening="rotation")),
        TheCannon(continuum_degree=2, fit_rv=True),
    ],
)
@pytest.mark.parametrize("at_fit", [{}, WITH_ORDERS])
@pytest.mark.parametrize("at_test", [{}, WITH_ORDERS])
def test_the_bound_knows_what_the_model_fits(data, model, at_fit, at_test):
    train, y, test = data
    model.fit(train.replace(**at_fit), y)
    test = test.replace(**at_test)
    result = model.invert(test)
    bound = cramer_rao_bound(model, result, test, noise="total")
    assert_allclose(bound.fisher, model.fisher_information(result, test), rtol=1e-6)
    free = model.free_columns
    assert len(bound.nuisance_names) == len(free)
    assert bound.nuisance_names[: free.free.n_nonlinear] == [
        *["rv"] * (free.free.rv_range is not None),
        *["broadening"] * (free.free.kernel is not None),
    ]
    known = np.flatnonzero(result.inside_training & ~result.at_bound.any(axis=1))
    assert_allclose(bound.cov()[known], result.formal_cov[known], rtol=1e-4)


def test_the_bound_without_a_wavelength(data):
    train, y, test = data
    train, test = (s[:, :100].replace(wavelength=None) for s in (train, test))
    model = FullSpectrumFit().fit(train, y)  # 5 is the highest degree for 100 pixels
    bound = cramer_rao_bound(model, model.invert(test), test, noise="total")
    assert bound.nuisance_names == [f"continuum_{q}" for q in range(6)]


@pytest.mark.parametrize("degree", [None, 0, 4])
def test_the_bound_with_another_continuum_than_the_model(data, degree):
    train, y, test = data
    model = TheCannon(continuum_degree=2).fit(train, y)
    result = model.invert(test)
    stds = [
        cramer_rao_bound(model, result, test, noise="total", continuum_degree=d).std()
        for d in (degree, 2)
    ]
    assert np.all(stds[0] > stds[1] if degree == 4 else stds[0] < stds[1])


def test_a_corrected_model_leaves_errors_aside_with_its_model(data):
    train, y, test = data
    plain, corrected = TheCannon(ivar="ignore"), CorrectedModel(TheCannon(ivar="ignore"))
    plain, corrected = (model.fit(train, y).invert(test) for model in (plain, corrected))
    assert_allclose(plain.labels, corrected.labels)
    assert_allclose(plain.formal_cov, corrected.formal_cov)
