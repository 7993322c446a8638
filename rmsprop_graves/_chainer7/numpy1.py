"""NumPy 1's type promotion on NumPy 2, which changed it (NEP 50).

On NumPy 1 a scalar beside an array was weak: it took the array's dtype, unless it was of a higher kind (such as a
float beside integers) or did not fit. Between scalars, including zero-dimensional arrays, a Python number was strong:
it counted as int64 or float64 and widened a float16. On NumPy 2 only Python numbers are weak, even beside scalars.
On NumPy 1, and for arrays of other libraries, each function here is the plain operation.
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
    """Returns the scalar or Python number in the dtype that NumPy 1 gave it in an operation with the array."""
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
    """Returns both operands of ``operation(*beside_each_other(a, b))`` in the dtypes that NumPy 1 gave them."""
    return beside(a, b), beside(b, a)


def number(value: Any) -> Any:
    """Returns a NumPy scalar as a Python number, which is weak beside arrays, and any other value unchanged."""
    return value.item() if not _IS_NUMPY_1 and _is_scalar(value) else value


def cast(value: Any, dtype: Any) -> Any:
    """``dtype.type(value)``; an integer that is out of range wraps around."""
    return numpy.asarray(value).astype(dtype)[()]


def update_core_cpu(rule: Any, param: Any) -> None:
    """Calls ``rule.update_core_cpu(param)`` with hyperparameters promoted as NumPy 1 promoted them.

    Only Chainer's own rules get promoted hyperparameters, and only if some value has to change.
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
    """Returns the values to replace: weak Python floats beside arrays, strong float64 scalars beside scalars."""
    if ndim:
        return {name: float(value) for name, value in values.items() if _is_scalar(value) and value.dtype.kind == "f"}
    return {
        name: numpy.float64(value)
        for name, value in values.items()
        if type(value) is float or (_is_scalar(value) and value.dtype.kind == "f")
    }


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (numpy.generic, numpy.ndarray)) and value.ndim == 0
