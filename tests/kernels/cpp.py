"""Build the source of the CUDA kernels with g++ and run it on NumPy arrays.

`ElementwiseKernel` and `RawKernel` take the arguments of CuPy's classes. `DEFINITIONS` stands in for CUDA's headers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
from types import SimpleNamespace

import numpy
import pytest

from rmsprop_graves.kernels import cupy as kernel

# Do not fuse a multiplication with an addition. Trap on an unaligned vector, which a GPU cannot load.
FLAGS = ("-ffp-contract=off", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")

# The type of float16, and the names that CUDA's compiler predefines.
DEFINITIONS = """
#include <cmath>
#include <cstddef>

struct __half {
    _Float16 bits;
    __half() = default;
    __half(float value) : bits(value) {}
    operator float() const { return bits; }
    __half &operator+=(float value) { return *this = *this + value; }
    __half &operator*=(float value) { return *this = *this * value; }
};
typedef __half float16;
typedef float float32;
typedef double float64;
using std::sqrt;
template <typename F> F rsqrt(F x) { return 1 / sqrt(x); }

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __builtin_assume(condition)
#define __isGlobal(pointer) true
static thread_local struct { unsigned x; } threadIdx, blockIdx;
"""

LOOP = """
typedef {dtype} T;
{preamble}

extern "C" void {name}(std::size_t size, {params}) {{
    for (std::size_t i = 0; i < size; ++i) {{
        {references}
        {operation};
    }}
}}
"""

GRID = """
{source}

extern "C" void run(const unsigned *blocks, unsigned count, unsigned threads, const {argument} *argument) {{
    for (unsigned i = 0; i < count; ++i) {{
        blockIdx.x = blocks[i];
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            {name}(*argument);
    }}
}}
"""


def build(source, folder):
    """Build the definitions and the source, once per folder, and load the library."""
    if shutil.which("g++") is None:
        pytest.skip("not installed: g++ (a C++ compiler, from the system)")
    path = folder / f"{hashlib.sha256(source.encode()).hexdigest()}.so"
    if not path.exists():
        (folder / "cuda_fp16.h").write_text("// DEFINITIONS has its types.\n")
        command = ["g++", "-x", "c++", "-", "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{folder}", *FLAGS]
        # g++ does not know CUDA's pragmas.
        command += ["-Wno-unknown-pragmas", "-o", str(path)]
        built = subprocess.run(command, input=DEFINITIONS + source, stderr=subprocess.PIPE, text=True, check=False)
        if "_Float16" in built.stderr and built.returncode != 0:
            pytest.skip("this g++ has no _Float16 in C++; 12 and later do")
        assert built.returncode == 0, built.stderr
    return ctypes.CDLL(str(path))


class ElementwiseKernel:
    """CuPy's class for contiguous NumPy arrays of one dtype."""

    def __init__(self, in_params, out_params, operation, name, preamble="", *, folder):
        """Take CuPy's arguments, and the folder in which to build."""
        self.params = [param.split() for param in f"{in_params}, {out_params}".split(", ")]
        self.texts = {"operation": operation, "name": name, "preamble": preamble}
        self.folder = folder

    def __call__(self, *arguments):
        """Step arrays of one dtype; the first one is the gradient."""
        dtype = arguments[0].dtype
        assert all(a.dtype == dtype and a.flags.c_contiguous for a in arguments if isinstance(a, numpy.ndarray))
        call = [ctypes.c_size_t(arguments[0].size)]
        for (kind, _), value in zip(self.params, arguments):
            ctype = {"T": ctypes.c_void_p, "float32": ctypes.c_float, "float64": ctypes.c_double}[kind]
            call.append(ctype(value.ctypes.data if kind == "T" else value))
        getattr(self.library(dtype.name), self.texts["name"])(*call)

    @functools.lru_cache(maxsize=None)  # noqa: B019  kept for the session, as the library is
    def library(self, dtype):
        """Build and load the loop over arrays of a dtype."""
        source = LOOP.format(
            dtype=dtype,
            params=", ".join(f"T *_{name}" if kind == "T" else f"const {kind} {name}" for kind, name in self.params),
            references=" ".join(f"T &{name} = _{name}[i];" for kind, name in self.params if kind == "T"),
            **self.texts,
        )
        return build(source, self.folder)


class RawKernel:
    """CuPy's class, for a one-dimensional kernel whose only argument is a struct passed by value.

    Blocks run in a random order, so that a kernel whose result depends on their order fails its tests. The threads of
    a block run in order.
    """

    def __init__(self, source, name, *, folder):
        """Take CuPy's arguments, and the folder in which to build."""
        argument = source.split(f"{name}(const ")[1].split()[0]
        self.library = build(GRID.format(source=source, name=name, argument=argument), folder)

    def __call__(self, grid, block, arguments, blocks=slice(None)):
        """Run the grid, or some of its blocks."""
        (count,), (threads,), (argument,) = grid, block, arguments
        blocks = numpy.random.RandomState(0).permutation(numpy.arange(count, dtype=numpy.uint32)[blocks])
        self.library.run(
            ctypes.c_void_p(blocks.ctypes.data),
            ctypes.c_uint(len(blocks)),
            ctypes.c_uint(threads),
            ctypes.c_void_p(argument.ctypes.data),
        )


def use(monkeypatch, folder):
    """Make `rmsprop_graves.kernels.cupy.step` run in C++ on contiguous NumPy arrays."""
    stand_in = functools.partial(ElementwiseKernel, folder=folder)
    monkeypatch.setattr(kernel, "load_cupy", lambda: SimpleNamespace(ElementwiseKernel=stand_in))
    monkeypatch.setattr(kernel, "_kernel", functools.lru_cache(maxsize=None)(kernel._kernel.__wrapped__))
