"""The update rule: the state and the step of one parameter."""

from __future__ import annotations

from typing import Any, Iterable

import chainer
import numpy
from chainer.backends import cuda
from chainer.optimizer import UpdateRule
from chainer.serializer import Deserializer

from rmsprop_graves import _checkpoint, kernels
from rmsprop_graves._hyperparameter import DEFAULTS, NAMES, Hyperparameter, as_floats

_default_hyperparam = Hyperparameter()
for _name, _value in DEFAULTS.items():
    setattr(_default_hyperparam, _name, _value)


class RMSpropGravesRule(UpdateRule):
    """Update rule of one parameter; see :class:`RMSpropGraves` for the formula.

    The state holds ``n``, ``g`` and ``delta``: arrays of the parameter's shape and dtype, which start at zero and are
    updated in place.

    Args:
        parent_hyperparam: The hyperparameters to inherit from, such as an optimizer's ``hyperparam`` (default: the
            defaults of :class:`RMSpropGraves`).
        lr: Step size of this parameter; any finite number (default: inherited, as for all four).
        alpha: Decay rate of ``n`` and ``g``; >= 0, and below 1 for a running mean.
        momentum: Decay rate of ``delta``; >= 0, and below 1 for a step that decays.
        eps: Added inside the root, in units of squared gradient; >= 0.

    Raises:
        TypeError: A value is not one real number.
        ValueError: A value is NaN or infinite, or alpha, momentum or eps is negative.

    Warns:
        UserWarning: alpha or momentum is 1 or more.
    """

    # Chainer reads this: no element of the step depends on another.
    is_elementwise = True

    def __init__(
        self,
        parent_hyperparam: Any = None,
        lr: float | None = None,
        alpha: float | None = None,
        momentum: float | None = None,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        self.hyperparam = Hyperparameter(parent_hyperparam or _default_hyperparam)
        for name, value in zip(NAMES, (lr, alpha, momentum, eps)):
            if value is not None:
                setattr(self.hyperparam, name, value)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self.hyperparam, name)!r}" for name in NAMES)
        return f"<{type(self).__name__}({values}) t={self.t}{'' if self.enabled else ' disabled'}>"

    _fp32_param: Any
    # Loading sets this on the instance. The next update decides on the dtype of the states and clears it.
    _unsettled = False

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        """Restores a pickle or a copy. A pickle of 1.0.0 has other attributes between loading and the next update."""
        self.__dict__.update(attributes)
        is_loaded = self.__dict__.pop("_is_loaded", False)
        master = self.__dict__.pop("_master", None)
        if master is not None:
            self._fp32_param = _checkpoint.new_master(master, None)
        if is_loaded or master is not None:
            self._unsettled = True

    def serialize(self, serializer: Any) -> None:
        """Saves or loads t, the state, and the float32 master of a float16 parameter.

        Loading is all or nothing: it finds an error before it writes anything.

        Raises:
            KeyError: An entry is missing.
            ValueError: An entry is damaged or invalid, for example of the wrong shape.
            OSError: The operating system cannot read the file; ``errno`` says why.
        """
        if isinstance(serializer, Deserializer):
            _checkpoint.read_rule(self, serializer).write()
        else:
            _checkpoint.save_rule(self, serializer)

    def update(self, param: Any) -> None:
        """Updates a parameter and calls the rule's hooks. Does nothing if the rule is disabled.

        Args:
            param: The parameter. If it is uninitialized, no step is made, but t counts the update and hooks are
                called.
        """
        if self._unsettled and self.enabled and param.array is not None:
            _checkpoint.settle(self, param)
        if self._fp32_param is not None:
            master, array = self._fp32_param._data[0], param._data[0]
            # The parameter was initialized or resized after the master was made.
            if array is not None and (master is None or master.shape != array.shape):
                self._fp32_param = None
        super().update(param)

    def _create_uninitialized_parameter(self, dtype: Any, name: str | None) -> Any:
        # Chainer 7.8.1 would make one that cannot be pickled and whose gradient cannot be read during an update.
        return _checkpoint.new_master(chainer.initializers.NaN(dtype), name)

    def _init_states(self, param: Any) -> None:
        # Chainer sends every state to the device at every update. On a GPU that takes longer than the step.
        if not self.state or not _share_device(param.array, self.state.values()):
            super()._init_states(param)

    def init_state(self, param: Any) -> None:
        """Sets ``n``, ``g`` and ``delta`` to zeros on the parameter's device."""
        with chainer.using_device(param.device):
            for name in _checkpoint.STATES:
                self.state[name] = param.device.xp.zeros_like(param.array)

    def update_core_cpu(self, param: Any) -> None:
        """Steps a parameter on a CPU. Does nothing if it has no gradient.

        Raises:
            TypeError: An array is not a ``numpy.ndarray`` but, for example, iDeep's; or the gradient's dtype is not
                real.
            ValueError: The gradient or a state has another shape than the parameter.
        """
        arrays = self._arrays(param)
        for array in arrays:
            # A NumPy ufunc cannot write into an iDeep array.
            if not isinstance(array, numpy.ndarray):
                raise TypeError(
                    f"parameter {param.name}: the update on a CPU takes numpy.ndarray, found "
                    f"{type(array).__module__}.{type(array).__qualname__}; move the model with model.to_cpu()"
                )
        if arrays:
            kernels.on_cpu().step(*arrays, **as_floats(self.hyperparam))

    def update_core_gpu(self, param: Any) -> None:
        """Steps a parameter on a GPU. Does nothing if it has no gradient.

        Raises:
            TypeError: The gradient's dtype is not real.
            ValueError: The gradient or a state has another shape than the parameter.
        """
        arrays = self._arrays(param)
        if arrays:
            kernels.on_gpu().step(*arrays, **as_floats(self.hyperparam))

    def _arrays(self, param: Any) -> tuple[Any, ...]:
        """The arrays of a step in the kernels' order, after a check; an empty tuple without a gradient."""
        grad = param.grad
        if grad is None:
            return ()
        array, state = param.array, self.state
        refuse_misfits(param.name, array, grad, state)
        return array, grad, state["n"], state["g"], state["delta"]


