"""One grey layer in LTE: temperature, electron and gas pressure, populations, continuum opacity.

The star is reduced to the gas at one continuum optical depth. That is a sketch: no radiative
transfer, no convection, no molecules, no departures from LTE, constant partition functions.

References: D. F. Gray, *The Observation and Analysis of Stellar Photospheres* (3rd ed. 2005),
chapters 1, 8 and 9 ("Gray" below).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["ELEMENTS", "Layer", "continuum_opacity", "number_per_hydrogen", "solve_layer"]

BOLTZMANN = 1.380649e-16  # erg / K
HYDROGEN_MASS = 1.6735e-24  # g
THOMSON = 6.6524e-25  # cm2 per electron
HELIUM = 0.085  # helium atoms per hydrogen nucleus
MASS_PER_HYDROGEN = (1.0 + 4.0 * HELIUM + 0.014) * HYDROGEN_MASS  # g, helium and metals included
THETA = 5039.78  # K eV-1: theta = 5039.78 / T, so that 10^(-theta chi) = exp(-chi / kT)
PRESSURE_WAVELENGTH = 5000.0  # Angstrom, where optical depth is counted


class Element(NamedTuple):
    """Mass [u], solar abundance [log N_H = 12], ionisation [eV] and partition functions."""

    mass: float
    abundance: float
    ionisation: tuple[float, float]
    partition: tuple[float, float, float]


#: Abundances: Asplund et al. 2009, ARA&A 47, 481. Ionisation potentials: NIST. Partition
#: functions: constants typical of 5500 K, after Gray table D.2.
ELEMENTS = {
    "H": Element(1.008, 12.00, (13.598, 1e3), (2.0, 1.0, 1.0)),
    "C": Element(12.01, 8.43, (11.260, 24.38), (9.3, 6.0, 1.0)),
    "O": Element(16.00, 8.69, (13.618, 35.12), (8.8, 4.0, 9.0)),
    "Na": Element(22.99, 6.24, (5.139, 47.29), (2.05, 1.0, 6.0)),
    "Mg": Element(24.31, 7.60, (7.646, 15.04), (1.03, 2.0, 1.0)),
    "Al": Element(26.98, 6.45, (5.986, 18.83), (5.9, 1.0, 2.0)),
    "Si": Element(28.09, 7.51, (8.152, 16.35), (9.5, 5.8, 1.0)),
    "S": Element(32.06, 7.12, (10.360, 23.34), (8.6, 4.1, 9.0)),
    "K": Element(39.10, 5.03, (4.341, 31.63), (2.2, 1.0, 6.0)),
    "Ca": Element(40.08, 6.34, (6.113, 11.87), (1.25, 2.25, 1.0)),
    "Sc": Element(44.96, 3.15, (6.561, 12.80), (13.0, 23.0, 10.0)),
    "Ti": Element(47.87, 4.95, (6.828, 13.58), (32.0, 57.0, 21.0)),
    "V": Element(50.94, 3.93, (6.746, 14.62), (50.0, 45.0, 28.0)),
    "Cr": Element(52.00, 5.64, (6.767, 16.49), (11.0, 7.4, 25.0)),
    "Mn": Element(54.94, 5.43, (7.434, 15.64), (6.6, 7.8, 6.0)),
    "Fe": Element(55.85, 7.50, (7.902, 16.19), (28.0, 43.0, 25.0)),
    "Co": Element(58.93, 4.99, (7.881, 17.08), (34.0, 30.0, 28.0)),
    "Ni": Element(58.69, 6.22, (7.640, 18.17), (31.0, 11.0, 21.0)),
    "Cu": Element(63.55, 4.19, (7.726, 20.29), (2.4, 1.05, 10.0)),
    "Zn": Element(65.38, 4.56, (9.394, 17.96), (1.0, 2.0, 1.0)),
    "Sr": Element(87.62, 2.87, (5.695, 11.03), (1.4, 2.2, 1.0)),
    "Y": Element(88.91, 2.21, (6.217, 12.22), (13.0, 16.0, 10.0)),
    "Zr": Element(91.22, 2.58, (6.634, 13.13), (35.0, 45.0, 21.0)),
    "Ba": Element(137.33, 2.18, (5.212, 10.00), (2.8, 4.2, 1.0)),
    "La": Element(138.91, 1.10, (5.577, 11.06), (28.0, 30.0, 10.0)),
}
ALPHA_ELEMENTS = ("O", "Mg", "Si", "S", "Ca", "Ti")
ELECTRON_DONORS = ("H", "Na", "Mg", "Al", "Si", "Ca", "Ti", "Cr", "Fe", "Ni")


class Layer(NamedTuple):
    """State of the line-forming gas of `n` stars, each field of shape (n,), cgs units."""

    temperature: np.ndarray  # K
    log_pe: np.ndarray  # log10 electron pressure [dyn/cm2]
    log_pg: np.ndarray  # log10 gas pressure [dyn/cm2]
    feh: np.ndarray  # dex
    alpha_m: np.ndarray  # dex
    turbulence: np.ndarray  # microturbulence [km/s]

    def take(self, rows):
        """The layers of some of the stars."""
        return Layer(*(values[rows] for values in self))

    @property
    def n_electron(self):
        """Electrons per cm3."""
        return 10.0**self.log_pe / (BOLTZMANN * self.temperature)

    @property
    def n_hydrogen(self):
        """Hydrogen nuclei per cm3."""
        particles = (10.0**self.log_pg - 10.0**self.log_pe) / (BOLTZMANN * self.temperature)
        return particles / (1.0 + HELIUM)


def abundance(symbol, feh, alpha_m):
    """Nuclei of an element per hydrogen nucleus: 10^(A - 12 + [Fe/H] (+ [alpha/M]))."""
    log_number = ELEMENTS[symbol].abundance - 12.0
    if symbol == "H":
        return np.ones_like(feh)
    if symbol in ALPHA_ELEMENTS:
        log_number = log_number + alpha_m
    return 10.0 ** (log_number + feh)


def saha(symbol, stage, temperature, log_pe):
    """Ratio of ionisation stage `stage + 1` to `stage`, with 0 the neutral atom (Gray eq. 1.20).

    log10(n1 / n0) = -theta chi + 2.5 log10 T - 0.4772 + log10(2 U1 / U0) - log10 Pe.
    """
    element = ELEMENTS[symbol]
    weight = 2.0 * element.partition[stage + 1] / element.partition[stage]
    return 10.0 ** (
        -THETA / temperature * element.ionisation[stage]
        + 2.5 * np.log10(temperature)
        - 0.4772
        + np.log10(weight)
        - log_pe
    )


def number_per_hydrogen(symbol, stage, layer):
    """Atoms in ionisation stage 0 or 1 per hydrogen nucleus, divided by the partition function.

    Times g 10^(-theta chi) this is the population of a level. Returns shape (n,).
    """
    first = saha(symbol, 0, layer.temperature, layer.log_pe)
    second = saha(symbol, 1, layer.temperature, layer.log_pe)
    share = (first if stage else 1.0) / (1.0 + first * (1.0 + second))
    number = abundance(symbol, layer.feh, layer.alpha_m) * share
    return number / ELEMENTS[symbol].partition[stage]


def solve_layer(teff, logg, feh, alpha_m, tau):
    """Grey, hydrostatic layer at continuum optical depth `tau`.

    The temperature is T^4 = 3/4 Teff^4 (tau + 2/3). One equation is left for log Pe: the gas
    pressure that ionisation gives, Pg = Pe + N_heavy kT with Pe = kT sum of ions, must be the one
    that hydrostatic equilibrium gives in one step, Pg = g tau / kappa(5000 Angstrom). The first
    grows and the second falls with Pe, so bisection finds the root to machine precision.

    Parameters
    ----------
    teff, logg, feh, alpha_m : ndarray of shape (n,)
    tau : float or ndarray of shape (n,)

    Returns
    -------
    Layer
    """
    temperature = teff * (0.75 * (tau + 2.0 / 3.0)) ** 0.25
    donors = [(saha(s, 0, temperature, 0.0), abundance(s, feh, alpha_m)) for s in ELECTRON_DONORS]

    def gas_pressure(log_pe):
        pe = 10.0**log_pe
        electrons = sum(number * ratio / (pe + ratio) for ratio, number in donors)
        return pe * (1.0 + (1.0 + HELIUM) / electrons)

    def excess(log_pe):
        kappa = continuum_opacity(PRESSURE_WAVELENGTH, temperature, log_pe, gas_pressure(log_pe))
        hydrostatic = 10.0**logg * tau * MASS_PER_HYDROGEN / kappa
        return gas_pressure(log_pe) - hydrostatic

    low, high = np.full_like(temperature, -8.0), np.full_like(temperature, 5.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = excess(middle) > 0.0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    log_pe = 0.5 * (low + high)
    log_pg = np.log10(gas_pressure(log_pe))
    return Layer(temperature, log_pe, log_pg, feh, alpha_m, microturbulence(logg))


def microturbulence(logg):
    """Microturbulence [km/s]: 1.1 for the Sun, near 2 for a bright giant (a straight line)."""
    return 1.1 + 0.25 * (4.44 - logg)


def continuum_opacity(wavelength, temperature, log_pe, gas_pressure):
    """Continuous absorption [cm2 per hydrogen nucleus]: H-, H I and Thomson scattering.

    Parameters
    ----------
    wavelength : float or ndarray broadcastable to (n, m)
        Angstrom.
    temperature, log_pe, gas_pressure : ndarray broadcastable to (n, m)
        K, log10 dyn/cm2, dyn/cm2.

    Notes
    -----
    Gray eqs. 8.8-8.18. Not included: metals, He-, molecules, Rayleigh scattering.
    """
    theta = THETA / temperature
    pe = 10.0**log_pe
    neutral = 1.0 / (1.0 + saha("H", 0, temperature, log_pe))
    stimulated = 1.0 - 10.0 ** (-theta * 12398.4 / wavelength)
    bound_free = 4.158e-10 * pe * theta**2.5 * 10.0 ** (0.754 * theta)
    bound_free = bound_free * _h_minus_cross_section(wavelength) * stimulated
    atoms = bound_free + 1e-26 * pe * 10.0 ** _h_minus_free_free(wavelength, np.log10(theta))
    atoms = atoms + _hydrogen(wavelength, theta) * stimulated
    electrons_per_nucleus = pe * (1.0 + HELIUM) / (gas_pressure - pe)
    return neutral * atoms + THOMSON * electrons_per_nucleus


def _h_minus_cross_section(wavelength):
    """Photodetachment of H- [cm2] (Gray eq. 8.11; Wishart 1979)."""
    coefficients = [
        1.99654,
        -1.18267e-5,
        2.64243e-6,
        -4.40524e-10,
        3.23992e-14,
        -1.39568e-18,
        2.78701e-23,
    ]
    return 1e-18 * np.polynomial.polynomial.polyval(wavelength, coefficients)


def _h_minus_free_free(wavelength, log_theta):
    """log10 of 1e26 times H- free-free absorption per unit Pe (Gray eq. 8.13; Bell 1987)."""
    x = np.log10(wavelength)
    f0 = -2.2763 - 1.6850 * x + 0.76661 * x**2 - 0.053346 * x**3
    f1 = 15.2827 - 9.2846 * x + 1.99381 * x**2 - 0.142631 * x**3
    f2 = -197.789 + 190.266 * x - 67.9775 * x**2 + 10.6913 * x**3 - 0.625151 * x**4
    return f0 + f1 * log_theta + f2 * log_theta**2


def _hydrogen(wavelength, theta):
    """Bound-free (levels 3 to 7, the rest as an integral) and free-free of H I [cm2 per atom]."""
    ionisation = ELEMENTS["H"].ionisation[0]
    levels = np.arange(2, 8)
    total = 0.0
    for n in levels:
        edge = 911.75 * n**2  # Angstrom
        excitation = ionisation * (1.0 - 1.0 / n**2)
        total = total + np.where(wavelength < edge, 10.0 ** (-theta * excitation) / n**3, 0.0)
    last = ionisation * (1.0 - 1.0 / levels[-1] ** 2)
    factor = np.log10(np.e) / (2.0 * theta * ionisation)
    unresolved = factor * (10.0 ** (-theta * last) - 10.0 ** (-theta * ionisation))
    free_free = factor * 10.0 ** (-theta * ionisation)
    return 1.0449e-26 * wavelength**3 * (total + unresolved + free_free)
