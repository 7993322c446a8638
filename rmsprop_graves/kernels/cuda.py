"""The step in CUDA C++, with the types, names and sizes to compile and launch it. Does not import CuPy.

Plain CUDA C++ would not give the bits of a CPU: the compiler fuses a multiplication with an addition, and CuPy makes
it flush subnormal float32 numbers to zero. So the arithmetic is inline PTX, whose instructions round to nearest and
keep subnormal numbers. Other compilers get plain operators and must not fuse them (``-ffp-contract=off``).
"""

from __future__ import annotations

import numpy

from rmsprop_graves.kernels.hyperparameters import NAMES

#: By dtype character: the C++ types of an array's elements and of the arithmetic.
TYPES = {"e": ("__half", "float"), "f": ("float", "float"), "d": ("double", "double")}
#: NumPy's names of the same dtypes.
DTYPES = tuple(numpy.dtype(char).name for char in TYPES)
# By arithmetic type: NumPy's name; PTX's type, register constraint and zero; the largest finite number.
_COMPUTED = {
    "float": ("float32", "f32", "f", "0f00000000", "3.402823466385288598e+38f"),
    "double": ("float64", "f64", "d", "0d0000000000000000", "1.797693134862315708e+308"),
}

# The operators of `Real` round as NumPy does. LOADED keeps a load where it stands: the compiler would move the load of
# delta below the square root and the division, and each thread would wait for memory twice.
PREAMBLE = """
typedef %(computed)s C;

struct Real {
    C value;
    __device__ __forceinline__ Real(C value) : value(value) {}
};

#ifdef __CUDACC__
#define OPERATION(symbol, instruction) \\
    __device__ __forceinline__ Real operator symbol(Real a, Real b) { \\
        C result; \\
        asm(instruction ".%(ptx)s %%0, %%1, %%2;" : "=%(constraint)s"(result) \\
            : "%(constraint)s"(a.value), "%(constraint)s"(b.value)); \\
        return result; \\
    }
__device__ __forceinline__ Real root(Real a) {
    C result;
    asm("sqrt.rn.%(ptx)s %%0, %%1;" : "=%(constraint)s"(result) : "%(constraint)s"(a.value));
    return result;
}
// Because subnormals are flushed, the compiler's own comparison would treat them as zero.
#define CHOICE(name, symbol, instruction) \\
    __device__ __forceinline__ Real name(Real a, Real yes, Real no) { \\
        C result; \\
        asm("{.reg .pred p; " instruction ".%(ptx)s p, %%1, %(zero)s; selp.%(ptx)s %%0, %%2, %%3, p;}" \\
            : "=%(constraint)s"(result) \\
            : "%(constraint)s"(a.value), "%(constraint)s"(yes.value), "%(constraint)s"(no.value)); \\
        return result; \\
    }
#define LOADED(number) asm volatile("" : "+%(constraint)s"(number.value))
#else
#define OPERATION(symbol, instruction) \\
    inline Real operator symbol(Real a, Real b) { return a.value symbol b.value; }
inline Real root(Real a) { return sqrt(a.value); }
#define CHOICE(name, symbol, instruction) \\
    inline Real name(Real a, Real yes, Real no) { return a.value symbol 0 ? yes : no; }
#define LOADED(number)
#endif
OPERATION(+, "add.rn")
OPERATION(-, "sub.rn")
OPERATION(*, "mul.rn")
OPERATION(/, "div.rn")
CHOICE(if_negative, <, "setp.lt")
CHOICE(if_zero, ==, "setp.eq")

__device__ __forceinline__ Real capped(Real a) {
    const C largest = %(largest)s;
    return largest < a.value ? largest : a.value < -largest ? -largest : a.value;
}

// Infinity times zero would be NaN: a rate of zero resets an infinite state too.
__device__ __forceinline__ Real decayed(Real a, Real rate) { return if_zero(rate, capped(a), a) * rate; }

// Infinity minus infinity would be NaN: an infinite number stays infinite.
__device__ __forceinline__ Real unless_nan(Real a, Real other) { return a.value == a.value ? a : other; }
"""

# The step of one element, which both kernels share. `T` is the element type. All loads come first and all stores last:
# a store between them would make the compiler load again.
IN_PARAMS = ", ".join(["T grad", *(f"C {name}" for name in NAMES)])
OUT_PARAMS = "T param, T n, T g, T delta"
STEP = """
    const Real x(grad), w(param), n0(n), g0(g);
    Real delta0(delta);
    LOADED(delta0);

    const Real t = one_minus_alpha * x;
    const Real n1 = decayed(n0, alpha) + t * x;
    const Real g1 = decayed(g0, alpha) + t;
    const Real v = n1 - capped(g1 * g1);
    const Real kept = decayed(delta0, momentum);
    const Real by = lr * x / root(if_negative(v, 0, v) + eps);
    const Real delta1 = unless_nan(kept - by, kept + by);
    const Real w1 = unless_nan(w + delta1, w - delta1);

    n = n1.value;
    g = g1.value;
    delta = delta1.value;
    param = w1.value;
"""
NAME = "rmsprop_graves_step"

