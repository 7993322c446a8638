"""All kernels are bit-identical to the NumPy kernel in param, n, g and delta.

Here the CUDA source runs in C++; in tests/gpu/test_kernel.py it runs on a GPU.
"""

from __future__ import annotations

import importlib
import itertools

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import cpp
from kernels.cases import DTYPES, EXTREME_SETTINGS, NAMES, SETTINGS, assert_same_bits, crossed, gradients, start_at
from skips import not_installed

from rmsprop_graves.kernels import cupy as cupy_kernel
from rmsprop_graves.kernels import numpy as numpy_kernel


@pytest.fixture(params=["numba", "CUDA text in C++"])
def step(request, built, monkeypatch):
    """The step function of a kernel that takes NumPy arrays."""
    if request.param == "numba":
        pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError, reason=not_installed("numba"))
        return importlib.import_module("rmsprop_graves.kernels.numba").step
    cpp.use(monkeypatch, built)
    return cupy_kernel.step


def assert_both_step_alike(step, arrays, steps, **hyperparameters):
    ours, numpys = ({name: array.copy() for name, array in arrays.items()} for _ in range(2))
    with numpy.errstate(all="ignore"):
        for grad in steps:
            step(grad=grad, **ours, **hyperparameters)
            numpy_kernel.step(grad=grad, **numpys, **hyperparameters)
            assert_same_bits(ours, numpys)


