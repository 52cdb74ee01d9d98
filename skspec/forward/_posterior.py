"""Posterior samples of labels, where a Gaussian does not say enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skspec._short_repr import ShortRepr
from skspec.distributions import MultivariateNormal
from skspec.forward._base import ForwardModel
from skspec.likelihood._free_parameters import MAX_WIDTH, WIDTH2_UNIT
from skspec.likelihood._normal_equations import with_least_information

if TYPE_CHECKING:
    from skspec._typing import RandomState, SpectraLike
    from skspec.likelihood import InversionResult

__all__ = ["PosteriorSamples", "sample_posterior"]

LONG_ENOUGH = 50  # autocorrelation times that a chain should last (Foreman-Mackey et al. 2013)


@dataclass(frozen=True)
class PosteriorSamples(ShortRepr):
    """Samples of the labels of `n` stars, and whether the chains were long enough.

    Attributes
    ----------
    samples : ndarray of shape (n, S, K)
        In label units, ``S = n_walkers * n_steps``, walkers fastest; NaN for a star without any good
        pixel.
    acceptance : ndarray of shape (n,)
        Share of proposed moves that were taken; about 0.2 to 0.4 is healthy.
    autocorrelation_time : ndarray of shape (n, K)
        Steps after which a chain has forgotten where it was.
    n_steps : int
        Kept steps of each walker.
    label_names : list of str
    rv, broadening : ndarray of shape (n, S) or None
        Samples of the radial velocity and of the broadening [km/s]; None where they are not fitted.
    """

    samples: np.ndarray
    acceptance: np.ndarray
    autocorrelation_time: np.ndarray
    n_steps: int
    label_names: list[str]
    rv: np.ndarray | None = None
    broadening: np.ndarray | None = None

    def _repr_values(self):
        shape = {"n_stars": len(self), "n_samples": self.samples.shape[1]}
        converged = int(np.count_nonzero(self.converged))
        return shape | {"converged": converged, "label_names": self.label_names}

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def n_effective(self) -> np.ndarray:
        """Independent samples (n, K) that the chains are worth."""
        return self.samples.shape[1] / self.autocorrelation_time

    @property
    def converged(self) -> np.ndarray:
        """Stars (n,) whose chains lasted 50 autocorrelation times or more, in every label."""
        return np.all(self.n_steps >= LONG_ENOUGH * self.autocorrelation_time, axis=1)

    def mean(self) -> np.ndarray:
        """Posterior means, shape (n, K)."""
        return self.samples.mean(axis=1)

    def cov(self) -> np.ndarray:
        """Posterior covariances, shape (n, K, K)."""
        away = self.samples - self.mean()[:, None]
        return np.swapaxes(away, 1, 2) @ away / away.shape[1]

    def interval(self, level: float = 0.6827) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end (n, K) of the central interval that holds `level` of the samples."""
        return tuple(np.quantile(self.samples, [0.5 - level / 2, 0.5 + level / 2], axis=1))

    @property
    def dist(self) -> MultivariateNormal:
        """The Gaussian with the same means and covariances."""
        return MultivariateNormal(self.mean(), cov=self.cov(), label_names=self.label_names)


