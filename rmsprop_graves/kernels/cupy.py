"""The step on CuPy arrays: one fused kernel, each array read once and written once."""

from __future__ import annotations

import functools
from typing import Any

# What the kernel computes for one element, in CUDA C++. `T` is the type stored and `C` the type computed in.
# The order is: load everything, compute, store everything, since a store between two loads would make the
# compiler load again. Every product that feeds a sum is an explicit fma, which leaves the compiler nothing
# to contract: any compiler gives the same bits. The comparison keeps a NaN, which fmax would hide.
IN_PARAMS = "T grad, C lr, C alpha, C one_minus_alpha, C momentum, C eps"
OUT_PARAMS = "T param, T n, T g, T delta"
OPERATION = """
    const C x = grad, w = param, n0 = n, g0 = g, delta0 = delta;

    const C t = one_minus_alpha * x;
    const C n1 = fma(alpha, n0, t * x);
    const C g1 = fma(alpha, g0, t);
    const C v = fma(-g1, g1, n1);
    const C delta1 = fma(momentum, delta0, -(lr * x) / sqrt((v < 0 ? C(0) : v) + eps));

    n = n1;
    g = g1;
    delta = delta1;
    param = w + delta1;
"""
NAME = "rmsprop_graves_step"


def step(
    param: Any, grad: Any, n: Any, g: Any, delta: Any, *, lr: float, alpha: float, momentum: float, eps: float
) -> None:
    """Steps one parameter in place: writes param, n, g and delta.

    It runs on the current stream of the current device, on arrays of any memory layout, and waits for
    nothing. float16 is computed in float32 and rounded once when it is stored, float32 and float64 in
    themselves.

    Args:
        param: The parameter, of any shape, float16, float32 or float64.
        grad: Its gradient, of the same shape and dtype.
        n: Running mean of the squared gradient, likewise.
        g: Running mean of the gradient, likewise.
        delta: The last step, likewise.
        lr: Step size.
        alpha: Decay rate of ``n`` and ``g``.
        momentum: Decay rate of ``delta``.
        eps: Added inside the root, so in units of squared gradient.
    """
    kernel = _kernel("double" if param.dtype == "float64" else "float")
    kernel(grad, lr, alpha, 1 - alpha, momentum, eps, param, n, g, delta)


@functools.lru_cache(maxsize=None)
def _kernel(compute: str) -> Any:
    import cupy

    # CuPy tells a type letter from the arrays that carry it (cupy/cupy#2091), and C is carried by scalars alone.
    in_params = IN_PARAMS.replace("C ", {"float": "float32 ", "double": "float64 "}[compute])
    return cupy.ElementwiseKernel(in_params, OUT_PARAMS, OPERATION, NAME, preamble=f"typedef {compute} C;")
