"""Laws of labels and their distributions."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from skspec.base import CorrelatedLabelsWarning, predict_dist
from skspec.testing._assertions import (
    assert_above,
    assert_below,
    assert_finite,
    assert_same,
    assert_true,
)
from skspec.testing._law import law
from skspec.testing.corruptions import without_errors


@law
def check_predict_is_the_mean_of_the_distribution(trial):
    """``predict`` is the mean of ``predict_dist``, ``return_std`` its standard deviation."""
    model, (spectra, labels) = trial.fitted, trial.test
    dist = model.predict_dist(spectra)
    assert_true(dist.label_names == list(labels.columns), f"names are {dist.label_names}")
    assert_array_equal(model.predict(spectra), dist.mean())
    mean, std = model.predict(spectra, return_std=True)
    assert_array_equal(mean, dist.mean())
    assert_array_equal(std, dist.std())
    assert_allclose(predict_dist(model, spectra).cov(), dist.cov())
    assert_above(np.linalg.eigvalsh(dist.corr()), 0, "eigenvalues of the correlations")


@law
def check_it_works_at_all(trial):
    """The toy is easy: small errors, and error bars of their size."""
    spectra, labels = trial.test
    dist = trial.fitted.predict_dist(spectra)
    error = dist.mean() - labels.to_numpy()
    assert_below(np.median(np.abs(error), axis=0), [120, 0.12, 0.1], "median error of the labels")
    covered = np.mean(np.abs(error / dist.std()) < 1)
    assert_above(covered, 0.45, "fraction of labels within one sigma")
    assert_below(covered, 0.9, "fraction of labels within one sigma")
    assert_above(trial.fitted.score(spectra, labels), 0.85, "score")


@law
def check_rescaling_label_units(trial):
    """Rescaling label units changes only units, covariance included."""
    units = np.array([1e-3, 10.0, 1.0])  # K -> kK, dex -> tenths
    shift = np.array([0.0, 0.0, 2.0])
    (train, labels), (test, truth) = trial.train, trial.test
    other = trial.new().fit(train, labels * units + shift)
    first, second = (m.predict_dist(test) for m in (trial.fitted, other))
    assert_same(first.affine(units, shift), second, what="in other units")
    if trial.is_forward:
        _check_flux_in_other_units(trial.fitted, other, truth, units, shift)


def _check_flux_in_other_units(model, other, labels, units, shift):
    flux = model.predict_flux(labels)
    assert_allclose(other.predict_flux(labels * units + shift), flux, atol=1e-5)
    jacobian = model.flux_jacobian(labels)
    scaled = other.flux_jacobian(labels * units + shift) * units
    unit = np.abs(jacobian).max(axis=(0, 1))
    assert_allclose(scaled / unit, jacobian / unit, atol=1e-4)
    assert_allclose(
        other.label_covariance_,
        model.label_covariance_ * np.outer(units, units),
        rtol=1e-2,
        atol=1e-3 * units.max() ** 2 * 1e-4,
    )


@law
def check_one_label_in_every_form(trial):
    """One label as a vector, a column or a Series: the same values, in the form that was given."""
    spectra, teff = trial.train[0], trial.train[1]["teff"]
    test = trial.test[0]
    vector = trial.new().fit(spectra, teff.to_numpy())
    column = trial.new().fit(spectra, teff.to_numpy()[:, None])
    series = trial.new().fit(spectra, teff)
    assert_array_equal(vector.predict(test).shape, (20,))
    assert_array_equal(column.predict(test).shape, (20, 1))
    assert_true(series.label_names_in_ == ["teff"], f"names are {series.label_names_in_}")
    assert_allclose(vector.predict(test), column.predict(test)[:, 0])
    assert_allclose(vector.predict(test), series.predict(test))
    assert_array_equal(vector.predict(test, return_std=True)[1].shape, (20,))


@law
def check_correlated_labels_are_told_once(trial):
    """Training labels that go together are warned of, once, in the file that called ``fit``."""
    spectra, labels = trial.train
    labels = labels.iloc[:, :2].copy()
    labels.iloc[:, 1] = labels.iloc[:, 0] + 0.1 * labels.iloc[:, 1]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trial.new().fit(spectra, labels)
    told = [w for w in told if issubclass(w.category, CorrelatedLabelsWarning)]
    assert_true(len(told) == 1, f"{len(told)} warnings of correlated labels")
    assert_true(told[0].filename == __file__, f"the warning points to {told[0].filename}")


@law
def check_constant_pixel_and_constant_label(trial):
    """A pixel or a label that never changes does no harm to the others."""
    (train, labels), (test, truth) = trial.train, trial.test
    ones = [s.replace(flux=np.where(np.arange(50) == 7, 1.0, s.flux)) for s in (train, test)]
    dist = trial.new().fit(ones[0], labels).predict_dist(ones[1])
    assert_finite(dist.mean(), "labels with a constant pixel")
    error = np.median(np.abs(dist.mean() - truth), axis=0)
    assert_below(error, [120, 0.12, 0.1], "median error with a constant pixel")
    bare = [without_errors(s) for s in ones]  # no noise at all in that pixel
    dist = trial.new().fit(bare[0], labels).predict_dist(bare[1])
    error = np.median(np.abs(dist.mean() - truth), axis=0)
    assert_below(error, [150, 0.15, 0.12], "median error with a constant pixel, errors unknown")
    dist = trial.new().fit(train, labels.assign(logg=4.5)).predict_dist(test)
    assert_allclose(dist.mean()[:, 1], 4.5, atol=1e-6)
    assert_finite(dist.std(), "errors with a constant label")
    # log g still shapes these spectra: the other labels suffer, but stay sane
    error = np.median(np.abs(dist.mean() - truth), axis=0)[[0, 2]]
    assert_below(error, [600, 0.5], "median error beside a constant label")
