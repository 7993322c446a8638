"""The CUDA kernel where there is no GPU: what is launched, its arithmetic in C++, and its compilation by NVRTC."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import cpp
import numpy
import nvrtc
import pytest
from bounds import DEFAULTS, ENTRIES, ROUNDOFF, SETTINGS, TYPICAL, Run, gradients, start_at

from rmsprop_graves.kernels import cupy as kernel
from rmsprop_graves.kernels import numpy as numpy_kernel

COMPUTE = {"float16": "float32", "float32": "float32", "float64": "float64"}


# What is launched


class Recorder:
    """Stands in for cupy.ElementwiseKernel and keeps what it is given."""

    made = ()

    def __init__(self, in_params, out_params, *texts, **_):
        """Keeps the texts."""
        Recorder.made += (self,)
        self.params = [param.split() for param in f"{in_params}, {out_params}".split(", ")]
        self.texts, self.calls = (out_params, *texts), []

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
    assert {made.texts for made in recorder.made} == {(kernel.OUT_PARAMS, kernel.OPERATION, kernel.NAME)}


# Its arithmetic, in C++


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds the kernels with some flags, once."""
    return functools.lru_cache(maxsize=None)(lambda *flags: cpp.kernels(tmp_path_factory.mktemp("cpp"), *flags))


@pytest.fixture
def run(build, monkeypatch):
    """`step` on NumPy arrays, in C++ built with the flags given."""

    def run(flags=("-ffp-contract=off",), **arguments):
        monkeypatch.setattr(kernel, "_kernel", build(*flags).__getitem__)
        kernel.step(**arguments)

    return run


@pytest.mark.parametrize("hyperparameters", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_every_entry_is_within_the_bound_of_the_numpy_kernel(run, dtype, hyperparameters):
    """At each of 100 steps, and both are within it of the rule in float64."""
    param = numpy.random.RandomState(0).standard_normal(2000).astype(dtype)
    ours, numpys, exact = start_at(param), start_at(param), Run(param, dtype, **hyperparameters)
    for grad in gradients(dtype, 100):
        run(grad=grad, **ours, **hyperparameters)
        numpy_kernel.step(grad=grad, **numpys, **hyperparameters)
        exact.step(grad)
        exact.assert_met_by(ours, numpys)


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_the_bound_is_as_small_as_it_says(dtype):
    """At the default settings; a bound that allowed anything would be met by anything."""
    exact = Run(numpy.zeros(2000), dtype, **DEFAULTS)
    rng = numpy.random.RandomState(0)
    for _ in range(100):
        exact.step(rng.standard_normal(2000))
    for name in ENTRIES:
        assert 0 < exact.allowed(name).max() < TYPICAL[dtype][name] * numpy.abs(exact.value[name]).max()


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_bound_is_not_met_by_another_rule(run, name):
    """One part in a thousand of one hyperparameter is seen within 100 steps."""
    changed = {name: 1.001 * DEFAULTS[name]}
    param = numpy.zeros(2000, "f4")
    ours, exact = start_at(param), Run(param, "float32", **DEFAULTS)
    for grad in gradients("float32", 100):
        run(grad=grad, **ours, **{**DEFAULTS, **changed})
        exact.step(grad)
    with pytest.raises(AssertionError, match="times the distance that rounding explains"):
        exact.assert_met_by(ours)


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_contraction_by_the_compiler_changes_no_bit(run, build, dtype):
    """Every product that feeds a sum is an explicit fma; a product and sum beside it shows that the compiler fuses."""
    fused = ("-march=native", "-ffp-contract=fast")
    library = build(*fused)["double"].library("float64")
    library.multiply_add.restype = ctypes.c_double
    if library.multiply_add(*map(ctypes.c_double, (1 + 2.0**-30, 1 + 2.0**-30, -1 - 2.0**-29))) == 0:
        pytest.skip("this processor has no fused multiply-add")
    param = numpy.random.RandomState(0).standard_normal(2000).astype(dtype)
    plain, contracted = start_at(param), start_at(param)
    for grad in gradients(dtype, 20):
        run(grad=grad, **plain, **DEFAULTS)
        run(grad=grad, **contracted, **DEFAULTS, flags=fused)
    for name in ENTRIES:
        assert plain[name].tobytes() == contracted[name].tobytes()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets the flush-to-zero mode of x86")
def test_flushing_subnormal_numbers_stays_within_the_bound(run):
    """CuPy compiles float32 so: gradients below 1e-19 have no square, and no element suffers for it."""
    param = numpy.zeros(2000, "f4")
    flushed, kept, exact = start_at(param), start_at(param), Run(param, "float32", **DEFAULTS)
    magnitude = 10 ** numpy.random.RandomState(0).uniform(-44, -10, 2000)
    for grad in gradients("float32", 50):
        grad = (numpy.sign(grad) * magnitude).astype("f4")
        run(grad=grad, **kept, **DEFAULTS)
        run(grad=grad, **flushed, **DEFAULTS, flags=("-ffp-contract=off", "-DFLUSH"))
        exact.step(grad)
    exact.assert_met_by(flushed, kept)
    assert (flushed["n"] != kept["n"]).any()


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_first_step_is_the_closed_form(run, dtype):
    """From zeros, n - g^2 is alpha (1 - alpha) x^2: a subtraction that costs a twentieth of the digits of n."""
    x = gradients(dtype, 1)[0]
    arrays = start_at(numpy.zeros_like(x))
    run(grad=x, **arrays, **{**DEFAULTS, "lr": 1.0})
    wide = x.astype("f8")
    expected = -wide / numpy.sqrt(0.95 * (1 - 0.95) * wide**2 + 1e-4)
    unit, storage, tiny = ROUNDOFF[dtype]
    numpy.testing.assert_allclose(arrays["param"], expected, 8 * unit + storage, tiny)


def test_zero_gradient_decays_the_states_and_moves_on_by_delta(run):
    """With powers of two for hyperparameters, exactly."""
    arrays = dict(zip(ENTRIES, numpy.array([[1], [4], [1], [0.5]], "f4")))
    run(grad=numpy.zeros(1, "f4"), **arrays, lr=1.0, alpha=0.5, momentum=0.25, eps=1.0)
    assert {name: array.item() for name, array in arrays.items()} == {"param": 1.125, "n": 2, "g": 0.5, "delta": 0.125}


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_negative_variance_is_taken_as_zero(run, dtype):
    """Where n is far below g^2, the root is of eps alone."""
    arrays = dict(zip(ENTRIES, numpy.array([[3], [0], [1], [0]], dtype)))
    run(grad=numpy.ones(1, dtype), **arrays, lr=1.0, alpha=0.5, momentum=0.0, eps=0.25)
    assert (arrays["param"].item(), arrays["delta"].item()) == (1, -2)


def settle(run, dtype, **options):
    """The arrays after gradients of about 100 that fall to half and stay there, at the default settings."""
    high = numpy.random.RandomState(0).uniform(100, 200, 2000).astype(dtype)
    arrays = start_at(numpy.zeros_like(high))
    for i in range(450):
        run(grad=high if i < 50 else high / 2, **arrays, **DEFAULTS, **options)
    return arrays


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_gradients_that_settle_never_give_nan(run, dtype):
    """Where rounding brings n and g to rest depends on the side they come from: from above, n is below g^2."""
    for array in settle(run, dtype).values():
        assert numpy.isfinite(array).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_without_the_clamp_gradients_that_settle_give_nan(run, monkeypatch, dtype):
    """In the fused form too, though not from zero: what the test above would find without it."""
    unclamped = kernel.OPERATION.replace("(v < 0 ? C(0) : v)", "v")
    monkeypatch.setattr(kernel, "OPERATION", unclamped)
    assert numpy.isnan(settle(run, dtype, flags=("-ffp-contract=off", "-DUNCLAMPED"))["param"]).any()


@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf], ids=str)
@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_a_gradient_that_is_not_finite_reaches_its_element_and_no_other(run, dtype, bad):
    """The comparison keeps a NaN, where fmax would hide it."""
    arrays = start_at(numpy.ones(5, dtype))
    grad = numpy.ones(5, dtype)
    grad[2] = bad
    run(grad=grad, **arrays, **DEFAULTS)
    numpy.testing.assert_array_equal(numpy.isnan(arrays["param"]), [False, False, True, False, False])
    assert numpy.isfinite(arrays["delta"][[0, 1, 3, 4]]).all()


