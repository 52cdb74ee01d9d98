r"""The population of the training stars as a prior of the labels.

A likelihood takes labels that no star has for as good as those of the main sequence. Regressions of the
labels on spectra have the population of their training set built in, which is how they can beat a better
model of the flux at low S/N. Here the prior is a kernel density of the training labels
:math:`t_j`, and one star in a hundred may lie anywhere in the box of volume `V`:

.. math:: p(x) = \frac{0.99}{n} \sum_j N(x;\, t_j,\, b^2 C) + \frac{0.01}{V},

with their covariance `C`. The likelihood of a star is Gaussian in the labels, with its total covariance
:math:`\Sigma`, so the posterior is a mixture of Gaussians, whose mean and covariance are returned:

.. math:: w_j \propto N(t_j;\, \hat x,\, \Sigma + b^2 C), \qquad G = \Sigma (\Sigma + b^2 C)^{-1}, \qquad
          x = \hat x + G \sum_j w_j (t_j - \hat x).

The bandwidth `b` is the one with the best continuous ranked probability score of the training stars,
each with the labels that models without it would find and a density without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec.distributions import MultivariateNormal
from skspec.forward._inversion import batch_rows

__all__ = ["LabelPopulation"]

ELSEWHERE = 0.01  # share of stars that the training set says nothing about
BANDWIDTHS = np.geomspace(0.05, 1.0, 9)  # in standard deviations of the training labels
MAX_JUDGES = 2000  # training stars that choose among them
LEAST_WIDTH = 1e-6  # of the kernel, in scaled labels: constant labels have none of their own


@dataclass(frozen=True)
class LabelPopulation:
    """Density of scaled labels.

    Attributes
    ----------
    centres : ndarray of shape (n, K)
    width : ndarray of shape (K, K)
        Covariance of the kernel.
    volume : float
        Of the box in which the other stars lie.
    """

    centres: np.ndarray
    width: np.ndarray
    volume: float

    @classmethod
    def learn(cls, centres, volume, rows, x, found, cov) -> LabelPopulation:
        """The density whose posteriors of training stars score best.

        Parameters
        ----------
        centres : ndarray of shape (n, K)
            Scaled labels of the training stars.
        volume : float
        rows : ndarray of int of shape (m,)
            Which of them each judge is; -1 for none.
        x, found : ndarray of shape (m, K)
            Labels of the judges, and those that a model finds which has not seen them.
        cov : ndarray of shape (m, K, K)
            Covariance of the difference.
        """
        spread = np.atleast_2d(np.cov(centres, rowvar=False))
        floor = LEAST_WIDTH**2 * np.eye(len(spread))
        if len(x) > MAX_JUDGES:
            some = np.random.default_rng(0).choice(len(x), MAX_JUDGES, replace=False)
            rows, x, found, cov = rows[some], x[some], found[some], cov[some]
        densities = [cls(centres, b**2 * spread + floor, volume) for b in BANDWIDTHS]
        scores = []
        for density in densities:
            mean, left = density.posterior(found, cov, without=rows)
            crps = MultivariateNormal(mean, cov=left).crps(x)
            # the product of the labels' scores has no preference for a unit
            scores.append(np.sum(np.log(np.maximum(crps.mean(axis=0), LEAST_WIDTH))))
        return densities[int(np.argmin(scores))]

    def posterior(self, mean, cov, without=None):
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
        (n, n_labels), centre = self.centres.shape, self.centres.mean(axis=0)
        t, x = self.centres - centre, mean - centre
        pair = np.triu_indices(n_labels)
        squares = t[:, pair[0]] * t[:, pair[1]]
        total = cov + self.width
        precise = np.linalg.inv(total)
        # -log N(t; x, total) of all stars and centres as one product of matrices
        twice = np.where(pair[0] == pair[1], 1.0, 2.0)
        pull = np.einsum("mkl,ml->mk", precise, x)
        terms = np.hstack([twice * precise[:, pair[0], pair[1]], -2 * pull])
        square = terms @ np.hstack([squares, t]).T + np.einsum("mk,mk->m", pull, x)[:, None]
        log_det = np.linalg.slogdet(total)[1] + n_labels * np.log(2 * np.pi)
        log_weight = -0.5 * (square + log_det[:, None]) + np.log((1 - ELSEWHERE) / n)
        if without is not None:
            one = np.flatnonzero(without >= 0)
            log_weight[one, without[one]] = -np.inf
        elsewhere = np.log(ELSEWHERE / self.volume)
        highest = np.maximum(log_weight.max(axis=1), elsewhere)
        weight = np.exp(log_weight - highest[:, None])
        alone = np.exp(elsewhere - highest)
        whole = weight.sum(axis=1) + alone
        weight /= whole[:, None]
        among = weight.sum(axis=1)
        # moments of t - x
        first = weight @ t - among[:, None] * x
        second = np.empty_like(cov)
        second[:, pair[0], pair[1]] = weight @ squares
        second[:, pair[1], pair[0]] = second[:, pair[0], pair[1]]
        cross = (weight @ t)[:, :, None] * x[:, None, :]
        second += among[:, None, None] * x[:, :, None] * x[:, None, :]
        second -= cross + np.swapaxes(cross, 1, 2)
        gain = cov @ precise
        step = np.einsum("mkl,ml->mk", gain, first)
        within = cov - among[:, None, None] * (gain @ cov)
        between = gain @ second @ np.swapaxes(gain, 1, 2) - step[:, :, None] * step[:, None, :]
        left = within + between
        return mean + step, 0.5 * (left + np.swapaxes(left, 1, 2))
