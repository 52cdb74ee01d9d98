import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skspec.solvers.pixel_blocks import in_threads, one_blas_thread, thread_count


def test_overlapping_limits_leave_the_threads_as_they_were():
    before = thread_count()

    def work(delay):
        with one_blas_thread():
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
        in_threads(lambda item: 1 / item, [1, 0, 2])
    assert thread_count() == before
    assert in_threads(lambda item: item**2, range(5)) == [0, 1, 4, 9, 16]
