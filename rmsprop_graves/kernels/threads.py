"""The threads that help with a step on a CPU, and the spans into which they divide it."""

from __future__ import annotations

import operator
import os
import warnings
from _thread import start_new_thread
from contextlib import suppress
from functools import lru_cache
from itertools import repeat
from queue import SimpleQueue
from typing import Any, Callable

import numpy

# Elements that make one more thread worthwhile: it starts 15 microseconds late, and in that time another thread steps
# 50,000 float32 elements that are in the cache.
SPAN = 1 << 18

_VARIABLE = "OMP_NUM_THREADS"

_num_threads: int | None = None
_pool: _Pool | None = None


def get_num_threads() -> int:
    """Returns the number of threads that step a large parameter or model; at least 1.

    The default is the number of cores that this process may use, or ``OMP_NUM_THREADS`` if that is smaller.

    Warns:
        RuntimeWarning: ``OMP_NUM_THREADS`` is not a positive integer, so it is ignored.
    """
    global _num_threads
    if _num_threads is None:
        cores = _usable_cores()
        _num_threads = min(cores, _from_environment() or cores)
    return _num_threads


def set_num_threads(count: int) -> None:
    """Sets the number of threads that step a large parameter or model. Results are bit-identical for any number.

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


def count_for(size: int) -> int:
    """Returns the number of threads, including the caller, that are worthwhile for `size` elements; at least 1."""
    return max(1, min(get_num_threads(), size // SPAN))


def spans(size: int, count: int) -> numpy.ndarray:
    """Divides ``range(size)`` into spans for a number of threads. Returns 0 and the end of each span.

    The first spans are large, to keep their number small. The later ones are smaller, so that all threads end at about
    the same time, even if one starts late or shares its core with another process.
    """
    # On an AMD EPYC, a thread takes as long for spans of 2^16 elements as for one long span, 2 % longer for spans of
    # 2^15, and 4 % longer for spans of 2^14.
    return _spans(size, count, max(SPAN // 4, 1))


@lru_cache(maxsize=64)
def _spans(size: int, count: int, least: int) -> numpy.ndarray:
    ends = [0]
    while ends[-1] < size:
        left = size - ends[-1]
        ends.append(ends[-1] + (left if count == 1 else min(max(left // (2 * count), least), left)))
    return numpy.array(ends, numpy.intp)


def ask_for_help(work: Callable[[], object], count: int) -> None:
    """Asks helper threads to call ``work``, ``count`` times in all, and returns at once.

    A call may come late or never: no thread can start while the interpreter exits, when the process has reached its
    limit of threads, or when memory is short. Exceptions of ``work`` are ignored.

    Args:
        work: It must always end, without any action of the thread that asks.
        count: The number of helpers to ask; if 0, nothing happens.
    """
    global _pool
    if not count:
        return
    pool = _pool
    if pool is None:
        # Two threads here at once make two pools. One is not kept, and its threads stay idle.
        pool = _pool = _Pool()
    try:
        pool.grow(count)
        for _ in range(count):
            pool.works.put(work)
    except (RuntimeError, MemoryError):
        pass


class _Pool:
    """Helper threads and their queue.

    No lock of this class can stay locked when Ctrl-C interrupts its code, as the locks of `concurrent.futures` and
    `threading` can: each operation on a queue is a single call of a C function.
    """

    def __init__(self) -> None:
        self.works: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._started: list[int] = []

    def grow(self, size: int) -> None:
        missing = size - len(self._started)
        if missing > 0:
            # One call of C functions: Ctrl-C cannot lose a started thread. `Thread.start` waits in Python code.
            arguments = self.works, self._ended
            self._started.extend(map(start_new_thread, repeat(_help, missing), repeat(arguments, missing)))

    def end(self) -> None:
        """Ends the threads; returns after each has finished its work."""
        self.works.put(None)
        try:
            while True:
                # Another thread may fork at the same time; each end can be waited for only once.
                self._started.pop()
                self._ended.get()
        except IndexError:
            pass


def _help(works: SimpleQueue[Any], ended: SimpleQueue[None]) -> None:
    try:
        for work in iter(works.get, None):
            # The thread that asked for help does what is left.
            with suppress(BaseException):
                work()
            # The work may hold large arrays.
            del work
        works.put(None)  # for the next thread
    finally:
        ended.put(None)


def _end_pool() -> None:
    """Ends the threads before a fork, which would copy the queues but not the threads."""
    pool = _pool
    _forget_pool()
    if pool is not None:
        pool.end()


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
    # Forget it in the child too, because another thread may have made a pool in between.
    os.register_at_fork(before=_end_pool, after_in_child=_forget_pool)
