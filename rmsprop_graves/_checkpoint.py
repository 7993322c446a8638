"""What a checkpoint holds of an optimizer: saving it, and loading it all or nothing.

Loading first reads and checks every entry and makes every array. Only then does it write, and writing cannot fail.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import chainer
import numpy
from chainer import backend

STATES = ("n", "g", "delta")
_COUNTS = ("t", "epoch")
# Chainer's class neither writes nor reads these. They may be absent.
_MASTER = "fp32_param"
_LOSS_SCALING = {
    "loss_scale": ("iuf", "a finite number > 0"),
    "loss_scaling_isnan_ever": ("b", "a truth value"),
}


def save_rule(rule: Any, serializer: Any) -> None:
    """Saves t, the state, and the float32 master of a float16 parameter."""
    serializer("t", rule.t)
    for name, value in (rule.state or {}).items():
        serializer(name, value)
    if rule._fp32_param is not None:
        serializer(_MASTER, rule._fp32_param.array)


def load_rule(rule: Any, deserializer: Any, path: str, param: Any) -> None:
    """Loads what `save_rule` or Chainer's class has saved.

    Args:
        rule: The rule.
        deserializer: Reads the rule's entries.
        path: Name of the parameter in errors.
        param: The parameter; None if it is not known.

    Raises:
        KeyError: An entry is missing.
        ValueError: An entry is invalid, for example of the wrong shape.
    """
    _read_rule(rule, deserializer, path, param).write()


def save_loss_scaling(optimizer: Any, serializer: Any) -> None:
    """Saves how far dynamic loss scaling has come."""
    if optimizer._loss_scaling_is_dynamic:
        serializer("loss_scale", float(optimizer._loss_scale))
        serializer("loss_scaling_isnan_ever", optimizer._loss_scaling_isnan_ever)


def load_optimizer(optimizer: Any, deserializer: Any, rule_class: type) -> None:
    """Loads the counts, dynamic loss scaling, and every rule.

    Args:
        optimizer: An optimizer that is set up.
        deserializer: Reads the optimizer's entries.
        rule_class: Rules with the ``serialize`` of this class are read and checked first. Others, whose ``serialize``
            reads and writes at once, are restored if one of them fails.

    Raises:
        KeyError: An entry is missing.
        ValueError: An entry is invalid.
    """
    values = {}
    for name in _COUNTS:
        values[name] = _read_count(deserializer, name, name, getattr(optimizer, name))
    if optimizer._loss_scaling_is_dynamic:
        values.update(_read_loss_scaling(deserializer))
    loaded, others = [], []
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        serialize = getattr(rule, "serialize", None)
        if getattr(serialize, "__func__", None) is rule_class.serialize:  # type: ignore[attr-defined]
            loaded.append(_read_rule(rule, _child(deserializer, path), path, param))
        elif rule is not None:
            others.append((rule, _child(deserializer, path), path, param))
    _serialize_or_restore(others)
    for one in loaded:
        one.write()
    for name, value in values.items():
        setattr(optimizer, name, value)


def settle(rule: Any, param: Any) -> None:
    """Fits a loaded rule to its parameter, which may have been initialized, loaded or set to float32 updates since."""
    del rule._unsettled
    is_wide = rule._use_fp32_update and param.dtype == numpy.float16
    dtype = numpy.dtype(numpy.float32) if is_wide else param.dtype
    with numpy.errstate(over="ignore", under="ignore"):
        for name in STATES:
            if name in (rule.state or {}):
                rule.state[name] = rule.state[name].astype(dtype, copy=False)
    master = rule._fp32_param
    if master is not None and master.array is not None:
        master.to_device(param.device)
        # A parameter that the master does not round to has been set elsewhere since, and counts.
        if not is_wide or master.shape != param.shape or not _rounds_to(master.array, param.array):
            rule._fp32_param = None


def _rounds_to(master: Any, array: Any) -> bool:
    with chainer.using_device(backend.get_device_from_array(array)):
        rounded = master.astype(array.dtype)
        return bool(((rounded == array) | ((rounded != rounded) & (array != array))).all())


class _LoadedRule(NamedTuple):
    """What a rule becomes by loading.

    Attributes:
        rule: The rule.
        t: Its count of updates.
        state: Its state; None if the next update makes it.
        master: Its float32 master; None if the next update makes it where it is needed.
    """

    rule: Any
    t: int
    state: dict[str, Any] | None
    master: Any

    def write(self) -> None:
        """Writes all of it, the state into its present arrays if it fits, because others may share them."""
        rule = self.rule
        rule.t = self.t
        if self.state is None:
            rule._state = None
        else:
            state: dict[str, Any] = {} if rule.state is None else rule.state
            rule._state = state
            for name, value in self.state.items():
                old: Any = state.get(name)
                if value is not old and _takes(old, value):
                    with backend.get_device_from_array(old).create_context():
                        old[...] = value
                else:
                    state[name] = value
        rule._fp32_param = self.master
        rule._unsettled = True


def _read_rule(rule: Any, deserializer: Any, path: str, param: Any) -> _LoadedRule:
    is_stepped = rule.enabled and (param is None or param.array is not None)
    state: dict[str, Any] = {}
    missing = []
    for name in _initial_state(rule) if rule.state is None else rule.state:
        try:
            state[name] = _read_state(rule, deserializer, name, path, param)
        except KeyError:
            missing.append(name)
    try:
        t = _read_count(deserializer, "t", f"{path}/t", rule.t)
    except KeyError:
        # All entries of a frozen or uninitialized parameter may be missing.
        if is_stepped or state:
            raise
        return _LoadedRule(rule, rule.t, rule.state, rule._fp32_param)
    master = _read_master(rule, deserializer, path, param)
    if missing and (state or (t > 0 and is_stepped)):
        raise _missing(f"{path}/{missing[0]}")
    shapes = {name: state[name].shape for name in STATES if hasattr(state.get(name), "shape")}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{path}: found {found}, expected one shape")
    if missing:
        # It was saved before the first update.
        return _LoadedRule(rule, t, _zeros_like(rule.state, param) if is_stepped else rule.state, master)
    # An entry that stays as it is, of a state that is not there, leaves the state to the next update.
    is_whole = all(value is not None for value in state.values())
    return _LoadedRule(rule, t, state if is_whole else None, master)


def _initial_state(rule: Any) -> dict[str, Any]:
    """The state that the rule begins with, of which only the names count."""
    twin = copy.copy(rule)
    twin._state = {}
    array = numpy.empty(1, numpy.float32)
    twin.init_state(chainer.Variable(array, grad=array))
    return twin._state  # type: ignore[no-any-return]


def _zeros_like(state: dict[str, Any] | None, param: Any) -> dict[str, Any] | None:
    """A state of zeros; None, for the next update to make it, without a state of the parameter's shape."""
    arrays = {name: one for name, one in (state or {}).items() if isinstance(one, chainer.get_array_types())}
    if not arrays or (
        param is not None and any(arrays[name].shape != param.shape for name in STATES if name in arrays)
    ):
        return None
    return {**(state or {}), **{name: backend.get_array_module(one).zeros_like(one) for name, one in arrays.items()}}


