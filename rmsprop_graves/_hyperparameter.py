"""The four hyperparameters: their defaults and their validation."""

from __future__ import annotations

import math
import numbers
from typing import Any

from chainer.optimizer import Hyperparameter as _ChainerHyperparameter

DEFAULTS = {"lr": 1e-4, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
NAMES = tuple(DEFAULTS)


class Hyperparameter(_ChainerHyperparameter):
    """Chainer's hyperparameter set, which checks lr, alpha, momentum and eps when they are assigned.

    Each must be a finite real number or a zero-dimensional array of one; alpha, momentum and eps must be >= 0. The
    object is stored as it is given.

    Raises:
        TypeError: The value is not a real number.
        ValueError: The value is NaN or infinite, or alpha, momentum or eps is negative.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in DEFAULTS:
            _check(name, value)
        super().__setattr__(name, value)


def as_floats(hyperparam: _ChainerHyperparameter) -> dict[str, float]:
    """The four values, own or inherited, as Python floats."""
    # Chainer takes ten times as long to find an inherited value as an own one.
    while type(hyperparam) is Hyperparameter and [*hyperparam.__dict__] == ["_parent"] and hyperparam._parent:
        hyperparam = hyperparam._parent
    return {name: float(getattr(hyperparam, name)) for name in NAMES}


def _check(name: str, value: Any) -> None:
    required = f"{name} must be a finite number" + ("" if name == "lr" else " >= 0")
    dtype = getattr(value, "dtype", None)
    is_real_array = getattr(value, "shape", None) == () and getattr(dtype, "kind", "") in ("f", "i", "u")
    try:
        if not (isinstance(value, numbers.Real) or is_real_array):
            raise TypeError
        number = float(value)
    except TypeError:
        raise TypeError(f"{required}, got {value!r}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (name != "lr" and number < 0):
        raise ValueError(f"{required}, got {value!r}")
