"""The update rule: the state and the step of one parameter."""

from __future__ import annotations

import numbers
from typing import Any, Iterable

import chainer
import numpy
from chainer.backends import cuda
from chainer.optimizer import UpdateRule
from chainer.serializer import Deserializer

from rmsprop_graves import _checkpoint, kernels
from rmsprop_graves._hyperparameter import DEFAULTS, NAMES, Hyperparameter, as_floats
from rmsprop_graves.kernels.arrays import are_writable, fault_of

_default_hyperparam = Hyperparameter()
for _name, _value in DEFAULTS.items():
    setattr(_default_hyperparam, _name, _value)


class RMSpropGravesRule(UpdateRule):
    """Update rule of one parameter; see :class:`RMSpropGraves` for the formula.

    The state holds ``n``, ``g`` and ``delta``: arrays of the parameter's shape and dtype (float32 with
    ``use_fp32_update``). They start at zero and are updated in place.

    Args:
        parent_hyperparam: The hyperparameters to inherit from, such as an optimizer's ``hyperparam`` (default: the
            defaults of :class:`RMSpropGraves`).
        lr: Step size of this parameter; any finite number (default for all four: inherited).
        alpha: Decay rate of ``n`` and ``g``; >= 0, normally below 1.
        momentum: Decay rate of ``delta``; >= 0, normally below 1.
        eps: Added inside the root, in units of squared gradient; >= 0.

    Raises:
        TypeError: A value is not one real number, or ``parent_hyperparam`` is a number.
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
        if isinstance(parent_hyperparam, numbers.Real):
            raise TypeError(
                f"parent_hyperparam must be a Hyperparameter, got {parent_hyperparam!r}: "
                f"write {type(self).__name__}(lr={parent_hyperparam!r}) to set lr"
            )
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
        """Restores a pickle or a copy. Release 1.0.0 pickled other attributes if no update had followed a loading."""
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
        # Chainer 7.8.1 would make a master that cannot be pickled and whose gradient cannot be read during an update.
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
            TypeError: An array is not a ``numpy.ndarray``, for example an array of iDeep; the gradient's dtype is not
                real; the parameter's dtype is not real floating-point; or a state has another dtype than the
                parameter.
            ValueError: The gradient or a state has another shape than the parameter, a state is missing, or the
                parameter or a state is read-only or has elements that share memory.
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
            self._step(kernels.on_cpu(), param, arrays)

    def update_core_gpu(self, param: Any) -> None:
        """Steps a parameter on a GPU. Does nothing if it has no gradient.

        Raises:
            TypeError: The parameter's dtype is not real floating-point, or the gradient or a state has another dtype.
            ValueError: The gradient or a state has another shape than the parameter, a state is missing, or the
                parameter or a state has elements that share memory.
        """
        arrays = self._arrays(param)
        if arrays:
            self._step(kernels.on_gpu(), param, arrays)

    def _arrays(self, param: Any) -> tuple[Any, ...]:
        """Returns the checked arrays of a step, in the kernels' order; an empty tuple if there is no gradient."""
        grad = param.grad
        if grad is None:
            return ()
        array, state = param.array, self.state
        if state:
            arrays = array, grad, state.get("n"), state.get("g"), state.get("delta")
            # The kernel itself refuses a layout that it cannot write.
            if _match(*arrays):
                return arrays
        self._refuse_misfits(param, array, grad)
        return array, grad, state["n"], state["g"], state["delta"]

    def _step(self, kernel: Any, param: Any, arrays: tuple[Any, ...]) -> None:
        try:
            kernel.step(*arrays, **as_floats(self.hyperparam))
        except (TypeError, ValueError):
            # The kernel's error names the array; this one also names the parameter.
            self._refuse_misfits(param, arrays[0], arrays[1])
            raise

    def _refuse_misfits(self, param: Any, array: Any, grad: Any) -> None:
        is_wide = param is self._fp32_param
        refuse_misfits(param.name, array, grad, self.state or {}, is_wide=is_wide, must_be_complete=True)


def _share_device(array: Any, others: Iterable[Any]) -> bool:
    kind = type(array)
    if kind is numpy.ndarray:
        return all(type(other) is kind for other in others)
    if kind is not cuda.ndarray:
        return False
    number = array.data.device_id
    return all(type(other) is kind and other.data.device_id == number for other in others)


RMSpropGravesRule.__module__ = "rmsprop_graves"


_HALF = numpy.dtype(numpy.float16)
_SINGLE = numpy.dtype(numpy.float32)


def refuse_misfits_of(params: Iterable[Any]) -> None:
    """Runs `refuse_misfits` on every initialized parameter with a gradient and an enabled rule of this package.

    Raises:
        TypeError: An array or a hyperparameter is of the wrong type; the error names the parameter.
        ValueError: An array does not fit for another reason, or a hyperparameter is invalid.
    """
    checked = None
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
        if array is None or grad is None:
            continue
        # A hook of the rule may set its hyperparameters.
        if not rule._hookable._pre_update_hooks:
            hyperparam = rule.hyperparam
            if checked is None or hyperparam._parent is not checked or len(hyperparam.__dict__) > 1:
                _refuse_hyperparameters(param.name, hyperparam)
                checked = hyperparam._parent
        state = rule._state
        # Chainer converts the gradient to the master's dtype.
        is_wide = rule._use_fp32_update and array.dtype == _HALF
        written, converted, has_master = array, grad, False
        if is_wide and rule._fp32_param is not None and not rule._unsettled:
            master = rule._fp32_param._data[0]
            # The update replaces a master of another shape, and perhaps a loaded one.
            if master is not None and master.shape == array.shape:
                written, has_master = master, True
                if type(grad) is type(array) and grad.shape == array.shape and grad.dtype == _HALF:
                    converted = master
        if state and has_master is is_wide:
            n, g, delta = state.get("n"), state.get("g"), state.get("delta")
            if (
                _match(written, converted, n, g, delta)
                and are_writable(written, n, g, delta)
                and (not has_master or written.dtype == _SINGLE)
            ):
                continue
        refuse_misfits(
            param.name,
            written,
            grad,
            state,
            is_wide=is_wide,
            # An update with a master replaces the parameter's array instead of writing into it.
            writes_param=has_master or not is_wide,
            # The next update converts a loaded state.
            converts=rule._unsettled,
            # A subclass may have states of its own.
            must_be_complete=getattr(rule.init_state, "__func__", None) is RMSpropGravesRule.init_state,
        )


