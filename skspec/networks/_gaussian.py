r"""A Gaussian over labels as the output of a network, and its loss.

The covariance of K standardised labels is :math:`\Sigma = L\,\mathrm{diag}(d)\,L^T` with L lower
triangular of unit diagonal (the identity for independent labels) and

.. math:: d_k = a_k^2 + \nu^2 b_k^2,

where :math:`\nu` is the noise of the star in units of that typical in training. Mean, L, a > 0 and
b > 0 do not know :math:`\nu`: more noise never narrows an interval, by construction, and far from the
noise of the training set errors grow as they must, in proportion.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["GaussianHead", "GaussianLoss"]

FLOOR = 1e-3  # of a and b, in standard deviations of a label
PRIOR_STARS = 10  # stars, of which the scale of the errors counts half


class GaussianHead(nn.Module):
    """Features to mean, d and L of the labels.

    Parameters
    ----------
    n_features, n_labels : int
    covariance : {"diagonal", "full"}
    knows_noise : bool
        Whether there is a noise level: else b is missing.
    """

    def __init__(self, n_features: int, n_labels: int, covariance: str, knows_noise: bool):
        super().__init__()
        self.mean = nn.Linear(n_features, n_labels)
        self.model = nn.Linear(n_features, n_labels)
        self.photon = nn.Linear(n_features, n_labels) if knows_noise else None
        n_below = n_labels * (n_labels - 1) // 2 if covariance == "full" else 0
        self.below = nn.Linear(n_features, n_below) if n_below else None
        self.register_buffer("lower", torch.tril_indices(n_labels, n_labels, -1), persistent=False)

    def forward(
        self, features: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Mean (n, K), d (n, K) and L (n, K, K), or None for the identity."""
        variance = (F.softplus(self.model(features)) + FLOOR).square()
        if self.photon is not None:
            photon = (F.softplus(self.photon(features)) + FLOOR).square()
            variance = variance + noise[:, None].square() * photon
        return self.mean(features), variance, self._factor(features)

    def _factor(self, features):
        if self.below is None:
            return None
        n_labels = self.mean.out_features
        factor = torch.eye(n_labels, dtype=features.dtype, device=features.device)
        factor = factor.repeat(len(features), 1, 1)
        factor[:, self.lower[0], self.lower[1]] = self.below(features).to(factor.dtype)
        return factor


class GaussianLoss(nn.Module):
    r"""Negative log likelihood of labels, per star.

    .. math:: \sum_k \tfrac12 \left[\ln 2\pi d_k + (L^{-1} r)_k^2 / d_k\right],\quad r = y - \mu

    In training each term is multiplied by :math:`d_k^\beta`, held constant (beta-NLL, Seitzer et al.
    2022): without it, stars and labels that are badly predicted pull the mean ever less.

    Parameters
    ----------
    beta : float
        0: the likelihood itself; 1: the mean is fitted by least squares.
    rescale : bool
        In validation give the variance of each label the factor that suits the stars (a mean square of
        z, together with 10 stars where it is 1): whoever scales the errors afterwards should not
        choose the state where they need it least.

    References
    ----------
    Seitzer, Tavakoli, Antic & Martius 2022, ICLR (arXiv:2203.09168).
    """

    def __init__(self, beta: float = 0.0, rescale: bool = False):
        super().__init__()
        self.beta, self.rescale = beta, rescale

    def forward(self, predicted: tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        mean, variance, factor = predicted
        residual = target - mean
        if factor is not None:
            residual = torch.linalg.solve_triangular(
                factor, residual[:, :, None], upper=False, unitriangular=True
            )[:, :, 0]
        if self.rescale and not self.training:
            total = (residual.square() / variance).sum(dim=0)
            variance = variance * (total + PRIOR_STARS) / (len(target) + PRIOR_STARS)
        terms = 0.5 * ((2 * math.pi * variance).log() + residual.square() / variance)
        if self.training and self.beta:
            terms = terms * variance.detach() ** self.beta
        return terms.sum(dim=1).mean()
