"""Applies Chainer's own elementwise hooks on a CPU in one pass over all gradients, or in the pass of the step.

Chainer's code uses one core, makes a temporary as large as the parameter, and takes microseconds for each array.
"""

from __future__ import annotations

import functools
import operator
import sys
from typing import Any, Callable, NamedTuple

import numpy
from chainer import Parameter
from chainer.backend import CpuDevice
from chainer.optimizer_hooks.gradient_clipping import GradientClipping
from chainer.optimizer_hooks.gradient_hard_clipping import GradientHardClipping
from chainer.optimizer_hooks.gradient_lars import GradientLARS
from chainer.optimizer_hooks.lasso import Lasso
from chainer.optimizer_hooks.weight_decay import WeightDecay

from rmsprop_graves import kernels
from rmsprop_graves._chainer7 import numpy1
from rmsprop_graves.kernels.changes import ADD, CLIP, DTYPES, SCALE, SIGN, Change


class WaitingHooks:
    """The hooks of one update that wait to be applied.

    A hook can wait if its class and method are exactly Chainer's, if NumPy is not set to raise floating-point errors,
    and if no parameter is on a GPU, has a loss scale or is of a subclass. Chainer's code applies any other hook at
    once, after the waiting ones. So the hooks keep their order, and a user's hook sees the gradients as in Chainer.

    A kernel applies the waiting hooks, except to odd parameters. A parameter is odd if it is zero-dimensional, not
    contiguous, or of another dtype than most elements of the model. Chainer's code changes odd parameters.

    Args:
        target: The model.
        params: Its parameters.
        call: Chainer's method that calls a hook of the optimizer.

    Attributes:
        changes: The changes that the waiting hooks make.
    """

    def __init__(self, target: Any, params: list[Any], call: Callable[[Any], None]) -> None:
        self._target = target
        self._params: list[Any] | None = params
        self._call = call
        self._hooks: list[tuple[Any, list[Change]]] = []
        self._arrays: _Arrays | None = None
        self.changes: list[Change] = []

    def take(self, hook: Any) -> bool:
        """Lets a hook wait and returns True. If it cannot wait, applies the waiting ones and returns False."""
        kind = _KINDS.get(type(hook))
        changes = None
        if kind is not None and kind.is_untouched(hook) and "raise" not in numpy.geterr().values():
            if kind.needs_norm:
                self.apply()
            try:
                if self._arrays is None:
                    self._arrays = _arrays_of(self.model_params())
                changes = kind.changes(hook, self._arrays)
            except Exception:  # Chainer's code runs instead, and may raise it too
                pass
        if changes is None:
            self.apply()
            # The hook may replace arrays and parameters.
            self._arrays = self._params = None
            return False
        self._hooks.append((hook, changes))
        self.changes += changes
        return True

    def model_params(self) -> list[Any]:
        """Returns the model's parameters. Lists them again if a hook was called, because it may add some."""
        if self._params is None:
            self._params = list(self._target.params())
        return self._params

    def are_of(self, grads: list[Any]) -> bool:
        """Whether the waiting hooks change exactly these gradients."""
        own = self._arrays
        if own is None or own.odd:
            return False
        return len(grads) == len(own.grads) and all(map(operator.is_, grads, own.grads))

    def apply(self) -> None:
        """Applies the waiting hooks: in one pass, or by Chainer's code if the kernel cannot."""
        hooks, changes, arrays, self._hooks, self.changes = self._hooks, self.changes, self._arrays, [], []
        if not changes or arrays is None:
            return
        if kernels.on_cpu().change(arrays.params, arrays.grads, changes):
            for hook, own_changes in hooks:
                for param in arrays.odd:
                    _KINDS[type(hook)].change_odd(hook, param, own_changes)
        else:
            for hook, _ in hooks:
                self._call(hook)


class _Arrays(NamedTuple):
    """The arrays that the hooks of an update read and change.

    Args:
        params: The arrays of the parameters that a kernel can change: contiguous and of one dtype.
        grads: Their gradients.
        odd: The other parameters.
        all_grads: The gradients of both, in the model's order.
    """

    params: list[Any]
    grads: list[Any]
    odd: list[Any]
    all_grads: list[Any]


class _Kind:
    """How to apply the hooks of one class.

    Args:
        hook_class: Chainer's class.
        changes: Returns the changes that a hook makes, given the hook and the arrays.
        change_odd: Applies a hook to an odd parameter, given the hook, the parameter and the changes.
        is_for_each: Whether Chainer calls the hook for each parameter.
        needs_norm: Whether the hook reads the gradients.
    """

    def __init__(
        self,
        hook_class: Any,
        changes: Callable[[Any, _Arrays], list[Change]],
        change_odd: Callable[[Any, Any, list[Change]], None],
        is_for_each: bool = True,
        needs_norm: bool = False,
    ) -> None:
        self.hook_class = hook_class
        self.changes = changes
        self.change_odd = change_odd
        self.needs_norm = needs_norm
        self._is_for_each = is_for_each

    def is_untouched(self, hook: Any) -> bool:
        """Whether neither the method of Chainer's class nor the way in which Chainer calls it has been changed."""
        is_for_each = getattr(hook, "call_for_each_param", False)
        # A program may have replaced the method before this module was imported.
        namespace = getattr(type(hook).__call__, "__globals__", None)
        return is_for_each == self._is_for_each and namespace is vars(sys.modules[type(hook).__module__])


