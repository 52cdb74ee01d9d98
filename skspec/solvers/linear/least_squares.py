"""Weighted least squares with intrinsic scatter, for every pixel at once: the engine of The Cannon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from skspec.solvers.linear.normal_equations import (
    PAIR_PRODUCT_TERMS,
    Design,
    IterativeDesign,
    orthogonal_terms,
)
from skspec.solvers.linear.pixel_blocks import (
    FLOOR,
    checked,
    column_dot,
    load_block,
    parallel_map,
    pixel_slices,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec.solvers.linear.pixel_blocks import PixelBlock

__all__ = ["LeastSquaresFit", "fit_least_squares_with_scatter", "scatter_of_residuals"]

NARROW = 1e-9  # relative width at which a bracket of the scatter is its middle


@dataclass(frozen=True)
class LeastSquaresFit:
    """Coefficients and scatter of P pixels.

    Attributes
    ----------
    theta : ndarray (D, P)
        Coefficients; exactly 0 where a term is not allowed.
    scatter : ndarray (P,)
        Intrinsic scatter s, in flux units; inf where the pixel is untrained.
    trained : ndarray (P,) of bool
        False where fewer good stars than terms were available.
    converged : ndarray (P,) of bool
        Whether the scatter met its tolerance (True for untrained and fixed pixels).
    n_iter : ndarray (P,) of int
        Likelihood evaluations spent.
    terms : ndarray (D, P) of bool or None
        The allowed terms, as given.
    """

    theta: np.ndarray
    scatter: np.ndarray
    trained: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray
    terms: np.ndarray | None = None


def fit_least_squares_with_scatter(
    V: ArrayLike,
    Y: ArrayLike,
    variance: ArrayLike,
    *,
    terms: np.ndarray | None = None,
    scatter: str | ArrayLike = "ml",
    tol: float = 1e-8,
    max_iter: int = 60,
    block_size: int | None = None,
    solver: str = "auto",
) -> LeastSquaresFit:
    r"""Fit y_nj = v_n . theta_j + N(0, variance_nj + s_j^2) in every pixel j.

    Minimises, jointly in theta_j and u_j = s_j^2 >= 0,

        NLL_j = 1/2 sum_n [ (y_nj - v_n . theta_j)^2 w_nj - ln w_nj ],  w_nj = 1/(variance_nj + u_j)

    by safeguarded Newton steps in u on the profile likelihood: with theta(u) the weighted least
    squares solution, dNLL/du = 1/2 sum w - 1/2 sum w^2 r^2. A derivative >= 0 at u = 0 gives s = 0.

    Parameters
    ----------
    V : array (n, D)
        Terms of the model at each star; the first column is the constant 1.
    Y : array (n, P)
        Fluxes. A non-finite flux has no weight.
    variance : array (n, P), (P,) or scalar
        Photon variance >= 0; 0 means no known noise, inf (or NaN) a bad pixel. One value per pixel
        without `terms` is solved in closed form.
    terms : array (D, P) of bool, optional
        Terms allowed in each pixel (censoring); the others are absent from that pixel's fit.
    scatter : {"ml", "reml"}, float or array (P,)
        Maximum likelihood; restricted likelihood, which undoes the (n - D)/n bias of s^2; or s
        itself, held fixed (inf: leave that pixel untrained).
    tol : float
        Error of NLL, roughly. With F and H the first and second derivative of NLL, conjugate
        gradients stop at F^2/H < tol, which at 1e-8 puts u within 1e-4 of its standard error;
        direct solutions stop at F^2/H < sqrt(tol)/100 and take the last, quadratically convergent
        step in u and theta without another evaluation.
    max_iter : int
        Likelihood evaluations at most; `converged` tells where it did not suffice.
    block_size : int, optional
        Pixels at a time.
    solver : {"auto", "direct", "pcg"}
        Normal equations or conjugate gradients; "auto" takes the latter above 24 terms. REML
        needs leverages and is always direct.

    Returns
    -------
    LeastSquaresFit

    Notes
    -----
    A pixel with fewer good stars than allowed terms is untrained: theta is 0 but for the weighted
    mean of its good values (0 if there is none) as intercept, and scatter is inf, so that it
    carries no weight at inversion. Rank-deficient normal matrices get a ridge of 1e-10 of their
    trace. The likelihood in u may have several maxima; the one reached from the weighted moment
    estimate is returned. With fewer than D stars of exactly zero variance among noisy ones the
    likelihood is unbounded and s = 0 is returned.

    References
    ----------
    Ness et al. 2015, arXiv:1501.07604. Casey et al. 2016, arXiv:1603.03040.
    """
    V, Y, variance, terms = checked(V, Y, variance, terms)
    D, P = V.shape[1], Y.shape[1]
    if solver not in ("auto", "direct", "pcg"):
        raise ValueError(f"solver must be 'auto', 'direct' or 'pcg', not {solver!r}.")
    if isinstance(scatter, str) and scatter not in ("ml", "reml"):
        raise ValueError(f"scatter must be 'ml', 'reml' or a number, not {scatter!r}.")
    fixed = None if isinstance(scatter, str) else np.broadcast_to(np.square(scatter), P)
    reml = fixed is None and scatter == "reml"
    T, Q = orthogonal_terms(V, terms)
    if terms is None and variance.ndim < 2:
        with np.errstate(all="ignore"):
            fit = _closed_form(T, Q, Y, variance, fixed, reml)
        if fit is not None:
            return fit
    pcg = solver == "pcg" or (solver == "auto" and D > PAIR_PRODUCT_TERMS)
    design = IterativeDesign(Q) if pcg and not reml else Design(Q)
    tol = 0.01 * tol**0.5 if design.exact else tol

    def fit_some(cols):
        block = load_block(Y, variance, terms, cols)
        u = None if fixed is None else fixed[cols]
        return _fit_block(design, T, block, u, reml, tol, max_iter)

    parts = parallel_map(fit_some, pixel_slices(P, block_size or design.block_size()))
    beta, u, trained, converged, n_iter = (np.concatenate(a, axis=-1) for a in zip(*parts))
    theta = solve_triangular(T, beta)
    return LeastSquaresFit(theta, np.sqrt(u), trained, converged, n_iter, terms)


def _closed_form(T, Q, Y, v, fixed, reml):
    """One Gram matrix for all: v (P,) or scalar. None where a value is missing or V singular."""
    n, D = Q.shape
    P = Y.shape[1]
    v = np.broadcast_to(v.reshape(-1), P)
    finite = all(np.isfinite(x.sum()) for x in (v, Y, v if fixed is None else fixed))
    if not finite or n < D or not np.allclose(Q.T @ Q, np.eye(D)):
        return None
    if v.min() < 0:
        raise ValueError("A variance must not be negative.")
    beta = Q.T @ Y
    u = fixed
    if fixed is None:
        square, power = np.empty(P), np.empty(P)
        for cols in pixel_slices(P, max(2**16 // n, 64)):
            y = np.array(Y[:, cols], float)
            power[cols] = column_dot(y, y) / n
            y -= Q @ beta[:, cols]
            square[cols] = column_dot(y, y)
        u = square / (max(n - D, 1) if reml else n)
        u = np.where(u > v + FLOOR * power, u - v, 0.0)
    yes = np.ones(P, bool)
    theta = solve_triangular(T, beta)
    return LeastSquaresFit(theta, np.sqrt(u), yes, yes.copy(), np.ones(P, int))


def _evaluate(design, block, u, start, reml):
    """theta(u), -dtheta/du, the slope F of the profile likelihood and its curvature H.

    H = d2NLL/du2 + 2 F sum w^2 / sum w, which is exact where F = 0 and makes -F/H the exact step
    when all variances are equal. Without exact solutions the second is None.
    """
    w = block.weights(u)
    normal = design.normal(w, block.terms)
    wr = w * block.y
    theta = normal.solve(block.masked(design.Qt @ wr), start)
    wwr = design.Q @ theta
    np.subtract(block.y, wwr, out=wwr)
    np.multiply(w, wwr, out=wr)
    np.multiply(w, wr, out=wwr)
    sum_w, sum_ww = w.sum(axis=0), column_dot(w, w)
    F = 0.5 * (sum_w - column_dot(wr, wr))
    H = -0.5 * sum_ww + column_dot(wr, wwr)
    c = block.masked(design.Qt @ wwr)
    slope = normal.solve(c) if design.exact else None
    H -= column_dot(c, slope) if design.exact else normal.quadratic(c)
    if reml:
        h = w * design.forms(design.prepare(design.Q[:, None]), normal.inverse())[:, 0]
        F -= 0.5 * column_dot(w, h)
        H += 0.5 * np.einsum("nb,nb,nb->b", w, w, h)
    return theta, slope, F, H + 2 * F * sum_ww / sum_w


def _propose(new, u, F, H, lower, upper, typical, split=False):
    """The Newton step if it stays in the bracket, else a geometric one; lower < 0 is unknown.

    `split` asks for the latter in any case where the bracket is closed.
    """
    new = np.where(H > 0, new, np.where(F < 0, 4 * (u + typical), 0.0))
    new = np.where((lower < 0) & (new <= 0), 0.0, new)
    outside = ((new <= lower) & (lower >= 0)) | (new >= upper) | ~np.isfinite(new)
    outside |= split & (lower >= 0) & np.isfinite(upper)
    finite = np.where(np.isfinite(upper), upper, 0.0)
    middle = np.where(
        np.isfinite(upper),
        np.sqrt(np.maximum(np.maximum(lower, 0.0), finite / 64) * finite),
        4 * (u + typical),
    )
    return np.where(outside, middle, new)


def _start(block):
    """Harmonic mean of the known variances, or the variance of y where there is none."""
    u = block.n_good / np.sum(1.0 / block.v, axis=0)
    unknown = np.flatnonzero(~(u > 0))
    if unknown.size:
        y, known = block.y[:, unknown], block.v[:, unknown] < np.inf
        y -= np.mean(y, axis=0, where=known)
        spread = np.mean(y * y, axis=0, where=known)
        u[unknown] = np.where(spread > 0, spread, 1.0)
    return u


def scatter_of_residuals(
    block: PixelBlock, r: np.ndarray, u: np.ndarray, tol: float = 1e-8, max_iter: int = 60
) -> np.ndarray:
    """Maximum likelihood s^2 >= 0 of given residuals: the root of sum w^2 r^2 - w, or 0.

    r is overwritten.
    """
    lower, upper = np.full(len(u), -1.0), np.full(len(u), np.inf)
    if not np.isfinite(u).all():
        u = np.where(np.isfinite(u), u, _start(block))
    typical, done = np.maximum(u, block.floor), np.zeros(len(u), bool)
    rr, w, ww = np.multiply(r, r, out=r), np.empty_like(r), np.empty_like(r)
    for _ in range(max_iter):
        w = block.weights(u, w)
        np.multiply(w, w, out=ww)
        sum_w = w.sum(axis=0)
        sum_ww, sum_wwrr = ww.sum(axis=0), column_dot(ww, rr)
        F = 0.5 * (sum_w - sum_wwrr)
        ww *= w
        H = -0.5 * sum_ww + column_dot(ww, rr) + 2 * F * sum_ww / sum_w
        done = (F * F <= tol * H) | ((u == 0) & (F >= 0)) | ~(sum_w > 0)
        if done.all():
            break
        lower, upper = np.where(F < 0, u, lower), np.where(F < 0, upper, u)
        u = np.where(done, u, _propose(u - F / H, u, F, H, lower, upper, typical))
    return u


def _maximise(design, block, u, fixed, reml, tol, max_iter):
    """theta, u, converged and evaluations of the pixels of a block, all of them fittable."""
    B = len(u)
    best, u_best = np.zeros((design.D, B)), np.empty(B)
    converged, n_iter = np.zeros(B, bool), np.zeros(B, int)
    active, typical, done = np.arange(B), u, np.zeros(B, bool)
    lower, upper, theta = np.full(B, -1.0), np.full(B, np.inf), best.copy()
    for iteration in range(max_iter):
        theta, slope, F, H = _evaluate(design, block, u, theta, reml)
        best[:, active], u_best[active] = theta, u
        n_iter[active[~done]] += 1
        if fixed is not None:
            return best, u_best, ~converged, n_iter
        new = u - F / H
        close = (F * F <= tol * H) & (new > 0)
        if slope is not None:  # the last step, to first order in theta as well; idempotent
            u_best[active[close]] = new[close]
            best[:, active[close]] -= (slope * (new - u))[:, close]
        frozen = done
        lower, upper = np.where(F < 0, u, lower), np.where(F < 0, upper, u)
        narrow = (lower >= 0) & (lower >= (1 - NARROW) * upper)
        done = close | narrow | frozen | ((u == 0) & (F >= 0))
        converged[active[done]] = True
        if done.all():
            break
        split = iteration % 3 == 2 and iteration > 6
        u = np.where(done, u, _propose(new, u, F, H, lower, upper, typical, split))
        if np.mean(done) > 0.25:
            keep = np.flatnonzero(~done)
            block, theta, active, done = block.take(keep), theta[:, keep], active[keep], done[keep]
            u, lower, upper, typical = u[keep], lower[keep], upper[keep], typical[keep]
    return best, u_best, converged, n_iter


def _fit_block(design, T, block, fixed, reml, tol, max_iter):
    """theta (D, B) in the basis of T, u, trained, converged and n_iter of one block."""
    D, B = design.D, len(block.floor)
    n_terms = D if block.terms is None else block.terms.sum(axis=0)
    trained = block.n_good >= n_terms
    if fixed is not None:
        trained &= np.isfinite(fixed)
    theta, u = np.zeros((D, B)), np.full(B, np.inf)
    converged, n_iter = np.ones(B, bool), np.zeros(B, int)
    if not trained.all():
        w = block.weights(0.0)
        total = w.sum(axis=0)
        theta[0] = T[0, 0] * column_dot(w, block.y) / np.where(total > 0, total, 1.0)
        block = block.take(trained)
    if trained.any():
        first = _start(block) if fixed is None else fixed[trained]
        theta[:, trained], u[trained], converged[trained], n_iter[trained] = _maximise(
            design, block, first, fixed, reml, tol, max_iter
        )
    return theta, u, trained, converged, n_iter