def _refuse_hyperparameters(name: str, hyperparam: Any) -> None:
    try:
        as_floats(hyperparam)
    except (TypeError, ValueError) as error:
        if len(hyperparam.__dict__) == 1:  # it inherits all from the optimizer
            raise
        raise type(error)(f"parameter {name}: {error}") from error
    except AttributeError:
        pass  # the update itself says which one is missing


def refuse_misfits(
    name: str,
    param: Any,
    grad: Any,
    state: dict[str, Any] | None,
    *,
    is_wide: bool = False,
    writes_param: bool = True,
    converts: bool = False,
    must_be_complete: bool = False,
) -> None:
    """Raises an error that names the parameter if a step cannot use one of its arrays.

    Args:
        name: The name of the parameter.
        param: Its array, or its float32 master.
        grad: Its gradient.
        state: Its state. If None, the update makes one.
        is_wide: Whether the step updates a float32 master.
        writes_param: Whether the step writes ``param``.
        converts: Whether the update converts the state to the required dtype before the step.
        must_be_complete: Whether n, g and delta must be in the state.

    Raises:
        ValueError: An array has another shape, even one that could be broadcast; a parameter or state is read-only or
            has elements that share memory; or a state is missing.
        TypeError: The gradient is not an array of real numbers, the parameter or a state is not an array of real
            floating-point numbers, or a state has another dtype than the parameter.
    """
    floating = "real floating-point numbers"
    _refuse_misfit(name, "an array", param, param, "f", floating)
    _refuse_misfit(name, "a gradient", grad, param, "fiub", "real numbers")
    is_on_gpu = isinstance(param, cuda.ndarray)
    # A step on a CPU accepts mixed dtypes, a CuPy kernel only one.
    dtypes = [_SINGLE if is_wide else param.dtype]
    if not is_on_gpu and (is_wide or param.dtype == _HALF):
        # float32 updates may have been switched on or off after the states were made.
        dtypes = [dtype.newbyteorder(order) for dtype in (_HALF, _SINGLE) for order in ("=", param.dtype.byteorder)]
    if is_wide and writes_param:
        _refuse_dtype(name, "a master", param, [_SINGLE])
    if is_on_gpu and not is_wide:
        _refuse_dtype(name, "a gradient", grad, [param.dtype])
    if writes_param:
        _refuse_unwritable(name, "an array", param, param)
    if state is None:
        return
    for entry in _checkpoint.STATES:
        if entry in state:
            what, array = f"a state {entry}", state[entry]
            _refuse_misfit(name, what, array, param, "f", floating)
            if not converts:
                _refuse_dtype(name, what, array, dtypes)
            _refuse_unwritable(name, what, array, param)
        elif must_be_complete:
            raise ValueError(
                f"parameter {name}: found no state {entry}, expected an array of shape {param.shape}; "
                "the method init_state of its update rule makes all of them"
            )


def _match(param: Any, grad: Any, n: Any, g: Any, delta: Any) -> bool:
    """Whether five arrays have the same plain type, floating dtype and shape: a fast check of the usual case."""
    kind = type(param)
    if kind is not numpy.ndarray and kind is not cuda.ndarray:
        return False
    dtype, shape = param.dtype, param.shape
    return (
        kind is type(grad) is type(n) is type(g) is type(delta)
        and dtype.kind == "f"
        and dtype == grad.dtype == n.dtype == g.dtype == delta.dtype
        and shape == grad.shape == n.shape == g.shape == delta.shape
    )


def _refuse_dtype(name: str, what: str, array: Any, expected: list[Any]) -> None:
    if array.dtype not in expected:
        words = " or ".join(str(dtype) for dtype in expected)
        raise TypeError(f"parameter {name}: found {what} of dtype {array.dtype}, expected {words}")


def _refuse_misfit(name: str, what: str, array: Any, param: Any, kinds: str, numbers: str) -> None:
    is_masked = what != "a gradient" and isinstance(array, numpy.ma.MaskedArray)
    if is_masked or (type(array) is not type(param) and not isinstance(array, chainer.get_array_types())):
        raise TypeError(f"parameter {name}: found {what} of type {type(array).__name__}, expected an array")
    if array.shape != param.shape:
        raise ValueError(f"parameter {name}: found {what} of shape {array.shape}, expected {param.shape}")
    if array.dtype.kind not in kinds:
        raise TypeError(f"parameter {name}: found {what} of dtype {array.dtype}, expected {numbers}")


def _refuse_unwritable(name: str, what: str, array: Any, param: Any) -> None:
    # An update copies a state from another device first, and writes only the copy.
    if isinstance(array, numpy.ndarray if isinstance(param, numpy.ndarray) else cuda.ndarray):
        fault = fault_of(array)
        if fault:
            raise ValueError(f"parameter {name}: found {what} that {fault}, expected one that can be written in place")
