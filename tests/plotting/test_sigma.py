import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec import MultivariateNormal
from skspec.plotting import SigmaDisplay


def test_both_curves_are_right():
    rng = np.random.default_rng(0)
    truth = rng.uniform(4000, 6000, (8000, 1))
    sigma = np.where(truth < 5000, 20.0, 80.0)
    dist = MultivariateNormal(
        truth + sigma * rng.normal(size=truth.shape), scale=0.5 * sigma, label_names=["teff"]
    )
    display = SigmaDisplay.from_predictions(truth, dist, points=False, name="too sure")
    stated, spread = (line.get_ydata() for line in display.axes_[0].lines)
    assert_allclose(stated[[0, -1]], [10, 40])
    assert_allclose(spread[[0, -1]], [20, 80], rtol=0.1)
    assert display.axes_[0].get_title(loc="left") == "too sure"
    assert display.axes_[0].get_xlabel() == r"true $T_\mathrm{eff}$ [K]"
    assert display.axes_[0].get_ylabel() == r"σ of $T_\mathrm{eff}$ [K]"


def test_from_estimator_on_given_axes(cannon, stars):
    _, ax = plt.subplots(1, 3)
    display = SigmaDisplay.from_estimator(cannon, stars[0][100:], stars[1][100:], ax=ax)
    assert display.axes_[2] is ax[2] and display.std.shape == (60, 3)
    assert len(ax[0].lines[0].get_xdata()) == 60
    names = ax[0].get_legend_handles_labels()[1]
    assert names == ["estimated σ", "spread of residuals"]


def test_lost_stars_do_not_stop_it():
    mean = np.array([[1.0], [np.nan], [3.0]])
    dist = MultivariateNormal(mean, scale=np.ones((3, 1)))
    display = SigmaDisplay.from_predictions(np.zeros((3, 1)), dist)
    assert len(display.axes_[0].lines[0].get_xdata()) == 2
    with pytest.raises(ValueError, match="No star has"):
        SigmaDisplay.from_predictions(np.zeros((3, 1)), dist[[1, 1, 1]])


def test_plain_predictions_are_refused():
    with pytest.raises(TypeError, match="needs distributions"):
        SigmaDisplay.from_predictions(np.zeros((3, 1)), np.zeros((3, 1)))
