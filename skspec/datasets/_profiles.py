"""Absorption profiles: weak lines, Voigt profiles, Stark wings; and the emergent flux."""

from __future__ import annotations

import numpy as np
from scipy.special import voigt_profile

from skspec.datasets._atmosphere import (
    ELEMENTS,
    THETA,
    Layer,
    continuum_opacity,
    saha,
    solve_layer,
)
from skspec.datasets._lattice import LIGHT_SPEED, Lattice
from skspec.datasets._lines import (
    CLASSICAL_CROSS_SECTION,
    LineList,
    atomic_lines,
    doppler_width,
    forest_lines,
    hydrogen_lines,
)

__all__ = ["Absorber", "blackbody", "line_layers", "residual_depth"]

# Calibrated against the equivalent widths of the Sun (tests/datasets/test_solar.py).
LINE_DEPTH = 0.15  # continuum optical depth at which metal lines form
HYDROGEN_DEPTH = 0.93  # the same for hydrogen: its levels are populated deeper, where it is hot,
HYDROGEN_RISE = 3.0  # but the stronger the line, the higher it forms: depth ~ Teff^-3
WAALS_ENHANCEMENT = 0.40  # multiplies gamma_6
STARK_ENHANCEMENT = 1.0  # multiplies the Holtsmark wing; 1: electrons double the ions
SURFACE_TEMPERATURE = 0.78  # T0 / Teff of a line-blanketed atmosphere at zero optical depth

WEAK_CORE = 11.0  # km/s, where a Gaussian core ends: four Doppler widths of the widest
WEAK_WING = 80.0  # km/s, where the wing of a weak line is tapered to nothing
WEAK_SOFTENING = 2.0  # km/s
CORE = 90.0  # km/s: the Voigt function of a strong line is computed exactly within this
WING_SOFTENING = 6.0  # km/s
WING_REACH = 8000.0  # km/s, where the wing of a strong line is tapered to nothing
HYDROGEN_REACH = {2: 14000.0, 3: 4000.0}  # km/s, where the wings are tapered to nothing
STARK_AREA = 2.39628  # integral of (x^2 + 1)^(-5/4) over the real line


def line_layers(teff, logg, feh, alpha_m):
    """The two layers of each star, where metal lines and where hydrogen lines form."""
    metal = solve_layer(teff, logg, feh, alpha_m, LINE_DEPTH)
    depth = HYDROGEN_DEPTH * (teff / 5772.0) ** -HYDROGEN_RISE
    return metal, solve_layer(teff, logg, feh, alpha_m, depth)


class Absorber:
    """Line absorption on a lattice; what does not depend on the star is computed once.

    Parameters
    ----------
    lattice : Lattice
    metals : LineList, optional
        By default the real lines and the forest.
    """

    def __init__(self, lattice: Lattice, metals: LineList | None = None):
        if metals is None:
            metals = LineList(*(np.concatenate(two) for two in zip(atomic_lines(), forest_lines())))
        self.lattice = lattice
        self._prepare_weak(metals.take(~metals.strong))
        self._prepare_strong(metals.take(metals.strong))

    def __call__(self, metal_layer: Layer, hydrogen_layer: Layer | None = None) -> np.ndarray:
        """The absorbed share eta / (1 + eta) of each star on the lattice, shape (n, size).

        eta is the ratio of line to continuum absorption. Without a second layer: no hydrogen.
        """
        eta = self._weak_lines(metal_layer)
        self._add_strong_lines(eta, metal_layer)
        if hydrogen_layer is not None:
            _add_hydrogen(eta, self.lattice, hydrogen_layer)
        return np.divide(eta, 1.0 + eta, out=eta)

    def _prepare_weak(self, lines):
        lattice = self.lattice
        velocity = LIGHT_SPEED * np.log(lines.wavelength)
        inside = (velocity > lattice.velocity[0]) & (velocity < lattice.velocity[-1])
        self.weak, velocity = lines.take(inside), velocity[inside]
        shifts, columns = lattice.windows(velocity, WEAK_WING)
        wing = (1.0 - (shifts / WEAK_WING) ** 2).clip(0.0) ** 2
        wing /= np.pi * (shifts**2 + WEAK_SOFTENING**2)
        self.weak_wings = lattice.scatter(wing, columns)
        self.weak_shifts, columns = lattice.windows(velocity, WEAK_CORE)
        self.weak_cores = lattice.scatter(np.ones((columns.size, 1)), columns.reshape(-1, 1))

    def _weak_lines(self, layer):
        """Weak lines: a Gaussian core and a damping wing, with the mass and damping of iron.

        For small damping a Voigt profile is exp(-v^2/b^2) / (sqrt(pi) b) + gamma / (pi v^2); the
        wing is blunted below WEAK_SOFTENING. Cores are computed per star in a narrow window; wings
        have the same shape in every star, so that all of them are one sparse matrix product.
        """
        strength = self.weak.strengths(layer)
        gamma = self.weak.damping(layer, WAALS_ENHANCEMENT)
        eta = (strength * gamma) @ self.weak_wings
        b = doppler_width(ELEMENTS["Fe"].mass, layer.temperature, layer.turbulence)[:, None, None]
        cores = np.exp(-(self.weak_shifts**2) / b**2)
        cores *= strength[:, :, None] / (np.sqrt(np.pi) * b)
        eta += cores.reshape(len(eta), -1) @ self.weak_cores
        return eta

    def _prepare_strong(self, lines):
        grid = self.lattice.velocity
        centre = LIGHT_SPEED * np.log(lines.wavelength)
        near = (centre > grid[0] - WING_REACH) & (centre < grid[-1] + WING_REACH)
        self.strong, self.strong_centre = lines.take(near), centre[near]
        shifts, columns = self.lattice.windows(self.strong_centre, WING_REACH)
        wing = (1.0 - (shifts / WING_REACH) ** 2).clip(0.0) ** 2
        wing /= np.pi * (shifts**2 + WING_SOFTENING**2)
        self.strong_wings = self.lattice.scatter(wing, columns)

    def _add_strong_lines(self, eta, layer):
        """Wings gamma/pi / (v^2 + v0^2) of all lines, plus Voigt minus wing near each centre."""
        grid = self.lattice.velocity
        strength = self.strong.strengths(layer)
        gamma = self.strong.damping(layer, WAALS_ENHANCEMENT)
        eta += (strength * gamma) @ self.strong_wings
        for k, centre in enumerate(self.strong_centre):
            core = slice(*np.searchsorted(grid, [centre - CORE, centre + CORE]))
            mass = ELEMENTS[self.strong.species[k].split()[0]].mass
            b = doppler_width(mass, layer.temperature, layer.turbulence)[:, None]
            v = grid[core] - centre
            excess = voigt_profile(v, b / np.sqrt(2.0), gamma[:, k, None])
            excess -= gamma[:, k, None] / (np.pi * (v**2 + WING_SOFTENING**2))
            eta[:, core] += strength[:, k, None] * (1.0 - (v / CORE) ** 2) ** 2 * excess


