"""The step on CuPy arrays: a fused kernel for one parameter, and one for many. Each reads and writes an array once."""

from __future__ import annotations

import functools
import threading
from collections import deque
from typing import Any, Iterable, Sequence

import numpy

from rmsprop_graves.kernels import cuda
from rmsprop_graves.kernels import table as _table
from rmsprop_graves.kernels.arrays import are_contiguous, refuse_unfit
from rmsprop_graves.kernels.changes import Change
from rmsprop_graves.kernels.hyperparameters import floats_of

# The oldest major version of CuPy that passes a structure to a kernel by value.
OLDEST = 12
# CUDA's handle of the calling thread's default stream.
_PER_THREAD = 2


def step(
    param: Any, grad: Any, n: Any, g: Any, delta: Any, *, lr: float, alpha: float, momentum: float, eps: float
) -> None:
    """Steps one parameter in place: writes param, n, g and delta, bit-identical to the NumPy kernel.

    Runs asynchronously on the current stream of the current device. Arrays may have any memory layout. float16 is
    computed in float32 and rounded once when stored; float32 and float64 are computed in their own dtype.

    Args:
        param: The parameter, of any shape; float16, float32 or float64.
        grad: Its gradient, of the same shape and dtype.
        n: Running mean of the squared gradient, of the same shape and dtype.
        g: Running mean of the gradient, of the same shape and dtype.
        delta: The last step, of the same shape and dtype.
        lr: Step size; any finite number.
        alpha: Decay rate of ``n`` and ``g``; >= 0.
        momentum: Decay rate of ``delta``; >= 0.
        eps: Added inside the root, in units of squared gradient; >= 0.

    Raises:
        TypeError: ``param`` has another dtype than these three, or another array has another dtype than ``param``;
            nothing is written.
        ValueError: ``param`` or a state has elements that share memory, or an array has another shape; nothing is
            written.
        ImportError: CuPy is missing or too old.
    """
    types = cuda.TYPES.get(param.dtype.char)
    if types is None:
        raise TypeError(f"param must be of {', '.join(cuda.DTYPES)}, got {param.dtype}")
    # CuPy itself refuses states of another shape before it launches a kernel, but it broadcasts a gradient.
    if not (
        param.dtype == n.dtype == g.dtype == delta.dtype
        and param.shape == grad.shape
        and are_contiguous((param, n, g, delta))
    ):
        refuse_unfit(param, grad, n=n, g=g, delta=delta)
    _kernel(types[1])(grad, *floats_of(lr, alpha, momentum, eps), param, n, g, delta)


