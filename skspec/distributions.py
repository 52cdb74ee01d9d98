"""`MultivariateNormal`: what `predict_dist` returns, one Gaussian per star, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr, ndtri

from skspec._label_values import label_covariance, label_values, name_text

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import ArrayLike

    from skspec._typing import RandomState

__all__ = ["MultivariateNormal"]

_LOG_2PI = np.log(2 * np.pi)
_DRAWN_AT_ONCE = 4_000_000  # numbers, 32 MB


class MultivariateNormal:
    r"""A batch of multivariate normal distributions over stellar labels.

    Parameters
    ----------
    loc : array-like of shape (..., K)
        Means, in label units.
    scale : array-like of shape (..., K), optional
        Standard deviations of independent labels (diagonal covariance).
    scale_tril : array-like of shape (..., K, K), optional
        Lower Cholesky factor :math:`L` of the covariance :math:`\Sigma = L L^T`.
    cov : array-like of shape (..., K, K), optional
        Covariance, positive semi-definite; exactly one of `scale`, `scale_tril`, `cov` is given.
    label_names : sequence of str, optional
        Names of the K labels.

    Notes
    -----
    A star without any information has NaN in its mean and an infinite standard deviation; every
    method then returns NaN for it and leaves the others alone.

    Examples
    --------
    >>> dist = MultivariateNormal([[5777.0, 4.44], [4500.0, 2.0]], scale=[50.0, 0.1])
    >>> lower, upper = dist.interval(0.95)
    >>> (upper - lower)[0].round(2)
    array([196.  ,   0.39])
    >>> len(dist), dist[0].mean().tolist()
    (2, [5777.0, 4.44])
    """

    def __init__(
        self,
        loc: ArrayLike,
        *,
        scale: ArrayLike | None = None,
        scale_tril: ArrayLike | None = None,
        cov: ArrayLike | None = None,
        label_names: Sequence[str] | None = None,
    ):
        if sum(part is not None for part in (scale, scale_tril, cov)) != 1:
            raise ValueError("Give exactly one of scale, scale_tril and cov.")
        self.loc = np.asarray(loc, dtype=float)
        if self.loc.ndim == 0:
            raise ValueError("loc must have a last axis of labels, shape (..., K).")
        n_labels = self.loc.shape[-1]
        self.label_names = (
            None if label_names is None else [name_text(name) for name in label_names]
        )
        if self.label_names is not None and len(self.label_names) != n_labels:
            raise ValueError(f"{len(self.label_names)} label names for {n_labels} labels.")
        self._scale = self._scale_tril = self._cov = None
        if scale is not None:
            scale = np.asarray(scale, dtype=float)
            if np.any(scale < 0):
                raise ValueError("scale holds negative standard deviations.")
            self._scale = np.broadcast_to(scale, self.loc.shape)
            return
        square = (*self.loc.shape, n_labels)
        given = np.asarray(cov if scale_tril is None else scale_tril, dtype=float)
        if given.shape[-2:] != square[-2:]:
            raise ValueError(f"covariance of shape {given.shape} for means {self.loc.shape}.")
        given = np.broadcast_to(given, square)
        if scale_tril is None:
            if np.any(np.diagonal(given, axis1=-2, axis2=-1) < 0):
                raise ValueError("cov holds negative variances.")
            self._cov = given
        else:
            if n_labels > 1 and np.any(given[..., *np.triu_indices(n_labels, 1)]):
                raise ValueError("scale_tril must be lower triangular.")
            self._scale_tril = given

    # -- shape -------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the means."""
        return self.loc.shape

    @property
    def n_labels(self) -> int:
        """K."""
        return self.loc.shape[-1]

    def __len__(self) -> int:
        if self.loc.ndim < 2:
            raise TypeError("A single distribution has no length.")
        return self.loc.shape[0]

    def __getitem__(self, stars: Any) -> MultivariateNormal:
        """Distribution of one star (an integer), of a selection of stars, or of a named label."""
        if isinstance(stars, str):
            return self.marginal(stars)
        if self.loc.ndim < 2:
            raise TypeError("A single distribution cannot be indexed.")
        if isinstance(stars, tuple):
            raise TypeError("Only stars are indexed; select labels with dist.marginal(labels).")
        parts = {
            name: None if value is None else value[stars]
            for name, value in (
                ("scale", self._scale),
                ("scale_tril", self._scale_tril),
                ("cov", self._cov),
            )
        }
        return MultivariateNormal(self.loc[stars], **parts, label_names=self.label_names)

    def __repr__(self) -> str:
        names = "" if self.label_names is None else f" of {', '.join(self.label_names)}"
        batch = "single" if self.loc.ndim < 2 else f"{len(self)} stars"
        return f"<MultivariateNormal{names}: {batch}>"

    # -- moments -----------------------------------------------------------------------------------

    def mean(self) -> np.ndarray:
        """Means, shape (..., K)."""
        return self.loc

    def var(self) -> np.ndarray:
        """Variances, shape (..., K)."""
        if self._scale is not None:
            return self._scale**2
        if self._cov is not None:
            return np.diagonal(self._cov, axis1=-2, axis2=-1).copy()
        return np.sum(self.scale_tril**2, axis=-1)

    def std(self) -> np.ndarray:
        """Standard deviations, shape (..., K)."""
        return self._scale.copy() if self._scale is not None else np.sqrt(self.var())

    def cov(self) -> np.ndarray:
        """Covariances, shape (..., K, K)."""
        if self._cov is not None:
            return self._cov
        if self._scale is not None:
            return _diagonal(self.var())
        return self.scale_tril @ np.swapaxes(self.scale_tril, -1, -2)

    def corr(self) -> np.ndarray:
        """Correlation matrices, shape (..., K, K)."""
        std = self.std()
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.cov() / (std[..., :, None] * std[..., None, :])

    @cached_property
    def scale_tril(self) -> np.ndarray:
        """Lower Cholesky factors of the covariances, shape (..., K, K)."""
        if self._scale_tril is not None:
            return self._scale_tril
        if self._scale is not None:
            return _diagonal(self._scale)
        return _cholesky_semidefinite(self._cov)

    # -- probabilities -----------------------------------------------------------------------------

    def _given(self, y):
        """Labels as numbers; named columns in the order of these."""
        return label_values(y, self.label_names, sentinels=False)

    def _white(self, y):
        """L^-1 (y - loc), shape (..., K)."""
        residual = self._given(y) - self.loc
        if self._scale is not None:
            return _divide(residual, self._scale)
        tril = np.broadcast_to(self.scale_tril, (*residual.shape, self.n_labels))
        white = np.empty_like(residual)
        with np.errstate(invalid="ignore"):
            for k in range(self.n_labels):  # forward substitution, all stars at once
                known = np.sum(tril[..., k, :k] * white[..., :k], axis=-1)
                white[..., k] = _divide(residual[..., k] - known, tril[..., k, k])
        return white

    def mahalanobis(self, y: ArrayLike) -> np.ndarray:
        r"""Distance :math:`\sqrt{(y-\mu)^T \Sigma^{-1} (y-\mu)}` of labels `y`, shape (...)."""
        return np.sqrt(np.sum(self._white(y) ** 2, axis=-1))

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at labels `y` of shape (..., K); shape (...)."""
        diagonal = (
            self._scale
            if self._scale is not None
            else np.diagonal(self.scale_tril, axis1=-2, axis2=-1)
        )
        square = np.sum(self._white(y) ** 2, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_det = np.sum(np.log(np.abs(diagonal)), axis=-1)
            out = -0.5 * square - log_det - 0.5 * self.n_labels * _LOG_2PI
        return np.where(np.isposinf(square), -np.inf, out)  # off the support of a singular Gaussian

    def _standardised(self, y):
        return _divide(self._given(y) - self.loc, self.std())

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Marginal cumulative probability of each label, shape (..., K)."""
        return ndtr(self._standardised(y))

    pit = cdf  # the probability integral transform of the truth is the cdf taken there

    def quantile(self, q: ArrayLike) -> np.ndarray:
        """Marginal quantile `q` (scalar, or broadcastable to (..., K)) of each label."""
        with np.errstate(invalid="ignore"):
            return self.loc + self.std() * ndtri(q)

    def interval(self, level: float = 0.68) -> tuple[np.ndarray, np.ndarray]:
        """Central marginal interval that holds `level` of the probability: (lower, upper)."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}.")
        half = self.std() * ndtri(0.5 * (1 + level))
        return self.loc - half, self.loc + half

    def crps(self, y: ArrayLike) -> np.ndarray:
        r"""Continuous ranked probability score of each label, shape (..., K), smaller is better.

        :math:`\sigma [z (2\Phi(z) - 1) + 2\phi(z) - 1/\sqrt\pi]` with :math:`z = (y-\mu)/\sigma`
        (Gneiting & Raftery 2007, JASA 102, 359).
        """
        std = self.std()
        error = self._given(y) - self.loc
        with np.errstate(divide="ignore", invalid="ignore"):
            z = error / std
            score = std * (
                z * (2 * ndtr(z) - 1) + 2 * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) - np.pi**-0.5
            )
        return np.where(std == 0, np.abs(error), score)

    def energy_score(
        self,
        y: ArrayLike,
        *,
        scale: ArrayLike | None = None,
        n_draws: int = 256,
        random_state: RandomState = 0,
    ) -> np.ndarray:
        """Energy score E|Y - y| - E|Y - Y'| / 2 of the joint distribution, shape (...).

        Parameters
        ----------
        y : array-like of shape (..., K)
            True labels.
        scale : array-like of shape (K,), optional
            Label units in which the distance is taken (default: the labels as they are).
        n_draws : int
            Pairs of Monte Carlo draws per star.
        random_state : int, Generator or None
            Seed of the draws.
        """
        unit = np.ones(self.n_labels) if scale is None else self._given(scale)
        y, rng = self._given(y), np.random.default_rng(random_state)
        score, done = np.zeros(()), 0
        while done < n_draws:  # a few draws at a time: all of them may not fit in memory
            draws = min(n_draws - done, max(1, _DRAWN_AT_ONCE // max(1, self.loc.size)))
            first, second = self.sample((2, draws), random_state=rng)
            score = score + np.linalg.norm((first - y) / unit, axis=-1).sum(axis=0)
            score = score - 0.5 * np.linalg.norm((first - second) / unit, axis=-1).sum(axis=0)
            done += draws
        return score / n_draws

    def sample(
        self, size: int | tuple[int, ...] | None = None, *, random_state: RandomState | None = None
    ) -> np.ndarray:
        """Random labels, shape (*size, ..., K); `size` is None, an integer or a tuple."""
        rng = np.random.default_rng(random_state)
        size = () if size is None else tuple(np.atleast_1d(size))
        white = rng.standard_normal((*size, *self.loc.shape))
        if self._scale is not None:
            return self.loc + self._scale * white
        return self.loc + np.einsum("...kl,...l->...k", self.scale_tril, white)

    # -- new distributions from old ----------------------------------------------------------------

    def marginal(self, labels: str | int | Sequence[str | int]) -> MultivariateNormal:
        """Distribution of some of the labels, by name or index."""
        labels = [labels] if isinstance(labels, (str, int, np.integer)) else list(labels)
        index = [self._label_index(label) for label in labels]
        names = None if self.label_names is None else [self.label_names[k] for k in index]
        if self._scale is not None:
            return MultivariateNormal(
                self.loc[..., index], scale=self._scale[..., index], label_names=names
            )
        cov = self.cov()[..., index, :][..., :, index]
        return MultivariateNormal(self.loc[..., index], cov=cov, label_names=names)

    def _label_index(self, label):
        if not isinstance(label, str):
            return label
        if self.label_names is None or label not in self.label_names:
            raise ValueError(f"There is no label {label!r} among {self.label_names}.")
        return self.label_names.index(label)

    def affine(self, scale: ArrayLike, shift: ArrayLike) -> MultivariateNormal:
        """Distribution of ``scale * labels + shift``; covariances follow (undoes label scaling)."""
        scale = np.broadcast_to(np.asarray(scale, dtype=float), (self.n_labels,))
        loc = self.loc * scale + shift
        if self._scale is not None:
            return MultivariateNormal(
                loc, scale=self._scale * np.abs(scale), label_names=self.label_names
            )
        with np.errstate(invalid="ignore"):
            cov = self.cov() * (scale[:, None] * scale)
        return MultivariateNormal(loc, cov=cov, label_names=self.label_names)

    def with_prior(self, mean: ArrayLike, cov: ArrayLike) -> MultivariateNormal:
        r"""Posterior under a Gaussian prior of the labels, taking this distribution as the likelihood.

        .. math:: \Sigma' = (\Sigma^{-1} + P^{-1})^{-1}, \qquad
                  \mu' = \Sigma' (\Sigma^{-1} \mu + P^{-1} m)

        Parameters
        ----------
        mean : array-like of shape (K,)
            Mean `m` of the population, such as ``labels.mean()`` of the training labels.
        cov : array-like of shape (K, K)
            Its covariance `P`, such as ``labels.cov()``: positive definite.

        Notes
        -----
        For the labels of forward models, which know no population. Regressions of labels on spectra
        have that of their training stars in them already. A star without information gets the prior.
        """
        mean, prior = self._given(mean), label_covariance(cov, self.label_names)
        if mean.shape != (self.n_labels,) or prior.shape != 2 * (self.n_labels,):
            raise ValueError(
                f"A prior of {self.n_labels} labels has a mean of shape ({self.n_labels},) and a "
                f"covariance of shape ({self.n_labels}, {self.n_labels}), not {mean.shape} and "
                f"{prior.shape}."
            )
        unit = np.sqrt(np.diag(prior))
        if not np.all(unit > 0) or np.linalg.eigvalsh(prior / np.outer(unit, unit))[0] <= 0:
            raise ValueError("The covariance of a prior must be positive definite.")
        prior, away = prior / np.outer(unit, unit), (mean - self.loc) / unit
        cov = self.cov() / np.outer(unit, unit)
        known = np.isfinite(cov).all(axis=(-1, -2)) & np.isfinite(away).all(axis=-1)
        cov = np.where(known[..., None, None], cov, np.eye(self.n_labels))
        gain = np.swapaxes(np.linalg.solve(cov + prior, cov), -1, -2)
        step = (gain @ np.where(known[..., None], away, 0.0)[..., None])[..., 0]
        left = gain @ prior
        left = 0.5 * (left + np.swapaxes(left, -1, -2))
        loc = np.where(known[..., None], self.loc + unit * step, mean)
        posterior = np.where(known[..., None, None], left, prior) * np.outer(unit, unit)
        return MultivariateNormal(loc, cov=posterior, label_names=self.label_names)

    @staticmethod
    def mixture(
        dists: Iterable[MultivariateNormal], weights: ArrayLike | None = None
    ) -> MultivariateNormal:
        """Gaussian with the mean and covariance of a mixture (law of total variance)."""
        dists = list(dists)
        if not dists:
            raise ValueError("A mixture needs at least one distribution.")
        weights = np.full(len(dists), 1 / len(dists)) if weights is None else np.asarray(weights)
        if not np.isclose(weights.sum(), 1):
            raise ValueError("The weights of a mixture must sum to 1.")
        means = np.stack([dist.mean() for dist in dists])
        with np.errstate(invalid="ignore"):  # stars without information: inf and NaN
            loc = np.tensordot(weights, means, 1)
            offset = np.where(np.isfinite(means - loc), means - loc, 0)
            within = np.tensordot(weights, np.stack([dist.cov() for dist in dists]), 1)
            between = np.einsum("m,m...k,m...l->...kl", weights, offset, offset)
        return MultivariateNormal(loc, cov=within + between, label_names=dists[0].label_names)

    # -- bridges -----------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """`pandas.DataFrame` with a column per label and one `<label>_std` each."""
        import pandas as pd

        names = self.label_names or [f"label_{k}" for k in range(self.n_labels)]
        std = np.atleast_2d(self.std())
        frame = pd.DataFrame(np.atleast_2d(self.loc), columns=names)
        return frame.assign(**{f"{name}_std": std[:, k] for k, name in enumerate(names)})

    def to_scipy(self, star: int | None = None) -> Any:
        """The distribution of one star as `scipy.stats.multivariate_normal`."""
        from scipy.stats import Covariance, multivariate_normal

        # from a plain matrix scipy takes labels of very different units for a singular covariance
        one = self if star is None else self[star]
        return multivariate_normal(one.mean(), Covariance.from_cholesky(one.scale_tril))

    def to_torch(self) -> torch.distributions.MultivariateNormal:
        """The batch as `torch.distributions.MultivariateNormal` (needs torch)."""
        import torch

        return torch.distributions.MultivariateNormal(
            torch.as_tensor(self.loc), scale_tril=torch.as_tensor(self.scale_tril)
        )


def _divide(residual, scale):
    """residual / scale, with 0 / 0 = 0: a certain label that was met."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((residual == 0) & (scale == 0), 0.0, residual / scale)


