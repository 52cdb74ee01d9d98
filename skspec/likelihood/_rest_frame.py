r"""Stars at rest, continuum normalised: labels are all there is to find.

With weights :math:`w` the objective of one star,

.. math:: \chi^2(x) = \sum_j w_j (y_j - f_j(x))^2
          = \sum_j w_j y_j^2 - 2\, b\cdot\psi(x) + \psi(x)^T G\, \psi(x),

needs the pixels once, in :math:`b = V(w \circ y)` and :math:`G = V \mathrm{diag}(w) V^T` of a
:class:`~skspec.likelihood._spectrum_model.FluxBasis` :math:`V`; no iteration touches them again. `G`
costs the square of the number of components for each star unless all stars share one pattern of
weights; where they do not, a few components lead near the minimum and Gauss-Newton steps with all of
them finish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._inversion import Descent, robust_weight
from skspec.likelihood._noise import PixelNoise, one_product
from skspec.likelihood._normal_equations import NormalEquations
from skspec.likelihood._spectrum_model import FluxBasis, NoiseBudget, Solution, batch_rows
from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt
from skspec.solvers.linear.weighted_gram import weighted_gram

__all__ = ["RestFrame"]

RACE_ITER = 6  # steps from every start before only the best goes on
POLISH_TOL, POLISH_ITER = 1e-4, 20  # of the last steps, with all components and all pixels


@dataclass(frozen=True)
class RestFrame(ShortRepr):
    """Model spectra of labels alone; a :class:`~skspec.likelihood._spectrum_model.SpectrumModel`.

    Parameters
    ----------
    basis : FluxBasis
    candidates : ndarray of shape (m, K)
        Scaled labels among which the starts of each star are chosen.
    lower, upper : ndarray of shape (K,)
        Box of the scaled labels.
    """

    basis: FluxBasis
    candidates: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest scaled labels."""
        return self.lower, self.upper

    def batch_size(self, n_stars: int) -> int:
        """Stars that fit into the working memory together."""
        widest = max(len(self.basis.reference), len(self.basis.leading().flux) ** 2)
        return batch_rows(widest)

    def spectra(self, p: np.ndarray) -> np.ndarray:
        """Model spectra (n, P)."""
        return self.basis.spectra(p)

    def design(self, p: np.ndarray) -> np.ndarray:
        """Their derivatives (n, K, P)."""
        return self.basis.with_slope(p)[1] @ self.basis.flux

    def linear(self, p: np.ndarray) -> None:
        """There is no continuum to fit."""

    def steps_per_unit(self, solution: Solution) -> np.ndarray:
        """Of each parameter (n, K): derivatives are with respect to scaled labels."""
        return np.ones(solution.x.shape)

    def best_fit(self, solution: Solution) -> np.ndarray:
        """Model spectra (n, P)."""
        return self.spectra(solution.x)

    def theta_of(self, solution: Solution) -> np.ndarray:
        """Parameters (n, K) of a solution."""
        return solution.x

    def map(self, function: Callable, batches: list) -> list:
        """`function` of all batches, one after the other: large products use all threads."""
        return [function(batch) for batch in batches]

    def batch(self, flux: np.ndarray, budget: NoiseBudget) -> RestBatch:
        """Some stars."""
        return RestBatch(self, flux, budget.at_rest())


