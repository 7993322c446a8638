"""Loading npz files from untrusted sources."""

from __future__ import annotations

import os
import zipfile
from typing import Any, BinaryIO

import numpy
from chainer.serializers import NpzDeserializer

from rmsprop_graves._entries import Entries, file_and_name, load, raise_unless_damage
from rmsprop_graves._headers import of_member, refuse_duplicates


def load_npz(file: str | bytes | os.PathLike[str] | BinaryIO, obj: Any, path: str = "", strict: bool = True) -> None:
    """Loads an object from a file like ``chainer.serializers.load_npz``, but refuses pickled objects.

    Chainer's function unpickles them, which can run any code. An optimizer's file has no pickled objects. A model's
    file has one for every parameter that was not initialized when the model was saved.

    An array whose shape differs from the object's is refused before it is read. All shapes of an optimizer or a link
    are checked before anything is written.

    Args:
        file: Path of the file, or a file opened in binary mode.
        obj: The object to load, such as an optimizer, a model or a trainer.
        path: Prefix of the object's entries in the file, such as ``'updater/model:main/'`` in a trainer's snapshot
            (default: ``''``).
        strict: Whether a missing entry is an error (default: True).

    Raises:
        TypeError: ``file`` is neither a path nor a file opened in binary mode.
        ValueError: An entry is a pickled object, has another shape than the object's, occurs twice or is damaged, or
            the file is not in the npz format.
        KeyError: An entry is missing.
        OSError: The operating system cannot read the file; ``errno`` says why.
    """
    source, name = file_and_name(file)
    names = _checked_names(source, name)
    entries = numpy.load(source, allow_pickle=False)
    # NumPy reads the format from the first bytes of a file, zipfile from the last, so the two can disagree.
    if not isinstance(entries, numpy.lib.npyio.NpzFile):
        raise ValueError(f"{name}: it is not in the npz format (it begins like another format)")
    with entries:
        load(obj, Entries(NpzDeserializer(entries, path, strict)), name, names, path)


load_npz.__module__ = "rmsprop_graves"


def _checked_names(file: str | BinaryIO, name: str) -> list[str]:
    """Returns the names of all entries, after a check that none is a pickled object."""
    begin = None if isinstance(file, str) else file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            refuse_duplicates(archive)
            pickled = [entry for entry in archive.namelist() if _is_pickled(archive, entry, name)]
            names = archive.namelist()
    except Exception as error:
        raise_unless_damage(error)
        if str(error).startswith(f"{name}: "):
            raise
        raise ValueError(f"{name}: it is not in the npz format ({error})") from error
    finally:
        if begin is not None:
            file.seek(begin)  # type: ignore[union-attr]
    if pickled:
        raise ValueError(
            f"{name}: {pickled[0]} is a pickled object, which may run any code when it is loaded"
            f"{f', and so are {len(pickled) - 1} more entries' if len(pickled) > 1 else ''}; "
            "chainer.serializers.load_npz loads it from a source that you trust"
        )
    return names


def _is_pickled(archive: zipfile.ZipFile, entry: str, name: str) -> bool:
    try:
        with archive.open(entry) as member:
            if member.read(6) != numpy.lib.format.MAGIC_PREFIX:  # not an array, so NumPy returns its bytes
                return False
        return of_member(archive, entry).dtype.hasobject
    except Exception as error:  # a broken header can raise anything
        raise_unless_damage(error)
        raise ValueError(f"{name}: {entry}: it cannot be read ({type(error).__name__}: {error})") from error
