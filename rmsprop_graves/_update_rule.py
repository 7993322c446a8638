"""One parameter's state and step."""

from __future__ import annotations

from typing import Any

import chainer
import numpy
from chainer.optimizer import UpdateRule
from chainer.serializer import Deserializer

from rmsprop_graves import _checkpoint, kernels
from rmsprop_graves._hyperparameter import DEFAULTS, Hyperparameter, as_floats

_default_hyperparam = Hyperparameter()
for _name, _value in DEFAULTS.items():
    setattr(_default_hyperparam, _name, _value)


class RMSpropGravesRule(UpdateRule):
    """Update rule of one parameter; see :class:`RMSpropGraves` for the formula.

    The state holds ``n``, ``g`` and ``delta``, arrays of the parameter's shape and dtype that are updated in
    place and start at zero.

    Args:
        parent_hyperparam: Where values not given here come from; the defaults if it is not given either.
        lr: Step size of this parameter.
        alpha: Decay rate of ``n`` and ``g``.
        momentum: Decay rate of ``delta``.
        eps: Added inside the root.

    Raises:
        TypeError: A value is not a real number.
        ValueError: A value is NaN or infinite, or alpha, momentum or eps is negative.
    """

    # Read by Chainer: no element of the step depends on another.
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
        for name, value in (("lr", lr), ("alpha", alpha), ("momentum", momentum), ("eps", eps)):
            if value is not None:
                setattr(self.hyperparam, name, value)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self.hyperparam, name)!r}" for name in DEFAULTS)
        return f"<{type(self).__name__}({values}) t={self.t}{'' if self.enabled else ' disabled'}>"

    # What a checkpoint holds of the float32 master of a float16 parameter, until the next update takes it up.
    _master: Any = None
    _fp32_param: Any
    # Whether the state was loaded since the last update, when what it is to be held in may not have been known.
    _is_loaded = False
    # The path and the parameter of a rule that is being loaded, where they are known.
    _loaded_for: tuple[str, Any] = ("", None)

    def serialize(self, serializer: Any) -> None:
        """Saves or loads t, the state, and the float32 master of a float16 parameter.

        Loading is all or nothing: what is wrong is found before anything is written.

        Raises:
            KeyError: An entry is missing.
            ValueError: An entry is none that the rule can go on from.
        """
        if isinstance(serializer, Deserializer):
            _checkpoint.read_rule(self, serializer, *self._loaded_for)()
            return
        super().serialize(serializer)
        master = self._fp32_param.array if self._fp32_param is not None else self._master
        if master is not None:
            serializer(_checkpoint.MASTER, master)

    def update(self, param: Any) -> None:
        """Updates a parameter, and calls the hooks of the rule."""
        if param.array is not None:
            self._settle(param)
        super().update(param)

    def _settle(self, param: Any) -> None:
        """Does what had to wait for the parameter to be initialized, resized or loaded."""
        master = self._fp32_param
        if master is not None and (master.array is None or master.shape != param.shape):
            self._fp32_param = None
        if self._is_loaded:
            del self._is_loaded
            is_wide = self._use_fp32_update and param.dtype == numpy.float16
            self._cast_states(numpy.float32 if is_wide else param.dtype)
        if self._master is not None:
            self._take_up_master(param)

    def _cast_states(self, dtype: Any) -> None:
        with numpy.errstate(over="ignore", under="ignore"):
            for name in _checkpoint.STATES:
                if name in (self.state or {}):
                    self.state[name] = self.state[name].astype(dtype, copy=False)

    def _take_up_master(self, param: Any) -> None:
        master = self.__dict__.pop("_master")
        array = param.array
        if array.shape != master.shape or array.dtype != numpy.float16 or not self._use_fp32_update:
            return
        with chainer.using_device(param.device):
            loaded = param.device.send(master).copy()
            rounded = loaded.astype(array.dtype)
            # It is the parameter's if it rounds to it. Otherwise the parameter was loaded from elsewhere, and counts.
            if bool(((rounded == array) | ((rounded != rounded) & (array != array))).all()):
                self._fp32_param = chainer.Parameter(loaded, name=param.name)

    def _create_uninitialized_parameter(self, dtype: Any, name: str | None) -> Any:
        # Chainer 7.8.1's cannot be pickled, and its gradient not be read: an update fails when others have moved.
        master = chainer.Parameter(chainer.initializers.NaN(dtype), name=name)
        master.cleargrad()
        return master

    def init_state(self, param: Any) -> None:
        """Sets ``n``, ``g`` and ``delta`` to zeros on the parameter's device."""
        with chainer.using_device(param.device):
            for name in _checkpoint.STATES:
                self.state[name] = param.device.xp.zeros_like(param.array)

    def update_core_cpu(self, param: Any) -> None:
        """Steps a parameter whose arrays are NumPy's.

        Raises:
            TypeError: An array is not NumPy's, such as iDeep's, or the gradient is not of real numbers.
            ValueError: The gradient or a state is of another shape than the parameter.
        """
        arrays = self._arrays(param)
        if arrays is None:
            return
        for array in arrays:
            # A NumPy ufunc cannot write into an iDeep array.
            if not isinstance(array, numpy.ndarray):
                raise TypeError(
                    f"parameter {param.name}: the update on a CPU takes numpy.ndarray, found "
                    f"{type(array).__module__}.{type(array).__qualname__}; move the model with model.to_cpu()"
                )
        kernels.on_cpu().step(*arrays, **as_floats(self.hyperparam))

    def update_core_gpu(self, param: Any) -> None:
        """Steps a parameter whose arrays are CuPy's.

        Raises:
            TypeError: The gradient is not of real numbers.
            ValueError: The gradient or a state is of another shape than the parameter.
        """
        arrays = self._arrays(param)
        if arrays is None:
            return
        kernels.on_gpu().step(*arrays, **as_floats(self.hyperparam))

    def _arrays(self, param: Any) -> tuple[Any, ...] | None:
        """The arrays of a step in the kernels' order; None without a gradient, as Chainer then does nothing."""
        grad = param.grad
        if grad is None:
            return None
        state = self.state
        refuse_misfits(param.name, param.array, grad, state)
        return param.array, grad, state["n"], state["g"], state["delta"]


RMSpropGravesRule.__module__ = "rmsprop_graves"


def refuse_misfits(name: str, param: Any, grad: Any, state: dict[str, Any] | None) -> None:
    """Raises an error that names the parameter if its gradient or state, if it has one, is none for its step.

    Raises:
        ValueError: An array is of another shape, even one that could be broadcast.
        TypeError: The gradient is no array of real numbers, or one of the state is none of real floating ones.
    """
    _refuse_misfit(name, "a gradient", grad, param, "fiub", "real numbers")
    for entry in _checkpoint.STATES:
        if state and entry in state:
            _refuse_misfit(name, f"a state {entry}", state[entry], param, "f", "real floating numbers")


def _refuse_misfit(name: str, what: str, array: Any, param: Any, kinds: str, numbers: str) -> None:
    if type(array) is not numpy.ndarray and not isinstance(array, chainer.get_array_types()):
        raise TypeError(f"parameter {name}: found {what} of type {type(array).__name__}, expected an array")
    if array.shape != param.shape:
        raise ValueError(f"parameter {name}: found {what} of shape {array.shape}, expected {param.shape}")
    if array.dtype.kind not in kinds:
        raise TypeError(f"parameter {name}: found {what} of dtype {array.dtype}, expected {numbers}")