class Table(_table.Table):
    """Addresses of parameters and states in the device's memory, for stepping all of them in one launch.

    The constructor copies the addresses to the current device, on the current stream; the table belongs to both.
    Neither the constructor nor a step waits for the device.

    Every array must be C-contiguous and on that device, and have the parameter's shape and dtype: float16, float32 or
    float64. More than `ROWS` parameters or `SETS` different hyperparameter sets need several launches.
    """

    CHARS = "".join(cuda.TYPES)

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
        # The number of chunks before each parameter, and the total.
        self._chunk_bounds = numpy.cumsum([0, *counts]).tolist()
        chunks = numpy.empty(self._chunk_bounds[-1], cuda.CHUNK)
        chunks["row"] = numpy.repeat(numpy.arange(len(rows)), counts)
        chunks["place"] = numpy.arange(len(chunks)) - numpy.repeat(self._chunk_bounds[:-1], counts)
        self._on_device = cupy.asarray(numpy.frombuffer(rows.tobytes() + chunks.tobytes(), numpy.uint8))
        self._kernel = _table_kernel(dtype.char)
        launch = numpy.zeros(1, cuda.launch_layout(dtype.char))
        launch["rows"] = self._on_device.data.ptr
        self._chunks_at = self._on_device.data.ptr + rows.nbytes
        # The fields that change, and the argument as raw bytes, which CuPy packs five times as fast as a structure.
        self._fields = {name: launch[name] for name in ("chunks", "first")}
        self._fields.update({name: launch[name][0] for name in ("grads", "hyperparameters", "set")})
        self._packed: Any = None
        self._argument = launch.view(f"V{launch.itemsize}")
        return addresses

    def _locate_grads(self, grads: list[Any]) -> numpy.ndarray | None:
        dtype, device_id = self._dtype, self._device_id
        if [grad.shape for grad in grads] != self._shapes:
            return None
        if [grad.dtype for grad in grads].count(dtype) < len(grads):
            return None
        datas = [grad.data for grad in grads]
        if [data.device_id for data in datas].count(device_id) < len(grads):
            return None
        for place, grad in enumerate([] if are_contiguous(grads) else grads):
            if not are_contiguous([grad]):
                if self._reads_what_is_written(grad, datas[place].ptr):
                    return None
                grads[place] = grad.copy()
                datas[place] = grads[place].data
        return numpy.array([data.ptr for data in datas], numpy.intp)

    def _is_as_it_was(self) -> bool:
        # On another stream a launch could run before the addresses are copied, or after their memory is reused.
        # Only the shape of a CuPy array can change in place.
        return self._stream == _stream() and all(
            [array.shape for array in column] == self._shapes for column in self._columns
        )

    def _fits(self, shape: tuple[int, ...], array: Any) -> bool:
        return (
            type(array) is type(self._columns[0][0])
            and are_contiguous([array])
            and array.shape == shape
            and array.dtype == self._dtype
            and array.data.device_id == self._device_id
        )

    def _step(
        self,
        grads: numpy.ndarray,
        sets: numpy.ndarray,
        set_of: numpy.ndarray,
        changes: Sequence[Change],
        then: Iterable[object],
    ) -> None:
        first = 0
        while first < len(set_of):
            piece = set_of[first : first + cuda.ROWS].tolist()
            used = list(dict.fromkeys(piece))
            if len(used) > cuda.SETS:
                piece = piece[: piece.index(used[cuda.SETS])]
                used = used[: cuda.SETS]
            number_of = {row: number for number, row in enumerate(used)}
            numbers = bytes([number_of[row] for row in piece] if len(used) > 1 else len(piece))
            self._launch(first, grads[first : first + len(piece)], sets[used], numbers)
            first += len(piece)
        deque(then, maxlen=0)

    def _launch(self, first: int, grads: numpy.ndarray, sets: numpy.ndarray, set_of: bytes) -> None:
        """Steps `len(grads)` parameters, starting with number `first`."""
        begin, end = self._chunk_bounds[first], self._chunk_bounds[first + len(grads)]
        if begin == end:
            return
        fields = self._fields
        fields["grads"][: len(grads)] = grads
        # The other fields rarely differ from the last launch.
        rest = first, sets.tobytes(), set_of
        if rest != self._packed:
            self._packed = rest
            fields["chunks"][0] = self._chunks_at + begin * cuda.CHUNK.itemsize
            fields["first"][0] = first
            with numpy.errstate(over="ignore"):
                fields["hyperparameters"][: len(sets)] = sets
            fields["set"][: len(grads)] = numpy.frombuffer(set_of, numpy.uint8)
        self._kernel((end - begin,), (cuda.THREADS,), (self._argument,))


def _addresses(arrays: list[Any]) -> numpy.ndarray:
    return numpy.array([array.data.ptr for array in arrays], numpy.intp)


def _stream() -> tuple[int, int]:
    """The current stream's handle, and the thread if it is a per-thread default stream: these share one handle."""
    address = load_cupy().cuda.get_current_stream().ptr
    return address, threading.get_ident() if address == _PER_THREAD else 0


@functools.lru_cache(maxsize=None)
def load_cupy() -> Any:
    """Imports and returns CuPy.

    Raises:
        ImportError: CuPy is missing or too old.
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
