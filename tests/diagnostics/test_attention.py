import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import make_spectra
from skspec.diagnostics import attention_map
from skspec.discriminative import SpectralCNN
from skspec.networks import can_train
from skspec.preprocessing import ContinuumNormalizer

pytestmark = pytest.mark.skipif(not can_train(), reason="no PyTorch")


@pytest.fixture(scope="module")
def stars():
    return make_spectra(
        600, wavelength=(5050.0, 5300.0), n_pixels=200, resolution=1500.0, snr=100.0, random_state=0
    )


def network(**options):
    settings = {"architecture_params": {"width": 4}, "max_iter": 2, "random_state": 0}
    return SpectralCNN("attention", **(settings | options))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_looks_at_mg_b(seed, stars):
    spectra, labels = stars
    model = network(max_iter=15, architecture_params={"width": 8}, random_state=seed)
    attention = attention_map(model.fit(spectra, labels), spectra[:100]).mean(axis=0)
    inside = (spectra.wavelength > 5167) & (spectra.wavelength < 5184)
    assert attention[inside].mean() > np.median(attention)


def test_through_pipelines_and_searches(stars):
    spectra, labels = stars[0][:60], stars[1][:60]
    pipeline = make_pipeline(ContinuumNormalizer(width=100.0), network()).fit(spectra, labels)
    direct = pipeline[-1].attention(pipeline[0].transform(spectra))
    assert direct.shape == spectra.shape
    np.testing.assert_array_equal(attention_map(pipeline, spectra), direct)
    search = GridSearchCV(network(), {"gate": ["softmax"]}, cv=2).fit(spectra, labels)
    np.testing.assert_allclose(attention_map(search, spectra).mean(axis=1), 1, rtol=0.05)


def test_others_have_none(stars):
    spectra, labels = stars[0][:60], stars[1][:60]
    with pytest.raises(
        ValueError, match="'starnet' has no attention; use SpectralCNN.*'attention'"
    ):
        attention_map(SpectralCNN(max_iter=1).fit(spectra, labels), spectra)
    with pytest.raises(TypeError, match="ResidualCovarianceRegressor has no attention"):
        attention_map(ResidualCovarianceRegressor().fit(spectra, labels), spectra)
