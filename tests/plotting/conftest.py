from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from skspec.datasets import make_spectra
from skspec.diagnostics import compare, make_method
from skspec.forward import TheCannon


class Structure(HTMLParser):
    """Opens and closes every element; collects addresses and ids."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids = [], [], set()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[key] for key in ("src", "href") if key in attrs]
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="session")
def read_page():
    """Function that reads a page, of which every element must be closed."""

    def read(text):
        found = Structure()
        found.feed(text)
        assert found.open == []
        return found

    return read


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
