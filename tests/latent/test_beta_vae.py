import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from skspec import Spectra
from skspec.datasets import SpectraStore, make_spectra
from skspec.latent import BetaVAE
from skspec.networks import can_train

pytestmark = pytest.mark.skipif(not can_train(), reason="no PyTorch")


def autoencoder(**options):
    settings = {
        "n_latent": 4,
        "architecture": "dense",
        "architecture_params": {"hidden": (24,)},
        "learning_rate_init": 0.01,
        "max_iter": 20,
        "batch_size": 32,
        "random_state": 0,
    }
    return BetaVAE(**(settings | options))


@pytest.fixture(scope="module")
def stars():
    return make_spectra(300, n_pixels=64, labels=["teff", "feh"], random_state=0)


@pytest.fixture(scope="module")
def model(stars):
    return autoencoder(max_iter=40).fit(stars[0][:200], stars[1][:200])


def test_latent_numbers_tell_the_labels_of_other_stars(model, stars):
    spectra, labels = stars[0][200:], stars[1][200:]
    dist = model.predict_dist(spectra)
    error = np.abs(dist.mean() - labels).mean()
    assert error["teff"] < 60
    assert error["feh"] < 0.06
    z = (dist.mean() - labels) / dist.std()
    assert np.all(z.std() < 1.5)
    assert model.label_names_in_ == ["teff", "feh"]


def test_latents_go_back_to_the_flux(model, stars):
    spectra = stars[0][200:]
    mean, std = model.transform(spectra, return_std=True)
    assert mean.shape == std.shape == (100, 4)
    assert_array_equal(mean, model.transform(spectra))
    assert np.all((std > 0) & (std < 1.5))
    flux = model.inverse_transform(mean)
    assert flux.shape == spectra.shape
    chi2 = np.mean((flux - spectra.flux) ** 2 * spectra.ivar)
    spread = np.mean((spectra.flux - spectra.flux.mean(axis=0)) ** 2 * spectra.ivar)
    assert chi2 < 2 < 20 < spread
    assert np.isfinite(model.sample(5, random_state=0)).all()
    assert list(model.get_feature_names_out()) == [f"betavae{k}" for k in range(4)]


def test_evidence_is_that_of_a_linear_gaussian_model(stars):
    """Of a network whose layers are set by hand, against scipy's marginal likelihood."""
    import torch
    from scipy.stats import multivariate_normal

    spectra = stars[0][:40]
    model = autoencoder(n_latent=1, architecture_params={"hidden": (2,)}, max_iter=1).fit(spectra)
    loading = 0.01 * np.sin(np.arange(64))
    model.scatter_[:] = 0.0
    precision = 1 + np.sum(loading**2 * spectra.ivar, axis=1)
    centre = ((spectra.flux - 1) * spectra.ivar) @ loading / precision
    model._posterior = lambda part: tuple(
        values[rows_of(part)][:, None] for values in (centre, precision**-0.5)
    )
    rows = {row.tobytes(): k for k, row in enumerate(spectra.flux)}

    def rows_of(part):
        return [rows[row.tobytes()] for row in part.flux]

    model._decoded = lambda z: 1 + z * loading
    exact = [
        multivariate_normal(np.ones(64), np.diag(1 / i) + np.outer(loading, loading)).logpdf(f)
        for f, i in zip(spectra.flux, spectra.ivar)
    ]
    # the posterior is exact, so that the bound is the evidence, but for the mean over few draws
    assert_allclose(model.score_samples(spectra), exact, atol=1.0)
    assert abs(np.mean(model.score_samples(spectra) - exact)) < 0.5
    assert torch.is_grad_enabled()


def test_a_larger_beta_leaves_fewer_nodes(stars):
    informative = [
        autoencoder(beta=beta, max_iter=60, threshold=0.1).fit(stars[0]).informative_.sum()
        for beta in (1.0, 30.0, 1e5)
    ]
    assert informative[0] > informative[1] > informative[2] == 0


def test_beta_zero_draws_nothing(stars):
    spectra = stars[0]
    model = autoencoder(beta=0.0).fit(spectra[:200])
    assert model.net_.module_.log_variance is None
    mean, std = model.transform(spectra, return_std=True)
    assert_array_equal(std, 0)
    flux = model.inverse_transform(mean[200:])
    assert np.mean((flux - spectra.flux[200:]) ** 2) < 0.3 * spectra.flux.var(axis=0).mean()
    assert np.isfinite(model.score(spectra))


def test_architectures_take_any_length():
    for n_pixels in (2, 7, 200):
        spectra = make_spectra(30, n_pixels=n_pixels, random_state=0)[0]
        model = autoencoder(
            architecture="convolutional", architecture_params={"width": 4}, max_iter=1
        )
        assert model.fit(spectra).inverse_transform(np.zeros((2, 4))).shape == (2, n_pixels)


