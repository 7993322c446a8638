"""Chainer's own elementwise hooks on a CPU, made in one pass over all gradients or in the pass of the step.

Chainer's code makes a temporary as large as the parameter, on one core, and takes microseconds for each array.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, Callable, Iterable

import numpy
from chainer import Parameter
from chainer.backend import CpuDevice
from chainer.optimizer_hooks import GradientClipping, GradientHardClipping, GradientLARS, Lasso, WeightDecay

from rmsprop_graves import kernels
from rmsprop_graves._chainer7 import numpy1
from rmsprop_graves.kernels.changes import ADD, CLIP, SCALE, SIGN, Change


class WaitingHooks:
    """The hooks of one update that are not made yet.

    A hook can wait if its class and method are exactly Chainer's and every parameter is plain: on a CPU, contiguous,
    of one dtype, and without loss scale. Chainer's code makes every other hook, after those that wait. So the order of
    the hooks is kept, and a hook of the user finds the gradients as Chainer would show them.

    Args:
        target: The model.
        params: Its parameters.
        call: Chainer's method that calls a hook of the optimizer.

    Attributes:
        changes: The changes that the waiting hooks make.
        params: The arrays of the parameters, when hooks wait.
        grads: Their gradients.
    """

    def __init__(self, target: Any, params: list[Any], call: Callable[[Any], None]) -> None:
        self._target = target
        self._params: list[Any] | None = params
        self._call = call
        self._hooks: list[Any] = []
        self.changes: list[Change] = []
        self.params: list[Any] = []
        self.grads: list[Any] = []

    def take(self, hook: Any) -> bool:
        """Lets a hook wait. If it cannot, makes those that wait and returns False."""
        kind = _KINDS.get(type(hook))
        changes = None
        if kind is not None and kind.is_untouched(hook):
            if kind.needs_norm:
                self.make()
            try:
                if not self.params:
                    self.params, self.grads = _plain_arrays(self.model_params())
                changes = kind.changes(hook, self.params, self.grads)
            except Exception:  # Chainer's code may raise it too
                pass
        if changes is None:
            self.make()
            # The hook may replace arrays and parameters.
            self.params, self.grads, self._params = [], [], None
            return False
        self._hooks.append(hook)
        self.changes += changes
        return True

    def model_params(self) -> list[Any]:
        """Returns the parameters of the model; they are listed anew after a hook was called, which may add some."""
        if self._params is None:
            self._params = list(self._target.params())
        return self._params

    def are_of(self, grads: list[Any]) -> bool:
        """Whether the hooks change just these gradients."""
        return len(grads) == len(self.grads) and all(map(operator.is_, grads, self.grads))

    def make(self) -> None:
        """Makes the hooks that wait: in one pass, or by Chainer's code if a kernel cannot."""
        hooks, changes, self._hooks, self.changes = self._hooks, self.changes, [], []
        if changes and not kernels.on_cpu().change(self.params, self.grads, changes):
            for hook in hooks:
                self._call(hook)


class _Kind:
    """What is known of a class of hooks.

    Args:
        hook_class: Chainer's class.
        changes: Returns the changes that a hook makes, given the hook, parameters and gradients.
        needs_norm: Whether it reads the gradients.
    """

    def __init__(self, hook_class: Any, changes: Callable[..., list[Change]], needs_norm: bool = False) -> None:
        self.changes = changes
        self.needs_norm = needs_norm
        self._method = hook_class.__call__
        self._is_for_each = getattr(hook_class, "call_for_each_param", False)

    def is_untouched(self, hook: Any) -> bool:
        """Whether the hook has Chainer's method, called as Chainer's class says."""
        is_for_each = getattr(hook, "call_for_each_param", False)
        return type(hook).__call__ is self._method and is_for_each == self._is_for_each


def _plain_arrays(params: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the arrays of all initialized parameters, and their gradients. A kernel looks at dtypes and layouts.

    Raises:
        ValueError: A parameter is not plain.
    """
    arrays, grads = [], []
    for param in params:
        array, grad = param._data[0], param._grad if param._grad_var is None else param._grad_var.array
        if (
            type(param) is not Parameter
            or not param._grad_valid
            or type(param._device) is not CpuDevice
            or param._layout is not None
            or param._loss_scale is not None
        ):
            raise ValueError(f"{param} is not plain")
        if array is None and grad is None:
            continue
        # Chainer computes with scalars where an array has no dimensions.
        if not (type(array) is type(grad) is numpy.ndarray and array.shape):
            raise ValueError(f"{param} is not plain")
        arrays.append(array)
        grads.append(grad)
    return arrays, grads


def _number(value: Any, params: list[Any]) -> float:
    """Returns a hook's number as a float.

    Raises:
        ValueError: Its product with a parameter would have another dtype than the parameter.
    """
    number, dtype = float(value), params[0].dtype
    if number != value or numpy1.multiply(value, numpy.ones(1, dtype)).dtype != dtype:
        raise ValueError(f"{value!r} is no number of {dtype}")
    return number


def _all(kind: int, a: float, b: float = 0.0) -> Change:
    return Change(kind, numpy.array([[a, b]]))


def _weight_decay(hook: Any, params: list[Any], grads: list[Any]) -> list[Change]:
    return [_all(ADD, _number(hook.rate, params))]


def _lasso(hook: Any, params: list[Any], grads: list[Any]) -> list[Change]:
    return [_all(SIGN, _number(hook.rate, params))]


def _hard_clipping(hook: Any, params: list[Any], grads: list[Any]) -> list[Change]:
    lower, upper = _number(hook.lower_bound, params), _number(hook.upper_bound, params)
    if not (lower and upper):
        raise ValueError("where a bound is zero, the sign of a zero depends on NumPy's version")
    return [_all(CLIP, lower, upper)]


def _clipping(hook: Any, params: list[Any], grads: list[Any]) -> list[Change]:
    flat = [grad.ravel() for grad in grads]
    squares = map(numpy.dot, flat, flat)
    # As Chainer sums them. Python's own sum rounds otherwise since 3.12.
    norm = numpy.sqrt(numpy.float64(functools.reduce(operator.add, map(float, squares))))
    rate = hook.threshold / norm
    return [] if rate >= 1 else [_all(SCALE, _number(numpy1.beside(rate, grads[0]), params))]


def _lars(hook: Any, params: list[Any], grads: list[Any]) -> list[Change]:
    rates = []
    for param, grad in zip(params, grads):
        norm, grad_norm = numpy.linalg.norm(param), numpy.linalg.norm(grad)
        decay = numpy1.multiply(hook.weight_decay, norm)
        rate = numpy.where(norm > hook.threshold, norm / (numpy1.add(hook.eps, grad_norm) + decay), 1.0)
        rates.append((_number(numpy1.beside(rate, grad), params), 0.0))
    return [_all(ADD, _number(hook.weight_decay, params)), Change(SCALE, numpy.array(rates))]


_KINDS = {
    WeightDecay: _Kind(WeightDecay, _weight_decay),
    Lasso: _Kind(Lasso, _lasso),
    GradientHardClipping: _Kind(GradientHardClipping, _hard_clipping),
    GradientClipping: _Kind(GradientClipping, _clipping, needs_norm=True),
    GradientLARS: _Kind(GradientLARS, _lars, needs_norm=True),
}
