import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skspec import Spectra
from skspec.plotting import EchelleDisplay
from skspec.preprocessing import BadPixelMasker, EchelleLayout


def test_three_panels_from_a_layout(stars):
    spectra = stars[0]
    layout = EchelleLayout(4, 60).fit(spectra)
    display = EchelleDisplay.from_estimator(layout, spectra, star=7, name="HARPS-N")
    assert [axes.get_xlabel() for axes in display.axes_[:3]] == [
        "wavelength [Å]",
        "wavelength [Å]",
        "pixel of the order",
    ]
    assert display.axes_[0].get_title(loc="left") == "HARPS-N"
    assert len(display.axes_[1].lines) == 4
    assert_allclose(display.axes_[0].lines[0].get_ydata(), spectra.flux[7])
    assert_allclose(display.image, layout.transform(spectra[7]).flux.reshape(4, 60))
    assert_allclose(display.axes_[2].images[0].get_array(), display.image)
    display.figure_.canvas.draw()


def test_a_pipeline_on_given_axes(stars):
    pipeline = make_pipeline(BadPixelMasker(), EchelleLayout(3, 50)).fit(stars[0])
    _, ax = plt.subplots(1, 3)
    assert EchelleDisplay.from_estimator(pipeline, stars[0], ax=ax).axes_[2] is ax[2]


def test_unequal_orders_bad_pixels_and_pixel_numbers():
    order = np.repeat([3, 5, 4], [10, 7, 9])
    spectra = Spectra(np.arange(26.0)[None], mask=np.arange(26) == 12, order=order)
    display = EchelleDisplay.from_spectra(spectra, color_bar=False)
    assert display.image.shape == (3, 10) and len(display.axes_) == 2
    assert_allclose(display.image[1], [*range(17, 26), np.nan])  # order 4
    assert np.isnan(display.image[2]).tolist() == [False] * 2 + [True] + [False] * 4 + [True] * 3
    assert display.axes_[0].get_xlabel() == "pixel"


def test_no_line_is_lost_between_the_dots_of_the_screen():
    flux = np.ones((1, 8192))
    flux[0, 3] = 0.0
    flux[0, 4096:] = np.nan
    spectra = Spectra(flux, order=np.repeat([0, 1], 4096))
    display = EchelleDisplay.from_spectra(spectra)
    picture = np.ma.filled(display.axes_[1].images[0].get_array(), np.nan)
    assert picture.shape == (2, 512)
    assert picture[0, 0] == pytest.approx(7 / 8) and np.all(picture[0, 1:] == 1)
    assert np.isnan(picture[1]).all()


def test_spectra_without_orders_are_refused(stars):
    with pytest.raises(ValueError, match="have no orders"):
        EchelleDisplay.from_spectra(stars[0])
