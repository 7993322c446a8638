"""The step on CuPy arrays: fused kernels, of one parameter and of many, that read and write each array once."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy

from rmsprop_graves.kernels import table as _table

# What the kernels compute for one element, in CUDA C++. `T` is the type stored and `C` the type computed in.
# The order is: load everything, compute, store everything, since a store between two loads would make the
# compiler load again. `LOADED` has delta loaded there too: the compiler would move it down to its use, below root and
# quotient, and every thread would wait for the memory twice. Every product that feeds a sum is an explicit fma, which
# leaves the compiler nothing to contract: any compiler gives the same bits. The comparison keeps a NaN, which fmax
# would hide.
IN_PARAMS = "T grad, C lr, C alpha, C one_minus_alpha, C momentum, C eps"
OUT_PARAMS = "T param, T n, T g, T delta"
OPERATION = """
    const C x = grad, w = param, n0 = n, g0 = g;
    C delta0 = delta;
    LOADED(delta0);

    const C t = one_minus_alpha * x;
    const C n1 = fma(alpha, n0, t * x);
    const C g1 = fma(alpha, g0, t);
    const C v = fma(-g1, g1, n1);
    const C delta1 = fma(momentum, delta0, -(lr * x) / sqrt((v < 0 ? C(0) : v) + eps));

    n = n1;
    g = g1;
    delta = delta1;
    param = w + delta1;
"""
# By the type computed in.
PREAMBLE = """
typedef %s C;
#ifdef __CUDACC__
#define LOADED(value) asm volatile("" : "+%s"(value))
#else
#define LOADED(value)
#endif
"""
NAME = "rmsprop_graves_step"
OLDEST = 12

# The kernel of a table. A block steps one chunk of one parameter: as 16-byte vectors where all five arrays allow it,
# else, and what is left over, element by element. What changes from step to step, the addresses of the gradients and
# the hyperparameters, comes by value, so that no copy to the device precedes a launch.
TABLE_SOURCE = """
#include <cuda_fp16.h>

typedef %(stored)s T;
%(preamble)s

const unsigned THREADS = %(threads)d, LANES = 16 / sizeof(T), CHUNK = %(chunk_bytes)d / sizeof(T);

struct Row {
    T *param, *n, *g, *delta;
    unsigned long long size;
};

struct Chunk {
    unsigned row, place;
};

struct Launch {
    const Row *rows;
    const Chunk *chunks;
    const T *grads[%(rows)d];
    C hyperparameters[%(sets)d][5];
    unsigned first;
    unsigned char set[%(rows)d];
};
static_assert(sizeof(Launch) == %(launch_bytes)d, "the host packs it otherwise");

struct alignas(16) Vector {
    T lane[LANES];
};

// What a row has the addresses of is then loaded and stored by instructions for global memory, not by generic ones.
template <typename P> __device__ __forceinline__ P *global(P *pointer) {
    __builtin_assume(__isGlobal(pointer));
    return pointer;
}

__device__ __forceinline__ void step(const T &grad, T &param, T &n, T &g, T &delta, const C (&hyperparameters)[5]) {
    const C lr = hyperparameters[0], alpha = hyperparameters[1], one_minus_alpha = hyperparameters[2];
    const C momentum = hyperparameters[3], eps = hyperparameters[4];
    %(operation)s
}

