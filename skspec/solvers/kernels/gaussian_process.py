r"""Gaussian processes for many targets that share one kernel: evidence, solution, leave-one-out.

The targets (pixels) :math:`y_j` share inputs :math:`x`, a squared-exponential kernel and a linear mean,

.. math:: y_{ij} = h(x_i) \cdot \beta_j + a_j\, g_j(x_i) + \epsilon_{ij}, \qquad
          g_j \sim GP(0, k), \qquad \epsilon_{ij} \sim N(0, a_j^2 d_{ij}),

and differ in amplitude and noise. In the eigenbasis of the kernel on the training set, orthogonal to
the mean, the posterior mean of every pixel is a ridge regression: diagonal where the noise of a pixel
is that of the stars times a constant, a few conjugate-gradient steps from it where it is not. A smooth
kernel has few eigenvalues above the noise, so the basis is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

__all__ = [
    "KernelBasis",
    "LeaveOneOut",
    "Search",
    "kernel_basis",
    "leave_one_out",
    "negative_log_evidence",
    "noise_to_signal",
    "orthonormal",
    "pivoted_cholesky",
    "ridge_in_basis",
    "search_length_scales",
    "squared_exponential",
]

NU_BOUNDS = (1e-8, 1e3)
ROUNDING = 1e-13  # of the kernel
TINY = np.finfo(float).tiny


def squared_exponential(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``exp(-|a - b|^2 / 2)`` of all pairs of rows, (n, m)."""
    distance2 = np.sum(first**2, axis=1)[:, None] - 2 * first @ second.T + np.sum(second**2, axis=1)
    return np.exp(-0.5 * np.maximum(distance2, 0.0))


# -- hyperparameters -------------------------------------------------------------------------------


def negative_log_evidence(
    theta: np.ndarray, x: np.ndarray, G: np.ndarray, H: np.ndarray, noise: np.ndarray
) -> tuple[float, np.ndarray]:
    r"""Restricted negative log evidence for each star and target, and its gradient.

    With :math:`C = K + \nu\,\mathrm{diag}(\rho)`, the mean and the common amplitude integrated and
    profiled out,

    .. math:: (n - p)\, \tfrac12 \log \mathrm{tr}(P G) + \tfrac12 \log |C|
              + \tfrac12 \log |H^T C^{-1} H|, \qquad
              P = C^{-1} - C^{-1} H (H^T C^{-1} H)^{-1} H^T C^{-1},

    divided by n - p. The targets enter through ``G = Y Y^T`` alone: their number drops out.

    Parameters
    ----------
    theta : ndarray of shape (K + 1,)
        Logarithms of the length scales and of the noise-to-signal ratio nu.
    x : ndarray of shape (n, K)
    G : ndarray of shape (n, n)
        ``Y Y^T`` of targets Y (n, P) in units of their noise.
    H : ndarray of shape (n, p)
        Linear mean.
    noise : ndarray of shape (n,)
        Relative noise variance of the stars, rho.

    Returns
    -------
    value : float
    gradient : ndarray of shape (K + 1,)
    """
    length, nu = np.exp(theta[:-1]), np.exp(theta[-1])
    n, p = H.shape
    kernel = squared_exponential(x / length, x / length)
    C = kernel.copy()
    C[np.diag_indices(n)] += nu * noise
    root = cholesky(C, lower=True, overwrite_a=True, check_finite=False)
    white = solve_triangular(root, H, lower=True)
    inner = cholesky(white.T @ white, lower=True)
    B = solve_triangular(inner, solve_triangular(root, white, lower=True, trans=1).T, lower=True)
    P = cho_solve((root, True), np.eye(n), overwrite_b=True, check_finite=False) - B.T @ B
    PG = P @ G
    # positive but for rounding, which is all that is left of spectra that the mean describes exactly
    rounding = np.finfo(float).eps * np.linalg.norm(P) * np.linalg.norm(G)
    trace = max(np.trace(PG), rounding, 1e-200)
    value = 0.5 * (n - p) * np.log(trace)
    value += np.log(np.diag(root)).sum() + np.log(np.diag(inner)).sum()
    M = P - (n - p) / trace * (PG @ P)  # twice the derivative with respect to C
    pull = M * kernel
    # sum_ij pull_ij (x_ik - x_jk)^2 without the n x n differences
    spread = 2 * (pull.sum(axis=1) @ x**2 - np.einsum("ik,ij,jk->k", x, pull, x, optimize=True))
    slope = 0.5 * np.append(spread / length**2, nu * (np.diag(M) @ noise))
    freedom = max(n - p, 1)  # the mean may have as many terms as there are stars
    return value / freedom, slope / freedom


