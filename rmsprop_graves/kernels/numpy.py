"""The step on NumPy arrays, in place and a cache-sized block at a time."""

from __future__ import annotations

import functools
from typing import Any

import numpy

# Elements to a block: five arrays and two temporaries of this length stay within a core's second-level
# cache, and the seventeen calls on them cost little beside the arithmetic.
BLOCK = 1 << 15
# A gradient that overlaps what is written in another order is copied first; in the same order it needs not be.
_OP_FLAGS: Any = [
    [access, "overlap_assume_elementwise"]
    for access in ("readwrite", "readonly", "readwrite", "readwrite", "readwrite")
]


def step(
    param: numpy.ndarray,
    grad: numpy.ndarray,
    n: numpy.ndarray,
    g: numpy.ndarray,
    delta: numpy.ndarray,
    *,
    lr: float,
    alpha: float,
    momentum: float,
    eps: float,
) -> None:
    """Steps one parameter in place: writes param, n, g and delta.

    Arrays may have any memory layout and byte order. float16 is computed in float32 and rounded once when it
    is stored; any other dtype is computed in itself, with every operation rounded and in the order of
    ``chainer.optimizers.RMSpropGraves``.

    Args:
        param: The parameter, of any shape and a real floating dtype.
        grad: Its gradient, of the same shape.
        n: Running mean of the squared gradient, of the same shape and dtype as ``param``.
        g: Running mean of the gradient, likewise.
        delta: The last step, likewise.
        lr: Step size.
        alpha: Decay rate of ``n`` and ``g``.
        momentum: Decay rate of ``delta``.
        eps: Added inside the root, so in units of squared gradient.

    Raises:
        TypeError: The dtype of ``param`` is not a real floating one.
    """
    dtype = param.dtype
    if dtype.kind != "f":
        raise TypeError(f"param must be of a real floating dtype, got {dtype}")
    # A subclass may mean something else by an operator: that of numpy.matrix multiplies matrices.
    param, grad, n, g, delta = map(numpy.asarray, (param, grad, n, g, delta))
    if param.ndim == 0:
        # NumPy 1 computes a float32 array of no dimensions with a Python float in float64.
        param, grad, n, g, delta = (array.reshape(1) for array in (param, grad, n, g, delta))
    is_half = dtype.char == "e"
    is_uniform = dtype == grad.dtype == n.dtype == g.dtype == delta.dtype
    if param.size <= BLOCK and is_uniform and not is_half:
        _step_block(param, grad, n, g, delta, lr=lr, alpha=alpha, momentum=momentum, eps=eps)
        return
    blocks = numpy.nditer(
        [param, grad, n, g, delta],
        flags=["external_loop", "buffered", "zerosize_ok", "copy_if_overlap"],
        op_flags=_OP_FLAGS,
        op_dtypes=[numpy.float32 if is_half else dtype.newbyteorder("=")] * 5,
        casting="same_kind",
        buffersize=BLOCK,
    )
    with blocks:
        for block in blocks:
            _step_block(*block, lr=lr, alpha=alpha, momentum=momentum, eps=eps)


@functools.lru_cache(maxsize=None)
def _largest(dtype: numpy.dtype) -> Any:
    return numpy.finfo(dtype).max


def _step_block(
    param: Any, grad: Any, n: Any, g: Any, delta: Any, *, lr: float, alpha: float, momentum: float, eps: float
) -> None:
    t = (1 - alpha) * grad
    g *= alpha
    g += t
    t *= grad
    n *= alpha
    n += t

    v = g * g
    # It may overflow where n has, and infinite less infinite is NaN.
    numpy.minimum(v, _largest(v.dtype), out=v)
    numpy.subtract(n, v, out=v)
    numpy.maximum(v, 0, out=v)
    v += eps
    numpy.sqrt(v, out=v)
    numpy.multiply(lr, grad, out=t)
    t /= v
    delta *= momentum
    delta -= t

    param += delta
