import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, get_ident

import pytest

from skspec.solvers.linear.pixel_blocks import (
    parallel_blocks,
    parallel_map,
    single_threaded_blas,
    thread_count,
)


def test_overlapping_limits_leave_the_threads_as_they_were():
    before = thread_count()

    def work(delay):
        with single_threaded_blas():
            inside = thread_count()
            time.sleep(delay)
            return inside

    with ThreadPoolExecutor(4) as pool:  # those that come first leave first, and last
        for delays in ([0.01, 0.05, 0.02, 0.04], [0.05, 0.01, 0.03, 0.02]):
            assert set(pool.map(work, delays)) == {1}
            assert thread_count() == before


def test_the_limit_ends_with_an_error():
    before = thread_count()
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda item: 1 / item, [1, 0, 2])
    assert thread_count() == before
    assert parallel_map(lambda item: item**2, range(5)) == [0, 1, 4, 9, 16]


def test_blocks_side_by_side_while_blas_has_one_thread():
    before = thread_count()

    def nested(item):
        return parallel_map(lambda _: get_ident(), range(2)), thread_count()

    with parallel_blocks(), parallel_blocks():
        assert thread_count() == 1
        barrier = Barrier(before)  # passed only if as many run at once
        assert sorted(parallel_map(lambda _: barrier.wait(10), range(before))) == list(
            range(before)
        )
        for inner, blas in parallel_map(nested, range(3)):  # blocks of blocks do not multiply
            assert len(set(inner)) == 1 and blas == 1
    assert thread_count() == before
    with pytest.raises(ZeroDivisionError), parallel_blocks():
        1 / 0  # noqa: B018
    assert thread_count() == before
    assert parallel_map(lambda item: thread_count(), range(2)) == [1, 1]
