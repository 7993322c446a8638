"""The hyperparameters in the form that kernels take."""

from __future__ import annotations

from typing import Any

#: The scalar arguments of a compiled loop, in order.
NAMES = ("lr", "alpha", "one_minus_alpha", "momentum", "eps")


def floats_of(lr: Any, alpha: Any, momentum: Any, eps: Any) -> tuple[float, float, float, float, float]:
    """The values of :data:`NAMES` as Python floats.

    Takes any real numbers, also NumPy scalars and zero-dimensional arrays. 1 - alpha is computed in double precision:
    in float32 it would be off by 2e-7 for alpha 0.95.
    """
    alpha = float(alpha)
    return float(lr), alpha, 1 - alpha, float(momentum), float(eps)
