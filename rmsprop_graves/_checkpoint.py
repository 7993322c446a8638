"""Saving and loading an optimizer and its rules.

Loading is all or nothing: first everything is read, checked, converted and allocated. Then `_assign.Changes` writes it
in one call that nothing can interrupt.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import chainer
import numpy
from chainer import backend

from rmsprop_graves._assign import Changes, can_hold
from rmsprop_graves._chainer7.files import keys_of, some
from rmsprop_graves._entries import Entries, not_there

STATES = ("n", "g", "delta")
T, EPOCH = "t", "epoch"
# Chainer's class neither saves nor loads these three, so they may be missing.
MASTER, LOSS_SCALE, NAN_EVER = "fp32_param", "loss_scale", "loss_scaling_isnan_ever"
# The next update adds one, and a file holds counts as int64.
_LARGEST_COUNT = 2**63 - 2


def save_optimizer(optimizer: Any, serializer: Any) -> None:
    """Saves the counts, the dynamic loss scale and every rule."""
    serializer(T, optimizer.t)
    serializer(EPOCH, optimizer.epoch)
    if optimizer._loss_scaling_is_dynamic:
        # A scale that was set by hand may be outside these limits. The next update applies them too.
        serializer(LOSS_SCALE, float(max(1, min(optimizer._loss_scale_max, optimizer._loss_scale))))
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
    changes = Changes()
    others = []
    try:
        attributes: dict[str, Any] = {key: _read_count(entries, key) for key in (T, EPOCH)}
        if entries.missing:
            raise not_there(f"{entries.prefix}{entries.missing[0]}")
        if optimizer._loss_scaling_is_dynamic:
            attributes[f"_{LOSS_SCALE}"] = _read_loss_scale(entries, optimizer._loss_scale_max)
            attributes[f"_{NAN_EVER}"] = entries.read_scalar(NAN_EVER, "b", -1, "a truth value")
        rules = [
            (param.update_rule, entries.of_rule(path, param))
            for path, param in optimizer.target.namedparams()
            if param.update_rule is not None
        ]
        if _have_no_count(entries, [of_rule for _, of_rule in rules]):
            for _, of_rule in rules:
                of_rule.default_t = optimizer.t if attributes[T] is None else attributes[T]
        for rule, of_rule in rules:
            if getattr(rule.serialize, "__func__", None) is rule_class.serialize:  # type: ignore[attr-defined]
                read_rule(rule, of_rule).add_to(changes)
            else:
                others.append((rule, of_rule if isinstance(rule, rule_class) else of_rule.source))
    except KeyError as error:
        hint = describe_other_file(entries.source, optimizer.target)
        if hint:
            raise KeyError(f"{error.args[0]}; {hint}") from error
        raise
    for name, value in attributes.items():
        if value is not None:
            changes.set_attribute(optimizer, name, value)
    _serialize_or_restore(others, changes)


def _read_count(entries: Entries, key: str) -> int | None:
    count: int | None = entries.read_scalar(key, "iu", -1, "an integer >= 0")
    if count is not None and count > _LARGEST_COUNT:
        raise ValueError(f"{entries.prefix}{key}: found {count}, expected an integer <= {_LARGEST_COUNT}")
    return count


def _read_loss_scale(entries: Entries, largest: float) -> float | None:
    scale: float | None = entries.read_scalar(LOSS_SCALE, "iuf", 0, "a finite number > 0")
    if scale is not None and not 1 <= scale <= largest:
        raise ValueError(f"{entries.prefix}{LOSS_SCALE}: found {scale}, expected a number from 1 to {largest}")
    return scale


def _have_no_count(entries: Entries, entries_of_rules: list[Entries]) -> bool:
    """Whether no rule has a t, as in a file of Chainer 3.3 or earlier."""
    for of_rule in entries_of_rules:
        _read_count(of_rule, T)
        if T not in of_rule.missing:
            return False
        of_rule.missing.clear()
    # If a t is at another path, the file is another model's.
    return not any(key.endswith(f"/{T}") for key in keys_of(entries.source) or ())


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

    def add_to(self, changes: Changes) -> None:
        """Adds the changes of the rule. An array on a CPU is written in place if it fits: others may refer to it."""
        if self.state:
            present = self.rule.state
            if present is None:
                changes.set_attribute(self.rule, "_state", self.state)
            else:
                for name, value in self.state.items():
                    changes.set_array(present, name, value)
        elif self.state is not None:
            changes.set_attribute(self.rule, "_state", None)
        changes.set_attribute(self.rule, T, self.t)
        changes.set_attribute(self.rule, "_fp32_param", self.master)
        changes.set_attribute(self.rule, "_unsettled", True)

    def write(self) -> None:
        """Changes the rule."""
        changes = Changes()
        self.add_to(changes)
        changes.make()


def settle(rule: Any, param: Any) -> None:
    """Fits a loaded rule to its parameter, which may have been loaded or initialized after the rule."""
    changes = Changes()
    is_wide = rule._use_fp32_update and param.dtype == numpy.float16
    master = rule._fp32_param
    with chainer.using_device(param.device), numpy.errstate(over="ignore", under="ignore"):
        for name in STATES:
            if name in (rule.state or {}):
                dtype = numpy.float32 if is_wide else param.dtype
                changes.set_item(rule.state, name, rule.state[name].astype(dtype, copy=False))
        if master is not None and master.array is not None:
            if master.name != param.name or master.device != param.device:
                master = new_master(param.device.send(master.array), param.name)
            # If the master does not round to the parameter, the parameter was set elsewhere and replaces the master.
            if not is_wide or master.shape != param.shape or not _rounds_to(master.array, param.array):
                master = None
            changes.set_attribute(rule, "_fp32_param", master)
    changes.set_attribute(rule, "_unsettled", False)
    changes.make()


def _rounds_to(master: Any, array: Any) -> bool:
    rounded = master.astype(array.dtype)
    return bool(((rounded == array) | ((rounded != rounded) & (array != array))).all())


def read_rule(rule: Any, deserializer: Any) -> LoadedRule:
    """Reads and checks the entries of a rule. Its parameter can be known only if the deserializer is an `Entries`."""
    entries = deserializer if isinstance(deserializer, Entries) else Entries(deserializer, "/")
    names = list(_initial_state(rule) if rule.state is None else rule.state)
    t = _read_count(entries, T)
    if not rule.state and (entries.param is None or entries.param.array is None):
        # Checked before any of these arrays is read.
        entries.refuse_different_shapes({key: entries.header(key) for key in (*STATES, MASTER)})
    read = {name: _read_state(rule, entries, name) for name in names}
    found = {name: value for name, value in read.items() if value is not None}
    master = _read_master(rule, entries)

    is_stepped = rule.enabled and (entries.param is None or entries.param.array is not None)
    if T in entries.missing and entries.default_t is not None and (found or is_stepped):
        entries.missing.remove(T)
        t = entries.default_t
    missing = [key for key in (T, *names) if key in entries.missing]
    # The state may be missing if it was saved before the first update, or if the rule makes no step.
    optional = [names] if t == 0 else []
    if not is_stepped:
        optional = [names, [T, *names]]
    if missing and missing not in optional:
        raise not_there(f"{entries.prefix}{missing[0]}")
    entries.refuse_different_shapes({name: found.get(name) for name in STATES})

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
            # A float16 parameter may get a master after loading, so its state stays float32 until the next update.
            if dtype == numpy.float16 and (rule._use_fp32_update or entry.dtype.itemsize > 2):
                dtype = numpy.float32
        array = numpy.asarray(entry, dtype, order="C")
    # The arrays of a dictionary belong to its owner, and may be the present states.
    if numpy.may_share_memory(array, entry) and (
        not can_hold(old, array) or isinstance(getattr(entries.source, "npz", None), dict)
    ):
        array = array.copy()
    device = param.device if old is None and param is not None else backend.get_device_from_array(old)
    return device.send(array)


def _read_master(rule: Any, entries: Entries) -> Any:
    """Returns the new master; None if the entry is missing, the present master if the entry is ignored."""
    param = entries.param
    array = entries.read_array(MASTER, None if param is None or param.array is None else param)
    if array is None:
        return None if MASTER in entries.missing else rule._fp32_param
    array = array.astype(numpy.float32, order="C")
    return new_master(array, None) if param is None else new_master(param.device.send(array), param.name)


def new_master(initializer: Any, name: str | None) -> Any:
    """Makes a float32 master from an array or an initializer."""
    master = chainer.Parameter(initializer, name=name)
    master.cleargrad()
    return master


def _initial_state(rule: Any) -> dict[str, Any]:
    """Returns the state that a copy of the rule makes, to find the names of its entries, as Chainer does."""
    twin = copy.copy(rule)
    twin._state = {}
    array = numpy.empty(1, numpy.float32)
    twin.init_state(chainer.Variable(array, grad=array))
    return twin._state  # type: ignore[no-any-return]


def _zeros_like(state: dict[str, Any], param: Any) -> dict[str, Any]:
    """Returns zeros for the arrays of a state; an empty state if the parameter has been resized."""
    arrays = {name: value for name, value in state.items() if isinstance(value, chainer.get_array_types())}
    if param is not None and any(arrays[name].shape != param.shape for name in STATES if name in arrays):
        return {}
    return {name: backend.get_array_module(array).zeros_like(array) for name, array in arrays.items()}


def _serialize_or_restore(rules: list[tuple[Any, Any]], changes: Changes) -> None:
    """Lets rules load themselves, then makes the changes. An error restores the rules, which write as they read."""
    past = Changes()
    for rule, _ in rules:
        state = rule.state
        if state is not None:
            content = dict(state)
            for name, array in state.items():
                if isinstance(array, chainer.get_array_types()):
                    past.restore_array(content, name, array)
            past.restore_dict(state, content)
        past.restore_dict(rule.hyperparam.__dict__)
        past.restore_dict(rule.__dict__)
    # The last change replaces this by a call that does nothing, so an interrupt after it restores nothing.
    restore = [past.make]
    changes.set_item(restore, 0, bool)
    # Two levels: the second restores if an interrupt stops the first.
    try:
        try:
            for rule, deserializer in rules:
                rule.serialize(deserializer)
            changes.make()
        except BaseException:
            restore[0]()
            raise
    except BaseException:
        restore[0]()
        raise


def describe_other_file(source: Any, model: Any) -> str:
    """Says what the source is if it is no checkpoint of this model's optimizer; returns an empty string if unknown."""
    keys = keys_of(source)
    if not keys:
        return "" if keys is None else "the file has no entries here"
    params = {path.strip("/") for path, _ in model.namedparams()}
    found = {key.rpartition("/")[0] for key in keys if "/" in key}
    if T not in keys or EPOCH not in keys:
        inner = [key[: -len(T)] for key in keys if key.startswith("updater/optimizer:") and key.count("/") == 2]
        inner = [path for path in inner if path + T in keys]
        if inner:
            return f"this looks like a trainer's snapshot; load the optimizer with path={inner[0]!r}"
        what = "this looks like a model's file" if not params.isdisjoint(keys) else "this is not an optimizer's file"
        return f"{what}: it holds {some(keys)}"
    if params - found and found - params:
        return (
            f"this looks like another model's optimizer: the file has {some(found - params)}, "
            f"which the model does not have; the model has {some(params - found)}"
        )
    names = {key.rpartition("/")[2] for key in keys if "/" in key}
    if names and names.isdisjoint(STATES) and names != {T}:
        return f"this looks like the file of another optimizer: it holds {some(names)} of each parameter"
    return ""
