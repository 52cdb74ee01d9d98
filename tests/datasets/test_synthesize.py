"""Broadening, shifts, smoothness and checks of the noise-free spectra."""

import numpy as np
import pytest
from scipy.integrate import quad

from skspec.datasets import synthesize
from skspec.datasets._labels import LABEL_LIMITS
from skspec.datasets._lattice import LIGHT_SPEED
from skspec.datasets._observe import LIMB_DARKENING, rotation_transfer

WIDE = np.linspace(5200.0, 5340.0, 1400)


def missing_light(flux):
    """Equivalent width in pixels of whatever lies in the middle, its edges tapered."""
    return (1.0 - flux) @ np.hanning(flux.shape[1])


def test_the_sun_looks_like_the_sun():
    flux = synthesize({}, np.linspace(4800, 6700, 4000))
    assert flux.shape == (1, 4000)
    assert 0.1 < flux.min() < 0.4
    assert 0.99 < flux.max() <= 1.0 + 1e-9
    assert 0.05 < 1 - flux.mean() < 0.12  # the solar atlas gives some 7 %


def test_rotation_conserves_equivalent_width():
    flux = synthesize({"vsini": [0.0, 10.0, 40.0, 80.0]}, WIDE)
    np.testing.assert_allclose(missing_light(flux), missing_light(flux[:1])[0], rtol=5e-3)
    assert np.all(np.diff(flux.std(axis=1)) < 0)


def test_instrument_conserves_equivalent_width():
    widths = [missing_light(synthesize({}, WIDE, resolution=r))[0] for r in (2000, 8000, 30000)]
    np.testing.assert_allclose(widths, widths[0], rtol=5e-3)


@pytest.mark.parametrize("velocity", [-300.0, -20.0, 3.0, 250.0])
def test_velocity_shifts_by_the_doppler_formula(velocity):
    beta = velocity / LIGHT_SPEED
    factor = np.sqrt((1 + beta) / (1 - beta))
    moved = synthesize({"rv": velocity}, WIDE * factor)
    np.testing.assert_allclose(moved, synthesize({}, WIDE), rtol=0, atol=5e-6)


def test_rotation_transfer_is_the_transform_of_grays_profile():
    vsini, e = 30.0, LIMB_DARKENING

    def profile(x):
        shape = 2 * (1 - e) * np.sqrt(1 - x**2) + 0.5 * np.pi * e * (1 - x**2)
        return shape / (np.pi * (1 - e / 3))

    for s in (0.0, 1e-4, 3e-4, 0.01, 0.05):
        slow = quad(lambda x, s=s: profile(x) * np.cos(2 * np.pi * s * vsini * x), -1, 1)[0]
        assert rotation_transfer(np.array([s]), vsini)[0] == pytest.approx(slow, abs=1e-9)


def test_a_star_does_not_depend_on_its_neighbours():
    teff = np.linspace(4000, 8000, 150)  # several blocks
    together = synthesize({"teff": teff}, WIDE[::10])
    np.testing.assert_allclose(
        together[[0, 77, 149]], synthesize({"teff": teff[[0, 77, 149]]}, WIDE[::10]), atol=1e-12
    )


@pytest.mark.parametrize("name", LABEL_LIMITS)
def test_smooth_in_every_label(name):
    """Central differences of two step sizes agree: no kinks, no tolerance of a root finder."""
    steps = {"teff": 2.0, "logg": 5e-3, "feh": 5e-3, "alpha_m": 5e-3, "vsini": 0.1, "rv": 0.1}
    base = {"teff": 5431.0, "logg": 3.217, "feh": -0.31, "alpha_m": 0.12, "vsini": 7.3, "rv": 4.1}
    h = steps[name] * np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
    flux = synthesize(base | {name: base[name] + h}, WIDE[::7])
    half = (flux[3] - flux[2]) / steps[name]
    one = (flux[4] - flux[1]) / (2 * steps[name])
    two = (flux[5] - flux[0]) / (4 * steps[name])
    scale = np.abs(half).max()
    assert scale > 0
    # Errors of a smooth function fall as h^2: Richardson's two extrapolations agree.
    np.testing.assert_allclose((4 * half - one) / 3, (4 * one - two) / 3, atol=1e-6 * scale)


def test_tiny_steps_give_clean_differences():
    teff = 5600.0 + np.array([-1e-3, 0.0, 1e-3])
    flux = synthesize({"teff": teff}, WIDE[::7])
    left, right = flux[1] - flux[0], flux[2] - flux[1]
    np.testing.assert_allclose(left, right, atol=2e-5 * np.abs(left).max())


def test_finite_everywhere_within_the_limits():
    grid = np.array(np.meshgrid(*(LABEL_LIMITS[k] for k in ("teff", "logg", "feh", "alpha_m"))))
    labels = dict(zip(("teff", "logg", "feh", "alpha_m"), grid.reshape(4, -1)))
    flux = synthesize(labels, np.linspace(3800, 9000, 300), resolution=500)
    assert np.all(np.isfinite(flux))
    assert flux.min() > 0
    assert flux.max() < 1 + 1e-9


def test_air_and_vacuum_agree():
    from skspec import air_to_vacuum

    np.testing.assert_array_equal(
        synthesize({}, WIDE, medium="air"), synthesize({}, air_to_vacuum(WIDE))
    )


def test_the_lattice_is_fine_enough(monkeypatch):
    labels = {"teff": [4000, 5772, 6800], "logg": [5.0, 4.44, 1.5]}
    usual = synthesize(labels, WIDE)
    monkeypatch.setattr("skspec.datasets._observe.LATTICE_STEP", 0.5)
    np.testing.assert_allclose(usual, synthesize(labels, WIDE), rtol=0, atol=1e-3)


def test_the_range_does_not_matter():
    np.testing.assert_allclose(
        synthesize({}, WIDE[400:900]), synthesize({}, WIDE)[:, 400:900], rtol=0, atol=3e-6
    )


def test_pixels_in_any_order():
    shuffled = np.random.default_rng(0).permutation(len(WIDE))
    np.testing.assert_allclose(
        synthesize({}, WIDE[shuffled]), synthesize({}, WIDE)[:, shuffled], atol=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"teff": 3000}, "teff must lie within 3800 and 8500 K; got 3000"),
        ({"logg": [4.0, 9.0]}, "logg must lie within 0 and 5.5 dex"),
        ({"feh": np.nan}, "feh must lie within"),
        ({"mgfe": 0.1}, r"Unknown labels \['mgfe'\]"),
        ({"teff": [5000, 6000], "logg": [4, 4, 4]}, "different lengths"),
        ({"teff": [[5000.0]]}, "one value per star"),
    ],
)
def test_labels_out_of_range(labels, message):
    with pytest.raises(ValueError, match=message):
        synthesize(labels, WIDE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wavelength": [3000.0, 5000.0]}, "the line list covers 3800-9000"),
        ({"wavelength": []}, "give a vector"),
        ({"wavelength": [[5000.0]]}, "give a vector"),
        ({"wavelength": WIDE, "medium": "water"}, "vacuum"),
        ({"wavelength": WIDE, "resolution": 1e6}, "resolution"),
    ],
)
def test_impossible_instruments(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthesize({}, **arguments)
