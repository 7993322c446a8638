"""Warnings about mistakes that would train a model wrongly, or not at all, without an error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy
from chainer.backends import cuda

from rmsprop_graves._hyperparameter import NAMES, level_of_the_caller
from rmsprop_graves._update_rule import RMSpropGravesRule

_ON_RULES = {**{name: f"hyperparam.{name}" for name in NAMES}, "enable": "enabled"}


def warn_of_mistakes(params: list[Any], *, made_here: bool) -> None:
    """Warns of the mistakes that the first update of a model can see.

    Args:
        params: All parameters of the model.
        made_here: Whether NaN gradients are no such mistake: the update itself has cleared the gradients and computed
            new ones, or dynamic loss scaling will skip the step.
    """
    message = _mistake(params, made_here)
    if message:
        warnings.warn(message, UserWarning, stacklevel=level_of_the_caller())


def _mistake(params: list[Any], made_here: bool) -> str:
    if not params:
        return (
            "the model has no parameters, so nothing is trained: assign its links in `with self.init_scope():`, "
            "or put them into a ChainList"
        )
    for param in params:
        rule = param.update_rule
        if type(rule) is RMSpropGravesRule:
            for name in vars(rule).keys() & _ON_RULES.keys():
                return f"update_rule.{name} of parameter {param.name} has no effect: set update_rule.{_ON_RULES[name]}"
    # Frozen parameters need no gradient, and uninitialized ones have none yet.
    active = [
        param
        for param in params
        if param.update_rule is not None
        and param.update_rule.enabled
        and isinstance(param._data[0], (numpy.ndarray, cuda.ndarray))
    ]
    grads = [param._grad if param._grad_var is None else param._grad_var.array for param in active]
    if not active:
        return ""
    if all(grad is None for grad in grads):
        return (
            "no parameter has a gradient, so nothing is trained: call loss.backward() before update(), and compute "
            "the loss with the model that was given to setup, not in no_backprop_mode and not from `.array`"
        )
    if not made_here and all(map(_is_all_nan, grads)):
        return (
            "all gradients are NaN, and so will be the parameters: either the loss is NaN, or the gradients of a new "
            "model, which Chainer fills with NaN, were not cleared; call model.cleargrads() before loss.backward(), "
            "and loss.backward() before update()"
        )
    return ""


def _is_all_nan(grad: Any) -> bool:
    # Not on a GPU, because the host would have to wait for the answer.
    return isinstance(grad, numpy.ndarray) and grad.dtype.kind == "f" and grad.size > 0 and bool((grad != grad).all())
