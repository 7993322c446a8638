"""Saving and loading of an optimizer and its rules.

Loading is all or nothing: first everything is read, checked, converted and allocated, and only then written.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import chainer
import numpy
from chainer import backend

from rmsprop_graves._entries import Entries, not_there

STATES = ("n", "g", "delta")
T, EPOCH = "t", "epoch"
# Chainer's class neither saves nor loads these three, so they may be missing.
MASTER, LOSS_SCALE, NAN_EVER = "fp32_param", "loss_scale", "loss_scaling_isnan_ever"
_COUNT = ("iu", -1, "an integer >= 0")


def save_optimizer(optimizer: Any, serializer: Any) -> None:
    """Saves the counts, the dynamic loss scale and every rule."""
    serializer(T, optimizer.t)
    serializer(EPOCH, optimizer.epoch)
    if optimizer._loss_scaling_is_dynamic:
        serializer(LOSS_SCALE, float(optimizer._loss_scale))
        serializer(NAN_EVER, optimizer._loss_scaling_isnan_ever)
    for path, param in optimizer.target.namedparams():
        if param.update_rule is not None:
            param.update_rule.serialize(serializer[path])


def save_rule(rule: Any, serializer: Any) -> None:
    """Saves the count, the state and the float32 master."""
    serializer(T, rule.t)
    for name, value in (rule.state or {}).items():
        serializer(name, value)
    if rule._fp32_param is not None and rule._fp32_param.array is not None:
        serializer(MASTER, rule._fp32_param.array)


def load_optimizer(optimizer: Any, deserializer: Any, rule_class: type) -> None:
    """Loads an optimizer.

    Args:
        optimizer: The optimizer.
        deserializer: Reads the optimizer's entries.
        rule_class: The class whose rules `read_rule` reads. Other rules load themselves.
    """
    entries = Entries(deserializer)
    attributes = {key: entries.read_scalar(key, *_COUNT) for key in (T, EPOCH)}
    if entries.missing:
        raise not_there(f"{entries.prefix}{entries.missing[0]}")
    if optimizer._loss_scaling_is_dynamic:
        attributes[f"_{LOSS_SCALE}"] = entries.read_scalar(LOSS_SCALE, "iuf", 0, "a finite number > 0")
        attributes[f"_{NAN_EVER}"] = entries.read_scalar(NAN_EVER, "b", -1, "a truth value")
    loaded, others = [], []
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        if rule is None:
            continue
        of_rule = entries.of_rule(path, param)
        if getattr(rule.serialize, "__func__", None) is rule_class.serialize:  # type: ignore[attr-defined]
            loaded.append(read_rule(rule, of_rule))
        else:
            others.append((rule, of_rule if isinstance(rule, rule_class) else of_rule.source))
    _serialize_or_restore(others)
    for one in loaded:
        one.write()
    for name, value in attributes.items():
        if value is not None:
            setattr(optimizer, name, value)


class LoadedRule(NamedTuple):
    """The new values of a rule, checked and ready to be written.

    Args:
        rule: The rule.
        t: Its count of updates.
        state: The new entries of its state. None: the state stays. Empty: the next update makes a new state.
        master: Its float32 master, or None.
    """

    rule: Any
    t: int
    state: dict[str, Any] | None
    master: Any

    def write(self) -> None:
        """Changes the rule. Present arrays are written in place if they fit, as others may hold them."""
        state = self.rule.state or {}
        for name, value in (self.state or {}).items():
            if _can_hold(state.get(name), value):
                with backend.get_device_from_array(value).create_context():
                    state[name][...] = value
            else:
                state[name] = value
        if self.state is not None:
            self.rule._state = state if self.state else None
        self.rule.t, self.rule._fp32_param, self.rule._unsettled = self.t, self.master, True


def settle(rule: Any, param: Any) -> None:
    """Fits a loaded rule to its parameter, which may have been loaded or initialized after the rule."""
    del rule._unsettled
    is_wide = rule._use_fp32_update and param.dtype == numpy.float16
    master = rule._fp32_param
    with chainer.using_device(param.device), numpy.errstate(over="ignore", under="ignore"):
        for name in STATES:
            if name in (rule.state or {}):
                rule.state[name] = rule.state[name].astype(numpy.float32 if is_wide else param.dtype, copy=False)
        if master is not None and master.array is not None:
            master.name = param.name
            master.to_device(param.device)
            # A parameter that the master does not round to was set elsewhere, and counts.
            if not is_wide or master.shape != param.shape or not _rounds_to(master.array, param.array):
                rule._fp32_param = None


def _rounds_to(master: Any, array: Any) -> bool:
    rounded = master.astype(array.dtype)
    return bool(((rounded == array) | ((rounded != rounded) & (array != array))).all())


def read_rule(rule: Any, deserializer: Any) -> LoadedRule:
    """Reads and checks the entries of a rule, whose parameter is known if the deserializer is an `Entries`."""
    entries = deserializer if isinstance(deserializer, Entries) else Entries(deserializer, "/")
    names = list(_initial_state(rule) if rule.state is None else rule.state)
    t = entries.read_scalar(T, *_COUNT)
    if not rule.state and (entries.param is None or entries.param.array is None):
        entries.refuse_different_shapes([*STATES, MASTER])
    read = {name: _read_state(rule, entries, name) for name in names}
    found = {name: value for name, value in read.items() if value is not None}
    master = _read_master(rule, entries)

    is_stepped = rule.enabled and (entries.param is None or entries.param.array is not None)
    missing = [key for key in (T, *names) if key in entries.missing]
    # A rule had no state to save before its first update. A rule that makes no step needs none.
    optional = [names] if t == 0 else []
    if not is_stepped:
        optional = [names, [T, *names]]
    if missing and missing not in optional:
        raise not_there(f"{entries.prefix}{missing[0]}")
    _refuse_different_shapes(found, entries)

    state: dict[str, Any] | None = None
    if T in missing:
        master = rule._fp32_param
    elif missing and is_stepped and rule.state:
        state = _zeros_like(rule.state, entries.param)
    elif found and (rule.state or len(found) == len(names)):
        state = found
    return LoadedRule(rule, rule.t if t is None else t, state, master)


def _read_state(rule: Any, entries: Entries, name: str) -> Any:
    """Reads an entry of the state, converts it and sends it to its device; None as in `Entries.read`."""
    old, param, is_ours = (rule.state or {}).get(name), entries.param, name in STATES
    if old is not None and not isinstance(old, chainer.get_array_types()):
        return entries(name, old)
    # The dtype of an uninitialized parameter can change when it is initialized.
    like = param if is_ours and param is not None and param.array is not None else old
    entry = entries.read_array(name, like, is_floating=is_ours)
    if entry is None:
        return None
    dtype = entry.dtype.newbyteorder("=") if like is None else like.dtype
    with numpy.errstate(over="ignore", under="ignore"):
        if is_ours:
            entries.refuse_unsound(name, entry, dtype)
            # A float16 parameter may get a master after loading, so the next update narrows its state.
            if dtype == numpy.float16 and (rule._use_fp32_update or entry.dtype.itemsize > 2):
                dtype = numpy.float32
        array = numpy.asarray(entry, dtype, order="C")
    if numpy.may_share_memory(array, entry) and not _can_hold(old, array):
        array = array.copy()  # the entries of a dictionary belong to its owner
    device = param.device if old is None and param is not None else backend.get_device_from_array(old)
    return device.send(array)


def _read_master(rule: Any, entries: Entries) -> Any:
    """Returns the master that the rule will have; the present one if that stays, None if it is missing."""
    param = entries.param
    array = entries.read_array(MASTER, None if param is None or param.array is None else param)
    if array is None:
        return None if MASTER in entries.missing else rule._fp32_param
    array = array.astype(numpy.float32, order="C")
    return new_master(array, None) if param is None else new_master(param.device.send(array), param.name)


def new_master(initializer: Any, name: str | None) -> Any:
    """Makes a float32 master of an array or an initializer."""
    master = chainer.Parameter(initializer, name=name)
    master.cleargrad()
    return master


def _refuse_different_shapes(state: dict[str, Any], entries: Entries) -> None:
    shapes = {name: state[name].shape for name in STATES if name in state}
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{entries.prefix[:-1]}: found {words}, expected one shape")


def _initial_state(rule: Any) -> dict[str, Any]:
    """Makes a state to find the names of its entries; like Chainer, with a copy of the rule."""
    twin = copy.copy(rule)
    twin._state = {}
    array = numpy.empty(1, numpy.float32)
    twin.init_state(chainer.Variable(array, grad=array))
    return twin._state  # type: ignore[no-any-return]


def _zeros_like(state: dict[str, Any], param: Any) -> dict[str, Any]:
    """Makes zeros for the arrays of a state; nothing if the parameter has been resized."""
    arrays = {name: value for name, value in state.items() if isinstance(value, chainer.get_array_types())}
    if param is not None and any(arrays[name].shape != param.shape for name in STATES if name in arrays):
        return {}
    return {name: backend.get_array_module(array).zeros_like(array) for name, array in arrays.items()}


def _can_hold(old: Any, value: Any) -> bool:
    return (
        isinstance(old, chainer.get_array_types())
        and (old.shape, old.dtype) == (value.shape, value.dtype)
        and not (isinstance(old, numpy.ndarray) and not old.flags.writeable)
    )


def _serialize_or_restore(rules: list[tuple[Any, Any]]) -> None:
    """Has rules load themselves. They write while they read, so an error restores all of them."""
    before = []
    for rule, _ in rules:
        state = dict(rule.state or {})
        copies = [(one, one.copy()) for one in state.values() if isinstance(one, chainer.get_array_types())]
        hyperparam = dict(rule.hyperparam.__dict__)
        before.append((rule, dict(rule.__dict__), hyperparam, state, copies))
    try:
        for rule, deserializer in rules:
            rule.serialize(deserializer)
    except BaseException:
        for rule, attributes, hyperparam, state, copies in before:
            _restore(rule.__dict__, attributes)
            _restore(rule.hyperparam.__dict__, hyperparam)
            if rule.state is not None:
                _restore(rule.state, state)
            for array, content in copies:
                array[...] = content
        raise


def _restore(present: dict[str, Any], past: dict[str, Any]) -> None:
    present.clear()
    present.update(past)
