"""The step on NumPy arrays, in place and a cache-sized block at a time."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

import numpy

from rmsprop_graves.kernels.arrays import are_writable, refuse_unfit
from rmsprop_graves.kernels.changes import add, change  # noqa: F401 (`change` is this kernel's)
from rmsprop_graves.kernels.hyperparameters import floats_of

# Elements of a block. In float32, five arrays and two temporaries of this length fit into 2 MiB of cache, and the
# overhead of about twenty NumPy calls is a twentieth of the arithmetic. With half the length, calls would lose more
# time than the cache gains.
BLOCK = 1 << 16
_FIVE_DOUBLES = struct.Struct("5d")
# The iterator copies a gradient that overlaps a written array, unless both are traversed in the same order.
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

    Arrays may have any memory layout and byte order. float16 is computed in float32 and rounded once when stored.
    Every other dtype is computed in that dtype, with the operations and roundings of Chainer's own class.

    Args:
        param: The parameter, of any shape and a real floating-point dtype.
        grad: Its gradient, of the same shape and a real dtype.
        n: Running mean of the squared gradient, of the shape and dtype of ``param``.
        g: Running mean of the gradient, of the shape and dtype of ``param``.
        delta: The last step, of the shape and dtype of ``param``.
        lr: Step size; any finite number.
        alpha: Decay rate of ``n`` and ``g``; >= 0.
        momentum: Decay rate of ``delta``; >= 0.
        eps: Added inside the root, in units of squared gradient; >= 0.

    Raises:
        TypeError: ``param`` or a state is not of a real floating-point dtype, or ``grad`` is not of a real dtype;
            nothing is written.
        ValueError: ``param`` or a state is read-only or has elements that share memory, or an array has another
            shape; nothing is written.
    """
    # A subclass may redefine operators: `*` of numpy.matrix is the matrix product.
    param, grad, n, g, delta = map(numpy.asarray, (param, grad, n, g, delta))
    dtype, shape = param.dtype, param.shape
    is_uniform = dtype == grad.dtype == n.dtype == g.dtype == delta.dtype
    if not (
        is_uniform
        and dtype.kind == "f"
        and shape == grad.shape == n.shape == g.shape == delta.shape
        and are_writable(param, n, g, delta)
    ):
        refuse_unfit(param, grad, n=n, g=g, delta=delta)
    if param.ndim == 0:
        # NumPy returns scalars for zero-dimensional arrays, and scalars cannot be written in place.
        param, grad, n, g, delta = (array.reshape(1) for array in (param, grad, n, g, delta))
    is_half = dtype.char == "e"
    computed = numpy.dtype(numpy.float32) if is_half else dtype.newbyteorder("=")
    if param.size == 0:
        return
    # The cache compares bytes, because 0.0 equals -0.0 but gives other results.
    rates = _rates(_FIVE_DOUBLES.pack(*floats_of(lr, alpha, momentum, eps)), computed)
    if param.size <= BLOCK and is_uniform and not is_half and not may_overlap(grad, param, n, g, delta):
        _step_block(rates, param, grad, n, g, delta)
        return
    blocks = numpy.nditer(
        [param, grad, n, g, delta],
        flags=["external_loop", "buffered", "copy_if_overlap"],
        op_flags=_OP_FLAGS,
        op_dtypes=[computed] * 5,
        casting="same_kind",
        buffersize=BLOCK,
    )
    with blocks:
        for block in blocks:
            _step_block(rates, *block)


@functools.lru_cache(maxsize=64)
def _rates(hyperparameters: bytes, dtype: numpy.dtype) -> Any:
    """Returns -lr, alpha, 1 - alpha, momentum and eps as arrays of a dtype, and three conditions on them.

    A Python number as an operand takes as long to convert as a small array takes to multiply. A NumPy scalar would
    make NumPy 2 compute in the scalar's dtype.
    """
    lr, *others = _FIVE_DOUBLES.unpack(hyperparameters)
    arrays = [numpy.array(value, dtype) for value in (-lr, *others)]
    neg_lr, alpha, one_minus_alpha, momentum, eps = map(float, arrays)
    # Then |lr grad / sqrt(v + eps)| is at most about |grad| / 2 for a finite gradient. For an infinite gradient, n and
    # v are infinite too and the step is NaN.
    is_step_bounded = one_minus_alpha > 0 and 2 * abs(neg_lr) <= math.sqrt(eps)
    return (*arrays, alpha == 0, momentum == 0, is_step_bounded)


def _step_block(rates: Any, param: Any, grad: Any, n: Any, g: Any, delta: Any) -> None:
    neg_lr, alpha, one_minus_alpha, momentum, eps, is_alpha_zero, is_momentum_zero, is_step_bounded = rates
    t = one_minus_alpha * grad
    _decay(g, alpha, is_alpha_zero)
    add(g, t)
    t *= grad
    _decay(n, alpha, is_alpha_zero)
    add(n, t)

    v = g * g
    # A reduction takes half the time of a minimum or maximum of two arrays, which is rarely necessary.
    if not numpy.maximum.reduce(n, None) < math.inf:
        # g^2 may overflow where n has overflowed, and infinity minus infinity would be NaN.
        numpy.minimum(v, _filled(v, _largest(v.dtype)), out=v)
    numpy.subtract(n, v, out=v)
    if not numpy.minimum.reduce(v, None) >= 0:
        numpy.maximum(v, _filled(v, 0), out=v)
    v += eps
    numpy.sqrt(v, out=v)
    numpy.multiply(neg_lr, grad, out=t)
    t /= v
    _decay(delta, momentum, is_momentum_zero)
    if is_step_bounded:
        add(delta, t)
    else:
        _move(delta, t)
    _move(param, delta)


def _move(array: Any, by: Any) -> None:
    if not numpy.isfinite(by).all():
        # Infinity minus infinity would be NaN: an infinite number stays infinite.
        by = numpy.where(numpy.isinf(array), _capped(by), by)
    add(array, by)


def _decay(state: Any, rate: Any, is_zero: bool) -> None:
    if is_zero and not numpy.isfinite(state).all():
        # A rate of zero resets an infinite state too: infinity times zero would be NaN.
        state[...] = _capped(state)
    state *= rate


def _filled(like: Any, value: Any) -> Any:
    """Returns an array filled with a value: NumPy has no fast loop for the maximum of an array and a scalar."""
    return _block_of(value, like.dtype)[: like.size].reshape(like.shape)


@functools.lru_cache(maxsize=None)
def _block_of(value: Any, dtype: numpy.dtype) -> Any:
    block = numpy.full(BLOCK, value, dtype)
    block.flags.writeable = False
    return block


def _capped(array: Any) -> Any:
    largest = _largest(array.dtype)
    return array.clip(-largest, largest)


def may_overlap(grad: Any, param: Any, n: Any, g: Any, delta: Any) -> bool:
    """Whether a gradient may share memory with an array that is written."""
    # Different arrays share memory only if one of them is a view.
    if grad.base is param.base is n.base is g.base is delta.base is None:
        return grad is param or grad is n or grad is g or grad is delta
    return any(numpy.may_share_memory(grad, array) for array in (param, n, g, delta))


@functools.lru_cache(maxsize=None)
def _largest(dtype: numpy.dtype) -> Any:
    return numpy.finfo(dtype).max
