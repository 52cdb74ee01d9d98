"""Laws of bad input: it gets a sentence that says what to mend."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.utils import get_tags

from skspec.forward import FewStarsWarning
from skspec.testing._assertions import assert_above, assert_finite, assert_raises, assert_true
from skspec.testing._law import law
from skspec.testing.corruptions import fill_bad_pixels


@law
def check_bad_training_sets(trial):
    """Training sets that cannot be fitted get a sentence that says what to mend."""
    spectra, labels = trial.train
    broken = fill_bad_pixels(spectra, 1.0).flux.copy()
    broken[3, 4] = np.nan
    with assert_raises(ValueError, "Input X contains NaN"):
        trial.new().fit(broken, labels)
    with assert_raises(ValueError, "inconsistent numbers of samples"):
        trial.new().fit(spectra, labels[:-1])
    with assert_raises(ValueError, "Every pixel of every training spectrum is bad"):
        trial.new().fit(spectra.replace(ivar=0.0), labels)
    with assert_raises(ValueError, r"needs at least 2.*1"):
        trial.new().fit(spectra[:1], labels[:1])
    if get_tags(trial.new()).target_tags.required:
        with assert_raises(ValueError, "(hold|contains) NaN"):
            trial.new().fit(spectra, labels.mask(labels == labels.iloc[5, 1]))
        with assert_raises(ValueError, "requires y"):
            trial.new().fit(spectra, None)


@law
def check_bad_spectra_at_predict(trial):
    """Spectra with other pixels, another grid, or NaN get a sentence that says what to mend."""
    model, spectra = trial.fitted, trial.test[0]
    with assert_raises(ValueError, "12 features.* expecting 50 features"):
        model.predict(spectra[:, :12])
    with assert_raises(ValueError, "fitted on 5000.000-5024.500 Angstrom.*Resampler"):
        model.predict(spectra.replace(wavelength=spectra.wavelength + 3))
    flux = fill_bad_pixels(spectra, 1.0).flux.copy()
    flux[2, 2] = np.nan
    with assert_raises(ValueError, "Input X contains NaN"):
        model.predict(flux)


@law
def check_very_few_stars(trial):
    """Of 3 or 5 stars: a fit with finite errors (and a warning, if less was fitted), or a sentence."""
    for n in (3, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewStarsWarning)
            try:
                model = trial.new().fit(trial.train[0][:n], trial.train[1][:n])
            except ValueError as error:
                assert_true("stars" in str(error), f"{n} stars: {str(error)!r} names no stars")
                continue
        dist = model.predict_dist(trial.test[0])
        assert_finite(dist.mean(), f"labels after a fit to {n} stars")
        assert_above(dist.std(), 0, f"errors after a fit to {n} stars")