extern "C" __global__ void __launch_bounds__(%(threads)d) %(name)s(const Launch launch) {
    const Chunk chunk = launch.chunks[blockIdx.x];
    const Row row = launch.rows[chunk.row];
    const unsigned place = chunk.row - launch.first;
    const C (&hyperparameters)[5] = launch.hyperparameters[launch.set[place]];

    const unsigned long long begin = (unsigned long long)chunk.place * CHUNK;
    const unsigned count = row.size - begin < CHUNK ? row.size - begin : CHUNK;
    const T *const grad = launch.grads[place] + begin;
    T *const param = global(row.param + begin);
    T *const n = global(row.n + begin);
    T *const g = global(row.g + begin);
    T *const delta = global(row.delta + begin);

    const auto address = [](const T *pointer) { return (unsigned long long)pointer; };
    unsigned done = 0;
    if ((address(grad) | address(param) | address(n) | address(g) | address(delta)) %% sizeof(Vector) == 0) {
        done = count - count %% LANES;
        for (unsigned i = threadIdx.x * LANES; i < done; i += THREADS * LANES) {
            const Vector grads = *(const Vector *)(grad + i);
            Vector params = *(Vector *)(param + i), ns = *(Vector *)(n + i), gs = *(Vector *)(g + i);
            Vector deltas = *(Vector *)(delta + i);
            #pragma unroll
            for (unsigned k = 0; k < LANES; ++k)
                step(grads.lane[k], params.lane[k], ns.lane[k], gs.lane[k], deltas.lane[k], hyperparameters);
            *(Vector *)(param + i) = params;
            *(Vector *)(n + i) = ns;
            *(Vector *)(g + i) = gs;
            *(Vector *)(delta + i) = deltas;
        }
    }
    for (unsigned i = done + threadIdx.x; i < count; i += THREADS)
        step(grad[i], param[i], n[i], g[i], delta[i], hyperparameters);
}
"""
TABLE_NAME = "rmsprop_graves_step_table"
THREADS = 256
# Four vectors for each thread.
CHUNK_BYTES = 4 * 16 * THREADS
# As many as the 4 KiB of a launch's arguments hold.
ROWS = 400
SETS = 8

# What each dtype is stored in, and what it is computed in.
_TYPES = {"float16": ("__half", "float"), "float32": ("float", "float"), "float64": ("double", "double")}
_NUMPY_NAMES = {"float": "float32", "double": "float64"}
# CUDA's name for the default stream of the thread that asks.
_PER_THREAD = 2
_CHUNK = numpy.dtype([("row", numpy.uint32), ("place", numpy.uint32)])


def step(
    param: Any, grad: Any, n: Any, g: Any, delta: Any, *, lr: float, alpha: float, momentum: float, eps: float
) -> None:
    """Steps one parameter in place: writes param, n, g and delta.

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
    if param.dtype.name not in _TYPES:
        raise TypeError(f"param must be of {', '.join(_TYPES)}, got {param.dtype}")
    kernel = _kernel(_TYPES[param.dtype.name][1])
    kernel(grad, lr, alpha, 1 - alpha, momentum, eps, param, n, g, delta)


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
        if dtype.name not in _TYPES or not all(
            self._fits(shape, array) for column in self._columns for shape, array in zip(self._shapes, column)
        ):
            return None
        addresses = numpy.array([_addresses(column) for column in self._columns])
        rows = numpy.stack([*addresses, self._sizes], axis=1)
        counts = -(-self._nbytes // CHUNK_BYTES)
        # The number of chunks before each parameter, and of all.
        self._chunk_bounds = numpy.cumsum([0, *counts]).tolist()
        chunks = numpy.empty(self._chunk_bounds[-1], _CHUNK)
        chunks["row"] = numpy.repeat(numpy.arange(len(rows)), counts)
        chunks["place"] = numpy.arange(len(chunks)) - numpy.repeat(self._chunk_bounds[:-1], counts)
        self._on_device = cupy.asarray(numpy.frombuffer(rows.tobytes() + chunks.tobytes(), numpy.uint8))
        self._kernel = _table_kernel(dtype.name)
        launch = numpy.zeros(1, launch_layout(dtype.name))
        launch["rows"] = self._on_device.data.ptr
        self._chunks_at = self._on_device.data.ptr + rows.nbytes
        # The fields that change, and the whole as bytes, which CuPy packs five times as fast as a structured array.
        self._fields = {name: launch[name] for name in ("chunks", "first")}
        self._fields.update({name: launch[name][0] for name in ("grads", "hyperparameters", "set")})
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
            _is_contiguous(array)
            and array.shape == shape
            and array.dtype == self._dtype
            and array.data.device_id == self._device_id
        )

    def _step(self, grads: numpy.ndarray, sets: numpy.ndarray, set_of: numpy.ndarray) -> None:
        first = 0
        while first < len(set_of):
            piece = set_of[first : first + ROWS].tolist()
            used = list(dict.fromkeys(piece))
            if len(used) > SETS:
                piece = piece[: piece.index(used[SETS])]
                used = used[:SETS]
            number_of = {row: number for number, row in enumerate(used)}
            self._launch(first, grads[first : first + len(piece)], sets[used], bytes(number_of[row] for row in piece))
            first += len(piece)

    def _launch(self, first: int, grads: numpy.ndarray, sets: numpy.ndarray, set_of: bytes) -> None:
        """Steps as many parameters from `first` on as there are gradients."""
        begin, end = self._chunk_bounds[first], self._chunk_bounds[first + len(grads)]
        if begin == end:
            return
        fields = self._fields
        fields["chunks"][0] = self._chunks_at + begin * _CHUNK.itemsize
        fields["first"][0] = first
        fields["grads"][: len(grads)] = grads
        with numpy.errstate(over="ignore"):
            fields["hyperparameters"][: len(sets)] = sets
        fields["set"][: len(grads)] = numpy.frombuffer(set_of, numpy.uint8)
        self._kernel((end - begin,), (THREADS,), (self._argument,))


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
def _kernel(compute: str) -> Any:
    # CuPy tells a type letter from the arrays that carry it (cupy/cupy#2091), and C is carried by scalars alone.
    in_params = IN_PARAMS.replace("C ", f"{_NUMPY_NAMES[compute]} ")
    return load_cupy().ElementwiseKernel(
        in_params, OUT_PARAMS, OPERATION, NAME, preamble=PREAMBLE % (compute, compute[0])
    )


def launch_layout(dtype: str) -> numpy.dtype:
    """The layout of the one argument of a table's kernel, `Launch` in its source."""
    return numpy.dtype(
        [
            ("rows", numpy.uint64),
            ("chunks", numpy.uint64),
            ("grads", numpy.uint64, ROWS),
            ("hyperparameters", _NUMPY_NAMES[_TYPES[dtype][1]], (SETS, 5)),
            ("first", numpy.uint32),
            ("set", numpy.uint8, ROWS),
        ],
        align=True,
    )


@functools.lru_cache(maxsize=None)
def _table_kernel(dtype: str) -> Any:
    stored, computed = _TYPES[dtype]
    source = TABLE_SOURCE % {
        "stored": stored,
        "preamble": PREAMBLE % (computed, computed[0]),
        "threads": THREADS,
        "chunk_bytes": CHUNK_BYTES,
        "rows": ROWS,
        "sets": SETS,
        "launch_bytes": launch_layout(dtype).itemsize,
        "operation": OPERATION,
        "name": TABLE_NAME,
    }
    return load_cupy().RawKernel(source, TABLE_NAME)
