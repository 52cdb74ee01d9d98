import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec import Spectra
from skspec.diagnostics import information_map
from skspec.plotting import AttentionMapDisplay
from skspec.preprocessing import EchelleLayout


def verticals(axes):
    return [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]


def peak(wavelength, n=5):
    shape = np.exp(-0.5 * ((wavelength - 5175) / 10) ** 2)
    return np.outer(np.arange(1, n + 1), 1 + shape)


def test_min_max_per_spectrum_and_marked_lines(stars):
    few = stars[0][:5]
    display = AttentionMapDisplay.from_predictions(few, peak(few.wavelength), name="network")
    assert display.attention.min() == 0 and display.attention.max() == 1
    assert display.wavelength[display.attention.argmax()] == pytest.approx(5175, abs=3)
    assert_allclose(display.flux, few.flux.mean(axis=0))
    for axes in display.axes_:
        assert_allclose(verticals(axes), [5168.76, 5174.13, 5185.05])
    assert [text.get_text() for text in display.axes_[0].texts] == ["Mg b"]
    assert display.axes_[0].get_title(loc="left") == "network"
    raw = AttentionMapDisplay.from_predictions(few, peak(few.wavelength), scale="none")
    assert raw.attention.max() == pytest.approx(6, rel=1e-2)
    display.figure_.canvas.draw()


def test_lines_of_ones_own_and_in_air(stars):
    few = stars[0][:5]
    lines = {"H beta": 4862.7, "far": 9000.0}
    display = AttentionMapDisplay.from_predictions(few, peak(few.wavelength), lines=lines)
    assert verticals(display.axes_[1]) == [4862.7]
    air = few.replace(medium="air")
    display = AttentionMapDisplay.from_predictions(air, peak(few.wavelength))
    assert verticals(display.axes_[1])[0] == 5167.32
    plain = AttentionMapDisplay.from_predictions(few.flux, peak(few.wavelength))
    assert plain.axes_[1].get_xlabel() == "pixel" and verticals(plain.axes_[1]) == []


def test_information_below(cannon, stars):
    few, labels = stars[0][:5], stars[1][:5]
    information = information_map(cannon, labels, few)
    _, ax = plt.subplots(5)
    display = AttentionMapDisplay.from_predictions(
        few, peak(few.wavelength), information=information, ax=ax
    )
    assert display.axes_[4] is ax[4]
    assert ax[3].get_ylabel().startswith(r"$\log g$")
    assert ax[4].get_xlabel() == "wavelength [Å]"


def test_from_estimator_asks_the_network(stars, monkeypatch):
    few = stars[0][:5]
    monkeypatch.setattr("skspec.diagnostics.attention_map", lambda model, X: model(X.wavelength))
    display = AttentionMapDisplay.from_estimator(peak, few)
    assert display.wavelength[display.attention.argmax()] == pytest.approx(5175, abs=3)


def test_orders_and_bad_pixels(stars):
    orders = EchelleLayout(3, 40, wavelength_range=(4700, 5500)).fit_transform(stars[0][:5])
    attention = np.where(orders.good, peak(orders.wavelength), 0.0)
    display = AttentionMapDisplay.from_predictions(orders, attention)
    curves = [line for line in display.axes_[1].lines if len(line.get_xdata()) == 40]
    assert len(curves) == 3  # no line runs from the end of an order to the next
    assert np.isnan(display.flux[0]) and np.isfinite(display.flux[60])
    assert np.isnan(display.attention[0]) and np.nanmin(display.attention) == 0  # of good pixels


def test_even_attention_is_no_division_by_zero():
    display = AttentionMapDisplay.from_predictions(Spectra(np.ones((2, 9))), np.ones((2, 9)))
    assert_allclose(display.attention, 0)


def test_mistakes_get_a_sentence(stars):
    with pytest.raises(ValueError, match="one value for each pixel"):
        AttentionMapDisplay.from_predictions(stars[0], np.ones((3, 150)))
    with pytest.raises(ValueError, match="scale must be"):
        AttentionMapDisplay.from_predictions(stars[0], np.ones((160, 150)), scale="max")
