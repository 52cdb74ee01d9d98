import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra
from skspec._progress import StepCounter
from skspec.datasets import make_spectra
from skspec.discriminative import SpectralCNN
from skspec.latent import DenoisingAutoencoder
from skspec.metrics import coverage
from skspec.networks import can_train

pytestmark = pytest.mark.skipif(not can_train(), reason="no PyTorch")

SMALL = {
    "starnet": {"hidden": (32, 16)},
    "strided": {"n_filters": (), "hidden": (32, 16)},
    "attention": {"width": 3},
    "residual": {"width": 4, "hidden": (32, 16), "dropout": 0.0},
}


def network(architecture="strided", **options):
    settings = {
        "architecture_params": SMALL.get(architecture),
        "max_iter": 20,
        "batch_size": 16,
        "learning_rate_init": 0.01,
        "random_state": 0,
    }
    return SpectralCNN(architecture, **(settings | options))


@pytest.mark.slow
@parametrize_with_checks([network(a, max_iter=15) for a in SMALL if a != "strided"])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def train(draw_stars):
    return draw_stars(150, errors="separable")


@pytest.fixture(scope="module")
def test(draw_stars):
    return draw_stars(300, errors="separable", seed=1)


@pytest.fixture(scope="module")
def full(train):
    return network(covariance="full", augment_snr=(15.0, 150.0), max_iter=60).fit(*train)


def median_error(model, stars):
    return np.median(np.abs(model.predict(stars[0]) - stars[1].to_numpy()), axis=0)


@pytest.mark.parametrize("architecture", SMALL)
def test_every_architecture_learns(architecture, train, test):
    model = network(architecture).fit(*train)
    assert model.score(*test) > (0.5 if architecture == "residual" else 0.8)
    assert model.history_["valid_loss"].shape == (model.n_iter_,)
    assert model.net_.module_.training is False


def test_errors_are_honest_and_follow_the_noise(full, test, draw_stars):
    truth = test[1].to_numpy()
    assert_allclose(coverage(truth, full.predict_dist(test[0]), 1), 0.68, atol=0.15)
    corr = full.predict_dist(test[0]).corr()
    assert np.abs(corr[:, 0, 1]).max() > 0.05
    noisy, labels = draw_stars(300, errors="separable", noise=0.04, seed=2)
    dist = full.predict_dist(noisy)
    assert np.all(
        np.median(dist.std(), axis=0) > 1.5 * np.median(full.predict_dist(test[0]).std(), axis=0)
    )
    assert np.all(coverage(labels.to_numpy(), dist, 1) > 0.5)


def test_gradient_is_the_finite_difference(full, test):
    stars = test[0][:5]
    gradient = full.label_gradient(stars)
    for pixel in (0, 17, 49):
        step = np.zeros(50)
        step[pixel] = 1e-4
        up, down = (full.predict(stars.replace(flux=stars.flux + s * step)) for s in (1, -1))
        assert_allclose(gradient[:, :, pixel], (up - down) / 2e-4, rtol=1e-3, atol=1e-3)
    blind = stars.replace(mask=np.arange(50) == 17)
    assert (full.label_gradient(blind)[:, :, 17] == 0).all()


def test_photon_noise_through_the_jacobian(train, test):
    model = network(flux_errors="jacobian").fit(*train)
    stars = test[0][:20]
    noisier = stars.replace(ivar=stars.ivar / 100)
    usual, wide = model.predict_dist(stars), model.predict_dist(noisier)
    J = model.label_gradient(stars)
    excess = noisier.variance - train[0].mean_variance
    formal = (J * np.maximum(excess, 0)[:, None]) @ np.swapaxes(J, 1, 2)
    unit = np.sqrt(np.outer(*[np.diagonal(formal.mean(axis=0))] * 2))
    assert_allclose((wide.cov() - usual.cov()) / unit, formal / unit, atol=0.02)
    assert_array_equal(wide.mean(), usual.mean())
    ignorant = network(flux_errors="ignore").fit(*train)
    assert_array_equal(*(ignorant.predict_dist(s).std() for s in (stars, noisier)))


