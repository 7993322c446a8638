"""The thread pool that divides a step on a CPU."""

from __future__ import annotations

import operator
import os
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Callable, Iterator

# Elements for which one more thread pays: it starts 15 microseconds late, and in that time another thread steps 50,000
# float32 elements that are in the cache.
SPAN = 1 << 18

_VARIABLE = "OMP_NUM_THREADS"

_num_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def get_num_threads() -> int:
    """Returns the number of threads that step a large parameter or model; at least 1.

    The default is the number of cores that this process may use, or ``OMP_NUM_THREADS`` if that is smaller.
    """
    global _num_threads
    if _num_threads is None:
        cores = _usable_cores()
        _num_threads = min(cores, _from_environment() or cores)
    return _num_threads


def set_num_threads(count: int) -> None:
    """Sets the number of threads that step a large parameter or model. The bits do not depend on it.

    Args:
        count: The number of threads, including the one that calls the update; >= 1.

    Raises:
        ValueError: ``count`` is not an integer >= 1.
    """
    global _num_threads
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"the number of threads must be an integer >= 1, got {count!r}")
    _num_threads = number


def run(work: Callable[[int, int], None], size: int) -> None:
    """Calls ``work(begin, end)`` for spans that cover ``range(size)`` once, on several threads if that pays.

    Returns, or raises the error of a call, only after every call has ended.
    """
    count = min(get_num_threads(), size // SPAN)
    if count < 2:
        work(0, size)
        return
    spans = deque(_spans(size, count))

    def work_until_done() -> None:
        while True:
            try:
                span = spans.popleft()
            except IndexError:
                return
            work(*span)

    futures: list[Future[None]] = []
    pool = _pool_of(count - 1)
    try:
        for _ in range(count - 1):
            futures.append(pool.submit(work_until_done))
    except RuntimeError:
        # No thread can start while the interpreter exits, or when the process has reached its limit of threads.
        # Threads that did start share the work. The last submitted call is in the queue but has no future: shutting
        # the pool down waits for it, because a thread of another model's update may run it.
        _forget_pool()
        _finish(work_until_done, pool.shutdown)
    else:
        _finish(work_until_done, lambda: wait([future for future in futures if not future.cancel()]))
    for future in futures:
        if not future.cancelled():
            future.result()


def _spans(size: int, count: int) -> Iterator[tuple[int, int]]:
    """Yields spans for a number of threads: first large ones, to keep their number small, then smaller ones.

    So all threads end at about the same time, even if one starts late or shares its core with another process.
    """
    begin = 0
    while begin < size:
        end = min(begin + max((size - begin) // (2 * count), SPAN // 4, 1), size)
        yield begin, end
        begin = end


def _finish(work: Callable[[], None], wait_for_others: Callable[[], object]) -> None:
    """Works and waits for the other threads, even if Ctrl-C is pressed repeatedly; then raises the first error."""
    raised = None
    for task in (work, wait_for_others):
        while True:
            try:
                task()
                break
            except BaseException as error:
                raised = raised or error
                if task is work:
                    break
    if raised is not None:
        raise raised


def _pool_of(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    pool = _pool
    # Two threads here at once make two pools. The one that is not kept ends when its work is done.
    if pool is None or _pool_size < size:
        pool = ThreadPoolExecutor(size, thread_name_prefix="rmsprop_graves")
        _pool, _pool_size = pool, size
    return pool


def _end_pool() -> None:
    """Ends the threads before a fork, which would copy their locks and queue but not the threads."""
    pool = _pool
    _forget_pool()
    if pool is not None:
        pool.shutdown()


def _forget_pool() -> None:
    global _pool
    _pool = None


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from_environment() -> int | None:
    value = os.environ.get(_VARIABLE, "")
    # OpenMP allows a list with one number for each level of nested parallelism.
    first = value.partition(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    if first:
        message = f"{_VARIABLE} must be an integer >= 1, got {value!r}; it is ignored"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return None


if hasattr(os, "register_at_fork"):
    # Again in the child, because another thread may have made a pool in between.
    os.register_at_fork(before=_end_pool, after_in_child=_forget_pool)
