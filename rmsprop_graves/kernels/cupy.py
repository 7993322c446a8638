"""The step on CuPy arrays: fused kernels, of one parameter and of many, that read and write each array once."""

from __future__ import annotations

import functools
import operator
import struct
from typing import Any, Iterator

import numpy

from rmsprop_graves.kernels.hyperparameters import runs
from rmsprop_graves.kernels.overlap import Written

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


class Table:
    """Parameters and their states by the addresses of their arrays, stepped in one launch.

    The addresses lie in the memory of the device, copied there when the table is made. It belongs to the device and
    the stream that are current then. Neither it nor a step waits for the device. A step has the bits of :func:`step`.

    Args:
        params: The parameters, of one dtype.
        ns: The running mean of the squared gradient of each.
        gs: The running mean of the gradient of each.
        deltas: The last step of each.

    Raises:
        ImportError: CuPy is older than the kernel is made for.
    """

    # A launch through a table costs less than one of the kernel for a parameter, even of one.
    FEWEST = 1

    def __init__(self, params: list[Any], ns: list[Any], gs: list[Any], deltas: list[Any]) -> None:
        # They also keep what is at the addresses.
        self._columns = columns = [params, ns, gs, deltas]
        self._dtype = dtype = params[0].dtype
        cupy = load_cupy()
        self._device_id = cupy.cuda.Device().id
        # None where an array cannot be stepped by its address.
        self._shapes = [arrays[0].shape if self._fit(*arrays) else None for arrays in zip(*columns)]
        sizes = numpy.array([0 if shape is None else param.size for shape, param in zip(self._shapes, params)])
        self._nbytes = (sizes * dtype.itemsize).astype(numpy.uintp)
        addresses = numpy.array([_addresses(column) for column in columns])
        self._written = Written(addresses, self._nbytes)

        rows = numpy.stack([*addresses, sizes.astype(numpy.uintp)], axis=1)
        counts = -(-sizes * dtype.itemsize // CHUNK_BYTES)
        # Before each row, how many chunks.
        self._bounds = numpy.cumsum([0, *counts])
        chunks = numpy.empty(self._bounds[-1], _CHUNK)
        chunks["row"] = numpy.repeat(numpy.arange(len(params)), counts)
        chunks["place"] = numpy.arange(len(chunks)) - numpy.repeat(self._bounds[:-1], counts)
        self._on_device = cupy.asarray(numpy.frombuffer(rows.tobytes() + chunks.tobytes(), numpy.uint8))
        self._chunks_at = self._on_device.data.ptr + rows.nbytes
        self._stream = _stream()

    def holds(self, params: list[Any], ns: list[Any], gs: list[Any], deltas: list[Any]) -> bool:
        """Whether it is of these very arrays and of the current stream."""
        # On another stream what it holds might not be there yet, and might be gone before it has been read.
        return (
            len(params) == len(self._nbytes)
            and all(all(map(operator.is_, *columns)) for columns in zip(self._columns, (params, ns, gs, deltas)))
            and self._stream == _stream()
        )

    def misfits(self, grads: list[Any]) -> list[int]:
        """The places of parameters that cannot be stepped by their addresses, with these gradients.

        Those are among them that were given another shape in place since the table was made. A state that was is not:
        to ask for its shape takes longer than all else, and it is stepped element by element as it lies there.
        """
        dtype = self._dtype
        return [
            place
            for place, (shape, grad, param) in enumerate(zip(self._shapes, grads, self._columns[0]))
            if not (
                grad.shape == shape == param.shape
                and grad.dtype == dtype
                and grad.data.device_id == self._device_id
                and _is_contiguous(grad)
            )
        ]

    def step(self, grads: list[Any], hyperparameters: list[dict[str, float]], first: int, last: int) -> None:
        """Steps the parameters at places from first to before last, in order; no misfit may be among them.

        It takes one launch; more where they have more than `SETS` different hyperparameters, or are more than `ROWS`,
        or share memory.

        Args:
            grads: The gradient of each parameter.
            hyperparameters: lr, alpha, momentum and eps of each.
            first: The first place.
            last: The place after the last.
        """
        addresses = _addresses(grads[first:last])
        if self._written.includes(addresses, self._nbytes[first:last]):
            for place in range(first, last):
                param, *states = (column[place] for column in self._columns)
                step(param, grads[place], *states, **hyperparameters[place])
            return
        for begin, end in self._written.runs(first, last):
            for start, sets, set_of in _launches(hyperparameters, begin, end):
                self._launch(addresses[start - first :], start, sets, set_of)

    def _fit(self, *arrays: Any) -> bool:
        """Whether arrays are alike, laid out as the kernel takes them, and on the table's device."""
        shape = arrays[0].shape
        return self._dtype.name in _TYPES and all(
            array.dtype == self._dtype
            and array.shape == shape
            and array.data.device_id == self._device_id
            and _is_contiguous(array)
            for array in arrays
        )

    def _launch(self, addresses: numpy.ndarray, first: int, sets: bytes, set_of: list[int]) -> None:
        """Steps as many parameters as there are numbers of sets, from first on, as the addresses are."""
        last = first + len(set_of)
        begin, end = int(self._bounds[first]), int(self._bounds[last])
        if begin == end:
            return
        kernel, layout = _table_kernel(self._dtype.name)
        launch = numpy.zeros(1, layout)
        launch["rows"] = self._on_device.data.ptr
        launch["chunks"] = self._chunks_at + begin * _CHUNK.itemsize
        launch["grads"][0, : len(set_of)] = addresses[: len(set_of)]
        values = numpy.frombuffer(sets).reshape(-1, 5)
        with numpy.errstate(over="ignore"):
            launch["hyperparameters"][0, : len(values)] = values
        launch["first"] = first
        launch["set"][0, : len(set_of)] = set_of
        kernel((end - begin,), (THREADS,), (launch,))


def _launches(
    hyperparameters: list[dict[str, float]], first: int, last: int
) -> Iterator[tuple[int, bytes, list[int]]]:
    """Of each launch the first row, the sets of hyperparameters in it, and of each row the number of its set."""
    sets: dict[bytes, int] = {}
    set_of: list[int] = []
    for values, left in runs(hyperparameters[first:last]):
        own = _pack_set(values)
        while left:
            if len(set_of) == ROWS or (len(sets) == SETS and own not in sets):
                yield first, b"".join(sets), set_of
                first += len(set_of)
                sets, set_of = {}, []
            fitting = min(left, ROWS - len(set_of))
            set_of += [sets.setdefault(own, len(sets))] * fitting
            left -= fitting
    yield first, b"".join(sets), set_of


def _pack_set(values: dict[str, float]) -> bytes:
    alpha = values["alpha"]
    return struct.pack("5d", values["lr"], alpha, 1 - alpha, values["momentum"], values["eps"])


def _is_contiguous(array: Any) -> bool:
    try:
        # `flags` takes ten times as long.
        return array._c_contiguous  # type: ignore[no-any-return]
    except AttributeError:
        return array.flags.c_contiguous  # type: ignore[no-any-return]


def _addresses(arrays: list[Any]) -> numpy.ndarray:
    return numpy.array([array.data.ptr for array in arrays], numpy.uintp)


def _stream() -> int:
    return load_cupy().cuda.get_current_stream().ptr  # type: ignore[no-any-return]


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


@functools.lru_cache(maxsize=None)
def _table_kernel(dtype: str) -> tuple[Any, numpy.dtype]:
    """The kernel of a table of the dtype, and the layout of its one argument."""
    stored, computed = _TYPES[dtype]
    layout = numpy.dtype(
        [
            ("rows", numpy.uint64),
            ("chunks", numpy.uint64),
            ("grads", numpy.uint64, ROWS),
            ("hyperparameters", _NUMPY_NAMES[computed], (SETS, 5)),
            ("first", numpy.uint32),
            ("set", numpy.uint8, ROWS),
        ],
        align=True,
    )
    source = TABLE_SOURCE % {
        "stored": stored,
        "preamble": PREAMBLE % (computed, computed[0]),
        "threads": THREADS,
        "chunk_bytes": CHUNK_BYTES,
        "rows": ROWS,
        "sets": SETS,
        "launch_bytes": layout.itemsize,
        "operation": OPERATION,
        "name": TABLE_NAME,
    }
    return load_cupy().RawKernel(source, TABLE_NAME), layout
