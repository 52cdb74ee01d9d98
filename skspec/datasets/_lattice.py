"""The lattice of synthetic spectra: even steps in u = c ln(lambda).

On it a Doppler width, a rotation or an instrument of constant resolution is one convolution for all
wavelengths.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft, sparse

__all__ = ["LIGHT_SPEED", "Lattice"]

LIGHT_SPEED = 299792.458  # km/s


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
        """Sparse (m, size) matrix, `values` (m, k) at `columns`; those off the lattice are lost."""
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