def test_dropout_passes_widen_and_do_not_depend_on_companions(train, test):
    params = {"n_filters": (), "hidden": (32, 16), "dropout": 0.1}
    model = network(architecture_params=params, n_dropout_passes=8).fit(*train)
    dist = model.predict_dist(test[0])
    assert_allclose(model.predict_dist(test[0][7:9]).mean(), dist[7:9].mean(), rtol=1e-5)
    assert_array_equal(model.predict_dist(test[0]).cov(), dist.cov())
    once = clone(model).set_params(n_dropout_passes=0).fit(*train)
    assert not np.allclose(once.predict(test[0]), dist.mean())
    within = once.predict_dist(test[0]).std() / once.error_scale_
    assert np.all(np.median(dist.std() / model.error_scale_ / within, axis=0) > 1)


@pytest.mark.parametrize("snr", [30, (10.0, 100.0)])
def test_fresh_noise_helps_noisy_stars(snr, draw_stars):
    clean, labels = draw_stars(200, noise=1e-4)
    spectra = Spectra(clean.flux, flux_err=1e-4)
    noisy = draw_stars(200, noise=0.03, seed=3)
    plain, augmented = (
        network(augment_snr=a, max_iter=40).fit(spectra, labels) for a in (None, snr)
    )
    assert np.all(median_error(augmented, noisy) < median_error(plain, noisy))
    assumed = network(augment_snr="ivar").fit(Spectra(clean.flux, flux_err=0.03), labels)
    dist = assumed.predict_dist(noisy[0])
    assert_allclose(coverage(noisy[1].to_numpy(), dist, 1), 0.68, atol=0.2)
    with pytest.raises(ValueError, match="Noise can be drawn from the errors only where"):
        network(augment_snr="ivar").fit(clean.flux, labels)


def test_echelle_orders(train, test):
    order = np.repeat([3, 2, 1], [20, 15, 15])
    model = network("attention").fit(train[0].replace(order=order), train[1])
    assert model.scaler_.shape == (2, 3, 20)
    stars = test[0].replace(order=order)
    assert model.attention(stars).shape == stars.shape
    assert model.score(stars, test[1]) > 0.8
    assert (
        network("residual").fit(train[0].replace(order=order), train[1]).score(stars, test[1]) > 0.5
    )


def test_a_module_of_ones_own(train, test):
    import torch

    given = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(50, 20), torch.nn.Tanh())
    before = given[1].weight.detach().clone()
    model = network(given).fit(*train)
    assert model.score(*test) > 0.8
    assert torch.equal(given[1].weight, before)
    assert clone(model).architecture is not given


def test_denoiser(train, test):
    denoiser = DenoisingAutoencoder(
        8, snr=50, width=4, learning_rate_init=0.01, max_iter=30, random_state=0
    )
    model = network(denoiser=denoiser).fit(*train)
    assert model.score(*test) > 0.6
    assert not hasattr(denoiser, "net_")
    ready = clone(denoiser).fit(train[0])
    weights = [p.clone() for p in ready.net_.module_.parameters()]
    frozen, tuned = (
        network(denoiser=FrozenEstimator(ready), fine_tune=f, learning_rate_init=0.003).fit(*train)
        for f in (False, True)
    )
    assert tuned.history_["valid_loss"].min() < frozen.history_["valid_loss"].min()
    assert all((a == b).all() for a, b in zip(weights, ready.net_.module_.parameters()))
    with pytest.raises(ValueError, match="must be a DenoisingAutoencoder.*FunctionTransformer"):
        network(denoiser=FunctionTransformer()).fit(*train)
    with pytest.raises(ValueError, match="fitted to 50 pixels, these spectra have 40"):
        network(denoiser=FrozenEstimator(ready)).fit(train[0][:, :40], train[1])


def test_warm_start_and_partial_fit(train, test):
    model = network(warm_start=True, max_iter=10).fit(*train)
    first, scale = model.history_["valid_loss"], model.label_scale_
    model.fit(train[0][:140], train[1][:140])
    assert model.history_["valid_loss"][0] < first[0] - 1
    assert_array_equal(model.label_scale_, scale)
    stream = network(learning_rate_init=0.003)
    for _ in range(15):
        stream.partial_fit(*train)
    assert stream.score(*test) > 0.5
    assert stream.n_iter_ == 1
    with pytest.raises(ValueError, match=r"fitted to 3 labels .teff, logg, feh., and now gets 1"):
        stream.partial_fit(train[0], train[1]["teff"])