def _share_device(array: Any, others: Iterable[Any]) -> bool:
    kind = type(array)
    if kind is numpy.ndarray:
        return all(type(other) is kind for other in others)
    if kind is not cuda.ndarray:
        return False
    number = array.data.device_id
    return all(type(other) is kind and other.data.device_id == number for other in others)


RMSpropGravesRule.__module__ = "rmsprop_graves"


def refuse_misfits(name: str, param: Any, grad: Any, state: dict[str, Any] | None) -> None:
    """Raises an error that names the parameter if its gradient or state has the wrong shape or dtype.

    Raises:
        ValueError: An array has another shape, even one that could be broadcast.
        TypeError: The gradient is not an array of real numbers, or a state not an array of floating-point numbers.
    """
    if state and _match(param, grad, state.get("n"), state.get("g"), state.get("delta")):
        return
    _refuse_misfit(name, "a gradient", grad, param, "fiub", "real numbers")
    if state:
        for entry in _checkpoint.STATES:
            if entry in state:
                _refuse_misfit(name, f"a state {entry}", state[entry], param, "f", "real floating numbers")


def _match(param: Any, grad: Any, n: Any, g: Any, delta: Any) -> bool:
    """Whether five arrays are alike, as they usually are; faster than a look at each."""
    dtype, shape = param.dtype, param.shape
    return (
        type(param) is type(grad) is type(n) is type(g) is type(delta)
        and dtype.kind == "f"
        and dtype == grad.dtype == n.dtype == g.dtype == delta.dtype
        and shape == grad.shape == n.shape == g.shape == delta.shape
    )


def _refuse_misfit(name: str, what: str, array: Any, param: Any, kinds: str, numbers: str) -> None:
    if type(array) is not type(param) and not isinstance(array, chainer.get_array_types()):
        raise TypeError(f"parameter {name}: found {what} of type {type(array).__name__}, expected an array")
    if array.shape != param.shape:
        raise ValueError(f"parameter {name}: found {what} of shape {array.shape}, expected {param.shape}")
    if array.dtype.kind not in kinds:
        raise TypeError(f"parameter {name}: found {what} of dtype {array.dtype}, expected {numbers}")