def _read_count(deserializer: Any, key: str, path: str, old: int) -> int:
    value = _read(deserializer, key, path)
    if value is None:
        return old
    array = numpy.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{path}: found {_what(array)}, expected an integer >= 0")
    return int(array)


def _read_loss_scaling(deserializer: Any) -> dict[str, Any]:
    values = {}
    for key, (kinds, expected) in _LOSS_SCALING.items():
        try:
            value = _read(deserializer, key, key)
        except KeyError:
            continue
        if value is not None:
            array = numpy.asarray(value)
            if array.shape != () or array.dtype.kind not in kinds or (kinds != "b" and not 0 < array < numpy.inf):
                raise ValueError(f"{key}: found {_what(array)}, expected {expected}")
            values[f"_{key}"] = array.item()
    return values


def _read_state(rule: Any, deserializer: Any, name: str, path: str, param: Any) -> Any:
    """The entry, checked and converted, as an array of the right device; the old one if it is to stay."""
    old = (rule.state or {}).get(name)
    if old is not None and not isinstance(old, chainer.get_array_types()):
        return deserializer(name, old)
    path = f"{path}/{name}"
    value = _read(deserializer, name, path)
    if value is None:
        return old
    array = numpy.asarray(value)
    if name in STATES:
        # The dtype of an uninitialized parameter can change when it is initialized.
        like = old if param is None or param.array is None else param.array
        array = _real_floating(array, None if like is None else like.shape, path)
        array = _sound_state(array, name, None if like is None else like.dtype, rule._use_fp32_update, path)
    elif old is not None:
        array = _of_shape(array, old.shape, path).astype(old.dtype)
    device = param.device if old is None and param is not None else backend.get_device_from_array(old)
    array = device.send(array)
    # An entry that is kept may be the array of someone else, such as of a DictionarySerializer.
    is_shared = isinstance(array, numpy.ndarray) and numpy.may_share_memory(array, value)
    return array.copy() if is_shared and not _takes(old, array) else array


