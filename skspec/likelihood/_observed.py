r"""Stars that move, are broadened and have a continuum of their own.

.. math:: y_j = P(\lambda_j; c)\; \big[H_s * f(x)\big](\ln\lambda_j - z) + \sigma_j \xi

Labels `x`, shift `z` and squared width `s` are found by Levenberg-Marquardt; the coefficients `c` of the
multiplicative polynomial are linear and integrated over inside every step. The spectra that a model can
make lie in a small subspace: only its basis is Fourier transformed, once, and shifting and broadening
multiply transforms.

Errors that pixels share move with the star, and its continuum multiplies them. During the descent they
are where the first guess says: a covariance need not be known better than that. The information at the
end is that of the noise at the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from skspec.likelihood._first_guess import FirstGuess
from skspec.likelihood._free_parameters import MAX_WIDTH, WIDTH2_UNIT, FreeColumns
from skspec.likelihood._noise import LinearColumns, PixelNoise, one_product
from skspec.likelihood._observed_batch import REACH, ObservedBatch
from skspec.likelihood._rest_frame import RestFrame
from skspec.likelihood._spectrum_model import NoiseBudget, Solution, inverse_variance
from skspec.solvers.linear.pixel_blocks import parallel_map, thread_count
from skspec.solvers.spectra.line_of_sight import C_KMS, KERNELS, ln_shift

__all__ = ["Observed"]

EDGE = 4  # steps next to an end of the model where its spectra are not shown
BATCH, SMALL_BATCH = 256, 32  # stars whose steps are taken together: at most, and at least
CHUNK_NARROW, CHUNK_WIDE = 8, 32  # whose spectra are made together, of few components or of many
SHARED_BYTES = 2**27  # of the errors that the pixels of a batch share


class Observed:
    """A model at rest seen through a line of sight and a continuum; a `SpectrumModel`.

    Parameters
    ----------
    rest : RestFrame
    columns : FreeColumns
    shared : ndarray of shape (q, P)
        Errors of the model that pixels share, at rest.
    """

    def __init__(self, rest: RestFrame, columns: FreeColumns, shared: np.ndarray):
        self.free, self.polynomials = columns.free, columns.polynomials
        self.line_of_sight = columns.line_of_sight
        basis, self.shared = _bridged(rest.basis, shared)
        self.rest = replace(rest, basis=basis)
        self.shared_variance = np.einsum("qp,qp->p", self.shared, self.shared)
        if self.line_of_sight is not None:
            rows = np.vstack([basis.reference, basis.flux, self.shared])
            hat = self.line_of_sight.transform(rows).astype(np.complex64)
            self._hat, self._shared_hat = np.split(hat, [1 + len(basis.flux)])
        self._flux = basis.flux.astype(np.float32)
        self.first_guess = FirstGuess(self.rest, columns)

    @property
    def n_labels(self) -> int:
        """K."""
        return len(self.rest.lower)

    @property
    def chunk(self) -> int:
        """Stars whose spectra are made together: they shall fit into the cache, as the basis does."""
        return CHUNK_NARROW if self.rest.basis.is_lossless else CHUNK_WIDE

    @property
    def step_kms(self) -> float:
        """Step of the velocity grid [km/s]."""
        return C_KMS * self.line_of_sight.step

    @cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest labels, shift and squared width, in steps about the first guess."""
        lower, upper = [self.rest.lower], [self.rest.upper]
        if self.free.rv_range is not None:
            lower.append([-REACH])
            upper.append([REACH])
        if self.free.kernel is not None:
            lower.append([0.0])
            upper.append([(MAX_WIDTH / self.step_kms) ** 2])
        return np.concatenate(lower), np.concatenate(upper)

    def batch_size(self, n_stars: int) -> int:
        """Stars whose steps are taken together."""
        size = int(np.clip(-(-n_stars // thread_count()), SMALL_BATCH, BATCH))
        if self.shared.size:
            size = min(size, max(1, SHARED_BYTES // (4 * self.shared.size)))
        return size

    # -- spectra of given parameters ---------------------------------------------------------------

    def rows(
        self, p: np.ndarray, shift: np.ndarray, derivative: bool = True, leading: bool = False
    ) -> np.ndarray:
        """Spectra (n, 1 + M, P): of the parameters `p` (n, M), and their derivatives.

        In single precision, a thousandth of the noise of any spectrum. The leading components are
        enough for derivatives, and for the spectra while the minimum is far.
        """
        n, n_labels, free = len(p), self.n_labels, self.free
        basis = self.rest.basis.leading() if leading else self.rest.basis
        n_lead = basis.n_leading
        if derivative:
            whole, slope = basis.with_leading_slope(p[:, :n_labels])
            whole = whole.astype(np.float32)
            psi = np.concatenate([whole[:, None, :n_lead], slope], axis=1).astype(np.float32)
        else:
            whole = basis(p[:, :n_labels]).astype(np.float32)
            psi = whole[:, None, :n_lead]
        rest = whole[:, n_lead:]
        if self.line_of_sight is None:
            rows = one_product(psi, self._flux[:n_lead])
            rows[:, 0] += rest @ self._flux[n_lead : whole.shape[1]] + basis.reference
            return rows
        n_spectra = psi.shape[1]
        n_rows = n_spectra + len(free.units) * derivative
        hat = np.empty((n, n_rows, self._hat.shape[1]), dtype=np.complex64)
        # a real matrix times a complex one, as a real product
        parts = self._hat[1 : 1 + whole.shape[1]].view(np.float32)
        hat[:, :n_spectra] = one_product(psi, parts[:n_lead]).view(np.complex64)
        hat[:, 0] += (rest @ parts[n_lead:]).view(np.complex64) + self._hat[0]
        k = self.line_of_sight.frequency
        if free.kernel is not None:
            value, slope = KERNELS[free.kernel](k, p[:, -1:])
            if derivative:
                hat[:, -1] = hat[:, 0] * slope
            hat[:, :n_spectra] *= value[:, None].astype(np.float32)
        if free.rv_range is not None:
            shift = shift + p[:, n_labels]
            if derivative:
                hat[:, n_spectra] = hat[:, 0] * (-1j * k).astype(np.complex64)
        if np.any(shift):
            hat *= self.line_of_sight.phase(shift, np.complex64)[:, None]
        return self.line_of_sight.spectra(hat)

    def flux(self, p: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Model spectra (n, P) without continuum."""
        parts, step = [], self.chunk
        for start in range(0, len(p), step):
            at = slice(start, start + step)
            parts.append(self.rows(p[at], shift[at], derivative=False)[:, 0])
        return np.concatenate(parts).astype(float)

    def spectra(self, p: np.ndarray) -> np.ndarray:
        """Model spectra (n, P), of shifts from rest."""
        return self.flux(p, np.zeros(len(p)))

    def design(self, p: np.ndarray) -> np.ndarray:
        """Their derivatives (n, M, P)."""
        return self.rows(p, np.zeros(len(p)))[:, 1:]

    def linear(self, p: np.ndarray) -> LinearColumns | None:
        """Columns of the continuum."""
        return self.columns(self.spectra(p))

    def columns(self, flux: np.ndarray) -> LinearColumns | None:
        """Columns of the continuum of model spectra (n, P); None without."""
        return None if self.polynomials is None else self.polynomials.times(flux)

    def curve(self, coef: np.ndarray) -> np.ndarray | float:
        """Polynomials (n, P) of their coefficients (n, Q); 1 without."""
        return 1.0 if self.polynomials is None else coef @ self.polynomials.rows

    def _shared_spectra(self, p, shift):
        """Errors that the pixels of these stars share, without continuum."""
        if self.line_of_sight is None:
            return self.shared
        factor = np.ones((len(p), 1), dtype=np.complex64)
        if self.free.kernel is not None:
            value, _ = KERNELS[self.free.kernel](self.line_of_sight.frequency, p[:, -1:])
            factor = value.astype(np.complex64)
        if self.free.rv_range is not None:
            shift = shift + p[:, self.n_labels]
        if np.any(shift):
            factor = factor * self.line_of_sight.phase(shift, np.complex64)
        hat = self._shared_hat * factor[:, None]
        return self.line_of_sight.spectra(hat)

    def to_steps(self, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
        """Parameters (n, M), and shifts (n,) of the line of sight, both in steps of its grid."""
        n = len(solution.x)
        if self.line_of_sight is None:
            return solution.x, np.zeros(n)
        shift = ln_shift(solution.rv) / self.line_of_sight.step
        columns = [solution.x]
        if self.free.rv_range is not None:
            columns.append(np.zeros((n, 1)))
        if self.free.kernel is not None:
            columns.append((solution.width2 / self.step_kms**2)[:, None])
        return np.hstack(columns), shift

    def theta_of(self, solution: Solution) -> np.ndarray:
        """Parameters (n, M) in the units of :attr:`Solution.information`."""
        columns = [solution.x]
        if self.free.rv_range is not None:
            columns.append(solution.rv[:, None])
        if self.free.kernel is not None:
            columns.append(solution.width2[:, None] / WIDTH2_UNIT)
        return np.hstack(columns)

    def solution_of(self, theta: np.ndarray) -> Solution:
        """Of parameters (m, M) in the units of :attr:`Solution.information`."""
        solution, n_labels = Solution(theta[:, : self.n_labels]), self.n_labels
        if self.free.rv_range is not None:
            solution.rv = theta[:, n_labels]
        if self.free.kernel is not None:
            solution.width2 = WIDTH2_UNIT * theta[:, -1]
        return solution

    def units(self, solution: Solution) -> np.ndarray:
        """Of each parameter (n, M) of `rows`, in those of :attr:`Solution.information`."""
        unit = np.ones((len(solution.x), len(self.box[0])))
        if self.free.rv_range is not None:
            unit[:, self.n_labels] = self.step_kms * (1 - (solution.rv / C_KMS) ** 2)
        if self.free.kernel is not None:
            unit[:, -1] = self.step_kms**2 / WIDTH2_UNIT
        return unit

    def steps_per_unit(self, solution: Solution) -> np.ndarray:
        """Of each parameter (n, M) of `rows`: per scaled label, km/s and (km/s)^2."""
        unit = self.units(solution)
        if self.free.kernel is not None:
            unit[:, -1] *= WIDTH2_UNIT
        return 1 / unit

    def best_fit(self, solution: Solution) -> np.ndarray:
        """Model spectra (n, P) as observed; NaN where the model ends."""
        p, shift = self.to_steps(solution)
        out = self.flux(p, shift) * self.curve(solution.continuum)
        sight = self.line_of_sight
        if sight is not None:  # a spline needs neighbours
            z, edge = shift * sight.step, EDGE * sight.step
            out[~sight.covers(z - edge, z + edge)] = np.nan
        return out

    def map(self, function: Callable, batches: list) -> list:
        """`function` of all batches, side by side."""
        return list(parallel_map(function, batches))

    # -- stars -------------------------------------------------------------------------------------

    def batch(self, flux: np.ndarray, budget: NoiseBudget) -> ObservedBatch:
        """Some stars."""
        level = self._level(flux, budget.photon)
        flux = np.where(np.isfinite(budget.photon), flux, 0.0) / level
        budget = replace(budget, photon=budget.photon / level**2)
        return ObservedBatch(self, flux, budget, level)

    def _level(self, flux, photon):
        """Rough level of the continuum (n, 1); 1 without one."""
        if self.polynomials is None:
            return np.ones((len(flux), 1))
        good = np.isfinite(photon)
        total = np.sum(np.abs(flux), axis=1, where=good)
        expected = np.sum(good * np.abs(self.first_guess.templates[0]), axis=1)
        level = total / np.maximum(expected, 1e-300)
        return np.where(level > 0, level, 1.0)[:, None]

    def moved(self, shift: np.ndarray, *rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rows (n, P), or (P,) of all stars, of pixels at rest where they are observed.

        And whether these are known.
        """
        step = self.line_of_sight.step
        z, reach = shift * step, REACH * step
        pixels = self.line_of_sight.pixels_at(-z)
        known = self.line_of_sight.covers(z - reach, z + reach)  # wherever the fit may go
        found = (
            part[pixels] if part.ndim == 1 else np.take_along_axis(part, pixels, axis=1)
            for part in rows
        )
        return *found, known

    def noise(
        self, budget: NoiseBudget, p: np.ndarray, shift: np.ndarray, curve: np.ndarray
    ) -> PixelNoise:
        """Of stars that move so and have this continuum."""
        model = budget.model
        if self.free.rv_range is not None:
            at = shift + p[:, self.n_labels]
            model, known = self.moved(at, model)
            model = np.where(known, model, np.inf)
        weight = inverse_variance(budget.photon, model, curve)
        return self._with_shared(
            PixelNoise(weight, None, budget.correlation_length, budget.order), p, shift, curve
        )

    def _with_shared(self, noise, p, shift, curve):
        if not len(self.shared):
            return noise
        spectra = np.empty((len(p), *self.shared.shape), dtype=np.float32)
        for start in range(0, len(p), self.chunk):
            at = slice(start, start + self.chunk)
            spectra[at] = self._shared_spectra(p[at], shift[at])
        if self.polynomials is not None:
            spectra *= curve[:, None]
        return replace(noise, shared=spectra)


def _bridged(basis, shared):
    """Both with straight lines across the pixels that could not be trained.

    These do not count, but a gap would ring when the spectra are shifted.
    """
    trained = np.flatnonzero((basis.reference != 0) | (basis.flux != 0).any(axis=0))
    n_pixels = len(basis.reference)
    if len(trained) in (0, n_pixels):
        return basis, shared
    above = np.searchsorted(trained, np.arange(n_pixels)).clip(1, len(trained) - 1)
    left, right = trained[above - 1], trained[above]
    part = np.clip((np.arange(n_pixels) - left) / (right - left), 0, 1)
    reference, flux, shared = (
        (1 - part) * rows[..., left] + part * rows[..., right]
        for rows in (basis.reference, basis.flux, shared)
    )
    return replace(basis, reference=reference, flux=flux), shared
