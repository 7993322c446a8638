"""Reading single entries of a checkpoint, with errors that name the file and the entry."""

from __future__ import annotations

import errno
import io
import math
import numbers
import os
from typing import Any

import chainer
import numpy
from chainer.serializer import Deserializer

from rmsprop_graves._chainer7.files import other_kind
from rmsprop_graves._headers import Header, bytes_of, described, header_of

# A damaged file can make a library seek to an impossible position. h5py's OSError for a broken file has no errno.
_ERRNOS_OF_DAMAGE = {None, errno.EINVAL, errno.EOVERFLOW, errno.EFBIG}


class Entries(Deserializer):
    """A deserializer that checks an entry before it reads it, and can read one without writing it into an object.

    Args:
        source: Chainer's deserializer.
        prefix: The path before an entry's key in errors, if the deserializer does not know its own path.
        param: The parameter of the rule that is loaded, if it is known.

    Attributes:
        missing: The keys that the checkpoint does not have.
        prefix: The file and the path in it, which errors put before an entry's key.
        default_t: The rule's t if the checkpoint has none, like a checkpoint of Chainer 3.3 or earlier.
    """

    def __init__(self, source: Any, prefix: str = "", param: Any = None) -> None:
        is_wrapped = isinstance(source, Entries)
        self.source: Any = source.source if is_wrapped else source
        self.prefix: str = source.prefix or prefix if is_wrapped else _place_of(source, prefix)
        self.param = param
        self.missing: list[str] = []
        self.default_t: int | None = None

    # Called by a model, a trainer, or a subclass of the rule with its own `serialize`.
    def __call__(self, key: str, value: Any) -> Any:
        self.check(key, value)
        return self._call(key, self.source, key, value)

    def check(self, key: str, value: Any) -> None:
        """Raises an error if an entry does not fit the value that it would replace. Reads only its header.

        Raises:
            ValueError: The entry has another shape, or a dtype that does not fit, or is damaged.
        """
        header, found = self.header(key), None
        if header is None:
            return
        if isinstance(value, chainer.get_array_types()):
            if header.shape != value.shape:
                found, expected = f"shape {header.shape}", f"{value.shape}"
            elif not numpy.can_cast(header.dtype, value.dtype, "same_kind"):
                # Chainer's npz loader refuses it too, but after it has read the array.
                found, expected = f"dtype {header.dtype}", f"one that can become {value.dtype}"
        elif isinstance(value, numbers.Number) and (math.prod(header.shape) != 1 or header.dtype.kind not in "biufc"):
            found, expected = described(header), "one number"
        if found:
            raise ValueError(f"{self.prefix}{key}: found {found}, expected {expected}")

    def __getitem__(self, key: str) -> Entries:
        return self.of_rule(key, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def of_rule(self, path: str, param: Any) -> Entries:
        """Returns the entries of a parameter's rule."""
        prefix = f"{self.prefix.rstrip('/')}/{path.strip('/')}/"
        # Without strict, Chainer's hdf5 deserializer has no group if its path is not in the file.
        is_empty = getattr(self.source, "group", self) is None
        try:
            entries = Entries(self.source if is_empty else self.source[path], param=param)
        except Exception as error:
            raise_unless_damage(error)
            raise _unreadable(prefix[:-1], error) from error
        entries.prefix = prefix
        return entries

    def header(self, key: str) -> Header | None:
        """Finds the shape and dtype of an entry without reading its array; None if they cannot be known.

        Raises:
            ValueError: The entry is damaged.
        """
        return self._call(key, header_of, self.source, key)  # type: ignore[no-any-return]

    def _call(self, key: str, function: Any, *args: Any) -> Any:
        """Calls a function that reads an entry, and names the entry in its errors.

        Raises:
            KeyError: The entry is missing.
            ValueError: The entry is damaged.
        """
        try:
            return function(*args)
        except KeyError as error:
            raise not_there(self.prefix + key) from error
        except Exception as error:  # a file may be broken in any way
            raise_unless_damage(error)
            # Chainer's hdf5 deserializer has no group if the file has none.
            if getattr(self.source, "group", self) is None:
                raise not_there(self.prefix + key) from error
            if function is not header_of:
                self._raise_if_too_large(key)
            raise _unreadable(self.prefix + key, error) from error

    def _raise_if_too_large(self, key: str) -> None:
        """Raises a MemoryError if an entry does not fit into memory, which hdf5's filters report as damage."""
        header = self.header(key)
        if header is not None:
            # Room for the array, and for an equally large chunk before and after decompression.
            bytearray(3 * bytes_of(header))

    def read(self, key: str) -> numpy.ndarray | None:
        """Reads an entry.

        Returns:
            The entry. None if it is missing, or if the present value stays because the user ignores the entry or
            loads without ``strict``.

        Raises:
            ValueError: The entry is damaged.
        """
        value, present = None, object()
        try:
            value = self._call(key, self.source, key, None)
            if value is None and self._call(key, self.source, key, present) is present:
                return None
        except KeyError:
            pass
        if value is None:
            self.missing.append(key)
            return None
        return numpy.asarray(value)

    def read_scalar(self, key: str, kinds: str, above: float, expected: str) -> Any:
        """Reads a finite number > `above` with a dtype of one of the kinds; None as in `read`."""
        header = self.header(key)
        if header is not None and (header.shape != () or header.dtype.kind not in "biufc"):
            raise ValueError(f"{self.prefix}{key}: found {described(header)}, expected {expected}")
        array = self.read(key)
        if array is None:
            return None
        if array.shape != () or array.dtype.kind not in kinds or not above < array < numpy.inf:
            found = f"{array.item()!r}" if array.shape == () else described(array)
            raise ValueError(f"{self.prefix}{key}: found {found}, expected {expected}")
        return array.item()

    def read_array(self, key: str, like: Any = None, is_floating: bool = True) -> numpy.ndarray | None:
        """Reads an array, which must have the shape of `like` if that is given; None as in `read`."""
        header = self.header(key)
        if header is not None:
            self._refuse_misfit(key, header, like, is_floating)
        array = self.read(key)
        if array is not None:
            self._refuse_misfit(key, array, like, is_floating)
        return array

    def _refuse_misfit(self, key: str, found: Any, like: Any, is_floating: bool) -> None:
        if is_floating and found.dtype.kind != "f":
            raise ValueError(f"{self.prefix}{key}: found {described(found)}, expected real floating-point numbers")
        if like is not None and found.shape != like.shape:
            raise ValueError(f"{self.prefix}{key}: found shape {found.shape}, expected {like.shape}")

    def refuse_different_shapes(self, found: dict[str, Any]) -> None:
        """Refuses entries of different shapes, given as arrays or headers by key; None is ignored."""
        shapes = {key: one.shape for key, one in found.items() if one is not None}
        if len(set(shapes.values())) > 1:
            words = ", ".join(f"{key} of shape {shape}" for key, shape in shapes.items())
            raise ValueError(f"{self.prefix[:-1]}: found {words}, expected one shape")

    def refuse_unsound(self, key: str, array: numpy.ndarray, dtype: Any) -> None:
        """Refuses NaN; infinity, except in n; and numbers too large for the dtype, except in n of float16."""
        # Two scalars need less memory than an array of bools.
        for extreme in (array.min(), array.max()) if array.size else ():
            expected = None
            if numpy.isnan(extreme):
                expected = "numbers"
            elif numpy.isinf(extreme):
                expected = None if key == "n" and extreme > 0 else "finite numbers"
            elif numpy.isinf(dtype.type(extreme)) and not (key == "n" and dtype == numpy.float16):
                expected = f"a number that fits into {dtype}"
            if expected:
                found = "NaN" if numpy.isnan(extreme) else extreme
                raise ValueError(f"{self.prefix}{key}: found {found}, expected {expected}")


def raise_unless_damage(error: Exception) -> None:
    """Raises an error again if its cause is not a damaged file but a lack of memory or the operating system.

    A compiled library may turn a KeyboardInterrupt or a MemoryError into a SystemError; this raises the original.
    """
    cause = error.__cause__
    if isinstance(error, SystemError) and (
        isinstance(cause, MemoryError) or not isinstance(cause, (Exception, type(None)))
    ):
        raise cause
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in _ERRNOS_OF_DAMAGE):
        raise error


