"""The floor of an update: the minimum time in which this machine moves the same number of bytes.

An update reads five arrays and writes four of them. The floor does the same and computes almost nothing: it adds the
gradient to each of the four other arrays. Its time depends on the loop and on the placement of the arrays, so
`Floor.measure` tries several of each, and `Floor.contenders` yields the fastest.
"""

from __future__ import annotations

import mmap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any, Callable, Iterator

import numpy

from benchmarks.libraries import Contender, why_left_out
from benchmarks.machine import cache_sizes

FLOOR = "floor"
ARRAYS = 5
# Offset in bytes from one array to the next, relative to the start of a huge page. With 0, all arrays use the same
# sets of a cache. Avoid arrays that begin 128 MiB and 4 KiB apart, as NumPy's do if each has 128 MiB: on an AMD EPYC
# their addresses have the same hash in the L1 cache, and the loops take more than twice as long.
SHIFTS = (0, 64, 17 * 4096 + 320)
HUGE_PAGE = 1 << 21
# Bytes of an array that a thread takes at a time.
SPANS = (1 << 19, 1 << 22)
BLOCK = 64
ROUNDS = 9


def array_bytes() -> int:
    """Return the size of an array: at least 80 MB, and together four times the largest cache."""
    return max(80_000_000, 4 * max(cache_sizes().values(), default=0) // ARRAYS // 8 * 8)


def name(threads: int) -> str:
    """Return the name of the contender with this number of threads."""
    return f"{FLOOR}, {threads} threads"


class Floor:
    """The loops of the floor, and arrays in each placement, which share their memory.

    Args:
        threads: The greatest number of threads.
        bytes_each: Bytes of an array, a multiple of 8 (default: `array_bytes`).
    """

    def __init__(self, threads: int, bytes_each: int | None = None) -> None:
        self.counts = sorted({1, threads})
        self.bytes_each = array_bytes() if bytes_each is None else bytes_each
        self._loops = {} if why_left_out("numba") else _compiled_loops()
        self.placements = _place(self.bytes_each) if self._loops else {}
        self._pool = ThreadPoolExecutor(max(self.counts))

    @property
    def moved_bytes(self) -> int:
        """The bytes that one call moves: it reads each array, and writes all except the gradient."""
        return 9 * self.bytes_each

    def measure(self, rounds: int = ROUNDS) -> list[dict[str, Any]]:
        """Time every way: each loop with each placement, number of threads and span.

        Returns:
            A dict for each way, the fastest first: ``loop``, ``shift``, ``threads``, ``span``, and the ``GB/s`` of the
            fastest round. Empty without Numba, which compiles the loops.
        """
        ways = [
            {"loop": loop, "shift": shift, "threads": count, "span": span}
            for loop, shift, count in product(self._loops, self.placements, self.counts)
            for span in (SPANS if count > 1 else SPANS[-1:])
        ]
        seconds: list[list[float]] = [[] for _ in ways]
        for _ in range(rounds):
            for way, times in zip(ways, seconds):
                start = time.perf_counter()
                self.run(**way)
                times.append(time.perf_counter() - start)
        rates = [self.moved_bytes / min(times) / 1e9 for times in seconds]
        return sorted(({**way, "GB/s": rate} for way, rate in zip(ways, rates)), key=lambda way: -way["GB/s"])

    def contenders(self, measured: list[dict[str, Any]]) -> Iterator[Contender]:
        """Yield the fastest way for each number of threads, from the result of `measure`."""
        for count in self.counts:
            for way in [way for way in measured if way["threads"] == count][:1]:
                chosen = {key: value for key, value in way.items() if key != "GB/s"}
                yield Contender(name(count), count, partial(self.run, **chosen))

    def run(self, loop: str, shift: int, threads: int, span: int) -> None:
        """Run a loop once over all elements."""
        function, arrays, size = self._loops[loop], self.placements[shift], span // 8
        # Threads share the iterator: each takes the next span that is left.
        begins = iter(range(0, arrays[0].size, size))

        def work() -> None:
            for begin in begins:
                function(*(array[begin : begin + size] for array in arrays))

        others = [self._pool.submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()


def _place(bytes_each: int) -> dict[int, list[numpy.ndarray]]:
    distance = (bytes_each // HUGE_PAGE + 1) * HUGE_PAGE
    size = (ARRAYS + 1) * distance + ARRAYS * max(SHIFTS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Without huge pages the loops are 6 to 8 % slower on an AMD EPYC.
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    else:
        memory = mmap.mmap(-1, size)
    everything = numpy.frombuffer(memory, numpy.uint8)
    everything.fill(0)
    begin = -everything.ctypes.data % HUGE_PAGE
    return {
        shift: [
            everything[start : start + bytes_each].view(numpy.float64)
            for start in range(begin, begin + ARRAYS * (distance + shift), distance + shift)
        ]
        for shift in SHIFTS
    }


def _compiled_loops() -> dict[str, Callable[..., None]]:
    import numba

    compiled = numba.njit(nogil=True)

    # As in an update, all loads of an element precede its stores.
    @compiled
    def by_element(grad, param, n, g, delta):
        for i in range(grad.size):
            x, param_i, n_i, g_i, delta_i = grad[i], param[i], n[i], g[i], delta[i]
            n[i], g[i], delta[i], param[i] = n_i + x, g_i + x, delta_i + x, param_i + x

    @compiled
    def add(array, grad):
        for i in range(grad.size):
            array[i] += grad[i]

    @compiled
    def by_block(grad, param, n, g, delta):
        for begin in range(0, grad.size, BLOCK):
            block = slice(begin, begin + BLOCK)
            add(n[block], grad[block])
            add(g[block], grad[block])
            add(delta[block], grad[block])
            add(param[block], grad[block])

    return {"by element": by_element, "by block": by_block}
