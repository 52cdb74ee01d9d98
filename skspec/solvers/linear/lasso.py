"""L1-regularised weighted least squares for every pixel at once: the engine of The Cannon 2.

Coordinate descent in Gram form runs over the coordinates, vectorised over the pixels of a block;
exact steps on the current support, in its orthant, finish what coordinate descent would only
approach. Both decrease the convex objective, and only the exact optimality conditions stop them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec.solvers.linear.least_squares import fit_least_squares_with_scatter, scatter_of_residuals
from skspec.solvers.linear.normal_equations import (
    PAIR_PRODUCT_TERMS,
    Design,
    LongNormal,
    ShortNormal,
)
from skspec.solvers.linear.pixel_blocks import (
    checked,
    column_dot,
    load_block,
    parallel_map,
    pixel_slices,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "LassoFit",
    "fit_lasso",
    "fit_lasso_with_scatter",
    "kkt_violation",
    "lambda_max",
    "lasso_path",
]

SWEEPS = 3  # of coordinate descent between exact steps
ROUNDING = 1e-13  # of the uncentred sums: what is left of them after centring is zero
SLACK = 1e-12  # of Lambda: rounding must not let a coefficient in at Lambda_max


@dataclass(frozen=True)
class LassoFit:
    """Sparse coefficients of P pixels; a path has one more axis in front, the penalties.

    Attributes
    ----------
    theta : ndarray (D, P)
        Coefficients, exactly 0 where penalised away or not allowed.
    scatter : ndarray (P,)
        Intrinsic scatter s; inf where the pixel is untrained.
    trained : ndarray (P,) of bool
        False with fewer than two good stars.
    lambdas : ndarray (P,)
        Penalty used, in absolute units.
    violation : ndarray (P,)
        Largest violation of the optimality conditions over Lambda_max, before any debiasing.
    converged : ndarray (P,) of bool
        Whether `violation` (and, where it was estimated, the scatter) met the tolerance.
    n_iter : ndarray (P,) of int
        Rounds of coordinate descent and exact steps.
    """

    theta: np.ndarray
    scatter: np.ndarray
    trained: np.ndarray
    lambdas: np.ndarray
    violation: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray


def lasso_path(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    scatter: ArrayLike,
    lambdas: ArrayLike,
    *,
    relative: bool = False,
    terms: np.ndarray | None = None,
    debias: bool = False,
    start: np.ndarray | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    block_size: int | None = None,
) -> LassoFit:
    r"""Minimise, in every pixel and for every penalty Lambda in turn, at fixed scatter s,

        sum_n w_n (y_n - v_n . theta)^2 + Lambda sum_{d>=1} |theta_d|,   w_n = 1/(variance_n + s^2)

    (no 1/2; theta_0 is never penalised). At the minimum theta_d = 0 if and only if
    |2 sum_n w_n v_nd r_n| <= Lambda, and every theta_d, d >= 1, is 0 from

        Lambda_max = 2 max_{d>=1} |sum_n w_n v_nd (y_n - ybar_w)|.

    Parameters
    ----------
    V, Y, variance, terms : as in `fit_least_squares_with_scatter`
    scatter : float or array (P,)
        Intrinsic scatter; inf marks an untrained pixel, left at its mean.
    lambdas : array (m,) or (m, P)
        Penalties; each starts from the solution before it, so let them decrease.
    relative : bool
        `lambdas` are fractions of each pixel's Lambda_max.
    debias : bool
        Refit without penalty on the support found.
    start : array (D, P), optional
        First guess.
    tol : float
        Stop when the exact violation of the conditions is below tol x Lambda_max.
    max_iter : int
        Rounds at most for each penalty; `converged` tells where they did not suffice.

    Returns
    -------
    LassoFit
        theta (m, D, P); lambdas, violation, converged and n_iter (m, P).

    Notes
    -----
    scikit-learn's Lasso on centred rows times sqrt(w) has alpha = Lambda/(2 n).

    References
    ----------
    Casey et al. 2016, arXiv:1603.03040.
    """
    V, Y, variance, terms = checked(V, Y, variance, terms)
    P = Y.shape[1]
    u = np.broadcast_to(np.square(scatter), P).astype(float)
    lambdas = np.asarray(lambdas, float)
    lambdas = np.broadcast_to(lambdas[:, None] if lambdas.ndim == 1 else lambdas, (len(lambdas), P))
    if np.any(~(lambdas >= 0)):
        raise ValueError("A penalty must not be negative.")
    design, shift = _centred(V)

    def solve(cols):
        block = load_block(Y, variance, terms, cols)
        problem = _Problem(design, block, u[cols])
        first = None if start is None else start[1:, cols]
        return problem.path(lambdas[:, cols], relative, first, tol, max_iter)

    size = block_size or int(np.clip(2**17 // max(V.shape[1] ** 2, V.shape[0]), 32, 512))
    parts = parallel_map(solve, pixel_slices(P, size))
    theta, lambdas, violation, n_iter, n_good = (np.concatenate(x, axis=-1) for x in zip(*parts))
    theta[:, 0] -= np.tensordot(theta[:, 1:], shift, (1, 0))
    trained = (n_good >= 2) & np.isfinite(u)
    if debias:
        theta = np.stack([_debias(V, Y, variance, u, t, trained) for t in theta])
    s = np.where(trained, np.sqrt(u), np.inf)
    return LassoFit(theta, s, trained, lambdas, violation, violation <= tol, n_iter)


def fit_lasso(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    scatter: ArrayLike,
    lambdas: ArrayLike,
    **kwargs: Any,
) -> LassoFit:
    """One penalty, a number or one for each pixel (P,); see `lasso_path`."""
    P = np.shape(Y)[1]
    path = lasso_path(V, Y, variance, scatter, np.broadcast_to(lambdas, (1, P)), **kwargs)
    return LassoFit(
        path.theta[0],
        path.scatter,
        path.trained,
        path.lambdas[0],
        path.violation[0],
        path.converged[0],
        path.n_iter[0],
    )


def fit_lasso_with_scatter(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    lambdas: ArrayLike,
    *,
    n_sweeps: int = 5,
    scatter_tol: float = 1e-3,
    **kwargs: Any,
) -> LassoFit:
    """Alternate theta | s (`fit_lasso`) and the maximum likelihood s | theta.

    Each half decreases ``sum w r^2 - ln w + Lambda |theta|_1``. The first s is that of the fit without
    penalty, or of the scatter around the mean where there are too few stars for one. A pixel has
    converged when the last sweep moved s by less than `scatter_tol` of sqrt(s^2 + noise^2), noise^2
    the harmonic mean of its variances. theta is optimal for the s returned.

    Parameters
    ----------
    V, Y, variance : as in `fit_least_squares_with_scatter`
    lambdas : float or array (P,)
        Penalty; with ``relative=True`` a fraction of Lambda_max at the s of each sweep.
    n_sweeps : int
        Alternations at most.
    **kwargs : as in `lasso_path`

    Returns
    -------
    LassoFit

    References
    ----------
    Casey et al. 2016, arXiv:1603.03040, and the practice of its authors.
    """
    first = fit_least_squares_with_scatter(V, Y, variance, terms=kwargs.get("terms"))
    scale, u = _scatter(V, Y, variance, first.theta, None)
    s = np.where(first.trained, first.scatter, np.sqrt(u))
    debias, theta = kwargs.pop("debias", False), kwargs.pop("start", None)
    for _ in range(n_sweeps):
        fit = fit_lasso(V, Y, variance, s, lambdas, start=theta, **kwargs)
        theta = fit.theta
        u = _scatter(V, Y, variance, theta, s)[1]
        settled = ~(np.abs(np.sqrt(u) - s) > scatter_tol * np.sqrt(u + scale))
        if settled.all():
            break
        s = np.where(settled, s, np.sqrt(u))
    fit = fit_lasso(V, Y, variance, s, lambdas, start=theta, debias=debias, **kwargs)
    return LassoFit(
        fit.theta,
        fit.scatter,
        fit.trained,
        fit.lambdas,
        fit.violation,
        fit.converged & settled,
        fit.n_iter,
    )


def lambda_max(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    scatter: ArrayLike,
    *,
    terms: np.ndarray | None = None,
) -> np.ndarray:
    """The smallest penalty (P,) at which every penalised coefficient is zero."""
    return fit_lasso(V, Y, variance, scatter, 1.0, terms=terms, relative=True).lambdas


def kkt_violation(
    V: np.ndarray,
    Y: np.ndarray,
    variance: np.ndarray,
    scatter: ArrayLike,
    theta: np.ndarray,
    lambdas: ArrayLike,
    *,
    terms: np.ndarray | None = None,
) -> np.ndarray:
    """Largest violation (P,) of the optimality conditions, over Lambda_max, from the residuals.

    max(|g_d| - Lambda, 0) where theta_d = 0, |g_d - Lambda sign(theta_d)| elsewhere, and |g_0|,
    with g = 2 V' (w r).
    """
    V, Y, variance, terms = checked(V, Y, variance, terms)
    u, violation = np.broadcast_to(np.square(scatter), Y.shape[1]), np.zeros(Y.shape[1])
    lambdas = np.broadcast_to(lambdas, Y.shape[1])
    with np.errstate(all="ignore"):
        for cols in pixel_slices(Y.shape[1], 256):
            block = load_block(Y, variance, terms, cols)
            w = block.weights(u[cols])
            t = theta[:, cols]
            g = block.masked(2 * V.T @ (w * (block.y - V @ t)))
            mean = column_dot(w, block.y) / w.sum(axis=0)
            top = np.max(
                np.abs(block.masked(2 * V.T @ (w * (block.y - mean))))[1:], axis=0, initial=0.0
            )
            top[
                top
                < 2
                * len(V)
                * ROUNDING
                * np.abs(V).max()
                * np.sqrt(w.sum(axis=0) * _power(w, block.y))
            ] = 0.0
            worst = _violation(g[1:] / 2, t[1:], lambdas[cols])
            worst = np.maximum(worst, np.abs(g[0]))
            violation[cols] = np.where((top > 0) & (w.sum(axis=0) > 0), worst / top, 0.0)
    return violation


def _violation(g, theta, lam):
    """g is half the negative gradient of the quadratic part."""
    off = np.maximum(2 * np.abs(g) - lam, 0.0)
    on = np.abs(2 * g - lam * np.sign(theta))
    return np.max(np.where(theta == 0, off, on), axis=0, initial=0.0)


def _centred(V):
    """Design with centred columns (for the conditioning only) and their means (D - 1,)."""
    shift = V[:, 1:].mean(axis=0)
    return Design(np.hstack([V[:, :1], V[:, 1:] - shift])), shift


def _scatter(V, Y, variance, theta, s):
    """Harmonic mean of the variances and maximum likelihood s^2 at theta, both (P,)."""
    V, Y, variance, _ = checked(V, Y, variance, None)

    def one(cols):
        block = load_block(Y, variance, None, cols)
        r = block.y - V @ theta[:, cols]
        scale = block.n_good / np.sum(1 / block.v, axis=0)
        first = scale if s is None else s[cols] ** 2
        u = scatter_of_residuals(block, r, first)
        return np.nan_to_num(scale), np.where(block.n_good >= 2, u, np.inf)

    size = int(np.clip(2**17 // len(V), 64, 512))
    return tuple(np.concatenate(x) for x in zip(*parallel_map(one, pixel_slices(Y.shape[1], size))))


def _debias(V, Y, variance, u, theta, trained):
    """Weighted least squares on the support, where the stars suffice for it."""
    support = theta != 0
    support[0] = True
    fit = fit_least_squares_with_scatter(
        V, Y, variance, terms=support, scatter=np.where(trained, np.sqrt(u), 0.0)
    )
    return np.where(fit.trained & trained, fit.theta, theta)


def _power(w, y):
    return np.einsum("nb,nb,nb->b", w, y, y)


class _Problem:
    """min_theta theta' G theta - 2 c' theta + Lambda |theta|_1 of some pixels, intercept removed.

    G (d, d, B) and c (d, B) are weighted and centred; a term not allowed has a zero row.
    """

    def __init__(self, design, block, u):
        fit = np.isfinite(u)
        w = block.weights(np.where(fit, u, 0.0))
        N, rhs = design.gram(w), design.Qt @ (w * block.y)
        self.total = np.where(N[0, 0] > 0, N[0, 0], 1.0)
        self.row, self.sum_wy = N[0, 1:] / self.total, rhs[0] / self.total
        allowed = np.broadcast_to(fit, self.row.shape)
        if block.terms is not None:
            allowed = allowed & block.terms[1:]
        self.c = (rhs[1:] - self.row * rhs[0]) * allowed
        self.G = N[1:, 1:] - self.row[:, None] * N[0, 1:]
        raw = np.einsum("ddb->db", N)[1:]
        allowed = allowed & (np.einsum("ddb->db", self.G) > ROUNDING * raw)
        self.c *= allowed & (np.abs(self.c) > ROUNDING * np.sqrt(raw * _power(w, block.y)))
        self.G *= allowed[:, None] & allowed
        self.n_good = block.n_good
        self.top = 2 * np.max(np.abs(self.c), axis=0, initial=0.0)

    def path(self, lambdas, relative, start, tol, max_iter):
        """theta (m, D, B), lambdas, violation, n_iter (m, B), n_good (B,)."""
        m, (d, B) = len(lambdas), self.c.shape
        lambdas = lambdas * self.top if relative else lambdas
        theta = np.zeros((m, d + 1, B))
        violation, n_iter = np.zeros((m, B)), np.zeros((m, B), int)
        current = np.zeros((d, B)) if start is None else np.where(self.c != 0, start, 0.0)
        for i, lam in enumerate(lambdas):
            current, violation[i], n_iter[i] = self.solve(lam, current, tol, max_iter)
            theta[i, 1:] = current
            theta[i, 0] = self.sum_wy - column_dot(self.row, current)
        return theta, lambdas, violation, n_iter, self.n_good

    def solve(self, lam, start, tol, max_iter):
        """theta (d, B), violation over Lambda_max, rounds."""
        theta, t, B = start.copy(), start.copy(), len(lam)
        violation, n_iter = np.zeros(B), np.zeros(B, int)
        scale = np.where(self.top > 0, self.top, 1.0)
        active, G, c = np.arange(B), self.G, self.c
        for round_ in range(max_iter + 1):
            g = c - np.einsum("deb,eb->db", G, t)
            violation[active] = _violation(g, t, lam) / scale[active]
            left = np.flatnonzero(violation[active] > tol)
            if not left.size or round_ == max_iter:
                break
            if left.size < len(active):
                active, G, c, lam = active[left], G[:, :, left], c[:, left], lam[left]
                t, g = t[:, left], g[:, left]
            n_iter[active] += 1
            _sweeps(G, t, g, lam)
            t = _orthant_step(G, c, t, lam)
            theta[:, active] = t
        return theta, violation, n_iter


def _sweeps(G, theta, g, lam):
    """Coordinate descent on theta and g = c - G theta, in place."""
    half = 0.5 * lam * (1 + SLACK)
    curvature = np.einsum("ddb->db", G)
    divisor = np.where(curvature > 0, curvature, 1.0)
    for _ in range(SWEEPS):
        for k in np.flatnonzero(np.any((theta != 0) | (np.abs(g) > half), axis=1)):
            z = g[k] + curvature[k] * theta[k]
            new = (z - np.minimum(np.maximum(z, -half), half)) / divisor[k]
            step = new - theta[k]
            if np.count_nonzero(step):
                g -= G[:, k] * step
                theta[k] = new


def _orthant_step(G, c, theta, lam):
    """Towards the minimum on the support at these signs, as far as no sign changes."""
    sign = np.sign(theta)
    support = sign != 0
    if len(theta) == 0 or not support.any():
        return theta
    goal = _solve_on(G, support, (c - 0.5 * lam * sign) * support)
    step = goal - theta
    crossing = np.where(goal * sign < 0, theta / -np.where(step == 0, 1.0, step), 1.0)
    length = np.min(crossing, axis=0)
    moved = theta + np.where(np.isfinite(length), length, 0.0) * step
    moved = np.where(length == 1, goal, moved)
    return np.where(support & ~((crossing == length) & (crossing < 1)), moved, 0.0)


def _solve_on(G, support, rhs):
    """Solve G x = rhs on each pixel's support, gathered in front; x is 0 elsewhere."""
    k = support.sum(axis=0).max()
    order = np.argsort(~support, axis=0, kind="stable")[:k]
    pixel = np.arange(support.shape[1])
    inside, b = support[order, pixel], rhs[order, pixel]
    x = np.zeros_like(rhs)
    if k <= PAIR_PRODUCT_TERMS:
        i, j = np.triu_indices(k)
        index = np.zeros((k, k), int)
        index[i, j] = index[j, i] = np.arange(len(i))
        x[order, pixel] = ShortNormal(G[order[i], order[j], pixel], index, inside).solve(b)
    else:
        N = G[order.T[:, :, None], order.T[:, None, :], pixel[:, None, None]]
        x[order, pixel] = LongNormal(N, inside).solve(b)
    return x