def test_float16_is_computed_in_float32_and_rounded_once_per_store(run):
    """A half step is a float32 step from the stored halves, rounded; a half cannot hold these lr, alpha and eps."""
    hyperparameters = {"lr": 3e-6, "alpha": 0.9501, "momentum": 0.9, "eps": 1e-8}
    half = start_at(numpy.random.RandomState(0).standard_normal(2000).astype("f2"))
    for grad in gradients("float16", 20):
        wide = {name: array.astype("f4") for name, array in half.items()}
        run(grad=grad, **half, **hyperparameters)
        run(grad=grad.astype("f4"), **wide, **hyperparameters)
        for name in ENTRIES:
            numpy.testing.assert_array_equal(half[name], wide[name].astype("f2"))
    assert numpy.abs(half["delta"]).max() > 0


def test_eps_below_the_smallest_half_is_not_lost(run):
    """In half precision it would be zero, and an element without a gradient 0 / 0."""
    arrays = start_at(numpy.ones(1, "f2"))
    run(grad=numpy.zeros(1, "f2"), **arrays, **{**DEFAULTS, "eps": 1e-8})
    assert arrays["param"] == 1


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
    assert f".entry {kernel.NAME}" in ptx
    assert cubin.startswith(b"\x7fELF")


def instructions(ptx):
    """The instructions of the loop, in order."""
    return nvrtc.instructions(ptx[ptx.index('.pragma "nounroll";') :])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_all_five_loads_come_before_the_root_and_that_before_the_first_of_four_stores(compiler, dtype, layout):
    """Each array is read once and each but the gradient written once, and a thread waits for the memory once."""
    codes = instructions(compiler.step(dtype, layout, 90).ptx)
    order = [code.split(".")[0] for code in codes if ".global." in code or code.startswith("sqrt")]
    assert order == ["ld"] * 5 + ["sqrt"] + ["st"] * 4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPUTE)
def test_the_arithmetic_is_that_of_the_text_in_the_type_computed_in(compiler, dtype, layout):
    """Halves are only converted, four products are fused with their sums, and root and quotient are exact."""
    suffix = {"float32": ".ftz.f32", "float64": ".f64"}[COMPUTE[dtype]]
    arithmetic = [code for code in instructions(compiler.step(dtype, layout, 90).ptx) if re.search(r"\.f\d\d$", code)]
    arithmetic = [code for code in arithmetic if code.split(".")[0] not in ("ld", "st", "selp", "neg")]
    conversions = ["cvt.f32.f16"] * 5 + ["cvt.rn.f16.f32"] * 4 if dtype == "float16" else []
    operations = ["mul"] * 3 + ["fma.rn"] * 4 + ["setp.lt", "sqrt.rn", "div.rn"] + ["add"] * 2
    assert sorted(arithmetic) == sorted(conversions + [operation + suffix for operation in operations])


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
    assert instructions(free.replace(".rn", "")) == instructions(bound.replace(".rn", ""))
