"""Laws of bad pixels."""

from __future__ import annotations

import numpy as np

from skspec.base import domain_score
from skspec.testing._assertions import (
    assert_above,
    assert_below,
    assert_finite,
    assert_same,
    assert_true,
    largest_shift,
)
from skspec.testing._law import forward_only, law
from skspec.testing._stars import draw_stars
from skspec.testing.corruptions import as_dtype, blind_stars, fill_bad_pixels, kill_pixels


@law
def check_masked_pixels_change_nothing(trial):
    """A masked pixel changes nothing, whatever its flux, at fit and at predict."""
    train, labels = trial.train
    for dtype in (np.float64, np.float32):
        found = []
        for garbage in (1.0, np.nan, np.inf, 1e30, -1e30):
            spoilt = [as_dtype(fill_bad_pixels(s, garbage), dtype) for s in (train, trial.test[0])]
            found.append(trial.new().fit(spoilt[0], labels).predict_dist(spoilt[1]))
        assert_finite(found[0].mean(), f"labels ({dtype.__name__})")
        for other in found[1:]:
            assert_same(found[0], other, sigma=1e-6, rtol=1e-6, what=f"garbage, {dtype.__name__}")


@law
def check_masked_pixels_without_errors(trial):
    """A masked pixel changes nothing where the errors of the others are not known."""
    spectra, labels = draw_stars(70, errors=None, bad=0.03)
    assert_true(not spectra.has_errors, "the spectra should have no errors")
    assert_true((spectra.ivar == 0).any(), "some pixels should be bad")
    first, second = (
        trial.new().fit(s, labels).predict_dist(s) for s in (spectra, fill_bad_pixels(spectra, 1e9))
    )
    assert_same(first, second, sigma=1e-6, rtol=1e-6, what="garbage of 1e9")


@law
def check_dead_pixels_are_as_good_as_dropped(trial):
    """Pixels that are bad in every spectrum are as good as pixels left out."""
    (train, labels), (test, _) = trial.train, trial.test
    dead = np.random.default_rng(3).random(train.shape[1]) < 0.3
    assert_true(8 < dead.sum() < 25, f"{dead.sum()} dead pixels")
    masked = [kill_pixels(s, dead) for s in (train, test)]
    kept = [s[:, ~dead] for s in (train, test)]
    first = trial.new().fit(masked[0], labels).predict_dist(masked[1])
    second = trial.new().fit(kept[0], labels).predict_dist(kept[1])
    assert_same(first, second, what="masked and dropped")


@law
def check_pixels_dead_at_predict_only(trial):
    """Pixels known at fit but bad at predict: finite labels, whatever the flux, wider errors."""
    spectra = trial.test[0]
    dead = np.arange(spectra.shape[1]) % 3 == 0
    whole = trial.fitted.predict_dist(spectra)
    one, two = (trial.fitted.predict_dist(kill_pixels(spectra, dead, v)) for v in (0.0, 1e8))
    assert_same(one, two, sigma=1e-6, rtol=1e-6, what="flux of 0 and of 1e8")
    assert_below(largest_shift(whole, one), 5, "labels with and without a third of the pixels")
    if trial.is_forward:
        assert_above(np.median(one.std() / whole.std()), 1, "ratio of the errors without and with")


@law
def check_star_without_a_good_pixel(trial):
    """A star without a good pixel has NaN for labels and infinite errors, and leaves others alone."""
    model, spectra = trial.fitted, trial.test[0]
    blind = np.isin(np.arange(20), [4, 9])
    for flux in (0.0, 1e20):
        part = blind_stars(spectra, blind, flux)
        dist = model.predict_dist(part)
        assert_true(np.isnan(dist.mean()[blind]), f"labels {dist.mean()[blind]} should be NaN")
        assert_true(np.isinf(dist.std()[blind]), f"errors {dist.std()[blind]} should be infinite")
        assert_same(model.predict_dist(spectra)[~blind], dist[~blind], what="the other stars")
    if trial.is_forward:
        _check_flags_of_blind_stars(model.invert(part), blind)


def _check_flags_of_blind_stars(result, blind):
    for name in ("converged", "inside_training", "at_bound", "n_good"):
        value = getattr(result, name)[blind]
        assert_true(value == 0, f"{name} of the blind stars is {value}")
    for name in ("chi2", "reduced_chi2"):
        value = getattr(result, name)[blind]
        assert_true(np.isnan(value), f"{name} of the blind stars is {value}, not NaN")
    assert_true(result.converged[~blind], "the other stars did not all converge")
    assert_finite(result.chi2[~blind], "chi2 of the other stars")


@law(applies=forward_only)
def check_fewer_good_pixels_than_labels(trial):
    """Too little to go by: finite labels in the box, huge errors, no reduced chi2."""
    spectra = trial.test[0]
    ivar = spectra.ivar.copy()
    first, second = np.flatnonzero(ivar[0] > 0)[:2]
    ivar[0, np.delete(np.arange(50), [first, second])] = 0
    result = trial.fitted.invert(spectra.replace(ivar=ivar))
    assert_true(result.n_good[0] == 2, f"n_good is {result.n_good[0]}, not 2")
    assert_finite(result.labels[0], "labels")
    assert_true(np.isnan(result.reduced_chi2[0]), f"reduced chi2 is {result.reduced_chi2[0]}")
    std = result.formal_dist.std()
    ratio = np.max(std[0] / np.median(std[1:], axis=0))
    assert_above(ratio, 30, "formal error beside those of other stars")


def has_domain_score(trial):
    return hasattr(trial.estimator, "domain_score")


@law(applies=has_domain_score)
def check_domain_score_tells_strangers(trial):
    """Spectra read backwards are strangers to ``domain_score``, whatever bad pixels hold."""
    model, spectra = trial.fitted, trial.test[0]
    found = [domain_score(model, blind_stars(spectra, [4, 9], flux)) for flux in (0.0, 1e20)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found[0])), [4, 9])
    ordinary = np.nanmedian(found[0])
    assert_above(ordinary, 0, "median score of ordinary spectra")
    assert_below(ordinary, 1, "median score of ordinary spectra")
    flux = np.where(spectra.good, spectra.flux, 0)
    strange = spectra.replace(flux=flux[:, ::-1], ivar=spectra.ivar[:, ::-1])
    score = np.median(domain_score(model, strange))
    assert_above(score, max(1, 1.5 * ordinary), "median score of reversed spectra")


@law(applies=has_domain_score)
def check_domain_score_of_shifted_spectra(trial):
    """Spectra of another kind are far from the training set, those of the same kind are not."""
    model = trial.fitted
    stars, _ = draw_stars(60, seed=9)
    shifted = stars.replace(flux=np.roll(stars.flux, 5, axis=1))
    usual, unusual = domain_score(model, stars), domain_score(model, shifted)
    assert_above(np.mean(usual < 1), 0.8, "fraction of usual spectra that score below 1")
    assert_above(np.median(unusual), 1, "median score of shifted spectra")
    nothing = stars[:2].replace(ivar=np.zeros_like(stars.ivar[:2]))
    assert_true(np.isnan(domain_score(model, nothing)), "blind stars should score NaN")
