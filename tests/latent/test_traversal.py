import numpy as np
import pytest
from helpers import LinearVAE
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from skspec import Spectra
from skspec.datasets import SpectraStore
from skspec.latent import (
    BetaVAE,
    latent_traversal,
    latent_traversals,
    node_dispersion,
)
from skspec.networks import can_train
from skspec.preprocessing import BadPixelMasker

N_FACTORS = 3


@pytest.fixture(scope="module")
def spectra():
    """Three linear factors in 40 pixels, with noise."""
    rng = np.random.default_rng(0)
    flux = 1 + rng.normal(size=(400, N_FACTORS)) * [3, 2, 1] @ rng.normal(size=(N_FACTORS, 40))
    flux += 0.1 * rng.normal(size=flux.shape)
    return Spectra(
        flux,
        flux_err=0.1,
        wavelength=np.linspace(5000, 5039, 40),
        order=np.repeat([1, 2], 20),
        meta={"medium": "air"},
    )


@pytest.fixture(scope="module")
def model(spectra):
    return LinearVAE(6, beta=2.0).fit(spectra)


def test_the_difference_is_the_loading_times_the_step(model, spectra):
    found = latent_traversal(model, spectra, 1, values=[-1.0, 0.0, 2.5], star=7)
    assert_allclose(found.latents, model.transform(spectra[7])[0])
    step = found.values - found.latents[1]
    assert_allclose(found.difference, np.outer(step, model.loadings_[1]), atol=1e-12)
    assert_allclose(found.reference, model.inverse_transform(model.transform(spectra[7]))[0])
    assert_allclose(found.flux - found.difference, np.tile(found.reference, (3, 1)))
    assert_array_equal(found.wavelength, spectra.wavelength)
    assert_array_equal(found.order, spectra.order)
    assert found.medium == "air" and found.node == 1


def test_range_and_star_are_those_of_the_sample(model, spectra):
    latents = model.transform(spectra)
    found = latent_traversal(model, spectra, 0, n_values=5)
    assert_allclose(found.values[[0, -1]], np.percentile(latents[:, 0], [1, 99]))
    assert_allclose(np.diff(found.values, 2), 0, atol=1e-12)
    distance = np.linalg.norm(latents - np.median(latents, axis=0), axis=1)
    assert_allclose(found.latents, latents[distance.argmin()])


def test_latents_instead_of_spectra(model, spectra):
    latents = model.transform(spectra)
    one = latent_traversal(model, latents, 0)
    assert_allclose(one.flux, latent_traversal(model, spectra, 0).flux)
    assert_array_equal(one.wavelength, spectra.wavelength)  # the model remembers
    vector = latent_traversal(model, latents[3], 0, [1.0])
    assert_allclose(vector.latents, latents[3])
    assert_allclose(vector.flux[0] - vector.reference, (1 - latents[3, 0]) * model.loadings_[0])


def test_plain_arrays_and_the_callers_data_stay(model, spectra):
    flux, values = spectra.flux.copy(), np.array([0.0, 1.0])
    found = latent_traversal(model, flux, 2, values)
    assert_allclose(found.flux, latent_traversal(model, spectra, 2, values).flux)
    assert_array_equal(flux, spectra.flux)
    found.latents[:] = 0
    assert_array_equal(values, [0, 1])


def test_a_store(model, spectra, tmp_path):
    pytest.importorskip("zarr")
    store = SpectraStore.write(tmp_path / "stars", spectra)
    found, whole = (latent_traversal(model, X, 1) for X in (store, spectra))
    assert_allclose(found.flux, whole.flux, rtol=1e-6)
    assert_array_equal(found.order, whole.order)


def test_stars_without_good_pixels_are_left_out(model, spectra):
    mask = np.zeros(spectra.shape, dtype=bool)
    mask[:5] = True
    partly = spectra.replace(mask=mask)
    found = latent_traversal(model, partly, 0)
    assert_allclose(found.values, latent_traversal(model, spectra[5:], 0).values)
    with pytest.raises(ValueError, match="Every pixel of star 2 is bad"):
        latent_traversal(model, partly, 0, star=2)
    with pytest.raises(ValueError, match="No star has latent numbers"):
        latent_traversal(model, partly[:5], 0)


def test_all_informative_nodes(model, spectra):
    found = latent_traversals(model, spectra)
    mad = node_dispersion(model.transform(spectra))["mad"]
    assert list(found) == mad.sort_values(ascending=False).index[:N_FACTORS].tolist()
    for node, traversal in found.items():
        assert traversal.node == node
        assert_allclose(traversal.flux, latent_traversal(model, spectra, node).flux)
    assert list(latent_traversals(model, spectra, [2, 0], 2)) == [2, 0]
    with pytest.raises(ValueError, match="No node has a median absolute deviation above 9"):
        latent_traversals(model, spectra, threshold=9)


def test_through_a_pipeline(model, spectra):
    pipe = make_pipeline(BadPixelMasker(), LinearVAE(6, beta=2.0)).fit(spectra)
    assert_allclose(
        latent_traversal(pipe, spectra, 0).flux, latent_traversal(model, spectra, 0).flux
    )


def test_mistakes_get_a_sentence(model, spectra):
    with pytest.raises(ValueError, match="node=6 is none of the 6 nodes, 0 to 5"):
        latent_traversal(model, spectra, 6)
    with pytest.raises(ValueError, match="node=-1 is none"):
        latent_traversal(model, spectra, -1)
    with pytest.raises(ValueError, match="star=400 is none of the 400 rows"):
        latent_traversal(model, spectra, 0, star=400)
    with pytest.raises(ValueError, match="one star have no range to run over: give `values`"):
        latent_traversal(model, spectra[3], 0)
    with pytest.raises(ValueError, match="Node 5 is the same in all stars"):
        latent_traversal(model, spectra, 5)
    with pytest.raises(ValueError, match="n_values must be a whole number"):
        latent_traversal(model, spectra, 0, n_values=0)
    with pytest.raises(ValueError, match="vector of finite numbers"):
        latent_traversal(model, spectra, 0, values=[np.nan])
    with pytest.raises(NotFittedError):
        latent_traversal(LinearVAE(), spectra, 0)
    with pytest.raises(TypeError, match="no inverse_transform: it cannot decode"):
        latent_traversal(PolynomialFeatures(1).fit(spectra.flux), spectra, 0)


@pytest.mark.skipif(not can_train(), reason="no PyTorch")
def test_a_real_one(spectra):
    model = BetaVAE(
        4, architecture="dense", architecture_params={"hidden": (16,)}, max_iter=2, random_state=0
    ).fit(spectra)
    found = latent_traversal(model, spectra, 3, n_values=4)
    assert found.flux.shape == (4, 40)
    at_the_star = latent_traversal(model, spectra, 3, [found.latents[3]])
    assert_allclose(at_the_star.difference, 0, atol=1e-6)
