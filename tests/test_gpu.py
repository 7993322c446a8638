"""What only a GPU can show: the CUDA kernel run, and Chainer's machinery around it.

The same text runs in C++ in kernels/test_same_bits.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chainer
import numpy
import pytest
from chainer.backends import cuda
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from kernels.cases import (
    DEFAULTS,
    DTYPES,
    ENTRIES,
    EXTREME_SETTINGS,
    SETTINGS,
    assert_same_bits,
    crossed,
    gradients,
    start_at,
)
from models import Arrays, arrays_of

from rmsprop_graves import RMSpropGraves
from rmsprop_graves.kernels import cuda as cuda_text
from rmsprop_graves.kernels import cupy as kernel
from rmsprop_graves.kernels import numpy as numpy_kernel

pytestmark = pytest.mark.gpu

GPU = "@cupy:0"


@pytest.fixture(scope="module", autouse=True)
def xp():
    """CuPy, where it has a device; without one, every test here is skipped and says why."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() == 0:
            pytest.skip("CuPy finds no CUDA device")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"CuPy finds no CUDA device: {str(error).splitlines()[0]}")
    # Chainer turns itself off without a word where a library such as libcublas is missing.
    assert cuda.available, f"Chainer cannot use CuPy: {cuda._resolution_error}"
    return cupy


def on_gpu(xp, arrays):
    """Copies of a dict of arrays."""
    return {name: xp.asarray(array) for name, array in arrays.items()}


def on_cpu(arrays):
    """Copies of a dict of arrays."""
    return {name: cuda.to_cpu(array).copy() for name, array in arrays.items()}


def assert_same(actual, expected):
    """Asserts that two dicts of arrays, wherever they are, hold the same bits."""
    assert_same_bits(on_cpu(actual), on_cpu(expected))


# The kernel


def step_by_table(grad, param, n, g, delta, **hyperparameters):
    """What `kernel.step` does, by a table of one row."""
    step_all([param], [grad], [n], [g], [delta], hyperparameters)


def step_all(params, grads, ns, gs, deltas, hyperparameters):
    """Steps parameters in one launch."""
    table = kernel.Table(params, ns, gs, deltas)
    addresses = table.locate(grads)
    assert addresses is not None
    table.step(addresses, [tuple(hyperparameters[name] for name in DEFAULTS)] * len(params))


by_both_kernels = pytest.mark.parametrize("step", [kernel.step, step_by_table], ids=["one", "table"])


