"""Shape and dtype of a stored array, found and checked without reading its numbers.

A few bytes of a file can claim, or decompress to, more numbers than fit into memory.
"""

from __future__ import annotations

import copy
import io
import math
import zipfile
from typing import Any, NamedTuple

import numpy

# zlib's highest compression ratio; the longest header that NumPy accepts since 1.24.
_MOST_BYTES_FROM_ONE, _LONGEST_HEADER = 1032, 10_000
# h5py chooses chunks of up to a mebibyte.
_SMALL_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Header(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]


def header_of(deserializer: Any, key: str) -> Header | None:
    """Finds the header of the array that a deserializer of Chainer would read.

    Returns:
        The header. None if there is none: the entry is missing, ignored, empty, a pickled object, or has no header.

    Raises:
        ValueError: The header contradicts the file.
        Exception: Any other error of a damaged file.
    """
    for name in ("npz", "group"):
        container = getattr(deserializer, name, None)
        if container is not None:
            # Let Chainer's deserializer decide which entry it would read, if any.
            twin = copy.copy(deserializer)
            setattr(twin, name, _Headers(container))
            try:
                twin(key, None)
            except _Found as found:
                return found.header
            except KeyError:
                pass
    return None


class _Found(Exception):  # noqa: N818 (it is not an error)
    def __init__(self, header: Header | None) -> None:
        super().__init__()
        self.header = header


class _Headers:
    """Replaces a container of arrays: raises `_Found` with the header of an entry instead of returning its array."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __contains__(self, key: str) -> bool:
        return key in self._container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def __getitem__(self, key: str) -> Any:
        archive = getattr(self._container, "zip", None)
        header: Header | None
        if isinstance(archive, zipfile.ZipFile):
            header = of_member(archive, _member_of(archive, key))
        elif isinstance(self._container, dict):
            array = self._container[key]
            header = Header(array.shape, array.dtype) if isinstance(array, numpy.ndarray) else None
        else:
            header = of_dataset(self._container[key])
        raise _Found(None if header is None or header.dtype.hasobject else header)


def _member_of(archive: zipfile.ZipFile, key: str) -> str:
    """Finds the member that NumPy reads for a key."""
    refuse_duplicates(archive)
    names = [name for name in (key, f"{key}.npy") if name in archive.NameToInfo]
    if len(names) == 2:
        raise ValueError(f"the file has both {names[0]} and {names[1]}")
    if not names:
        raise KeyError(key)
    return names[0]


def refuse_duplicates(archive: zipfile.ZipFile) -> None:
    """Refuses an archive in which a name occurs twice: which one is read depends on the reader."""
    if len(archive.filelist) != len(archive.NameToInfo):
        names = [info.filename for info in archive.filelist]
        raise ValueError(f"the file has more than one {next(name for name in names if names.count(name) > 1)}")


def of_member(archive: zipfile.ZipFile, name: str) -> Header:
    """Reads the header of a member of an npz file, and checks its size against the bytes in the file.

    Raises:
        ValueError: The member is not an array, or its size contradicts the header.
    """
    read, info = numpy.lib.format, archive.getinfo(name)
    if info.compress_type not in _METHODS:
        raise ValueError(f"compressed by method {info.compress_type}, expected none or deflate")
    with archive.open(info) as member:
        begin = io.BytesIO(member.read(_LONGEST_HEADER))
    version = read.read_magic(begin)
    reader = read.read_array_header_1_0 if version == (1, 0) else read.read_array_header_2_0
    try:
        shape, _, dtype = reader(begin)
    except MemoryError as error:
        # Python's parser raises this for deeply nested expressions. If memory really is short, so does the next line.
        bytearray(1 << 20)
        raise ValueError("its header is nested too deeply") from error
    header = Header(shape, dtype)
    if not dtype.hasobject:
        # All members lie before the archive's directory.
        stored = min(info.compress_size, archive.start_dir - info.header_offset)
        limit = stored * (1 if info.compress_type == zipfile.ZIP_STORED else _MOST_BYTES_FROM_ONE)
        expected = begin.tell() + bytes_of(header)
        # NumPy would not read surplus bytes, and zipfile checks the checksum only at the end of a member.
        if info.file_size != expected or expected > limit:
            size = min(info.file_size, limit)
            raise ValueError(f"found at most {size} bytes, expected {expected} for shape {shape} and dtype {dtype}")
    return header


def of_dataset(dataset: Any) -> Header | None:
    """Finds the header of an hdf5 dataset, and checks its size against the bytes in the file; None if it is empty.

    Raises:
        ValueError: It is not a dataset, or its size contradicts the header.
    """
    if not hasattr(dataset, "shape"):
        raise ValueError(f"found a {type(dataset).__name__.lower()}, expected an array")
    if dataset.shape is None:
        return None
    header = Header(dataset.shape, dataset.dtype)
    settings = dataset.id.get_create_plist()
    limit = dataset.id.get_storage_size() * (_MOST_BYTES_FROM_ONE if settings.get_nfilters() else 1)
    expected = bytes_of(header)
    if not header.dtype.hasobject and not dataset.is_virtual and expected > limit:
        raise ValueError(
            f"found at most {limit} bytes, expected {expected} for shape {dataset.shape} and {dataset.dtype}"
        )
    # hdf5 unpacks whole chunks.
    chunk = bytes_of(Header(dataset.chunks or (), header.dtype))
    if chunk > expected + _SMALL_CHUNK:
        raise ValueError(f"found chunks of {chunk} bytes, expected no more than {expected} for shape {dataset.shape}")
    return header


def bytes_of(header: Header) -> int:
    """Returns the size of the array in memory."""
    if any(length < 0 for length in header.shape):
        raise ValueError(f"found shape {header.shape}, expected lengths >= 0")
    return math.prod(header.shape) * header.dtype.itemsize


def described(header: Any) -> str:
    """Returns shape and dtype of a header or array in words."""
    return f"an array of shape {header.shape} and dtype {header.dtype}"