class Search(NamedTuple):
    """Length scales (K,), noise-to-signal ratio, and the negative log evidence there."""

    length: np.ndarray
    nu: float
    value: float


def search_length_scales(
    x: np.ndarray,
    G: np.ndarray,
    H: np.ndarray,
    noise: np.ndarray,
    *,
    bounds: tuple[float, float] = (0.1, 30.0),
    starts: Sequence[tuple[float, float]] = ((2.0, 1e-2), (6.0, 1e-4)),
    max_iter: int = 100,
) -> Search:
    """Length scales and noise-to-signal ratio of the largest evidence.

    Parameters
    ----------
    x, G, H, noise : as in :func:`negative_log_evidence`
    bounds : (float, float)
        Of all length scales.
    starts : sequence of (length, nu)
        The lowest minimum found from them wins. A length is one number or one for each label.
    max_iter : int

    Returns
    -------
    Search
    """
    n_labels = x.shape[1]
    box = [np.log(bounds)] * n_labels + [np.log(NU_BOUNDS)]
    best = None
    for length, nu in starts:
        length = np.clip(np.broadcast_to(length, n_labels), *bounds)
        start = np.log(np.append(length, nu))
        found = minimize(
            negative_log_evidence,
            start,
            args=(x, G, H, noise),
            jac=True,
            method="L-BFGS-B",
            bounds=box,
            options={"maxiter": max_iter, "ftol": 1e-13, "gtol": 1e-7},
        )
        if best is None or found.fun < best.fun:
            best = found
    return Search(np.exp(best.x[:-1]), float(np.exp(best.x[-1])), float(best.fun))