def sample_posterior(
    model: ForwardModel,
    X: SpectraLike,
    result: InversionResult | None = None,
    *,
    n_walkers: int | None = None,
    n_steps: int = 1000,
    n_burn: int = 250,
    label_covariance: bool = True,
    n_jobs: int | None = None,
    random_state: RandomState | None = None,
) -> PosteriorSamples:
    r"""Sample the labels of each star by Markov chain Monte Carlo, with emcee.

    The posterior is :math:`p(\ell)\,\exp(-\chi^2(\ell) / 2)` of :meth:`ForwardModel.invert`, inside its
    box: the range of the training labels widened by 10 %. It is wider than Gaussian, bent or cut off
    where the spectrum says little or the labels lie at the edge of the box. Velocity and broadening,
    where the model fits them, are sampled too; the continuum is at its best for each sample.

    Parameters
    ----------
    model : fitted ForwardModel
        With all its options: shared errors, velocity, broadening, continuum, prior, correlated noise,
        robust loss.
    X : Spectra or array-like of shape (n, P)
    result : InversionResult, optional
        ``model.invert(X)``, where it is known already: the walkers start from its Gaussian.
    n_walkers : int, optional
        An even number, at least twice that of the labels; default: 32, or 6 per label.
    n_steps : int
        Steps of each walker that are kept.
    n_burn : int
        Steps before.
    label_covariance : bool
        Add a draw from the model's own error in label space (``result.model_cov``) to each sample, so
        that they hold the total error and not the formal one.
    n_jobs : int, optional
        Workers that share the stars.
    random_state : int, RandomState instance or None

    Returns
    -------
    PosteriorSamples

    Raises
    ------
    ImportError
        Without emcee.
    TypeError
        When `model` is no forward model.
    ValueError
        When there are too few walkers or steps.

    Notes
    -----
    Of stars at rest chi2 is that of the reduced spectra of the inversion, so a step touches no pixel;
    with velocity, broadening or continuum free each step makes the spectra anew. This takes hundreds of
    times longer than the inversion: it is for the few stars that need it. The walkers move by
    differential evolution (ter Braak 2006).

    Correlated noise (``inversion__correlation_length``) has no likelihood of its own: that of
    independent pixels is stretched about its maximum until its curvature is the information of the
    sandwich (Ribatet, Cooley & Davison 2012, Statistica Sinica 22, 813). A robust loss has the weights
    of the solution. With a prior and `label_covariance` the labels as the model errs on them are
    sampled, under the prior widened by its error, and then the labels given those.

    References
    ----------
    Foreman-Mackey et al. 2013, PASP 125, 306 (arXiv:1202.3665).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import TheCannon, sample_posterior
    >>> spectra, labels = make_spectra(200, n_pixels=200, random_state=0)
    >>> model = TheCannon().fit(spectra[:150], labels[:150])
    >>> found = sample_posterior(model, spectra[150:152], n_steps=300, random_state=0)
    >>> found.samples.shape
    (2, 9600, 3)
    """
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"{type(model).__name__} is no forward model. Of a Pipeline, give the last step, and the "
            "spectra as the steps before it leave them."
        )
    check_is_fitted(model)
    known = model._likelihood
    n_labels, free = len(known.scale.unit), known.columns.free
    with_error = label_covariance and known.population is not None and known.local_cov is not None
    n_walkers = _walkers(n_walkers, n_labels + free.n_nonlinear)
    if n_steps < 1 or n_burn < 0:
        raise ValueError(f"n_steps must be 1 or more and n_burn 0 or more: {n_steps}, {n_burn}.")
    _emcee()
    result = model.invert(X) if result is None else result
    spectra = model._validate_predict(X)
    if len(result) != len(spectra):
        raise ValueError(f"The result is of {len(result)} stars, X of {len(spectra)}.")
    random = check_random_state(random_state)
    seeds = random.randint(np.iinfo(np.int32).max, size=len(spectra))
    chains = [_Chain(n_walkers, n_burn, n_steps, seed) for seed in seeds]
    unit = np.outer(known.scale.unit, known.scale.unit)
    view, at, errors = known.spectrum_model(), known.solution_at(result), result.model_cov / unit
    budget = known.budget(spectra, model._options.correlation_length)
    jobs = Parallel(n_jobs=n_jobs)(
        delayed(_sample_star)(
            chain,
            _Star(
                view.batch(spectra.flux[[i]], budget[i : i + 1]),
                at[i : i + 1],
                model._options.loss,
                _limits(known),
                known.population,
                errors[i] if with_error else None,
            ),
        )
        for i, chain in enumerate(chains)
    )
    x, acceptance, time = (np.array(part) for part in zip(*jobs))
    blind = result.n_good == 0
    x[blind] = np.nan
    samples = known.scale.labels(x[..., :n_labels])
    if label_covariance and not with_error and result.model_cov.any():
        error = MultivariateNormal(np.zeros_like(result.labels), cov=result.model_cov)
        seed = random.randint(np.iinfo(np.int32).max)
        samples += np.swapaxes(error.sample(samples.shape[1], random_state=seed), 0, 1)
    names = list(known.scale.names)
    return PosteriorSamples(
        samples,
        np.where(blind, np.nan, acceptance),
        np.where(blind[:, None], np.nan, time[:, :n_labels]),
        n_steps,
        names,
        None if free.rv_range is None else x[..., n_labels],
        None
        if free.kernel is None
        else np.sqrt(WIDTH2_UNIT * x[..., n_labels + len(free.units) - 1]),
    )


def _emcee():
    try:
        import emcee
    except ImportError as error:
        raise ImportError(
            'Sampling needs emcee: pip install "skspec[mcmc]"', name="emcee"
        ) from error
    return emcee


