"""The threads among which a kernel on a CPU divides its work."""

from __future__ import annotations

import operator
import os
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Callable, Iterator

# Elements that make one more thread worth waking: a thread starts 15 microseconds late, the time in which another
# steps 50,000 float32 elements that a cache holds.
SPAN = 1 << 18

_VARIABLE = "OMP_NUM_THREADS"

_num_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def get_num_threads() -> int:
    """How many threads step a large parameter or model.

    Until it is set, the cores that this process may use, or ``OMP_NUM_THREADS`` where that is fewer.
    """
    global _num_threads
    if _num_threads is None:
        cores = _usable_cores()
        _num_threads = min(cores, _from_environment() or cores)
    return _num_threads


def set_num_threads(count: int) -> None:
    """Sets how many threads step a large parameter or model from here on. The bits are the same for any number.

    Args:
        count: The number of threads, of which the one that calls the update is one.

    Raises:
        ValueError: It is not a positive integer.
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
    """Call ``work(begin, end)`` for spans that make up ``range(size)``, on as many threads as pay.

    Return, or raise the error of a call, when no call is under way any more.
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
        # No thread can be started while the interpreter exits, or when the process has as many as it may have.
        # Whoever is there does the work; who comes too late finds none left. What was submitted in vain may yet be
        # begun by a thread of another model, and is waited for by ending the pool.
        _forget_pool()
        _finish(work_until_done, pool.shutdown)
    else:
        _finish(work_until_done, lambda: wait([future for future in futures if not future.cancel()]))
    for future in futures:
        if not future.cancelled():
            future.result()


def _spans(size: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield spans for a number of threads: large ones first, so that they are few, then smaller ones.

    All threads then end at about the same time, even if one starts late or shares its core with another process.
    """
    begin = 0
    while begin < size:
        end = min(begin + max((size - begin) // (2 * count), SPAN // 4, 1), size)
        yield begin, end
        begin = end


def _finish(work: Callable[[], None], wait_for_others: Callable[[], object]) -> None:
    """Works and then waits, however often Ctrl-C is pressed meanwhile, and only then raises what was raised."""
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
    # Two threads that come here at once make two pools, of which one is dropped when its work is done.
    if pool is None or _pool_size < size:
        pool = ThreadPoolExecutor(size, thread_name_prefix="rmsprop_graves")
        _pool, _pool_size = pool, size
    return pool


def _end_pool() -> None:
    """Before a fork, which would copy the locks and the queue of the threads, but not the threads."""
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
    # OpenMP's form: a list has one number for each level of nested parallelism.
    first = value.partition(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    if first:
        message = f"{_VARIABLE} must be an integer >= 1, got {value!r}; it is ignored"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return None


if hasattr(os, "register_at_fork"):
    # In the child once more, for another thread may have begun a pool in between.
    os.register_at_fork(before=_end_pool, after_in_child=_forget_pool)
