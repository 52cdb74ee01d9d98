"""Spectra augmented for every batch: seeded, resumed to the last bit, labels included."""

import threading

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skspec import Spectra  # noqa: E402
from skspec.augmentation import (  # noqa: E402
    BadPixels,
    Compose,
    ContinuumJitter,
    GaussianNoise,
    RadialVelocityShift,
)
from skspec.datasets import make_spectra  # noqa: E402
from skspec.discriminative import SpectralCNN  # noqa: E402
from skspec.latent import DenoisingAutoencoder  # noqa: E402
from skspec.networks import AugmentedStars, DenseNetwork, WeightedLoss, fit_network  # noqa: E402


def arrays(spectra, y):
    return spectra.flux, np.asarray(y, dtype=float).reshape(len(spectra), -1), spectra.good[:, :1]


@pytest.fixture
def stars():
    rng = np.random.default_rng(0)
    spectra = Spectra(1 + 0.1 * rng.normal(size=(60, 8)), flux_err=0.05)
    return spectra, pd.Series(spectra.flux[:, 0], name="first")


def test_every_batch_is_another(stars):
    spectra, y = stars
    rows = AugmentedStars(spectra, y, GaussianNoise(5), arrays)
    assert len(rows) == 60
    generator = np.random.default_rng(1)
    state = torch.get_rng_state()
    epochs = [list(rows.batches(4, generator)) for _ in range(2)]
    again = list(rows.batches(4, np.random.default_rng(1)))
    assert torch.equal(torch.get_rng_state(), state)
    for (x, (target, _)), (x_again, _) in zip(epochs[0], again):
        assert torch.equal(x, x_again)
        assert x.dtype == torch.float32 and len(x) == 15
        assert not torch.allclose(x[:, :1], target, atol=1e-3)  # which is not augmented
    first, second = (
        {float(t): x for xs, (ts, _) in epoch for x, t in zip(xs, ts)} for epoch in epochs
    )
    assert len(first) == 60 and first.keys() == second.keys()
    assert not any(torch.equal(first[star], second[star]) for star in first)
    later = list(rows.batches(4, np.random.default_rng(1), skip=2))
    assert len(later) == 2 and torch.equal(later[0][0], again[2][0])
    plain = torch.cat([x for x, _ in rows.batches(3)])
    assert_allclose(plain, spectra.flux, rtol=1e-6)


def test_a_failure_reaches_the_training_and_nothing_runs_on(stars):
    rows = AugmentedStars(*stars, GaussianNoise((50, 5)), arrays)
    with pytest.raises(ValueError, match="snr must be"):
        next(rows.batches(4, np.random.default_rng(0)))
    batches = AugmentedStars(*stars, GaussianNoise(5), arrays).batches(4, np.random.default_rng(0))
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("skspec-stream")]


def train(data, valid, **options):
    settings = {"n_epochs": 3, "batch_size": 16, "learning_rate": 0.02, "patience": 40}
    return fit_network(
        DenseNetwork,
        WeightedLoss,
        data,
        valid,
        n_threads=1,
        **(settings | options),
        module__n_in=8,
        module__n_out=1,
        module__hidden=(10,),
        module__activation="silu",
    )


def weights(net):
    return np.concatenate([p.detach().numpy().ravel() for p in net.module_.parameters()])


class Interrupted(GaussianNoise):
    """Noise, until Ctrl-C."""

    left = 14  # in the middle of the second epoch of 8

    def augment(self, X, y=None, random_state=None):
        Interrupted.left -= 1
        if Interrupted.left == 0:
            raise KeyboardInterrupt
        return super().augment(X, y, random_state)


def test_an_interrupted_training_goes_on_to_the_same_weights(stars, tmp_path):
    spectra, y = stars
    valid = arrays(spectra[45:], y[45:])
    rows = AugmentedStars(spectra[:45], y[:45], Interrupted(5), arrays)
    kept = {"checkpoint": tmp_path / "training.pt", "checkpoint_every": 0.0, "batch_size": 6}
    with pytest.raises(KeyboardInterrupt):
        train(rows, valid, **kept)
    resumed = train(rows, valid, **kept)
    # of 24 batches in all more than 4 were done, and not the 14th; some of the others ahead of time
    assert -20 < Interrupted.left < -10
    assert_array_equal(weights(resumed), weights(train(rows, valid, batch_size=6)))
    other = AugmentedStars(spectra[:45], y[:45], Interrupted(50), arrays)
    with pytest.raises(
        ValueError, match="augmentation.*another training|another training.*augment"
    ):
        train(other, valid, **kept)


