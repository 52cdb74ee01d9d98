"""What spectra say of labels, once a model has learned how spectra depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.distributions import MultivariateNormal
from skspec.likelihood._free_parameters import FreeColumns, FreeParameters
from skspec.likelihood._inversion import Inversion, minimize
from skspec.likelihood._label_errors import LocalCovariance
from skspec.likelihood._normal_equations import marginal_information, with_least_information
from skspec.likelihood._observed import Observed
from skspec.likelihood._prior import LabelPopulation
from skspec.likelihood._rest_frame import RestFrame
from skspec.likelihood._result import InversionResult
from skspec.likelihood._spectrum_model import (
    FluxBasis,
    Linearization,
    NoiseBudget,
    Solution,
    SpectrumModel,
)
from skspec.likelihood._training_labels import TrainingLabels
from skspec.solvers.spectra.residual_components import ResidualComponents
from skspec.spectra import Spectra

__all__ = ["LabelLikelihood", "LabelScale"]


@dataclass(frozen=True)
class LabelScale(ShortRepr):
    """Labels and their scaled values: ``scaled = (label - pivot) / unit``.

    Attributes
    ----------
    names : list of str
    pivot, unit : ndarray of shape (K,)
    """

    names: list[str]
    pivot: np.ndarray
    unit: np.ndarray

    def scaled(self, labels: np.ndarray) -> np.ndarray:
        """Scaled labels."""
        return (labels - self.pivot) / self.unit

    def labels(self, x: np.ndarray) -> np.ndarray:
        """Labels in their own units."""
        return self.pivot + x * self.unit


@dataclass
class LabelLikelihood(ShortRepr):
    """A trained model of the flux, its noise, and what is free for each star.

    Attributes
    ----------
    exact : callable ``() -> FluxBasis``
        Model spectra, not compressed: made where they are asked for, since some models make a large
        array for them.
    basis : FluxBasis
        The small subspace that holds them.
    columns : FreeColumns
        What is fitted besides the labels.
    training : TrainingLabels
    scale : LabelScale
    errors : ResidualComponents
        Error of the model: components that pixels share, variance of each beyond them.
    floor : ndarray of shape (P,)
        Least variance of the model.
    unknown_variance : ndarray of shape (P,) or None
        Photon variance of pixels whose error is not known; None where no error ever is.
    local_cov : LocalCovariance or None
        Error of the model in its labels.
    typical_chi2 : float or None
        Reduced chi2 that 99 % of held-out training stars stay below.
    population : LabelPopulation or None
        Prior of the labels; None: a flat one.
    """

    exact: Callable[[], FluxBasis]
    basis: FluxBasis
    columns: FreeColumns
    training: TrainingLabels
    scale: LabelScale
    errors: ResidualComponents
    floor: np.ndarray
    unknown_variance: np.ndarray | None
    local_cov: LocalCovariance | None = None
    typical_chi2: float | None = None
    population: LabelPopulation | None = None

    @property
    def unit(self) -> np.ndarray:
        """Units (M,) of the labels, radial velocity and squared width."""
        return np.concatenate([self.scale.unit, self.columns.free.units])

    # -- noise -------------------------------------------------------------------------------------

    def budget(
        self, spectra: Spectra, correlation_length: int = 0, *, photon_only: bool = False
    ) -> NoiseBudget:
        """Photon variance in the unit of the spectra, and the rest in that of the model's flux."""
        photon, shape = spectra.variance, spectra.shape[1]
        if photon_only:
            return NoiseBudget(photon, np.zeros(shape), np.zeros((0, shape)))
        own = self.errors.rest + self.floor
        if self.unknown_variance is not None and (unknown := photon == 0).any():
            own = np.where(unknown, own + self.unknown_variance, own)
        return NoiseBudget(photon, own, self.errors.spectra, correlation_length, spectra.order)

    # -- the model as the likelihood sees it -------------------------------------------------------

    def spectrum_model(
        self, columns: FreeColumns | None = None, *, exact: bool = False, shared: bool = True
    ) -> SpectrumModel:
        """At rest, or with all that is free; `exact`: not compressed at rest."""
        columns, box = self.columns if columns is None else columns, self.training
        basis = self.exact() if exact and not len(columns) else self.basis
        rest = RestFrame(basis, box.candidates, box.lower, box.upper)
        if not len(columns):
            return rest
        return Observed(rest, columns, self.errors.spectra if shared else self.errors.spectra[:0])

    def _batches(self, model, n_stars):
        step = model.batch_size(n_stars)
        return [slice(start, start + step) for start in range(0, max(n_stars, 1), step)]

    def solution_at(self, result: InversionResult) -> Solution:
        """Parameters of a result."""
        zero = np.zeros(len(result))
        labels = result.likelihood.mean()
        labels = np.where(np.isfinite(labels), labels, self.scale.pivot)  # of blind stars
        rv = zero if result.rv is None else np.nan_to_num(result.rv)
        width = zero if result.broadening is None else np.nan_to_num(result.broadening)
        return Solution(self.scale.scaled(labels), rv, width**2, result.continuum)

    def best_fit(self, solution: Solution) -> np.ndarray:
        """Model spectra (n, P) as observed; NaN where the model ends."""
        return self.spectrum_model(exact=True).best_fit(solution)

    def linearize(
        self,
        solution: Solution,
        spectra: Spectra,
        correlation_length: int = 0,
        *,
        free: FreeParameters | None = None,
        photon_only: bool = False,
    ) -> Iterator[Linearization]:
        """Gradient spectra of everything that is free, and the noise of each star.

        Parameters
        ----------
        solution : Solution
        spectra : Spectra of shape (n, P)
        correlation_length : int
        free : FreeParameters, optional
            What is free besides the labels; default: what the model fits.
        photon_only : bool
            Leave the error of the model aside.

        Yields
        ------
        Linearization
            Of some stars each.
        """
        columns = self.columns
        if free is not None and free != columns.free:
            columns = columns.with_free(free, spectra.wavelength, spectra.order)
            if free.degree != self.columns.free.degree:
                solution = replace(solution, continuum=None)  # it has other polynomials
        model = self.spectrum_model(columns, exact=True, shared=not photon_only)
        unit = np.concatenate([1 / self.scale.unit, np.ones(columns.free.n_nonlinear)])
        for stars in self._batches(model, len(spectra)):
            some, part = solution[stars], spectra[stars]
            budget = self.budget(part, correlation_length, photon_only=photon_only)
            batch, steps = model.batch(part.flux, budget), model.steps_per_unit(some) * unit
            for at, rows, linear, noise in batch.at(some):
                design, flux = rows[:, 1:] * steps[at][:, :, None], rows[:, 0]
                continuum = np.empty((len(rows), 0, rows.shape[2]))
                if linear is not None:
                    design, flux = design * linear.curve[:, None], linear.flux
                    continuum = linear.columns.dense() / batch.level[at][:, None]
                first = stars.start + at.start
                where = slice(first, first + len(rows))
                yield Linearization(where, design, continuum, noise, batch.observed[at] - flux)

    def fisher_information(
        self, solution: Solution, spectra: Spectra, correlation_length: int = 0
    ) -> np.ndarray:
        """On the labels (n, K, K), in their units; whatever else is free is integrated over."""
        kept = np.arange(len(self.scale.unit))
        fisher = np.empty((len(spectra), len(kept), len(kept)))
        for part in self.linearize(solution, spectra, correlation_length):
            fisher[part.stars] = marginal_information(part.information(), kept)
        return fisher

    # -- inversion ---------------------------------------------------------------------------------

    def invert(self, spectra: Spectra, options: Inversion) -> InversionResult:
        """Labels of each star by maximum likelihood."""
        model = self.spectrum_model()

        def solve(rows):
            part = spectra[rows]
            budget = self.budget(part, options.correlation_length)
            return minimize(model.batch(part.flux, budget), options)

        batches = self._batches(model, len(spectra))
        return self._result(Solution.concatenate(model.map(solve, batches)))

    def _result(self, found: Solution) -> InversionResult:
        x, n_labels, blind = found.x, len(self.scale.unit), found.n_good == 0
        unit, kept = np.outer(self.unit, self.unit), slice(n_labels)
        formal = np.linalg.inv(with_least_information(found.information, n_labels)) * unit
        labels, chi2 = self.scale.labels(x), found.chi2.copy()
        labels[blind], chi2[blind] = np.nan, np.nan
        formal[blind] = np.where(np.eye(len(unit), dtype=bool), np.inf, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            dof = found.n_good - len(unit) - found.n_linear
            reduced = np.where(dof > 0, chi2 / dof, np.nan)
            score = None if self.typical_chi2 is None else reduced / self.typical_chi2
        model_cov = self.model_cov_near(x) * unit
        total = formal + model_cov
        likelihood = MultivariateNormal(
            labels, cov=total[:, kept, kept], label_names=self.scale.names
        )
        return InversionResult(
            self._posterior(likelihood),
            likelihood,
            formal[:, kept, kept],
            model_cov[:, kept, kept],
            chi2,
            reduced,
            found.n_good,
            found.converged & ~blind,
            self.training.at_bound(x) & ~blind[:, None],
            self.training.holds(x) & ~blind,
            found.n_iter,
            score,
            **self._free_result(found, total, blind),
        )

    def model_cov_near(self, x: np.ndarray) -> np.ndarray:
        """Model covariance (m, M, M) in scaled units, around scaled labels (m, K)."""
        if self.local_cov is None:
            return np.zeros((len(x), len(self.unit), len(self.unit)))
        return self.local_cov.near(self.training.nearest(x)[1])

    def _posterior(self, likelihood):
        """The labels under the prior."""
        if self.population is None:
            return likelihood
        unit, pivot = self.scale.unit, self.scale.pivot
        scaled = likelihood.affine(1 / unit, -pivot / unit)
        mean, cov = self.population.posterior(scaled.mean(), scaled.cov())
        posterior = MultivariateNormal(mean, cov=cov, label_names=likelihood.label_names)
        return posterior.affine(unit, pivot)

    def _free_result(self, found, total, blind):
        """Fields of an `InversionResult` on velocity, broadening and continuum."""
        out, free, n_labels = {}, self.columns.free, len(self.scale.unit)
        if free.rv_range is not None:
            out["rv"] = np.where(blind, np.nan, found.rv)
            out["rv_std"] = np.sqrt(total[:, n_labels, n_labels])
        if free.kernel is not None:
            # the width of a star not broadened has an error, although its square's vanishes with it
            width, error2 = np.sqrt(found.width2), np.sqrt(total[:, -1, -1])
            out["broadening"] = np.where(blind, np.nan, width)
            with np.errstate(invalid="ignore"):
                error = error2 / np.maximum(2 * width, np.sqrt(error2))
            out["broadening_std"] = np.where(blind, np.inf, error)
        if free.degree is not None:
            out["continuum"] = found.continuum
        return out
