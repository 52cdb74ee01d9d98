import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skspec.forward import TheCannon
from skspec.plotting import InformationMapDisplay, write_report
from skspec.preprocessing import BadPixelMasker


def test_panel_for_each_label(cannon, stars):
    spectra, labels = (part[100:] for part in stars)
    display = InformationMapDisplay.from_estimator(
        cannon, labels, spectra, name="The Cannon", rv=True
    )
    assert len(display.axes_) == 4
    assert display.axes_[0].get_title(loc="left") == "The Cannon"
    assert display.axes_[0].get_ylabel() == "mean flux"
    assert display.axes_[2].get_ylabel().startswith(r"$\log g$")
    assert display.axes_[3].get_xlabel() == "wavelength [Å]"
    assert_allclose(display.flux, cannon.predict_flux(labels).mean(axis=0))
    assert any("if the others were known" in text.get_text() for text in display.axes_[1].texts)
    display.figure_.canvas.draw()


def test_through_a_pipeline_on_given_axes(stars):
    spectra, labels = stars
    model = make_pipeline(BadPixelMasker(), TheCannon(1)).fit(spectra[:100], labels[:100])
    _, ax = plt.subplots(4)
    display = InformationMapDisplay.from_estimator(model, labels[100:], spectra[100:], ax=ax)
    assert display.axes_[1] is ax[1]


def test_pixel_numbers_and_wrong_models(stars, comparison):
    spectra, labels = (part[:100] for part in stars)
    plain = spectra.replace(wavelength=None)
    display = InformationMapDisplay.from_estimator(TheCannon(1).fit(plain, labels), labels, plain)
    assert display.axes_[-1].get_xlabel() == "pixel"
    with pytest.raises(TypeError, match="no forward model"):
        InformationMapDisplay.from_estimator(comparison.results["ridge"].model, labels, spectra)


def test_is_in_the_report(comparison, tmp_path):
    page = write_report(comparison, tmp_path / "r.html").read_text("utf-8")
    assert page.count("Information per pixel of The Cannon") == 1
    assert "Information per pixel of Ridge" not in page


def test_report_of_a_model_without_pixel_errors_or_gradients(comparison, tmp_path, monkeypatch):
    class Plain:
        """As much of a forward model as the fit of a spectrum needs."""

        def __init__(self, model):
            self.label_names_in_ = model.label_names_in_
            self.predict_flux, self.predict_dist = model.predict_flux, model.predict_dist

    result = comparison.results["the_cannon"]
    monkeypatch.setattr(result, "model", Plain(result.model))
    page = write_report(comparison, tmp_path / "r.html").read_text("utf-8")
    assert "Spectrum fitted by The Cannon" in page
    assert "Flux error per pixel" not in page and "Information per pixel" not in page


def test_report_of_labels_that_cannot_be_told_apart(comparison, tmp_path, monkeypatch):
    model = comparison.results["the_cannon"].model
    same = np.repeat(model.theta_[:1], len(model.theta_), axis=0)
    monkeypatch.setattr(model, "theta_", same)
    page = write_report(comparison, tmp_path / "r.html").read_text("utf-8")
    assert "Information per pixel" not in page and "Flux error per pixel of The Cannon" in page
