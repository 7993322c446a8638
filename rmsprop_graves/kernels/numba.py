"""The step on NumPy arrays in one compiled pass over memory."""

from __future__ import annotations

import warnings
from typing import Any

import numba
import numpy

from rmsprop_graves.kernels import numpy as numpy_kernel


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
    """Steps one parameter in place: writes param, n, g and delta, with the bits of the NumPy kernel.

    Contiguous float32 and float64 arrays in native byte order are stepped in one compiled pass, which warns of
    no overflow. Any others go to the NumPy kernel, float16 among them, which Numba does not compile for a CPU.
    The first step of each dtype compiles, or reads from disk what an earlier process compiled.

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
    arrays = (param, grad, n, g, delta)
    dtype = param.dtype
    if (
        dtype in _DTYPES
        and dtype == grad.dtype == n.dtype == g.dtype == delta.dtype
        and param.shape == grad.shape == n.shape == g.shape == delta.shape
        and all(array.flags.carray for array in arrays)
    ):
        _pass(*(array.reshape(-1) for array in arrays), lr, alpha, 1 - alpha, momentum, eps)
    else:
        numpy_kernel.step(*arrays, lr=lr, alpha=alpha, momentum=momentum, eps=eps)


# Neither fastmath nor contraction: every product and sum is rounded, as in NumPy. A division by zero is infinite.
_OPTIONS = {"nogil": True, "error_model": "numpy"}
_DTYPES = (numpy.dtype(numpy.float32), numpy.dtype(numpy.float64))


def _step_elements(
    param: Any,
    grad: Any,
    n: Any,
    g: Any,
    delta: Any,
    lr: Any,
    alpha: Any,
    one_minus_alpha: Any,
    momentum: Any,
    eps: Any,
) -> None:
    real = param.dtype.type
    zero = real(0)
    lr, alpha, one_minus_alpha = real(lr), real(alpha), real(one_minus_alpha)
    momentum, eps = real(momentum), real(eps)
    for i in range(param.size):
        t = one_minus_alpha * grad[i]
        n[i] = n[i] * alpha + t * grad[i]
        g[i] = g[i] * alpha + t
        v = n[i] - g[i] * g[i]
        delta[i] = delta[i] * momentum - lr * grad[i] / numpy.sqrt((zero if v < zero else v) + eps)
        param[i] += delta[i]


def _compile() -> Any:
    try:
        return numba.njit(cache=True, **_OPTIONS)(_step_elements)
    except RuntimeError as error:
        warnings.warn(
            f"{error}. The update is compiled anew in each process; NUMBA_CACHE_DIR may name a folder for it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return numba.njit(**_OPTIONS)(_step_elements)


_pass = _compile()
