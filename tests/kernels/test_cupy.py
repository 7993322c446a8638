"""The CUDA kernel of one parameter without a GPU: what is launched, and its compilation by NVRTC."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest
from kernels import nvrtc
from kernels.cases import DEFAULTS

from rmsprop_graves.kernels import cuda
from rmsprop_graves.kernels import cupy as kernel

COMPUTE = {"float16": "float32", "float32": "float32", "float64": "float64"}


# What is launched


class Recorder:
    """Stands in for cupy.ElementwiseKernel and keeps what it is given."""

    made = ()

    def __init__(self, in_params, out_params, **texts):
        """Keeps the texts."""
        Recorder.made += (self,)
        self.params = [param.split() for param in f"{in_params}, {out_params}".split(", ")]
        self.texts, self.calls = texts, []

    def __call__(self, *arguments):
        """Keeps the type and the value of each parameter, by name."""
        assert len(arguments) == len(self.params)
        self.calls.append({name: (kind, value) for (kind, name), value in zip(self.params, arguments)})


@pytest.fixture
def recorder(monkeypatch):
    """The stand-in, where the kernel imports CuPy."""
    monkeypatch.setattr(kernel, "load_cupy", lambda: SimpleNamespace(ElementwiseKernel=Recorder))
    monkeypatch.setattr(Recorder, "made", ())
    kernel._kernel.cache_clear()
    yield Recorder
    kernel._kernel.cache_clear()


def test_importing_the_kernel_does_not_import_cupy():
    """On a machine without a GPU it costs nothing, and CuPy may be missing."""
    code = "import sys, rmsprop_graves.kernels.cupy; sys.exit('cupy' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.parametrize("dtype", COMPUTE)
def test_each_argument_reaches_the_parameter_of_its_name(recorder, dtype):
    """Arrays as they are, hyperparameters as Python floats, 1 - alpha taken in double precision.

    The type of a scalar is named: CuPy tells a type letter from arrays, and raised KeyError: 'C' for one of scalars.
    """
    arrays = {name: numpy.ones(3, dtype) for name in ("param", "grad", "n", "g", "delta")}
    kernel.step(**arrays, lr=0.1, alpha=0.95, momentum=0.3, eps=0.4)
    ((call,),) = (made.calls for made in recorder.made)
    for name, array in arrays.items():
        assert call.pop(name) == ("T", array)
    scalars = {"lr": 0.1, "alpha": 0.95, "one_minus_alpha": 1 - 0.95, "momentum": 0.3, "eps": 0.4}
    assert call == {name: (COMPUTE[dtype], value) for name, value in scalars.items()}
    assert {type(value) for _, value in call.values()} == {float}


def test_a_kernel_is_made_once_for_each_type_computed_in(recorder):
    """CuPy keeps compiled code in the kernel object; a new one at each step would look it up on disk."""
    for _ in range(3):
        for dtype in COMPUTE:
            kernel.step(*(numpy.ones(3, dtype) for _ in range(5)), **DEFAULTS)
    assert [len(made.calls) for made in recorder.made] == [6, 3]
    assert {made.texts["name"] for made in recorder.made} == {cuda.NAME}


# Its compilation, by NVRTC

LAYOUTS = ("contiguous", "strided")


@pytest.fixture(scope="module")
def compiler():
    """NVRTC as CuPy uses it, and what it has compiled so far."""
    return nvrtc.Compiler()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES, ids="sm_{}".format)
def test_nvrtc_compiles_what_cupy_would_give_it(compiler, architecture, dtype, layout):
    """Into machine code, for each architecture from Turing to Blackwell."""
    ptx, cubin, _ = compiler.step(dtype, layout, architecture)
    assert f".target sm_{architecture}" in ptx
    assert f".entry {cuda.NAME}" in ptx
    assert cubin.startswith(b"\x7fELF")


def instructions(ptx):
    """The instructions of the loop, in order."""
    return nvrtc.instructions(ptx[ptx.index('.pragma "nounroll";') :])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_all_five_loads_come_before_the_root_and_that_before_the_first_of_four_stores(compiler, dtype, layout):
    """Each array is read once and each but the gradient written once, and a thread waits for the memory once."""
    for architecture in nvrtc.ARCHITECTURES:
        codes = instructions(compiler.step(dtype, layout, architecture).ptx)
        order = [code.split(".")[0] for code in codes if code.startswith(("ld.global.", "st.global.", "sqrt."))]
        assert order == ["ld"] * 5 + ["sqrt"] + ["st"] * 4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_every_operation_is_rounded_and_flushes_nothing(compiler, dtype, layout):
    """No product is fused with a sum, though the compiler may fuse, and CuPy has it flush subnormal numbers."""
    assert nvrtc.rounded_elements(compiler.step(dtype, layout, 90).ptx, dtype) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_registers_suffice(compiler, dtype, layout):
    """As the assembler reports for Hopper: nothing spilled, and room for five eighths of the most threads."""
    report = compiler.step(dtype, layout, 90).report
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    (registers,) = re.findall(r"Used (\d+) registers", report)
    assert int(registers) <= 65536 // (2048 * 5 // 8)


@pytest.mark.parametrize("dtype", COMPUTE)
def test_nvrtc_finds_nothing_to_contract(compiler, dtype):
    """Without leave to fuse products and sums, it makes the same instructions."""
    free, bound = (compiler.step(dtype, "contiguous", 90, *options).ptx for options in ((), ("-fmad=false",)))
    assert instructions(free) == instructions(bound)
