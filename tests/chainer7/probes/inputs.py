"""The inputs of probes: arrays given by the kind of their values and their shape, as in ``normal[2, 3]``."""

from __future__ import annotations

import copy
import zlib

import chainer
import numpy

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("uint8", "int8", "int32", "int64")

# The forms of a hyperparameter. Chainer documents Python numbers only.
FORMS = {
    "python": lambda number: number,
    "float32": lambda number: (numpy.int32 if isinstance(number, int) else numpy.float32)(number),
    "float64": lambda number: (numpy.int64 if isinstance(number, int) else numpy.float64)(number),
    "array": numpy.array,
}


def words(text):
    """Splits a text into a list of names."""
    return text.split()


class Hyperparameter:
    """Marks an argument of a probe: a function that gives a number its form."""


class Input:
    """Describes an array that a probe gets. Indexing sets its shape. Without a dtype it has the probe's."""

    def __init__(self, values, dtype=None, is_variable=True):
        self.values = values
        self.dtype = dtype
        self.is_variable = is_variable
        self.shape = None

    def __getitem__(self, shape):
        """Returns the description with this shape."""
        return self._with(shape=shape if isinstance(shape, tuple) else (shape,))

    def _with(self, **changes):
        other = copy.copy(self)
        vars(other).update(changes)
        return other

    @property
    def raw(self):
        """The same as a NumPy array instead of a variable."""
        return self._with(is_variable=False)

    @property
    def single(self):
        """The same in float32, whatever the probe's dtype is."""
        return self._with(dtype="float32")

    @property
    def half(self):
        """The same in float16."""
        return self._with(dtype="float16")

    @property
    def double(self):
        """The same in float64."""
        return self._with(dtype="float64")

    def make(self, name, dtype):
        """Makes the array. Its values depend on name and shape alone, and are exact in every float dtype."""
        dtype = numpy.dtype(self.dtype or dtype)
        state = numpy.random.RandomState(zlib.crc32(f"{name}{self.shape}".encode()) % 2**32)
        array = numpy.asarray(self.values(state, self.shape, dtype)).astype(dtype)
        return chainer.Variable(array) if self.is_variable else array


def _between(low, high, step=1.0, integers=None):
    """Random multiples of a power of two, which are exact in float16; or random integers from `integers`."""

    def values(state, shape, dtype):
        if dtype.kind == "f":
            return state.randint(round(low / step), round(high / step) + 1, shape) * step
        first, last = integers or (low, high)
        return state.randint(max(first, 0) if dtype.kind == "u" else first, last + 1, shape)

    return values


def _whole_range(state, shape, dtype):
    """Random numbers whose squares overflow in float16 and in every integer dtype of fewer than 32 bits."""
    if dtype.kind == "f":
        return state.randint(-400, 401, shape)
    info = numpy.iinfo(dtype if dtype.itemsize == 1 else "int16")
    return state.randint(info.min, info.max + 1, shape)


def _definite(state, shape, dtype):
    """Random symmetric positive definite matrices."""
    half = state.randint(-4, 5, shape) / 4
    return half @ half.swapaxes(-1, -2) + 2 * numpy.eye(shape[-1])


DTYPE = object()  # marks the argument of a probe that is its dtype
h = Hyperparameter()
normal = Input(_between(-3, 3, 1 / 32, integers=(-4, 6)))
small = Input(_between(-15 / 16, 15 / 16, 1 / 32, integers=(-1, 1)))
positive = Input(_between(1 / 8, 3, 1 / 32, integers=(1, 9)))
fractions = Input(_between(1 / 16, 15 / 16, 1 / 32, integers=(0, 1)))
large = Input(_whole_range)
low = Input(_between(-1 / 4, 1 / 4, 1 / 64, integers=(-1, 1)))
tiny = Input(_between(-(2**-10), 2**-10, 2**-18, integers=(-1, 1)))
definite = Input(_definite)
labels = Input(_between(0, 2), "int32", is_variable=False)
signed_labels = Input(_between(-1, 2), "int32", is_variable=False)
flags = Input(_between(0, 1))  # like bits, but in the probe's dtype
bits = Input(_between(0, 1), "int32", is_variable=False)
