"""Some stars that move and have a continuum, on their way to the minimum of chi2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._inversion import Descent, robust_weight
from skspec.likelihood._noise import LinearFit, PixelNoise
from skspec.likelihood._normal_equations import NormalEquations
from skspec.likelihood._spectrum_model import NoiseBudget, Solution, inverse_variance
from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt, solve_normal
from skspec.solvers.spectra.line_of_sight import velocity

if TYPE_CHECKING:
    from skspec.likelihood._observed import Observed

__all__ = ["ObservedBatch"]

REACH = 6  # steps of the velocity grid by which the first guess of the shift may be wrong
TOL_DESCENT = 1e-3  # squared distance to the minimum in sigma; one more step follows, in float64


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