# The kernel of a table. A block steps one chunk of one parameter. It uses vectors of 16 bytes if all five arrays are
# aligned to 16 bytes, and single elements otherwise and for the remainder. The gradients' addresses and the
# hyperparameters change with every step; they are passed by value, so that no copy to the device precedes a launch.
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

typedef C Hyperparameters[%(width)d];

struct Launch {
    const Row *rows;
    const Chunk *chunks;
    const T *grads[%(rows)d];
    Hyperparameters hyperparameters[%(sets)d];
    unsigned first;
    unsigned char set[%(rows)d];
};
static_assert(sizeof(Launch) == %(launch_bytes)d, "launch_layout on the host differs from this struct");

struct alignas(16) Vector {
    T lane[LANES];
};

// Makes the compiler use loads and stores of global memory in place of generic ones.
template <typename P> __device__ __forceinline__ P *global(P *pointer) {
    __builtin_assume(__isGlobal(pointer));
    return pointer;
}

__device__ __forceinline__ void
step(const T &grad, T &param, T &n, T &g, T &delta, const Hyperparameters &hyperparameters) {
    %(unpacked)s
    %(step)s
}

extern "C" __global__ void __launch_bounds__(%(bounds)s) %(name)s(const Launch launch) {
    const Chunk chunk = launch.chunks[blockIdx.x];
    const Row row = launch.rows[chunk.row];
    const unsigned place = chunk.row - launch.first;
    const Hyperparameters &hyperparameters = launch.hyperparameters[launch.set[place]];

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
#: Threads per block.
THREADS = 256
#: Bytes of each array that a block steps: four vectors per thread.
CHUNK_BYTES = 4 * 16 * THREADS
#: The most parameters and different hyperparameter sets of a launch: its arguments are limited to 4 KiB.
ROWS, SETS = 400, 8
#: The index of a row, and the index of the chunk within that row.
CHUNK = numpy.dtype([("row", numpy.uint32), ("place", numpy.uint32)])


def elementwise(computed: str) -> dict[str, str]:
    """The arguments of ``cupy.ElementwiseKernel`` for the step of one parameter.

    Args:
        computed: The C++ type of the arithmetic, ``'float'`` or ``'double'``.
    """
    # CuPy infers a type letter from array arguments only (cupy/cupy#2091), and only scalars have the type C.
    in_params = IN_PARAMS.replace("C ", f"{_COMPUTED[computed][0]} ")
    return {
        "in_params": in_params,
        "out_params": OUT_PARAMS,
        "operation": STEP,
        "name": NAME,
        "preamble": _preamble(computed),
    }


def table_source(char: str) -> str:
    """The source code of a table's kernel.

    Args:
        char: The dtype's character, a key of :data:`TYPES`.
    """
    stored, computed = TYPES[char]
    return TABLE_SOURCE % {
        "stored": stored,
        "preamble": _preamble(computed),
        "threads": THREADS,
        # Unrolled for eight float16 elements, a thread would take 80 registers, and only three blocks would fit.
        "bounds": f"{THREADS}, 4" if char == "e" else THREADS,
        "chunk_bytes": CHUNK_BYTES,
        "width": len(NAMES),
        "unpacked": " ".join(f"const C {name} = hyperparameters[{place}];" for place, name in enumerate(NAMES)),
        "rows": ROWS,
        "sets": SETS,
        "launch_bytes": launch_layout(char).itemsize,
        "step": STEP,
        "name": TABLE_NAME,
    }


def launch_layout(char: str) -> numpy.dtype:
    """The structured dtype of the only argument of a table's kernel, the struct ``Launch`` of its source.

    Args:
        char: The dtype's character, a key of :data:`TYPES`.
    """
    return numpy.dtype(
        [
            ("rows", numpy.uint64),
            ("chunks", numpy.uint64),
            ("grads", numpy.uint64, ROWS),
            ("hyperparameters", _COMPUTED[TYPES[char][1]][0], (SETS, len(NAMES))),
            ("first", numpy.uint32),
            ("set", numpy.uint8, ROWS),
        ],
        align=True,
    )


def _preamble(computed: str) -> str:
    _, ptx, constraint, zero, largest = _COMPUTED[computed]
    return PREAMBLE % {"computed": computed, "ptx": ptx, "constraint": constraint, "zero": zero, "largest": largest}