def noise_to_signal(
    square: np.ndarray,
    Z2: np.ndarray,
    rest: np.ndarray,
    n_rest: int,
    centre: float,
    *,
    width: float = 2.0,
    n_grid: int = 28,
    n_bisect: int = 30,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Most probable noise-to-signal ratio of each target, and its amplitude.

    In the eigenbasis a target of amplitude a and noise ratio nu has independent coefficients
    :math:`z_m \sim N(0, a^2 (\lambda_m + \nu))`; `n_rest` more have noise alone. a is profiled out.
    log nu has a wide normal prior around that of all targets, for a target without signal says
    nothing about it. The maximum is found on a grid, then by bisection of the derivative.

    Parameters
    ----------
    square : ndarray of shape (q,)
        Eigenvalues lambda.
    Z2 : ndarray of shape (q, B)
        Squared coefficients.
    rest : ndarray of shape (B,)
        Sum of the other squared coefficients.
    n_rest : int
        Their number.
    centre : float
        Noise-to-signal ratio at the maximum of the prior.
    width : float
        Standard deviation of its natural logarithm.

    Returns
    -------
    nu, amplitude2 : ndarrays of shape (B,)
    """
    n = len(square) + n_rest

    def quadratic(nu):
        return np.maximum(np.einsum("qb,qb->b", Z2, 1 / (square[:, None] + nu)) + rest / nu, TINY)

    def slope(nu):  # of minus twice the log probability with respect to nu
        inverse = 1 / (square[:, None] + nu)
        bend = np.einsum("qb,qb,qb->b", Z2, inverse, inverse) + rest / nu**2
        prior = 2 * np.log(nu / centre) / (width**2 * nu)
        return inverse.sum(axis=0) + n_rest / nu - n * bend / quadratic(nu) + prior

    low, high = np.log(NU_BOUNDS)
    grid = np.linspace(low, high, n_grid)
    inverse = 1 / (square + np.exp(grid)[:, None])
    fit = n * np.log(np.maximum(inverse @ Z2 + rest / np.exp(grid)[:, None], TINY))
    size = n_rest * grid - np.log(inverse).sum(axis=1) + (grid - np.log(centre)) ** 2 / width**2
    best = np.argmin(fit + size[:, None], axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, n_grid - 1)]
    for _ in range(n_bisect):
        middle = 0.5 * (low + high)
        rising = slope(np.exp(middle)) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    nu = np.exp(0.5 * (low + high))
    return nu, quadratic(nu) / n


# -- the basis -------------------------------------------------------------------------------------


def pivoted_cholesky(x: np.ndarray, tol: float, max_rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Stars whose kernel columns span the kernel of all.

    Parameters
    ----------
    x : ndarray of shape (n, K)
        Labels in units of their length scales.
    tol : float
        Stop when the variance left out, summed over the stars, falls below this.
    max_rank : int

    Returns
    -------
    pivots : ndarray of int of shape (r,)
    factor : ndarray of shape (n, r)
        ``K = factor @ factor.T`` but for what is left out; lower triangular in the rows `pivots`.
    """
    n = len(x)
    most = min(n, max_rank)
    factor, left = np.zeros((n, most), order="F"), np.ones(n)
    pivots = np.empty(most, dtype=int)
    for r in range(most):
        if left.sum() < max(tol, ROUNDING * n):
            return pivots[:r], factor[:, :r]
        i = pivots[r] = np.argmax(left)
        column = squared_exponential(x, x[i : i + 1])[:, 0] - factor[:, :r] @ factor[i, :r]
        factor[:, r] = column / np.sqrt(left[i])
        factor[pivots[:r], r] = 0.0
        left = np.maximum(left - factor[:, r] ** 2, 0.0)
        left[pivots[: r + 1]] = 0.0
    return pivots, factor


def orthonormal(H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal columns ``Q = H @ R`` that span those of `H` (n, p), and R: (n, s), (p, s)."""
    Q, size, right = np.linalg.svd(H, full_matrices=False)
    kept = size > 1e-10 * size[0]  # a constant label makes some terms of a polynomial alike
    return Q[:, kept], right[kept].T / size[kept]


@dataclass(frozen=True)
class KernelBasis:
    """Orthogonal functions of the training stars that hold the mean and the kernel.

    The functions are ``[h(x), k(x, centres)] @ transform``; divided by the square root of the
    relative noise they are orthogonal on the training stars.

    Attributes
    ----------
    centres : ndarray of shape (r, K)
        Labels of the pivots, in units of their length scales.
    transform : ndarray of shape (p + r, q)
    square : ndarray of shape (q,)
        Squared norms on the training stars: 1 for the mean, then the kernel's eigenvalues.
    n_mean : int
        Functions of the mean, which come first and are not penalised.
    """

    centres: np.ndarray
    transform: np.ndarray
    square: np.ndarray
    n_mean: int

    @property
    def penalty(self) -> np.ndarray:
        """Prior precision of the coefficients, in units of the amplitude: 0 for the mean, else 1."""
        return (np.arange(len(self.square)) >= self.n_mean).astype(float)


def kernel_basis(
    x: np.ndarray, H: np.ndarray, noise: np.ndarray, *, tol: float = 1e-7, max_rank: int = 2000
) -> KernelBasis:
    """Basis of the mean `H` and the kernel of `x`.

    Parameters
    ----------
    x : ndarray of shape (n, K)
        Labels in units of their length scales.
    H : ndarray of shape (n, p)
    noise : ndarray of shape (n,)
        Relative noise variance of the stars.
    tol, max_rank : see :func:`pivoted_cholesky`
    """
    level = 1 / np.sqrt(noise)[:, None]
    Q, mean = orthonormal(level * H)
    pivots, factor = pivoted_cholesky(x, tol, max_rank)
    root = level * factor
    overlap = Q.T @ root
    root -= Q @ overlap
    value, vector = np.linalg.eigh(root.T @ root)
    value, vector = value[::-1], vector[:, ::-1]
    live = value > 1e-13 * max(value[0], 1.0)
    value, vector = value[live], vector[:, live]
    columns = solve_triangular(factor[pivots], vector, lower=True, trans=1)
    transform = np.block(
        [
            [mean, -mean @ overlap @ vector],
            [np.zeros((len(pivots), mean.shape[1])), columns],
        ]
    )
    square = np.concatenate([np.ones(mean.shape[1]), value])
    return KernelBasis(x[pivots], transform, square, mean.shape[1])


# -- pixels ----------------------------------------------------------------------------------------


def ridge_in_basis(
    Phi: np.ndarray,
    basis: KernelBasis,
    Y: np.ndarray,
    weight: np.ndarray,
    *,
    amplitude2: float | np.ndarray = 1.0,
    tol: float = 1e-4,
    max_iter: int = 200,
) -> np.ndarray:
    r"""Coefficients of every target: ``(Phi^T W_j Phi + E) c_j = Phi^T W_j y_j``.

    Exact at once where the weights of a target are equal, else by conjugate gradients from there.

    Parameters
    ----------
    Phi : ndarray of shape (n, q)
        Basis on the training stars, orthogonal.
    basis : KernelBasis
    Y : ndarray of shape (n, B)
    weight : ndarray of shape (n, B)
        Inverse noise-to-signal ratio; 0 leaves a value out (it must still be finite).
    amplitude2 : float or ndarray of shape (B,)
        Squared amplitude: times the noise-to-signal ratio it is the noise variance of `Y`.
    tol : float
        Error of the solution, root sum of squares over the stars in units of their noise.

    Returns
    -------
    ndarray of shape (q, B)
    """
    penalty = basis.penalty[:, None]
    diagonal = weight.mean(axis=0) * basis.square[:, None] + penalty
    right = Phi.T @ (weight * Y)
    c = right / diagonal
    residual = right - Phi.T @ (weight * (Phi @ c)) - penalty * c
    z = residual / diagonal
    step, rz = z, np.einsum("qb,qb->b", residual, z)
    limit = np.maximum(tol**2 * amplitude2, 1e-26 * np.einsum("qb,qb->b", right, c))
    for _ in range(max_iter):
        if np.all(rz <= limit):
            break
        image = Phi.T @ (weight * (Phi @ step)) + penalty * step
        alpha = rz / np.maximum(np.einsum("qb,qb->b", step, image), TINY)
        c += alpha * step
        residual -= alpha * image
        z = residual / diagonal
        rz, last = np.einsum("qb,qb->b", residual, z), rz
        step = z + rz / np.maximum(last, TINY) * step
    return c


class LeaveOneOut(NamedTuple):
    """Models trained without each star: coefficients are ``coef - change_i * (phi_i * spread.T).T``."""

    residual: np.ndarray  # (n, B)
    jacobian: np.ndarray | None  # (n, K, B)
    change: np.ndarray  # (n, B)
    spread: np.ndarray  # (q, B)


def leave_one_out(
    Phi: np.ndarray,
    basis: KernelBasis,
    residual: np.ndarray,
    weight: np.ndarray,
    slope: np.ndarray | None = None,
    coef: np.ndarray | None = None,
) -> LeaveOneOut:
    r"""Residuals, Jacobians and coefficients of the models trained without each star, in closed form.

    With the leverage :math:`h_i = \phi_i^T S \phi_i / \nu` of a model whose stars all have the mean
    weight :math:`1/\nu`, a star of weight :math:`w_i` and residual :math:`e_i` has

    .. math:: r_i = e_i \left(1 + w_i \nu \frac{h_i}{1 - h_i}\right), \qquad
              J_i = \phi_i' \cdot c_{-i}, \qquad c_{-i} = c - \frac{w_i e_i}{1 - h_i} S \phi_i.

    Exact for equal weights; else the star's own weight is, and those of the others are taken as
    their mean. A star of weight 0 has its plain residual.

    Parameters
    ----------
    Phi : ndarray of shape (n, q)
        Basis on the training stars, orthogonal.
    basis : KernelBasis
    residual, weight : ndarrays of shape (n, B)
        ``y - Phi @ coef`` and the inverse noise-to-signal ratio, both of the rows of `Phi`.
    slope : ndarray of shape (n, K, q), optional
        Derivatives of the rows of `Phi`.
    coef : ndarray of shape (q, B), optional

    Returns
    -------
    LeaveOneOut
    """
    mean_weight = weight.mean(axis=0)
    nu = 1 / np.where(mean_weight > 0, mean_weight, 1.0)
    spread = 1 / (basis.square[:, None] + nu * basis.penalty[:, None])
    rest = np.maximum(1 - Phi**2 @ spread, 1e-10)  # 1 - h
    held_out = residual * (1 + weight * nu * (1 / rest - 1))
    change = weight * residual * nu / rest
    if slope is None:
        return LeaveOneOut(held_out, None, change, spread)
    jacobian = np.empty((len(Phi), slope.shape[1], residual.shape[1]))
    for k in range(slope.shape[1]):
        jacobian[:, k] = slope[:, k] @ coef - change * ((slope[:, k] * Phi) @ spread)
    return LeaveOneOut(held_out, jacobian, change, spread)
