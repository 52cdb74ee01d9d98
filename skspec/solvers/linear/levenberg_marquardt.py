"""Bounded Levenberg-Marquardt for many small least-squares problems at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["LevenbergMarquardtResult", "levenberg_marquardt", "solve_normal"]

_MAX_DAMPING = 1e10


@dataclass(frozen=True)
class LevenbergMarquardtResult:
    """Minima found, one per problem and start.

    Attributes
    ----------
    x : ndarray of shape (n, S, K)
        Parameters.
    chi2 : ndarray of shape (n, S)
        Objective there.
    normal : ndarray of shape (n, S, K, K)
        Normal matrix there.
    converged : ndarray of bool of shape (n, S)
        Whether the expected decrease of chi2 fell below the tolerance.
    n_iter : ndarray of int of shape (n, S)
        Steps tried.
    """

    x: np.ndarray
    chi2: np.ndarray
    normal: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray


def levenberg_marquardt(
    evaluate: Callable,
    x0: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    max_iter: int = 50,
    tol: float = 1e-8,
    confirm: bool = True,
) -> LevenbergMarquardtResult:
    r"""Minimise chi2 of `n` problems from `S` starts each inside a box.

    Each step solves :math:`(A + \mu\,\mathrm{diag} A)\,\delta = -g` over the parameters that are
    free (not pushed against their bound), with :math:`g = J^T W r`, :math:`A = J^T W J`, a damping
    :math:`\mu` of its own for every problem, and is clipped to the box. A problem stops when the
    decrease that the quadratic model promises, :math:`-g^T\delta` (the squared length of the step
    in units of sigma), falls below `tol`.

    Parameters
    ----------
    evaluate : callable ``(x, rows) -> chi2, gradient, normal``
        `x` has shape (m, S, K) and holds the problems numbered `rows` (m,); returns arrays of
        shapes (m, S), (m, S, K) and (m, S, K, K); the gradient is half the derivative of chi2.
    x0 : ndarray of shape (n, S, K)
        Starts, inside the box.
    lower, upper : ndarray of shape (K,)
        The box.
    max_iter : int
        Steps at most.
    tol : float
        Squared step length, in sigma, below which a problem has converged.
    confirm : bool
        Evaluate the last step as well. Otherwise it is taken on trust: `chi2` is what the quadratic
        model promises, `normal` that of the step before; and `tol` is that of the squared distance
        still to go after it, :math:`r^2 / (1 - r)^2` times its own squared length where steps shrink
        by a factor `r`, so that slow progress is not mistaken for arrival.

    Returns
    -------
    LevenbergMarquardtResult
    """
    x = np.array(x0, dtype=float)
    n, n_starts, _ = x.shape
    chi2, gradient, normal = (np.array(part) for part in evaluate(x, np.arange(n)))
    damping = np.full((n, n_starts), 1e-3)
    converged = np.zeros((n, n_starts), dtype=bool)
    running = np.ones((n, n_starts), dtype=bool)
    n_iter = np.zeros((n, n_starts), dtype=int)
    before = np.full((n, n_starts), np.inf)  # squared length of the last step that was taken whole
    for _ in range(max_iter):
        rows = np.flatnonzero(running.any(axis=1))
        if rows.size == 0:
            break
        here, slope, active = x[rows], gradient[rows], running[rows]
        free = ~(((here <= lower) & (slope > 0)) | ((here >= upper) & (slope < 0)))
        step = -solve_normal(normal[rows], np.where(free, slope, 0.0), damping[rows], free)
        trial = np.clip(here + step, lower, upper)
        promised = -np.sum(slope * (trial - here), axis=-1)
        ahead = promised if confirm else _still_to_go(promised, before[rows])
        small = active & (ahead < tol) & (damping[rows] <= 1e-2)
        n_iter[rows] += active
        if not confirm and small.any():
            x[rows] = np.where(small[..., None], trial, here)
            chi2[rows] -= np.where(small, promised, 0.0)
            converged[rows] |= small
            running[rows] &= ~small
            left = running[rows].any(axis=1)
            if not left.any():
                continue
            rows, trial, promised = rows[left], trial[left], promised[left]
            active, small = running[rows], np.zeros_like(small[left])
        new = evaluate(trial, rows)
        better = active & (new[0] <= chi2[rows])
        for kept, values in zip((x, chi2, gradient, normal), (trial, *new)):
            at = better.reshape(better.shape + (1,) * (kept.ndim - 2))
            kept[rows] = np.where(at, values, kept[rows])
        before[rows] = np.where(better & (damping[rows] <= 1e-2), promised, np.inf)
        damping[rows] = np.where(better, np.maximum(damping[rows] * 0.1, 1e-9), damping[rows] * 10)
        # a step refused although it is far below the tolerance is rounding in chi2
        stuck = active & ~better & ((promised < tol) | (damping[rows] > _MAX_DAMPING))
        converged[rows] |= small | (stuck & (promised < tol))
        running[rows] &= ~(small | stuck)
    return LevenbergMarquardtResult(x, chi2, normal, converged, n_iter)


def _still_to_go(length2, before):
    """Squared distance to the minimum after a step, from its squared length and the last one's."""
    # nothing known of the pace: as if each step were half the last
    ratio = np.where(np.isfinite(before), np.sqrt(length2 / np.maximum(before, 1e-300)), 0.5)
    ratio = np.minimum(ratio, 0.99)
    return length2 * (ratio / (1 - ratio)) ** 2


def solve_normal(
    normal: np.ndarray,
    gradient: np.ndarray,
    damping: float | np.ndarray = 0.0,
    free: np.ndarray | None = None,
) -> np.ndarray:
    r"""Solve :math:`(A + \mu\,\mathrm{diag} A) z = g` for stacks of small normal matrices.

    Parameters
    ----------
    normal : ndarray of shape (..., K, K)
    gradient : ndarray of shape (..., K)
    damping : float or ndarray of shape (...)
    free : ndarray of bool of shape (..., K), optional
        Parameters solved for; the others get 0.

    Returns
    -------
    ndarray of shape (..., K)
        Directions without any information get a vanishing step, not a failure.
    """
    diagonal = np.diagonal(normal, axis1=-2, axis2=-1)
    unit = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))  # equilibrate: unit diagonal
    eye = np.eye(normal.shape[-1])
    ridge = 1e-13 + np.asarray(damping)
    scaled = normal / (unit[..., :, None] * unit[..., None, :])
    if free is not None:
        pair = free[..., :, None] & free[..., None, :]
        scaled = np.where(pair, scaled, eye)
    scaled = scaled + ridge[..., None, None] * eye
    # a parameter without any information has a zero row: the identity keeps it where it is
    scaled = scaled + eye * (diagonal <= 0)[..., None, :]
    return np.linalg.solve(scaled, (gradient / unit)[..., None])[..., 0] / unit
