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
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._first_guess import FirstGuess
from skspec.likelihood._free_parameters import MAX_WIDTH, WIDTH2_UNIT, FreeColumns
from skspec.likelihood._inversion import Descent, robust_weight
from skspec.likelihood._noise import LinearColumns, LinearFit, PixelNoise, one_product
from skspec.likelihood._normal_equations import NormalEquations
from skspec.likelihood._rest_frame import RestFrame
from skspec.likelihood._spectrum_model import NoiseBudget, Solution, inverse_variance
from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt, solve_normal
from skspec.solvers.linear.pixel_blocks import parallel_map, thread_count
from skspec.solvers.spectra.line_of_sight import C_KMS, KERNELS, ln_shift, velocity

__all__ = ["Observed"]

REACH = 6  # steps of the velocity grid by which the first guess of the shift may be wrong
EDGE = 4  # steps next to an end of the model where its spectra are not shown
BATCH, SMALL_BATCH = 256, 32  # stars whose steps are taken together: at most, and at least
CHUNK_NARROW, CHUNK_WIDE = 8, 32  # whose spectra are made together, of few components or of many
SHARED_BYTES = 2**27  # of the errors that the pixels of a batch share
TOL_DESCENT = 1e-3  # squared distance to the minimum in sigma; one more step follows, in float64


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