# -- SpectralCNN -----------------------------------------------------------------------------------

TINY = {
    "architecture": "strided",
    "architecture_params": {"n_filters": (4,), "hidden": (16,)},
    "max_iter": 30,
    "batch_size": 32,
    "learning_rate_init": 0.01,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def at_rest():
    spectra, y = make_spectra(
        150, n_pixels=60, wavelength=(5160, 5190), resolution=10000, snr=None, random_state=0
    )
    return spectra, y[["feh"]].assign(rv=0.0)


MOVE = Compose([RadialVelocityShift((-60, 60)), GaussianNoise(100)])


def test_a_network_learns_a_label_that_only_the_augmentation_varies(at_rest):
    spectra, y = at_rest
    model = SpectralCNN(**TINY, augmentation=MOVE).fit(spectra, y)
    test, truth = MOVE.augment(spectra, y, random_state=5)
    error = model.predict(test)[:, 1] - truth["rv"]
    assert np.std(error) < 0.5 * np.std(truth["rv"])
    assert model.uses_ivar_ and model.label_scale_[1] > 20
    dist = model.predict_dist(test)
    assert 0.4 < np.mean(np.abs(error) < dist.std()[:, 1]) < 0.95


def test_a_held_out_star_that_becomes_blind_does_not_cost_the_scale_of_errors(at_rest):
    spectra, y = at_rest
    observed = spectra.replace(ivar=np.where(np.arange(150)[:, None] < 40, 0.0, np.inf))
    spoilt = Compose([GaussianNoise(100), BadPixels(0.0, observed=observed)])
    model = SpectralCNN(**TINY | {"max_iter": 2}, augmentation=spoilt).fit(spectra, y["feh"])
    assert model.error_scale_[0] != 1.0


def test_without_strength_it_changes_nothing(at_rest):
    spectra, y = at_rest
    settings = TINY | {"max_iter": 2}
    plain = SpectralCNN(**settings).fit(spectra, y).history_
    same = SpectralCNN(**settings, augmentation=ContinuumJitter(0.0)).fit(spectra, y).history_
    # but for the random numbers that are drawn
    assert_allclose(same["valid_loss"], plain["valid_loss"], rtol=0.5)


@pytest.mark.parametrize("policy, uses", [("auto", True), ("ignore", False)])
def test_policies_of_errors_and_more_epochs(at_rest, policy, uses):
    spectra, y = at_rest
    settings = TINY | {"max_iter": 1, "ivar": policy, "augment_snr": 50.0, "warm_start": True}
    model = SpectralCNN(**settings, augmentation=MOVE).fit(spectra, y["feh"])
    assert model.uses_ivar_ is uses
    model.fit(spectra, y["feh"]).partial_fit(spectra, y["feh"])
    assert model.predict(MOVE.augment(spectra[:4], random_state=0)).shape == (4,)


def test_a_checkpoint_of_a_network(at_rest, tmp_path):
    spectra, y = at_rest
    settings = TINY | {"max_iter": 3}
    straight = SpectralCNN(**settings, augmentation=MOVE).fit(spectra, y)
    kept = SpectralCNN(**settings, augmentation=MOVE, checkpoint=tmp_path / "net.pt")
    first, second = (kept.fit(spectra, y).predict(spectra[:5].replace(ivar=1e4)) for _ in range(2))
    assert_array_equal(first, second)
    assert_array_equal(first, straight.predict(spectra[:5].replace(ivar=1e4)))
    assert kept.n_iter_ == 3  # the same as without, and as read from the file
    with pytest.raises(ValueError, match="another training"):
        kept.set_params(augmentation=GaussianNoise(100)).fit(spectra, y)


@pytest.mark.slow
def test_a_denoiser_for_stars_that_move(at_rest):
    spectra, _ = at_rest
    moving = RadialVelocityShift((-60, 60))
    settings = {
        "width": 4,
        "max_iter": 30,
        "batch_size": 32,
        "learning_rate_init": 0.01,
        "random_state": 0,
    }
    test = moving.augment(spectra, random_state=7)
    noisy = GaussianNoise(30).augment(test, random_state=8)
    left = []
    for augmentation in (None, moving):
        model = DenoisingAutoencoder(8, snr=30, augmentation=augmentation, **settings).fit(spectra)
        clean = model.transform(noisy)
        good = test.good.all(axis=0)
        left.append(np.std((clean.flux - test.flux)[:, good]))
    assert left[1] < 0.8 * left[0]
