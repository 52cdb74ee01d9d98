import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from skspec.forward import TheCannon
from skspec.plotting import FluxTrendDisplay
from skspec.preprocessing import BadPixelMasker


@pytest.fixture(scope="module")
def linear(stars):
    return TheCannon(1).fit(stars[0][:100], stars[1][:100])


def draw(models, stars, **kwargs):
    return FluxTrendDisplay.from_estimator(
        models, stars[0], stars[1], **({"wavelengths": [4862.7, 5174.1]} | kwargs)
    )


def test_curves_are_the_model_at_the_labels_held(cannon, linear, stars):
    display = draw({"quadratic": cannon, "linear": linear}, stars, at={"logg": 3.0, "feh": -0.5})
    assert [axes.get_title(loc="left") for axes in display.axes_] == ["4864.4 Å", "5174.5 Å"]
    grid = display.grid
    labels = np.column_stack([grid, np.full(len(grid), 3.0), np.full(len(grid), -0.5)])
    pixels = [np.argmin(abs(stars[0].wavelength - x)) for x in (4862.7, 5174.1)]
    assert_allclose(display.trends["quadratic"].curve, cannon.predict_flux(labels)[:, pixels])
    assert_allclose(np.diff(display.trends["linear"].curve, 2, axis=0), 0, atol=1e-12)
    assert display.axes_[0].get_xlabel() == r"$T_\mathrm{eff}$ [K]"
    names = display.axes_[0].get_legend_handles_labels()[1]
    assert names[0] == "training stars near these labels"
    assert names[1].startswith("quadratic  (RMS 0.0") and names[2].startswith("linear")
    assert display.axes_[1].texts[0].get_text() == r"$\log g$ = 3,  [Fe/H] = -0.5"


def test_strong_stars_are_those_near(cannon, stars):
    labels = stars[1]
    display = draw(cannon, stars, at={"logg": 3.0}, within={"logg": 0.4, "feh": 0.3})
    near = (labels["logg"] - 3.0).abs() <= 0.4
    near &= (labels["feh"] - labels["feh"].median()).abs() <= 0.3
    assert near.sum() > 3
    assert_allclose(display.near, near)
    pixel = np.argmin(abs(stars[0].wavelength - 5174.1))
    error = (stars[0].flux - cannon.predict_flux(labels))[near, pixel]
    assert_allclose(display.trends["model"].rms[1], np.sqrt(np.mean(error**2)))


def test_a_label_can_follow_the_other(cannon, stars):
    def sequence(teff):
        return 4.8 - (teff - 4500) / 5000

    display = draw(cannon, stars, at={"logg": sequence}, n_points=11)
    labels = np.column_stack(
        [display.grid, sequence(display.grid), np.full(11, np.median(stars[1]["feh"]))]
    )
    expected = cannon.predict_flux(labels)
    pixel = np.argmin(abs(stars[0].wavelength - 4862.7))
    assert_allclose(display.trends["model"].curve[:, 0], expected[:, pixel])
    assert "log" not in display.axes_[1].texts[0].get_text()


def test_bad_pixels_and_no_star_near(cannon, stars):
    spectra, labels = stars
    mask = np.zeros(spectra.shape, dtype=bool)
    mask[::2] = True
    display = draw(cannon, (spectra.replace(mask=mask), labels), at={"logg": 99.0}, label="feh")
    assert np.isnan(display.flux[::2]).all() and np.isfinite(display.flux[1::2]).all()
    assert not display.near.any() and np.isnan(display.trends["model"].rms).all()
    display.figure_.canvas.draw()


def test_through_a_pipeline_without_wavelength(stars):
    spectra, labels = stars[0].replace(wavelength=None), stars[1]
    model = make_pipeline(BadPixelMasker(), TheCannon(1)).fit(spectra, labels)
    display = draw({"a": model}, (spectra, labels.to_numpy()), wavelengths=[7], titles=["seven"])
    assert display.axes_[0].get_title(loc="left") == "seven"
    assert draw(model, (spectra, labels), wavelengths=7).axes_[0].get_title(loc="left") == "pixel 7"


def test_bad_questions(cannon, stars):
    with pytest.raises(ValueError, match=r"No pixel at 6564.6; the spectra cover 4800.0-5400.0"):
        draw(cannon, stars, wavelengths=[5174, 6564.6])
    with pytest.raises(ValueError, match="No label age; labels: teff, logg, feh"):
        draw(cannon, stars, at={"age": 3})
    with pytest.raises(ValueError, match="run along teff"):
        draw(cannon, stars, at={"teff": 5000})
    with pytest.raises(TypeError, match="ridge has no predict_flux"):
        draw({"ridge": Ridge()}, stars)
