"""The line list of the sketch: real lines, a fixed forest of weak ones, and their strengths."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from skspec._wavelengths import air_to_vacuum
from skspec.datasets._atmosphere import (
    BOLTZMANN,
    ELEMENTS,
    THETA,
    Layer,
    continuum_opacity,
    number_per_hydrogen,
)
from skspec.datasets._line_table import ATOMIC_LINES, DAMPING, HYDROGEN_LINES

__all__ = ["LineList", "atomic_lines", "forest_lines", "hydrogen_lines"]

CLASSICAL_CROSS_SECTION = 0.026540  # pi e^2 / (m_e c) [cm2 Hz]
DEFAULT_DAMPING = (8.0, -7.65)  # log10 gamma_rad [rad/s], log10 gamma_6 / N_H at 1e4 K [rad/s cm3]
WAVELENGTH_LIMITS = (3800.0, 9000.0)  # Angstrom, vacuum: where there are lines

FOREST_SEED = 20240229  # the forest is part of the physics: one seed, for ever
FOREST_SIZE = 6000
# Exponential distribution of log10(A gf 10^(-0.93 chi)), the strength of a line in the Sun (3.8 is
# some 60 mA at 5000 Angstrom), set so that the mean depression of the solar spectrum is met.
FOREST_FAINTEST, FOREST_SCALE, FOREST_STRONGEST = 1.2, 0.7, 3.8
#: Species of the forest and their shares, after the look of the solar spectrum.
FOREST_SPECIES = {
    "Fe I": 0.52,
    "Ti I": 0.11,
    "Cr I": 0.10,
    "Ni I": 0.09,
    "V I": 0.04,
    "Co I": 0.03,
    "Ca I": 0.02,
    "Si I": 0.02,
    "Fe II": 0.03,
    "Ti II": 0.03,
    "Cr II": 0.01,
}


class LineList(NamedTuple):
    """Lines as arrays of shape (m,)."""

    wavelength: np.ndarray  # Angstrom, vacuum
    species: np.ndarray  # "Fe I"; the ion is stage 1 in `_atmosphere`
    excitation: np.ndarray  # eV, lower level
    log_gf: np.ndarray
    log_gamma_rad: np.ndarray  # rad/s
    log_gamma_6: np.ndarray  # rad/s per hydrogen atom per cm3, at 1e4 K
    strong: np.ndarray  # bool: has a damping of its own, and wide wings

    def take(self, rows):
        """Some of the lines."""
        return LineList(*(column[rows] for column in self))

    def strengths(self, layer: Layer) -> np.ndarray:
        """Line over continuum absorption, integrated over velocity [km/s], shape (n, m).

        S = pi e^2/(m_e c) gf n_lower/(g N_H) (1 - e^(-h nu/kT)) lambda / kappa_c, so that the
        ratio of opacities is eta(v) = S phi(v) with phi a profile of unit area in km/s.
        """
        populations = np.empty((len(layer.temperature), len(self.wavelength)))
        for name in np.unique(self.species):
            element, numeral = name.split()
            number = number_per_hydrogen(element, len(numeral) - 1, layer)
            populations[:, self.species == name] = number[:, None]
        temperature = layer.temperature[:, None]
        exponent = self.log_gf - THETA / temperature * self.excitation
        photon = 12398.4 / self.wavelength  # eV
        stimulated = 1.0 - 10.0 ** (-THETA / temperature * photon)
        kappa = continuum_opacity(
            self.wavelength, temperature, layer.log_pe[:, None], 10.0 ** layer.log_pg[:, None]
        )
        in_km_s = CLASSICAL_CROSS_SECTION * self.wavelength * 1e-8 * 1e-5
        return in_km_s * 10.0**exponent * populations * stimulated / kappa

    def damping(self, layer: Layer, enhancement: float) -> np.ndarray:
        """Lorentzian half width at half maximum [km/s], shape (n, m): gamma lambda / (4 pi).

        gamma = gamma_rad + enhancement gamma_6 N_H (T / 10^4 K)^0.4; the exponent is the usual
        (1 - alpha) / 2 with alpha about 0.25.
        """
        pressure = enhancement * layer.n_hydrogen * (layer.temperature / 1e4) ** 0.4
        gamma = 10.0**self.log_gamma_rad + pressure[:, None] * 10.0**self.log_gamma_6
        return gamma * self.wavelength * 1e-13 / (4.0 * np.pi)


def doppler_width(mass, temperature, microturbulence):
    """Doppler parameter b [km/s]: b^2 = 2kT/m + xi^2, for a mass in u."""
    atom = 1.66054e-24 * mass
    return np.sqrt(2e-10 * BOLTZMANN * temperature / atom + microturbulence**2)


@lru_cache(maxsize=1)
def hydrogen_lines() -> np.ndarray:
    """Balmer and Paschen lines, shape (m, 4): vacuum Angstrom, lower, upper level, f."""
    table = np.array(HYDROGEN_LINES)
    table[:, 0] = air_to_vacuum(table[:, 0])
    table.setflags(write=False)
    return table


@lru_cache(maxsize=1)
def atomic_lines() -> LineList:
    """The real lines of `_line_table`."""
    rows = []
    for species, text in ATOMIC_LINES.items():
        for entry in text.split(";"):
            air, excitation, log_gf = (float(word) for word in entry.split())
            name = f"{species} {air:.3f}"
            gamma = DAMPING.get(name, DEFAULT_DAMPING)
            rows.append((air, species, excitation, log_gf, *gamma, name in DAMPING))
    wavelength, *rest = map(np.array, zip(*rows))
    lines = LineList(air_to_vacuum(wavelength), *rest)
    return lines.take(np.argsort(lines.wavelength))


@lru_cache(maxsize=1)
def forest_lines() -> LineList:
    """Weak lines of no particular origin, so that a spectrum looks as crowded as a real one.

    Wavelengths are denser in the blue (the density falls as lambda^-6), excitation potentials lie
    at 0-5 eV (2.5-4.2 eV for ions), and log gf is drawn so that the strength the line has in
    the Sun is exponential: many weak lines, few of middling strength.
    """
    rng = np.random.default_rng(FOREST_SEED)
    blue, red = WAVELENGTH_LIMITS
    share = rng.random(FOREST_SIZE)
    wavelength = np.sort((blue**-5 + share * (red**-5 - blue**-5)) ** -0.2)
    species = rng.choice(list(FOREST_SPECIES), p=list(FOREST_SPECIES.values()), size=FOREST_SIZE)
    ion = np.char.endswith(species, "II")
    excitation = rng.beta(1.6, 1.3, FOREST_SIZE) * 5.0
    excitation = np.where(ion, 2.5 + 1.7 * rng.random(FOREST_SIZE), excitation)
    solar = np.array([ELEMENTS[name.split()[0]].abundance for name in species])
    # Neutral Ti, V, Cr, Ca are rarer than neutral Fe, Ni, Co, Si by about their ionisation.
    solar = solar + np.select(
        [ion, np.isin(species, ["Ti I", "V I", "Cr I", "Ca I"]), species == "Si I"],
        [0.9, -0.9, 0.4],
        0.0,
    )
    strength = FOREST_FAINTEST + rng.exponential(FOREST_SCALE, FOREST_SIZE)
    log_gf = np.minimum(strength, FOREST_STRONGEST) - solar + 0.93 * excitation
    radiative, waals = (np.full(FOREST_SIZE, value) for value in DEFAULT_DAMPING)
    return LineList(
        wavelength, species, excitation, log_gf, radiative, waals, np.zeros(FOREST_SIZE, bool)
    )