def test_an_interrupted_fit_goes_on(train, test, tmp_path):
    path = tmp_path / "net.pt"
    model = network(max_iter=6, augment_snr=(15.0, 150.0), checkpoint=path)

    def interrupt(done, total):
        if (done, total) == (3, 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(model).set_callbacks(StepCounter(interrupt)).fit(*train)
    steps = []
    model.set_callbacks(StepCounter(lambda *step: steps.append(step))).fit(*train)
    assert steps == [(k, 6) for k in range(1, 7)]
    whole = clone(model).set_params(checkpoint=None).fit(*train)
    assert_array_equal(model.predict(test[0]), whole.predict(test[0]))
    written = path.read_bytes()
    model.partial_fit(*train)
    assert path.read_bytes() == written
    with pytest.raises(ValueError, match="of another training: seed was"):
        clone(model).set_params(random_state=1).fit(*train)
    with pytest.raises(ValueError, match="give a random_state, such as random_state=0"):
        clone(model).set_params(random_state=None).fit(*train)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own compiler
@pytest.mark.parametrize(
    "options",
    [
        {"amp": True},
        {"compile": "eager"},
        {"schedule": "plateau"},
        {"schedule": None},
        {"clip_norm": None},
    ],
    ids=str,
)
def test_options_of_training(options, train, test):
    model = network(**options).fit(*train)
    assert model.score(*test) > 0.7
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(test[0]), model.predict(test[0]))


def test_every_epoch_is_told(train):
    told = []
    model = network(max_iter=40, n_iter_no_change=1, learning_rate_init=0.05)
    model.set_callbacks(StepCounter(lambda done, total: told.append((done, total))))
    model.fit(*train)
    assert told == [(k, 40) for k in range(1, 41)]
    assert model.n_iter_ < 40


def test_the_net_holds_no_data(full, draw_stars):
    more = network(covariance="full", max_iter=1).fit(*draw_stars(2000, errors="separable"))
    sizes = [len(pickle.dumps(model.net_)) for model in (full, more)]
    assert sizes[1] < 1.2 * sizes[0]


def test_stars_unlike_the_training_set_are_far(full, test):
    score = full.domain_score(test[0])
    assert 0.9 < np.mean(score < 1) <= 1
    stretched = test[0].replace(flux=1 + 3 * (test[0].flux - 1))
    assert np.median(full.domain_score(stretched)) > 1
    blind = test[0][:3].replace(ivar=np.zeros((3, 50)))
    assert np.isnan(full.domain_score(blind)).all()


def test_another_resolution_is_far():
    wave = np.linspace(5100.0, 5200.0, 100)
    stars = make_spectra(300, wavelength=wave, resolution=10_000, snr=(20, 200), random_state=0)
    model = network(max_iter=5).fit(*stars)
    near, far = (
        make_spectra(50, wavelength=wave, resolution=r, snr=100, random_state=1)[0]
        for r in (10_000, 3000)
    )
    assert np.median(model.domain_score(near)) < 1
    assert np.mean(model.domain_score(far) > 1) > 0.9


def test_bad_input(train):
    with pytest.raises(ValueError, match="diverged: lower learning_rate_init=1e\\+30"):
        network(learning_rate_init=1e30, clip_norm=None, max_iter=3).fit(*train)
    with pytest.raises(ValueError, match="device='nonsense' cannot be used"):
        network(device="nonsense").fit(*train)
    with pytest.raises(ValueError, match="needs at least 2 stars.*got 1 sample"):
        network().fit(train[0][:1], train[1][:1])


def test_a_label_that_does_not_vary_is_known(train, test):
    model = network(covariance="full").fit(train[0], train[1].assign(logg=4.5))
    dist = model.predict_dist(test[0])
    assert (dist.mean()[:, 1] == 4.5).all()
    assert (dist.cov()[:, 1] == 0).all()
    alone = network().fit(train[0], np.full(150, 3.0))
    assert_allclose(alone.predict(test[0]), 3, atol=0.2)
