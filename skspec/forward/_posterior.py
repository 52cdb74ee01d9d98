"""Posterior samples of labels, where a Gaussian does not say enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skspec.distributions import MultivariateNormal
from skspec.forward._base import ForwardModel
from skspec.forward._inversion import _Objective

__all__ = ["PosteriorSamples", "sample_posterior"]

LONG_ENOUGH = 50  # autocorrelation times that a chain should last (Foreman-Mackey et al. 2013)


@dataclass(frozen=True)
class PosteriorSamples:
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
    """

    samples: np.ndarray
    acceptance: np.ndarray
    autocorrelation_time: np.ndarray
    n_steps: int
    label_names: list[str]

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

    def interval(self, level: float = 0.6827):
        """Lower and upper end (n, K) of the central interval that holds `level` of the samples."""
        return tuple(np.quantile(self.samples, [0.5 - level / 2, 0.5 + level / 2], axis=1))

    @property
    def dist(self) -> MultivariateNormal:
        """The Gaussian with the same means and covariances."""
        return MultivariateNormal(self.mean(), cov=self.cov(), label_names=self.label_names)


def sample_posterior(
    model,
    X,
    result=None,
    *,
    n_walkers=None,
    n_steps=1000,
    n_burn=250,
    label_covariance=True,
    n_jobs=None,
    random_state=None,
) -> PosteriorSamples:
    r"""Sample the labels of each star by Markov chain Monte Carlo, with emcee.

    The posterior is :math:`\exp(-\chi^2(\ell) / 2)` of :meth:`ForwardModel.invert` with a flat prior
    inside its box: the range of the training labels widened by 10 %. It is wider than Gaussian, bent
    or cut off where the spectrum says little or the labels lie at the edge of the box.

    Parameters
    ----------
    model : fitted ForwardModel
        Without radial velocity, broadening or continuum to fit, and with the linear loss.
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
        When it fits more than labels, or there are too few walkers or steps.

    Notes
    -----
    chi2 is that of the reduced spectra of the inversion, so a step touches no pixel. Nevertheless this
    takes hundreds of times longer than the inversion: it is for the few stars that need it. The
    walkers move by differential evolution (ter Braak 2006).

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
    _check(model)
    n_labels = len(model.label_names_in_)
    n_walkers = _walkers(n_walkers, n_labels)
    if n_steps < 1 or n_burn < 0:
        raise ValueError(f"n_steps must be 1 or more and n_burn 0 or more: {n_steps}, {n_burn}.")
    _emcee()
    result = model.invert(X) if result is None else result
    spectra = model._validate_predict(X)
    if len(result.labels) != len(spectra):
        raise ValueError(f"The result is of {len(result.labels)} stars, X of {len(spectra)}.")
    random = check_random_state(random_state)
    seeds = random.randint(np.iinfo(np.int32).max, size=len(spectra))
    weight = 1.0 / model._variance(spectra)
    target = model._flux_model()
    box = (model._lower, model._upper)
    jobs = Parallel(n_jobs=n_jobs)(
        delayed(_sample_star)(target, spectra.flux[i], weight[i], start, box, n_burn, n_steps, seed)
        for i, (start, seed) in enumerate(zip(_starts(model, result, n_walkers, seeds), seeds))
    )
    x, acceptance, time = (np.array(part) for part in zip(*jobs))
    samples = model.label_pivot_ + x * model.label_scale_
    if label_covariance and result.model_cov.any():
        error = MultivariateNormal(np.zeros_like(result.labels), cov=result.model_cov)
        seed = random.randint(np.iinfo(np.int32).max)
        samples += np.swapaxes(error.sample(samples.shape[1], random_state=seed), 0, 1)
    return PosteriorSamples(samples, acceptance, time, n_steps, list(model.label_names_in_))


def _emcee():
    try:
        import emcee
    except ImportError as error:
        raise ImportError(
            'Sampling needs emcee: pip install "skspec[mcmc]"', name="emcee"
        ) from error
    return emcee


def _check(model):
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"{type(model).__name__} is no forward model. Of a Pipeline, give the last step, and the "
            "spectra as the steps before it leave them."
        )
    check_is_fitted(model)
    switches = [name for name in ("fit_rv", "fit_broadening") if getattr(model, name, False)]
    switches += ["continuum_degree"] * (getattr(model, "continuum_degree", None) is not None)
    if switches:
        raise ValueError(
            f"Only labels are sampled, and this model also fits {', '.join(switches)}. Bring the "
            "spectra to rest and take off the continuum, and fit a model without."
        )
    if model._population is not None:
        raise ValueError(
            "label_prior='training' is not sampled, a flat prior is: fit a model with "
            "label_prior='flat'."
        )
    if model.loss != "linear":
        raise ValueError(f"loss={model.loss!r} belongs to no likelihood: use loss='linear'.")


def _walkers(n_walkers, n_labels):
    if n_walkers is None:
        return max(32, 6 * n_labels)
    if n_walkers < max(6, 2 * n_labels) or n_walkers % 2:
        raise ValueError(
            f"n_walkers must be even, 6 or more, and at least twice the {n_labels} labels, got "
            f"{n_walkers}."
        )
    return n_walkers


def _starts(model, result, n_walkers, seeds):
    """First scaled labels (n_walkers, K) of each star, from its Gaussian reflected into the box."""
    lower, width = model._lower, model._upper - model._lower
    centre = (result.likelihood.mean() - model.label_pivot_) / model.label_scale_
    scaled = result.formal_cov / np.outer(model.label_scale_, model.label_scale_)
    for mean, cov, seed in zip(centre, scaled, seeds):
        if not np.isfinite(mean).all():
            yield np.full((n_walkers, len(mean)), np.nan)
            continue
        root = np.linalg.cholesky(cov)
        draws = np.random.default_rng(seed).normal(size=(n_walkers, len(mean))) @ root.T
        place = np.abs((mean + draws - lower) / width) % 2
        yield lower + width * np.minimum(place, 2 - place)


def _sample_star(model, flux, weight, start, box, n_burn, n_steps, seed):
    """Scaled samples (S, K), acceptance and autocorrelation time (K,) of one star."""
    n_walkers, n_labels = start.shape
    if np.isnan(start).any():
        nothing = np.full((n_walkers * n_steps, n_labels), np.nan)
        return nothing, np.nan, np.full(n_labels, np.nan)
    objective, (lower, upper) = _Objective(model, flux[None], weight[None]), box
    projection, gram = objective.projection[0], objective.gram[0] * objective.gram_scale[0]

    def log_posterior(x):
        inside = np.all((x >= lower) & (x <= upper), axis=1)
        psi = objective.basis.reduce(model.features(np.clip(x, lower, upper)))
        return np.where(inside, psi @ projection - 0.5 * np.sum(psi @ gram * psi, axis=1), -np.inf)

    emcee = _emcee()
    # differential evolution forgets three times faster than emcee's stretch move on such targets
    sampler = emcee.EnsembleSampler(
        n_walkers, n_labels, log_posterior, vectorize=True, moves=emcee.moves.DEMove()
    )
    sampler.random_state = np.random.RandomState(seed).get_state()
    sampler.run_mcmc(start, n_burn + n_steps)
    chain = sampler.get_chain(discard=n_burn)
    with np.errstate(invalid="ignore", divide="ignore"):
        time = emcee.autocorr.integrated_time(chain, tol=0, quiet=True)
    return chain.reshape(-1, n_labels), sampler.acceptance_fraction.mean(), time
