"""The source of a table's kernel, compiled by NVRTC as CuPy does, but without a GPU."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy
import pytest
from kernels import nvrtc
from kernels.cases import DTYPES

from rmsprop_graves.kernels import cuda
from rmsprop_graves.kernels import cupy as kernel


@pytest.fixture(scope="module")
def compiler():
    """NVRTC as CuPy uses it."""
    return nvrtc.Compiler()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES, ids="sm_{}".format)
def test_nvrtc_compiles_the_kernel_as_cupy_does(compiler, architecture, dtype):
    """It makes machine code for each architecture."""
    ptx, cubin, _ = compiler.table(dtype, architecture)
    assert f".target sm_{architecture}" in ptx
    assert f".entry {cuda.TABLE_NAME}" in ptx
    assert cubin.startswith(b"\x7fELF")


@pytest.mark.parametrize("dtype", DTYPES)
def test_registers_suffice(compiler, dtype):
    """The assembler reports for Hopper: no spills, no stack, and room for four blocks on a multiprocessor."""
    report = compiler.table(dtype, 90).report
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    (registers,) = re.findall(r"Used (\d+) registers", report)
    assert int(registers) <= 65536 // (4 * cuda.THREADS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_are_loaded_and_stored_whole_and_all_loads_come_first(compiler, dtype):
    """There are five loads and four stores of 16 bytes. All accesses are to global memory, none to local memory."""
    codes = nvrtc.instructions(compiler.table(dtype, 90).ptx)
    memory = [code for code in codes if code.split(".")[0] in ("ld", "st") and ".param" not in code]
    assert all(".global" in code for code in memory)
    vectors = {"float16": "v4.u32", "float32": "v4.f32", "float64": "v2.f64"}[dtype]
    wide = [code.split(".")[0] for code in memory if vectors in code]
    assert wide == ["ld"] * 5 + ["st"] * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_is_rounded_and_flushes_nothing(compiler, dtype):
    """This holds in the loop over vectors and in the loop over elements, which the compiler may unroll."""
    elements = nvrtc.rounded_elements(compiler.table(dtype, 90).ptx, dtype)
    assert elements > 16 // numpy.dtype(dtype).itemsize


@pytest.mark.parametrize("dtype", DTYPES)
def test_nvrtc_finds_nothing_to_contract(compiler, dtype):
    """Forbidding fused multiply-adds does not change the instructions."""
    free, bound = (compiler.table(dtype, 90, *options).ptx for options in ((), ("-fmad=false",)))
    assert nvrtc.instructions(free) == nvrtc.instructions(bound)


@pytest.mark.parametrize("version", ["11.6.0", "9.0.0b1"])
def test_a_cupy_that_is_too_old_is_refused(monkeypatch, version):
    """It cannot pass a struct to a kernel by value."""
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__=version))
    kernel.load_cupy.cache_clear()
    with pytest.raises(ImportError, match=f"needs CuPy 12 or newer, found {version}; install cupy-cuda12x"):
        kernel.load_cupy()


@pytest.mark.parametrize("version", ["12.0.0", "12.0.0rc1", "14.2.0"])
def test_cupy_12_or_newer_is_accepted(monkeypatch, version):
    """Release candidates are accepted too."""
    cupy = SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    kernel.load_cupy.cache_clear()
    try:
        assert kernel.load_cupy() is cupy
    finally:
        kernel.load_cupy.cache_clear()
