"""Whether arrays overlap in memory."""

from __future__ import annotations

import numpy


class Memory:
    """The memory of arrays, to find overlaps.

    Args:
        addresses: The address of each array; a row for each kind of array, a column for each parameter.
        nbytes: The size of one array of each parameter, in bytes.
    """

    def __init__(self, addresses: numpy.ndarray, nbytes: numpy.ndarray) -> None:
        is_filled = nbytes > 0
        begins = addresses[:, is_filled].ravel()
        order = numpy.argsort(begins)
        self._begins = numpy.append(begins[order], numpy.iinfo(numpy.intp).max)
        self._ends = self._begins[:-1] + numpy.tile(nbytes[is_filled], len(addresses))[order]
        self.overlaps = bool((self._begins[1:-1] < self._ends[:-1]).any())

    def includes(self, addresses: numpy.ndarray, nbytes: numpy.ndarray) -> bool:
        """Whether any array with one of these addresses and sizes overlaps the memory."""
        following = numpy.searchsorted(self._ends, addresses, side="right")
        return bool((self._begins[following] < addresses + nbytes).any())


def overlap(written: numpy.ndarray, read: numpy.ndarray, nbytes: numpy.ndarray) -> bool:
    """Whether a written array overlaps any other array.

    Args:
        written: The address of each array that is written.
        read: The address of each array that is only read.
        nbytes: The size of each, in bytes.
    """
    memory = Memory(written[None], nbytes)
    return memory.overlaps or memory.includes(read, nbytes)
