"""Two yardsticks for memory bandwidth.

The STREAM triad, a[i] = b[i] + s * c[i], is the usual one. The floor adds the gradient to each of the four arrays that
an update writes: it moves the same bytes as an update and computes next to nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

import numpy

from benchmarks.libraries import Contender, why_left_out
from benchmarks.machine import cache_sizes
from rmsprop_graves.kernels import threads as division

TRIAD, FLOOR = "triad", "floor"
S = 3.0
# Elements of a block in NumPy's triad: its second pass over a block finds it in the cache.
BLOCK = 1 << 14


def array_bytes() -> int:
    """Return the size of an array: four times the largest cache, as STREAM requires, and at least 80 MB."""
    return max(80_000_000, 4 * max(cache_sizes().values(), default=0))


def moved_bytes(contender: str) -> int:
    """Return the bytes of three arrays for the triad, as STREAM counts them, and of nine for the floor."""
    return (3 if contender.startswith(TRIAD) else 9) * array_bytes()


def contenders(threads: int) -> Iterator[Contender]:
    arrays = [numpy.full(array_bytes() // 8, value) for value in (0.0, 1.0, 2.0, 3.0, 4.0)]
    for name, arrays_used, function in (
        (TRIAD, arrays[:3], _numpy_triad if why_left_out("numba") else _compiled(_triad)),
        (FLOOR, arrays, None if why_left_out("numba") else _compiled(_floor)),
    ):
        if function is not None:
            yield from _divided(name, threads, function, arrays_used)


def _divided(name, threads, function, arrays):
    def work(spans):
        # Threads share the iterator: each takes the next span that is left.
        for begin, end in spans:
            function(*(array[begin:end] for array in arrays))

    def run(count, pool):
        ends = division.spans(arrays[0].size, count).tolist()
        spans = iter(list(zip(ends, ends[1:])))
        others = [pool.submit(work, spans) for _ in range(count - 1)]
        work(spans)
        for other in others:
            other.result()

    for count in sorted({1, threads}):
        pool = ThreadPoolExecutor(count)
        yield Contender(f"{name}, {count} threads", count, lambda count=count, pool=pool: run(count, pool))


def _compiled(function):
    import numba

    return numba.njit(nogil=True)(function)


def _triad(a, b, c):
    for i in range(a.size):
        a[i] = b[i] + S * c[i]


def _floor(grad, param, n, g, delta):
    for i in range(grad.size):
        n[i] += grad[i]
        g[i] += grad[i]
        delta[i] += grad[i]
        param[i] += grad[i]


def _numpy_triad(a, b, c):
    for begin in range(0, a.size, BLOCK):
        block = slice(begin, begin + BLOCK)
        numpy.multiply(c[block], S, out=a[block])
        a[block] += b[block]
