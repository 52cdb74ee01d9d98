"""Weighted least squares with intrinsic scatter, for every pixel at once: the engine of The Cannon.

`fit_least_squares_with_scatter` finds coefficients and scatter of all pixels jointly,
`leave_one_out_blocks` gives the exact residuals and Jacobians of the models trained without each
star in turn, at the price of one further evaluation. Normal equations of at most 24 terms are
formed by one matrix product with all pair products of the terms, then factorised for all pixels
of a block together; longer models go through conjugate gradients with one shared preconditioner.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, qr, solve_triangular
from threadpoolctl import ThreadpoolController

__all__ = [
    "LeastSquaresFit",
    "LeaveOneOutBlock",
    "fit_least_squares_with_scatter",
    "leave_one_out",
    "leave_one_out_blocks",
    "leave_one_out_information",
]

PAIR_PRODUCT_TERMS = 24  # longest model whose pair products are tabulated
RIDGE = 1e-10  # of the trace, for rank-deficient normal matrices
SINGULAR = 1e-12  # smallest pivot, as a fraction of its diagonal element, of a full-rank matrix
FLOOR = 1e-24  # smallest variance, as a fraction of mean(y^2), where no noise is known
PCG_TOLERANCE, PCG_ITERATIONS = 1e-11, 80  # relative, in the norm of the preconditioner
NARROW = 1e-9  # relative width at which a bracket of the scatter is its middle
DECISIVE = 1e-8  # 1 - h below this: the pixel cannot be fitted without the star


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
    V, Y, variance, *, terms=None, scatter="ml", tol=1e-8, max_iter=60, block_size=None,
    solver="auto",
):
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
    V, Y, variance, terms = _check(V, Y, variance, terms)
    D, P = V.shape[1], Y.shape[1]
    if solver not in ("auto", "direct", "pcg"):
        raise ValueError(f"solver must be 'auto', 'direct' or 'pcg', not {solver!r}.")
    if isinstance(scatter, str) and scatter not in ("ml", "reml"):
        raise ValueError(f"scatter must be 'ml', 'reml' or a number, not {scatter!r}.")
    fixed = None if isinstance(scatter, str) else np.broadcast_to(np.square(scatter), P)
    reml = fixed is None and scatter == "reml"
    T, Q = _basis(V, terms)
    if terms is None and variance.ndim < 2:
        with np.errstate(all="ignore"):
            fit = _closed_form(T, Q, Y, variance, fixed, reml)
        if fit is not None:
            return fit
    pcg = solver == "pcg" or (solver == "auto" and D > PAIR_PRODUCT_TERMS)
    design = _IterativeDesign(Q) if pcg and not reml else _Design(Q)
    tol = 0.01 * tol**0.5 if design.exact else tol

    def fit_some(cols):
        block = _load(Y, variance, terms, cols)
        u = None if fixed is None else fixed[cols]
        return _fit_block(design, T, block, u, reml, tol, max_iter)

    parts = _in_threads(fit_some, _blocks(P, block_size or design.block_size()))
    beta, u, trained, converged, n_iter = (np.concatenate(a, axis=-1) for a in zip(*parts))
    theta = solve_triangular(T, beta)
    return LeastSquaresFit(theta, np.sqrt(u), trained, converged, n_iter, terms)


# ------------------------------------------------------------------------------ input and blocks


class _Block(NamedTuple):
    """Some pixels: flux and variance (n, B), and what tells good from bad."""

    y: np.ndarray
    v: np.ndarray
    missing: np.ndarray | None  # (n, B), where the flux itself is not finite
    floor: np.ndarray  # (B,) smallest usable u
    n_good: np.ndarray  # (B,)
    terms: np.ndarray | None  # (D, B)

    def weights(self, u, out=None):
        w = np.add(self.v, np.maximum(u, self.floor), out=out)
        return np.reciprocal(w, out=w)

    def take(self, keep):
        return _Block(*(None if a is None else a[..., keep] for a in self))

    def masked(self, a):
        return a if self.terms is None else a * self.terms


def _check(V, Y, variance, terms):
    V, Y, variance = np.asarray(V, float), np.asarray(Y), np.asarray(variance)
    if V.ndim != 2 or Y.ndim != 2 or len(V) != len(Y) or not len(V):
        raise ValueError(f"V (n, D) and Y (n, P) are needed, not {V.shape} and {Y.shape}.")
    if np.any(V[:, 0] != 1):
        raise ValueError("The first column of V must be the constant 1.")
    if np.broadcast_shapes(variance.shape, Y.shape) != Y.shape:
        raise ValueError(f"variance {variance.shape} does not match Y {Y.shape}.")
    variance = variance.reshape(-1) if variance.size == 1 else variance
    if terms is not None:
        terms = np.asarray(terms, bool)
        if terms.shape != (V.shape[1], Y.shape[1]) or not terms[0].all():
            raise ValueError("terms must be (D, P) and allow the constant term everywhere.")
        terms = None if terms.all() else terms
    return V, Y, variance, terms


def _blocks(P, size):
    return [slice(a, min(a + size, P)) for a in range(0, P, size)]


@cache
def _blas():
    return ThreadpoolController()


def _quietly(function, item):
    with np.errstate(all="ignore"):
        return function(item)


def _in_threads(function, items):
    """[function(item) for item in items], as many at once as BLAS would use threads.

    Small products gain little from a threaded BLAS and lose much on a busy machine: one thread
    each, and the blocks side by side, uses the cores for the element-wise work as well.
    """
    n_threads = max((lib["num_threads"] for lib in _blas().info() if lib["user_api"] == "blas"),
                    default=1)
    with _blas().limit(limits=1, user_api="blas"):
        if min(n_threads, len(items)) < 2:
            return [_quietly(function, item) for item in items]
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(partial(_quietly, function), items))


def _load(Y, variance, terms, cols):
    """Copy some pixels as float64; bad values get infinite variance, hence weight 0."""
    y = np.array(Y[:, cols], dtype=float, order="C")
    v = np.empty_like(y)
    v[:] = variance if variance.size == 1 else variance[..., cols]
    least = v.min(axis=0)
    if np.any(least < 0):
        raise ValueError("A variance must not be negative.")
    missing = None
    if not np.isfinite(y.sum()):
        missing = ~np.isfinite(y)
        y[missing], v[missing] = 0.0, np.inf
    n_good = np.full(y.shape[1], len(y))
    if not np.isfinite(v.sum()):
        np.copyto(v, np.inf, where=np.isnan(v))
        least = v.min(axis=0)
        n_good = np.count_nonzero(v < np.inf, axis=0)
    power = _column_dot(y, y) / len(y)
    floor = np.where(power > 0, FLOOR * power, 1.0)
    floor[least > floor] = 0.0
    return _Block(y, v, missing, floor, n_good, None if terms is None else terms[:, cols])


def _column_dot(a, b):
    return np.einsum("nb,nb->b", a, b)


def _basis(V, terms):
    """Upper triangular T and Q = V T^-1: orthonormal columns, or centred ones if terms differ."""
    n, D = V.shape
    if terms is None and n >= D:
        Q, T = qr(V, mode="economic")
        if np.all(np.abs(np.diag(T)) > 1e-7 * np.linalg.norm(T, axis=0)):
            return T, Q
    T = np.eye(D)
    T[0, 1:] = V[:, 1:].mean(axis=0)
    centred = V[:, 1:] - T[0, 1:]
    spread = np.sqrt(np.mean(centred**2, axis=0))
    T[range(1, D), range(1, D)] = np.where(spread > 0, spread, 1.0)
    return T, np.hstack([V[:, :1], centred / np.diag(T)[1:]])


# ------------------------------------------------------------------------------ normal equations


def _pair_products(left, Q):
    """Rows l_a q_b + l_b q_a of each star for a < b (l_a q_a on the diagonal): (..., T)."""
    a, b = np.triu_indices(Q.shape[-1])
    return left[..., a] * Q[..., b] + np.where(a < b, left[..., b] * Q[..., a], 0.0)


class _Design:
    """Normal equations Q' diag(w) Q of the pixels of a block."""

    exact = True

    def __init__(self, Q):
        self.Q, self.Qt = np.ascontiguousarray(Q), np.ascontiguousarray(Q.T)
        self.n, self.D = Q.shape
        self.short = self.D <= PAIR_PRODUCT_TERMS
        if self.short:
            a, b = np.triu_indices(self.D)
            self.products = np.ascontiguousarray((Q[:, a] * Q[:, b]).T)
            self.index = np.zeros((self.D, self.D), int)
            self.index[a, b] = self.index[b, a] = np.arange(len(a))

    def block_size(self, rows=1):
        """Pixels at a time, so that n x rows numbers for each stay in the cache."""
        if self.short:
            return int(np.clip(2**17 // (self.n * rows), 64, 512))
        return int(np.clip(2**20 // (self.n * (self.D + rows)), 4, 64))

    def normal(self, w, terms):
        if self.short:
            return _ShortNormal(self.products @ w, self.index, terms)
        return _LongNormal(self._long_gram(w), terms)

    def _long_gram(self, w):
        gram = (self.Qt * w.T[:, None, :]).reshape(-1, self.n) @ self.Q
        return gram.reshape(-1, self.D, self.D)

    def gram(self, w):
        """Q' diag(w) Q, (D, D, B)."""
        if self.short:
            return (self.products @ w)[self.index]
        return np.ascontiguousarray(self._long_gram(w).transpose(1, 2, 0))

    def prepare(self, left):
        """What `forms` needs of the row vectors `left` (n, m, D)."""
        if not self.short:
            return left
        a, b = np.triu_indices(self.D)
        Q = self.Q[:, None]
        pairs = left[..., a] * Q[..., b] + np.where(a < b, left[..., b] * Q[..., a], 0.0)
        return pairs.reshape(-1, len(a))

    def forms(self, prepared, inverse):
        """left_nm . N^-1 q_n for every star, row and pixel: (n, m, B)."""
        if self.short:
            a, b = np.triu_indices(self.D)
            return (prepared @ inverse[a, b]).reshape(self.n, -1, inverse.shape[-1])
        rows = np.tensordot(self.Q, inverse, 1)
        return np.matmul(prepared, rows)


class _ShortNormal:
    """L diag(d) L' factors, the pixels being the last and vectorised axis."""

    def __init__(self, packed, index, terms):
        self.terms = terms
        self.L = self._full(packed, index, slice(None), 0.0)
        diagonal = np.einsum("ddb->db", self.L).copy()
        self._factorise(self.L)
        singular = np.flatnonzero(
            ~np.all(np.einsum("ddb->db", self.L) > SINGULAR * diagonal, axis=0)
        )
        if singular.size:
            L = self._full(packed, index, singular, RIDGE)
            self._factorise(L)
            self.L[..., singular] = L

    def _full(self, packed, index, pixels, ridge):
        N = packed[:, pixels][index]
        diagonal = np.einsum("ddb->db", N)
        if self.terms is not None:
            allowed = self.terms[:, pixels]
            fill = np.where(N[0, 0] > 0, N[0, 0], 1.0)
            N *= allowed[:, None] & allowed
            diagonal += ~allowed * fill
        if ridge:
            diagonal += ridge * diagonal.sum(axis=0)
        return N

    @staticmethod
    def _factorise(N):
        for k in range(len(N) - 1):
            column = N[k + 1 :, k] / N[k, k]
            N[k + 1 :, k + 1 :] -= column[:, None] * N[k, k + 1 :]
            N[k + 1 :, k] = column

    def solve(self, rhs, start=None):
        x = rhs.copy()
        for k in range(len(x) - 1):
            x[k + 1 :] -= self.L[k + 1 :, k] * x[k]
        x /= np.einsum("ddb->db", self.L)
        for k in range(len(x) - 1, 0, -1):
            x[:k] -= self.L[k, :k] * x[k]
        return x

    def inverse(self):
        """N^-1 (D, D, B), zero where a term is not allowed."""
        D, _, B = self.L.shape
        X, inverse = np.zeros((D, D, B)), np.zeros((D, D, B))
        X[range(D), range(D)] = 1.0 if self.terms is None else self.terms
        for k in range(D):
            row = X[k, : k + 1]
            X[k + 1 :, : k + 1] -= self.L[k + 1 :, k, None] * row
            inverse[: k + 1, : k + 1] += (row / self.L[k, k])[:, None] * row
        return inverse


class _LongNormal:
    """The same through LAPACK inverses, pixels first."""

    def __init__(self, N, terms):
        self.terms = terms
        diagonal = np.einsum("bdd->bd", N)
        if terms is not None:
            allowed = terms.T
            fill = np.where(N[:, :1, 0] > 0, N[:, :1, 0], 1.0)
            N *= allowed[:, None] & allowed[:, :, None]
            diagonal += ~allowed * fill
        size = np.linalg.norm(N, axis=(1, 2))
        try:
            self.N_inv = np.linalg.inv(N)
            condition = size * np.linalg.norm(self.N_inv, axis=(1, 2))
            singular = np.flatnonzero(~(condition < 1 / SINGULAR))
        except np.linalg.LinAlgError:
            self.N_inv, singular = np.empty_like(N), np.arange(len(N))
            least = np.linalg.eigvalsh(N)[:, 0]
            regular = np.flatnonzero(least > SINGULAR * size)
            self.N_inv[regular] = np.linalg.inv(N[regular])
            singular = np.setdiff1d(singular, regular)
        if singular.size:
            diagonal[singular] += RIDGE * diagonal[singular].sum(axis=1, keepdims=True)
            self.N_inv[singular] = np.linalg.inv(N[singular])

    def solve(self, rhs, start=None):
        return np.einsum("bde,eb->db", self.N_inv, rhs)

    def inverse(self):
        inverse = self.N_inv.transpose(1, 2, 0)
        return inverse if self.terms is None else inverse * (self.terms[:, None] & self.terms)


class _IterativeDesign(_Design):
    """Conjugate gradients for all pixels at once, one preconditioner for each block."""

    exact = False

    def block_size(self, rows=1):
        return int(np.clip(2**19 // self.n, 64, 512))

    def normal(self, w, terms):
        return _IterativeNormal(self, w, terms)


class _IterativeNormal:
    def __init__(self, design, w, terms):
        self.design, self.w, self.terms = design, w, terms
        self.scale = np.mean(w, axis=0)
        self.scale[~(self.scale > 0)] = 1.0
        mean = np.mean(w / self.scale, axis=1)
        P = (design.Qt * mean) @ design.Q
        P[np.diag_indices_from(P)] += 1e-13 * np.trace(P)
        self.preconditioner = cho_factor(P)

    def _masked(self, x):
        return x if self.terms is None else x * self.terms

    def _precondition(self, x):
        return self._masked(cho_solve(self.preconditioner, x, check_finite=False)) / self.scale

    def quadratic(self, c):
        """c' N^-1 c, approximately."""
        return _column_dot(c, self._precondition(c))

    def _apply(self, x):
        model = self.design.Q @ x
        model *= self.w
        return self._masked(self.design.Qt @ model)

    def solve(self, rhs, start):
        """Preconditioned conjugate gradients; what has not converged is solved directly."""
        x = start.copy()
        r = rhs - self._apply(x)
        z = self._precondition(r)
        p, rz = z, _column_dot(r, z)
        enough = PCG_TOLERANCE**2 * _column_dot(rhs, self._precondition(rhs))
        for _ in range(PCG_ITERATIONS):
            if np.all(rz <= enough):
                break
            q = self._apply(p)
            alpha = np.where(rz > enough, rz / _column_dot(p, q), 0.0)
            x += alpha * p
            r -= alpha * q
            z = self._precondition(r)
            previous, rz = rz, np.where(rz > enough, _column_dot(r, z), rz)
            p = z + rz / previous * p
        self._directly(x, rhs, np.flatnonzero(~(rz <= enough)))
        return x

    def _directly(self, x, rhs, pixels):
        size = _Design.block_size(self.design)
        for some in (pixels[a : a + size] for a in range(0, pixels.size, size)):
            terms = None if self.terms is None else self.terms[:, some]
            normal = _Design.normal(self.design, self.w[:, some], terms)
            x[:, some] = normal.solve(rhs[:, some])


# ------------------------------------------------------------------------------- the likelihood


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
        for cols in _blocks(P, max(2**16 // n, 64)):
            y = np.array(Y[:, cols], float)
            power[cols] = _column_dot(y, y) / n
            y -= Q @ beta[:, cols]
            square[cols] = _column_dot(y, y)
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
    sum_w, sum_ww = w.sum(axis=0), _column_dot(w, w)
    F = 0.5 * (sum_w - _column_dot(wr, wr))
    H = -0.5 * sum_ww + _column_dot(wr, wwr)
    c = block.masked(design.Qt @ wwr)
    slope = normal.solve(c) if design.exact else None
    H -= _column_dot(c, slope) if design.exact else normal.quadratic(c)
    if reml:
        h = w * design.forms(design.prepare(design.Q[:, None]), normal.inverse())[:, 0]
        F -= 0.5 * _column_dot(w, h)
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


def _scatter_of_residuals(block, r, u, tol=1e-8, max_iter=60):
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
        sum_ww, sum_wwrr = ww.sum(axis=0), _column_dot(ww, rr)
        F = 0.5 * (sum_w - sum_wwrr)
        ww *= w
        H = -0.5 * sum_ww + _column_dot(ww, rr) + 2 * F * sum_ww / sum_w
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
        theta[0] = T[0, 0] * _column_dot(w, block.y) / np.where(total > 0, total, 1.0)
        block = block.take(trained)
    if trained.any():
        first = _start(block) if fixed is None else fixed[trained]
        theta[:, trained], u[trained], converged[trained], n_iter[trained] = _maximise(
            design, block, first, fixed, reml, tol, max_iter
        )
    return theta, u, trained, converged, n_iter


# -------------------------------------------------------------------------------- leave one out


class LeaveOneOutBlock(NamedTuple):
    """Some pixels, each star seen by the model trained without it."""

    columns: slice
    residuals: np.ndarray  # (n, B)
    weights: np.ndarray  # (n, B): 1/(variance + s^2)
    jacobian: np.ndarray | None  # (n, K, B)


def leave_one_out_blocks(V, Y, variance, fit, *, dV=None, block_size=None):
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
    compute, blocks = _leave_out_plan(V, Y, variance, fit, dV, block_size)
    for cols in blocks:
        yield _quietly(compute, cols)  # no error state across a yield: it would reach the consumer


def _leave_out_plan(V, Y, variance, fit, dV, block_size):
    """The function from columns to LeaveOneOutBlock, and the columns."""
    V, Y, variance, _ = _check(V, Y, variance, None)
    T, Q = _basis(V, fit.terms)
    design = _Design(Q)
    beta = T @ fit.theta
    left = Q[:, None] if dV is None else np.concatenate([Q[:, None], _rebase(dV, T)], axis=1)
    prepared = design.prepare(left)

    terms = _live_terms(fit)

    def compute(cols):
        block = _load(Y, variance, terms, cols)
        return _leave_out(design, block, cols, fit.scatter[cols], beta[:, cols], left, prepared)

    return compute, _blocks(Y.shape[1], block_size or design.block_size(left.shape[1]))


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


def leave_one_out(V, Y, variance, fit, *, dV=None, block_size=None):
    """Leave-one-out residuals (n, P), and with `dV` the Jacobians (n, P, K) as well.

    See `leave_one_out_blocks`, which does not hold n x P x K numbers.
    """
    residuals = np.empty(np.shape(Y))
    jacobian = None if dV is None else np.empty((*np.shape(Y), np.shape(dV)[1]))
    compute, blocks = _leave_out_plan(V, Y, variance, fit, dV, block_size)

    def store(cols):
        part = compute(cols)
        residuals[:, cols] = part.residuals
        if dV is not None:
            jacobian[:, cols] = part.jacobian.transpose(0, 2, 1)

    _in_threads(store, blocks)
    return residuals if dV is None else (residuals, jacobian)


def leave_one_out_information(V, Y, variance, fit, dV, *, block_size=None):
    """Information F_n = sum_j W J J' (n, K, K) and score g_n = sum_j W J r (n, K) of each star.

    J, r and W = 1/(variance + s^2) are those of the model trained without the star, so that
    F_n^-1 g_n is the label error that model makes on it, to first order.
    """
    n, K = np.shape(dV)[:2]
    compute, blocks = _leave_out_plan(V, Y, variance, fit, dV, block_size)

    def add_up(some):
        information, score = np.zeros((n, K, K)), np.zeros((n, K))
        for part in map(compute, some):
            J = part.jacobian
            WJ = J * part.weights[:, None]
            information += WJ @ J.transpose(0, 2, 1)
            score += (WJ @ part.residuals[..., None])[..., 0]
        return information, score

    step = -(-len(blocks) // 8)
    parts = _in_threads(add_up, [blocks[a : a + step] for a in range(0, len(blocks), step)])
    return tuple(sum(x) for x in zip(*parts))
