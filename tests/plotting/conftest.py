import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from skspec.datasets import make_spectra
from skspec.diagnostics import compare, make_method
from skspec.forward import TheCannon


@pytest.fixture(scope="session")
def stars():
    return make_spectra(160, n_pixels=150, snr=(20, 300), random_state=0)


@pytest.fixture(scope="session")
def cannon(stars):
    spectra, labels = stars
    return TheCannon().fit(spectra[:100], labels[:100])


@pytest.fixture(scope="session")
def comparison(stars):
    class Broken(TheCannon):
        def fit(self, X, y):
            raise RuntimeError("no <tags> & no spectra")

    methods = {"the_cannon": TheCannon(), "ridge": make_method("ridge", 128), "broken": Broken()}
    titles = {"the_cannon": "The Cannon", "ridge": "Ridge", "broken": "Broken <one>"}
    settings = {"data": "160 stars", "seed": 0, "clean_training": None}
    return compare(methods, *stars, titles=titles, settings=settings)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")