@pytest.mark.parametrize("name", [*SETTINGS, *EXTREME_SETTINGS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_crossed_with_each_other_give_the_same_bits(step, dtype, name):
    """These are zeros of both signs, subnormals, the largest numbers, NaN and infinities, in every array."""
    arrays = crossed(dtype)
    grad = arrays.pop("grad")
    assert_both_step_alike(step, arrays, [grad] * 2, **{**SETTINGS, **EXTREME_SETTINGS}[name])


@pytest.mark.parametrize("name", [*SETTINGS, *EXTREME_SETTINGS])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alone", [(), (1,), (1, 1)])
def test_an_element_alone_gives_the_bits_of_one_among_others(dtype, name, alone):
    """Before NumPy 1.25, adding -0 in place to a one-element array of -0 gives 0."""
    hyperparameters = {**SETTINGS, **EXTREME_SETTINGS}[name]
    columns = numpy.array(list(itertools.product([0.0, -0.0, 0.3, -0.3], repeat=5))).T.astype(dtype)
    arrays = dict(zip(NAMES, columns))
    ones = [{key: numpy.full(alone, array[k]) for key, array in arrays.items()} for k in range(columns.shape[1])]
    with numpy.errstate(all="ignore"):
        for each in (arrays, *ones):
            numpy_kernel.step(**each, **hyperparameters)
    assert_same_bits({key: numpy.array([one[key].item() for one in ones], dtype) for key in NAMES}, arrays)


@pytest.mark.parametrize("name", [*SETTINGS, *EXTREME_SETTINGS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hundred_steps_of_many_magnitudes_give_the_same_bits(step, dtype, name):
    """The states start at zero, and every step is compared."""
    param = numpy.random.RandomState(0).standard_normal(2000).astype(dtype)
    assert_both_step_alike(step, start_at(param), gradients(dtype, 100), **{**SETTINGS, **EXTREME_SETTINGS}[name])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(DTYPES),
    lr=st.floats(-10, 10),
    alpha=st.floats(0, 1.05),
    momentum=st.floats(0, 1.05),
    eps=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bits_in_the_arrays_give_the_same_bits(step, dtype, lr, alpha, momentum, eps, seed):
    """Hyperparameters are random too. All exponents are equally likely, and n is not negative."""
    rng = numpy.random.RandomState(seed)
    itemsize = numpy.dtype(dtype).itemsize
    drawn = numpy.frombuffer(rng.bytes(8 * 200 * itemsize), dtype).reshape(8, 200)
    arrays = dict(zip(("param", "n", "g", "delta"), drawn.copy()))
    arrays["n"] = abs(arrays["n"])
    assert_both_step_alike(step, arrays, drawn[4:], lr=lr, alpha=alpha, momentum=momentum, eps=eps)


@pytest.mark.parametrize("convert", [numpy.float64, numpy.float32, numpy.float16, numpy.array])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_scalars_as_hyperparameters_give_the_bits_of_python_floats(step, dtype, convert):
    """1 - alpha is still computed in double precision, and no array is computed in the scalar's dtype."""
    given_as = {name: convert(value) for name, value in SETTINGS["long memory"].items()}
    plain = {name: float(value) for name, value in given_as.items()}
    runs = []
    for kernel_step, hyperparameters in ((step, given_as), (numpy_kernel.step, given_as), (numpy_kernel.step, plain)):
        arrays = start_at(numpy.ones(50, dtype))
        for grad in numpy.random.RandomState(0).standard_normal((10, 50)).astype(dtype):
            kernel_step(grad=grad, **arrays, **hyperparameters)
        runs.append(arrays)
    assert_same_bits(runs[0], runs[2])
    assert_same_bits(runs[1], runs[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_as_hyperparameters_give_the_bits_of_python_floats(step, dtype):
    """They may be integers of Python or NumPy, or booleans."""
    for one, none in ((1, 0), (numpy.int64(1), numpy.int8(0)), (True, False)):
        arrays = start_at(numpy.ones(50, dtype))
        grad = numpy.random.RandomState(0).standard_normal(50).astype(dtype)
        for kernel_step in (step, numpy_kernel.step):
            ours, plain = ({name: array.copy() for name, array in arrays.items()} for _ in range(2))
            kernel_step(grad=grad, **ours, lr=one, alpha=none, momentum=none, eps=one)
            kernel_step(grad=grad, **plain, lr=1.0, alpha=0.0, momentum=0.0, eps=1.0)
            assert_same_bits(ours, plain)


def test_the_comparison_of_bits_sees_the_sign_of_zero_and_the_last_bit():
    """It treats all NaNs as equal."""
    one = {"param": numpy.array([0.0, 1.0, numpy.nan], "f4")}
    assert_same_bits(one, {"param": numpy.array([0.0, 1.0, -numpy.nan], "f4")})
    for other in (
        [-0.0, 1.0, numpy.nan],
        [0.0, numpy.nextafter(numpy.float32(1), numpy.float32(2)), numpy.nan],
        [0.0, 1.0, 1.0],
    ):
        with pytest.raises(AssertionError):
            assert_same_bits(one, {"param": numpy.array(other, "f4")})


@pytest.mark.parametrize("size", [100, 70_000])
@pytest.mark.parametrize("written", [0, 2, 3, 4], ids=["param", "n", "g", "delta"])
@pytest.mark.parametrize("layout", ["itself", "reversed", "shifted"])
def test_a_gradient_in_written_memory_is_read_before_it_is_written(size, written, layout):
    """The kernels agree. Unless the gradient is the written array itself, a copied gradient gives the same bits."""
    pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError, reason=not_installed("numba"))
    results = []
    for kernel in (numpy_kernel, importlib.import_module("rmsprop_graves.kernels.numba")):
        for copied in (False, True):
            memory = numpy.random.RandomState(0).rand(5, size + 1).astype("f4")
            arrays = [memory[row, :size] for row in range(5)]
            arrays[1] = {
                "itself": arrays[written],
                "reversed": arrays[written][::-1],
                "shifted": memory[written, 1:],
            }[layout]
            if copied:
                arrays[1] = arrays[1].copy()
            kernel.step(*arrays, lr=0.1, alpha=0.9, momentum=0.5, eps=1e-4)
            results.append(memory.tobytes())
    assert results[:2] == results[2:]
    if layout != "itself":
        assert results[0] == results[1]
