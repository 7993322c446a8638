"""The update of a whole model at once."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Iterable

import chainer
import numpy
from chainer.backend import CpuDevice

from rmsprop_graves import kernels
from rmsprop_graves._hyperparameter import Hyperparameter, as_floats
from rmsprop_graves._update_rule import RMSpropGravesRule

_ATTRIBUTES = len(vars(RMSpropGravesRule()))
# So few are stepped faster one by one than through a table.
_FEW = 4


class Plan:
    """Updates parameters as ``param.update()`` would in turn, and those that need nothing special together.

    Before a special parameter is updated those that precede it have been, so that whatever is called for it finds
    the model as Chainer would show it. A method of a rule or parameter that a subclass or an instance overrides is
    called; one that is replaced on Chainer's or this package's class itself is not.
    """

    def __init__(self) -> None:
        # Those of the last update, in order. One serves again as long as its arrays are the same objects.
        self._tables: list[Any] = []

    def __reduce__(self) -> Any:
        # Another process has other addresses, and a copy of the optimizer other arrays.
        return Plan, ()

    def update(self, params: Iterable[Any]) -> None:
        """Updates each parameter, and one that comes twice twice."""
        last, self._tables = iter(self._tables), []
        batch: list[Any] = []

        def step_batch() -> None:
            if batch:
                self._tables.append(_step(batch, next(last, None)))
                batch.clear()

        parent = inherited = None
        for param in params:
            arrays = _arrays_if_plain(param)
            values = None
            if arrays is not None:
                hyperparam = param.update_rule.hyperparam
                if type(hyperparam) is not Hyperparameter or len(hyperparam.__dict__) > 1:
                    values = _values(hyperparam)
                else:
                    # It has its parent alone, whose values are read once for all its children.
                    if inherited is None or parent is not hyperparam._parent:
                        parent, inherited = hyperparam._parent, _values(hyperparam)
                    values = inherited
            if arrays is None or values is None:
                step_batch()
                param.update()
                inherited = None  # what it called may have set a hyperparameter
                continue
            if batch and arrays[0].dtype != batch[-1][2].dtype:
                step_batch()
            batch.append((param, values, *arrays))
        step_batch()


def _step(batch: list[Any], table: Any) -> Any:
    """Steps plain parameters of one dtype, by the table given if it is of their arrays. Returns their table."""
    kernel = kernels.on_cpu()
    if len(batch) < _FEW or not hasattr(kernel, "Table"):
        for one in batch:
            _step_alone(kernel, *one)
        return None
    params, values, arrays, grads, *states = (list(column) for column in zip(*batch))
    columns = [arrays, *states]
    if not isinstance(table, kernel.Table) or not table.holds(*columns):
        table = kernel.Table(*columns)
    begin = 0
    for end in (*table.misfits(grads), len(params)):
        if begin < end:
            for param in params[begin:end]:
                param.update_rule.t += 1
            table.step(grads, values, begin, end)
        if end < len(params):
            _step_alone(kernel, *batch[end])
        begin = end + 1
    return table


def _step_alone(kernel: ModuleType, param: Any, values: dict[str, float], *arrays: numpy.ndarray) -> None:
    param.update_rule.t += 1
    kernel.step(*arrays, **values)


def _values(hyperparam: Any) -> dict[str, float] | None:
    """None where a value is missing or no number: the ordinary path then says so, when its turn has come."""
    try:
        return as_floats(hyperparam)
    except Exception:
        return None


def _arrays_if_plain(param: Any) -> tuple[numpy.ndarray, ...] | None:
    """The arrays of a step that is nothing but the kernel's on a CPU, in its order.

    Chainer's private attributes are read where its properties would take longer than the step of a small array.
    """
    rule = param.update_rule
    if type(rule) is not RMSpropGravesRule or type(param) is not chainer.Parameter or not rule.enabled:
        return None
    # A method may have been set on the instance.
    if len(rule.__dict__) != _ATTRIBUTES or "update" in param.__dict__:
        return None
    state = rule._state
    hookable = rule._hookable
    if (
        not state
        or hookable._pre_update_hooks
        or hookable._post_update_hooks
        or param._loss_scale is not None
        or param._layout is not None
        or not param._grad_valid
        or type(param._device) is not CpuDevice
    ):
        return None
    array = param._data[0]
    grad = param._grad if param._grad_var is None else param._grad_var.array
    n, g, delta = state.get("n"), state.get("g"), state.get("delta")
    # ChainerX's, iDeep's, CuPy's, none, or a subclass.
    if not (type(array) is type(grad) is type(n) is type(g) is type(delta) is numpy.ndarray):
        return None
    if rule._use_fp32_update and array.dtype == numpy.float16:
        return None
    return array, grad, n, g, delta
