"""The update of a whole model at once."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Iterable, Iterator

import chainer
import numpy
from chainer.backend import CpuDevice, GpuDevice
from chainer.backends import cuda

from rmsprop_graves import kernels
from rmsprop_graves._hyperparameter import Hyperparameter, as_floats
from rmsprop_graves._update_rule import RMSpropGravesRule, refuse_misfits

_ATTRIBUTES = len(vars(RMSpropGravesRule()))


class Plan:
    """Updates parameters as ``param.update()`` would in turn, and those that need nothing special together.

    A gradient or state that cannot be its parameter's is found before any parameter is updated.

    Before a special parameter is updated those that precede it have been, so that whatever is called for it finds
    the model as Chainer would show it. A method of a rule or parameter that a subclass or an instance overrides is
    called; one that is replaced on Chainer's or this package's class itself is not.

    It keeps the arrays of the last update alive until the next one, also where a model has been moved elsewhere since.
    """

    def __init__(self) -> None:
        # Those of the last update, in order. One serves again as long as its arrays are the same objects.
        self._tables: list[Any] = []

    def __reduce__(self) -> Any:
        # Another process has other addresses, and a copy of the optimizer other arrays.
        return Plan, ()

    def update(self, params: Iterable[Any]) -> None:
        """Updates each parameter, and one that comes twice twice.

        Raises:
            ValueError: A gradient or a state is of another shape than its parameter.
            TypeError: A gradient is not of real numbers.
        """
        params = list(params)
        all_fit = False
        last, self._tables = iter(self._tables), []
        batch: list[Any] = []

        def step_batch() -> None:
            if batch:
                self._tables += _step(batch, last)
                batch.clear()

        parent = inherited = None
        for param in params:
            plain = _plain(param)
            values = None
            if plain is not None:
                hyperparam = param.update_rule.hyperparam
                if type(hyperparam) is not Hyperparameter or len(hyperparam.__dict__) > 1:
                    values = _values(hyperparam)
                else:
                    # It has its parent alone, whose values are read once for all its children.
                    if inherited is None or parent is not hyperparam._parent:
                        parent, inherited = hyperparam._parent, _values(hyperparam)
                    values = inherited
            if plain is None or values is None:
                if not all_fit:
                    refuse_misfits_of(params)
                    all_fit = True
                step_batch()
                param.update()
                inherited = None  # what it called may have set a hyperparameter
                continue
            batch.append((param, values, *plain))
        step_batch()


def _step(batch: list[Any], last: Iterator[Any]) -> list[Any]:
    """Steps plain parameters, each as if those before it had been. Returns a table for each device and dtype."""
    places_of: dict[Any, list[int]] = {}
    for place, one in enumerate(batch):
        places_of.setdefault(one[2], []).append(place)
    groups = [_Group(batch, places, next(last, None)) for places in places_of.values()]
    alone = sorted(place for group in groups for place in group.misfits)
    for place in alone:
        param, _, _, array, grad, *_ = batch[place]
        refuse_misfits(param.name, array, grad, param.update_rule.state)
    begin = 0
    for end in (*alone, len(batch)):
        for group in groups:
            group.step(begin, end)
        if end < len(batch):
            _step_alone(*batch[end])
        begin = end + 1
    return [group.table for group in groups]


class _Group:
    """The parameters of a batch that are of one device and dtype, which one table can hold.

    Args:
        batch: Plain parameters, each with its hyperparameters and arrays.
        places: Where in the batch those of the group are.
        table: That of the group at the last update, or another or none.
    """

    def __init__(self, batch: list[Any], places: list[int], table: Any) -> None:
        self._places = self.misfits = places
        self.table = None
        self._device = batch[places[0]][0]._device
        kernel = kernels.on_cpu() if type(self._device) is CpuDevice else kernels.on_gpu()
        if not hasattr(kernel, "Table") or len(places) < kernel.Table.FEWEST:
            return
        rows = batch if len(places) == len(batch) else [batch[place] for place in places]
        self._params, self._values, _, arrays, self._grads, *states = map(list, zip(*rows))
        with self._device.create_context():
            if not isinstance(table, kernel.Table) or not table.holds(arrays, *states):
                table = kernel.Table(arrays, *states)
            self.table = table
            self.misfits = [places[row] for row in table.misfits(self._grads)]

    def step(self, begin: int, end: int) -> None:
        """Steps those that its table holds at places from begin to before end of the batch; none may be a misfit."""
        first, last = bisect_left(self._places, begin), bisect_left(self._places, end)
        if self.table is None or first == last:
            return
        for param in self._params[first:last]:
            param.update_rule.t += 1
        with self._device.create_context():
            self.table.step(self._grads, self._values, first, last)


def _step_alone(param: Any, values: dict[str, float], _: Any, *arrays: numpy.ndarray) -> None:
    if type(param._device) is CpuDevice:
        param.update_rule.t += 1
        kernels.on_cpu().step(*arrays, **values)
    else:
        # It may have a state on another device, which Chainer moves.
        param.update()


def refuse_misfits_of(params: Iterable[Any]) -> None:
    """Does so for parameters of any kind, where they have arrays and a rule of this package that will take them."""
    for param in params:
        rule = param.update_rule
        if (
            not isinstance(rule, RMSpropGravesRule)
            or not rule.enabled
            or not param._grad_valid
            or param._layout is not None
        ):
            continue
        array = param._data[0]
        grad = param._grad if param._grad_var is None else param._grad_var.array
        if array is not None and grad is not None:
            refuse_misfits(param.name, array, grad, rule.state)


def _values(hyperparam: Any) -> dict[str, float] | None:
    """None where a value is missing or no number: the ordinary path then says so, when its turn has come."""
    try:
        return as_floats(hyperparam)
    except Exception:
        return None


def _plain(param: Any) -> tuple[Any, ...] | None:
    """What tells device and dtype, and the arrays in the kernels' order; None where a step is more than a kernel's.

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
    ):
        return None
    array = param._data[0]
    grad = param._grad if param._grad_var is None else param._grad_var.array
    n, g, delta = state.get("n"), state.get("g"), state.get("delta")
    device = param._device
    # Others are ChainerX's, iDeep's, none, or of a subclass.
    if type(device) is CpuDevice:
        if not (type(array) is type(grad) is type(n) is type(g) is type(delta) is numpy.ndarray):
            return None
        device_id = -1
    elif type(device) is GpuDevice:
        if not (type(array) is type(grad) is type(n) is type(g) is type(delta) is cuda.ndarray):
            return None
        device_id = device.device.id
    else:
        return None
    dtype = array.dtype
    if rule._use_fp32_update and dtype == numpy.float16:
        return None
    return (device_id, dtype.num), array, grad, n, g, delta