@dataclass
class RestBatch(ShortRepr):
    """Some stars at rest, of given noise."""

    model: RestFrame
    flux: np.ndarray
    noise: PixelNoise

    @property
    def observed(self) -> np.ndarray:
        """Flux (n, P)."""
        return self.flux

    @property
    def level(self) -> np.ndarray:
        """Unit (n, 1) of the flux."""
        return np.ones((len(self.flux), 1))

    def __getitem__(self, stars) -> RestBatch:
        return RestBatch(self.model, self.flux[stars], self.noise[stars])

    def with_noise(self, noise) -> RestBatch:
        """The same stars, other noise."""
        return RestBatch(self.model, self.flux, noise)

    @property
    def is_correlated(self) -> bool:
        """Whether the noise is autocorrelated."""
        return self.noise.correlation_length > 0

    def independent(self) -> RestBatch:
        """As if it were not."""
        return self.with_noise(replace(self.noise, correlation_length=0))

    @cached_property
    def _objective(self):
        return _Objective(self.model.basis, self.flux, self.noise)

    def start(self, options) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n, K) near the lowest of several minima, and the steps it took."""
        star, model = np.arange(len(self.flux)), self.model
        objective = _Objective(model.basis, self.flux, self.noise, rough=True)
        starts = _choose_starts(
            objective.coarse(model.candidates), model.candidates, options.n_init
        )
        # a few steps with the leading components tell which start leads to the lowest minimum
        race = levenberg_marquardt(
            objective, starts, *model.box, max_iter=RACE_ITER, tol=options.tol
        )
        best = np.argmin(race.chi2, axis=1)
        if objective.is_complete or not objective.is_alike:
            self.__dict__["_objective"] = objective
        return race.x[star, best], race.n_iter[star, best]

    def descend(self, p, options) -> Descent:
        """From near the minimum into it."""
        objective = self._objective
        found = levenberg_marquardt(
            objective, p[:, None], *self.model.box, max_iter=options.max_iter, tol=options.tol
        )
        x, converged, n_iter = found.x[:, 0], found.converged[:, 0], found.n_iter[:, 0]
        if objective.is_complete:
            chi2, _, information = (part[:, 0] for part in objective(found.x, np.arange(len(x))))
        else:
            x, chi2, information, converged = self._polish(x)
        return Descent(x, chi2, information, converged, n_iter)

    def _polish(self, x):
        """The last steps, with all components and all pixels."""
        n, n_labels = x.shape
        x, chi2, information = x.copy(), np.empty(n), np.empty((n, n_labels, n_labels))
        converged = np.empty(n, dtype=bool)
        for part in self._parts():
            some = self[part]
            some.noise.prepare()

            def evaluate(x, rows, some=some):
                running = some if len(rows) == len(some.flux) else some[rows]
                found = running.normal_equations(x[:, 0])
                return found.chi2[:, None], -found.score[:, None], found.information[:, None]

            found = levenberg_marquardt(
                evaluate, x[part, None], *self.model.box, max_iter=POLISH_ITER, tol=POLISH_TOL
            )
            x[part], chi2[part], information[part] = (
                found.x[:, 0],
                found.chi2[:, 0],
                found.normal[:, 0],
            )
            converged[part] = found.converged[:, 0]
        return x, chi2, information, converged

    def _parts(self, n_arrays=1):
        n, n_pixels = self.flux.shape
        step = batch_rows(n_arrays * n_pixels * (self.model.candidates.shape[1] + 1))
        return [slice(start, start + step) for start in range(0, n, step)]

    def normal_equations(self, x) -> NormalEquations:
        """From every pixel; derivatives in single precision."""
        basis, noise = self.model.basis, self.noise
        psi, slope = basis.with_slope(x)
        residual = self.flux - (basis.reference + psi @ basis.flux)
        design = one_product(slope.astype(np.float32), basis.flux.astype(np.float32))
        return noise.normal_equations(design, residual, real=np.float32, overwrite_design=True)[0]

    def residual(self, p) -> np.ndarray:
        """What neither the model nor the shared errors explain, (n, P)."""
        residual = self.flux - self.model.spectra(p)
        if self.noise.n_shared:
            residual = residual - self.noise.shared_part(residual)
        return residual

    def finish(self, found: Descent, options, noise) -> Solution:
        """The minimum found; `noise` is that of the spectra, whatever a robust loss made of it."""
        chi2 = found.chi2
        if options.loss != "linear":
            chi2 = noise.chi2(self.flux - self.model.spectra(found.p))
        solution = Solution(
            found.p,
            chi2=chi2,
            information=found.information,
            converged=found.converged,
            n_iter=found.n_iter,
            n_good=np.sum(noise.weight > 0, axis=1),
        )
        if noise.correlation_length:
            solution.information = self.with_noise(noise).information(solution, options.loss)
        return solution

    def at(self, solution: Solution):
        """Batches ``stars, model spectra and derivatives (m, 1 + K, P), None, noise`` at a solution."""
        basis = self.model.basis
        for part in self._parts(4):
            psi, slope = basis.with_slope(solution.x[part])
            rows = np.concatenate([psi[:, None], slope], axis=1) @ basis.flux
            rows[:, 0] += basis.reference
            yield part, rows, None, self.noise[part]

    def information(self, solution: Solution, loss="linear") -> np.ndarray:
        """Information (n, K, K) on the scaled labels there."""
        x = solution.x
        out = np.empty((*x.shape, x.shape[1]))
        for part, rows, _, _ in self.at(solution):
            noise = self[part]._noise_at(x[part], loss)
            residual = self.flux[part] - rows[:, 0]
            out[part] = noise.information(rows[:, 1:], residual, overwrite_design=True)
        return out

    def target(self, solution: Solution, loss="linear"):
        """Log likelihood of one star: a function of parameters (m, K), up to a constant.

        It touches no pixel. A robust loss has the weights of the solution.
        """
        noise = self._noise_at(solution.x, loss)
        objective = _Objective(self.model.basis, self.flux, noise, exact=True)
        projection, gram = objective.projection[0], objective.gram[0] * objective.gram_scale[0]

        def log_likelihood(theta):
            psi = self.model.basis(theta)
            return psi @ projection - 0.5 * np.einsum("mr,mr->m", psi @ gram, psi)

        return log_likelihood

    def _noise_at(self, x, loss):
        """With the weights that a robust loss has there."""
        if loss == "linear":
            return self.noise
        return self.noise.with_weight(robust_weight(self.noise.weight, self.residual(x), loss))


class _Objective:
    """chi2, gradient and normal matrix of a batch of stars in the reduced features."""

    def __init__(self, basis: FluxBasis, flux, noise: PixelNoise, *, rough=False, exact=False):
        weight, shared = noise.weight, noise.shared
        level = weight.sum(axis=1)
        brightest = int(np.argmax(level))
        pattern = weight[brightest] / level[brightest] if level[brightest] > 0 else weight[0]
        # looking whether all stars share one pattern of weights costs more than few components do
        many = not basis.is_lossless or noise.n_shared
        self.is_alike = bool(many) and _is_outer(weight, level, pattern)
        used = basis if exact or (self.is_alike and not rough) else basis.leading()
        self.basis, self.is_complete = used, used is basis
        residual = flux - used.reference
        weighted = residual * weight
        rank, stack = len(used.flux), used.flux
        if noise.n_shared:
            stack = np.vstack((used.flux, shared))
        constant = np.einsum("np,np->n", weighted, residual)
        projection = weighted @ stack.T
        self.gram_scale = np.ones(len(flux))
        if self.is_alike:
            gram = ((stack * pattern) @ stack.T)[None]
            if noise.n_shared:
                gram = gram * (level if np.ptp(level) > 0 else level[:1])[:, None, None]
            else:
                self.gram_scale = level
        else:
            # single precision will do where the last steps are taken with all pixels
            precise = self.is_complete or noise.n_shared
            gram = weighted_gram(stack, weight, float if precise else np.float32)
        sums = NormalEquations(constant, projection, gram)
        if noise.n_shared:
            sums = sums.marginal(rank, precision=1.0)
        self.constant, self.projection, self.gram = sums

    def coarse(self, points):
        """chi2 (n, m) of all stars at the same `m` points."""
        psi = self.basis(points)
        if len(self.gram) == 1:
            quadratic = np.einsum("mr,rs,ms->m", psi, self.gram[0], psi, optimize=True)
            quadratic = self.gram_scale[:, None] * quadratic
        else:
            pairs = psi[:, :, None] * psi[:, None, :]
            quadratic = self.gram.reshape(len(self.gram), -1) @ pairs.reshape(len(psi), -1).T
        return self.constant[:, None] - 2 * self.projection @ psi.T + quadratic

    def __call__(self, x, rows):
        m, n_starts, n_labels = x.shape
        psi, slope = self.basis.with_slope(x.reshape(-1, n_labels))
        stack = np.concatenate([psi[:, None], slope], axis=1)
        rank = stack.shape[-1]
        by_star = stack.reshape(m, n_starts * (n_labels + 1), rank)
        if len(self.gram) == 1:
            left = (by_star @ self.gram[0]) * self.gram_scale[rows, None, None]
        else:
            left = by_star @ self.gram[rows]
        left = left.reshape(m, n_starts, n_labels + 1, rank)
        stack = stack.reshape(m, n_starts, n_labels + 1, rank)
        quadratic = left @ np.swapaxes(stack, -1, -2)
        linear = (stack @ self.projection[rows][:, None, :, None])[..., 0]
        chi2 = self.constant[rows, None] - 2 * linear[..., 0] + quadratic[..., 0, 0]
        return chi2, quadratic[..., 1:, 0] - linear[..., 1:], quadratic[..., 1:, 1:]


def _is_outer(weight, level, shape):
    """Whether ``weight`` is ``level[:, None] * shape``; a few pixels say no for most data."""
    for pixels in (slice(None, None, max(1, len(shape) // 16)), slice(None)):
        expected = level[:, None] * shape[pixels]
        if np.any(np.abs(weight[:, pixels] - expected) > 1e-12 * expected):
            return False
    return True


def _choose_starts(chi2, candidates, n_starts, apart=1.0):
    """The best candidates of each star that lie at least `apart` label scales from each other."""
    n, n_labels = len(chi2), candidates.shape[1]
    chi2 = chi2.copy()
    starts = np.empty((n, n_starts, n_labels))
    for s in range(n_starts):
        starts[:, s] = candidates[np.argmin(chi2, axis=1)]
        if s + 1 < n_starts:
            distance2 = _distance2(starts[:, s], candidates)
            chi2[distance2 < apart**2] = np.inf
    return starts


def _distance2(first, second):
    cross = first @ second.T
    return np.sum(first**2, axis=1)[:, None] - 2 * cross + np.sum(second**2, axis=1)