def _add_hydrogen(eta, lattice, layer):
    """Balmer and Paschen lines: the wings of linear Stark broadening, blunted by the Doppler width.

    Wings follow phi = 3/2 w^(3/2) |dlambda|^(-5/2) per perturber, with w = K F0, the Holtsmark
    field F0 = 1.25e-9 n_e^(2/3) and K the Stark constant of Underhill & Waddell (1959, NBS
    Circular 603) as fitted by Kurucz; ions and electrons count alike. The core is closed by
    (dlambda^2 + d^2)^(-5/4) with d set by unit area, or by the Doppler width if that is larger.
    """
    grid = lattice.velocity
    field = 1.25e-9 * layer.n_electron ** (2.0 / 3.0)
    neutral = 1.0 / (1.0 + saha("H", 0, layer.temperature, layer.log_pe))
    b = doppler_width(ELEMENTS["H"].mass, layer.temperature, 2.0)
    for wavelength, lower, upper, oscillator in hydrogen_lines():
        reach = HYDROGEN_REACH[int(lower)]
        centre = LIGHT_SPEED * np.log(wavelength)
        near = slice(*np.searchsorted(grid, [centre - reach, centre + reach]))
        if near.start == near.stop:
            continue
        excitation = 13.598 * (1.0 - 1.0 / lower**2)
        level = lower**2 * neutral * 10.0 ** (-THETA / layer.temperature * excitation)
        stimulated = 1.0 - 10.0 ** (-THETA / layer.temperature * 12398.4 / wavelength)
        kappa = continuum_opacity(wavelength, layer.temperature, layer.log_pe, 10.0**layer.log_pg)
        strength = CLASSICAL_CROSS_SECTION * oscillator * wavelength * 1e-13 * level
        strength = strength * stimulated / kappa  # km/s
        width = stark_constant(lower, upper) * field * LIGHT_SPEED / wavelength  # km/s
        wing = 3.0 * STARK_ENHANCEMENT * width**1.5
        blunt = (STARK_AREA * wing) ** (4.0 / 3.0) + b**2
        v = grid[near] - centre
        x = v**2 + blunt[:, None]
        stark = np.sqrt(x)
        np.sqrt(stark, out=stark)
        stark *= x  # now (v^2 + d^2)^(5/4)
        np.divide((1.0 - (v / reach) ** 2) ** 2, stark, out=stark)
        stark *= (strength * wing)[:, None]
        eta[:, near] += stark
        _add_gaussian(eta, grid, centre, b, strength * (1.0 - STARK_AREA * wing / blunt**0.75))


def _add_gaussian(eta, grid, centre, b, area):
    """A Gaussian of Doppler width b and given area: what of hydrogen is not in the wings."""
    near = slice(*np.searchsorted(grid, [centre - 5.0 * b.max(), centre + 5.0 * b.max()]))
    v = grid[near] - centre
    eta[:, near] += np.exp(-((v / b[:, None]) ** 2)) * (area / (b * np.sqrt(np.pi)))[:, None]


def stark_constant(lower, upper):
    """K [Angstrom per cgs field] of a hydrogen line, after Kurucz 1970, SAO Special Report 309."""
    exact = {(2, 3): 0.009019, (2, 4): 0.01772, (2, 5): 0.02507, (3, 4): 0.1001, (3, 5): 0.171}
    key = (int(lower), int(upper))
    if key in exact:
        return exact[key]
    step = upper - lower
    return 5.5e-5 * (lower * upper) ** 4 / (upper**2 - lower**2) / (1.0 + 0.13 / step)


def blackbody(wavelength, temperature):
    """Planck function up to a constant: lambda^-5 / (e^x - 1), x = h c / (lambda k T)."""
    return (wavelength / 5000.0) ** -5.0 / np.expm1(1.438777e8 / (wavelength * temperature))


def residual_depth(wavelength, teff):
    """Depth of an infinitely strong line: 1 - B(T0) / B(Teff), with T0 = 0.78 Teff.

    Milne-Eddington with a source function linear in optical depth, B0 at the surface and B(Teff)
    at tau = 2/3, gives r = [B0 + (B(Teff) - B0) / (1 + eta)] / B(Teff), hence
    r = 1 - depth eta / (1 + eta).
    """
    surface = blackbody(wavelength, SURFACE_TEMPERATURE * teff)
    return 1.0 - surface / blackbody(wavelength, teff)
