"""Loading: everything is read and checked before anything is written."""

from __future__ import annotations

import copy
from typing import Any, Callable

import chainer
import numpy
from chainer import backend

_STATES = ("n", "g", "delta")
# More keys than Chainer's class writes; it ignores them, and they may be absent.
MASTER = "fp32_param"
LOSS_SCALE, NAN_EVER = "loss_scale", "loss_scaling_isnan_ever"

Write = Callable[[], None]
_KEEP = object()


def read_optimizer(optimizer: Any, deserializer: Any, rule_class: type) -> Write:
    """Reads and checks what belongs to an optimizer, and returns what writes it.

    Args:
        optimizer: The optimizer.
        deserializer: Where its entries are read.
        rule_class: The rules that are read by :func:`read_rule`; those of other classes read themselves.
    """
    t, epoch = (_read_count(deserializer, name, name) for name in ("t", "epoch"))
    scaling = _read_loss_scaling(deserializer) if optimizer._loss_scaling_is_dynamic else {}
    writes: list[Write] = []
    others = []
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        if getattr(type(rule), "serialize", None) is rule_class.serialize:  # type: ignore[attr-defined]
            writes.append(read_rule(rule, _child(deserializer, path), path, param))
        elif rule is not None:
            others.append((rule, _child(deserializer, path), path, param))

    def write() -> None:
        # These may fail: they read as they write.
        _serialize_or_restore(others)
        for write_rule in writes:
            write_rule()
        if t is not None:
            optimizer.t = t
        if epoch is not None:
            optimizer.epoch = epoch
        for name, value in scaling.items():
            setattr(optimizer, name, value)

    return write


def read_rule(rule: Any, deserializer: Any, path: str = "", param: Any = None) -> Write:
    """Reads and checks what belongs to a rule, and returns what writes it.

    Args:
        rule: The rule.
        deserializer: Where its entries are read.
        path: What errors call its parameter.
        param: Its parameter; none if that is not known.
    """
    t = _read_count(deserializer, "t", f"{path}/t")
    names = _initial_state(rule) if rule.state is None else rule.state
    master = _read_master(deserializer, path, param)
    is_wide = rule._use_fp32_update or master is not None
    found = {name: _read_state(rule, deserializer, name, path, param, is_wide) for name in names}

    missing = [name for name, value in found.items() if value is None]
    is_initialized = param is None or param.array is not None
    if missing and not (len(missing) == len(found) and (t == 0 or not rule.enabled or not is_initialized)):
        raise KeyError(f"{path}/{missing[0]}: it is not in the checkpoint")
    shapes = {name: value.shape for name, value in found.items() if name in _STATES and hasattr(value, "shape")}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{path}: found {_in_words(shapes)}, expected one shape")

    def write() -> None:
        if t is not None:
            rule.t = t
        if not missing:
            # Without a state to keep something of, an incomplete one is left to be made by the next update.
            if rule.state or not any(value is _KEEP for value in found.values()):
                rule._state = _written(rule.state or {}, found)
                if param is None or not is_initialized:
                    rule._is_early = True
        elif rule.state and rule.enabled and is_initialized:
            # Saved before the first update.
            rule._state = _written(rule.state, {name: _zeros_like(value) for name, value in rule.state.items()})
        # Whichever it is waits until the parameter is there too, and is kept if it rounds to it.
        if rule._fp32_param is not None or master is not None:
            rule._master = master if master is not None else rule._fp32_param.array
            rule._fp32_param = None

    return write


def _read_count(deserializer: Any, key: str, path: str) -> int | None:
    value = _read(deserializer, key, path)
    if value is _KEEP:
        return None
    if value is None:
        raise KeyError(f"{path}: it is not in the checkpoint")
    array = numpy.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{path}: found {_what(array)}, expected an integer >= 0")
    return int(array)


def _read_loss_scaling(deserializer: Any) -> dict[str, Any]:
    """What dynamic loss scaling has come to, where it is in the checkpoint."""
    read = {}
    for key, kinds, expected in ((LOSS_SCALE, "iuf", "a finite number > 0"), (NAN_EVER, "b", "a truth value")):
        value = _read_optional(deserializer, key, key)
        if value is not None:
            array = numpy.asarray(value)
            is_sound = array.shape == () and array.dtype.kind in kinds
            if not is_sound or (key == LOSS_SCALE and not 0 < array < numpy.inf):
                raise ValueError(f"{key}: found {_what(array)}, expected {expected}")
            read[f"_{key}"] = array.item()
    return read


def _read_state(rule: Any, deserializer: Any, name: str, path: str, param: Any, is_wide: bool) -> Any:
    """The entry as an array of the device that it is for, converted and checked; none if it is missing."""
    old = (rule.state or {}).get(name)
    if old is not None and not isinstance(old, chainer.get_array_types()):
        return deserializer(name, old)
    path = f"{path}/{name}"
    value = _read(deserializer, name, path)
    if value is None or value is _KEEP:
        return value
    array = numpy.asarray(value)
    if name in _STATES:
        shape, dtype = _expected(param, old, is_wide)
        array = _real_floating(array, shape, dtype, path)
        # Finds a NaN without an array of bools.
        if array.size and numpy.isnan(array.min()):
            raise ValueError(f"{path}: found NaN, expected numbers")
    elif old is not None:
        array = _of_shape(array, old.shape, path).astype(old.dtype)
    device = param.device if old is None and param is not None else backend.get_device_from_array(old)
    return device.send(array)


