"""NumPy 1's type promotion on NumPy 2, which changed it (NEP 50).

On NumPy 1 any scalar beside an array was weak: it took the array's dtype. Between scalars, which includes arrays of
no dimensions, a Python number was strong: it counted as int64 or float64 and widened a float16. On NumPy 2 only
Python numbers are weak, and they are so beside scalars too. On NumPy 1, and for arrays of other libraries, each
function here is the plain operation.
"""

from __future__ import annotations

import copy
import functools
import operator
from typing import Any, Iterable

import numpy

_IS_NUMPY_1 = numpy.lib.NumpyVersion(numpy.__version__) < "2.0.0"
_KINDS = "biufc"


def add(a: Any, b: Any) -> Any:
    """``a + b``."""
    return operator.add(*beside_each_other(a, b))


def multiply(a: Any, b: Any) -> Any:
    """``a * b``."""
    return operator.mul(*beside_each_other(a, b))


def sum_of(values: Iterable[Any]) -> Any:
    """``sum(values)``."""
    return functools.reduce(add, values, 0)


def divide(a: Any, b: Any) -> Any:
    """``a / b``."""
    return operator.truediv(*beside_each_other(a, b))


def beside(value: Any, array: Any) -> Any:
    """The scalar or Python number, in the dtype that it has in an operation with the array."""
    is_python = type(value) in (bool, int, float, complex)  # numpy.float64 is a subclass of float
    if _IS_NUMPY_1 or not (is_python or _is_scalar(value)) or not isinstance(array, (numpy.ndarray, numpy.generic)):
        return value
    scalar = numpy.asarray(value)[()]
    if array.ndim == 0:
        return scalar
    if _KINDS.index(scalar.dtype.kind) > _KINDS.index(array.dtype.kind):
        return value
    # A value that the array's dtype cannot hold widened the result on NumPy 1 too.
    dtype = numpy.promote_types(array.dtype, numpy.min_scalar_type(scalar))
    return value if is_python and dtype == array.dtype else scalar.astype(dtype)


def beside_each_other(a: Any, b: Any) -> tuple[Any, Any]:
    """The two operands of ``operation(*beside_each_other(a, b))``, each in the dtype that it has beside the other."""
    return beside(a, b), beside(b, a)


def number(value: Any) -> Any:
    """The Python number of a NumPy scalar that is kept for use beside arrays; any other value unchanged."""
    return value.item() if not _IS_NUMPY_1 and _is_scalar(value) else value


def cast(value: Any, dtype: Any) -> Any:
    """``dtype.type(value)``; an integer that does not fit wraps around."""
    return numpy.asarray(value).astype(dtype)[()]


def update_core_cpu(rule: Any, param: Any) -> None:
    """Calls ``rule.update_core_cpu(param)`` with hyperparameters promoted as NumPy 1 promoted them.

    Only Chainer's own rules get other hyperparameters than they have, and only where that makes a difference.
    """
    array, hyperparam = param.array, rule.hyperparam
    is_chainers = type(rule).update_core_cpu.__module__.startswith("chainer.")
    promoted = {} if _IS_NUMPY_1 or array is None or not is_chainers else _promoted(hyperparam.get_dict(), array.ndim)
    if promoted:
        rule.hyperparam = copy.copy(hyperparam)
        vars(rule.hyperparam).update(promoted)
    try:
        rule.update_core_cpu(param)
    finally:
        rule.hyperparam = hyperparam


def _promoted(values: dict[str, Any], ndim: int) -> dict[str, Any]:
    """The values that are to be replaced: beside arrays by weak floats, beside scalars by strong ones."""
    if ndim:
        return {name: float(value) for name, value in values.items() if _is_scalar(value) and value.dtype.kind == "f"}
    return {
        name: numpy.float64(value)
        for name, value in values.items()
        if type(value) is float or (_is_scalar(value) and value.dtype.kind == "f")
    }


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (numpy.generic, numpy.ndarray)) and value.ndim == 0
