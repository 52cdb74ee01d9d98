"""Active sets of the epsilon-SVR dual: the exact end game of `skspec.solvers.kernels.svr`.

Everything here is pixel-major, arrays (P, n): one target per contiguous row.  The free set F of a
pixel (0 < |b_i| < C_i) is small, a few tens of stars, but differs from pixel to pixel; pixels are
therefore sorted by |F|, padded, and solved a few dozen at a time by batched LAPACK, which, unlike
scipy's wrappers, lets go of the interpreter lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from skspec.solvers.kernels.svr import SVRSolution

__all__ = ["dual_violation", "leave_one_out", "newton_rounds"]

# Diagonal loading, relative to the largest K_ii, that lets duplicated stars pass.  Steps are
# corrections to a current point, so loading slows the approach to the solution, never moves it.
JITTER = 1e-10
# Load of the first round (flux / C) and reach of the set guess (C / flux): measured, 30 ADMM
# iterations are then enough for 95-99 % of the pixels of noisy spectra, 80-100 without the load.
FIRST_LOAD = 0.01
REACH = 10.0
# A guess that still moves more stars than are free, and more than this, is given up.
HOPELESS = 20
# Floats gathered at once for a batch of linear systems: 4 MB, inside a shared L3 cache.
BATCH_FLOATS = 2**19


def dual_violation(
    b: np.ndarray, e: np.ndarray, bound: float | np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """KKT violation and intercept of feasible duals, by libsvm's own measure.

    With g = K b - y = -e,

        up_i = g_i + (eps if b_i >= 0 else -eps)   where b_i <  bound_i
        low_j = g_j + (eps if b_j > 0 else -eps)   where b_j > -bound_j

    the violation is max(low) - min(up) and the intercept -(max(low) + min(up)) / 2.

    Parameters
    ----------
    b, e : ndarray of shape (P, n)
        Duals and y - K b.
    bound : float or ndarray of shape (P, n)
    epsilon : float

    Returns
    -------
    violation, intercept : ndarray of shape (P,)
        Both 0 for a pixel without a single usable star.
    """
    # copysign, not where: a third of the time; b + 0.0 turns -0.0 into 0.0
    shift = np.copysign(epsilon, b + 0.0)
    shift -= e
    np.copyto(shift, np.inf, where=b >= bound)
    up = shift.min(axis=1, initial=np.inf)
    np.copysign(epsilon, -b, out=shift)
    np.copyto(shift, epsilon, where=b == 0)
    shift += e
    np.copyto(shift, np.inf, where=b <= -bound)
    low = -shift.min(axis=1, initial=np.inf)
    usable = np.isfinite(up) & np.isfinite(low)
    up, low = np.where(usable, up, 0.0), np.where(usable, low, 0.0)
    return np.maximum(low - up, 0.0), -0.5 * (low + up)


def same_size_groups(member):
    """Yield (rows, idx, valid): pixels of like set size with their padded member indices.

    Parameters
    ----------
    member : ndarray of bool, shape (P, n)

    Yields
    ------
    rows : ndarray of int, shape (g,)
    idx : ndarray of int, shape (g, m)
        Members of each pixel, padded with 0.
    valid : ndarray of bool, shape (g, m)
        False on the padding.
    """
    size = np.count_nonzero(member, axis=1)
    order = np.argsort(size, kind="stable")
    start = 0
    while start < order.size:
        # sizes are sorted: look ahead as far as padding wastes little and the batch fits
        m = max(int(size[order[start]]), 1)
        stop = start + max(1, min(64, BATCH_FLOATS // (m * m)))
        stop = min(stop, int(np.searchsorted(size[order], m + 2 + m // 8, side="right")))
        rows = order[start : max(stop, start + 1)]
        start += rows.size
        at, col = np.nonzero(member[rows])
        count = size[rows]
        valid = np.arange(max(int(count[-1]), 1)) < count[:, None]
        idx = np.zeros(valid.shape, dtype=np.intp)
        idx[valid] = col  # both run row by row
        yield rows, idx, valid


def _gather(K, idx):
    """K[idx_p, idx_p] for each row p of idx: (g, m) -> (g, m, m)."""
    flat = (idx * K.shape[1])[:, :, None] + idx[:, None, :]
    return K.reshape(-1).take(flat)


def bordered(K, idx, free, load):
    """The systems [[K_FF + load, 1], [1', 0]], rows outside F replaced by those of the identity.

    Parameters
    ----------
    K : ndarray of shape (n, n)
    idx : ndarray of int, shape (g, m)
    free : ndarray of bool, shape (g, m)
    load : ndarray of shape (g,)

    Returns
    -------
    system : ndarray of shape (g, m + 1, m + 1)
    kernel : ndarray of shape (g, m, m)
        K at idx, untouched.
    """
    g, m = idx.shape
    kernel = _gather(K, idx)
    system = np.empty((g, m + 1, m + 1))
    np.multiply(kernel, free[:, :, None], out=system[:, :m, :m])
    system[:, :m, :m] *= free[:, None, :]
    diagonal = np.einsum("gii->gi", system)
    diagonal[:, :m] += np.where(free, load[:, None], 1.0)
    system[:, :m, m] = system[:, m, :m] = free
    diagonal[:, m] = ~free.any(axis=1)  # no free star: leave the intercept alone
    return system, kernel


def solve_free(K, e, total, target, change, free, load):
    """One Newton step on the free sets, given the duals that are moved by decree.

    For each pixel, with `change` already decided (stars snapped to 0 or to the bound), find d on F:

        (K_FF + load) d + b0 = e_F - K_FS change_S - target_F,    1'd = -total - 1'change

    Parameters
    ----------
    K : ndarray of shape (n, n)
    e : ndarray of shape (P, n)
        y - K b.
    total : ndarray of shape (P,)
        1'b.
    target, change : ndarray of shape (P, n)
        The residual wanted on F (eps times the sign), and the decreed moves.
    free : ndarray of bool, shape (P, n)
    load : ndarray of shape (P,)

    Returns
    -------
    step : ndarray of shape (P, n)
        `change` plus d.
    intercept : ndarray of shape (P,)
    """
    step = change.copy()
    intercept = np.zeros(len(e))
    for rows, idx, valid in same_size_groups(free | (change != 0)):
        at = rows[:, None], idx
        moved = np.where(valid, change[at], 0.0)
        inside = free[at] & valid
        system, kernel = bordered(K, idx, inside, load[rows])
        right = np.empty((len(rows), idx.shape[1] + 1))
        right[:, :-1] = e[at] - target[at] - np.matmul(kernel, moved[:, :, None])[:, :, 0]
        right[:, :-1] *= inside
        right[:, -1] = -total[rows] - moved.sum(axis=1)
        right[~inside.any(axis=1), -1] = 0.0
        try:
            d = np.linalg.solve(system, right[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:  # one singular system stops its whole batch
            d = (np.linalg.pinv(system) @ right[:, :, None])[:, :, 0]
        row, col = np.nonzero(inside)
        step[rows[row], idx[row, col]] += d[row, col]
        intercept[rows] = d[:, -1]
    return step, intercept


def newton_rounds(
    K: np.ndarray,
    Y: np.ndarray,
    v: np.ndarray,
    bound: float | np.ndarray,
    epsilon: float,
    *,
    threshold: float,
    C: float,
    tol: float,
    max_rounds: int = 10,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Damped primal-dual active-set iterations from the sets an ADMM state suggests.

    A semismooth Newton method on b = prox(b + c (y - K b - b0)): guess which stars sit at 0, which
    at the bound, solve for the others, look again.  K_FF is nearly singular for a smooth kernel
    and a wrong guess would throw b far away, so the first steps load its diagonal; the load
    shrinks each round and vanishes as soon as the sets stop changing.

    Parameters
    ----------
    K : ndarray of shape (n, n)
    Y, v : ndarray of shape (P, n)
        Targets and ADMM state (duals plus scaled multiplier).
    bound : float or ndarray of shape (P, n)
    epsilon : float
    threshold : float
        Half width of the dead zone of `v`, epsilon / rho.
    C, tol : float
    max_rounds : int

    Returns
    -------
    b : ndarray of shape (P, n)
    intercept, violation : ndarray of shape (P,)
    done : ndarray of bool, shape (P,)
        True where b is feasible and the violation is at most tol; the other rows mean nothing.

    References
    ----------
    Hintermueller, Ito & Kunisch 2002, SIAM J. Optim. 13, 865.
    """
    P = len(Y)
    out_b, out_b0, out_violation = np.zeros_like(Y), np.zeros(P), np.full(P, np.inf)
    done = np.zeros(P, dtype=bool)
    act = np.arange(P)
    reach = REACH * C  # the constant c above
    jitter = JITTER * np.max(np.diagonal(K), initial=0.0)
    load = np.full(P, FIRST_LOAD / C)
    safe = load.copy()  # the last one under which the sets kept still
    v = v.astype(np.float64)
    b = v - np.clip(v, -threshold, threshold)
    np.clip(b, -bound, bound, out=b)
    e = Y - b @ K
    free, sign, outer = _classify(v, threshold, bound)
    for number in range(max_rounds):
        change = np.clip(b, -bound, bound)
        np.copyto(change, outer, where=~free)
        change -= b
        step, b0 = solve_free(K, e, b.sum(axis=1), epsilon * sign, change, free, load + jitter)
        b += step
        e -= step @ K
        bare = np.flatnonzero(~free.any(axis=1))
        if bare.size:  # nothing fixes the intercept: the middle of what is allowed
            own = bound[bare] if np.ndim(bound) else bound
            b0[bare] = dual_violation(np.clip(b[bare], -own, own), e[bare], own, epsilon)[1]
        np.subtract(e, b0[:, None], out=v)
        v *= reach
        v += b
        was_free, was_sign, was_outer = free, sign, outer
        free, sign, outer = _classify(v, reach * epsilon, bound)
        moved = (free != was_free) | (outer != was_outer)
        moved |= free & (sign != was_sign)
        n_moved = np.count_nonzero(moved, axis=1)
        same = n_moved == 0
        bold = load == 0  # tried without load: if the sets broke up, back to less than the last one
        safe = np.where(bold, safe / 5, np.where(same, load, safe))
        load = np.where(same, 0.0, np.where(bold, safe, load / 3))

        # the violation costs many passes: look at it only where the guess has settled
        settled = np.flatnonzero(same)
        if settled.size:
            own = bound[settled] if np.ndim(bound) else bound
            clipped = np.clip(b[settled], -own, own)
            good = np.abs(b[settled] - clipped).max(axis=1, initial=0.0) <= 1e-12 * C
            good &= np.abs(clipped.sum(axis=1)) <= 1e-12 * C * len(K)  # fails if F was empty
            violation, middle = dual_violation(clipped, e[settled], own, epsilon)
            good &= violation <= tol
            at = act[settled[good]]
            out_b[at], out_b0[at], out_violation[at] = clipped[good], middle[good], violation[good]
            done[at] = True
        left = ~done[act] & np.isfinite(b0)
        if number > 0:
            left &= n_moved <= np.maximum(np.count_nonzero(free, axis=1), HOPELESS)
        if not left.any():
            break
        if not left.all():
            act, b, e, v = act[left], b[left], e[left], v[left]
            load, safe = load[left], safe[left]
            free, sign, outer = free[left], sign[left], outer[left]
            if np.ndim(bound):
                bound = bound[left]
    return out_b, out_b0, out_violation, done


def _classify(v, threshold, bound):
    """Free set, signs, and the duals of the others (0 or at the bound), from b + c (residual)."""
    size, sign = np.abs(v), np.sign(v)
    beyond = size >= bound + threshold
    free = size > threshold
    free &= ~beyond
    outer = sign * bound
    outer *= beyond
    return free, sign, outer


def leave_one_out(
    K: np.ndarray,
    Y: np.ndarray,
    solution: SVRSolution,
    *,
    C: float,
    epsilon: float,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Residuals y_i - f_{-i}(x_i) of every star by the model that has not seen it, from one fit.

    Exact as long as removing star i changes no other star's set.  With F the free support vectors,
    H = [[K_FF, 1], [1', 0]]^-1, and r = y - f,

        i no support vector   r_i
        i in F                r_i + b_i / H_ii
        i at the bound        r_i + b_i S_i,    S_i = K_ii - [k_iF, 1] H [k_Fi; 1]

    Parameters
    ----------
    K : ndarray of shape (n, n)
    Y : ndarray of shape (n, P)
    solution : SVRSolution
    C, epsilon : float
    sample_weight : ndarray of shape (n, P), optional
        As in `fit_svr`; stars of weight 0 were left out already and get their plain residual.

    Returns
    -------
    ndarray of shape (n, P)

    References
    ----------
    Vapnik & Chapelle 2000, Neural Computation 12, 2013 (the span rule).
    """
    K, b, free, at_bound = _sets(K, solution, C, sample_weight)
    residual = np.asarray(Y, dtype=np.float64).T - b @ K - solution.intercept[:, None]
    diagonal = np.diagonal(K)
    # without free stars nothing can give way, and the span is the whole of K_ii
    span = np.where(free.any(axis=1)[:, None], 0.0, diagonal)
    for rows, idx, valid, H, k in _inverses(K, free):
        quadratic = np.einsum("gmn,gmn->gn", np.matmul(H[:, :-1, :-1], k), k)
        quadratic += 2 * np.matmul(H[:, -1:, :-1], k)[:, 0]
        span[rows] = diagonal - quadratic - H[:, -1, -1:]
        row, col = np.nonzero(valid)
        stiff = np.einsum("gii->gi", H)[row, col]
        span[rows[row], idx[row, col]] = 1.0 / np.maximum(stiff, np.finfo(float).tiny)
    np.maximum(span, 0.0, out=span)
    span *= b
    residual += np.where(free | at_bound, span, 0.0)
    return residual.T


def _sets(K, solution, C, sample_weight):
    """K and the duals, pixel-major, with the free and the bounded support vectors."""
    K = np.ascontiguousarray(K, dtype=np.float64)
    b = np.ascontiguousarray(solution.dual_coef.T, dtype=np.float64)
    bound = C if sample_weight is None else C * np.asarray(sample_weight, dtype=np.float64).T
    size = np.abs(b)
    support = size > 1e-9 * C
    free = support & (size < bound * (1 - 1e-9))
    return K, b, free, support & ~free


def _inverses(K, free):
    """Yield, per batch of pixels, (rows, idx, valid, H, K[idx]), where F is not empty."""
    jitter = JITTER * np.max(np.diagonal(K), initial=0.0)
    for rows, idx, valid in same_size_groups(free):
        if not valid.any():
            continue
        step = max(1, BATCH_FLOATS // (2 * idx.shape[1] * len(K)))
        for i in range(0, len(rows), step):
            part = slice(i, i + step)
            inside = valid[part]
            system, _ = bordered(K, idx[part], inside, np.full(len(inside), jitter))
            H = np.linalg.inv(system)
            np.einsum("gii->gi", H)[:, :-1] *= inside  # the padding, else an identity
            yield rows[part], idx[part], inside, H, K[idx[part]]
