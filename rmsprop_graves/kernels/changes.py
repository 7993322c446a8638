"""Changes of gradients in place, as Chainer's elementwise hooks make them, and their NumPy kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

# What becomes of a gradient g beside its parameter p: g + a p; g + a sign(p); g between a and b; a g.
ADD, ADD_SIGN, CLIP, SCALE = range(4)

# Elements of a block. A temporary of this length stays in the cache.
_BLOCK = 1 << 15


class Change(NamedTuple):
    """One change of many gradients.

    Args:
        kind: `ADD`, `ADD_SIGN`, `CLIP` or `SCALE`.
        numbers: a and b; a row for each parameter, or one row for all. b belongs to `CLIP`.
    """

    kind: int
    numbers: numpy.ndarray


def change(params: list[numpy.ndarray], grads: list[numpy.ndarray], changes: list[Change]) -> bool:
    """Makes the changes in order, with the bits of Chainer's hooks.

    Args:
        params: The parameters, C-contiguous and of one dtype.
        grads: The gradient of each, C-contiguous and writable, of the parameter's shape and dtype.
        changes: What to do.

    Returns:
        Whether it was done; this kernel always can.
    """
    for kind, numbers in changes:
        rows = numpy.broadcast_to(numbers, (len(params), 2)).astype(params[0].dtype)
        for param, grad, (a, b) in zip(params, grads, rows):
            # In blocks, the sum would read what it has written.
            block = param.size or 1 if numpy.may_share_memory(param, grad) else _BLOCK
            p, g = param.ravel(), grad.ravel()
            for begin in range(0, p.size, block):
                _change_block(kind, p[begin : begin + block], g[begin : begin + block], a, b)
    return True


def _change_block(kind: int, param: Any, grad: Any, a: Any, b: Any) -> None:
    if kind == SCALE:
        grad *= a
    elif kind == CLIP:
        numpy.clip(grad, a, b, out=grad)
    else:
        grad += a * (param if kind == ADD else numpy.sign(param))
