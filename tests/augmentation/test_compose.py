import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skspec import Spectra
from skspec.augmentation import (
    BadPixels,
    Compose,
    ContinuumJitter,
    GaussianNoise,
    OneOf,
    RadialVelocityShift,
    RotationalBroadening,
)

WAVELENGTH = 5000 * np.exp(np.arange(300) * 1e-5)
FLAT = Spectra(np.ones((600, 300)), wavelength=WAVELENGTH)


def test_one_after_the_other():
    y = pd.DataFrame({"vsini": np.full(600, 3.0), "rv": np.zeros(600)})
    parts = [RotationalBroadening((0, 20)), RadialVelocityShift((-9, 9)), GaussianNoise(50)]
    out, new = Compose(parts, random_state=3).augment(FLAT, y)
    assert 40 < np.median(out.snr) < 60
    assert np.ptp(new["vsini"]) > 10 and np.ptp(new["rv"]) > 15
    assert_allclose(np.std(out.flux[out.good]), 0.02, rtol=0.02)
    half = Compose(parts, p=0.5, random_state=3).augment(FLAT, y)[1]
    assert_array_equal(half["vsini"] == 3, half["rv"] == 0)
    assert 0.4 < np.mean(half["rv"] == 0) < 0.6


def test_seeds_of_the_parts_do_not_matter():
    one = Compose([GaussianNoise(50, random_state=1)], random_state=0).augment(FLAT)
    two = Compose([GaussianNoise(50, random_state=2)], random_state=0).augment(FLAT)
    assert_array_equal(one.flux, two.flux)
    twice = Compose([GaussianNoise(50), GaussianNoise(25)], random_state=0).augment(FLAT)
    assert_allclose(np.std(twice.flux), 0.04, rtol=0.02)  # the noise that is there counts


def test_one_of_several():
    either = OneOf(
        [GaussianNoise(50), BadPixels(0.5), ContinuumJitter(0.1, degree=0)],
        probabilities=[0.5, 0.3, 0.2],
        p=0.8,
        random_state=0,
    )
    out = either.augment(FLAT)
    spread = out.flux.std(axis=1)
    noisy = np.isfinite(out.ivar).all(axis=1) & (spread > 0.01)
    holes = ~out.good.all(axis=1)
    bent = (spread < 1e-12) & (out.flux[:, 0] != 1)
    assert_allclose([noisy.mean(), holes.mean(), bent.mean()], [0.4, 0.24, 0.16], atol=0.06)
    assert not (noisy & holes).any()
    even = OneOf(either.augmentations, random_state=0).augment(FLAT)
    assert_allclose(np.mean(~even.good.all(axis=1)), 1 / 3, atol=0.06)


def test_they_nest_and_clone():
    inner = OneOf([GaussianNoise(50), ContinuumJitter()])
    outer = clone(Compose([inner, BadPixels(0.1)], random_state=0))
    assert outer.augmentations[0] is not inner
    assert outer.augment(FLAT).shape == FLAT.shape


@pytest.mark.parametrize(
    "augmentation, message",
    [
        (Compose([np.log]), "takes augmentations of skspec.augmentation"),
        (OneOf(), "at least one"),
        (OneOf([GaussianNoise()], probabilities=[0.5, 0.5]), "must be 1 numbers of sum 1"),
        (OneOf([GaussianNoise()] * 2, probabilities=[0.9, 0.5]), "must be 2 numbers of sum 1"),
        (Compose([GaussianNoise(-5)]), "snr"),
    ],
)
def test_bad_input_is_told(augmentation, message):
    with pytest.raises(ValueError, match=message):
        augmentation.augment(FLAT)