def _sound_state(array: numpy.ndarray, name: str, dtype: Any, is_wide: bool, path: str) -> numpy.ndarray:
    """The state in native byte order, C order and its dtype; in float32 if a float16 parameter may get a master."""
    dtype = array.dtype.newbyteorder("=") if dtype is None else dtype
    is_half = dtype == numpy.float16
    # The extremes alone tell: no temporary array of bools is needed for a large state.
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if numpy.isnan(low):
        raise ValueError(f"{path}: found NaN, expected numbers")
    if low == -numpy.inf or (high == numpy.inf and name != "n"):
        raise ValueError(f"{path}: found {low if low == -numpy.inf else high}, expected finite numbers")
    with numpy.errstate(over="ignore", under="ignore"):
        # An infinite n is valid: in float16 it overflows early, and training goes on.
        for extreme in (low, high):
            if numpy.isinf(dtype.type(extreme)) and not numpy.isinf(extreme) and not (name == "n" and is_half):
                raise ValueError(f"{path}: found {extreme}, expected what fits into {dtype}")
        # The next update decides between float16 and float32.
        is_wide = is_half and (is_wide or array.dtype.itemsize > dtype.itemsize)
        return numpy.asarray(array, numpy.float32 if is_wide else dtype, order="C")


def _read_master(rule: Any, deserializer: Any, path: str, param: Any) -> Any:
    try:
        value = _read(deserializer, _MASTER, f"{path}/{_MASTER}")
    except KeyError:
        return None
    if value is None:
        return rule._fp32_param
    shape = param.shape if param is not None and param.array is not None else None
    array = _real_floating(numpy.asarray(value), shape, f"{path}/{_MASTER}").astype(numpy.float32)
    return chainer.Parameter(array, name=getattr(param, "name", None))


def _read(deserializer: Any, key: str, path: str) -> Any:
    """The entry, or None if the deserializer leaves the old value: not strict, or told to ignore this name.

    Raises:
        KeyError: The entry is missing.
        ValueError: The entry cannot be read, or is not an array.
    """
    if getattr(deserializer, "group", deserializer) is None:
        # Chainer's deserializer for hdf5 has no group if the file has none of that name.
        if deserializer.strict:
            raise _missing(path)
        return None
    kept = object()
    try:
        value = deserializer(key, None)
        if value is None and deserializer(key, kept) is not kept:
            raise _missing(path)
    except KeyError:
        raise _missing(path) from None
    except Exception as error:  # a file may be broken in any way
        # An error of the system has a number; h5py has OSErrors without one for a broken file.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})") from error
    if value is not None and not hasattr(value, "dtype") and not isinstance(value, (int, float)):
        raise ValueError(f"{path}: found {type(value).__name__}, expected an array")
    return value


def _child(deserializer: Any, path: str) -> Any:
    try:
        return deserializer[path]
    except Exception as error:
        raise ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})") from error


def _missing(path: str) -> KeyError:
    return KeyError(f"{path}: it is not in the checkpoint")


def _real_floating(array: numpy.ndarray, shape: Any, path: str) -> numpy.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(f"{path}: found {_what(array)}, expected real floating numbers")
    return array if shape is None else _of_shape(array, shape, path)


def _of_shape(array: numpy.ndarray, shape: Any, path: str) -> numpy.ndarray:
    if array.shape != tuple(shape):
        raise ValueError(f"{path}: found shape {array.shape}, expected {tuple(shape)}")
    return array


def _takes(old: Any, value: Any) -> bool:
    """Whether the value can be written into the old array."""
    return (
        isinstance(old, chainer.get_array_types())
        and (old.shape, old.dtype) == (value.shape, value.dtype)
        and not (isinstance(old, numpy.ndarray) and not old.flags.writeable)
    )


def _what(array: numpy.ndarray) -> str:
    return f"{array.item()!r}" if array.shape == () else f"an array of shape {array.shape} and dtype {array.dtype}"


def _serialize_or_restore(rules: list[tuple[Any, Any, str, Any]]) -> None:
    """Loads rules by their own ``serialize``; an error leaves all of them as they were."""
    before = [(rule, dict(rule.__dict__), dict(rule.state or {}), _copies(rule.state)) for rule, *_ in rules]
    try:
        for rule, deserializer, path, param in rules:
            # A subclass of this package's rule calls its `serialize`, which cannot know these.
            rule._loaded_for = path, param
            rule.serialize(deserializer)
            del rule._loaded_for
    except BaseException:
        for rule, attributes, state, copies in before:
            rule.__dict__.clear()
            rule.__dict__.update(attributes)
            for name, copied in copies.items():
                state[name][...] = copied
            if rule.state is not None:
                rule.state.update(state)
        raise


def _copies(state: dict[str, Any] | None) -> dict[str, Any]:
    return {name: one.copy() for name, one in (state or {}).items() if isinstance(one, chainer.get_array_types())}
