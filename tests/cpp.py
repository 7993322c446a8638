"""The CUDA kernel's text in a C++ loop over NumPy arrays, built by g++.

With -DFLUSH the loop runs as CUDA does under -ftz=true: subnormal numbers are zero, on an x86.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest

from rmsprop_graves.kernels import cupy as kernel

# The function that makes a kernel, without the cache that keeps it.
make_kernel = kernel._kernel.__wrapped__

LOOP = """
#include <cmath>
#include <cstddef>
#ifdef FLUSH
#include <xmmintrin.h>
#endif

struct float16 {{
    _Float16 bits;
    float16(float value) : bits(value) {{}}
    operator float() const {{ return bits; }}
}};
typedef float float32;
typedef double float64;
using std::fma;
using std::sqrt;

typedef {dtype} T;
{preamble}

extern "C" void {name}(std::size_t size, {params}) {{
#ifdef FLUSH
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
#endif
    for (std::size_t i = 0; i < size; ++i) {{
        {references}
        {operation}
    }}
#ifdef FLUSH
    _mm_setcsr(mode);
#endif
}}

extern "C" double multiply_add(double a, double b, double c) {{ return a * b + c; }}
"""


class ElementwiseKernel:
    """CuPy's class for contiguous NumPy arrays of one dtype."""

    def __init__(self, in_params, out_params, operation, name, preamble="", *, folder, flags):
        """Takes what CuPy does, where to build and the flags to build with."""
        self.params = [param.split() for param in f"{in_params}, {out_params}".split(", ")]
        self.texts = {"operation": operation, "name": name, "preamble": preamble}
        self.folder, self.flags = folder, flags

    def __call__(self, *arguments):
        """Steps arrays of one dtype, the gradient first."""
        dtype = arguments[0].dtype
        assert all(a.dtype == dtype and a.flags.c_contiguous for a in arguments if isinstance(a, numpy.ndarray))
        call = [ctypes.c_size_t(arguments[0].size)]
        for (kind, _), value in zip(self.params, arguments):
            ctype = {"T": ctypes.c_void_p, "float32": ctypes.c_float, "float64": ctypes.c_double}[kind]
            call.append(ctype(value.ctypes.data if kind == "T" else value))
        getattr(self.library(dtype.name), self.texts["name"])(*call)

    @functools.lru_cache(maxsize=None)  # noqa: B019  kept for the session, as the library is
    def library(self, dtype):
        """The loop over arrays of the dtype, built when first asked for."""
        source = LOOP.format(
            dtype=dtype,
            params=", ".join(f"T *_{name}" if kind == "T" else f"const {kind} {name}" for kind, name in self.params),
            references=" ".join(f"T &{name} = _{name}[i];" for kind, name in self.params if kind == "T"),
            **self.texts,
        )
        path = self.folder / f"{dtype}.so"
        command = ["g++", "-x", "c++", "-", "-std=c++17", "-O2", "-shared", "-fPIC", *self.flags, "-o", str(path)]
        built = subprocess.run(command, input=source, stderr=subprocess.PIPE, text=True, check=False)
        if "_Float16" in built.stderr:
            pytest.skip("this g++ has no _Float16 in C++; 12 and later do")
        assert built.returncode == 0, built.stderr
        return ctypes.CDLL(str(path))


def kernels(folder, *flags):
    """What `_kernel` returns for float and for double, with g++ in the place of CuPy."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    stand_in = functools.partial(ElementwiseKernel, folder=folder, flags=flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", SimpleNamespace(ElementwiseKernel=stand_in))
        return {"float": make_kernel("float"), "double": make_kernel("double")}
