"""Loading hdf5 files from untrusted sources."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from chainer.serializers import HDF5Deserializer

from rmsprop_graves._entries import Entries, file_and_name, load, raise_unless_damage

# Filters that are built into hdf5, and lzf, which is built into h5py. hdf5 loads any other filter from a plugin.
_BUILT_IN_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}


def load_hdf5(file: str | bytes | os.PathLike[str] | BinaryIO, obj: Any, path: str = "", strict: bool = True) -> None:
    """Loads an object from a file like ``chainer.serializers.load_hdf5``, but reads nothing outside the file.

    Chainer's function follows external links, external storage and virtual datasets, which can name any file on the
    machine, and lets hdf5 load plugins for filters that it does not know. The whole file is searched for these before
    anything is read.

    An array whose shape differs from the object's is refused before it is read. All shapes of an optimizer or a link
    are checked before anything is written.

    Args:
        file: Path of the file, or a file opened in binary mode.
        obj: The object to load, such as an optimizer, a model or a trainer.
        path: Path of the object's entries in the file, such as ``'updater/model:main/'`` in a trainer's snapshot
            (default: ``''``).
        strict: Whether a missing entry is an error (default: True).

    Raises:
        TypeError: ``file`` is neither a path nor a file opened in binary mode.
        ImportError: h5py is not installed.
        ValueError: An entry is in another file, needs a filter that is not built in, holds references, has another
            shape than the object's or is damaged, or the file is not in the hdf5 format.
        KeyError: An entry is missing.
        OSError: The operating system cannot read the file; ``errno`` says why.
    """
    try:
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError("load_hdf5 needs h5py: install it with pip install h5py") from error
    source, name = file_and_name(file)
    try:
        opened = h5py.File(source, "r")
    except Exception as error:
        raise_unless_damage(error)
        raise ValueError(f"{name}: it is not in the hdf5 format ({error})") from error
    with opened:
        names = _checked_names(opened, name)
        path = path.strip("/")
        entries = Entries(HDF5Deserializer(opened, strict))
        load(obj, entries[path] if path else entries, name, names, f"{path}/" if path else "")


load_hdf5.__module__ = "rmsprop_graves"


def _checked_names(file: Any, name: str) -> list[str]:
    """Returns the names of all links in a file, after a check of each link and dataset."""
    from h5py import h5d, h5l, h5o

    links: list[tuple[bytes, int]] = []
    try:
        # Visits every group once, so cycles end, and follows no link out of the file.
        file.id.links.visit(lambda path, info: links.append((path, info.type)), info=True)
    except Exception as error:
        raise_unless_damage(error)
        raise ValueError(f"{name}: it cannot be read ({type(error).__name__}: {error})") from error
    for path, kind in links:
        entry = f"{name}: {path.decode(errors='backslashreplace')}"
        if kind == h5l.TYPE_SOFT:  # its target is also visited by a hard link, or does not exist
            continue
        if kind != h5l.TYPE_HARD:
            target = "is an external link, which" if kind == h5l.TYPE_EXTERNAL else f"is a link of type {kind}, which"
            raise ValueError(f"{entry} {target} may read another file; {_TRUSTED}")
        try:
            found = h5o.open(file.id, path)
            reason = _fault_of(found) if isinstance(found, h5d.DatasetID) else ""
        except Exception as error:
            raise_unless_damage(error)
            raise ValueError(f"{entry}: it cannot be read ({type(error).__name__}: {error})") from error
        if reason:
            raise ValueError(f"{entry} {reason}; {_TRUSTED}")
    return [path.decode(errors="backslashreplace") for path, _ in links]


_TRUSTED = "chainer.serializers.load_hdf5 loads it from a source that you trust"


def _fault_of(dataset: Any) -> str:
    """Returns why a dataset is refused, or an empty string: it needs another file or a plugin, or holds references."""
    from h5py import h5d, h5t

    settings = dataset.get_create_plist()
    # Checked first, because even reading the shape can open the files of a virtual dataset.
    if settings.get_layout() == h5d.VIRTUAL:
        return "is a virtual dataset, which may read other files"
    if settings.get_external_count():
        return f"is stored in another file, {os.fsdecode(settings.get_external(0)[0])!r}"
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    unknown = [str(number) for number in filters if number not in _BUILT_IN_FILTERS]
    if unknown:
        return f"needs filter {', '.join(unknown)}, which hdf5 would load from a plugin"
    if dataset.get_type().detect_class(h5t.REFERENCE):
        return "holds references, which are not numbers"
    return ""
