"""Laws of reproducible, portable and harmless methods."""

from __future__ import annotations

import pickle

import numpy as np
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skspec.testing._assertions import assert_below, assert_same, assert_true
from skspec.testing._law import forward_only, law
from skspec.testing._stars import draw_stars
from skspec.testing.corruptions import as_dtype, read_only


@law(applies=lambda trial: "n_jobs" in trial.estimator.get_params(deep=False))
def check_workers_and_backend_change_nothing(trial):
    """``n_jobs`` and the backend of joblib change nothing."""
    spectra = trial.test[0]
    alone = trial.new().fit(*trial.train).predict_dist(spectra)
    for backend in ("threading", "loky"):
        with parallel_config(backend=backend):
            shared = trial.new(n_jobs=2).fit(*trial.train).predict_dist(spectra)
        assert_allclose(shared.mean(), alone.mean(), rtol=1e-10, err_msg=backend)
        assert_allclose(shared.cov(), alone.cov(), rtol=1e-7, atol=1e-12, err_msg=backend)
        with parallel_config(backend=backend, n_jobs=2):
            configured = trial.new().fit(*trial.train).predict_dist(spectra)
        assert_allclose(configured.mean(), alone.mean(), rtol=1e-10, err_msg=backend)


@law
def check_same_fit_same_result_and_pickle(trial):
    """Fitted again, refitted, or pickled: the same result, the global generator untouched."""
    dist = trial.fitted.predict_dist(trial.test[0])
    again = clone(trial.fitted).fit(*trial.train)
    copied = pickle.loads(pickle.dumps(trial.fitted))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for other in (again, copied, again.fit(*trial.train)):
        assert_array_equal(other.predict_dist(trial.test[0]).mean(), dist.mean())
        assert_array_equal(other.predict_dist(trial.test[0]).cov(), dist.cov())
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@law
def check_refit_forgets_the_first_fit(trial):
    """A second fit, to other pixels and labels, knows nothing of the first."""
    model = trial.new().fit(*draw_stars(60, n_pixels=23, n_labels=2, errors=None, seed=9))
    shape = model.predict(draw_stars(5, n_pixels=23, n_labels=2, errors=None)[0]).shape
    assert_array_equal(shape, (5, 2))
    fresh = trial.new().fit(*trial.train).predict_dist(trial.test[0])
    assert_array_equal(model.fit(*trial.train).predict_dist(trial.test[0]).cov(), fresh.cov())


@law
def check_the_callers_arrays_are_never_modified(trial):
    """The caller's arrays are never modified, and may be read-only."""
    spectra, labels = trial.train
    kept = [a.copy() for a in (spectra.flux, spectra.ivar)]
    locked, targets = read_only(spectra), np.array(labels)
    targets.flags.writeable = False
    assert_true(not locked.flux.flags.writeable, "the flux should be read-only")
    model = trial.new().fit(locked, targets)
    dist = model.predict_dist(locked[:10])
    if trial.is_forward:
        model.predict_flux(targets)
        model.flux_jacobian(targets)
        model.noise(locked).variance()
        model.fisher_information(targets, locked)
    writeable = trial.new().fit(spectra, labels)
    assert_array_equal(writeable.predict_dist(spectra[:10]).cov(), dist.cov())
    assert_array_equal(spectra.flux, kept[0])
    assert_array_equal(spectra.ivar, kept[1])


@law
def check_single_precision_is_close(trial):
    """Spectra in single precision give the same labels within 0.002 sigma, in double precision."""
    train, test = (as_dtype(s, np.float32) for s in (trial.train[0], trial.test[0]))
    assert_true(train.flux.dtype == np.float32, f"flux is {train.flux.dtype}")
    dist = trial.new().fit(train, trial.train[1]).predict_dist(test)
    double = trial.fitted.predict_dist(trial.test[0])
    assert_same(double, dist, sigma=2e-3, rtol=2e-3, what="double and single precision")
    assert_true(dist.mean().dtype == np.float64, f"labels are {dist.mean().dtype}")


@law
def check_stars_do_not_know_of_each_other(trial):
    """The labels of a star do not depend on which other stars are predicted with it."""
    spectra = trial.test[0]
    sane = np.where(spectra.good, spectra.flux, np.median(spectra.flux))  # not 1e6 in bad pixels
    flat = spectra.replace(flux=sane, ivar=np.full(sane.shape, 1e4))  # same weights: another path
    for loss in ("linear", "soft_l1", "huber") if trial.is_forward else (None,):
        model = trial.fitted
        if loss is not None:
            model = pickle.loads(pickle.dumps(model)).set_params(inversion__loss=loss)
        for stars, parts in (
            (spectra, (slice(3, 4), slice(5, 13), [17, 2, 11])),
            (flat, (slice(3, 4), slice(5, 13))),
        ):
            whole = model.predict_dist(stars)
            for rows in parts:
                what = f"stars {rows} with and without the others (loss {loss})"
                assert_same(whole[rows], model.predict_dist(stars[rows]), sigma=3e-3, what=what)


@law
def check_order_of_the_training_stars_hardly_matters(trial):
    """The order of the training stars, which changes folds of a cross-validation, hardly matters."""
    (one, _), (two, _) = _fits_in_two_orders(trial)
    shift = np.median(np.abs(one.mean() - two.mean()) / one.std())
    assert_below(shift, 0.1, "median difference of the labels in sigma")
    assert_allclose(np.median(one.std() / two.std(), axis=0), 1, atol=0.25)


@law(applies=forward_only)
def check_order_of_the_training_stars_leaves_the_flux(trial):
    """The order of the training stars does not change the model of the flux."""
    (_, one), (_, two) = _fits_in_two_orders(trial)
    spread = draw_stars(60)[0].flux.std()
    assert_below(np.abs(one - two).max(), 1e-4 * spread, "largest difference of the flux")


def _fits_in_two_orders(trial):
    """Distribution of the labels, and flux at the true ones, of two fits."""
    spectra, labels = draw_stars(60)
    order = np.random.default_rng(5).permutation(60)
    for rows in (np.arange(60), order):
        model = trial.new().fit(spectra[rows], labels.iloc[rows])
        yield model.predict_dist(spectra), trial.is_forward and model.predict_flux(labels)
