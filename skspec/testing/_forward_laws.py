"""Laws of forward models: the flux, its derivatives, and what the inversion flags."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from skspec.diagnostics import cramer_rao_bound, information_map
from skspec.likelihood import marginal_information
from skspec.spectra import Spectra
from skspec.testing._assertions import (
    assert_above,
    assert_below,
    assert_raises,
    assert_same,
    assert_true,
)
from skspec.testing._law import forward_only, law
from skspec.testing._stars import draw_stars


@law(applies=forward_only)
def check_jacobian_is_the_finite_difference(trial):
    """``flux_jacobian`` equals the finite difference of ``predict_flux``, in label units."""
    model, labels = trial.fitted, trial.test[1].to_numpy()
    jacobian = model.flux_jacobian(labels)
    assert_array_equal(jacobian.shape, (20, 50, 3))
    for k, scale in enumerate(model.label_scale_):
        step = np.zeros(3)
        step[k] = 1e-4 * scale
        up, down = (model.predict_flux(labels + s * step) for s in (1, -1))
        difference = (up - down) / (2 * step[k])
        assert_allclose(
            jacobian[..., k],
            difference,
            atol=1e-6 * np.abs(difference).max(),
            err_msg=f"derivative by label {k}",
        )


@law(applies=forward_only)
def check_unit_of_the_flux(trial):
    """The unit of the flux does not matter, be it 1e-19 as in erg/s/cm2/A."""
    unit = 2.0**-63  # single precision must not overflow on the way
    first, second = (
        stars.replace(flux=unit * stars.flux, ivar=stars.ivar / unit**2)
        for stars in (trial.train[0], trial.test[0])
    )
    dist = trial.new().fit(first, trial.train[1]).predict_dist(second)
    assert_same(trial.fitted.predict_dist(trial.test[0]), dist, what="in another unit of flux")


@law(applies=forward_only)
def check_labels_outside_the_training_set_are_flagged(trial):
    """Labels outside the training set are flagged, and stay within a tenth of its span of it."""
    model, (train, labels) = trial.fitted, trial.train
    inside = model.invert(draw_stars(100, seed=3)[0]).inside_training.mean()
    assert_above(inside, 0.7, "fraction of like stars that are inside")
    span = labels.max() - labels.min()
    far = labels.max() + 0.08 * span
    result = model.invert(Spectra(model.predict_flux(far), flux_err=1e-4))
    if result.converged[0] and np.all(np.abs(result.labels - far.to_numpy()) < [10, 0.01, 0.01]):
        assert_true(~result.inside_training, f"labels {result.labels} are said to be inside")
    beyond = np.clip(train.flux[:1] + 100 * (train.flux[:1] - 1), -1e3, 1e3)
    result = model.invert(Spectra(beyond, flux_err=1e-3))
    assert_true(~result.inside_training, f"labels {result.labels} are said to be inside")
    upper, lower = labels.max() + 0.1001 * span, labels.min() - 0.1001 * span
    assert_below(result.labels, upper.to_numpy(), "labels of an impossible star", strict=False)
    assert_above(result.labels, lower.to_numpy(), "labels of an impossible star", strict=False)
    assert_above(result.reduced_chi2[0], 100, "reduced chi2 of an impossible star")


@law(applies=forward_only)
def check_bad_labels_for_the_flux(trial):
    """Labels of a wrong shape, or not finite, get a sentence that says what to mend."""
    model, (spectra, labels) = trial.fitted, trial.test
    for method in (model.predict_flux, model.flux_jacobian):
        for wrong in (np.ones((4, 2)), np.ones(4), np.ones((2, 2, 3))):
            with assert_raises(ValueError, "one column for each of teff, logg, feh"):
                method(wrong)
        with assert_raises(ValueError, "NaN or infinite"):
            method([5000, np.nan, 0.0])
    with assert_raises(ValueError, "3 sets of labels for 20 spectra"):
        model.fisher_information(labels[:3], spectra)


@law(applies=forward_only)
def check_information_is_one_number(trial):
    """What public functions say of the information in a spectrum is one and the same."""
    model, (stars, _) = trial.fitted, trial.test
    result = model.invert(stars)
    some = np.flatnonzero(result.converged & result.inside_training)[:6]
    result, stars = result[some], stars[some]
    fisher = model.fisher_information(result, stars)
    n_labels = fisher.shape[1]
    # a label that nothing is known of gets an error of 1000 label scales
    least = np.diag(1e-6 / model.label_scale_[:n_labels] ** 2)
    cov = np.linalg.inv(fisher + least)
    unit = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    unit = unit[:, :, None] * unit[:, None, :]
    formal = result.formal_cov[:, :n_labels, :n_labels]
    # an inversion takes the small subspace that holds the spectra of a model with many features
    assert_below(np.abs(formal - cov) / unit, 1e-3, "formal covariance against fisher_information")
    bound = cramer_rao_bound(model, result, stars, noise="total")
    bound = marginal_information(bound.fisher, np.arange(n_labels))
    assert_below(np.abs(bound - fisher) * unit, 1e-8, "bound against fisher_information")
    known = np.linalg.inv(fisher[0])
    found = information_map(model, result[0], stars[:1], noise="total").std()[:n_labels]
    assert_allclose(found, np.sqrt(np.diag(known)), rtol=1e-6, err_msg="information_map")
