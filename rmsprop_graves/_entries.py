"""Reading of single entries of a checkpoint, and errors that name them."""

from __future__ import annotations

from typing import Any

import numpy
from chainer.serializer import Deserializer


class Entries(Deserializer):
    """A deserializer that can also read an entry without writing it.

    Args:
        source: Chainer's deserializer.
        prefix: What errors put before the key of an entry.
        param: The parameter of the rule that is loaded, if it is known.

    Attributes:
        missing: The keys that the checkpoint does not have.
    """

    def __init__(self, source: Any, prefix: str = "", param: Any = None) -> None:
        self.source, self.prefix, self.param = source, prefix, param
        self.missing: list[str] = []

    # A subclass of the rule may read more entries in a `serialize` of its own.
    def __call__(self, key: str, value: Any) -> Any:
        return self.source(key, value)

    def __getitem__(self, key: str) -> Any:
        return self.source[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def of_rule(self, path: str, param: Any) -> Entries:
        """Returns the entries of a parameter's rule."""
        try:
            return Entries(self.source[path], f"{path}/", param)
        except Exception as error:
            raise _unreadable(path, error) from error

    def read(self, key: str) -> numpy.ndarray | None:
        """Reads an entry.

        Returns:
            The entry. None if it is missing, or if the present value stays: the user ignores the entry, or loads
            without ``strict``.

        Raises:
            ValueError: The entry is damaged.
        """
        value, present = None, object()
        try:
            value = self.source(key, None)
            if value is None and self.source(key, present) is present:
                return None
        except KeyError:
            pass
        except Exception as error:  # a file may be broken in any way
            # The operating system's errors have a number; h5py raises OSError without one for a broken file.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            # Chainer's hdf5 deserializer has no group if the file has none.
            if getattr(self.source, "group", self) is not None:
                raise _unreadable(self.prefix + key, error) from error
        if value is None:
            self.missing.append(key)
            return None
        return numpy.asarray(value)

    def read_scalar(self, key: str, kinds: str, above: float, expected: str) -> Any:
        """Reads a finite Python number above a limit and of these kinds of dtypes; None as in `read`."""
        array = self.read(key)
        if array is None:
            return None
        if array.shape != () or array.dtype.kind not in kinds or not above < array < numpy.inf:
            raise ValueError(f"{self.prefix}{key}: found {_described(array)}, expected {expected}")
        return array.item()

    def read_array(self, key: str, like: Any = None, is_floating: bool = True) -> numpy.ndarray | None:
        """Reads an array of the same shape as another one, if that is known; None as in `read`."""
        array = self.read(key)
        if array is None:
            return None
        if is_floating and array.dtype.kind != "f":
            raise ValueError(f"{self.prefix}{key}: found {_described(array)}, expected real floating numbers")
        if like is not None and array.shape != like.shape:
            raise ValueError(f"{self.prefix}{key}: found shape {array.shape}, expected {like.shape}")
        return array

    def refuse_unsound(self, key: str, array: numpy.ndarray, dtype: Any) -> None:
        """Refuses NaNs, infinities except in n, and numbers too large for the dtype except in a float16 n."""
        # Two scalars need less memory than an array of bools.
        for extreme in (array.min(), array.max()) if array.size else ():
            expected = None
            if numpy.isnan(extreme):
                expected = "numbers"
            elif numpy.isinf(extreme):
                expected = None if key == "n" and extreme > 0 else "finite numbers"
            elif numpy.isinf(dtype.type(extreme)) and not (key == "n" and dtype == numpy.float16):
                expected = f"what fits into {dtype}"
            if expected:
                found = "NaN" if numpy.isnan(extreme) else extreme
                raise ValueError(f"{self.prefix}{key}: found {found}, expected {expected}")


def not_there(path: str) -> KeyError:
    """Returns the error of an entry that is missing."""
    return KeyError(f"{path}: it is not in the checkpoint")


def _unreadable(path: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: it cannot be read ({type(error).__name__}: {error})")


def _described(array: numpy.ndarray) -> str:
    return f"{array.item()!r}" if array.shape == () else f"an array of shape {array.shape} and dtype {array.dtype}"
