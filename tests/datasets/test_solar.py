"""The calibration: equivalent widths of the Sun's strong lines, and how lines answer to labels."""

import numpy as np
import pytest

from skspec import air_to_vacuum
from skspec.datasets._lattice import LIGHT_SPEED, Lattice
from skspec.datasets._lines import atomic_lines, forest_lines
from skspec.datasets._profiles import Absorber, line_layers, residual_depth

# Angstrom, approximate: tables in the manner of Moore, Minnaert & Houtgast 1966 (NBS Monograph 61).
SOLAR_WIDTHS = {
    ("H I", 6562.80): 4.0,
    ("H I", 4861.33): 3.7,
    ("Mg I", 5183.604): 1.58,
    ("Mg I", 5172.684): 1.26,
    ("Na I", 5889.951): 0.75,
    ("Na I", 5895.924): 0.56,
    ("Ca I", 4226.728): 1.48,
    ("Fe I", 5269.537): 0.48,
    ("Fe I", 5328.039): 0.38,
    ("Ca II", 8542.091): 3.67,
    ("Ba II", 4554.029): 0.159,
    ("Fe I", 5250.209): 0.062,
    ("Fe I", 6393.601): 0.135,
    ("Ni I", 5476.900): 0.165,
    ("Ti I", 4981.731): 0.112,
}


def equivalent_width(species, air, *, teff=5772.0, logg=4.44, feh=0.0, alpha_m=0.0):
    """Width [Angstrom] of one line alone, on a fine lattice, by direct summation."""
    wavelength = float(air_to_vacuum(air))
    metal, hydrogen = line_layers(*(np.array([float(v)]) for v in (teff, logg, feh, alpha_m)))
    if species == "H I":
        lattice = Lattice.covering(wavelength, wavelength, 1.0, 13_000.0)
        share = Absorber(lattice, atomic_lines().take(slice(0)))(metal, hydrogen)
    else:
        lines = atomic_lines()
        one = np.isclose(lines.wavelength, wavelength) & (lines.species == species)
        assert one.sum() == 1
        lattice = Lattice.covering(wavelength, wavelength, 1.0, 3000.0)
        share = Absorber(lattice, lines.take(one))(metal)
    depth = residual_depth(wavelength, np.array([teff]))[0]
    return depth * share.sum() * lattice.step / LIGHT_SPEED * wavelength


@pytest.mark.parametrize(("species", "air"), SOLAR_WIDTHS)
def test_equivalent_widths_of_the_sun(species, air):
    assert equivalent_width(species, air) == pytest.approx(SOLAR_WIDTHS[species, air], rel=0.25)


@pytest.mark.parametrize("air", [6562.80, 4861.33, 4340.47])
def test_balmer_lines_grow_with_teff(air):
    widths = [equivalent_width("H I", air, teff=t) for t in (4000, 4500, 5200, 6000, 7000, 8500)]
    assert np.all(np.diff(widths) > 0)
    assert widths[-2] == pytest.approx(8.5, rel=0.35)  # about 8 Angstrom in an F0 dwarf


@pytest.mark.parametrize("key", [key for key in SOLAR_WIDTHS if key[0] != "H I"])
def test_metal_lines_grow_with_metallicity(key):
    widths = [equivalent_width(*key, feh=feh) for feh in (-2.5, -1.5, -0.5, 0.0, 0.5)]
    assert np.all(np.diff(widths) > 0)


def test_alpha_elements_follow_alpha_m_and_iron_does_not():
    magnesium = [equivalent_width("Mg I", 5172.684, alpha_m=a) for a in (-0.2, 0.0, 0.4)]
    iron = [equivalent_width("Fe I", 5250.209, alpha_m=a) for a in (-0.2, 0.0, 0.4)]
    assert np.all(np.diff(magnesium) > 0.1)
    assert np.ptp(iron) < 0.01


def test_mg_b_wings_grow_with_logg_and_fall_with_teff():
    gravity = [equivalent_width("Mg I", 5183.604, teff=5000, logg=g) for g in (1, 2, 3, 4, 4.8)]
    assert np.all(np.diff(gravity) > 0)
    assert gravity[-1] > 1.7 * gravity[0]
    teff = [equivalent_width("Mg I", 5183.604, teff=t) for t in (4500, 5200, 5800, 6500)]
    assert np.all(np.diff(teff) < 0)


def test_iron_tells_gravity_by_its_ions():
    neutral = [equivalent_width("Fe I", 5250.209, teff=t) for t in (4500, 5200, 5800, 6500)]
    assert np.all(np.diff(neutral) < 0)
    ion = [equivalent_width("Fe II", 5018.440, logg=g) for g in (1.0, 2.0, 3.0, 4.0, 4.8)]
    assert np.all(np.diff(ion) < 0)


def test_the_forest_is_one_and_the_same():
    forest_lines.cache_clear()
    first = forest_lines()
    forest_lines.cache_clear()
    for one, other in zip(first, forest_lines()):
        np.testing.assert_array_equal(one, other)


def test_air_to_vacuum_matches_the_inverse_of_ciddor():
    vacuum = np.linspace(3800, 9000, 50)
    squared = (1e4 / vacuum) ** 2  # Ciddor 1996, Applied Optics 35, 1566
    index = 1 + 0.05792105 / (238.0185 - squared) + 0.00167917 / (57.362 - squared)
    np.testing.assert_allclose(air_to_vacuum(vacuum / index), vacuum, rtol=0, atol=2e-4)
