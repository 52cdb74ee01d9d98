"""Blocks of pixels, copied, cleaned and worked through side by side: shared by the linear solvers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock, local
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "PixelBlock",
    "checked",
    "column_dot",
    "parallel_map",
    "load_block",
    "single_threaded_blas",
    "pixel_slices",
    "ignore_fp_errors",
    "parallel_blocks",
    "thread_count",
]

FLOOR = 1e-24  # smallest variance, as a fraction of mean(y^2), where no noise is known


class PixelBlock(NamedTuple):
    """Some pixels: flux and variance (n, B), and what tells good from bad."""

    y: np.ndarray
    v: np.ndarray
    missing: np.ndarray | None  # (n, B), where the flux itself is not finite
    floor: np.ndarray  # (B,) smallest usable u
    n_good: np.ndarray  # (B,)
    terms: np.ndarray | None  # (D, B)

    def weights(self, u: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        w = np.add(self.v, np.maximum(u, self.floor), out=out)
        return np.reciprocal(w, out=w)

    def take(self, keep: Any) -> PixelBlock:
        return PixelBlock(*(None if a is None else a[..., keep] for a in self))

    def masked(self, a: np.ndarray) -> np.ndarray:
        return a if self.terms is None else a * self.terms


def checked(
    V: ArrayLike, Y: ArrayLike, variance: ArrayLike, terms: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
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


def pixel_slices(P: int, size: int) -> list[slice]:
    return [slice(a, min(a + size, P)) for a in range(0, P, size)]


@cache
def _blas():
    return ThreadpoolController()


def ignore_fp_errors(function: Callable[..., Any], item: Any) -> Any:
    with np.errstate(all="ignore"):
        return function(item)


class _SingleThreadedBlas:
    """A limit that several threads may enter and leave in any order.

    Limits of threadpoolctl that overlap would leave the process with one thread for good: the second
    finds the limit of the first, and restores that.
    """

    def __init__(self):
        self._lock, self._depth, self._limit = Lock(), 0, None

    @contextmanager
    def __call__(self):
        with self._lock:
            if self._depth == 0:
                _release()
                self._limit = _blas().limit(limits=1, user_api="blas")
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    _release()
                    self._limit.restore_original_limits()


def _release():
    """Let this thread set the limits of OpenBLAS, whichever did last."""
    for library in _blas().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


#: ``with single_threaded_blas():`` BLAS uses a single thread, in the whole process
single_threaded_blas = _SingleThreadedBlas()


def thread_count() -> int:
    """As many threads as BLAS would use."""
    return max(
        (lib["num_threads"] for lib in _blas().info() if lib["user_api"] == "blas"), default=1
    )


_granted = local()


@contextmanager
def parallel_blocks() -> Iterator[None]:
    """BLAS with one thread, blocks with as many as it had: for work whose other products are small.

    A thread of BLAS that has had something to do waits for more for some 20 ms at full load, and takes
    a core from the blocks meanwhile. The limit is that of the whole process, as in
    `single_threaded_blas`.
    """
    before = getattr(_granted, "n_threads", None)
    _granted.n_threads = before or thread_count()
    try:
        with single_threaded_blas():
            yield
    finally:
        _granted.n_threads = before


def parallel_map(function: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    """[function(item) for item in items], as many at once as BLAS would use threads.

    Small products gain little from a threaded BLAS and lose much on a busy machine: one thread
    each, and the blocks side by side, uses the cores for the element-wise work as well.
    """
    n_threads = getattr(_granted, "n_threads", None) or thread_count()
    with single_threaded_blas():
        if min(n_threads, len(items)) < 2:
            return [ignore_fp_errors(function, item) for item in items]
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(partial(ignore_fp_errors, function), items))


def load_block(
    Y: np.ndarray, variance: np.ndarray, terms: np.ndarray | None, cols: slice
) -> PixelBlock:
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
    n_good, sound = np.full(y.shape[1], len(y)), y
    if not np.isfinite(v.sum()):
        np.copyto(v, np.inf, where=np.isnan(v))
        least = v.min(axis=0)
        good = v < np.inf
        n_good = np.count_nonzero(good, axis=0)
        sound = np.where(good, y, 0.0)  # a bad value may be anything
    power = column_dot(sound, sound) / len(y)
    floor = np.where(power > 0, FLOOR * power, 1.0)
    floor[least > floor] = 0.0
    return PixelBlock(y, v, missing, floor, n_good, None if terms is None else terms[:, cols])


def column_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nb,nb->b", a, b)
