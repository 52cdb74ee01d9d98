import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec import MultivariateNormal
from skspec.calibration import CalibratedRegressor
from skspec.diagnostics import cramer_rao_bound
from skspec.plotting import (
    CoverageDisplay,
    MethodsDisplay,
    OneToOneDisplay,
    PixelErrorDisplay,
    ResidualSNRDisplay,
    SpectrumFitDisplay,
)


def x_labels(display):
    return [axes.get_xlabel() for axes in display.axes_]


def y_labels(display):
    return [axes.get_ylabel() for axes in display.axes_]


class TestOneToOne:
    def test_from_estimator(self, cannon, stars):
        spectra, labels = stars
        display = OneToOneDisplay.from_estimator(cannon, spectra[100:], labels[100:], name="Cannon")
        assert x_labels(display) == [
            r"true $T_\mathrm{eff}$ [K]",
            r"true $\log g$ [dex]",
            "true [Fe/H] [dex]",
        ]
        assert y_labels(display)[2] == "predicted [Fe/H] [dex]"
        assert display.axes_[0].get_title(loc="left") == "Cannon"
        assert display.figure_ is display.axes_[0].figure

    def test_residuals_on_given_axes(self):
        _, ax = plt.subplots()
        truth = np.linspace(0, 1, 9)
        display = OneToOneDisplay.from_predictions(truth, truth + 0.5, ax=ax, kind="residual")
        assert display.axes_[0] is ax and ax.get_ylabel() == "error of label_0"
        assert_allclose(ax.lines[0].get_ydata(), 0.5)

    def test_lost_stars_do_not_stop_it(self):
        predicted = np.array([1.0, np.nan, 3.0])
        OneToOneDisplay.from_predictions(np.array([1.0, 2.0, 3.1]), predicted)

    def test_wrong_number_of_axes(self):
        _, ax = plt.subplots(1, 2)
        with pytest.raises(ValueError, match="2 axes were given, 1 are needed"):
            OneToOneDisplay.from_predictions(np.ones(3), np.ones(3), ax=ax)

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="kind must be"):
            OneToOneDisplay.from_predictions(np.ones(3), np.ones(3), kind="pie")


class TestResidualSNR:
    def test_draws_scatter_and_bound(self, cannon, stars):
        spectra, labels = stars
        bound = cramer_rao_bound(cannon, labels[100:], spectra[100:])
        display = ResidualSNRDisplay.from_estimator(
            cannon, spectra[100:], labels[100:], bound=bound, name="The Cannon"
        )
        assert x_labels(display) == ["S/N per pixel"] * 3
        assert y_labels(display)[0] == r"robust σ of $T_\mathrm{eff}$ [K]"
        names = display.axes_[0].get_legend_handles_labels()[1]
        assert names == ["The Cannon", "Cramér-Rao bound"]

    def test_scatter_is_right(self):
        rng = np.random.default_rng(0)
        snr = np.repeat([30.0, 300.0], 4000)
        error = rng.normal(size=8000) * 100 / snr
        display = ResidualSNRDisplay.from_predictions(
            np.zeros(8000), error, snr, points=False, show_bound=False
        )
        scatter = display.axes_[0].lines[0].get_ydata()
        assert_allclose([scatter[0], scatter[-1]], [100 / 30, 100 / 300], rtol=0.1)

    def test_two_methods_share_axes(self, comparison):
        first = None
        for result in comparison.succeeded.values():
            display = ResidualSNRDisplay.from_predictions(
                comparison.labels,
                result.dist,
                comparison.snr,
                ax=None if first is None else first.axes_,
                name=result.title,
            )
            first = first or display
        assert display.figure_ is first.figure_

    def test_unknown_snr(self):
        with pytest.raises(ValueError, match="No star has both"):
            ResidualSNRDisplay.from_predictions(np.zeros(3), np.ones(3), np.full(3, np.nan))