def test_straight_paths(stars):
    """With layers that do nothing, latent numbers and flux are linear."""
    import torch

    params = {"hidden": (8,), "straight": True}
    model = autoencoder(architecture_params=params, beta=0.0, max_iter=5).fit(stars[0].flux)
    network = model.net_.module_
    with torch.no_grad():
        network.mean.weight.zero_()
        network.coder.last[-1].weight.zero_()
    z = model.transform(stars[0][:3].flux)
    middle = model.transform(stars[0][:2].flux.mean(axis=0, keepdims=True))
    assert_allclose(middle[0], (z[0] + z[1]) / 2, rtol=1e-6)
    flux = model.inverse_transform(z)
    middle = model.inverse_transform((z[:1] + z[1:2]) / 2)
    assert_allclose(middle[0], (flux[0] + flux[1]) / 2, rtol=1e-6)
    assert np.abs(flux[0] - flux[1]).max() > 1e-3


def test_the_published_network():
    import torch

    from skspec.networks import VariationalAutoencoder

    network = VariationalAutoencoder((1, 1, 312_501), 128, "harps")
    assert sum(p.numel() for p in network.parameters()) == 7_046_997
    assert network.coder.margin == (7589, 7590)
    assert network.coder.deep == (512, 20)
    with torch.inference_mode():
        mean, log_variance = network.encode(torch.zeros(1, 1, 312_501))
        assert mean.shape == log_variance.shape == (1, 128)
        assert network.decode(mean).shape == (1, 1, 312_501)


def test_loss_against_the_formula():
    import torch

    from skspec.networks import EvidenceLoss

    rng = np.random.default_rng(0)
    x, flux, variance = rng.normal(size=(3, 5, 1, 7))
    variance = variance**2
    variance[0, 0, :3] = np.inf
    mean, log_variance = rng.normal(size=(2, 5, 4))
    weight = rng.uniform(size=5)
    good = np.isfinite(variance)
    total = np.where(good, variance, 1) + 0.3**2
    misfit = 0.5 * np.sum(((x - flux) ** 2 / total + np.log(total)) * good, axis=(1, 2))
    kl = 0.5 * np.sum(mean**2 + np.exp(log_variance) - 1 - log_variance, axis=1)
    tensors = [torch.from_numpy(a) for a in (flux, mean, log_variance, x, variance, weight)]
    found = {
        r: EvidenceLoss((1, 7), 2.5, r)(tensors[:3], tensors[3:]).item() for r in ("sum", "mean")
    }
    assert_allclose(found["sum"], np.mean(weight * (misfit + 2.5 * kl)) / 7, rtol=1e-6)
    misfit = misfit / good.sum(axis=(1, 2))
    assert_allclose(found["mean"], np.mean(weight * (misfit + 2.5 * kl)), rtol=1e-6)


def test_labels_may_be_missing(stars):
    spectra, labels = stars
    few = labels.copy()
    few.iloc[60:] = np.nan
    model = autoencoder().fit(spectra, few)
    assert_array_equal(model.transform(spectra), autoencoder().fit(spectra).transform(spectra))
    assert np.isfinite(model.predict(spectra)).all()
    with pytest.raises(NotFittedError, match="without labels"):
        autoencoder(max_iter=1).fit(spectra).predict(spectra)
    with pytest.raises(ValueError, match="Only 9 of 300 stars have all 2 labels"):
        autoencoder().fit(spectra, labels[:9].reindex(labels.index))
    with pytest.raises(ValueError, match="infinity"):
        autoencoder().fit(spectra, labels.replace(labels.iloc[0, 0], np.inf))
    with pytest.raises(NotFittedError):
        model.fit(spectra).predict(spectra)


def test_another_head(stars):
    model = autoencoder(head=Ridge(1e-3)).fit(*stars)
    assert isinstance(model.head_.estimator, Ridge)
    assert model.predict(stars[0]).shape == (300, 2)


def test_pixels_that_are_always_bad(stars):
    spectra = stars[0].replace(mask=np.arange(64) == 9)
    model = autoencoder().fit(spectra)
    flux = model.inverse_transform(model.transform(spectra))
    assert np.isnan(flux[:, 9]).all()
    assert np.isnan(flux).sum() == 300
    assert np.isfinite(model.score_samples(spectra)).all()


def test_a_star_without_good_pixels(model, stars):
    spectra = stars[0][:5]
    ivar = spectra.ivar.copy()
    ivar[2] = 0
    blind = spectra.replace(ivar=ivar)
    seen = [0, 1, 3, 4]
    for found in (model.transform(blind), model.score_samples(blind), model.domain_score(blind)):
        assert np.isnan(found[2]).all()
        assert np.isfinite(found[seen]).all()
    assert np.isinf(model.predict_dist(blind).std()[2]).all()


