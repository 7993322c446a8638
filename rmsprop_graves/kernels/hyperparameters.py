"""The hyperparameters as a kernel takes them."""

from __future__ import annotations

from typing import Any

#: The numbers that a compiled loop takes, in order.
NAMES = ("lr", "alpha", "one_minus_alpha", "momentum", "eps")


def floats_of(lr: Any, alpha: Any, momentum: Any, eps: Any) -> tuple[float, float, float, float, float]:
    """The numbers of :data:`NAMES` as Python floats.

    Each may be given as any real number, such as a NumPy scalar or an array of no dimensions. 1 - alpha is computed
    in double precision: in float32 it would be off by 2e-7 for alpha 0.95.
    """
    alpha = float(alpha)
    return float(lr), alpha, 1 - alpha, float(momentum), float(eps)
