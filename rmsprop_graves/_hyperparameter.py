"""The four hyperparameters: their defaults and their validation."""

from __future__ import annotations

import functools
import math
import numbers
import sys
import warnings
from typing import Any

import chainer
from chainer.optimizer import Hyperparameter as _ChainerHyperparameter

DEFAULTS = {"lr": 1e-4, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
NAMES = tuple(DEFAULTS)

# The effect of a rate of 1 or more.
_AT_ONE = {
    "alpha": "n and g are not running means, and the step is not divided by the gradient's standard deviation",
    "momentum": "delta does not decay and may grow without limit",
}
_PACKAGES = ("rmsprop_graves", "chainer")

# Names of other libraries.
_ELSEWHERE = {
    "learning_rate": "lr",
    "step_size": "lr",
    "rho": "alpha",
    "epsilon": "eps",
}


@functools.lru_cache(maxsize=None)
def meant_by(name: str) -> str | None:
    """The hyperparameter that a misspelling or another library's name stands for; None if there is none."""
    plain = name.lower()
    if name in DEFAULTS or name.startswith("_"):
        return None
    if plain in DEFAULTS:
        return plain
    if plain in _ELSEWHERE:
        return _ELSEWHERE[plain]
    import difflib

    # Short names are close to too many others. A longer name such as `alpha_min` is a program's own.
    known = [right for right in (*DEFAULTS, *_ELSEWHERE) if len(right) > 4 and right not in plain]
    close = difflib.get_close_matches(plain, known, 1, 0.8)
    return _ELSEWHERE.get(close[0], close[0]) if close else None


def advice_for_setting(name: str) -> str | None:
    """Says which hyperparameter to set if an attribute of this name would have no effect; None if it may be set."""
    right = meant_by(name)
    return f"the name of this hyperparameter is {right}" if right else None


def warn_of_no_effect(name: str, advice: str | None) -> None:
    """Warns that setting an attribute has no effect, if there is advice on what to write in its place."""
    if advice:
        warnings.warn(f"{name} has no effect: {advice}", UserWarning, stacklevel=level_of_the_caller())


class Hyperparameter(_ChainerHyperparameter):
    """Chainer's hyperparameter set, which checks lr, alpha, momentum and eps when they are assigned.

    Each must be a finite real number; alpha, momentum and eps must be >= 0. A list, tuple or array of one element is
    replaced by that number, and any other number is kept as the same object. Every update checks the current number of
    a zero-dimensional array.

    Raises:
        TypeError: The value is not one real number.
        ValueError: The value is NaN or infinite, or alpha, momentum or eps is negative.

    Warns:
        UserWarning: alpha or momentum is 1 or more, or the name is a misspelling of a hyperparameter.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        warn_of_no_effect(name, advice_for_setting(name))
        if name in DEFAULTS:
            value, number = _checked(name, value)
            if name in _AT_ONE and number >= 1:
                warnings.warn(
                    f"{name} is {value}: with {name} >= 1 {_AT_ONE[name]}; the range is 0 <= {name} < 1",
                    UserWarning,
                    stacklevel=level_of_the_caller(),
                )
        super().__setattr__(name, value)


def as_floats(hyperparam: _ChainerHyperparameter) -> dict[str, float]:
    """Returns the four values, set here or inherited, as Python floats.

    Raises:
        TypeError: A value is not one real number.
        ValueError: An array has been changed in place to an invalid number.
    """
    # Chainer takes ten times as long to find an inherited value as a value set on the object.
    while type(hyperparam) is Hyperparameter and [*hyperparam.__dict__] == ["_parent"] and hyperparam._parent:
        hyperparam = hyperparam._parent
    values = {name: getattr(hyperparam, name) for name in NAMES}
    return {name: value if type(value) is float else _checked(name, value)[1] for name, value in values.items()}


def _checked(name: str, value: Any) -> tuple[Any, float]:
    """Returns a valid value, without the list or array around it, and the value as a Python float."""
    required = f"{name} must be a finite number" + ("" if name == "lr" else " >= 0")
    single = _single(value)
    shape = getattr(single, "shape", None)
    found = f"{value!r}"
    if isinstance(single, (list, tuple)) or (isinstance(single, chainer.get_array_types()) and shape != ()):
        size = f"shape {shape}" if shape else f"{len(single)} elements"
        found = (
            f"{type(single).__name__} of {size}; a parameter has one {name} for all elements, and can have its own: "
            f"param.update_rule.hyperparam.{name} = ..."
        )
    is_real_array = shape == () and getattr(getattr(single, "dtype", None), "kind", "") in ("b", "f", "i", "u")
    try:
        if not (isinstance(single, numbers.Real) or is_real_array):
            raise TypeError
        number = float(single)
    except TypeError:
        raise TypeError(f"{required}, got {found}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (name != "lr" and number < 0):
        raise ValueError(f"{required}, got {found}")
    return single, number


def _single(value: Any) -> Any:
    """Returns the only element of a list, tuple or array with dimensions, and any other object unchanged."""
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, chainer.get_array_types()) and value.ndim > 0 and value.size == 1:
        return value.item()
    return value


def level_of_the_caller() -> int:
    """Returns the `stacklevel`, in the calling function, of the first frame outside this package and Chainer."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _PACKAGES:
        level, frame = level + 1, frame.f_back
    return level
