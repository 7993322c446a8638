"""The step on NumPy arrays, in place and a cache-sized block at a time."""

from __future__ import annotations

from typing import Any

import numpy

# Elements to a block: five arrays and two temporaries of this length stay within a core's second-level
# cache, and the sixteen calls on them cost little beside the arithmetic.
BLOCK = 1 << 15


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
    """
    dtype = param.dtype
    is_half = dtype.char == "e"
    is_uniform = dtype == grad.dtype == n.dtype == g.dtype == delta.dtype and dtype.isnative and not is_half
    # NumPy 1 computes a float32 array of no dimensions with a Python float in float64; nditer gives it one.
    if is_uniform and param.size <= BLOCK and param.ndim > 0:
        _step_block(param, grad, n, g, delta, lr=lr, alpha=alpha, momentum=momentum, eps=eps)
        return
    compute_dtype = numpy.float32 if is_half else dtype.newbyteorder("=")
    blocks = numpy.nditer(
        [param, grad, n, g, delta],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readwrite"], ["readonly"], ["readwrite"], ["readwrite"], ["readwrite"]],
        op_dtypes=[compute_dtype] * 5,
        casting="same_kind",
        buffersize=BLOCK,
    )
    with blocks:
        for block in blocks:
            _step_block(*block, lr=lr, alpha=alpha, momentum=momentum, eps=eps)


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
    numpy.subtract(n, v, out=v)
    numpy.maximum(v, 0, out=v)
    v += eps
    numpy.sqrt(v, out=v)
    numpy.multiply(lr, grad, out=t)
    t /= v
    delta *= momentum
    delta -= t

    param += delta
