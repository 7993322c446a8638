"""Which parameters may not be stepped side by side, because their arrays lie in the same memory."""

from __future__ import annotations

from typing import Iterator

import numpy


class Written:
    """The memory that the step of some parameters writes.

    Args:
        addresses: Where the arrays that are written begin; four rows, a column for each parameter.
        nbytes: Of each parameter, the bytes of one of its arrays.
    """

    def __init__(self, addresses: numpy.ndarray, nbytes: numpy.ndarray) -> None:
        begins = addresses.ravel()
        order = numpy.argsort(begins)
        # Intervals in order of their beginnings; each overlapping the one before it goes on with its stretch.
        self._begins = numpy.append(begins[order], numpy.iinfo(numpy.uintp).max)
        self._ends = numpy.maximum.accumulate((begins + numpy.tile(nbytes, len(addresses)))[order])
        overlaps = self._begins[1:-1] < self._ends[:-1]
        self._previous = None
        if overlaps.any():
            stretches = numpy.zeros(len(order), int)
            stretches[order[1:]] = numpy.cumsum(~overlaps)
            self._previous = _previous(stretches.reshape(addresses.shape))

    def includes(self, addresses: numpy.ndarray, nbytes: numpy.ndarray) -> bool:
        """Whether any array, of which addresses and sizes are given, lies in it, in part or as a whole."""
        following = numpy.searchsorted(self._ends, addresses, side="right")
        return bool((self._begins[following] < addresses + nbytes).any())

    def runs(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Divides the parameters from first to before last, in order, so that in no part memory is written twice."""
        if self._previous is not None:
            for place in range(first + 1, last):
                if self._previous[place] >= first:
                    yield first, place
                    first = place
        yield first, last


def _previous(stretches: numpy.ndarray) -> list[int]:
    """For each parameter the last one before it that writes into the same stretch of memory, or -1."""
    latest: dict[int, int] = {}
    previous = []
    for place, own in enumerate(stretches.T.tolist()):
        previous.append(max(latest.get(stretch, -1) for stretch in own))
        latest.update((stretch, place) for stretch in own)
    return previous
