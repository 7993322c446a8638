"""Loading: everything is read and checked before anything is written."""

from __future__ import annotations

import copy
from typing import Any, Callable

import chainer
import numpy
from chainer import backend

STATES = ("n", "g", "delta")
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
    counts = {name: _read_count(deserializer, name, name) for name in ("t", "epoch")}
    for name, count in counts.items():
        if count is None:
            raise KeyError(f"{name}: it is not in the checkpoint")
    scaling = _read_loss_scaling(deserializer) if optimizer._loss_scaling_is_dynamic else {}
    writes: list[Write] = []
    others = []
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        serialize = getattr(rule, "serialize", None)
        if getattr(serialize, "__func__", None) is rule_class.serialize:  # type: ignore[attr-defined]
            writes.append(read_rule(rule, _child(deserializer, path), path, param))
        elif rule is not None:
            others.append((rule, _child(deserializer, path), path, param))

    def write() -> None:
        # These may fail: they read as they write.
        _serialize_or_restore(others)
        for write_rule in writes:
            write_rule()
        for name, value in {**counts, **scaling}.items():
            if value is not _KEEP:
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
    is_initialized = param is None or param.array is not None
    is_stepped = rule.enabled and is_initialized
    t = _read_count(deserializer, "t", f"{path}/t")
    names = _initial_state(rule) if rule.state is None else rule.state
    found = {name: _read_state(rule, deserializer, name, path, param) for name in names}
    master = _read_master(deserializer, path, param)

    missing = [name for name, value in found.items() if value is None]
    if t is None:
        if is_stepped or len(missing) < len(found):
            raise KeyError(f"{path}/t: it is not in the checkpoint")
        return lambda: None
    if missing and not (len(missing) == len(found) and (t == 0 or not is_stepped)):
        raise KeyError(f"{path}/{missing[0]}: it is not in the checkpoint")
    shapes = {name: value.shape for name, value in found.items() if name in STATES and hasattr(value, "shape")}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{path}: found {_in_words(shapes)}, expected one shape")

    def write() -> None:
        if t is not _KEEP:
            rule.t = t
        if not missing:
            # Without a state to keep something of, an incomplete one is left to be made by the next update.
            if rule.state or not any(value is _KEEP for value in found.values()):
                rule._state = _written(rule.state or {}, found)
        elif rule.state and is_stepped:
            # Saved before the first update.
            rule._state = _zeros_like(rule.state, param)
        if not _is_settled(rule.state or {}, param):
            rule._is_loaded = True
        if master is _KEEP:
            # It is kept if it rounds to the parameter, which may be loaded or not.
            if rule._fp32_param is not None:
                rule._master = rule._fp32_param.array
        else:
            rule.__dict__.pop("_master", None)
            if master is not None:
                rule._master = master
        rule._fp32_param = None

    return write


def _is_settled(state: dict[str, Any], param: Any) -> bool:
    """Whether the entries are in the dtype that they are to be held in; for a half the next update knows which."""
    if param is None or param.array is None or param.dtype == numpy.float16:
        return not state
    return all(state[name].dtype == param.dtype for name in STATES if name in state)


def _read_count(deserializer: Any, key: str, path: str) -> Any:
    """The number; none if it is missing; `_KEEP` if it is to stay as it is."""
    value = _read(deserializer, key, path)
    if value is None or value is _KEEP:
        return value
    array = numpy.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        raise ValueError(f"{path}: found {_what(array)}, expected an integer >= 0")
    return int(array)


def _read_loss_scaling(deserializer: Any) -> dict[str, Any]:
    """What dynamic loss scaling has come to, where it is in the checkpoint."""
    read = {}
    for key, kinds, expected in ((LOSS_SCALE, "iuf", "a finite number > 0"), (NAN_EVER, "b", "a truth value")):
        value = _read(deserializer, key, key)
        if value is not None and value is not _KEEP:
            array = numpy.asarray(value)
            is_sound = array.shape == () and array.dtype.kind in kinds
            if not is_sound or (key == LOSS_SCALE and not 0 < array < numpy.inf):
                raise ValueError(f"{key}: found {_what(array)}, expected {expected}")
            read[f"_{key}"] = array.item()
    return read


