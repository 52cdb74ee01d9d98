r"""The population of the training stars as a prior of the labels.

A likelihood takes labels that no star has for as good as those of the main sequence. Regressions of the
labels on spectra have the population of their training set built in, which is how they can beat a better
model of the flux at low S/N. Here the prior is a kernel density of the training labels :math:`t_j`, and
one star in a hundred may lie anywhere in the box of the inversion, of centre `m` and moments `B`:

.. math:: p(x) = \sum_j a_j N(x;\, t_j,\, b^2 C) + 0.01\, N(x;\, m,\, B), \qquad \sum_j a_j = 0.99,

with the covariance `C` of the training labels; labels that occur more than once are one centre, and
:math:`a_j` counts them. The likelihood of a star is Gaussian in the labels, with its total covariance
:math:`\Sigma`, so the posterior is a mixture of Gaussians, whose mean and covariance are returned. Each
component :math:`N(t, W)` contributes

.. math:: w \propto a\, N(t;\, \hat x,\, \Sigma + W), \qquad x = \hat x + G (t - \hat x), \qquad
          \Sigma' = G W, \qquad G = \Sigma (\Sigma + W)^{-1}.

The bandwidth `b` is the one with the best continuous ranked probability score of the training stars,
each with the labels that models without it would find and a density without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from skspec._short_repr import ShortRepr
from skspec.distributions import MultivariateNormal
from skspec.likelihood._spectrum_model import batch_rows

__all__ = ["LabelPopulation"]

BACKGROUND_WEIGHT = 0.01  # share of stars that the training set says nothing about
BANDWIDTHS = np.geomspace(0.05, 1.0, 9)  # in standard deviations of the training labels
MAX_VALIDATION = 2000  # training stars that choose among them
MIN_WIDTH = 1e-6  # of the kernel, in scaled labels: constant labels have none of their own
MIN_SCORE = 1e-6  # below which a label is known, and chooses nothing


@dataclass(frozen=True)
class LabelPopulation(ShortRepr):
    """Density of scaled labels.

    Attributes
    ----------
    centres : ndarray of shape (n, K)
    weight : ndarray of shape (n,)
        Sums to 0.99.
    width : ndarray of shape (K, K)
        Covariance of the kernel.
    background_mean : ndarray of shape (K,)
    background_cov : ndarray of shape (K, K)
        Mean and covariance of the other stars.
    """

    centres: np.ndarray
    weight: np.ndarray
    width: np.ndarray
    background_mean: np.ndarray
    background_cov: np.ndarray

    @classmethod
    def learn(
        cls,
        labels: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        x: np.ndarray,
        found: np.ndarray,
        cov: np.ndarray,
    ) -> LabelPopulation:
        """The density whose posteriors of training stars score best.

        Parameters
        ----------
        labels : ndarray of shape (n, K)
            Scaled labels of the training stars.
        lower, upper : ndarray of shape (K,)
            Box of the labels.
        x, found : ndarray of shape (m, K)
            Labels of validation stars, and those that a model finds which has not seen them. Those
            with the labels of a training star validate densities without it.
        cov : ndarray of shape (m, K, K)
            Covariance of the difference.
        """
        if len(x) > MAX_VALIDATION:
            some = np.random.default_rng(0).choice(len(x), MAX_VALIDATION, replace=False)
            x, found, cov = x[some], found[some], cov[some]
        centres, rows = np.unique(np.vstack([labels, x]), axis=0, return_inverse=True)
        rows = rows.reshape(-1)
        count = np.bincount(rows[: len(labels)], minlength=len(centres))  # of the stars alone
        known = count > 0
        place = np.where(known, np.cumsum(known) - 1, -1)
        spread = np.atleast_2d(np.cov(labels, rowvar=False))
        floor = MIN_WIDTH**2 * np.eye(len(spread))
        background_cov = np.diag((upper - lower) ** 2 / 12) + floor
        weight = (1 - BACKGROUND_WEIGHT) * count[known] / len(labels)
        density = cls(centres[known], weight, floor, 0.5 * (lower + upper), background_cov)
        densities = [replace(density, width=b**2 * spread + floor) for b in BANDWIDTHS]
        without = place[rows[len(labels) :]]
        return min(densities, key=lambda one: one.score(x, found, cov, without))

    def score(
        self, x: np.ndarray, found: np.ndarray, cov: np.ndarray, without: np.ndarray | None
    ) -> float:
        """Sum over labels of the log of their mean score: no preference for a unit."""
        mean, left = self.posterior(found, cov, without)
        crps = MultivariateNormal(mean, cov=left).crps(x).mean(axis=0)
        return np.sum(np.log(np.maximum(crps, MIN_SCORE)))

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density (m,) at scaled labels (m, K), up to a constant."""
        # labels that go together make the width nearly singular: its inverse may have no root
        root = np.linalg.cholesky(self.width)
        seen, centres = (np.linalg.solve(root, labels.T) for labels in (x, self.centres))
        square = sum((a[:, None] - b) ** 2 for a, b in zip(seen, centres))
        log_parts = np.log(self.weight) - 0.5 * square
        log_parts -= np.sum(np.log(np.diag(root))) + 0.5 * len(root) * np.log(2 * np.pi)
        away, wide = x - self.background_mean, np.linalg.inv(self.background_cov)
        alone = _log_normal(np.einsum("mk,kl,ml->m", away, wide, away), wide[None])
        return np.logaddexp(logsumexp(log_parts, axis=1), np.log(BACKGROUND_WEIGHT) + alone)

    def posterior(
        self, mean: np.ndarray, cov: np.ndarray, without: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Moments of the labels, given the Gaussian that the spectrum says.

        Parameters
        ----------
        mean : ndarray of shape (m, K)
        cov : ndarray of shape (m, K, K)
        without : ndarray of int of shape (m,), optional
            Centre that does not count for each star; -1: all do.

        Returns
        -------
        mean : ndarray of shape (m, K)
        cov : ndarray of shape (m, K, K)
            Both as they were for stars without information.
        """
        mean, cov = mean.copy(), cov.copy()
        known = np.flatnonzero(np.isfinite(mean).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
        step = batch_rows(len(self.centres))
        for start in range(0, len(known), step):
            rows = known[start : start + step]
            left_out = None if without is None else without[rows]
            mean[rows], cov[rows] = self._posterior(mean[rows], cov[rows], left_out)
        return mean, cov

    def _posterior(self, mean, cov, without):
        log_weight, gain = self._log_weights(mean, cov)
        if without is not None:
            one = np.flatnonzero(without >= 0)
            log_weight[one, without[one]] = -np.inf
        away = self.background_mean - mean
        precise = np.linalg.inv(cov + self.background_cov)
        log_alone = np.log(BACKGROUND_WEIGHT) + _log_normal(
            np.einsum("mk,mkl,ml->m", away, precise, away), precise
        )
        highest = np.maximum(log_weight.max(axis=1), log_alone)
        weight = np.exp(log_weight - highest[:, None])
        alone = np.exp(log_alone - highest)
        whole = weight.sum(axis=1) + alone
        weight, alone = weight / whole[:, None], alone / whole
        among, first, second = self._moments(weight, mean)
        far = cov @ precise
        out = (far @ away[..., None])[..., 0]
        step = (gain @ first[..., None])[..., 0] + alone[:, None] * out
        left = among[:, None, None] * (gain @ self.width)
        left += alone[:, None, None] * (
            far @ self.background_cov + out[:, :, None] * out[:, None, :]
        )
        left += gain @ second @ np.swapaxes(gain, 1, 2) - step[:, :, None] * step[:, None, :]
        return mean + step, 0.5 * (left + np.swapaxes(left, 1, 2))

    def widened(self, cov: np.ndarray) -> LabelPopulation:
        """Density of labels with errors of this covariance (K, K)."""
        return replace(self, width=self.width + cov, background_cov=self.background_cov + cov)

    def draw(self, seen: np.ndarray, cov: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Labels (m, K) of stars whose labels with errors of covariance `cov` (K, K) are `seen`.

        One of the posterior of each; `random` is a `numpy.random.Generator`.
        """
        parts, step = [], batch_rows(len(self.centres))
        for start in range(0, len(seen), step):
            parts.append(self._draw(seen[start : start + step], cov, random))
        return np.concatenate(parts)

    def _draw(self, seen, cov, random):
        of_all = np.broadcast_to(cov, (len(seen), *cov.shape))
        away, precise = self.background_mean - seen, np.linalg.inv(cov + self.background_cov)
        alone = _log_normal(np.einsum("mk,kl,ml->m", away, precise, away), precise[None])
        logs = np.column_stack(
            [self._log_weights(seen, of_all)[0], np.log(BACKGROUND_WEIGHT) + alone]
        )
        chosen = np.argmax(logs + random.gumbel(size=logs.shape), axis=1)
        out, far = np.empty_like(seen), chosen == len(self.centres)
        draws = random.normal(size=seen.shape)
        centres = self.centres[np.where(far, 0, chosen)]
        for rows, centre, width in (
            (~far, centres, self.width),
            (far, np.broadcast_to(self.background_mean, seen.shape), self.background_cov),
        ):
            gain = cov @ np.linalg.inv(cov + width)
            value, vector = np.linalg.eigh(0.5 * (gain @ width + (gain @ width).T))
            root = vector * np.sqrt(np.maximum(value, 0.0))  # an error may be zero
            out[rows] = seen[rows] + (centre - seen)[rows] @ gain.T + draws[rows] @ root.T
        return out

    @cached_property
    def _origin(self):
        return self.centres.mean(axis=0)

    @cached_property
    def _powers(self):
        """Centres (n, K) about their mean, and the products (n, K (K + 1) / 2) of their labels."""
        t = self.centres - self._origin
        first, second = np.triu_indices(t.shape[1])
        return t, t[:, first] * t[:, second]

    def _log_weights(self, mean, cov):
        """Of all stars and centres (m, n), as one product of matrices; and the gain (m, K, K)."""
        x, (t, squares) = mean - self._origin, self._powers
        first, second = np.triu_indices(t.shape[1])
        precise = np.linalg.inv(cov + self.width)
        twice = np.where(first == second, 1.0, 2.0)
        pull = (precise @ x[..., None])[..., 0]
        terms = np.hstack([twice * precise[:, first, second], -2 * pull])
        square = terms @ np.hstack([squares, t]).T
        square += np.einsum("mk,mk->m", pull, x)[:, None]
        return np.log(self.weight) + _log_normal(square, precise), cov @ precise

    def _moments(self, weight, mean):
        """Weights (m,) of all centres together, and first and second moments of centre - mean."""
        x, (t, squares) = mean - self._origin, self._powers
        first, second = np.triu_indices(t.shape[1])
        among, linear = weight.sum(axis=1), weight @ t
        square = np.empty((*x.shape, x.shape[1]))
        square[:, first, second] = weight @ squares
        square[:, second, first] = square[:, first, second]
        cross = linear[:, :, None] * x[:, None, :]
        square += among[:, None, None] * x[:, :, None] * x[:, None, :]
        square -= cross + np.swapaxes(cross, 1, 2)
        return among, linear - among[:, None] * x, square


def _log_normal(square, precision):
    """Log density of squared distances (m, ...) under a covariance of this inverse (m, K, K)."""
    log_det = np.linalg.slogdet(precision)[1] - precision.shape[1] * np.log(2 * np.pi)
    return 0.5 * (log_det.reshape(-1, *[1] * (square.ndim - 1)) - square)
