"""Finds out what a file holds when it cannot be loaded into an object."""

from __future__ import annotations

from typing import Any, Iterable


def load(deserializer: Any, obj: Any) -> None:
    """Calls ``deserializer.load(obj)``. If a model cannot be loaded, the error says what else the file holds."""
    try:
        deserializer.load(obj)
    except (KeyError, AttributeError) as error:
        words = (
            other_kind(keys_of(deserializer) or [], "", hasattr(deserializer, "npz"), obj)
            if hasattr(obj, "namedparams")
            else ""
        )
        if words:
            error.args = (f"{error.args[0]}; {words}",)
        raise


def keys_of(source: Any) -> list[str] | None:
    """Returns the keys that a deserializer of Chainer can read; None if it cannot list them."""
    keys: list[str] = []
    try:
        if hasattr(source, "npz"):
            keys += (key[len(source.path) :] for key in source.npz if key.startswith(source.path))
        else:
            source.group.visititems(lambda name, one: keys.append(name) if hasattr(one, "shape") else None)
            # h5py gives bytes for a name that is not UTF-8.
            keys = [key if isinstance(key, str) else key.decode(errors="backslashreplace") for key in keys]
    except Exception:  # this only improves an error
        return None
    return keys


def other_kind(names: list[str], path: str, is_npz: bool, model: Any) -> str:
    """Says what a file holds in place of a model at this path; empty if that is not known."""
    here = {name[len(path) :] for name in names if name.startswith(path)}
    here = {name[: -len(".npy")] if name.endswith(".npy") else name for name in here}
    parts = [name.split("/") for name in here]
    models = sorted({part[1] for part in parts if part[0] == "updater" and part[1:] and part[1].startswith("model:")})
    if models:
        function = "load_npz" if is_npz else "rmsprop_graves.load_hdf5"
        return (
            f"this is a trainer's snapshot: load its model by {function} with path={f'{path}updater/{models[0]}/'!r}"
        )
    if {"t", "epoch"} <= here:
        return "this is an optimizer's file, so load it into the optimizer, and the model from the model's own file"
    params = {name.strip("/") for name, _ in model.namedparams()}
    if here and params and here.isdisjoint(params):
        return f"this looks like another model's file: it holds {some(here)}; the model has {some(params)}"
    return ""


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