@by_both_kernels
@pytest.mark.parametrize("name", [*SETTINGS, *EXTREME_SETTINGS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_crossed_with_each_other_give_the_bits_of_the_numpy_kernel(xp, dtype, name, step):
    """Zeros of both signs, subnormal numbers, the largest, NaN and infinities, in every array at once."""
    arrays, hyperparameters = crossed(dtype), {**SETTINGS, **EXTREME_SETTINGS}[name]
    ours = on_gpu(xp, arrays)
    with numpy.errstate(all="ignore"):
        for _ in range(2):
            step(**ours, **hyperparameters)
            numpy_kernel.step(**arrays, **hyperparameters)
            assert_same(ours, arrays)


@by_both_kernels
@pytest.mark.parametrize("name", [*SETTINGS, *EXTREME_SETTINGS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hundred_steps_give_the_bits_of_the_numpy_kernel(xp, dtype, name, step):
    """Over many magnitudes, compared after every step."""
    param = numpy.random.RandomState(0).standard_normal(2000).astype(dtype)
    ours, numpys, hyperparameters = (
        on_gpu(xp, start_at(param)),
        start_at(param),
        {**SETTINGS, **EXTREME_SETTINGS}[name],
    )
    with numpy.errstate(all="ignore"):
        for grad in gradients(dtype, 100):
            step(grad=xp.asarray(grad), **ours, **hyperparameters)
            numpy_kernel.step(grad=grad, **numpys, **hyperparameters)
            assert_same(ours, numpys)


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
    """With every array in the layout, and with one alone; each is written through."""
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
    """Without dimensions as the element of a vector, and without elements as nothing."""
    arrays = {**start_at(numpy.ones(shape, dtype)), "grad": numpy.ones(shape, dtype)}
    ours, vector = on_gpu(xp, arrays), on_gpu(xp, {name: array.reshape(-1) for name, array in arrays.items()})
    kernel.step(**ours, **DEFAULTS)
    kernel.step(**vector, **DEFAULTS)
    assert all(array.shape == shape for array in ours.values())
    assert_same({name: array.reshape(-1) for name, array in ours.items()}, vector)


def test_a_broadcast_gradient_is_only_read(xp):
    """Chainer's backward of a sum hands one out: every stride is zero."""
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
    """It is not hidden: the parameter becomes NaN."""
    arrays = on_gpu(xp, start_at(numpy.ones(5, dtype)))
    grad = xp.ones(5, dtype)
    grad[2] = bad
    step(grad=grad, **arrays, **DEFAULTS)
    numpy.testing.assert_array_equal(cuda.to_cpu(xp.isnan(arrays["param"])), [False, False, True, False, False])


@by_both_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_that_settle_never_give_nan(xp, dtype, step):
    """Whether n and g come to rest from below or from above, where rounding leaves n below g^2."""
    low = xp.asarray(numpy.random.RandomState(0).uniform(50, 100, 2000).astype(dtype))
    for first in (low, 2 * low):
        arrays = on_gpu(xp, start_at(numpy.zeros(2000, dtype)))
        for i in range(450):
            step(grad=first if i < 50 else low, **arrays, **DEFAULTS)
        assert all(bool(xp.isfinite(array).all()) for array in arrays.values())


@by_both_kernels
def test_it_runs_on_the_current_stream_and_waits_for_nothing(xp, step):
    """A gradient that its stream has yet to write is read after it is; the host goes on at once."""
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
        # What a step allocates is there: to allocate would wait for the device.
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


# The kernel of a table


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_table_has_the_bits_of_the_kernel_of_one_parameter(xp, dtype, offset):
    """Of tensors that are empty, tiny, as large as several chunks and one element less or more, and off a vector."""
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
    for _ in range(3):
        step_all(params, grads, *states, DEFAULTS)
        for arrays in one_by_one:
            kernel.step(*arrays, **DEFAULTS)
        for arrays, expected in zip(at_once, one_by_one):
            assert_same(dict(zip(names, arrays)), dict(zip(names, expected)))


def test_elements_beyond_two_to_the_32nd_are_stepped(xp):
    """Of a tensor of halves, by both kernels."""
    size = 2**32 + 12_345
    free, _ = xp.cuda.runtime.memGetInfo()
    if free < 5 * 2 * size * 1.1:
        pytest.skip(f"it takes {5 * 2 * size / 1e9:.0f} GB on the GPU, {free / 1e9:.0f} GB are free")
    for step in (kernel.step, step_by_table):
        arrays = {name: xp.zeros(size, "f2") for name in ENTRIES}
        step(grad=xp.ones(size, "f2"), **arrays, **DEFAULTS)
        for array in arrays.values():
            assert array[-1] == array[0] != 0
            assert bool((array[-(2**20) :] == array[0]).all())
        del arrays, array
        xp.get_default_memory_pool().free_all_blocks()


def test_memory_of_tables_is_not_used_again_too_early(xp):
    """Tables, gradients and arrays come and go, on two streams, while launches are still to run."""
    rng = numpy.random.RandomState(0)
    shapes = [(1 + 97 * i % 1000,) for i in range(60)]
    models = [Arrays(*(rng.standard_normal(shape).astype("f4") for shape in shapes)) for _ in range(2)]
    models[1] = models[0].copy("copy")
    for model in models:
        model.to_device(GPU)
    optimizers = [RMSpropGraves(lr=1e-2).setup(model) for model in models]
    stream = xp.cuda.Stream(non_blocking=True)
    gradients_of = [[rng.standard_normal(shape).astype("f4") for shape in shapes] for _ in range(20)]
    for i, grads in enumerate(gradients_of):
        with stream if i % 3 == 1 else xp.cuda.Stream.null:
            train(optimizers[0], [grads])
            if i % 4 == 0:
                for param in models[0].params():
                    param.array = param.array.copy()
        # What a program that changes streams has to wait for; nothing else is waited for.
        if i % 3 != 2:
            xp.cuda.get_current_stream().synchronize()
            stream.synchronize()
    for grads in gradients_of:
        set_gradients(models[1], grads)
        for param in models[1].params():
            param.update()
    xp.cuda.Device().synchronize()
    assert_same(arrays_of(optimizers[0]), arrays_of(optimizers[1]))


SANITIZED = """
import rmsprop_graves
import cupy, numpy
from rmsprop_graves.kernels import cuda as cuda_text
from rmsprop_graves.kernels import cupy as kernel

cupy.cuda.set_allocator(None)  # each array is an allocation of its own, so that what is beyond it is seen
names, values = ("lr", "alpha", "momentum", "eps"), (1e-3, 0.9, 0.5, 1e-4)
for dtype in ("f2", "f4", "f8"):
    sizes = [0, 1, 5, 16, 1000, 4095, 4096, 4097, 20001]
    columns = [[cupy.ones(size, dtype) for size in sizes] for _ in range(5)]
    odd = [cupy.ones(size + 1, dtype)[1:] for size in sizes]
    for params in (columns[0], odd):
        table = kernel.Table(params, *columns[2:])
        for _ in range(2):
            table.step(table.locate(columns[1]), [values] * len(sizes))
        for arrays in zip(params, *columns[1:]):
            kernel.step(*arrays, **dict(zip(names, values)))
cupy.cuda.Device().synchronize()
print("stepped")
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool):
    """No access beyond an array, by vectors or elements, and no race between threads."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not on the PATH")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    if "Device not supported" in run.stdout + run.stderr:
        pytest.skip("compute-sanitizer does not support this device")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "stepped" in run.stdout
    assert "ERROR SUMMARY: 0 errors" in run.stdout or "RACECHECK SUMMARY: 0 hazards" in run.stdout


# Chainer's machinery


def train(optimizer, gradient_steps):
    """Updates the model once with each list of gradients, moved to its device."""
    device = optimizer.target.p0.device
    for grads in gradient_steps:
        optimizer.target.set_grads(*(device.send(grad) for grad in grads))
        optimizer.update()
    return optimizer


def model_and_gradients(dtype="f4", steps=6):
    """A model of two parameters, and gradients for it."""
    rng = numpy.random.RandomState(0)
    shapes = (3, 4), (5,)
    model = Arrays(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))
    return model, [[rng.standard_normal(shape).astype(dtype) for shape in shapes] for _ in range(steps)]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_model_on_the_gpu_is_trained_there(dtype):
    """States are made on its device and updated in place, as the parameters are."""
    model, steps = model_and_gradients(dtype)
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    model.to_device(GPU)
    optimizer = train(RMSpropGraves(lr=1e-2).setup(model), steps[:1])
    before = arrays_of(optimizer)
    train(optimizer, steps[1:])
    after = arrays_of(optimizer)
    assert all(after[name] is array for name, array in before.items())
    device = chainer.get_device(GPU)
    assert all(device.is_array_supported(array) for array in after.values())
    assert_same(after, arrays_of(expected))


@pytest.mark.parametrize(("first", "second"), [(GPU, "@numpy"), ("@numpy", GPU)], ids=["gpu to cpu", "cpu to gpu"])
def test_a_checkpoint_goes_on_where_the_other_device_stopped(tmp_path, first, second):
    """An npz written on one and read on the other, by an optimizer before its first update and by one after two."""
    model, steps = model_and_gradients()
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    model.to_device(first)
    stopped = train(RMSpropGraves(lr=1e-2).setup(model), steps[:3])
    chainer.serializers.save_npz(str(tmp_path / "optimizer.npz"), stopped)
    chainer.serializers.save_npz(str(tmp_path / "model.npz"), model)
    for updates_before in (0, 2):
        other = model_and_gradients()[0]
        other.to_device(second)
        resumed = train(RMSpropGraves(lr=1e-2).setup(other), steps[:updates_before])
        chainer.serializers.load_npz(str(tmp_path / "optimizer.npz"), resumed)
        chainer.serializers.load_npz(str(tmp_path / "model.npz"), other)
        train(resumed, steps[3:])
        assert resumed.t == 6
        assert_same(arrays_of(resumed), arrays_of(expected))


def launches(monkeypatch):
    """The grids of a table's kernel, as they are launched."""
    made = []
    make = kernel._table_kernel

    def make_and_note(dtype):
        launch, layout = make(dtype)
        return lambda grid, block, arguments: made.append(grid) or launch(grid, block, arguments), layout

    monkeypatch.setattr(kernel, "_table_kernel", make_and_note)
    return made


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_model_is_one_launch_with_the_bits_of_one_for_each_parameter(monkeypatch, dtype):
    """With special ones among them: a rule's hook, a master in float32, a transposed array, a tied parameter."""
    shapes = [(1 + i % 7, 1 + 5 * i % 40) for i in range(50)]
    rng = numpy.random.RandomState(0)
    drawn = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    steps = [[rng.standard_normal(shape).astype(dtype) for shape in shapes] for _ in range(5)]
    runs = []
    for one_by_one in (False, True):
        model = Arrays(*drawn)
        model.to_device(GPU)
        model.p10.array = model.p10.array.T.copy().T
        assert not model.p10.array.flags.c_contiguous
        with model.init_scope():
            model.again = model.p3
        optimizer = RMSpropGraves(lr=1e-2).setup(model)
        model.p11.update_rule.add_hook(lambda rule, param: param.grad.__imul__(2))
        model.p13.update_rule.use_fp32_update()
        model.p17.update_rule.hyperparam.lr = 0.5
        grids = launches(monkeypatch)
        for grads in steps:
            if not one_by_one:
                train_arrays(optimizer, grads)
                continue
            set_gradients(model, grads)
            for param in model.params():
                param.update()
        runs.append(arrays_of(optimizer))
        # `again`, the tied one, comes first; p3 is stepped in the next launch. The special ones cut the rest.
        assert len(grids) <= (0 if one_by_one else 8 * len(steps))
        if not one_by_one:
            assert sum(grid[0] for grid in grids) >= 40 * (len(steps) - 1)
    assert_same(runs[0], runs[1])


def set_gradients(model, grads):
    """Copies of arrays, to parameters by their numbers."""
    for i, grad in enumerate(grads):
        param = getattr(model, f"p{i}")
        param.grad = param.device.send(grad)


def train_arrays(optimizer, grads):
    """One update with these gradients."""
    set_gradients(optimizer.target, grads)
    optimizer.update()


def test_a_model_on_two_gpus_is_updated_on_each():
    """Each device's parameters in launches of their own."""
    if cuda.cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    model, steps = model_and_gradients()
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    model.p0.to_device("@cupy:0")
    model.p1.to_device("@cupy:1")
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    for grads in steps:
        train_arrays(optimizer, grads)
    assert_same(arrays_of(optimizer), arrays_of(expected))
    assert [array.device.id for array in arrays_of(optimizer).values()].count(1) == 4


EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


@pytest.mark.parametrize(
    ("script", "options"),
    [("train_digits.py", ["--epoch", "3"]), ("train_text.py", ["--epoch", "1", "--unit", "64"])],
    ids=["digits", "text"],
)
def test_an_example_trains_to_the_same_losses_as_on_the_cpu(tmp_path, script, options):
    """Within one part in twenty: rounding differs, and training multiplies the difference."""
    for module in ("matplotlib", "sklearn"):
        pytest.importorskip(module)
    logs = []
    for device in ("@numpy", GPU):
        out = tmp_path / device.strip("@").replace(":", "")
        command = [sys.executable, str(EXAMPLES / script), *options, "--device", device, "--out", str(out)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, run.stdout + run.stderr
        logs.append(json.loads((out / "log.json").read_text(encoding="utf-8")))
    assert len(logs[0]) == len(logs[1]) > 0
    for expected, entry in zip(*logs):
        losses = [name for name in expected if name.endswith(("loss", "bits"))]
        assert losses
        for name in losses:
            numpy.testing.assert_allclose(entry[name], expected[name], rtol=0.05, err_msg=name)


def test_a_model_that_moves_between_devices_takes_its_states_along():
    """From the CPU to the GPU and back, within one training."""
    model, steps = model_and_gradients()
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    for device, part in (("@numpy", steps[:2]), (GPU, steps[2:4]), ("@numpy", steps[4:])):
        model.to_device(device)
        train(optimizer, part)
        assert all(chainer.get_device(device).is_array_supported(array) for array in arrays_of(optimizer).values())
    assert_same(arrays_of(optimizer), arrays_of(expected))


@pytest.mark.parametrize(
    "hook",
    [chainer.optimizer_hooks.WeightDecay(0.1), chainer.optimizer_hooks.GradientClipping(0.5)],
    ids=["weight decay", "clipping"],
)
def test_hooks_run_before_the_step(hook):
    """As on the CPU."""
    runs = []
    for device in ("@numpy", GPU):
        model, steps = model_and_gradients()
        model.to_device(device)
        optimizer = RMSpropGraves(lr=1e-2).setup(model)
        optimizer.add_hook(hook)
        runs.append(arrays_of(train(optimizer, steps)))
    for name, array in on_cpu(runs[1]).items():
        # A hook's own arithmetic, such as a norm, may round otherwise on a GPU.
        numpy.testing.assert_allclose(array, runs[0][name], 1e-5, 1e-5, err_msg=name)


def test_fp32_update_keeps_float32_masters_of_float16_parameters():
    """The steps are those of a float32 model, and only the parameters are rounded to halves."""
    model, steps = model_and_gradients("f2")
    wide = Arrays(*(param.array.astype("f4") for param in (model.p0, model.p1)))
    wide.to_device(GPU)
    expected = arrays_of(
        train(RMSpropGraves(lr=1e-2).setup(wide), [[g.astype("f4") for g in grads] for grads in steps])
    )
    model.to_device(GPU)
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    optimizer.use_fp32_update()
    actual = arrays_of(train(optimizer, steps))
    for name, array in on_cpu(expected).items():
        assert actual[name].dtype == ("f4" if name.count("/") == 2 else "f2")
        numpy.testing.assert_array_equal(cuda.to_cpu(actual[name]), array.astype(actual[name].dtype), err_msg=name)


def test_loss_scaling_is_taken_out_before_the_step():
    """A power of two, so that it leaves no rounding: the bits are those without it."""
    runs = []
    for scale in (None, 256.0):
        model, steps = model_and_gradients()
        model.to_device(GPU)
        optimizer = RMSpropGraves(lr=1e-2).setup(model)
        if scale is not None:
            optimizer.set_loss_scale(scale)
        device = chainer.get_device(GPU)
        for grads in steps:
            optimizer.update(loss_with_gradients, model, [device.send(grad) for grad in grads])
        runs.append(arrays_of(optimizer))
    assert_same(runs[1], runs[0])


def loss_with_gradients(model, grads):
    """A loss of which the parameters' gradients are those given."""
    return chainer.functions.sum(model.p0 * grads[0]) + chainer.functions.sum(model.p1 * grads[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-11)])
def test_chainers_own_class_is_close_on_a_gpu(dtype, tolerance):
    """Its kernel takes an approximate reciprocal root, and 1 - alpha in float32."""
    param = numpy.random.RandomState(0).standard_normal(2000).astype(dtype)
    optimizers = [optimizer.setup(Arrays(param)) for optimizer in (RMSpropGraves(), ChainerRMSpropGraves())]
    for optimizer in optimizers:
        optimizer.target.to_device(GPU)
    rng = numpy.random.RandomState(1)
    for _ in range(50):
        grad = rng.standard_normal(2000).astype(dtype)
        for optimizer in optimizers:
            train(optimizer, [[grad]])
    ours, chainers = (on_cpu(arrays_of(optimizer)) for optimizer in optimizers)
    for name, array in ours.items():
        scale = numpy.abs(array).max()
        numpy.testing.assert_allclose(array, chainers[name], rtol=0, atol=tolerance * scale, err_msg=name)