def _diagonal(values):
    """Matrices (..., K, K) with `values` on the diagonal and exact zeros elsewhere."""
    out = np.zeros((*values.shape, values.shape[-1]))
    k = np.arange(values.shape[-1])
    out[..., k, k] = values
    return out


def _cholesky_semidefinite(cov):
    """Cholesky factors of positive semi-definite matrices; NaN where a matrix is not finite."""
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        pass
    out = np.full(cov.shape, np.nan)
    finite = np.isfinite(cov).all(axis=(-1, -2))
    # scale out the units first: eigenvalues of a correlation matrix are comparable
    std = np.sqrt(np.maximum(np.diagonal(cov[finite], axis1=-2, axis2=-1), 0))
    unit = np.where(std > 0, std, 1)
    value, vector = np.linalg.eigh(cov[finite] / (unit[..., :, None] * unit[..., None, :]))
    if np.any(value < -1e-6):
        raise ValueError("A covariance matrix is not positive semi-definite.")
    root = vector * np.sqrt(np.maximum(value, 0))[..., None, :]
    upper = np.linalg.qr(np.swapaxes(root, -1, -2), mode="r")
    sign = np.where(np.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    tril = np.swapaxes(upper * sign[..., :, None], -1, -2)
    out[finite] = unit[..., :, None] * tril
    return out
