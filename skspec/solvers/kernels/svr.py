"""Epsilon support vector regression of many targets that share one kernel matrix.

`fit_svr` is the one you want: all pixels of a set of spectra at once, in plain numpy.
`leave_one_out` gives cross-validated residuals from one fit, `fit_svr_libsvm` is the slow reference.
Per target y, with n stars, the dual in the variables b = alpha - alpha* reads

    min_b  1/2 b'Kb - y'b + eps |b|_1     s.t.  |b_i| <= C w_i,  1'b = 0;     f = K b + b0.

References
----------
Smola & Schoelkopf 2004, Statistics and Computing 14, 199.  Boyd et al. 2011, ADMM, section 3.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpstrf

from skspec.solvers.kernels.svr_active_set import (
    dual_violation,
    leave_one_out,
    newton_rounds,
)

__all__ = [
    "KernelOperator",
    "SVRSolution",
    "admm_operator",
    "fit_svr",
    "fit_svr_libsvm",
    "leave_one_out",
]

RELAXATION = 1.6  # Boyd et al. 2011, section 3.4.3
# ADMM's step rho is RHO / C, smaller for pixels that a smooth curve fits well: few stars are then
# at the bound and the duals stay far below C.
RHO, RHO_SMOOTH, SMOOTH_RESIDUAL = 0.3, 0.1, 0.3
# Iterations before each attempt of the active-set method, and their arithmetic.
STAGES = (
    (30, np.float32),
    (30, np.float32),
    (60, np.float32),
    (120, np.float64),
    (240, np.float64),
)
BLOCK = 256  # pixels at a time: a (256, 1000) float32 array is 1 MB, four of them stay in cache
LIBSVM_ITER = 2_000_000
EIGEN_FLOOR = 1e-2  # eigenvalues below this fraction of rho barely move ADMM


@dataclass(frozen=True)
class SVRSolution:
    """Duals of epsilon-SVR for P targets.

    Attributes
    ----------
    dual_coef : ndarray of shape (n, P)
        b; the prediction is K b + b0.
    intercept : ndarray of shape (P,)
        b0.
    violation : ndarray of shape (P,)
        KKT violation in flux units, libsvm's max(low) - min(up).
    n_iter : ndarray of int, shape (P,)
        ADMM iterations.
    converged : ndarray of bool, shape (P,)
        violation <= tol.
    """

    dual_coef: np.ndarray
    intercept: np.ndarray
    violation: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


@dataclass(frozen=True)
class KernelOperator:
    """What ADMM needs of a kernel matrix, made once by `admm_operator` and shared by every call.

    On the subspace 1'b = 0 only the centred kernel H K H = U diag(s) U' matters, so that the
    update b = rho (K + rho I)^-1 q restricted to it is q - V diag(d) V'q with V = [1/sqrt(n), U],
    d = [1, s / (s + rho)].  Smooth kernels need few columns, whatever rho and C.

    Attributes
    ----------
    kernel : ndarray of shape (n, n)
        K, float64 and C-contiguous.
    basis : ndarray of shape (n, r) or None
        V; None when more than n / 2 columns matter, then a dense n x n matrix per rho serves.
    eigenvalues : ndarray of shape (r,) or None
        Infinite first, then decreasing.
    """

    kernel: np.ndarray
    basis: np.ndarray | None
    eigenvalues: np.ndarray | None
    _dense: dict = field(default_factory=dict, repr=False, compare=False)

    def at(self, rho: float, dtype: Any) -> tuple[np.ndarray | None, np.ndarray]:
        """(left, right) of shape (n, r), (r, n) with left @ right = I - rho M; or (None, rho M)."""
        if self.basis is not None:
            keep = np.count_nonzero(self.eigenvalues > EIGEN_FLOOR * rho)
            if 2 * keep < len(self.kernel):
                s = self.eigenvalues[1:keep]
                d = np.concatenate([[1.0], s / (s + rho)])
                V = self.basis[:, :keep]
                return np.ascontiguousarray(V, dtype), np.ascontiguousarray((V * d).T, dtype)
        key = float(rho), np.dtype(dtype)
        if key not in self._dense:
            n = len(self.kernel)
            factor = cho_factor(self.kernel + rho * np.eye(n), check_finite=False)
            inverse = cho_solve(factor, np.eye(n), overwrite_b=True, check_finite=False)
            a = inverse.sum(axis=1)
            inverse -= np.outer(a, a / a.sum())
            self._dense[key] = (rho * inverse).astype(dtype)
        return None, self._dense[key]


def admm_operator(K: np.ndarray) -> KernelOperator:
    """Factor a kernel matrix for `fit_svr`; independent of C, epsilon, targets and masks.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Symmetric positive semidefinite.

    Returns
    -------
    KernelOperator
    """
    K = np.ascontiguousarray(K, dtype=np.float64)
    n = len(K)
    top = np.max(np.diagonal(K), initial=0.0)
    factor, pivot, rank, _ = dpstrf(K, lower=1, tol=1e-7 * top)
    if 2 * rank >= n:
        return KernelOperator(K, None, None)
    L = np.empty((n, rank))
    L[pivot - 1] = np.tril(factor[:, :rank])
    L -= L.mean(axis=0)
    s, W = np.linalg.eigh(L.T @ L)
    s, W = s[::-1], W[:, ::-1]
    keep = s > 1e-7 * top
    basis = np.empty((n, 1 + np.count_nonzero(keep)))
    basis[:, 0] = n**-0.5
    basis[:, 1:] = L @ (W[:, keep] / np.sqrt(s[keep]))
    return KernelOperator(K, basis, np.concatenate([[np.inf], s[keep]]))


def fit_svr(
    K: np.ndarray,
    Y: np.ndarray,
    *,
    C: float,
    epsilon: float,
    sample_weight: np.ndarray | None = None,
    tol: float = 1e-6,
    max_iter: int = 480,
    operator: KernelOperator | None = None,
) -> SVRSolution:
    """Epsilon-SVR of many targets with one kernel matrix.

    Over-relaxed ADMM in single precision for all pixels of a block at once finds the sets of
    stars at zero, free, and at the bound; Newton steps on the free stars finish to `tol`.  Pixels
    that do not finish get more ADMM, then libsvm.

    Parameters
    ----------
    K : ndarray of shape (n, n)
    Y : ndarray of shape (n, P)
        Targets, standardised.
    C, epsilon : float
    sample_weight : ndarray of shape (n, P), optional
        Bounds are C times this; 0 takes a star out of a pixel's fit.
    tol : float
        Largest accepted KKT violation, in flux units.
    max_iter : int
        ADMM iterations before libsvm is asked.
    operator : KernelOperator, optional
        `admm_operator(K)`, to share between calls and threads.

    Returns
    -------
    SVRSolution
    """
    operator = admm_operator(K) if operator is None else operator
    K = operator.kernel
    Y = np.ascontiguousarray(np.asarray(Y).T, dtype=np.float64)
    P, n = Y.shape
    bound = float(C)
    if sample_weight is not None:
        bound = C * np.ascontiguousarray(np.asarray(sample_weight).T, dtype=np.float64)

        Y = np.where(bound > 0, Y, 0.0)  # whatever a masked pixel holds, NaN included
    out = _Result(P, n)

    flat, middle = dual_violation(np.zeros((P, n)), Y, bound, epsilon)
    easy = flat <= tol  # the constant fits: nothing else to find
    out.intercept[easy], out.violation[easy] = middle[easy], flat[easy]
    left, right = operator.at(RHO / C, np.float32)
    for smooth in (False, True):
        rho = (RHO_SMOOTH if smooth else RHO) / C
        todo = np.flatnonzero(~easy & (_is_smooth(Y, left, right) == smooth))
        todo = _solve(operator, Y, bound, epsilon, rho, C, tol, max_iter, todo, out)
        for p in todo:
            own = bound[p : p + 1] if np.ndim(bound) else bound
            out.put(p, *_rescue(K, Y[p : p + 1], own, epsilon, C, tol))
    return SVRSolution(out.b.T, out.intercept, out.violation, out.n_iter, out.violation <= tol)


class _Result:
    """Arrays being filled, pixel-major."""

    def __init__(self, P, n):
        self.b, self.intercept = np.zeros((P, n)), np.zeros(P)
        self.violation, self.n_iter = np.full(P, np.inf), np.zeros(P, dtype=int)

    def put(self, rows, b, intercept, violation):
        self.b[rows], self.intercept[rows], self.violation[rows] = b, intercept, violation


def _is_smooth(Y, left, right):
    """True for pixels whose ridge residual, rho M y, is small."""
    y = Y.astype(np.float32)
    residual = y @ right if left is None else y - (y @ left) @ right
    return residual.std(axis=1) < SMOOTH_RESIDUAL


def _solve(operator, Y, bound, epsilon, rho, C, tol, max_iter, todo, out):
    """Alternate ADMM and active-set rounds over blocks of pixels; return those not finished."""
    n = Y.shape[1]
    state, spent = None, 0
    for n_iter, dtype in STAGES:
        if todo.size == 0 or spent >= max_iter:
            break
        spent += n_iter
        left, right = operator.at(rho, dtype)
        rest, rest_state = [], []
        for start in range(0, todo.size, BLOCK):
            rows = todo[start : start + BLOCK]
            v = np.zeros((rows.size, n), dtype)
            if state is not None:
                v[:] = state[start : start + BLOCK]
            y = Y[rows]
            own = bound[rows] if np.ndim(bound) else bound
            _admm(
                v,
                (y / rho).astype(dtype),
                np.asarray(own, dtype),
                dtype(epsilon / rho),
                left,
                right,
                n_iter,
            )
            b, b0, violation, done = newton_rounds(
                operator.kernel, y, v, own, epsilon, threshold=epsilon / rho, C=C, tol=tol
            )
            out.n_iter[rows] = spent
            out.put(rows[done], b[done], b0[done], violation[done])
            rest.append(rows[~done])
            rest_state.append(v[~done])
        todo, state = np.concatenate(rest), np.concatenate(rest_state)
    return todo


def _admm(v, y, bound, threshold, left, right, n_iter):
    """Over-relaxed ADMM in its Douglas-Rachford form, v <- v + alpha (b - z), in place.

    z = prox(v) = clip(soft(v, eps/rho), +-bound);  b = rho M (2z - v + y / rho).

    Parameters
    ----------
    v, y : ndarray of shape (P, n)
        State, and targets over rho.
    bound : ndarray of shape () or (P, n)
    threshold : float
        eps / rho.
    left, right : ndarray
        From `KernelOperator.at`.
    n_iter : int
    """
    alpha = v.dtype.type(RELAXATION)
    z, q, w = np.empty_like(v), np.empty_like(v), np.empty_like(v)
    t = None if left is None else np.empty((len(v), left.shape[1]), v.dtype)
    for _ in range(n_iter):
        # the block is small enough to stay in cache, so passes are cheap and temporaries are not
        np.clip(v, -threshold, threshold, out=q)
        np.subtract(v, q, out=z)
        np.clip(z, -bound, bound, out=z)
        np.subtract(z, v, out=q)
        q += y
        if left is None:
            q += z
            np.matmul(q, right, out=w)
            w -= z
            w *= alpha
            v += w
        else:
            z += q
            np.matmul(z, left, out=t)
            np.matmul(t, right, out=w)
            q -= w
            q *= alpha
            v += q


def _rescue(K, Y, bound, epsilon, C, tol):
    """One stubborn pixel: libsvm, polished by Newton steps when its single precision shows."""
    b = _libsvm_duals(K, Y[0], np.broadcast_to(bound, Y.shape)[0], epsilon, tol)[None]
    e = Y - b @ K
    violation, b0 = dual_violation(b, e, bound, epsilon)
    if violation[0] > tol:
        reach = 10.0 * C
        v = b + reach * (e - b0[:, None])
        polished, p0, p_violation, done = newton_rounds(
            K, Y, v, bound, epsilon, threshold=reach * epsilon, C=C, tol=tol, max_rounds=50
        )
        if done[0]:
            return polished[0], p0[0], p_violation[0]
    return b[0], b0[0], violation[0]


def _libsvm_duals(K, y, bound, epsilon, tol):
    """b of one target by libsvm, with the box -bound <= b <= bound."""
    # the only need for scikit-learn here, and slow to import
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVR

    b = np.zeros_like(y)
    use = np.flatnonzero(bound > 0)
    if use.size == 0:
        return b
    model = SVR(kernel="precomputed", C=1.0, epsilon=epsilon, tol=tol, max_iter=LIBSVM_ITER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(K[np.ix_(use, use)], y[use], sample_weight=bound[use])
    b[use[model.support_]] = model.dual_coef_[0]
    return b


def fit_svr_libsvm(
    K: np.ndarray,
    Y: np.ndarray,
    *,
    C: float,
    epsilon: float,
    sample_weight: np.ndarray | None = None,
    tol: float = 1e-6,
) -> SVRSolution:
    """The same problem by a loop of libsvm over pixels: slow, and the reference.

    libsvm keeps the kernel in single precision, so its duals are exact only to about 1e-7 of
    their sum of absolute values.

    Parameters
    ----------
    K, Y, C, epsilon, sample_weight, tol
        As in `fit_svr`.

    Returns
    -------
    SVRSolution
        n_iter is 0: libsvm counts other things.
    """
    K, Y = np.asarray(K, dtype=np.float64), np.asarray(Y, dtype=np.float64).T
    weight = np.ones(Y.shape) if sample_weight is None else np.asarray(sample_weight, float).T
    bound = C * weight
    Y = np.where(bound > 0, Y, 0.0)
    b = np.stack([_libsvm_duals(K, y, c, epsilon, tol) for y, c in zip(Y, bound, strict=True)])
    violation, b0 = dual_violation(b, Y - b @ K, bound, epsilon)
    return SVRSolution(b.T, b0, violation, np.zeros(len(b), dtype=int), violation <= 2 * tol)