def _read_master(deserializer: Any, path: str, param: Any) -> numpy.ndarray | None:
    value = _read_optional(deserializer, MASTER, f"{path}/{MASTER}")
    if value is None:
        return None
    shape = param.shape if param is not None and param.array is not None else None
    return _real_floating(numpy.asarray(value), shape, numpy.dtype(numpy.float32), f"{path}/{MASTER}")


def _read(deserializer: Any, key: str, path: str) -> Any:
    """The entry; none if it is missing or none; `_KEEP` if the deserializer would leave it as it is."""
    # The file has no such group: of Chainer's deserializer for hdf5.
    if getattr(deserializer, "group", deserializer) is None:
        return None if deserializer.strict else _KEEP
    try:
        value = deserializer(key, None)
        # What is not asked for strictly, or by name not at all, comes back as it was given.
        value = _KEEP if value is None and deserializer(key, _KEEP) is _KEEP else value
    except KeyError:
        return None
    except OSError:
        raise
    except Exception as error:  # a file may be broken in any way
        raise ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})") from error
    if value is not None and value is not _KEEP and not hasattr(value, "dtype"):
        raise ValueError(f"{path}: found {type(value).__name__}, expected an array")
    return value


def _child(deserializer: Any, path: str) -> Any:
    try:
        return deserializer[path]
    except Exception as error:
        raise ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})") from error


def _read_optional(deserializer: Any, key: str, path: str) -> Any:
    value = _read(deserializer, key, path)
    return None if value is _KEEP else value


def _expected(param: Any, old: Any, is_wide: bool) -> tuple[tuple[int, ...] | None, numpy.dtype | None]:
    """Shape and dtype of a state, as far as they are known; those of a float16 parameter may be those of a master."""
    # Of a parameter that is not initialized Chainer tells a dtype that it need not come to have.
    if param is None or param.array is None:
        return (None, None) if old is None else (old.shape, old.dtype)
    dtype = param.array.dtype
    return param.shape, numpy.dtype(numpy.float32) if is_wide and dtype == numpy.float16 else dtype


def _real_floating(array: numpy.ndarray, shape: Any, dtype: Any, path: str) -> numpy.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(f"{path}: found {_what(array)}, expected real floating numbers")
    _of_shape(array, shape, path)
    dtype = array.dtype.newbyteorder("=") if dtype is None else dtype
    with numpy.errstate(over="ignore", under="ignore"):
        converted = numpy.asarray(array, dtype, order="C")
    # n of a half may be infinite, and training goes on; the others may not have become so here.
    if dtype.itemsize < array.dtype.itemsize and not path.endswith("/n"):
        lost = numpy.isinf(converted) & numpy.isfinite(array)
        if lost.any():
            raise ValueError(f"{path}: found {array[lost].ravel()[0]}, expected what fits into {dtype}")
    return converted


def _of_shape(array: numpy.ndarray, shape: Any, path: str) -> numpy.ndarray:
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(f"{path}: found shape {array.shape}, expected {tuple(shape)}")
    return array


def _written(state: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The state with what was found: in the arrays that are there where they can hold it, for others may see them."""
    for name, value in found.items():
        old = state.get(name)
        if value is _KEEP:
            continue
        if (
            isinstance(old, chainer.get_array_types())
            and (old.shape, old.dtype) == (value.shape, value.dtype)
            and not (isinstance(old, numpy.ndarray) and not old.flags.writeable)
        ):
            with backend.get_device_from_array(old).create_context():
                old[...] = value
        else:
            state[name] = value
    return state


def _zeros_like(value: Any) -> Any:
    """Of an array; anything else is kept."""
    is_array = isinstance(value, chainer.get_array_types())
    return backend.get_array_module(value).zeros_like(value) if is_array else _KEEP


def _initial_state(rule: Any) -> dict[str, Any]:
    """The names of the entries, as Chainer finds them: it lets a copy of the rule make some."""
    twin = copy.copy(rule)
    twin._state = {}
    array = numpy.empty(1, numpy.float32)
    twin.init_state(chainer.Variable(array, grad=array))
    return dict.fromkeys(twin._state)


def _serialize_or_restore(rules: list[tuple[Any, Any, str, Any]]) -> None:
    """Loads rules of other classes; an error leaves all of them as they were."""
    before = [(rule, dict(rule.__dict__), _copied(rule.state)) for rule, *_ in rules]
    try:
        for rule, deserializer, path, param in rules:
            # For a subclass of this package's rule, which reads by it in the end.
            rule._loaded_for = path, param
            rule.serialize(deserializer)
            rule.__dict__.pop("_loaded_for", None)
    except BaseException:
        for rule, attributes, state in before:
            rule.__dict__.clear()
            rule.__dict__.update(attributes)
            for name, (value, copied) in state.items():
                if copied is not None:
                    value[...] = copied
                rule.state[name] = value
        raise


def _copied(state: dict[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    arrays = chainer.get_array_types()
    return {
        name: (value, value.copy() if isinstance(value, arrays) else None) for name, value in (state or {}).items()
    }


def _what(array: numpy.ndarray) -> str:
    return f"{array.item()!r}" if array.shape == () else f"an array of shape {array.shape} and dtype {array.dtype}"


def _in_words(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
