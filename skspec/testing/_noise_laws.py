"""Laws of per-pixel errors: what more noise does, and what happens when errors get lost."""

from __future__ import annotations

import numpy as np

from skspec.base import MissingUncertaintyWarning
from skspec.testing._assertions import (
    assert_above,
    assert_finite,
    assert_raises,
    assert_same,
    assert_true,
    assert_warns,
)
from skspec.testing._law import forward_only, law
from skspec.testing.corruptions import fill_bad_pixels, make_noisier, without_errors


@law
def check_more_noise_never_narrows_an_interval(trial):
    """More noise never narrows an interval; infinite noise leaves nothing known."""
    model = trial.fitted
    spectra, labels = trial.test
    if trial.is_forward:  # at the same labels: the flux is the model's own
        flux = model.predict_flux(labels)
        spectra = spectra.replace(flux=np.where(spectra.good, flux, 0))
    last = model.predict_dist(spectra).std()
    rng = np.random.default_rng(0)
    for factor in (1.1, 2.0, 10.0, 100.0, rng.uniform(100, 300, spectra.shape), np.inf):
        std = model.predict_dist(make_noisier(spectra, factor)).std()
        what = f"errors with noise of {np.median(factor):.3g} times that of the spectra"
        assert_above(std, last * (1 - 1e-6), what, strict=False)
        last = std
    assert_true(np.isinf(last), f"errors of spectra without information are {last}")
    if trial.is_forward:
        narrow, wide = (
            model.invert(spectra.replace(ivar=spectra.ivar / f)).formal_dist.std() for f in (1, 25)
        )
        assert_above(wide, 1.3 * narrow, "formal errors with five times the noise")


@law(applies=forward_only)
def check_one_noisier_pixel_never_narrows_an_interval(trial):
    """A single noisier pixel never narrows a formal error, and widens some."""
    model = trial.fitted
    spectra = trial.test[0].replace(flux=model.predict_flux(trial.test[1]))
    before = model.invert(spectra).formal_dist.std()
    for pixel in range(0, spectra.shape[1], 7):
        ivar = spectra.ivar.copy()
        ivar[:, pixel] /= 4
        after = model.invert(spectra.replace(ivar=ivar)).formal_dist.std()
        what = f"formal errors with pixel {pixel} twice as noisy"
        # the minimum is found to 1e-3 sigma
        assert_above(after, before * (1 - 1e-3), what, strict=False)
        assert_above(np.max(after / before), 1 + 1e-3, f"{what}, the largest ratio")


@law
def check_missing_errors_are_noticed(trial):
    """Errors at fit but not at predict, or the other way round, are warned of."""
    train, labels = trial.train
    test = trial.test[0]
    with assert_warns(MissingUncertaintyWarning, "fitted with flux errors.*without"):
        found = trial.fitted.predict(fill_bad_pixels(test, 1.0).flux)
    assert_finite(found, "labels without errors")
    bare = trial.new().fit(without_errors(train), labels)
    with assert_warns(MissingUncertaintyWarning, "fitted without.*with"):
        bare.predict(test)
    blind = trial.fitted.predict(test.replace(ivar=0.0))  # nothing to say about errors
    assert_true(np.isnan(blind), f"labels of blind stars are {blind}")


@law(applies=forward_only)
def check_ivar_policies(trial):
    """ivar="require" refuses spectra without errors, ivar="ignore" does as if there were none."""
    (train, labels), test = trial.train, trial.test[0]
    plain = without_errors(train)
    with assert_raises(ValueError, "needs flux errors: pass Spectra"):
        trial.new(ivar="require").fit(plain, labels)
    required = trial.new(ivar="require").fit(train, labels)
    with assert_raises(ValueError, "needs flux errors"):
        required.predict(test.flux)
    ignored = trial.new(ivar="ignore").fit(train, labels)
    assert_true(not ignored.uses_ivar_, "uses_ivar_ should be False with ivar='ignore'")
    same = trial.new().fit(plain, labels)
    assert_same(
        ignored.predict_dist(test),
        same.predict_dist(without_errors(test)),
        sigma=1e-9,
        rtol=1e-9,
        what="errors ignored and errors absent",
    )