def not_there(path: str) -> KeyError:
    """Returns the error for a missing entry."""
    return KeyError(f"{path}: it is not in the checkpoint")


def load(obj: Any, entries: Entries, file: str, names: list[str], path: str) -> None:
    """Loads an object. If an entry has another shape than a link's array, writes nothing and raises an error.

    Args:
        obj: The object.
        entries: Its entries.
        file: The name of the file.
        names: The names of all entries in the file.
        path: The path of the object's entries in the file.
    """
    entries.prefix = f"{file}: {path}"
    try:
        if isinstance(obj, chainer.Link) and all(_loads_like_chainer(link) for link in obj.links()):
            obj.serialize(_Rehearsal(entries))
        entries.load(obj)
    except (KeyError, ValueError) as error:
        words = other_kind(names, path, hasattr(entries, "npz"), obj) if isinstance(obj, chainer.Link) else ""
        if not words:
            raise
        kind = KeyError if isinstance(error, KeyError) else ValueError
        raise kind(f"{error.args[0]}; {words}") from error


class _Rehearsal(Deserializer):
    """Checks every entry as loading does, but changes no value."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __getitem__(self, key: str) -> _Rehearsal:
        return _Rehearsal(self.entries[key])

    def __call__(self, key: str, value: Any) -> Any:
        self.entries.check(key, value)
        return value


def _loads_like_chainer(link: Any) -> bool:
    """Whether Chainer's own code loads a link. That code only assigns the values that the deserializer returns."""
    return type(link).serialize in (chainer.Link.serialize, chainer.Chain.serialize, chainer.ChainList.serialize)


def file_and_name(file: Any) -> tuple[Any, str]:
    """Returns an opened file, or a path as a string, and the file's name.

    Raises:
        TypeError: ``file`` is neither a path nor a file opened in binary mode.
    """
    if isinstance(file, (str, bytes, os.PathLike)):
        path = os.fsdecode(file)
        return path, path
    if not hasattr(file, "read") or not hasattr(file, "seek") or isinstance(file, io.TextIOBase):
        raise TypeError(f"file must be a path or a file opened in binary mode, got {type(file).__name__}")
    name = getattr(file, "name", None)
    return file, name if isinstance(name, str) else f"<{type(file).__name__}>"


def _place_of(deserializer: Any, prefix: str) -> str:
    """Returns the name of the file that a deserializer of Chainer reads and the path in it, if they are known."""
    archive = getattr(getattr(deserializer, "npz", None), "zip", None)
    group = getattr(deserializer, "group", None)
    file = getattr(archive, "filename", None)
    path = getattr(deserializer, "path", "")
    if group is not None:
        file, path = getattr(getattr(group, "file", None), "filename", None), str(getattr(group, "name", ""))
    path = path.strip("/") if isinstance(path, str) else ""
    return (f"{file}: " if isinstance(file, str) else "") + (f"{path}/" if path else prefix)


def _unreadable(path: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})")