def _read_state(rule: Any, deserializer: Any, name: str, path: str, param: Any) -> Any:
    """The entry as an array of the device that it is for, converted and checked; none if it is missing."""
    old = (rule.state or {}).get(name)
    if old is not None and not isinstance(old, chainer.get_array_types()):
        return deserializer(name, old)
    path = f"{path}/{name}"
    value = _read(deserializer, name, path)
    if value is None or value is _KEEP:
        return value
    array = numpy.asarray(value)
    if name in STATES:
        shape, dtype = _expected(param, old)
        array = _sound_state(_real_floating(array, shape, path), name, dtype, rule._use_fp32_update, path)
    elif old is not None:
        array = _of_shape(array, old.shape, path).astype(old.dtype)
    if old is None and numpy.may_share_memory(array, value):
        # The entries of a dictionary are somebody's.
        array = array.copy()
    device = param.device if old is None and param is not None else backend.get_device_from_array(old)
    return device.send(array)


def _sound_state(array: numpy.ndarray, name: str, dtype: Any, is_wide: bool, path: str) -> numpy.ndarray:
    """In native byte order and C order, and in the dtype; in float32 that of a half which may get a master."""
    dtype = array.dtype.newbyteorder("=") if dtype is None else dtype
    is_half = dtype == numpy.float16
    # Scalars: no array of bools is made of a large state.
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if numpy.isnan(low):
        raise ValueError(f"{path}: found NaN, expected numbers")
    if low == -numpy.inf or (high == numpy.inf and name != "n"):
        raise ValueError(f"{path}: found {low if low == -numpy.inf else high}, expected finite numbers")
    with numpy.errstate(over="ignore", under="ignore"):
        # n of a half may be infinite, and training goes on.
        for extreme in (low, high):
            if numpy.isinf(dtype.type(extreme)) and not numpy.isinf(extreme) and not (name == "n" and is_half):
                raise ValueError(f"{path}: found {extreme}, expected what fits into {dtype}")
        # Which of the two it is to be, the update after loading knows.
        is_wide = is_half and (is_wide or array.dtype.itemsize > dtype.itemsize)
        return numpy.asarray(array, numpy.float32 if is_wide else dtype, order="C")


def _read_master(deserializer: Any, path: str, param: Any) -> Any:
    """As float32; none if it is missing."""
    path = f"{path}/{MASTER}"
    value = _read(deserializer, MASTER, path)
    if value is None or value is _KEEP:
        return value
    shape = param.shape if param is not None and param.array is not None else None
    return _real_floating(numpy.asarray(value), shape, path).astype(numpy.float32)


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
    except Exception as error:  # a file may be broken in any way
        # An error of the system has a number; h5py has OSErrors without one for what is broken.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})") from error
    if (
        value is not None
        and value is not _KEEP
        and not hasattr(value, "dtype")
        and not isinstance(value, (int, float))
    ):
        raise ValueError(f"{path}: found {type(value).__name__}, expected an array")
    return value


def _child(deserializer: Any, path: str) -> Any:
    try:
        return deserializer[path]
    except Exception as error:
        raise ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})") from error


def _expected(param: Any, old: Any) -> tuple[tuple[int, ...] | None, numpy.dtype | None]:
    """Shape and dtype of a state, as far as they are known."""
    # Of a parameter that is not initialized Chainer tells a dtype that it need not come to have.
    if param is None or param.array is None:
        return (None, None) if old is None else (old.shape, old.dtype)
    return param.shape, param.array.dtype


def _real_floating(array: numpy.ndarray, shape: Any, path: str) -> numpy.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(f"{path}: found {_what(array)}, expected real floating numbers")
    return _of_shape(array, shape, path)


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


def _zeros_like(state: dict[str, Any], param: Any) -> dict[str, Any] | None:
    """Zeros where there are arrays; none, for the next update to make, if they are not of the parameter's shape."""
    arrays = {name: value for name, value in state.items() if isinstance(value, chainer.get_array_types())}
    if param is not None and any(arrays[name].shape != param.shape for name in STATES if name in arrays):
        return None
    return _written(state, {name: backend.get_array_module(value).zeros_like(value) for name, value in arrays.items()})


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
