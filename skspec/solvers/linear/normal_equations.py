"""Normal equations of many pixels that share their design matrix.

Those of at most 24 terms are formed by one matrix product with all pair products of the terms, then
factorised for all pixels of a block together; longer models go through conjugate gradients with one
shared preconditioner.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, qr

from skspec.solvers.linear.pixel_blocks import column_dot

__all__ = [
    "PAIR_PRODUCT_TERMS",
    "Design",
    "IterativeDesign",
    "LongNormal",
    "ShortNormal",
    "orthogonal_terms",
]

PAIR_PRODUCT_TERMS = 24  # longest model whose pair products are tabulated
RIDGE = 1e-10  # of the trace, for rank-deficient normal matrices
SINGULAR = 1e-12  # smallest pivot, as a fraction of its diagonal element, of a full-rank matrix
PCG_TOLERANCE, PCG_ITERATIONS = 1e-11, 80  # relative, in the norm of the preconditioner


def orthogonal_terms(V: np.ndarray, terms: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
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


class Design:
    """Normal equations Q' diag(w) Q of the pixels of a block."""

    exact = True

    def __init__(self, Q: np.ndarray):
        self.Q, self.Qt = np.ascontiguousarray(Q), np.ascontiguousarray(Q.T)
        self.n, self.D = Q.shape
        self.short = self.D <= PAIR_PRODUCT_TERMS
        if self.short:
            a, b = np.triu_indices(self.D)
            self.products = np.ascontiguousarray((Q[:, a] * Q[:, b]).T)
            self.index = np.zeros((self.D, self.D), int)
            self.index[a, b] = self.index[b, a] = np.arange(len(a))

    def block_size(self, rows: int = 1) -> int:
        """Pixels at a time, so that n x rows numbers for each stay in the cache."""
        if self.short:
            return int(np.clip(2**17 // (self.n * rows), 64, 512))
        return int(np.clip(2**20 // (self.n * (self.D + rows)), 4, 64))

    def normal(
        self, w: np.ndarray, terms: np.ndarray | None
    ) -> ShortNormal | LongNormal | IterativeNormal:
        if self.short:
            return ShortNormal(self.products @ w, self.index, terms)
        return LongNormal(self._long_gram(w), terms)

    def _long_gram(self, w):
        gram = (self.Qt * w.T[:, None, :]).reshape(-1, self.n) @ self.Q
        return gram.reshape(-1, self.D, self.D)

    def gram(self, w: np.ndarray) -> np.ndarray:
        """Q' diag(w) Q, (D, D, B)."""
        if self.short:
            return (self.products @ w)[self.index]
        return np.ascontiguousarray(self._long_gram(w).transpose(1, 2, 0))

    def prepare(self, left: np.ndarray) -> np.ndarray:
        """What `forms` needs of the row vectors `left` (n, m, D)."""
        if not self.short:
            return left
        a, b = np.triu_indices(self.D)
        Q = self.Q[:, None]
        pairs = left[..., a] * Q[..., b] + np.where(a < b, left[..., b] * Q[..., a], 0.0)
        return pairs.reshape(-1, len(a))

    def forms(self, prepared: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """left_nm . N^-1 q_n for every star, row and pixel: (n, m, B)."""
        if self.short:
            a, b = np.triu_indices(self.D)
            return (prepared @ inverse[a, b]).reshape(self.n, -1, inverse.shape[-1])
        rows = np.tensordot(self.Q, inverse, 1)
        return np.matmul(prepared, rows)


class ShortNormal:
    """L diag(d) L' factors, the pixels being the last and vectorised axis."""

    def __init__(self, packed: np.ndarray, index: np.ndarray, terms: np.ndarray | None):
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

    def solve(self, rhs: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        x = rhs.copy()
        for k in range(len(x) - 1):
            x[k + 1 :] -= self.L[k + 1 :, k] * x[k]
        x /= np.einsum("ddb->db", self.L)
        for k in range(len(x) - 1, 0, -1):
            x[:k] -= self.L[k, :k] * x[k]
        return x

    def inverse(self) -> np.ndarray:
        """N^-1 (D, D, B), zero where a term is not allowed."""
        D, _, B = self.L.shape
        X, inverse = np.zeros((D, D, B)), np.zeros((D, D, B))
        X[range(D), range(D)] = 1.0 if self.terms is None else self.terms
        for k in range(D):
            row = X[k, : k + 1]
            X[k + 1 :, : k + 1] -= self.L[k + 1 :, k, None] * row
            inverse[: k + 1, : k + 1] += (row / self.L[k, k])[:, None] * row
        return inverse


class LongNormal:
    """The same through LAPACK inverses, pixels first."""

    def __init__(self, N: np.ndarray, terms: np.ndarray | None):
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

    def solve(self, rhs: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        return np.einsum("bde,eb->db", self.N_inv, rhs)

    def inverse(self) -> np.ndarray:
        inverse = self.N_inv.transpose(1, 2, 0)
        return inverse if self.terms is None else inverse * (self.terms[:, None] & self.terms)


class IterativeDesign(Design):
    """Conjugate gradients for all pixels at once, one preconditioner for each block."""

    exact = False

    def block_size(self, rows: int = 1) -> int:
        return int(np.clip(2**19 // self.n, 64, 512))

    def normal(self, w: np.ndarray, terms: np.ndarray | None) -> IterativeNormal:
        return IterativeNormal(self, w, terms)


class IterativeNormal:
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
        return column_dot(c, self._precondition(c))

    def _apply(self, x):
        model = self.design.Q @ x
        model *= self.w
        return self._masked(self.design.Qt @ model)

    def solve(self, rhs, start):
        """Preconditioned conjugate gradients; what has not converged is solved directly."""
        x = start.copy()
        r = rhs - self._apply(x)
        z = self._precondition(r)
        p, rz = z, column_dot(r, z)
        enough = PCG_TOLERANCE**2 * column_dot(rhs, self._precondition(rhs))
        for _ in range(PCG_ITERATIONS):
            if np.all(rz <= enough):
                break
            q = self._apply(p)
            alpha = np.where(rz > enough, rz / column_dot(p, q), 0.0)
            x += alpha * p
            r -= alpha * q
            z = self._precondition(r)
            previous, rz = rz, np.where(rz > enough, column_dot(r, z), rz)
            p = z + rz / previous * p
        self._directly(x, rhs, np.flatnonzero(~(rz <= enough)))
        return x

    def _directly(self, x, rhs, pixels):
        size = Design.block_size(self.design)
        for some in (pixels[a : a + size] for a in range(0, pixels.size, size)):
            terms = None if self.terms is None else self.terms[:, some]
            normal = Design.normal(self.design, self.w[:, some], terms)
            x[:, some] = normal.solve(rhs[:, some])
