"""Many parameters and their states by the addresses of their arrays, stepped all at once."""

from __future__ import annotations

import operator
from itertools import repeat
from typing import Any, Tuple

import numpy

from rmsprop_graves.kernels.hyperparameters import floats_of

# lr, alpha, momentum and eps.
Hyperparameters = Tuple[float, ...]


class Table:
    """Parameters of one dtype and their states, stepped all at once with the bits of the kernel's ``step``.

    A subclass for each array library finds the addresses of arrays and runs the compiled loop.

    Args:
        params: The parameters; at least one.
        ns: The running mean of the squared gradient of each.
        gs: The running mean of the gradient of each.
        deltas: The last step of each.
    """

    def __init__(self, params: list[Any], ns: list[Any], gs: list[Any], deltas: list[Any]) -> None:
        # The arrays live as long as their addresses are in use.
        self._columns = (params, ns, gs, deltas)
        sizes = [param.size for param in params]
        self._sizes = numpy.array(sizes, numpy.intp)
        self._nbytes = self._sizes * params[0].dtype.itemsize
        # The number of elements before each parameter, and of all.
        self._bounds = numpy.cumsum([0, *sizes])
        self._addresses = self._locate_columns()
        if self._addresses is not None:
            self._written = _Memory(self._addresses, self._nbytes)
            if self._written.overlaps:
                self._addresses = None

    def holds(self, params: list[Any], ns: list[Any], gs: list[Any], deltas: list[Any]) -> bool:
        """Whether the table was made of these very arrays, which are as they were then."""
        return (
            len(params) == len(self._sizes)
            and all(all(map(operator.is_, *columns)) for columns in zip(self._columns, (params, ns, gs, deltas)))
            and self._is_as_it_was()
        )

    def locate(self, grads: list[Any]) -> numpy.ndarray | None:
        """The addresses of the gradients, which :meth:`step` takes; None if the table cannot step these parameters.

        It cannot if the compiled loop does not take one of the arrays, if two parameters share memory, or if a
        gradient lies in memory that the step writes. A gradient whose only fault is its layout is replaced by a copy.

        Args:
            grads: The gradient of each parameter. The list must live until the step is done.
        """
        if self._addresses is None:
            return None
        addresses = self._locate_grads(grads)
        if addresses is None or self._written.includes(addresses, self._nbytes):
            return None
        return addresses

    def step(self, grads: numpy.ndarray, hyperparameters: list[Hyperparameters]) -> None:
        """Steps all parameters.

        Args:
            grads: The addresses that :meth:`locate` has just returned.
            hyperparameters: lr, alpha, momentum and eps of each parameter.
        """
        self._step(grads, *_numbered(hyperparameters))

    def _locate_columns(self) -> numpy.ndarray | None:
        """The addresses of params, ns, gs and deltas, a row for each; None if the loop does not take one of them."""
        raise NotImplementedError

    def _locate_grads(self, grads: list[Any]) -> numpy.ndarray | None:
        """The address of each gradient, or of a copy that it is replaced by; None if the loop does not take one."""
        raise NotImplementedError

    def _is_as_it_was(self) -> bool:
        """Whether the addresses still hold, given that the array objects are the same."""
        raise NotImplementedError

    def _step(self, grads: numpy.ndarray, sets: numpy.ndarray, set_of: numpy.ndarray) -> None:
        """Steps all parameters. Their hyperparameters are the rows ``set_of`` of ``sets``, as `_numbered` says."""
        raise NotImplementedError


class _Memory:
    """Stretches of memory, each an address and a number of bytes.

    Args:
        addresses: Where they begin; a row for each kind of array, a column for each parameter.
        nbytes: The size of an array of each parameter.
    """

    def __init__(self, addresses: numpy.ndarray, nbytes: numpy.ndarray) -> None:
        is_filled = nbytes > 0
        begins = addresses[:, is_filled].ravel()
        order = numpy.argsort(begins)
        self._begins = numpy.append(begins[order], numpy.iinfo(numpy.intp).max)
        self._ends = self._begins[:-1] + numpy.tile(nbytes[is_filled], len(addresses))[order]
        self.overlaps = bool((self._begins[1:-1] < self._ends[:-1]).any())

    def includes(self, addresses: numpy.ndarray, nbytes: numpy.ndarray) -> bool:
        """Whether an array at one of the addresses lies in it, even in part."""
        following = numpy.searchsorted(self._ends, addresses, side="right")
        return bool((self._begins[following] < addresses + nbytes).any())


def _numbered(hyperparameters: list[Hyperparameters]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The different sets as rows (lr, alpha, 1 - alpha, momentum, eps), and the row of each parameter."""
    first = hyperparameters[0]
    if all(map(operator.is_, hyperparameters, repeat(first))):
        return _rows([first]), numpy.zeros(len(hyperparameters), numpy.intp)
    # By their bits: 0.0 and -0.0 are equal, but do not give the same bits.
    rows: dict[bytes, int] = {}
    sets: list[Hyperparameters] = []
    set_of = []
    previous = None
    for values in hyperparameters:
        if values is not previous:
            previous = values
            bits = numpy.array(values).tobytes()
            if bits not in rows:
                rows[bits] = len(sets)
                sets.append(values)
        set_of.append(rows[bits])
    return _rows(sets), numpy.array(set_of)


def _rows(sets: list[Hyperparameters]) -> numpy.ndarray:
    return numpy.array([floats_of(*values) for values in sets])