def _walkers(n_walkers, n_states):
    if n_walkers is None:
        return max(32, 6 * n_states)
    if n_walkers < max(6, 2 * n_states) or n_walkers % 2:
        raise ValueError(
            f"n_walkers must be even, 6 or more, and at least twice the {n_states} parameters, got "
            f"{n_walkers}."
        )
    return n_walkers


def _limits(known):
    """Lowest and highest scaled labels, velocity [km/s] and squared width [`WIDTH2_UNIT`]."""
    box, free = known.training, known.columns.free
    lower, upper = [box.lower], [box.upper]
    if free.rv_range is not None:
        lower.append(free.rv_range[:1]), upper.append(free.rv_range[1:])
    if free.kernel is not None:
        lower.append([0.0]), upper.append([MAX_WIDTH**2 / WIDTH2_UNIT])
    return np.concatenate(lower), np.concatenate(upper)


@dataclass(frozen=True)
class _Chain:
    """How one star is sampled."""

    n_walkers: int
    n_burn: int
    n_steps: int
    seed: int


@dataclass
class _Star:
    """One star, and the posterior of its state.

    The state holds the parameters that the spectrum sees: labels first, as the model errs on them.
    """

    batch: object
    solution: object
    loss: str
    limits: tuple
    population: object
    error_cov: np.ndarray | None

    def __post_init__(self):
        batch, solution, loss = self.batch, self.solution, self.loss
        self.n_labels = solution.x.shape[1]
        information = with_least_information(batch.information(solution, loss), self.n_labels)[0]
        self._target = batch.target(solution, loss)
        self._centre, self._stretch = batch.model.theta_of(solution)[0], None
        self._root = np.linalg.inv(np.linalg.cholesky(information)).T
        if batch.is_correlated:
            independent = batch.independent().information(solution, loss)
            independent = with_least_information(independent, self.n_labels)[0]
            roots = np.linalg.cholesky(independent), np.linalg.cholesky(information)
            self._stretch = np.linalg.solve(roots[0].T, roots[1].T)
        self._prior = self.population
        if self.error_cov is not None:
            self._prior = self.population.widened(self.error_cov)

    def start(self, chain):
        """First states (n_walkers, M) of the Gaussian, reflected into the box."""
        lower, upper = self.limits
        rng = np.random.default_rng(chain.seed)
        draws = rng.normal(size=(chain.n_walkers, len(lower))) @ self._root.T
        place = np.abs((self._centre + draws - lower) / (upper - lower)) % 2
        return lower + (upper - lower) * np.minimum(place, 2 - place)

    def true_labels(self, states, chain):
        """States (S, M) with labels in place of those that the model errs on."""
        if self.error_cov is None:
            return states
        rng, n_labels = np.random.default_rng([chain.seed, 1]), self.n_labels
        labels = self.population.draw(states[:, :n_labels], self.error_cov, rng)
        return np.hstack([labels, states[:, n_labels:]])

    def log_posterior(self, state):
        """Of states (m, M)."""
        lower, upper = self.limits
        theta, labels = state, state[:, : self.n_labels]
        value = np.zeros(len(state))
        if self._prior is not None:
            value += self._prior.log_density(labels)
        inside = np.all((theta >= lower) & (theta <= upper), axis=1)
        if self._stretch is not None:
            theta = self._centre + (theta - self._centre) @ self._stretch.T
        value += self._target(np.clip(theta, lower, upper))
        return np.where(inside, value, -np.inf)


def _sample_star(chain: _Chain, star: _Star):
    """States (S, M), acceptance and autocorrelation time (M,) of one star."""
    emcee = _emcee()
    start = star.start(chain)
    # differential evolution forgets three times faster than emcee's stretch move on such targets
    sampler = emcee.EnsembleSampler(
        *start.shape, star.log_posterior, vectorize=True, moves=emcee.moves.DEMove()
    )
    sampler.random_state = np.random.RandomState(chain.seed).get_state()
    sampler.run_mcmc(start, chain.n_burn + chain.n_steps)
    states = sampler.get_chain(discard=chain.n_burn)
    with np.errstate(invalid="ignore", divide="ignore"):
        time = emcee.autocorr.integrated_time(states, tol=0, quiet=True)
    states = star.true_labels(states.reshape(-1, start.shape[1]), chain)
    return states, sampler.acceptance_fraction.mean(), time