def _arrays_of(params: list[Any], dtype: Any = None) -> _Arrays:
    """Returns the arrays of all initialized parameters, and their gradients. The kernel checks for overlaps.

    Args:
        params: The parameters.
        dtype: The dtype of the parameters that are not odd (default: the one with the most elements).

    Raises:
        ValueError: A parameter has no array of its own on a CPU, no fitting gradient, or a loss scale.
    """
    arrays = _Arrays([], [], [], [])
    for param in params:
        array, grad = param._data[0], param._grad if param._grad_var is None else param._grad_var.array
        if (
            type(param) is not Parameter
            or not param._grad_valid
            or type(param._device) is not CpuDevice
            or param._layout is not None
            or param._loss_scale is not None
        ):
            raise ValueError(f"{param} is special")
        if array is None and grad is None:
            continue
        if not type(array) is type(grad) is numpy.ndarray:
            raise ValueError(f"{param} has no two plain arrays")
        if dtype is None and array.dtype in DTYPES:
            dtype = array.dtype
        if array.shape != grad.shape or array.dtype != grad.dtype or not grad.flags.writeable:
            raise ValueError(f"a hook may fail for {param}")
        # Chainer computes with scalars if an array is zero-dimensional.
        if array.shape and array.dtype == dtype and array.flags.c_contiguous and grad.flags.carray:
            arrays.params.append(array)
            arrays.grads.append(grad)
        elif array.dtype.char in "efd":
            arrays.odd.append(param)
        else:
            raise ValueError(f"{param} has another dtype")
        arrays.all_grads.append(grad)
    if arrays.odd:
        most = max(DTYPES, key=lambda one: sum(grad.size for grad in arrays.all_grads if grad.dtype == one))
        if most != dtype:
            return _arrays_of(params, most)
        # The kernel does not see the odd parameters, so check here for overlaps with them.
        owners = [_owner(array) for param in arrays.odd for array in (param.array, param.grad)]
        owners += map(_owner, (*arrays.params, *arrays.grads))
        if len({*map(id, owners)}) < len(owners):
            raise ValueError("arrays share memory")
    return arrays


def _owner(array: Any) -> Any:
    """Returns the array that owns the memory of a view.

    Raises:
        ValueError: No array owns it.
    """
    while type(array) is numpy.ndarray and not array.flags.owndata:
        array = array.base
    if type(array) is not numpy.ndarray:
        raise ValueError("the memory of an array is not its own")
    return array


def _number(value: Any, arrays: _Arrays) -> float:
    """Returns a hook's number as a float.

    Raises:
        ValueError: Its product with a parameter would have another dtype than the parameter.
    """
    number, dtype = float(value), arrays.params[0].dtype
    if number != value or numpy1.multiply(value, numpy.ones(1, dtype)).dtype != dtype:
        raise ValueError(f"{value!r} is not a number of {dtype}")
    return number


def _for_all(kind: int, a: float, b: float = 0.0) -> Change:
    return Change(kind, numpy.array([[a, b]]))


def _weight_decay(hook: Any, arrays: _Arrays) -> list[Change]:
    return [_for_all(ADD, _number(hook.rate, arrays))]


def _lasso(hook: Any, arrays: _Arrays) -> list[Change]:
    return [_for_all(SIGN, _number(hook.rate, arrays))]


def _hard_clipping(hook: Any, arrays: _Arrays) -> list[Change]:
    lower, upper = _number(hook.lower_bound, arrays), _number(hook.upper_bound, arrays)
    if not (lower and upper):
        raise ValueError("where a bound is zero, the sign of a zero depends on NumPy's version")
    return [_for_all(CLIP, lower, upper)]


def _clipping(hook: Any, arrays: _Arrays) -> list[Change]:
    flat = [grad.ravel() for grad in arrays.all_grads]
    squares = map(numpy.dot, flat, flat)
    # The same sum as in Chainer. Python's own `sum` rounds differently since 3.12.
    norm = numpy.sqrt(numpy.float64(functools.reduce(operator.add, map(float, squares))))
    if norm == 0:
        raise ValueError("Chainer's code warns of a division by zero")
    rate = hook.threshold / norm
    if rate >= 1:
        return []
    _number(numpy1.beside(rate, arrays.grads[0]), arrays)
    return [_for_all(SCALE, float(rate))]


def _lars(hook: Any, arrays: _Arrays) -> list[Change]:
    rates = []
    for param, grad in zip(arrays.params, arrays.grads):
        norm, grad_norm = numpy.linalg.norm(param), numpy.linalg.norm(grad)
        divisor = numpy1.add(hook.eps, grad_norm) + numpy1.multiply(hook.weight_decay, norm)
        if divisor == 0:
            raise ValueError("Chainer's code warns of a division by zero")
        rate = numpy.where(norm > hook.threshold, norm / divisor, 1.0)
        rates.append((_number(numpy1.beside(rate, grad), arrays), 0.0))
    return [_for_all(ADD, _number(hook.weight_decay, arrays)), Change(SCALE, numpy.array(rates))]


def _call_for_one(hook: Any, param: Any, changes: list[Change]) -> None:
    hook(param.update_rule, param)


def _scale_one(hook: Any, param: Any, changes: list[Change]) -> None:
    for change in changes:
        grad = param.grad
        grad *= numpy1.beside(change.numbers[0, 0], grad)


_KINDS = {
    kind.hook_class: kind
    for kind in (
        _Kind(WeightDecay, _weight_decay, _call_for_one),
        _Kind(Lasso, _lasso, _call_for_one),
        _Kind(GradientHardClipping, _hard_clipping, _call_for_one),
        _Kind(GradientClipping, _clipping, _scale_one, is_for_each=False, needs_norm=True),
        _Kind(GradientLARS, _lars, _call_for_one, needs_norm=True),
    )
}
