"""In-place changes of gradients, as Chainer's elementwise hooks make them, and the NumPy kernel for them."""

from __future__ import annotations

from itertools import repeat
from typing import Any, NamedTuple

import numpy

from rmsprop_graves.kernels import memory

# The new value of a gradient g with parameter p: g + a p; g + a sign(p); g clipped to [a, b]; a g.
ADD, SIGN, CLIP, SCALE = range(4)

DTYPES = (numpy.dtype(numpy.float32), numpy.dtype(numpy.float64))
# Elements of a block. A temporary of this length stays in the cache.
_BLOCK = 1 << 15


class Change(NamedTuple):
    """One change of many gradients.

    Args:
        kind: `ADD`, `SIGN`, `CLIP` or `SCALE`.
        numbers: a and b; a row for each parameter, or one row for all. Only `CLIP` uses b.
    """

    kind: int
    numbers: numpy.ndarray


def change(params: list[numpy.ndarray], grads: list[numpy.ndarray], changes: list[Change]) -> bool:
    """Makes the changes in order, bit-identical to Chainer's hooks.

    Args:
        params: The parameters, of one dtype.
        grads: The gradient of each.
        changes: The changes to make.

    Returns:
        Whether the changes were made. Nothing is changed if an array is not contiguous or not of the common dtype,
        float32 or float64, or if a gradient is read-only, has another shape than its parameter or shares memory with
        another array.
    """
    dtype = params[0].dtype
    if dtype not in DTYPES or not all(map(_fit, params, grads, repeat(dtype))) or _overlap(params, grads):
        return False
    for kind, numbers in changes:
        rows = numpy.broadcast_to(numbers, (len(params), 2)).astype(dtype)
        for param, grad, (a, b) in zip(params, grads, rows):
            p, g = param.ravel(), grad.ravel()
            for begin in range(0, p.size, _BLOCK):
                _change_block(kind, p[begin : begin + _BLOCK], g[begin : begin + _BLOCK], a, b)
    return True


def _fit(param: Any, grad: Any, dtype: Any) -> bool:
    is_alike = param.dtype == grad.dtype == dtype and param.shape == grad.shape
    return bool(is_alike and param.flags.c_contiguous and grad.flags.carray)


def _overlap(params: list[Any], grads: list[Any]) -> bool:
    """Whether a gradient shares memory with another array."""
    are_alone = all(array.base is None for array in (*params, *grads))
    if are_alone and len({*map(id, grads)} - {*map(id, params)}) == len(grads):
        return False
    # Reading the addresses takes a microsecond for each array.
    nbytes = numpy.array([grad.nbytes for grad in grads])
    addresses = [numpy.array([array.ctypes.data for array in arrays]) for arrays in (grads, params)]
    return memory.overlap(addresses[0], addresses[1], nbytes)


def _change_block(kind: int, param: Any, grad: Any, a: Any, b: Any) -> None:
    if kind == SCALE:
        grad *= a
    elif kind == CLIP:
        numpy.clip(grad, a, b, out=grad)
    else:
        add(grad, a * (param if kind == ADD else numpy.sign(param)))


def add(array: Any, by: Any) -> None:
    """Adds to an array in place, with the same bits for any number of elements."""
    if array.size == 1:
        # Before NumPy 1.25, adding to one element in place is a sum that starts at 0, so -0 + -0 would give 0.
        array[...] = array + by
    else:
        array += by
