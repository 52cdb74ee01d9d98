r"""The model's own error, measured in label space from training stars it has not seen.

Model errors are small per pixel but coherent between pixels, so they add up along the gradient
spectra while photon noise averages out: formal errors alone cover 5-40 % where 68 % is promised.
The spectral residual :math:`r_i` that a model trained without star `i` leaves is projected on labels,

.. math:: F_i = J_i^T W_i J_i, \qquad
          H_i = F_i - \sum_j w_{ij} r_{ij} \nabla^2 f_j, \qquad
          e_i = H_i^{-1} J_i^T W_i r_i,

which is the label error the model would make on that star: one Newton step from the true labels.
Where velocity, broadening or continuum are free, their derivatives are further columns of J. The
curvature matters, for the residuals of a wrong model are not small: a Gauss-Newton step (without it)
was 20-40 % short of a full inversion with the same cross-validated models, the Newton step within 5 %.

Wrong labels are told from the Gauss-Newton step all the same. Where a spectrum holds a label weakly the
curvature makes any residual a large error: that is the fault of the model there, not of the label, and
stars removed for it are those the model has most to learn from. On MILES this removed twice as many,
and the rest trained a worse model than all stars together.

Models are worse at the edge of the training set than in its middle, so the variance is measured there
where the star is; with few stars, or for the correlations, over the whole set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from skspec._short_repr import ShortRepr
from skspec.likelihood._normal_equations import TINY_INFORMATION, NormalEquations
from skspec.likelihood._spectrum_model import batch_rows
from skspec.metrics import ONE_SIGMA

__all__ = ["LabelErrorSum", "LabelErrors", "LocalCovariance", "excess_covariance"]

MIN_CURVATURE = 0.2  # of the Fisher information, along any direction
N_LOCAL = 200  # training stars around a star; fewer leave the quantile too noisy, errors too small


@dataclass(frozen=True)
class LabelErrors(ShortRepr):
    """Label errors of training stars, in scaled labels.

    Attributes
    ----------
    error : ndarray of shape (n, M)
        One Newton step from the true labels of each star; after those of the K labels, the errors
        of other free parameters.
    formal : ndarray of shape (n, M, M)
        Covariance that photons and pixel scatter alone would give.
    informed : ndarray of bool of shape (n,)
        Stars with any good pixel.
    first_order : ndarray of shape (n, M), optional
        Gauss-Newton steps: the errors without curvature, by which `outliers` judges. Default: `error`.
    reduced_chi2 : ndarray of shape (n,), optional
        Of the residuals that are left after the Gauss-Newton step; NaN without degrees of freedom.
    """

    error: np.ndarray
    formal: np.ndarray
    informed: np.ndarray
    first_order: np.ndarray | None = None
    reduced_chi2: np.ndarray | None = None

    @property
    def formal_variance(self) -> np.ndarray:
        """Diagonal of `formal`, shape (n, M)."""
        return np.diagonal(self.formal, axis1=1, axis2=2)

    def outliers(self, covariance: np.ndarray, n_sigma: float) -> np.ndarray:
        """Stars off by more than `n_sigma` robust standard deviations in any label (or velocity)."""
        error = self.error if self.first_order is None else self.first_order
        z = error / np.sqrt(self.formal_variance + np.diag(covariance))
        z = np.where(self.informed[:, None], z, 0.0)
        centre = np.median(z[self.informed], axis=0)
        spread = 1.4826 * np.median(np.abs(z[self.informed] - centre), axis=0)
        limit = n_sigma * np.where(spread > 0, spread, np.inf)
        return (np.abs(z - centre) > limit).any(axis=1)


class LabelErrorSum:
    """Normal equations at the true labels, and ``sum w r f''``, of n stars and K labels.

    `n_more` columns of the design beyond those of the labels belong to other free parameters; second
    derivatives with respect to those are neglected.
    """

    def __init__(self, n: int, n_labels: int, n_more: int = 0):
        self.normal = NormalEquations.zeros(n, n_labels + n_more)
        self.curvature = np.zeros((n, n_labels, n_labels))
        self.n_good = np.zeros(n, dtype=int)

    def put(
        self, rows: Any, normal: NormalEquations, n_good: np.ndarray, curvature: np.ndarray
    ) -> None:
        """Add the sums over pixels of some stars.

        Parameters
        ----------
        rows : index of m stars
        normal : NormalEquations
        n_good : ndarray of int of shape (m,)
        curvature : ndarray of shape (m, K, K)
            Sum over pixels of weighted residuals times second derivatives of the flux.
        """
        self.normal.add_to(rows, normal)
        self.n_good[rows] += n_good
        self.curvature[rows] += curvature

    def merge(self, rows: Any, other: LabelErrorSum) -> None:
        """Add the sums of `other`, which are those of the stars `rows`."""
        self.put(rows, other.normal, other.n_good, other.curvature)

    def errors(self, n_kept: int | None = None) -> LabelErrors:
        """Errors of all stars, of the labels and of `n_kept` parameters in all (default: all)."""
        n_columns, n_labels = self.normal.score.shape[1], self.curvature.shape[1]
        fisher = self.normal.information + TINY_INFORMATION * np.eye(n_columns)
        curvature = np.zeros_like(fisher)
        curvature[:, :n_labels, :n_labels] = self.curvature
        formal = np.linalg.inv(fisher)
        # in units of sigma H is I - L^-1 C L^-T; keep it positive, so that no step runs away
        inverse = np.linalg.inv(np.linalg.cholesky(fisher))
        bent = inverse @ curvature @ np.swapaxes(inverse, 1, 2)
        value, vector = np.linalg.eigh(np.eye(n_columns) - bent)
        white = np.swapaxes(vector, 1, 2) @ inverse @ self.normal.score[..., None]
        white /= np.maximum(value, MIN_CURVATURE)[..., None]
        error = (np.swapaxes(inverse, 1, 2) @ vector @ white)[..., 0]
        first_order = (formal @ self.normal.score[..., None])[..., 0]
        chi2 = self.normal.chi2 - np.einsum("nk,nk->n", first_order, self.normal.score)
        freedom = self.n_good - n_columns
        reduced = np.where(freedom > 0, chi2 / np.maximum(freedom, 1), np.nan)
        kept = slice(n_kept)
        return LabelErrors(
            error[:, kept], formal[:, kept, kept], self.n_good > 0, first_order[:, kept], reduced
        )


def excess_covariance(errors: LabelErrors) -> np.ndarray:
    r"""Covariance `S` to be added to the formal one, such that the sum tells the truth.

    The spread of the errors beyond their formal variance. The textbook estimate
    :math:`\langle e e^T - F^{-1}\rangle` is ruined by a few wrong literature labels, so the diagonal
    is taken where one sigma is defined: :math:`S_{kk}` is the 68.27 % quantile of
    :math:`e_{ik}^2 - (F_i^{-1})_{kk}`, which makes exactly that fraction of the cross-validated stars
    lie within one total sigma (and equals the textbook value for Gaussian errors). Correlations come
    from the errors clipped at three such sigma.

    Returns
    -------
    ndarray of shape (K, K)
        Positive semi-definite, in scaled labels.
    """
    error, formal = errors.error[errors.informed], errors.formal_variance[errors.informed]
    if len(error) < 2:
        return np.zeros((error.shape[1], error.shape[1]))
    variance = _variance_beyond(error**2 - formal)
    return _correlation(error, formal + variance) * np.sqrt(np.outer(variance, variance))


@dataclass(frozen=True)
class LocalCovariance(ShortRepr):
    """The same, with variances measured around each of `n` training stars.

    Attributes
    ----------
    correlation : ndarray of shape (M, M)
        Of the errors of all stars.
    variance : ndarray of shape (n, M)
    """

    correlation: np.ndarray
    variance: np.ndarray

    @classmethod
    def around(cls, centres: np.ndarray, x: np.ndarray, errors: LabelErrors) -> LocalCovariance:
        """Variances of the errors of the 200 stars nearest to each centre; of all, where fewer.

        All are multiplied by one factor for each label, so that one total sigma holds as many stars as
        it promises.

        Parameters
        ----------
        centres : ndarray of shape (n, K)
            Scaled labels.
        x : ndarray of shape (N, K)
            Scaled labels of the stars with these `errors`.
        """
        error, formal = errors.error[errors.informed], errors.formal_variance[errors.informed]
        excess, overall = error**2 - formal, np.diag(excess_covariance(errors))
        correlation = _correlation(error, formal + overall)
        variance = np.tile(overall, (len(centres), 1))
        if len(error) > N_LOCAL:
            tree, step = cKDTree(x[errors.informed]), batch_rows(N_LOCAL * len(overall))
            for start in range(0, len(centres), step):
                rows = slice(start, start + step)
                near = tree.query(centres[rows], k=N_LOCAL)[1]
                variance[rows] = _variance_beyond(excess[near], axis=1)
            # a star at the edge has neighbours further in, where errors are smaller
            own = variance[cKDTree(centres).query(x[errors.informed])[1]]
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(own > 0, excess / own, np.where(excess > 0, np.inf, -np.inf))
            factor = np.quantile(share, ONE_SIGMA, axis=0, method="closest_observation")
            variance *= np.where(np.isfinite(factor), np.maximum(factor, 0.0), 1.0)
        return cls(correlation, variance)

    def near(self, rows: np.ndarray) -> np.ndarray:
        """Covariance (m, M, M): mean variance at the training stars `rows` (m, k)."""
        sigma = np.sqrt(self.variance[rows].mean(axis=1))
        return self.correlation * sigma[:, :, None] * sigma[:, None, :]


def _variance_beyond(excess, axis=0):
    """Variance that one sigma needs on top of the formal one."""
    return np.maximum(np.quantile(excess, ONE_SIGMA, axis=axis), 0.0)


def _correlation(error, variance):
    """Correlation matrix of the errors, clipped at three sigma; zero where there are none."""
    z = np.clip(error / np.sqrt(variance), -3, 3)
    product = z.T @ z
    spread = np.sqrt(np.diag(product))
    spread = np.where(spread > 0, spread, 1.0)
    return product / np.outer(spread, spread)
