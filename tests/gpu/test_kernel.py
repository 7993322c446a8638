"""The CUDA kernels of one parameter and of a table on a GPU are bit-identical to the NumPy kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy
import pytest
from chainer.backends import cuda
from gpu.arrays import (
    DTYPES,
    assert_same,
    on_a_gpu_only,
    on_gpu,
    start_at,
    varied_gradients,
)
from kernels.cases import DEFAULTS, EXTREME_SETTINGS, SETTINGS, crossed

from rmsprop_graves.kernels import cuda as cuda_text
from rmsprop_graves.kernels import cupy as kernel
from rmsprop_graves.kernels import numpy as numpy_kernel


def step_by_table(grad, param, n, g, delta, *, lr, alpha, momentum, eps):
    """Step one parameter by a table of one row, with the signature of `kernel.step`."""
    table = kernel.Table([param], [n], [g], [delta])
    table.step(table.locate([grad]), [(lr, alpha, momentum, eps)])


by_both_kernels = pytest.mark.parametrize("step", [kernel.step, step_by_table], ids=["one", "table"])


by_all_settings = pytest.mark.parametrize("name", [*SETTINGS, *EXTREME_SETTINGS])


def assert_same_as_numpys(xp, step, arrays, grads, name):
    """Assert that each step is bit-identical to the NumPy kernel, with the hyperparameters of this name."""
    hyperparameters = {**SETTINGS, **EXTREME_SETTINGS}[name]
    ours, numpys = on_gpu(xp, arrays), arrays
    for grad in grads:
        step(grad=xp.asarray(grad), **ours, **hyperparameters)
        with numpy.errstate(all="ignore"):
            numpy_kernel.step(grad=grad, **numpys, **hyperparameters)
        assert_same(ours, numpys)


@by_both_kernels
@by_all_settings
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hundred_steps_have_the_bits_of_the_numpy_kernel(xp, dtype, name, step):
    """Zeros, subnormals and the largest numbers are among the gradients."""
    param = numpy.random.RandomState(0).standard_normal(2000).astype(dtype)
    assert_same_as_numpys(xp, step, start_at(param), varied_gradients(dtype, 100), name)


@by_both_kernels
@by_all_settings
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_crossed_with_each_other_have_the_bits_of_the_numpy_kernel(xp, dtype, name, step):
    """Every array has zeros of both signs, subnormals, the largest numbers, NaN and infinities."""
    arrays = crossed(dtype)
    grad = arrays.pop("grad")
    assert_same_as_numpys(xp, step, arrays, [grad] * 2, name)


def strided(xp, array):
    """A view of every other element."""
    room = xp.zeros([2 * length for length in array.shape], array.dtype)
    view = room[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = xp.asarray(array)
    return view


LAYOUTS = {
    "fortran": lambda xp, array: xp.asfortranarray(xp.asarray(array)),
    "strided": strided,
    "transposed": lambda xp, array: xp.ascontiguousarray(xp.asarray(array).T).T,
    "reversed": lambda xp, array: xp.ascontiguousarray(xp.asarray(array)[::-1])[::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_memory_layout_gives_the_bits_of_the_contiguous_one(xp, dtype, layout):
    """All arrays have the layout, or only one has it. A view is written in place."""
    rng = numpy.random.RandomState(0)
    arrays = {**start_at(rng.standard_normal((4, 5, 6)).astype(dtype)), "grad": numpy.ones((4, 5, 6), dtype)}
    contiguous = on_gpu(xp, arrays)
    kernel.step(**contiguous, **DEFAULTS)
    for odd in (tuple(arrays), ("param",), ("grad",), ("delta",)):
        laid_out = {
            name: LAYOUTS[layout](xp, array) if name in odd else xp.asarray(array) for name, array in arrays.items()
        }
        assert not laid_out[odd[0]].flags.c_contiguous
        kernel.step(**laid_out, **DEFAULTS)
        assert_same(laid_out, contiguous)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_shapes_are_stepped(xp, dtype, shape):
    """An array of no dimensions is stepped like a vector of one element; one without elements is left alone."""
    arrays = {**start_at(numpy.ones(shape, dtype)), "grad": numpy.ones(shape, dtype)}
    ours, vector = on_gpu(xp, arrays), on_gpu(xp, {name: array.reshape(-1) for name, array in arrays.items()})
    kernel.step(**ours, **DEFAULTS)
    kernel.step(**vector, **DEFAULTS)
    assert all(array.shape == shape for array in ours.values())
    assert_same({name: array.reshape(-1) for name, array in ours.items()}, vector)


def test_a_broadcast_gradient_is_only_read(xp):
    """Chainer's backward of a sum returns such a gradient: all its strides are zero."""
    ours, full = (on_gpu(xp, start_at(numpy.ones((30, 50), "f4"))) for _ in range(2))
    two = xp.full((), 2, "f4")
    kernel.step(grad=xp.broadcast_to(two, (30, 50)), **ours, **DEFAULTS)
    kernel.step(grad=xp.full((30, 50), 2, "f4"), **full, **DEFAULTS)
    assert_same(ours, full)
    assert two == 2


@by_both_kernels
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_that_is_not_finite_reaches_its_element_and_no_other(xp, dtype, bad, step):
    """That element of the parameter becomes NaN."""
    arrays = on_gpu(xp, start_at(numpy.ones(5, dtype)))
    grad = xp.ones(5, dtype)
    grad[2] = bad
    step(grad=grad, **arrays, **DEFAULTS)
    numpy.testing.assert_array_equal(cuda.to_cpu(xp.isnan(arrays["param"])), [False, False, True, False, False])


