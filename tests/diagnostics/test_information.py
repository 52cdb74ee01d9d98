import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skspec import Spectra
from skspec.diagnostics import cramer_rao_bound, information_map

WAVELENGTH = np.linspace(5000, 5059, 60)


class Straight:
    """A model with constant gradients (P, 3) and flux 1."""

    label_names_in_ = ["teff", "logg", "feh"]

    def __init__(self, seed=0, n_pixels=60):
        self.jacobian = np.random.default_rng(seed).normal(size=(n_pixels, 3))

    def predict_flux(self, labels):
        return np.ones((len(labels), len(self.jacobian)))

    def flux_jacobian(self, labels):
        return np.broadcast_to(self.jacobian, (len(labels), *self.jacobian.shape))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), degree=st.none() | st.integers(0, 3))
def test_pixels_add_up_to_the_bound(seed, degree):
    rng = np.random.default_rng(seed)
    ivar = np.where(rng.random(60) < 0.2, 0, rng.uniform(1, 100, 60))
    model, labels = Straight(seed), np.zeros((1, 3))
    found = information_map(model, labels, ivar, continuum_degree=degree)
    bound = cramer_rao_bound(model, labels, ivar, continuum_degree=degree)
    assert_allclose(found.std(), bound.std()[0], rtol=1e-7)
    known = np.sqrt(1 / np.sum(ivar[:, None] * model.jacobian**2, axis=0))
    assert_allclose(found.std(conditional=True), known)
    assert not found.marginal[ivar == 0].any() and not found.conditional[ivar == 0].any()
    assert_allclose(found.share("logg").sum(), 1)


def test_share_is_the_variance_a_pixel_brings_in():
    """Least squares weighs pixel j by its influence; noise in it alone moves the label by that."""
    model, ivar = Straight(), np.linspace(1, 9, 60)
    found = information_map(model, np.zeros((1, 3)), ivar)
    root = np.sqrt(ivar)[:, None]
    influence = np.linalg.pinv(root * model.jacobian) * root.T  # (3, P)
    assert_allclose(found.share("feh"), (influence**2 / ivar / found.std()[:, None] ** 2)[2])


def test_labels_that_are_confused():
    """A line of two labels serves neither alone; a line of one of them serves both."""
    model = Straight()
    model.jacobian = np.zeros((60, 3))
    model.jacobian[10] = [1, 1, 0]  # both
    model.jacobian[20] = [1, 0, 0]  # the first alone
    model.jacobian[30] = [0, 0, 1]
    found = information_map(model, np.zeros((1, 3)), np.ones(60))
    assert_allclose(found.share("logg")[[10, 20]], 0.5)
    assert_allclose(found.share("teff")[[10, 20]], [0, 1], atol=1e-12)
    assert_allclose(found.share("teff", conditional=True)[[10, 20]], 0.5)


def test_average_over_the_stars_that_have_a_bound():
    model, labels = Straight(), np.zeros((3, 3))
    ivar = np.outer([1.0, 0.0, 3.0], np.ones(60))
    found = information_map(model, labels, ivar)
    assert found.n_stars == 2
    assert_allclose(found.marginal, 2 * information_map(model, labels[:1], ivar[:1]).marginal)
    with pytest.raises(ValueError, match="No star has a bound"):
        model.jacobian[:, 1] = 2 * model.jacobian[:, 0]
        information_map(model, labels, ivar)


class TestTop:
    def peaks(self, order=None):
        model = Straight()
        model.jacobian = np.zeros((60, 3))
        model.jacobian[:, 1:] = np.random.default_rng(0).normal(size=(60, 2))
        model.jacobian[[9, 10, 40], 0] = [20, 30, 25]
        spectra = Spectra(np.ones((1, 60)), flux_err=1, wavelength=WAVELENGTH, order=order)
        return information_map(model, np.zeros((1, 3)), spectra)

    def test_windows_do_not_overlap_and_shares_fall(self):
        found = self.peaks()
        top = found.top("teff", 20, n_pixels=3)
        assert top["share"].is_monotonic_decreasing and top["share"].sum() <= 1 + 1e-12
        ends = top.sort_values("lower")
        assert (ends["lower"].to_numpy()[1:] > ends["upper"].to_numpy()[:-1]).all()
        assert top["lower"][0] <= WAVELENGTH[9] and top["upper"][0] >= WAVELENGTH[10]
        assert top["lower"][1] <= WAVELENGTH[40] <= top["upper"][1]
        assert_allclose(found.top("teff", 100, n_pixels=1)["share"].sum(), 1)

    def test_stay_in_their_order(self):
        order = np.repeat([0, 1], [10, 50])
        top = self.peaks(order).top("teff", 3, n_pixels=4)
        edge = 0.5 * (WAVELENGTH[9] + WAVELENGTH[10])
        assert ((top["upper"] < edge) | (top["lower"] > edge)).all()

    def test_unknown_label(self):
        with pytest.raises(ValueError, match="no label 'age'; labels: teff, logg, feh"):
            self.peaks().top("age")

    def test_pixel_numbers_without_wavelength(self):
        top = information_map(Straight(), np.zeros((1, 3)), np.ones(60)).top("teff", 1)
        assert top["upper"][0] - top["lower"][0] == 4
