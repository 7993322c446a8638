"""The update of a whole model at once."""

from __future__ import annotations

from itertools import repeat
from typing import Any, Iterator, Sequence

import numpy
from chainer import Parameter
from chainer.backend import CpuDevice, GpuDevice
from chainer.backends import cuda

from rmsprop_graves import kernels
from rmsprop_graves._hooks import WaitingHooks
from rmsprop_graves._hyperparameter import NAMES, Hyperparameter, as_floats
from rmsprop_graves._update_rule import RMSpropGravesRule, refuse_misfits_of
from rmsprop_graves.kernels.changes import Change

_NAMES = frozenset(NAMES)


class Plan:
    """Updates parameters as ``param.update()`` would in turn, but steps plain ones together.

    A parameter is plain if its update is the step of a kernel and nothing else: no hook, loss scale or float32 master,
    no subclass, and no method set on the instance. If a program replaces a method of Chainer's or this package's
    class, plain updates do not call it. Plain parameters wait in a batch, which is stepped before the next special
    parameter, so that a hook sees the same model as in Chainer.

    The arrays of the last update stay alive until the next one, even if the model has moved to another device.
    """

    def __init__(self) -> None:
        # The tables of the last update, in order. A table is used again if its arrays are the same.
        self._tables: list[Any] = []
        # Whether no update has been made, with this model or, after unpickling, in this process.
        self.is_new = True
        # The hooks that wait, while an update calls hooks.
        self.hooks: WaitingHooks | None = None

    def __reduce__(self) -> Any:
        # Another process has other addresses, and a copy of the optimizer has other arrays.
        return Plan, ()

    def update(self, params: list[Any], hooks: WaitingHooks | None = None) -> bool:
        """Updates each parameter, in order; a parameter that is listed twice is updated twice.

        Args:
            params: The parameters.
            hooks: Hooks to apply before the first step, or in its pass.

        Returns:
            Whether all parameters were plain. If so, no user code has run.

        Raises:
            ValueError: A gradient or a state has another shape than its parameter, a state is missing, or a parameter
                or state cannot be written in place; no parameter has been stepped.
            TypeError: A gradient, parameter or state has the wrong dtype or is not an array; no parameter has been
                stepped.
        """
        old_tables, self._tables = iter(self._tables), []
        # The plain parameters that wait, by their rules: (parameter, hyperparameters, what `_plain` returned).
        batch: dict[Any, tuple[Any, ...]] = {}

        def step_batch() -> None:
            if batch:
                self._tables += _step(batch, old_tables, hooks)
                batch.clear()

        are_all_plain, are_checked = True, False
        parent = inherited = None
        for param in params:
            rule = param.update_rule
            plain = _plain(param, rule)
            values = None
            if plain is not None:
                hyperparam = rule.hyperparam
                own = hyperparam.__dict__
                if type(hyperparam) is not Hyperparameter or (len(own) > 1 and not _NAMES.isdisjoint(own)):
                    values = _values(hyperparam)
                else:
                    # Most rules inherit all values from the optimizer: read them once.
                    if inherited is None or parent is not hyperparam._parent:
                        parent, inherited = hyperparam._parent, _values(hyperparam)
                    values = inherited
            row = param, values, plain
            if values is not None and batch.setdefault(rule, row) is row:
                continue
            if hooks is not None:
                hooks.apply()
            if not are_checked:
                # Check the rest of the model before the batch is stepped.
                refuse_misfits_of(params)
                are_checked = True
            step_batch()
            if values is None:
                are_all_plain = False
                param.update()
                inherited = None  # a hook may have set a hyperparameter
            else:
                batch[rule] = row
        step_batch()
        return are_all_plain


