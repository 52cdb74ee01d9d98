"""What `make_spectra` promises: labels, noise, seeds, bad pixels, continua."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skspec.datasets import make_spectra, synthesize
from skspec.datasets._labels import DEFAULT_LABELS, DEFAULT_RANGES, MAIN_SEQUENCE

SMALL = {"wavelength": (5150.0, 5200.0), "n_pixels": 120}


def test_default_call():
    spectra, labels = make_spectra(4, random_state=0)
    assert spectra.shape == (4, 2000)
    assert list(labels) == ["teff", "logg", "feh"]
    assert spectra.wavelength[[0, -1]].tolist() == [4800.0, 5400.0]
    assert np.all(spectra.ivar > 0)
    assert spectra.meta["snr"].shape == (4,)


@given(st.lists(st.sampled_from(list(DEFAULT_LABELS)), min_size=1, unique=True))
@settings(max_examples=12, deadline=None)
def test_columns_come_in_the_order_asked(names):
    _, labels = make_spectra(2, labels=names, random_state=1, **SMALL)
    assert list(labels) == names
    for name in names:
        low, high = DEFAULT_RANGES[name]
        assert labels[name].between(low, high).all()


def test_same_seed_same_result_and_other_seed_same_physics():
    one, labels = make_spectra(3, random_state=5, **SMALL)
    again, labels_again = make_spectra(3, random_state=5, **SMALL)
    other, other_labels = make_spectra(3, random_state=6, **SMALL)
    np.testing.assert_array_equal(one.flux, again.flux)
    assert labels.equals(labels_again)
    assert not np.array_equal(one.flux, other.flux)
    for spectra, table in ((one, labels), (other, other_labels)):
        residual = (spectra.flux - synthesize(table, spectra.wavelength)) * np.sqrt(spectra.ivar)
        assert np.abs(residual).max() < 6


def test_noise_has_the_stated_ivar():
    spectra, labels = make_spectra(100, snr=(10, 200), random_state=2, **SMALL)
    truth = synthesize(labels, spectra.wavelength)
    pull = (spectra.flux - truth) * np.sqrt(spectra.ivar)
    assert pull.std() == pytest.approx(1.0, abs=0.02)
    assert pull.mean() == pytest.approx(0.0, abs=0.03)
    # Photons: in the continuum the S/N is the one asked for, in lines it falls as sqrt(flux).
    snr = np.sqrt(truth * spectra.ivar)
    np.testing.assert_allclose(snr, np.tile(spectra.meta["snr"][:, None], (1, 120)))
    assert spectra.meta["snr"].min() >= 10 and spectra.meta["snr"].max() <= 200


@pytest.mark.parametrize("snr", [None, np.inf])
def test_without_noise(snr):
    spectra, labels = make_spectra(3, snr=snr, random_state=0, **SMALL)
    assert spectra.ivar is None
    np.testing.assert_allclose(spectra.flux, synthesize(labels, spectra.wavelength), atol=1e-12)


def test_snr_per_star():
    spectra, _ = make_spectra(3, snr=[10, 100, 1000], random_state=0, **SMALL)
    assert spectra.meta["snr"].tolist() == [10, 100, 1000]


@given(st.floats(0.01, 0.4), st.sampled_from([None, 50.0]))
@settings(max_examples=10, deadline=None)
def test_bad_pixels_have_ivar_zero_and_their_share(fraction, snr):
    clean, _ = make_spectra(40, snr=snr, random_state=3, **SMALL)
    spoilt, _ = make_spectra(40, snr=snr, bad_pixel_fraction=fraction, random_state=3, **SMALL)
    bad = spoilt.ivar == 0
    assert 0.4 * fraction < bad.mean() < 1.4 * fraction
    np.testing.assert_array_equal(spoilt.flux[~bad], clean.flux[~bad])
    assert np.abs(spoilt.flux[bad] - clean.flux[bad]).min() > 0.01


def test_bad_pixels_come_in_runs_too():
    spectra, _ = make_spectra(40, bad_pixel_fraction=0.1, random_state=3, **SMALL)
    bad = spectra.ivar == 0
    assert np.mean(bad[:, 1:][bad[:, :-1]]) > 0.3  # 0.1 if they were independent


def test_fixed_labels_and_ranges():
    spectra, labels = make_spectra(
        5,
        labels=["feh"],
        label_ranges={"feh": (-0.1, 0.1)},
        snr=None,
        random_state=0,
        fixed_labels={"teff": 6000, "vsini": 30},
        **SMALL,
    )
    truth = synthesize({"teff": 6000, "vsini": 30, "feh": labels["feh"]}, spectra.wavelength)
    np.testing.assert_allclose(spectra.flux, truth, atol=1e-12)
    assert labels["feh"].abs().max() <= 0.1


def test_field_stars_lie_on_their_sequences():
    names = ["teff", "logg", "feh", "alpha_m"]
    _, labels = make_spectra(500, population="field", labels=names, random_state=0, **SMALL)
    dwarf = labels["logg"] > 3.9
    assert 0.4 < dwarf.mean() < 0.85
    sequence = np.interp(labels["teff"][dwarf], *MAIN_SEQUENCE)
    assert np.std(labels["logg"][dwarf] - sequence) < 0.2
    assert labels["teff"][~dwarf].corr(labels["logg"][~dwarf]) > 0.7
    assert labels["feh"].corr(labels["alpha_m"]) < -0.3


@pytest.mark.parametrize("continuum", ["blackbody", "random", "blaze"])
def test_continuum_multiplies_and_the_noise_follows(continuum):
    spectra, labels = make_spectra(30, continuum=continuum, random_state=0, **SMALL)
    plain = synthesize(labels, spectra.wavelength)
    shape = spectra.flux / plain
    assert np.all(shape > 0.2)
    smooth = np.polynomial.polynomial.Polynomial.fit
    x = np.linspace(-1, 1, 120)
    for row, inverse in zip(shape, spectra.ivar):
        residual = (row - smooth(x, row, 5)(x)) * np.sqrt(inverse)
        assert residual.std() < 3


def test_an_array_of_continuum_and_echelle_orders():
    order = np.repeat([10, 11], 60)
    pixels = np.concatenate([np.linspace(5150, 5180, 60), np.linspace(5170, 5200, 60)])
    spectra, labels = make_spectra(
        3,
        wavelength=pixels,
        order=order,
        continuum=np.linspace(1, 2, 120),
        snr=None,
        random_state=0,
    )
    np.testing.assert_array_equal(spectra.order, order)
    np.testing.assert_allclose(
        spectra.flux, synthesize(labels, pixels) * np.linspace(1, 2, 120), rtol=1e-12
    )
    blaze, _ = make_spectra(3, wavelength=pixels, order=order, continuum="blaze", random_state=0)
    assert blaze.flux[0, 25:35].mean() > 1.5 * blaze.flux[0, 55:65].mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["teff", "mass"]}, "cannot be drawn"),
        ({"labels": []}, "cannot be drawn"),
        ({"labels": ["teff", "teff"]}, "at most once"),
        ({"label_ranges": {"teff": (3000, 5000)}}, "within 3800 and 8500 K"),
        ({"label_ranges": {"teff": (6000, 5000)}}, "must increase"),
        ({"label_ranges": {"rv": (0, 1)}}, "not among the labels that vary"),
        ({"fixed_labels": {"teff": 5000}}, "leave them in one"),
        ({"fixed_labels": {"rv": 9999}}, "rv must lie within"),
        ({"fixed_labels": {"rv": [1, 2]}}, "must be one number"),
        ({"population": "halo"}, "population='halo'"),
        ({"snr": -1}, "snr must be positive"),
        ({"snr": (100, 10)}, "0 < low <= high"),
        ({"snr": [1.0, 2.0]}, "one value for each of the 3 stars"),
        ({"bad_pixel_fraction": 1.5}, r"must lie in \[0, 1\)"),
        ({"continuum": "wavy"}, "continuum='wavy'"),
        ({"continuum": np.ones(7)}, "continuum has shape"),
        ({"continuum": -np.ones(120)}, "positive and finite"),
        ({"n_pixels": 1}, "at least 2 pixels"),
        ({"wavelength": (1000.0, 2000.0)}, "3800-9000"),
        ({"population": "field", "label_ranges": {"logg": (0.0, 0.01)}}, "next to no stars"),
    ],
)
def test_mistakes_get_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_spectra(3, random_state=0, **(SMALL | arguments))


@pytest.mark.parametrize("n", [0, -3, 2.5])
def test_a_whole_number_of_stars(n):
    with pytest.raises(ValueError, match="whole number of stars"):
        make_spectra(n)


def test_importing_stays_light():
    code = (
        "import sys, skspec.datasets; "
        "sys.exit(len({'torch', 'matplotlib', 'astropy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
