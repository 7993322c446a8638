"""Checks that a step can write arrays in place."""

from __future__ import annotations

from typing import Any, Iterable

import numpy


def are_contiguous(arrays: Iterable[Any]) -> bool:
    """Whether all arrays are in C order. Usually they are CuPy's."""
    try:
        # CuPy's public `flags` takes ten times as long, and a generator longer than a list.
        return all([array._c_contiguous for array in arrays])  # noqa: C419
    except AttributeError:
        return all(array.flags.c_contiguous for array in arrays)


def are_writable(param: Any, n: Any, g: Any, delta: Any) -> bool:
    """Whether arrays of one type are contiguous and writable: a fast check, which nearly all arrays pass."""
    if type(param) is not numpy.ndarray:
        return not isinstance(param, numpy.ndarray) and are_contiguous((param, n, g, delta))
    # Faster than a loop.
    if param.flags.carray and n.flags.carray and g.flags.carray and delta.flags.carray:
        return True
    # NumPy's `farray` is also true for arrays in neither order.
    return all(array.flags.forc and array.flags.writeable for array in (param, n, g, delta))


def fault_of(array: Any) -> str | None:
    """Returns why a NumPy or CuPy array cannot be written in place, such as "is read-only"; None if it can be."""
    flags = array.flags
    # In a broadcast array, for example, several elements share memory.
    if not flags.forc and _overlaps_itself(array):
        return "has elements that share memory, as in a broadcast view"
    # CuPy's arrays have no such flag.
    return None if getattr(flags, "writeable", True) else "is read-only"


def refuse_unfit(param: Any, grad: Any, **states: Any) -> None:
    """Raises an error that names the array if a step cannot read or write it.

    Args:
        param: The parameter.
        grad: Its gradient, which is only read.
        **states: The states, by name.

    Raises:
        TypeError: The dtype of the parameter or a state is not a real floating-point dtype.
        ValueError: The parameter or a state is read-only or overlaps itself, or an array has another shape.
    """
    if grad.shape != param.shape:
        raise ValueError(f"grad must be of shape {param.shape}, got {grad.shape}")
    for name, array in {"param": param, **states}.items():
        if array.dtype.kind != "f":
            raise TypeError(f"{name} must be of a real floating-point dtype, got {array.dtype}")
        if array.shape != param.shape:
            raise ValueError(f"{name} must be of shape {param.shape}, got {array.shape}")
        fault = fault_of(array)
        if fault:
            raise ValueError(f"{name} must be writable, but it {fault}")


def _overlaps_itself(array: Any) -> bool:
    if array.size == 0:
        return False
    itemsize = array.dtype.itemsize
    axes = sorted((abs(stride), length) for length, stride in zip(array.shape, array.strides) if length > 1)
    reach, is_nested = itemsize, True
    for stride, length in axes:
        is_nested &= stride >= reach
        reach += stride * (length - 1)
    if is_nested or reach < array.size * itemsize:
        return not is_nested
    # The axes interlock, which is rare, so look at every element.
    offsets = numpy.zeros(1, numpy.intp)
    for stride, length in axes:
        offsets = numpy.add.outer(offsets, stride * numpy.arange(length)).ravel()
    return bool((numpy.diff(numpy.sort(offsets)) < itemsize).any())
