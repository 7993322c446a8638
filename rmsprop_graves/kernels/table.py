"""The base class of tables, which hold the addresses of many parameters and states to step them all at once."""

from __future__ import annotations

import operator
from itertools import repeat
from typing import Any, Iterable, Sequence, Tuple

import numpy

from rmsprop_graves.kernels.changes import Change
from rmsprop_graves.kernels.hyperparameters import floats_of
from rmsprop_graves.kernels.memory import Memory

# lr, alpha, momentum and eps.
Hyperparameters = Tuple[float, ...]


class Table:
    """Parameters of one dtype and their states, stepped all at once and bit-identical to the kernel's ``step``.

    Each array library has a subclass, which finds the addresses of arrays and runs the compiled loop.

    Args:
        params: The arrays of the parameters; at least one.
        ns: The running mean of the squared gradient of each parameter.
        gs: The running mean of the gradient of each parameter.
        deltas: The last step of each parameter.
    """

    # The characters of the dtypes that the compiled loop supports.
    CHARS = ""
    _addresses: Any

    def __init__(self, params: list[Any], ns: list[Any], gs: list[Any], deltas: list[Any]) -> None:
        # Keeps the arrays alive while their addresses are in use.
        self._columns = (params, ns, gs, deltas)
        sizes = [param.size for param in params]
        self._sizes = numpy.array(sizes, numpy.intp)
        self._nbytes = self._sizes * params[0].dtype.itemsize
        # The number of elements before each parameter, and the total.
        self._bounds = numpy.cumsum([0, *sizes])
        self._addresses = self._locate_columns()
        if self._addresses is not None:
            self._written = Memory(self._addresses, self._nbytes)
            if self._written.overlaps:
                self._addresses = None

    def holds(self, params: list[Any], ns: list[Any], gs: list[Any], deltas: list[Any]) -> bool:
        """Whether the table was made from these array objects, and none of them has changed in place since."""
        return (
            len(params) == len(self._sizes)
            and all(all(map(operator.is_, *columns)) for columns in zip(self._columns, (params, ns, gs, deltas)))
            and self._is_as_it_was()
        )

    def locate(self, grads: list[Any]) -> numpy.ndarray | None:
        """Returns the addresses of the gradients for :meth:`step`, or None if the table cannot step these arrays.

        It cannot if the compiled loop does not support one of them, if parameters or states share memory, or if a
        gradient shares memory with a parameter or state. A gradient with only a wrong layout is replaced in the list
        by a contiguous copy.

        Args:
            grads: The gradient of each parameter. The caller must keep the list until the step.
        """
        if self._addresses is None:
            return None
        addresses = self._locate_grads(grads)
        if addresses is None or self._written.includes(addresses, self._nbytes):
            return None
        return addresses

    def step(
        self,
        grads: numpy.ndarray,
        hyperparameters: list[Hyperparameters],
        then: Iterable[object] = (),
        changes: Sequence[Change] = (),
    ) -> None:
        """Steps all parameters.

        Args:
            grads: The addresses that :meth:`locate` returned.
            hyperparameters: lr, alpha, momentum and eps of each parameter.
            changes: Changes of the gradients before the step, if :meth:`can_change` them.
            then: An iterator that is consumed after the step. If it is implemented in C, Ctrl-C takes effect on a CPU
                before the step or after the end of the iterator, not in between.
        """
        self._step(grads, *_numbered(hyperparameters), changes, then)

    def can_change(self, addresses: numpy.ndarray, grads: list[Any]) -> bool:
        """Whether the step can change these gradients in place. None of them may be a copy made by :meth:`locate`."""
        return False

    def writes_to(self, other: Table, grads: numpy.ndarray) -> bool:
        """Whether a step writes into another table's arrays, or into the gradients that the other one has located."""
        return self._written.includes(numpy.vstack([other._addresses, grads]), other._nbytes)

    def _reads_what_is_written(self, array: Any, address: int) -> bool:
        """Whether an array of any layout overlaps memory that the step writes.

        Args:
            array: The array.
            address: The address of its first element.
        """
        reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides)]
        begin = address + sum(min(reach, 0) for reach in reaches)
        end = address + sum(max(reach, 0) for reach in reaches) + array.dtype.itemsize
        return self._written.includes(numpy.array([begin]), numpy.array([end - begin]))

    def _locate_columns(self) -> numpy.ndarray | None:
        """The addresses of params, ns, gs and deltas, a row for each; None if the loop does not support an array."""
        raise NotImplementedError

    def _locate_grads(self, grads: list[Any]) -> numpy.ndarray | None:
        """The address of each gradient or of the copy that replaces it; None if the loop does not support one."""
        raise NotImplementedError

    def _is_as_it_was(self) -> bool:
        """Whether the same array objects still have the same addresses, shapes and flags."""
        raise NotImplementedError

    def _step(
        self,
        grads: numpy.ndarray,
        sets: numpy.ndarray,
        set_of: numpy.ndarray,
        changes: Sequence[Change],
        then: Iterable[object],
    ) -> None:
        """Steps all parameters, then consumes ``then``. Parameter k has the values ``sets[set_of[k]]``."""
        raise NotImplementedError


def _numbered(hyperparameters: list[Hyperparameters]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The distinct sets as rows (lr, alpha, 1 - alpha, momentum, eps), and for each parameter the index of its row."""
    first = hyperparameters[0]
    if all(map(operator.is_, hyperparameters, repeat(first))):
        return _rows([first]), numpy.zeros(len(hyperparameters), numpy.intp)
    # Compared by their bits, because 0.0 equals -0.0 but gives other results.
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