class TestCoverage:
    def test_honest_errors_lie_on_the_diagonal(self):
        rng = np.random.default_rng(0)
        dist = MultivariateNormal(rng.normal(size=(5000, 1)), scale=np.ones((5000, 1)))
        small = MultivariateNormal(dist.mean(), scale=np.full((5000, 1), 0.3))
        display = CoverageDisplay.from_predictions(
            np.zeros((5000, 1)), dist, formal=small, name="ideal"
        )
        nominal, observed = display.axes_[0].lines[1].get_data()
        assert_allclose(observed, nominal, atol=0.03)
        _, formal = display.axes_[0].lines[2].get_data()
        assert formal[68] < 0.3
        assert x_labels(display) == ["nominal coverage", "probability integral transform"]
        assert y_labels(display) == ["observed coverage", "density of stars"]

    def test_from_estimator(self, cannon, stars):
        display = CoverageDisplay.from_estimator(cannon, stars[0][100:], stars[1][100:])
        assert display.pit.shape == (60, 3)
        assert display.joint_pit.shape == (60,)
        assert display.intervals is None
        names = display.axes_[0].get_legend_handles_labels()[1]
        assert names[-1] == "all at once"

    def test_conformal_intervals_are_dots(self, stars):
        spectra, labels = stars
        model = CalibratedRegressor(method="conformal", cv=3).fit(spectra[:100], labels[:100])
        display = CoverageDisplay.from_estimator(model, spectra[100:], labels[100:])
        lower, upper = model.predict_interval(spectra[100:], 0.3)
        inside = np.mean((lower <= labels[100:]) & (labels[100:] <= upper), axis=0)
        assert_allclose(display.intervals[2], inside)
        dots = [line for line in display.axes_[0].lines if line.get_marker() == "o"]
        assert_allclose(dots[1].get_ydata(), display.intervals[:, 1])


class TestForwardModels:
    def test_spectrum_fit(self, cannon, stars):
        display = SpectrumFitDisplay.from_estimator(cannon, stars[0][100:], star=7, name="x")
        assert y_labels(display) == ["flux", "residual / σ"]
        assert x_labels(display)[1] == "wavelength [Å]"
        assert display.axes_[0].get_title(loc="left").startswith(r"x:  $T_\mathrm{eff}$ ")
        assert_allclose(display.flux, stars[0].flux[107])
        assert np.std((display.flux - display.model) / display.error) < 1.6

    def test_pixel_numbers_without_wavelength(self, stars):
        one = stars[0].replace(wavelength=None)[0]
        display = SpectrumFitDisplay.from_predictions(one, one.flux[0])
        assert x_labels(display)[1] == "pixel" and y_labels(display)[1] == "obs − model"

    def test_baselines_have_no_spectrum(self, comparison):
        model = comparison.results["ridge"].model
        with pytest.raises(TypeError, match="no forward model"):
            SpectrumFitDisplay.from_estimator(model, comparison.spectra)
        with pytest.raises(TypeError, match="no error per pixel"):
            PixelErrorDisplay.from_estimator(model)

    def test_pixel_error(self, cannon):
        display = PixelErrorDisplay.from_estimator(cannon)
        assert x_labels(display) == ["wavelength [Å]"] and y_labels(display) == ["flux error"]
        names = display.axes_[0].get_legend_handles_labels()[1]
        assert names == ["cross-validated RMS", "training RMS", "model scatter"]
        assert_allclose(display.axes_[0].lines[1].get_ydata(), np.sqrt(cannon.training_mse_))


def test_methods_at_a_glance(comparison):
    display = MethodsDisplay.from_comparison(comparison)
    ticks = [text.get_text() for text in display.axes_[0].get_yticklabels()]
    assert ticks == ["The Cannon", "Ridge"]
    assert x_labels(display)[0] == r"error of $T_\mathrm{eff}$ [K]"


def test_global_style_is_left_alone(comparison):
    before = dict(matplotlib.rcParams)
    MethodsDisplay.from_comparison(comparison)
    assert dict(matplotlib.rcParams) == before
