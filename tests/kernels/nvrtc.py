"""Compile the kernels with NVRTC, with the headers and options of CuPy, but without a GPU."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import NamedTuple

import numpy
import pytest

from rmsprop_graves.kernels import cuda

# From Turing, the oldest that CUDA 13 supports, to Blackwell.
ARCHITECTURES = (75, 80, 90, 100, 120)


class Compiled(NamedTuple):
    """PTX, machine code, and the assembler's report."""

    ptx: str
    cubin: bytes
    report: str


class Compiler:
    """NVRTC, with a cache of compiled kernels."""

    def __init__(self):
        """Find NVRTC and CUDA's headers, or skip the test."""
        try:
            from cupy_backends.cuda.libs import nvrtc

            self.version = nvrtc.getVersion()
        except Exception as error:
            # An ImportError if CuPy is missing; if NVRTC is missing, the error of CuPy's loader.
            pytest.skip(f"no CUDA compiler, extra nvrtc brings it: {str(error).splitlines()[0]}")
        self.nvrtc = nvrtc
        try:
            self.compile("#include <cuda_fp16.h>\n", 90)
        except RuntimeError as error:
            # CuPy raises it if it finds no headers, and `compile` if one is missing.
            pytest.skip(f"no headers of the CUDA runtime, extra nvrtc brings them: {str(error).splitlines()[0]}")

    @functools.lru_cache(maxsize=None)  # noqa: B019  there is one
    def step(self, dtype, layout, architecture, *options):
        """Compile the kernel of one parameter for arrays of a dtype and layout."""
        return self.compile(self.source(dtype, layout), architecture, *options)

    @functools.lru_cache(maxsize=None)  # noqa: B019  there is one
    def table(self, dtype, architecture, *options):
        """Compile the kernel of a table for a dtype."""
        return self.compile(cuda.table_source(numpy.dtype(dtype).char), architecture, *options, headers=False)

    def compile(self, code, architecture, *options, headers=True):
        """Compile for an architecture as cupy.cuda.compiler does."""
        from cupy._core import core
        from cupy.cuda import compiler

        given = []
        with pytest.MonkeyPatch.context() as patch:
            # This function needs a device. Its arguments, the source and the options, do not.
            patch.setattr(compiler, "_compile_module_with_cache", lambda *args, **_: given.extend(args[:2]))
            core.compile_with_cache(code, (), prepend_cupy_headers=headers)
        source, cupy_options = given
        options = (*cupy_options, "-ftz=true", f"-arch=sm_{architecture}", "--ptxas-options=-v", *options)
        program = self.nvrtc.createProgram(source, f"{cuda.NAME}.cu", (), ())
        try:
            try:
                self.nvrtc.compileProgram(program, options)
            except self.nvrtc.NVRTCError as error:
                raise RuntimeError(f"{error}: {self.nvrtc.getProgramLog(program)}") from error
            ptx = self.nvrtc.getPTX(program).decode()
            return Compiled(ptx, self.nvrtc.getCUBIN(program), self.nvrtc.getProgramLog(program))
        finally:
            self.nvrtc.destroyProgram(program)

    def source(self, dtype, layout):
        """Return the code that a launch on arrays of a dtype and layout would compile."""
        import cupy
        from cupy._core import _carray, _kernel, _scalar

        made = cupy.ElementwiseKernel(**cuda.elementwise("double" if dtype == "float64" else "float"))
        is_array = [param.ctype == "T" for param in made.params[:-1]]
        dtypes = tuple(numpy.dtype(dtype) if array else None for array in is_array)
        # Infer the type letters from the arrays, as a call does first.
        in_types, out_types, type_map = made._decide_params_type(dtypes[: made.nin], dtypes[made.nin :])
        ndim = 1 + (layout == "strided")
        array = (1, cupy.ndarray), (ndim, layout == "contiguous", True)
        scalar = (3, _scalar.CScalar), (0, True, True)
        infos = [
            _kernel._ArgInfo(*kind, numpy.dtype(of_type), *shape)
            for (kind, shape), of_type in zip((array if is_a else scalar for is_a in is_array), in_types + out_types)
        ]
        infos.append(_kernel._ArgInfo(2, _carray.Indexer, None, ndim, True, True))
        return _kernel._get_elementwise_kernel_code(
            tuple(infos), type_map, made.params, made.operation, made.name, made.preamble
        )


def instructions(ptx):
    """Return the instructions of a kernel, in order."""
    return re.findall(r"^\s*\{?\s*(?:@!?%p\d+\s+)?([a-z][\w.:]+)\s", ptx, re.MULTILINE)


# The number of each operation for one element. The last addition is there twice, because it is repeated after a NaN.
OPERATIONS = {"mul": 7, "add": 5, "sub": 3, "div": 1, "sqrt": 1}


def rounded_elements(ptx, dtype):
    """Assert that the operations are the rule's, rounded and not flushed; return the number of unrolled elements.

    A comparison may flush subnormal numbers if that cannot change its result: a comparison with the largest number, or
    of a number with itself.
    """
    real = "f64" if dtype == "float64" else "f32"
    counts = Counter(re.findall(r"\b((?:add|sub|mul|div|sqrt|fma|mad|rcp|rsqrt|min|max|abs)\.[\w.]*f\d\d)\b", ptx))
    elements = counts[f"div.rn.{real}"]
    assert counts == {f"{name}.rn.{real}": count * elements for name, count in OPERATIONS.items()}
    for code, operands in re.findall(r"\b(\w+(?:\.\w+)*\.ftz[\w.]*)\s+(.*);", ptx):
        _, one, other = operands.split(", ")
        assert code.startswith("setp."), code
        assert one == other or other in ("0f7F7FFFFF", "0fFF7FFFFF"), (code, operands)
    conversions = Counter(re.findall(r"\bcvt\.\S*f\d\d\S*", ptx))
    assert conversions == ({"cvt.f32.f16": 5 * elements, "cvt.rn.f16.f32": 4 * elements} if dtype == "float16" else {})
    return elements
