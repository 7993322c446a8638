"""Loading of npz files from untrusted sources."""

from __future__ import annotations

import os
import zipfile
from typing import Any, BinaryIO

import numpy
from chainer.serializers import NpzDeserializer


def load_npz(file: str | bytes | os.PathLike[str] | BinaryIO, obj: Any, path: str = "", strict: bool = True) -> None:
    """Loads an object from a file like ``chainer.serializers.load_npz``, but refuses pickled objects.

    Chainer's function unpickles them, which can run any code. A checkpoint of an optimizer holds no pickled objects.
    A model's holds one for every parameter that is not initialized.

    Args:
        file: Path of the file, or a file opened in binary mode.
        obj: The object to load, such as an optimizer, a model or a trainer.
        path: Prefix of the object's entries in the file, such as ``'updater/model:main/'`` in a trainer's snapshot
            (default: ``''``).
        strict: Whether a missing entry is an error (default: True).

    Raises:
        ValueError: An entry is a pickled object, an entry's header cannot be read, or the file is not in the npz
            format.
        KeyError: An entry is missing.
    """
    if isinstance(file, (bytes, os.PathLike)):
        file = os.fsdecode(file)
    pickled = _pickled_entries(file)
    if pickled:
        raise ValueError(
            f"{_name_of(file)}: {pickled[0]} is a pickled object, which may run any code when it is loaded"
            f"{f', and so are {len(pickled) - 1} more entries' if len(pickled) > 1 else ''}; "
            "chainer.serializers.load_npz loads it from a source that you trust"
        )
    entries = numpy.load(file, allow_pickle=False)
    # NumPy reads the format from the first bytes of a file, zipfile from the last, so the two can disagree.
    if not isinstance(entries, numpy.lib.npyio.NpzFile):
        raise ValueError(f"{_name_of(file)}: it is not in the npz format (it begins as another)")
    with entries:
        NpzDeserializer(entries, path, strict).load(obj)


load_npz.__module__ = "rmsprop_graves"


def _pickled_entries(file: str | BinaryIO) -> list[str]:
    """Returns the names of entries whose dtype contains objects. Reads only their headers."""
    begin = file.tell() if hasattr(file, "seek") else None  # type: ignore[union-attr]
    try:
        with zipfile.ZipFile(file) as archive:
            return [name for name in archive.namelist() if _is_pickled(archive, name)]
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{_name_of(file)}: it is not in the npz format ({error})") from error
    finally:
        if begin is not None:
            file.seek(begin)  # type: ignore[union-attr]


def _is_pickled(archive: zipfile.ZipFile, name: str) -> bool:
    read = numpy.lib.format
    try:
        with archive.open(name) as entry:
            if entry.read(6) != read.MAGIC_PREFIX:  # not an array, so NumPy returns its bytes
                return False
            entry.seek(0)
            version = read.read_magic(entry)
            _, _, dtype = (read.read_array_header_1_0 if version == (1, 0) else read.read_array_header_2_0)(entry)
            return dtype.hasobject
    except Exception as error:  # a broken header can raise anything
        raise ValueError(f"{name}: it cannot be read ({type(error).__name__}: {error})") from error


def _name_of(file: str | BinaryIO) -> str:
    return str(getattr(file, "name", file))
