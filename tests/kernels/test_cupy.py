"""The CUDA kernel of one parameter, without a GPU: its launches, and its compilation by NVRTC."""

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


# Launches


class Recorder:
    """A stand-in for cupy.ElementwiseKernel that records its arguments."""

    made = ()

    def __init__(self, in_params, out_params, **texts):
        """Record the source."""
        Recorder.made += (self,)
        self.params = [param.split() for param in f"{in_params}, {out_params}".split(", ")]
        self.texts, self.calls = texts, []

    def __call__(self, *arguments):
        """Record the type and the value of each parameter, by name."""
        assert len(arguments) == len(self.params)
        self.calls.append({name: (kind, value) for (kind, name), value in zip(self.params, arguments)})


@pytest.fixture
def recorder(monkeypatch):
    """Replace the CuPy of the kernel by the stand-in."""
    monkeypatch.setattr(kernel, "load_cupy", lambda: SimpleNamespace(ElementwiseKernel=Recorder))
    monkeypatch.setattr(Recorder, "made", ())
    kernel._kernel.cache_clear()
    yield Recorder
    kernel._kernel.cache_clear()


def test_importing_the_kernel_does_not_import_cupy():
    """CuPy may be missing, and importing it takes time."""
    code = "import sys, rmsprop_graves.kernels.cupy; sys.exit('cupy' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.parametrize("dtype", COMPUTE)
def test_each_argument_reaches_the_parameter_of_its_name(recorder, dtype):
    """Arrays are passed on, hyperparameters are Python floats, and 1 - alpha is computed in double precision.

    Scalars have a named type: CuPy infers type letters from arrays, and raised KeyError: 'C' for a scalar's letter.
    """
    arrays = {name: numpy.ones(3, dtype) for name in ("param", "grad", "n", "g", "delta")}
    kernel.step(**arrays, lr=0.1, alpha=0.95, momentum=0.3, eps=0.4)
    ((call,),) = (made.calls for made in recorder.made)
    for name, array in arrays.items():
        assert call.pop(name) == ("T", array)
    scalars = {"lr": 0.1, "alpha": 0.95, "one_minus_alpha": 1 - 0.95, "momentum": 0.3, "eps": 0.4}
    assert call == {name: (COMPUTE[dtype], value) for name, value in scalars.items()}
    assert {type(value) for _, value in call.values()} == {float}


def test_one_kernel_is_made_for_each_type_of_arithmetic(recorder):
    """CuPy keeps compiled code in the kernel object; a new object at each step would look the code up on disk."""
    for _ in range(3):
        for dtype in COMPUTE:
            kernel.step(*(numpy.ones(3, dtype) for _ in range(5)), **DEFAULTS)
    assert [len(made.calls) for made in recorder.made] == [6, 3]
    assert {made.texts["name"] for made in recorder.made} == {cuda.NAME}


# Compilation by NVRTC

LAYOUTS = ("contiguous", "strided")


@pytest.fixture(scope="module")
def compiler():
    """NVRTC as CuPy uses it."""
    return nvrtc.Compiler()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES, ids="sm_{}".format)
def test_nvrtc_compiles_the_kernel_as_cupy_does(compiler, architecture, dtype, layout):
    """It makes machine code for each architecture from Turing to Blackwell."""
    ptx, cubin, _ = compiler.step(dtype, layout, architecture)
    assert f".target sm_{architecture}" in ptx
    assert f".entry {cuda.NAME}" in ptx
    assert cubin.startswith(b"\x7fELF")


def instructions(ptx):
    """Return the instructions of the loop, in order."""
    return nvrtc.instructions(ptx[ptx.index('.pragma "nounroll";') :])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_all_loads_precede_the_square_root_and_all_stores_follow_it(compiler, dtype, layout):
    """A thread waits for memory once: it reads each array once, and writes each once except the gradient."""
    for architecture in nvrtc.ARCHITECTURES:
        codes = instructions(compiler.step(dtype, layout, architecture).ptx)
        order = [code.split(".")[0] for code in codes if code.startswith(("ld.global.", "st.global.", "sqrt."))]
        assert order == ["ld"] * 5 + ["sqrt"] + ["st"] * 4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_every_operation_is_rounded_and_flushes_nothing(compiler, dtype, layout):
    """CuPy's options allow fused multiply-adds and flush subnormals, but neither happens."""
    assert nvrtc.rounded_elements(compiler.step(dtype, layout, 90).ptx, dtype) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_registers_suffice(compiler, dtype, layout):
    """The assembler reports for Hopper: no spills, and room for five eighths of a multiprocessor's threads."""
    report = compiler.step(dtype, layout, 90).report
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    (registers,) = re.findall(r"Used (\d+) registers", report)
    assert int(registers) <= 65536 // (2048 * 5 // 8)


@pytest.mark.parametrize("dtype", COMPUTE)
def test_nvrtc_finds_nothing_to_contract(compiler, dtype):
    """Forbidding fused multiply-adds does not change the instructions."""
    free, bound = (compiler.step(dtype, "contiguous", 90, *options).ptx for options in ((), ("-fmad=false",)))
    assert instructions(free) == instructions(bound)
