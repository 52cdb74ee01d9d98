"""Exact residuals and Jacobians of linear models trained without each star in turn.

The price is one further evaluation of the normal equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from skspec.solvers.linear.normal_equations import Design, orthogonal_terms
from skspec.solvers.linear.pixel_blocks import (
    checked,
    ignore_fp_errors,
    load_block,
    parallel_map,
    pixel_slices,
)

if TYPE_CHECKING:
    from skspec.solvers.linear.least_squares import LeastSquaresFit

__all__ = ["LeaveOneOutBlock", "leave_one_out", "leave_one_out_blocks", "leave_one_out_plan"]

DECISIVE = 1e-8  # 1 - h below this: the pixel cannot be fitted without the star


class LeaveOneOutBlock(NamedTuple):
    """Some pixels, each star seen by the model trained without it."""

    columns: slice
    residuals: np.ndarray  # (n, B)
    weights: np.ndarray  # (n, B): 1/(variance + s^2)
    jacobian: np.ndarray | None  # (n, K, B)


def leave_one_out_blocks(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    fit: LeastSquaresFit,
    *,
    dV: np.ndarray | None = None,
    block_size: int | None = None,
) -> Iterator[LeaveOneOutBlock]:
    r"""Yield residuals and Jacobians of the models trained without each star, at fixed scatter.

    With N_j = V' W_j V, h_nj = w_nj v_n . N_j^-1 v_n and r the plain residuals,

        theta_j(-n) = theta_j - N_j^-1 v_n w_nj r_nj / (1 - h_nj)
        residual    = r_nj / (1 - h_nj)
        jacobian    = dv_nk . theta_j(-n)

    Parameters
    ----------
    V, Y, variance : as in `fit_least_squares_with_scatter`
    fit : LeastSquaresFit
        Of the same V, Y and variance.
    dV : array (n, K, D), optional
        Derivatives of the terms with respect to K labels, at each star.
    block_size : int, optional
        Pixels at a time.

    Yields
    ------
    LeaveOneOutBlock
        columns (slice of pixels), residuals (n, B), weights (n, B), jacobian (n, K, B) or None.

    Notes
    -----
    A star of weight 0 has its plain residual (0 if its flux is not finite). In an untrained pixel
    all weights are 0. Where a pixel cannot be fitted without a star (1 - h < 1e-8), that star has
    residual, weight and Jacobian 0: nothing was predicted.
    """
    compute, blocks = leave_one_out_plan(V, Y, variance, fit, dV, block_size)
    for cols in blocks:
        yield ignore_fp_errors(
            compute, cols
        )  # no error state across a yield: it would reach the consumer


def leave_one_out_plan(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    fit: LeastSquaresFit,
    dV: np.ndarray | None = None,
    block_size: int | None = None,
) -> tuple[Callable[[slice], LeaveOneOutBlock], list[slice]]:
    """The function from columns to `LeaveOneOutBlock`, and the list of columns to call it with."""
    V, Y, variance, _ = checked(V, Y, variance, None)
    T, Q = orthogonal_terms(V, fit.terms)
    design = Design(Q)
    beta = T @ fit.theta
    left = Q[:, None] if dV is None else np.concatenate([Q[:, None], _rebase(dV, T)], axis=1)
    prepared = design.prepare(left)

    terms = _live_terms(fit)

    def compute(cols):
        block = load_block(Y, variance, terms, cols)
        return _leave_out(design, block, cols, fit.scatter[cols], beta[:, cols], left, prepared)

    return compute, pixel_slices(Y.shape[1], block_size or design.block_size(left.shape[1]))


def _rebase(dV, T):
    return solve_triangular(T, np.asarray(dV, float).reshape(-1, len(T)).T, trans="T").T.reshape(
        dV.shape
    )


def _live_terms(fit):
    """Allowed terms (D, P), none where a pixel is untrained; None if all are."""
    if fit.terms is not None:
        return fit.terms & fit.trained
    return None if fit.trained.all() else np.broadcast_to(fit.trained, fit.theta.shape)


def _leave_out(design, block, cols, scatter, beta, left, prepared):
    w = block.weights(scatter**2)
    forms = design.forms(prepared, design.normal(w, block.terms).inverse())
    r = design.Q @ beta
    np.subtract(block.y, r, out=r)
    if block.missing is not None:
        r[block.missing] = 0.0
    rest = 1 - w * forms[:, 0]
    decisive = rest < DECISIVE
    r /= rest
    jacobian = None
    if left.shape[1] > 1:
        jacobian = (left[:, 1:].reshape(-1, design.D) @ beta).reshape(design.n, -1, len(scatter))
        forms = forms[:, 1:]
        forms *= (w * r)[:, None]
        jacobian -= forms
    if decisive.any():
        r[decisive] = w[decisive] = 0.0
        if jacobian is not None:
            np.copyto(jacobian, 0.0, where=decisive[:, None])
    return LeaveOneOutBlock(cols, r, w, jacobian)


def leave_one_out(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    fit: LeastSquaresFit,
    *,
    dV: np.ndarray | None = None,
    block_size: int | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Leave-one-out residuals (n, P), and with `dV` the Jacobians (n, P, K) as well.

    See `leave_one_out_blocks`, which does not hold n x P x K numbers.
    """
    residuals = np.empty(np.shape(Y))
    jacobian = None if dV is None else np.empty((*np.shape(Y), np.shape(dV)[1]))
    compute, blocks = leave_one_out_plan(V, Y, variance, fit, dV, block_size)

    def store(cols):
        part = compute(cols)
        residuals[:, cols] = part.residuals
        if dV is not None:
            jacobian[:, cols] = part.jacobian.transpose(0, 2, 1)

    parallel_map(store, blocks)
    return residuals if dV is None else (residuals, jacobian)  # type: ignore[return-value]