@by_both_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_that_settle_never_give_nan(xp, dtype, step):
    """As n and g approach their limits, from below or above, rounding makes n smaller than g^2."""
    low = xp.asarray(numpy.random.RandomState(0).uniform(50, 100, 2000).astype(dtype))
    for first in (low, 2 * low):
        arrays = on_gpu(xp, start_at(numpy.zeros(2000, dtype)))
        for i in range(450):
            step(grad=first if i < 50 else low, **arrays, **DEFAULTS)
        assert all(bool(xp.isfinite(array).all()) for array in arrays.values())


@on_a_gpu_only
@by_both_kernels
def test_a_step_runs_asynchronously_on_the_current_stream(xp, step):
    """It reads the gradient after the stream has written it, and the host does not wait."""
    spin = xp.RawKernel(
        'extern "C" __global__ void spin(long long cycles) {'
        " long long start = clock64(); while (clock64() - start < cycles) {} }",
        "spin",
    )
    expected, arrays = (on_gpu(xp, start_at(numpy.zeros(1000, "f4"))) for _ in range(2))
    step(grad=xp.ones(1000, "f4"), **expected, **DEFAULTS)
    spin((1,), (1,), (numpy.int64(1),))
    grad = xp.zeros(1000, "f4")
    xp.cuda.Device().synchronize()
    # The default stream does not wait for a non-blocking one, so a step on it would find zeros.
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        # A first step allocates memory now, because an allocation later would wait for the device.
        step(grad=xp.ones(1000, "f4"), **on_gpu(xp, start_at(numpy.zeros(1000, "f4"))), **DEFAULTS)
        # About half a second.
        spin((1,), (1,), (numpy.int64(800_000_000),))
        grad.fill(1)
        step(grad=grad, **arrays, **DEFAULTS)
        stepped = xp.cuda.Event()
        stepped.record()
    assert not stepped.done
    stepped.synchronize()
    assert_same(arrays, expected)


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_table_has_the_bits_of_the_kernel_of_one_parameter(xp, dtype, offset):
    """Arrays are empty, tiny, about as large as one or more chunks, or not aligned to vectors."""
    chunk = cuda_text.CHUNK_BYTES // numpy.dtype(dtype).itemsize
    sizes = [0, 1, 2, 7, 8, 9, 1000, chunk - 1, chunk, chunk + 1, 3 * chunk + 5, 100 * chunk + 3]
    rng = numpy.random.RandomState(0)

    def on_gpu_from(offset, values):
        room = xp.zeros(values.size + offset, dtype)
        room[offset:] = xp.asarray(values)
        return room[offset:]

    drawn = [[rng.standard_normal(size).astype(dtype) for _ in range(5)] for size in sizes]
    at_once = [[on_gpu_from(offset, values) for values in row] for row in drawn]
    one_by_one = [[xp.asarray(values) for values in row] for row in drawn]
    names = ("param", "grad", "n", "g", "delta")
    for arrays in (*at_once, *one_by_one):
        xp.square(arrays[3], out=arrays[2])
        arrays[2] += 1
    params, grads, *states = (list(column) for column in zip(*at_once))
    table = kernel.Table(params, *states)
    for _ in range(3):
        table.step(table.locate(grads), [tuple(DEFAULTS.values())] * len(sizes))
        for arrays in one_by_one:
            kernel.step(*arrays, **DEFAULTS)
        for arrays, expected in zip(at_once, one_by_one):
            assert_same(dict(zip(names, arrays)), dict(zip(names, expected)))


@on_a_gpu_only
def test_elements_beyond_two_to_the_32nd_are_stepped(xp):
    """Both kernels step a float16 array of that size."""
    size = 2**32 + 12_345
    free, _ = xp.cuda.runtime.memGetInfo()
    if free < 5 * 2 * size * 1.1:
        pytest.skip(f"needs {5 * 2 * size / 1e9:.0f} GB on the GPU, {free / 1e9:.0f} GB are free")
    for step in (kernel.step, step_by_table):
        arrays = {name: xp.zeros(size, "f2") for name in ("param", "n", "g", "delta")}
        step(grad=xp.ones(size, "f2"), **arrays, **DEFAULTS)
        for array in arrays.values():
            assert array[-1] == array[0] != 0
            assert bool((array[-(2**20) :] == array[0]).all())
        del arrays, array
        xp.get_default_memory_pool().free_all_blocks()


SANITIZED = """
import rmsprop_graves
import cupy, numpy
from rmsprop_graves.kernels import cupy as kernel

cupy.cuda.set_allocator(None)  # each array has its own allocation, so that accesses beyond it are found
values = {"lr": 1e-3, "alpha": 0.9, "momentum": 0.5, "eps": 1e-4}
for dtype in ("f2", "f4", "f8"):
    sizes = [0, 1, 5, 16, 1000, 4095, 4096, 4097, 20001]
    columns = [[cupy.ones(size, dtype) for size in sizes] for _ in range(5)]
    odd = [cupy.ones(size + 1, dtype)[1:] for size in sizes]
    for params in (columns[0], odd):
        table = kernel.Table(params, *columns[2:])
        for _ in range(2):
            table.step(table.locate(columns[1]), [tuple(values.values())] * len(sizes))
        for arrays in zip(params, *columns[1:]):
            kernel.step(*arrays, **values)
cupy.cuda.Device().synchronize()
print("stepped")
"""


@on_a_gpu_only
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool):
    """The kernels access no memory outside the arrays, and have no races."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("not installed: compute-sanitizer on the PATH (part of the CUDA Toolkit)")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    if "Device not supported" in run.stdout + run.stderr:
        pytest.skip("compute-sanitizer does not support this device")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "stepped" in run.stdout
    assert "ERROR SUMMARY: 0 errors" in run.stdout or "RACECHECK SUMMARY: 0 hazards" in run.stdout
