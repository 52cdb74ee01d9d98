"""Absorption profiles: weak lines, Voigt profiles, Stark wings; and the emergent flux.

Everything lives on a lattice that is even in ln(lambda), u = c ln(lambda) in km/s, so that a
Doppler width, a rotation or an instrument of constant resolution is the same convolution everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft, sparse
from scipy.special import voigt_profile

from skspec.datasets._atmosphere import ELEMENTS, THETA, continuum_opacity, saha, solve_layer
from skspec.datasets._lines import (
    CLASSICAL_CROSS_SECTION,
    LineList,
    atomic_lines,
    doppler_width,
    forest_lines,
    hydrogen_lines,
)

__all__ = ["Lattice", "absorption", "blackbody", "line_layers", "residual_depth"]

LIGHT_SPEED = 299792.458  # km/s

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
WING_REACH = 20000.0  # km/s, where the wing of a strong line is tapered to nothing
HYDROGEN_REACH = {2: 14000.0, 3: 4000.0}  # km/s, where the wings are tapered to nothing
STARK_AREA = 2.39628  # integral of (x^2 + 1)^(-5/4) over the real line


class Lattice(NamedTuple):
    """Even steps in u = c ln(lambda); points are multiples of `step`, whatever the range."""

    start: int
    size: int
    step: float  # km/s

    @classmethod
    def covering(cls, wavelength_min, wavelength_max, step, pad):
        """The lattice over a range of vacuum wavelengths [Angstrom], `pad` km/s wider each side."""
        first = int(np.floor((LIGHT_SPEED * np.log(wavelength_min) - pad) / step))
        last = int(np.ceil((LIGHT_SPEED * np.log(wavelength_max) + pad) / step))
        return cls(first, fft.next_fast_len(last - first + 1, real=True), step)

    @property
    def velocity(self):
        """u of each point [km/s], shape (size,)."""
        return (self.start + np.arange(self.size)) * self.step

    @property
    def frequency(self):
        """Fourier frequencies [s/km], shape (size // 2 + 1,)."""
        return fft.rfftfreq(self.size, self.step)

    def windows(self, centres, half_width):
        """Points within `half_width` km/s of each centre: distances and lattice indices, (m, k)."""
        reach = int(np.ceil(half_width / self.step))
        nearest = np.rint(centres / self.step).astype(int)
        index = nearest[:, None] + np.arange(-reach, reach + 1)
        return index * self.step - centres[:, None], index - self.start

    def scatter(self, values, columns):
        """Sparse (m, size) matrix with `values` (m, k) at `columns`; those off the lattice are lost."""
        rows = np.broadcast_to(np.arange(len(columns))[:, None], columns.shape)
        inside = (columns >= 0) & (columns < self.size)
        entries = (values[inside], (rows[inside], columns[inside]))
        return sparse.csr_array(entries, (len(columns), self.size))

    def weights(self, velocity, order=6):
        """Lagrange interpolation from the lattice to points `velocity`, sparse (k, size)."""
        position = np.asarray(velocity) / self.step - self.start
        base = np.floor(position).astype(int) - order // 2 + 1
        offset = (position - base)[:, None]
        nodes = np.arange(order)
        weight = np.ones((len(position), order))
        for node in nodes:
            others = nodes[nodes != node]
            weight[:, node] = np.prod((offset - others) / (node - others), axis=1)
        rows = np.repeat(np.arange(len(position)), order)
        columns = (base[:, None] + nodes).ravel()
        if columns.size and (columns.min() < 0 or columns.max() >= self.size):
            raise IndexError("points outside the lattice")
        return sparse.csr_array((weight.ravel(), (rows, columns)), (len(position), self.size))


def line_layers(teff, logg, feh, alpha_m):
    """The two layers of each star, where metal lines and where hydrogen lines form."""
    metal = solve_layer(teff, logg, feh, alpha_m, LINE_DEPTH)
    depth = HYDROGEN_DEPTH * (teff / 5772.0) ** -HYDROGEN_RISE
    return metal, solve_layer(teff, logg, feh, alpha_m, depth)


def absorption(lattice, metal_layer, hydrogen_layer=None, *, metals=None):
    """The absorbed share eta / (1 + eta) of each star at each point of the lattice, shape (n, size).

    eta is the ratio of line to continuum absorption. `metals` is a `LineList`, by default the
    real lines and the forest; without a `hydrogen_layer` there is no hydrogen.
    """
    metals = _all_metals() if metals is None else metals
    eta = _weak_lines(lattice, metal_layer, metals.take(~metals.strong))
    _add_strong_lines(eta, lattice, metal_layer, metals.take(metals.strong))
    if hydrogen_layer is not None:
        _add_hydrogen(eta, lattice, hydrogen_layer)
    return np.divide(eta, 1.0 + eta, out=eta)


def _all_metals():
    return LineList(*(np.concatenate(pair) for pair in zip(atomic_lines(), forest_lines())))


def _weak_lines(lattice, layer, lines):
    """Weak lines: a Gaussian core and a damping wing, with the mass and damping of iron.

    For small damping a Voigt profile is exp(-v^2/b^2) / (sqrt(pi) b) + gamma / (pi v^2); the wing
    is blunted below WEAK_SOFTENING. Cores are computed per star in a narrow window; wings have
    the same shape in every star, so that all of them are one sparse matrix product.
    """
    velocity = LIGHT_SPEED * np.log(lines.wavelength)
    inside = (velocity > lattice.velocity[0]) & (velocity < lattice.velocity[-1])
    lines, velocity = lines.take(inside), velocity[inside]
    strength = lines.strengths(layer)
    gamma = lines.damping(layer, WAALS_ENHANCEMENT)
    shifts, columns = lattice.windows(velocity, WEAK_WING)
    wing = (1.0 - (shifts / WEAK_WING) ** 2).clip(0.0) ** 2 / (shifts**2 + WEAK_SOFTENING**2)
    eta = (strength * gamma / np.pi) @ lattice.scatter(wing, columns)

    shifts, columns = lattice.windows(velocity, WEAK_CORE)
    b = doppler_width(ELEMENTS["Fe"].mass, layer.temperature, layer.turbulence)[:, None, None]
    cores = np.exp(-(shifts**2) / b**2) * (strength[:, :, None] / (np.sqrt(np.pi) * b))
    single = lattice.scatter(np.ones((columns.size, 1)), columns.reshape(-1, 1))
    eta += cores.reshape(len(eta), -1) @ single
    return eta


def _add_strong_lines(eta, lattice, layer, lines):
    """Wings gamma/pi / (v^2 + v0^2) for all lines at once, plus Voigt minus wing near the centre."""
    grid = lattice.velocity
    centre = LIGHT_SPEED * np.log(lines.wavelength)
    near = (centre > grid[0] - WING_REACH) & (centre < grid[-1] + WING_REACH)
    if not near.any():
        return
    lines, centre = lines.take(near), centre[near]
    strength = lines.strengths(layer)
    gamma = lines.damping(layer, WAALS_ENHANCEMENT)
    distance = grid - centre[:, None]
    pattern = (1.0 - (distance / WING_REACH) ** 2).clip(0.0) ** 2
    pattern /= np.pi * (distance**2 + WING_SOFTENING**2)
    eta += (strength * gamma) @ pattern
    for k, line in enumerate(centre):
        core = slice(*np.searchsorted(grid, [line - CORE, line + CORE]))
        mass = ELEMENTS[lines.species[k].split()[0]].mass
        b = doppler_width(mass, layer.temperature, layer.turbulence)[:, None]
        v = grid[core] - line
        voigt = voigt_profile(v, b / np.sqrt(2.0), gamma[:, k, None])
        taper = (1.0 - (v / CORE) ** 2) ** 2
        excess = voigt - gamma[:, k, None] * pattern[k, core]
        eta[:, core] += strength[:, k, None] * taper * excess


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
    """A Gaussian of Doppler width b and some area: the part of hydrogen that is not in the wings."""
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
