"""The step on CuPy arrays: fused kernels, of one parameter and of many, that read and write each array once."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy

from rmsprop_graves.kernels import cuda
from rmsprop_graves.kernels import table as _table
from rmsprop_graves.kernels.hyperparameters import floats_of

OLDEST = 12
# CUDA's name for the default stream of the thread that asks.
_PER_THREAD = 2


def step(
    param: Any, grad: Any, n: Any, g: Any, delta: Any, *, lr: float, alpha: float, momentum: float, eps: float
) -> None:
    """Steps one parameter in place: writes param, n, g and delta, with the bits of the NumPy kernel.

    It runs on the current stream of the current device, on arrays of any memory layout, and waits for
    nothing. float16 is computed in float32 and rounded once when it is stored, float32 and float64 in
    themselves.

    Args:
        param: The parameter, of any shape, float16, float32 or float64.
        grad: Its gradient, of the same shape and dtype.
        n: Running mean of the squared gradient, likewise.
        g: Running mean of the gradient, likewise.
        delta: The last step, likewise.
        lr: Step size.
        alpha: Decay rate of ``n`` and ``g``.
        momentum: Decay rate of ``delta``.
        eps: Added inside the root, so in units of squared gradient.

    Raises:
        TypeError: The dtype of ``param`` is another.
        ImportError: CuPy is older than the kernel is made for.
    """
    types = cuda.TYPES.get(param.dtype.char)
    if types is None:
        raise TypeError(f"param must be of {', '.join(cuda.DTYPES)}, got {param.dtype}")
    _kernel(types[1])(grad, *floats_of(lr, alpha, momentum, eps), param, n, g, delta)


class Table(_table.Table):
    """Parameters and their states by the addresses of their arrays, stepped in one launch.

    The addresses lie in the memory of the device, copied there when the table is made. It belongs to the device and
    the stream that are current then. Neither making it nor a step waits for the device.

    Every array must lie on that device, be C-contiguous and of the parameter's shape and dtype: float16, float32 or
    float64. More than one launch is needed for more than `ROWS` parameters or `SETS` different hyperparameters.
    """

    def _locate_columns(self) -> numpy.ndarray | None:
        cupy = load_cupy()
        self._stream = _stream()
        self._dtype = dtype = self._columns[0][0].dtype
        self._device_id = cupy.cuda.Device().id
        self._shapes = [param.shape for param in self._columns[0]]
        if dtype.char not in cuda.TYPES or not all(
            self._fits(shape, array) for column in self._columns for shape, array in zip(self._shapes, column)
        ):
            return None
        addresses = numpy.array([_addresses(column) for column in self._columns])
        rows = numpy.stack([*addresses, self._sizes], axis=1)
        counts = -(-self._nbytes // cuda.CHUNK_BYTES)
        # The number of chunks before each parameter, and of all.
        self._chunk_bounds = numpy.cumsum([0, *counts]).tolist()
        chunks = numpy.empty(self._chunk_bounds[-1], cuda.CHUNK)
        chunks["row"] = numpy.repeat(numpy.arange(len(rows)), counts)
        chunks["place"] = numpy.arange(len(chunks)) - numpy.repeat(self._chunk_bounds[:-1], counts)
        self._on_device = cupy.asarray(numpy.frombuffer(rows.tobytes() + chunks.tobytes(), numpy.uint8))
        self._kernel = _table_kernel(dtype.char)
        launch = numpy.zeros(1, cuda.launch_layout(dtype.char))
        launch["rows"] = self._on_device.data.ptr
        self._chunks_at = self._on_device.data.ptr + rows.nbytes
        # The fields that change, and the whole as bytes, which CuPy packs five times as fast as a structured array.
        self._fields = {name: launch[name] for name in ("chunks", "first")}
        self._fields.update({name: launch[name][0] for name in ("grads", "hyperparameters", "set")})
        self._packed: Any = None
        self._argument = launch.view(f"V{launch.itemsize}")
        return addresses

    def _locate_grads(self, grads: list[Any]) -> numpy.ndarray | None:
        dtype, device_id = self._dtype, self._device_id
        addresses = []
        for place, (shape, grad) in enumerate(zip(self._shapes, grads)):
            data = grad.data
            if grad.shape != shape or grad.dtype != dtype or data.device_id != device_id:
                return None
            if not _is_contiguous(grad):
                grads[place] = grad = grad.copy()
                data = grad.data
            addresses.append(data.ptr)
        return numpy.array(addresses, numpy.intp)

    def _is_as_it_was(self) -> bool:
        # On another stream the addresses might not be there yet, and be gone before they have been read.
        return self._stream == _stream() and self._shapes == [param.shape for param in self._columns[0]]

    def _fits(self, shape: tuple[int, ...], array: Any) -> bool:
        return (
            type(array) is type(self._columns[0][0])
            and _is_contiguous(array)
            and array.shape == shape
            and array.dtype == self._dtype
            and array.data.device_id == self._device_id
        )

    def _step(self, grads: numpy.ndarray, sets: numpy.ndarray, set_of: numpy.ndarray) -> None:
        first = 0
        while first < len(set_of):
            piece = set_of[first : first + cuda.ROWS].tolist()
            used = list(dict.fromkeys(piece))
            if len(used) > cuda.SETS:
                piece = piece[: piece.index(used[cuda.SETS])]
                used = used[: cuda.SETS]
            number_of = {row: number for number, row in enumerate(used)}
            self._launch(first, grads[first : first + len(piece)], sets[used], bytes(number_of[row] for row in piece))
            first += len(piece)

    def _launch(self, first: int, grads: numpy.ndarray, sets: numpy.ndarray, set_of: bytes) -> None:
        """Steps as many parameters from `first` on as there are gradients."""
        begin, end = self._chunk_bounds[first], self._chunk_bounds[first + len(grads)]
        if begin == end:
            return
        fields = self._fields
        fields["grads"][: len(grads)] = grads
        # The rest is most often that of the last launch.
        rest = first, sets.tobytes(), set_of
        if rest != self._packed:
            self._packed = rest
            fields["chunks"][0] = self._chunks_at + begin * cuda.CHUNK.itemsize
            fields["first"][0] = first
            with numpy.errstate(over="ignore"):
                fields["hyperparameters"][: len(sets)] = sets
            fields["set"][: len(grads)] = numpy.frombuffer(set_of, numpy.uint8)
        self._kernel((end - begin,), (cuda.THREADS,), (self._argument,))


def _is_contiguous(array: Any) -> bool:
    try:
        # `flags` takes ten times as long.
        return array._c_contiguous  # type: ignore[no-any-return]
    except AttributeError:
        return array.flags.c_contiguous  # type: ignore[no-any-return]


def _addresses(arrays: list[Any]) -> numpy.ndarray:
    return numpy.array([array.data.ptr for array in arrays], numpy.intp)


def _stream() -> tuple[int, int]:
    """The current stream. Each thread's own default stream has the same address in every thread."""
    address = load_cupy().cuda.get_current_stream().ptr
    return address, threading.get_ident() if address == _PER_THREAD else 0


@functools.lru_cache(maxsize=None)
def load_cupy() -> Any:
    """CuPy, imported when it is first asked for.

    Raises:
        ImportError: It is missing, or older than the kernel is made for.
    """
    import cupy

    if int(cupy.__version__.split(".")[0]) < OLDEST:
        raise ImportError(
            f"the update on a GPU needs CuPy {OLDEST} or newer, found {cupy.__version__}; "
            "install cupy-cuda12x or cupy-cuda13x in its place"
        )
    return cupy


@functools.lru_cache(maxsize=None)
def _kernel(computed: str) -> Any:
    return load_cupy().ElementwiseKernel(**cuda.elementwise(computed))


@functools.lru_cache(maxsize=None)
def _table_kernel(char: str) -> Any:
    return load_cupy().RawKernel(cuda.table_source(char), cuda.TABLE_NAME)