def test_weights_of_stars(stars):
    """Stars of weight 0 are not learned from."""
    cool = (stars[1]["teff"] < 5000).to_numpy()
    outcomes = []
    for weight in (np.ones(300), np.where(cool, 0.0, 1.0), np.where(cool, 0.0, 7.0)):
        spectra = stars[0].replace(meta={"weight": weight})
        score = autoencoder(max_iter=40).fit(spectra).score_samples(spectra)
        outcomes.append((score[cool].mean(), score[~cool].mean()))
    assert outcomes[1][0] < outcomes[0][0] - 20
    assert_allclose(outcomes[1], outcomes[2], rtol=1e-3)
    for wrong in (np.ones(3), np.full(300, np.nan), np.full(300, -1.0)):
        with pytest.raises(ValueError, match="one finite weight"):
            autoencoder().fit(stars[0].replace(meta={"weight": list(wrong), "k": np.ones(300)}))
    with pytest.raises(ValueError, match="0 for every"):
        autoencoder().fit(stars[0].replace(meta={"weight": np.zeros(300)}))


def test_domain_score_knows_strangers(model, stars):
    spectra = stars[0][200:]
    assert np.mean(model.domain_score(spectra) > 1) < 0.1
    moved = spectra.replace(flux=np.roll(spectra.flux, 5, axis=1))
    assert np.mean(model.domain_score(moved) > 1) > 0.9


def test_echelle_orders():
    order = np.repeat([0, 1], 40)
    wavelength = np.r_[np.linspace(5000, 5050, 40), np.linspace(5040, 5090, 40)]
    spectra, _ = make_spectra(60, wavelength=wavelength, order=order, random_state=0)
    model = autoencoder(architecture="convolutional", architecture_params=None).fit(spectra)
    assert model.scaler_.shape == (1, 2, 40)
    assert model.inverse_transform(model.transform(spectra)).shape == (60, 80)


def test_a_store_is_streamed(model, stars, tmp_path):
    pytest.importorskip("zarr")
    store = SpectraStore.write(tmp_path / "store", *stars)
    streamed = autoencoder(max_iter=40).fit(store, stars[1])
    for x in (store, stars[0]):
        assert_allclose(streamed.transform(x), streamed.transform(stars[0]), atol=1e-4)
    assert abs(streamed.score(store) - model.score(stars[0])) < 10
    assert_allclose(streamed.domain_score(store), streamed.domain_score(stars[0]), rtol=1e-4)
    assert np.abs(streamed.predict(store) - stars[1]).mean()["teff"] < 60


def test_a_memory_map_is_streamed(stars, tmp_path):
    np.save(tmp_path / "flux.npy", stars[0].flux)
    mapped = Spectra(np.load(tmp_path / "flux.npy", mmap_mode="r"))
    model = autoencoder().fit(mapped)
    assert model.transform(mapped).shape == (300, 4)


def test_an_interrupted_fit_goes_on(stars, tmp_path):
    class Stop(Exception):
        pass

    class Interrupt:
        """scikit-learn callback that stops a fit after some epochs."""

        def __init__(self):
            self.left = 8

        def setup(self, estimator, context):
            """Nothing to prepare."""

        def teardown(self, estimator, context):
            """Nothing to clear away."""

        def on_fit_task_begin(self, estimator, context):
            """Only what is done counts."""

        def on_fit_task_end(self, estimator, context):
            self.left -= 1
            if not self.left:
                raise Stop

    path = tmp_path / "training.pt"
    whole = autoencoder().fit(stars[0])
    with pytest.raises(Stop):
        autoencoder(checkpoint=path).set_callbacks(Interrupt()).fit(stars[0])
    assert path.exists()
    resumed = autoencoder(checkpoint=path).fit(stars[0])
    assert_array_equal(resumed.transform(stars[0]), whole.transform(stars[0]))
    assert_array_equal(resumed.scatter_, whole.scatter_)
    with pytest.raises(ValueError, match="random_state"):
        autoencoder(checkpoint=path, random_state=None).fit(stars[0])


def test_pickle_and_wrong_latents(model, stars):
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.transform(stars[0]), model.transform(stars[0]))
    with pytest.raises(ValueError, match="X has 3 columns; this model has 4 latent numbers"):
        model.inverse_transform(np.zeros((2, 3)))


def test_divergence_is_said(stars):
    with pytest.raises(ValueError, match="diverged: lower learning_rate_init"):
        autoencoder(learning_rate_init=1e20, clip_norm=None).fit(stars[0])
