"""SLAM's work on one chunk of pixels: choose hyperparameters, fit, cross-validate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.solvers.kernels.svr import fit_svr, fit_svr_libsvm
from skspec.solvers.kernels.svr_active_set import leave_one_out

__all__ = [
    "SOLVERS",
    "SLAMJob",
    "SLAMPixels",
    "fit_pixels",
    "rbf_curvature",
    "rbf_kernel",
    "rbf_slopes",
]

SOLVERS = {"batched": fit_svr, "libsvm": fit_svr_libsvm}
SCORING_TOL = 1e-3  # libsvm's own default: scores of hyperparameters need no more


def rbf_kernel(first, second, gamma):
    """``exp(-gamma |a - b|^2)`` of all pairs of rows."""
    distance2 = np.sum(first**2, axis=1)[:, None] - 2 * first @ second.T + np.sum(second**2, axis=1)
    return np.exp(-gamma * np.maximum(distance2, 0.0))


def rbf_slopes(x, centres, gamma, kernel=None):
    """Derivatives (m, K, n) of ``exp(-gamma |x - c|^2)`` with respect to `x`."""
    kernel = rbf_kernel(x, centres, gamma) if kernel is None else kernel
    return 2 * gamma * np.moveaxis(centres[None] - x[:, None], 2, 1) * kernel[:, None]


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
class SLAMJob(ShortRepr):
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
    keep_held_out : bool
        Whether the models of the folds are wanted.
    """

    labels: np.ndarray
    kernels: dict
    grid: list
    operators: dict
    folds: np.ndarray
    selection: str
    solver: str
    tol: float
    keep_held_out: bool

    def solve(self, Y, point, weight, tol):
        """Support vector regression of all columns of `Y` with one (C, epsilon, gamma)."""
        C, epsilon, gamma = point
        extra = {"operator": self.operators[gamma]} if self.solver == "batched" else {}
        return SOLVERS[self.solver](
            self.kernels[gamma], Y, C=C, epsilon=epsilon, sample_weight=weight, tol=tol, **extra
        )


@dataclass
class SLAMPixels(ShortRepr):
    """Fit of some pixels, in standardised flux.

    Attributes
    ----------
    dual_coef : ndarray of shape (n, B)
    intercept, mse, scatter : ndarray of shape (B,)
        `mse` is cross-validated; `scatter` is what it exceeds the photon variance by.
    choice : ndarray of int of shape (B,)
        Number of the grid point of each pixel.
    residual : ndarray of shape (n, B)
        Of stars held out, 0 at bad pixels; where they are kept.
    duals : ndarray of shape (F, n, B)
        Of the models that did not see each fold, where they are kept.
    """

    dual_coef: np.ndarray
    intercept: np.ndarray
    choice: np.ndarray
    mse: np.ndarray
    scatter: np.ndarray
    residual: np.ndarray | None = None
    duals: np.ndarray | None = None


def fit_pixels(job: SLAMJob, Y, good, photon) -> SLAMPixels:
    """Fit a chunk of pixels.

    Parameters
    ----------
    job : SLAMJob
    Y : ndarray of shape (n, B)
        Standardised flux.
    good : ndarray of bool of shape (n, B)
    photon : ndarray of shape (n, B)
        Photon variance in the unit of `Y`; ``inf`` at bad pixels.
    """
    weight = None
    if not good.all():
        weight, Y = good.astype(float), np.where(good, Y, 0.0)
    n_pixels = Y.shape[1]
    choice = _choose(job, Y, weight, good)
    out = SLAMPixels(np.zeros_like(Y), np.zeros(n_pixels), choice, *np.zeros((2, n_pixels)))
    residual = np.empty_like(Y)
    if job.keep_held_out:
        out.duals = np.zeros((job.folds.max() + 1, *Y.shape), np.float32)
    for number in np.unique(choice):
        mine, point = choice == number, job.grid[number]
        y, w = Y[:, mine], None if weight is None else weight[:, mine]
        solution = job.solve(y, point, w, job.tol)
        out.dual_coef[:, mine], out.intercept[mine] = solution.dual_coef, solution.intercept
        residual[:, mine], duals = _hold_out(job, y, solution, point, w)
        if out.duals is not None:
            out.duals[:, :, mine] = duals
    _measure(out, residual, good, photon)
    if job.keep_held_out:
        out.residual = np.where(good, residual, 0.0)
    return out


def _measure(out, residual, good, photon):
    """Pixel errors from the stars held out."""
    n_good = np.maximum(good.sum(axis=0), 1)
    out.mse[:] = np.sum(residual**2, axis=0, where=good) / n_good
    known = np.sum(photon, axis=0, where=np.isfinite(photon)) / n_good
    out.scatter[:] = np.sqrt(np.maximum(out.mse - known, 0.0))


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
            residual, _ = _leave_folds_out(job, Y, point, weight)
        score = np.sum(residual**2, axis=0, where=good)
        better = score < best
        best[better], choice[better] = score[better], number
    return choice


def _hold_out(job, Y, solution, point, weight):
    """Residuals (n, B) of stars held out, and the coefficients (F, n, B) of the models of folds."""
    if job.keep_held_out or job.selection != "loo":
        return _leave_folds_out(job, Y, point, weight)
    return _leave_one_out(job, Y, solution, point, weight), None


def _leave_one_out(job, Y, solution, point, weight):
    C, epsilon, gamma = point
    return leave_one_out(
        job.kernels[gamma], Y, solution, C=C, epsilon=epsilon, sample_weight=weight
    )


def _leave_folds_out(job, Y, point, weight):
    """Stars held out are masked, so that all folds share one kernel matrix."""
    kernel, n_folds = job.kernels[point[2]], job.folds.max() + 1
    residual, duals = np.empty_like(Y), np.empty((n_folds, *Y.shape))
    for fold in range(n_folds):
        rows = np.flatnonzero(job.folds == fold)
        w = np.ones_like(Y) if weight is None else weight.copy()
        w[rows] = 0.0
        solution = job.solve(Y, point, w, SCORING_TOL)
        residual[rows] = Y[rows] - kernel[rows] @ solution.dual_coef - solution.intercept
        duals[fold] = solution.dual_coef
    return residual, duals
