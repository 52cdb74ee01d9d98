import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra
from skspec._progress import StepCounter
from skspec.augmentation import ContinuumJitter
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import make_spectra
from skspec.latent import DenoisingAutoencoder
from skspec.networks import can_train

pytestmark = pytest.mark.skipif(not can_train(), reason="no PyTorch")


def autoencoder(**options):
    settings = {
        "n_latent": 6,
        "snr": 10,
        "width": 4,
        "learning_rate_init": 0.01,
        "max_iter": 40,
        "random_state": 0,
    }
    return DenoisingAutoencoder(**(settings | options))


@pytest.fixture(scope="module")
def clean():
    return make_spectra(300, n_pixels=64, snr=None, random_state=0)[0]


@pytest.fixture(scope="module")
def noisy(clean):
    noise = np.random.default_rng(0).normal(scale=0.1, size=clean.shape)
    return Spectra(clean.flux + noise, flux_err=0.1, wavelength=clean.wavelength)


@pytest.fixture(scope="module")
def model(clean):
    return autoencoder().fit(clean[:200])


@parametrize_with_checks([autoencoder(max_iter=3, width=2, batch_size=16)])
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_it_takes_the_noise_out(model, clean, noisy):
    out = model.transform(noisy[200:])
    left = out.flux - clean.flux[200:]
    mean = clean.flux[:200].mean(axis=0)
    assert left.std() < 0.3 * 0.1
    assert left.std() < 0.8 * (clean.flux[200:] - mean).std()  # better than the mean spectrum
    assert_array_equal(out.ivar, noisy.ivar[200:])
    assert_array_equal(out.wavelength, noisy.wavelength)
    assert model.encode(noisy).shape == (300, 6)


def test_arrays_in_arrays_out_and_pickle(model, noisy):
    out = model.transform(noisy.flux[:100])
    assert isinstance(out, np.ndarray)
    assert_allclose(out, model.transform(noisy[:100]).flux, rtol=1e-6)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.transform(noisy).flux, model.transform(noisy).flux)
    same = clone(model).fit(make_spectra(300, n_pixels=64, snr=None, random_state=0)[0][:200])
    assert_array_equal(same.transform(noisy).flux, model.transform(noisy).flux)


def test_what_a_bad_pixel_holds_changes_nothing(clean, noisy):
    bad = np.random.default_rng(1).random(clean.shape) < 0.1
    bad[:, 5] = True
    found = []
    for garbage in (0.0, 1e30):
        spoilt = [s.replace(flux=np.where(bad, garbage, s.flux), mask=bad) for s in (clean, noisy)]
        fitted = autoencoder(max_iter=20).fit(spoilt[0][:200])
        found.append(fitted.transform(spoilt[1][200:]))
    keep = np.arange(64) != 5
    assert_array_equal(found[0].flux[:, keep], found[1].flux[:, keep])
    assert_array_equal(found[0].good, ~bad[200:])
    assert_allclose(found[0].flux[bad[200:] & keep], clean.flux[200:][bad[200:] & keep], atol=0.4)
    blind = spoilt[1][:2].replace(ivar=np.zeros((2, 64)))
    assert_array_equal(fitted.transform(blind).flux, blind.flux)


def test_a_pixel_never_seen_stays_bad(clean):
    dead = np.arange(64) == 5
    fitted = autoencoder(max_iter=2).fit(clean.replace(mask=dead))
    out = fitted.transform(clean)
    assert_array_equal(out.good, np.broadcast_to(~dead, clean.shape))
    assert_array_equal(out.flux[:, dead], clean.flux[:, dead])


def test_noise_of_the_errors_and_echelle_orders(clean):
    order = np.repeat([1, 2], [40, 24])
    stars = Spectra(clean.flux, flux_err=0.05, order=order)
    fitted = autoencoder(snr="ivar", max_iter=3).fit(stars)
    assert fitted.scaler_.shape == (2, 2, 40)
    assert fitted.transform(stars).flux.shape == stars.shape
    with pytest.raises(ValueError, match="Noise can be drawn from the errors only where"):
        autoencoder(snr="ivar").fit(clean)


def test_in_a_pipeline(noisy):
    labels = make_spectra(300, n_pixels=64, snr=None, random_state=0)[1]
    pipeline = make_pipeline(autoencoder(max_iter=5), ResidualCovarianceRegressor())
    assert pipeline.fit(noisy[:200], labels[:200]).predict(noisy[200:]).shape == (100, 3)


def test_bad_input(clean):
    with pytest.raises(ValueError, match="Every pixel of every training spectrum is bad"):
        autoencoder().fit(clean.replace(ivar=0.0))
    with pytest.raises(ValueError, match="diverged: lower learning_rate_init"):
        autoencoder(learning_rate_init=1e30, clip_norm=None, max_iter=3).fit(clean)


@pytest.mark.parametrize("augmentation", [None, ContinuumJitter(0.01)])
def test_an_interrupted_fit_goes_on(clean, augmentation, tmp_path):
    path = tmp_path / "training.pt"
    model = autoencoder(max_iter=6, augmentation=augmentation, checkpoint=path)

    def interrupt(done, total):
        if (done, total) == (3, 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(model).set_callbacks(StepCounter(interrupt)).fit(clean[:100])
    assert path.exists()
    model.fit(clean[:100])
    whole = clone(model).set_params(checkpoint=None).fit(clean[:100])
    assert_array_equal(model.encode(clean), whole.encode(clean))
    with pytest.raises(ValueError, match="give a random_state, such as random_state=0"):
        clone(model).set_params(random_state=None).fit(clean[:100])


def test_half_precision_and_compiled(clean):
    model = autoencoder(max_iter=5, amp=True, compile="eager").fit(clean[:100])
    assert np.isfinite(model.encode(clean[100:])).all()