def _step(batch: dict[Any, tuple[Any, ...]], old_tables: Iterator[Any], hooks: WaitingHooks | None) -> list[Any]:
    """Steps a batch all at once, or one by one in order if that is not possible; returns the tables."""
    params, values, rows = zip(*batch.values())
    keys, *arrays = zip(*rows)
    tables: list[Any] = []
    launches: list[Any] = []
    alone: list[Any] = []
    for key in dict.fromkeys(keys):
        columns: list[Any] = [params, values, *arrays]
        if keys.count(key) < len(keys):
            columns = [[one for one, other in zip(column, keys) if other == key] for column in columns]
        group, own_values, own_arrays, grads, *states = map(list, columns)
        device = group[0]._device
        kernel = kernels.on_cpu() if type(device) is CpuDevice else kernels.on_gpu()
        table: Any = next(old_tables, None)
        tables.append(table)
        if not hasattr(kernel, "Table") or own_arrays[0].dtype.char not in kernel.Table.CHARS:
            alone += group
            continue
        with device.create_context():
            if not isinstance(table, kernel.Table) or not table.holds(own_arrays, *states):
                table = tables[-1] = kernel.Table(own_arrays, *states)
            # `locate` may put copies of gradients into the list, which must live until the step.
            launches.append((device, group, own_values, table, table.locate(grads), grads))
    if not _are_possible(launches):
        launches, alone = [], list(params)
    changes: Sequence[Change] = ()
    if hooks is not None and hooks.changes:
        if alone or not all(
            hooks.are_of(grads) and table.can_change(addresses, grads) for *_, table, addresses, grads in launches
        ):
            hooks.apply()
            # Locate again, because `locate` may have copied gradients before the hooks changed them.
            return _step(batch, iter(tables), None)
        changes = hooks.changes
    if alone:
        refuse_misfits_of(params)
    for device, group, own_values, table, addresses, _ in launches:
        rules = [param.update_rule for param in group]
        counts = [rule.t + 1 for rule in rules]
        with device.create_context():
            table.step(addresses, own_values, map(setattr, rules, repeat("t"), counts), changes)
    for param in alone:
        _step_alone(*batch[param.update_rule])
    return tables


def _are_possible(launches: list[Any]) -> bool:
    located = [(table, addresses) for _, _, _, table, addresses, _ in launches]
    return all(addresses is not None for _, addresses in located) and not any(
        one.writes_to(other, addresses) for one, _ in located for other, addresses in located if one is not other
    )


def _step_alone(param: Any, values: tuple[float, ...], plain: tuple[Any, ...]) -> None:
    _, *arrays = plain
    if type(param._device) is CpuDevice and all(type(array) is numpy.ndarray for array in arrays):
        param.update_rule.t += 1
        kernels.on_cpu().step(*arrays, **dict(zip(NAMES, values)))
    else:
        # A state may be on another device. Chainer's update moves it.
        param.update()


def _values(hyperparam: Any) -> tuple[float, ...] | None:
    """The four values; None if one is missing or invalid, which the parameter's own update then reports."""
    try:
        return tuple(as_floats(hyperparam).values())
    except Exception:
        return None


def _plain(param: Any, rule: Any) -> tuple[Any, ...] | None:
    """A key for device and dtype, and the arrays in the kernels' order; None if the parameter is special.

    Reads Chainer's private attributes where its properties would take longer than the step of a small array.
    """
    if (
        type(rule) is not RMSpropGravesRule
        or type(param) is not Parameter
        or not rule.enabled
        or rule._unsettled
        or "update" in (own := rule.__dict__)
        or "update_core" in own
        or "update_core_cpu" in own
        or "update_core_gpu" in own
        or "update" in param.__dict__
        or param._loss_scale is not None
        or param._layout is not None
        or not param._grad_valid
    ):
        return None
    hookable = rule._hookable
    state = rule._state
    if not state or hookable._pre_update_hooks or hookable._post_update_hooks:
        return None
    array = param._data[0]
    grad = param._grad if param._grad_var is None else param._grad_var.array
    try:
        n, g, delta = state["n"], state["g"], state["delta"]
    except KeyError:
        return None
    device = param._device
    # An array of another kind is ChainerX's, iDeep's, missing, or of a subclass. The table checks the states.
    if type(device) is CpuDevice:
        if type(array) is not numpy.ndarray or grad is None:
            return None
        number = 0
    elif type(device) is GpuDevice:
        if type(array) is not cuda.ndarray or type(grad) is not cuda.ndarray:
            return None
        number = 1 + device.device.id
    else:
        return None
    dtype = array.dtype
    if rule._use_fp32_update and dtype == numpy.float16:
        return None
    return dtype.num + 1000 * number, array, grad, n, g, delta