@dataclass
class ObservedBatch(ShortRepr):
    """Some stars, their flux in units of a rough level of the continuum."""

    model: Observed
    observed: np.ndarray
    budget: NoiseBudget
    level: np.ndarray
    shift: np.ndarray | None = None
    noise: PixelNoise | None = None

    def __getitem__(self, stars) -> ObservedBatch:
        parts = (self.observed, self.budget, self.level, self.shift, self.noise)
        some = (None if part is None else part[stars] for part in parts)
        return ObservedBatch(self.model, *some)

    def with_noise(self, noise) -> ObservedBatch:
        """The same stars, other noise."""
        return replace(self, noise=noise)

    @property
    def is_correlated(self) -> bool:
        """Whether the noise is autocorrelated."""
        return self.budget.correlation_length > 0

    def independent(self) -> ObservedBatch:
        """As if it were not."""
        return replace(self, budget=replace(self.budget, correlation_length=0))

    def start(self, options) -> tuple[np.ndarray, int]:
        """Parameters (n, M) to start from; sets the shift and the noise that goes with them."""
        model, flux, photon = self.model, self.observed, self.budget.photon
        guess, curve = model.first_guess, np.ones((1, 1))
        # first guesses take what pixels share for errors of each pixel alone
        own, alone = self.budget.model, self.budget.model + model.shared_variance
        shift, template = guess.shift(flux, inverse_variance(photon, alone))
        model_flux = guess.templates[template]
        if model.free.rv_range is not None:
            model_flux, own, alone, known = model.moved(shift, model_flux, own, alone)
            own, alone = (np.where(known, part, np.inf) for part in (own, alone))
        if model.polynomials is not None:
            weight = inverse_variance(photon, alone)
            fit = PixelNoise(weight).fit_linear(model.polynomials.times(model_flux), flux)
            curve = fit.curve
        weight = inverse_variance(photon, alone, curve)
        x = guess.labels(flux, weight, shift, curve, options.n_init)
        p = self._best_width(x, shift, weight)
        noise = PixelNoise(
            inverse_variance(photon, own, curve),
            None,
            self.budget.correlation_length,
            self.budget.order,
        )
        self.shift, self.noise = shift, model._with_shared(noise, p, shift, curve)
        return p, 0

    def _best_width(self, x, shift, weight):
        """Parameters of the best of a few widths, without further shift."""
        model, widths = self.model, self.model.first_guess.widths
        best, start, noise = np.full(len(x), np.inf), None, PixelNoise(weight)
        for width in widths:
            p, _ = model.to_steps(Solution(x, width2=np.full(len(x), width**2)))
            if len(widths) == 1:
                return p
            model_flux = self._fitted(model.flux(p, shift), noise)
            chi2 = np.einsum("np,np->n", weight, (self.observed - model_flux) ** 2)
            better = chi2 < best
            best = np.where(better, chi2, best)
            start = p if start is None else np.where(better[:, None], p, start)
        return start

    def _fitted(self, flux, noise):
        """Model spectra (n, P) with the continuum that suits them best."""
        columns = self.model.columns(flux)
        return flux if columns is None else noise.fit_linear(columns, self.observed).flux

    def descend(self, p, options, leading=True) -> Descent:
        """Levenberg-Marquardt, with sums in single precision."""
        noise, amplitude = self.noise.prepare(), None
        if noise.n_shared and self.model.polynomials is not None:
            amplitude = noise.amplitudes(self.observed, np.float32)

        def evaluate(p, rows):
            parts, all_run = [], len(rows) == len(noise)
            for start in range(0, len(rows), self.model.chunk):
                part = slice(start, start + self.model.chunk)
                at = part if all_run else rows[part]  # slices copy nothing
                parts.append(
                    self._normal_equations(
                        p[part, 0],
                        self.shift[at],
                        self.observed[at],
                        noise[at],
                        None if amplitude is None else amplitude[at],
                        leading=leading,
                    )[0]
                )
            chi2, score, information = (np.concatenate(values)[:, None] for values in zip(*parts))
            return chi2, -score, information

        found = levenberg_marquardt(
            evaluate,
            p[:, None],
            *self.model.box,
            max_iter=options.max_iter,
            tol=max(options.tol, TOL_DESCENT),
            confirm=False,
        )
        return Descent(
            found.x[:, 0],
            found.chi2[:, 0],
            found.normal[:, 0],
            found.converged[:, 0],
            found.n_iter[:, 0],
        )

    def _normal_equations(
        self, p, shift, observed, noise, amplitude=None, *, real=np.float32, leading=False
    ) -> tuple[NormalEquations, LinearFit | None, np.ndarray]:
        """Of the nonlinear parameters of a few stars, the continuum and how it follows them."""
        rows = self.model.rows(p, shift, leading=leading)
        flux, linear, scale = rows[:, 0].astype(float), None, None
        columns = self.model.columns(flux)
        if columns is not None:
            linear = noise.fit_linear(columns, observed, real, amplitude)
            scale = linear.curve
            flux = scale * flux
        normal, slope = noise.normal_equations(
            rows[:, 1:],
            observed - flux,
            linear,
            scale=scale,
            real=real,
            overwrite_design=True,
        )
        return normal, linear, slope

    def residual(self, p) -> np.ndarray:
        """What neither the model nor the shared errors explain, (n, P)."""
        flux, noise = self.model.flux(p, self.shift), self.noise
        columns = self.model.columns(flux)
        if columns is not None:
            flux = noise.fit_linear(columns, self.observed).flux
        residual = self.observed - flux
        return residual - noise.shared_part(residual) if noise.n_shared else residual

    def finish(self, found: Descent, options, noise) -> Solution:
        """The last step, with all components and sums in double precision; then the information."""
        p, chi2, continuum, done = self._last_step(found.p)
        again = np.flatnonzero(~done)
        if again.size:  # far from the training stars the leading components may not be enough
            some = self[again]
            further = some.descend(p[again], options, leading=False)
            p[again], chi2[again], continuum[again], done = some._last_step(further.p)
            found.converged[again] = further.converged & done
            found.n_iter[again] += further.n_iter
        if options.loss != "linear":
            flux = self.model.flux(p, self.shift) * self.model.curve(continuum)
            chi2 = noise.chi2(self.observed - flux)
        n_good = np.sum(noise.weight > 0, axis=1)
        solution = self._solution(p, self.level * continuum)
        solution.chi2, solution.n_iter, solution.n_good = chi2, found.n_iter, n_good
        solution.converged = found.converged
        if self.model.free.rv_range is not None:
            moved, (lowest, highest) = p[:, self.model.n_labels], self.model.free.rv_range
            inside = (np.abs(moved) < REACH * (1 - 1e-9)) & (solution.rv >= lowest)
            solution.converged = found.converged & inside & (solution.rv <= highest)
        solution.information = self.information(solution, options.loss)
        return solution

    def _solution(self, p, continuum) -> Solution:
        model, solution = self.model, Solution(p[:, : self.model.n_labels])
        solution.continuum = continuum
        if model.free.rv_range is not None:
            solution.rv = velocity((self.shift + p[:, model.n_labels]) * model.line_of_sight.step)
        if model.free.kernel is not None:
            solution.width2 = p[:, -1] * model.step_kms**2
        return solution

    def _last_step(self, p):
        """Parameters, chi2, the continuum, and whether the step was short."""
        lower, upper = self.model.box
        p, chi2, noise = p.copy(), np.empty(len(p)), self.noise.prepare()
        parts, done = [], np.empty(len(p), dtype=bool)
        for start in range(0, len(p), self.model.chunk):
            at = slice(start, start + self.model.chunk)
            normal, linear, slope = self._normal_equations(
                p[at], self.shift[at], self.observed[at], noise[at], real=np.float64
            )
            here, gradient = p[at], -normal.score
            free = ~(((here <= lower) & (gradient > 0)) | ((here >= upper) & (gradient < 0)))
            gradient = np.where(free, gradient, 0.0)
            step = solve_normal(normal.information, gradient, np.zeros(len(here)), free)
            length2 = np.einsum("nk,nkl,nl->n", step, normal.information, step)
            done[at] = length2 < 1
            step[~done[at]] = 0.0
            chi2[at] = normal.chi2 - np.where(done[at], length2, 0.0)
            p[at] = np.clip(here - step, lower, upper)
            coef = np.ones((len(here), 0)) if linear is None else linear.coef
            parts.append(coef + (slope @ (p[at] - here)[..., None])[..., 0])
        return p, chi2, np.concatenate(parts), done

    # -- at a solution -----------------------------------------------------------------------------

    def at(self, solution: Solution):
        """Batches ``rows, model spectra and derivatives, continuum, noise`` at a solution.

        The continuum is a :class:`LinearFit` of the spectra, or None.
        """
        model = self.model
        p, shift = model.to_steps(solution)
        for start in range(0, len(p), model.chunk):
            at = slice(start, start + model.chunk)
            rows = model.rows(p[at], shift[at])
            observed, budget, linear = self.observed[at], self.budget[at], None
            curve = np.ones((1, 1))
            columns = model.columns(rows[:, 0].astype(float))
            if columns is not None:
                if solution.continuum is None:
                    level = model.noise(budget, p[at], shift[at], np.ones_like(observed))
                    curve = level.fit_linear(columns, observed).curve
                else:
                    curve = model.curve(solution.continuum[at] / self.level[at])
            noise = model.noise(budget, p[at], shift[at], curve)
            if columns is not None:
                linear = noise.fit_linear(columns, observed)
            yield at, rows, linear, noise

    def information(self, solution: Solution, loss="linear") -> np.ndarray:
        """Information (n, M, M) there, of the noise at the solution."""
        unit = self.model.units(solution)
        out = np.empty((*unit.shape, unit.shape[1]))
        for at, rows, linear, noise in self.at(solution):
            scale = None if linear is None else linear.curve
            residual = None
            if loss != "linear" or noise.correlation_length:
                flux = rows[:, 0] if linear is None else linear.flux
                residual = self.observed[at] - flux
            if loss != "linear":
                noise = _robust(noise, residual, loss)
                if linear is not None:
                    linear = noise.fit_linear(linear.columns, self.observed[at])
            out[at] = noise.information(
                rows[:, 1:], residual, linear, scale=scale, overwrite_design=True
            )
        return out / (unit[:, :, None] * unit[:, None, :])

    def target(self, solution: Solution, loss="linear"):
        """Log likelihood of one star: a function of parameters (m, M), up to a constant.

        Parameters are in the units of :attr:`Solution.information`; the continuum is at its best, the
        noise that of the solution.
        """
        model, (_, rows, linear, noise) = self.model, next(self.at(solution))
        if loss != "linear":
            flux = rows[:, 0] if linear is None else linear.flux
            noise = _robust(noise, self.observed - flux, loss)

        def log_likelihood(theta):
            copies = noise[np.zeros(len(theta), dtype=int)]
            observed = np.broadcast_to(self.observed, (len(theta), self.observed.shape[1]))
            flux = model.flux(*model.to_steps(model.solution_of(theta)))
            columns = model.columns(flux)
            if columns is not None:
                flux = copies.fit_linear(columns, observed).flux
            return -0.5 * copies.chi2(observed - flux)

        noise.prepare()
        return log_likelihood


def _robust(noise, residual, loss):
    """With the weights of a robust loss at these residuals (n, P)."""
    beyond = residual - noise.shared_part(residual) if noise.n_shared else residual
    return noise.with_weight(robust_weight(noise.weight, beyond, loss))


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
