"""SLAM's work on one chunk of pixels: choose hyperparameters, fit, cross-validate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec.forward._label_covariance import LabelErrorSum
from skspec.forward._nuisance import NuisanceColumns
from skspec.solvers.kernels.svr import fit_svr, fit_svr_libsvm
from skspec.solvers.kernels.svr_active_set import leave_one_out

__all__ = ["SOLVERS", "SLAMJob", "SLAMPixels", "fit_pixels", "rbf_kernel"]

SOLVERS = {"batched": fit_svr, "libsvm": fit_svr_libsvm}
SCORING_TOL = 1e-3  # libsvm's own default: scores of hyperparameters need no more


def rbf_kernel(first, second, gamma):
    """``exp(-gamma |a - b|^2)`` of all pairs of rows."""
    distance2 = np.sum(first**2, axis=1)[:, None] - 2 * first @ second.T + np.sum(second**2, axis=1)
    return np.exp(-gamma * np.maximum(distance2, 0.0))


def rbf_curvature(x, centres, kernel, gamma, weight):
    """``sum_i weight_i d2k(x, x_i)/dx2`` for weights (m, n): (m, K, K)."""
    pull = weight * kernel
    first = pull @ centres
    pairs = (centres[:, :, None] * centres[:, None, :]).reshape(len(centres), -1)
    second = (pull @ pairs).reshape(len(x), *first.shape[1:], -1)
    total = pull.sum(axis=1)[:, None, None]
    cross = x[:, :, None] * first[:, None, :]
    moments = second - cross - np.swapaxes(cross, 1, 2) + total * x[:, :, None] * x[:, None, :]
    return 4 * gamma**2 * moments - 2 * gamma * total * np.eye(x.shape[1])


@dataclass(frozen=True)
class SLAMJob:
    """What all chunks of pixels share.

    Attributes
    ----------
    labels : ndarray of shape (n, K)
        Standardised labels.
    kernels : dict
        gamma -> kernel matrix (n, n).
    grid : list of (C, epsilon, gamma)
    operators : dict
        gamma -> what the batched solver needs of the kernel.
    folds : ndarray of int of shape (n,)
        Number of the fold that holds each star.
    selection : {"loo", "folds"}
    solver : str
    tol : float
    label_errors : bool
        Whether the label errors are wanted.
    """

    labels: np.ndarray
    kernels: dict
    grid: list
    operators: dict
    folds: np.ndarray
    selection: str
    solver: str
    tol: float
    label_errors: bool
    keep: bool = False

    def solve(self, Y, point, weight, tol):
        """Support vector regression of all columns of `Y` with one (C, epsilon, gamma)."""
        C, epsilon, gamma = point
        extra = {"operator": self.operators[gamma]} if self.solver == "batched" else {}
        return SOLVERS[self.solver](
            self.kernels[gamma], Y, C=C, epsilon=epsilon, sample_weight=weight, tol=tol, **extra
        )

    def slopes(self, gamma):
        """Derivative of ``k(x_i, x_j)`` with respect to `x_i`, shape (n, n, K)."""
        difference = self.labels[None] - self.labels[:, None]
        return 2 * gamma * difference * self.kernels[gamma][:, :, None]


@dataclass
class HeldOut:
    """Stars seen by models that were trained without them, for some pixels.

    Attributes
    ----------
    residual : ndarray of shape (n, B)
    jacobian : ndarray of shape (n, K, B)
    duals : list of (rows, dual (n, B))
        The model of each group of stars.
    """

    residual: np.ndarray
    jacobian: np.ndarray | None
    duals: list


@dataclass
class SLAMPixels:
    """Fit of some pixels, in standardised flux.

    Attributes
    ----------
    dual_coef : ndarray of shape (n, B)
    intercept, mse, scatter : ndarray of shape (B,)
        `mse` is cross-validated; `scatter` is what it exceeds the photon variance by.
    choice : ndarray of int of shape (B,)
        Number of the grid point of each pixel.
    errors : LabelErrorSum
        Contribution of these pixels to the label errors of the training stars.
    residual, jacobian : ndarray of shape (n, B), (n, K, B)
        Of stars held out, where they are kept.
    duals : ndarray of shape (F, n, B)
        Of the models that did not see each fold, where they are kept.
    """

    dual_coef: np.ndarray
    intercept: np.ndarray
    choice: np.ndarray
    mse: np.ndarray
    scatter: np.ndarray
    errors: LabelErrorSum
    residual: np.ndarray | None = None
    jacobian: np.ndarray | None = None
    duals: np.ndarray | None = None


@dataclass(frozen=True)
class ChunkColumns:
    """Derivatives of standardised flux with respect to velocity, broadening and continuum.

    Attributes
    ----------
    columns : NuisanceColumns
    pixels : slice
    mean, std : ndarray of shape (B,)
        Standardisation of those pixels.
    """

    columns: NuisanceColumns
    pixels: slice
    mean: np.ndarray
    std: np.ndarray

    def __call__(self, Y):
        return self.columns(Y * self.std + self.mean, self.pixels) / self.std


def fit_pixels(job: SLAMJob, Y, good, photon, floor, more=None) -> SLAMPixels:
    """Fit a chunk of pixels.

    Parameters
    ----------
    job : SLAMJob
    Y : ndarray of shape (n, B)
        Standardised flux.
    good : ndarray of bool of shape (n, B)
    photon : ndarray of shape (n, B)
        Photon variance in the unit of `Y`; ``inf`` at bad pixels.
    floor : ndarray of shape (B,)
        Least variance that is believed.
    more : ChunkColumns, optional
        Of what is fitted to each star besides the labels.
    """
    weight = None
    if not good.all():
        weight, Y = good.astype(float), np.where(good, Y, 0.0)
    n_pixels = Y.shape[1]
    choice = _choose(job, Y, weight, good)
    out = SLAMPixels(
        np.zeros_like(Y),
        np.zeros(n_pixels),
        choice,
        np.zeros(n_pixels),
        np.zeros(n_pixels),
        LabelErrorSum(*job.labels.shape, 0 if more is None else len(more.columns)),
    )
    residual = np.empty_like(Y)
    if job.keep:
        out.duals = np.zeros((job.folds.max() + 1, *Y.shape), np.float32)
    jacobian = np.empty((len(Y), job.labels.shape[1], n_pixels)) if job.label_errors else None
    for number in np.unique(choice):
        mine, point = choice == number, job.grid[number]
        y, w = Y[:, mine], None if weight is None else weight[:, mine]
        solution = job.solve(y, point, w, job.tol)
        out.dual_coef[:, mine], out.intercept[mine] = solution.dual_coef, solution.intercept
        held = _hold_out(job, y, solution, point, w)
        _measure(out, mine, held, good[:, mine], photon[:, mine])
        residual[:, mine] = held.residual
        if job.label_errors:
            jacobian[:, :, mine] = held.jacobian
        if job.keep:
            for fold, (_, dual) in enumerate(held.duals):
                out.duals[fold][:, mine] = dual
        elif job.label_errors:
            inverse = 1.0 / (photon[:, mine] + out.scatter[mine] ** 2 + floor[mine])
            out.errors.curvature += _curvature(job, held, point[2], inverse * held.residual)
    if job.keep:  # the sums need all pixels at once
        out.residual = np.where(good, residual, 0.0).astype(np.float32)
        out.jacobian = jacobian.astype(np.float32)
    elif job.label_errors:
        if more is not None:
            jacobian = np.concatenate([jacobian, more(Y - residual)], axis=1)
        inverse = 1.0 / (photon + out.scatter**2 + floor)
        out.errors.add(slice(None), inverse, residual, jacobian, lambda pull: 0.0)
    return out


def _measure(out, mine, held, good, photon):
    """Pixel errors from the stars held out."""
    n_good = np.maximum(good.sum(axis=0), 1)
    out.mse[mine] = np.sum(held.residual**2, axis=0, where=good) / n_good
    known = np.sum(photon, axis=0, where=np.isfinite(photon)) / n_good
    out.scatter[mine] = np.sqrt(np.maximum(out.mse[mine] - known, 0.0))


def _curvature(job, held, gamma, pull):
    """Sum over pixels of weighted residuals `pull` (n, B) times second derivatives of the flux."""
    total = np.zeros((len(pull), *2 * job.labels.shape[1:]))
    for rows, dual in held.duals:
        kernel, weight = job.kernels[gamma][rows], pull[rows] @ dual.T
        total[rows] = rbf_curvature(job.labels[rows], job.labels, kernel, gamma, weight)
    return total


def _choose(job, Y, weight, good):
    """Number of the grid point with the least cross-validated squared error, for each pixel."""
    best, choice = np.full(Y.shape[1], np.inf), np.zeros(Y.shape[1], dtype=int)
    if len(job.grid) == 1:
        return choice
    for number, point in enumerate(job.grid):
        if job.selection == "loo":
            solution = job.solve(Y, point, weight, SCORING_TOL)
            residual = _leave_one_out(job, Y, solution, point, weight)
        else:
            residual = _leave_folds_out(job, Y, point, weight, with_slopes=False).residual
        score = np.sum(residual**2, axis=0, where=good)
        better = score < best
        best[better], choice[better] = score[better], number
    return choice


def _hold_out(job, Y, solution, point, weight):
    if job.label_errors or job.selection != "loo":
        return _leave_folds_out(job, Y, point, weight, job.label_errors)
    return HeldOut(_leave_one_out(job, Y, solution, point, weight), None, [])


def _leave_one_out(job, Y, solution, point, weight):
    C, epsilon, gamma = point
    return leave_one_out(
        job.kernels[gamma], Y, solution, C=C, epsilon=epsilon, sample_weight=weight
    )


def _leave_folds_out(job, Y, point, weight, with_slopes):
    """Stars held out are masked, so that all folds share one kernel matrix."""
    kernel = job.kernels[point[2]]
    slopes = job.slopes(point[2]) if with_slopes else None
    held = HeldOut(np.empty_like(Y), None, [])
    if with_slopes:
        held.jacobian = np.empty((len(Y), job.labels.shape[1], Y.shape[1]))
    for fold in range(job.folds.max() + 1):
        rows = np.flatnonzero(job.folds == fold)
        w = np.ones_like(Y) if weight is None else weight.copy()
        w[rows] = 0.0
        solution = job.solve(Y, point, w, SCORING_TOL)
        held.residual[rows] = Y[rows] - kernel[rows] @ solution.dual_coef - solution.intercept
        if with_slopes:
            by_label = np.moveaxis(slopes[rows], 2, 1)
            held.jacobian[rows] = by_label @ solution.dual_coef
            held.duals.append((rows, solution.dual_coef))
    return held
