"""The CUDA kernel of many parameters where there is no GPU: its bits in C++, what is launched, and NVRTC."""

from __future__ import annotations

import mmap
import re
import sys
from types import SimpleNamespace

import numpy
import pytest
from gpu_stand_in import Device
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import nvrtc
from kernels.cases import DEFAULTS, SETTINGS
from skips import not_installed

from rmsprop_graves.kernels import cuda
from rmsprop_graves.kernels import cupy as kernel

DTYPES = ("float16", "float32", "float64")


def chunk(dtype):
    """Elements of a chunk."""
    return cuda.CHUNK_BYTES // numpy.dtype(dtype).itemsize


def arrays(gpu, size, dtype, seed=0, offset=0):
    """param, grad, n, g and delta of a parameter, which begin as many elements after where CuPy begins an array."""
    rng = numpy.random.RandomState(seed)
    values = rng.standard_normal((5, size)) * 10.0 ** rng.uniform(-3, 1, (5, 1))
    values[2] = values[3] ** 2 + numpy.abs(values[2])
    made = []
    for value in values.astype(dtype):
        room = gpu.asarray(numpy.concatenate([numpy.zeros(offset, dtype), value]))
        made.append(room[offset:])
    return made


def copies(rows):
    """The same arrays in other memory."""
    return [[array.copy() for array in row] for row in rows]


def step_each(rows, hyperparameters):
    """Steps each by the kernel of one parameter."""
    for (param, grad, n, g, delta), values in zip(rows, hyperparameters):
        kernel.step(param, grad, n, g, delta, **values)


def table_of(rows):
    """The table, and the gradients."""
    params, grads, *states = (list(column) for column in zip(*rows))
    return kernel.Table(params, *states), grads


def step_at_once(rows, hyperparameters):
    """Steps all by the kernel of a table, which must hold them."""
    table, grads = table_of(rows)
    assert table.misfits(grads) == []
    table.step(grads, hyperparameters, 0, len(rows))
    return table


def assert_same_bits(rows, others):
    for row, other in zip(rows, others):
        for name, array, expected in zip(("param", "grad", "n", "g", "delta"), row, other):
            assert array.get().tobytes() == expected.get().tobytes(), name


def table_launches(gpu):
    """Those of a table's kernel."""
    return [launch for launch in gpu.launches if launch.name == cuda.TABLE_NAME]


# Its bits


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_has_the_bits_of_the_kernel_of_one_parameter(gpu, dtype, data):
    """Whatever the tensors: empty, tiny, beginning anywhere, ending in the middle of a vector or chunk."""
    whole = chunk(dtype)
    size = st.one_of(
        st.integers(0, 40),
        st.integers(1, 3).flatmap(lambda chunks: st.integers(chunks * whole - 9, chunks * whole + 9)),
    )
    values = st.sampled_from(sorted(SETTINGS))
    specs = data.draw(st.lists(st.tuples(size, st.sampled_from([0, 0, 0, 1, 3, 8]), values), min_size=1, max_size=8))
    rows = [arrays(gpu, size, dtype, seed, offset) for seed, (size, offset, _) in enumerate(specs)]
    hyperparameters = [SETTINGS[name] for *_, name in specs]
    expected = copies(rows)
    step_each(expected, hyperparameters)
    step_at_once(rows, hyperparameters)
    assert_same_bits(rows, expected)


@pytest.mark.parametrize("odd", range(5), ids=["param", "grad", "n", "g", "delta"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_array_alone_may_begin_off_a_vector(gpu, dtype, odd):
    """Then the tensor is stepped element by element, and the others are not."""
    rows = [arrays(gpu, 100, dtype, seed=1), arrays(gpu, 100, dtype, seed=2)]
    rows[0][odd] = arrays(gpu, 100, dtype, seed=3, offset=1)[0]
    if odd == 2:
        rows[0][2] = abs(rows[0][2])
    expected = copies(rows)
    step_each(expected, [DEFAULTS] * 2)
    step_at_once(rows, [DEFAULTS] * 2)
    assert_same_bits(rows, expected)


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_that_is_not_finite_reaches_its_element_and_no_other(gpu, dtype, value):
    """Neither the other elements of its vector."""
    row = arrays(gpu, 40, dtype)
    row[1][17] = value
    step_at_once([row], [DEFAULTS])
    numpy.testing.assert_array_equal(numpy.flatnonzero(~numpy.isfinite(row[0].get())), [17])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_beyond_the_arrays_is_written(gpu, dtype):
    """Neither before nor after, by vectors or by elements."""
    for size, offset in ((37, 16), (37, 3), (chunk(dtype) + 5, 16)):
        rooms = [gpu.asarray(numpy.full(size + 2 * offset, 7, dtype)) for _ in range(5)]
        step_at_once([[room[offset : offset + size] for room in rooms]], [DEFAULTS])
        for room in rooms:
            edges = numpy.concatenate([room.get()[:offset], room.get()[offset + size :]])
            assert (edges == 7).all()


NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for more memory than there is")
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_elements_beyond_two_to_the_32nd_are_stepped(gpu, dtype):
    """The last blocks of such a tensor; of its memory only what they touch need be there."""
    size = 2**32 + 2 * chunk(dtype) + 13
    nbytes = size * numpy.dtype(dtype).itemsize
    rooms = [mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE) for _ in range(5)]
    row = [gpu.adopt(numpy.frombuffer(room, dtype)) for room in rooms]
    tail = arrays(gpu, 40, dtype)
    for array, values in zip(row, tail):
        array[-40:] = values
    gpu.blocks = slice(-2, None)
    step_at_once([row], [DEFAULTS])
    assert gpu.launches[-1].grid == -(-size // chunk(dtype))
    step_each([tail], [DEFAULTS])
    assert_same_bits([[array[-40:] for array in row]], [tail])


# What is launched


def test_a_model_is_one_launch(gpu):
    """Of 161 tensors, as many as ResNet-50 has."""
    rows = [arrays(gpu, size, "float32", size) for size in range(161)]
    step_at_once(rows, [DEFAULTS] * 161)
    (launch,) = gpu.launches
    assert (launch.device_id, launch.grid) == (0, 160)  # the one without elements has no block


@pytest.mark.parametrize(("count", "launches"), [(1, 1), (400, 1), (401, 2), (1200, 3), (1201, 4)])
def test_gradients_that_do_not_fit_into_one_launch_are_in_several(gpu, count, launches):
    """Each has the addresses of as many as it steps."""
    rows = [arrays(gpu, 3, "float32", seed) for seed in range(count)]
    expected = copies(rows)
    step_each(expected, [DEFAULTS] * count)
    step_at_once(rows, [DEFAULTS] * count)
    assert len(table_launches(gpu)) == launches
    assert_same_bits(rows, expected)


@pytest.mark.parametrize(("different", "launches"), [(1, 1), (8, 1), (9, 4), (30, 4)])
def test_each_parameter_has_its_own_hyperparameters(gpu, different, launches):
    """Up to eight sets in a launch; equal ones are one set, whichever object they are of."""
    rows = [arrays(gpu, 5, "float64", seed) for seed in range(30)]
    hyperparameters = [{**DEFAULTS, "lr": 0.1 + place % different} for place in range(30)]
    expected = copies(rows)
    step_each(expected, hyperparameters)
    step_at_once(rows, hyperparameters)
    assert len(table_launches(gpu)) == launches
    assert_same_bits(rows, expected)


def test_zeros_of_either_sign_are_different_hyperparameters(gpu):
    """An lr of -0.0 makes steps of the other sign."""
    rows = [arrays(gpu, 1, "float32", 1) for _ in range(2)]
    for row in rows:
        row[4][...] = -0.0
    step_at_once(rows, [{**DEFAULTS, "lr": lr, "momentum": 0.0} for lr in (0.0, -0.0)])
    assert numpy.signbit(rows[0][4].get()) != numpy.signbit(rows[1][4].get())


@pytest.mark.parametrize(("first", "last"), [(0, 4), (1, 3), (2, 2), (3, 4)])
def test_a_step_of_some_rows_leaves_the_others(gpu, first, last):
    """Their places are counted from the first of the table."""
    rows = [arrays(gpu, size, "float32", size) for size in (5, 0, 5000, 7)]
    expected = copies(rows)
    step_each(expected[first:last], [DEFAULTS] * 4)
    table, grads = table_of(rows)
    table.step(grads, [DEFAULTS] * 4, first, last)
    assert_same_bits(rows, expected)


def test_what_is_asked_of_the_gradients_does_not_grow_with_the_pieces(gpu, monkeypatch):
    """A step of every second row, as between parameters that are stepped by themselves, takes those rows' alone."""
    rows = [arrays(gpu, 3, "float32", seed) for seed in range(20)]
    table, grads = table_of(rows)
    asked = []
    addresses = kernel._addresses
    monkeypatch.setattr(kernel, "_addresses", lambda arrays: asked.extend(arrays) or addresses(arrays))
    for first in range(0, 20, 2):
        table.step(grads, [DEFAULTS] * 20, first, first + 1)
    assert len(asked) == 10


def test_the_constant_part_is_copied_once(gpu):
    """A step copies nothing: what changes comes with the launch."""
    rows = [arrays(gpu, 10, "float32", seed) for seed in range(3)]
    table, grads = table_of(rows)
    before = len(gpu.memory)
    for _ in range(3):
        table.step(grads, [DEFAULTS] * 3, 0, 3)
    assert len(gpu.memory) == before
    assert len(gpu.launches) == 3


def test_a_parameter_that_is_there_twice_is_stepped_twice(gpu):
    """In the next launch: in the same they would race."""
    rows = [arrays(gpu, 50, "float32", seed) for seed in range(4)]
    rows.insert(2, rows[0])
    expected = copies(rows[:2]) + copies(rows[3:])
    expected.insert(2, expected[0])
    step_each(expected, [DEFAULTS] * 5)
    step_at_once(rows, [DEFAULTS] * 5)
    assert len(table_launches(gpu)) == 2
    assert_same_bits(rows, expected)


@pytest.mark.parametrize("step", [1, 7, 60, 100])
def test_views_of_one_memory_are_stepped_in_turn(gpu, step):
    """Windows of a hundred elements of the same buffers, of which those that overlap are not in one launch."""
    buffers = arrays(gpu, 500, "float32")
    expected = copies([buffers])[0]
    rows, others = ([[b[i * step :][:100] for b in all_] for i in range(4)] for all_ in (buffers, expected))
    gradients = [arrays(gpu, 100, "float32", seed)[1] for seed in range(4)]
    for row, other, grad in zip(rows, others, gradients):
        row[1] = other[1] = grad
    step_each(others, [DEFAULTS] * 4)
    step_at_once(rows, [DEFAULTS] * 4)
    assert len(table_launches(gpu)) == {1: 4, 7: 4, 60: 4, 100: 1}[step]
    assert_same_bits([buffers], [expected])


def test_a_gradient_in_memory_that_is_stepped_is_read_when_its_turn_comes(gpu):
    """By the kernel of one parameter, one after the other."""
    rows = [arrays(gpu, 50, "float32", seed) for seed in range(3)]
    rows[1][1] = rows[0][0]
    rows[0][1] = rows[2][4]
    values = [array.copy() for row in rows for array in row]
    expected = [values[5 * i : 5 * i + 5] for i in range(3)]
    expected[1][1] = expected[0][0]
    expected[0][1] = expected[2][4]
    step_each(expected, [DEFAULTS] * 3)
    gpu.launches.clear()
    step_at_once(rows, [DEFAULTS] * 3)
    assert [launch.name for launch in gpu.launches] == [cuda.NAME] * 3
    assert_same_bits(rows, expected)


def test_what_cannot_be_stepped_by_address_is_named(gpu):
    """Another layout, another shape or dtype of the gradient, and an array that was given another shape in place."""
    rows = [[array.reshape(2, 3) for array in arrays(gpu, 6, "float32", seed)] for seed in range(8)]
    rows[1][0] = gpu.asarray(numpy.ones((3, 2), "f4")).T
    rows[2][3] = gpu.asarray(numpy.ones((2, 6), "f4"))[:, ::2]
    rows[3][2] = gpu.asarray(numpy.ones(6, "f4"))
    table, grads = table_of(rows)
    assert table.misfits(grads) == [1, 2, 3]
    grads[4] = gpu.asarray(numpy.ones((2, 3), "f8"))
    grads[5] = gpu.asarray(numpy.ones((1, 3), "f4"))
    grads[6] = gpu.asarray(numpy.ones((3, 2), "f4")).T
    rows[7][0].shape = (3, 2)
    assert table.misfits(grads) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("dtype", ["float32", "int32", "complex64", "longdouble"])
def test_a_dtype_that_is_not_compiled_for_is_a_misfit(gpu, dtype):
    """All of its rows."""
    rows = [[gpu.asarray(numpy.ones(3, dtype)) for _ in range(5)] for _ in range(2)]
    table, grads = table_of(rows)
    assert table.misfits(grads) == ([] if dtype == "float32" else [0, 1])


# Streams and lifetimes


def test_a_step_waits_for_nothing(gpu):
    """Neither does the making of the table: all is done in the order of the stream."""
    row = arrays(gpu, 5000, "float32")
    expected = copies([row])
    step_each(expected, [DEFAULTS])
    before = copies([row])
    with gpu.held_back():
        step_at_once([row], [DEFAULTS])
        assert_same_bits([row], before)
        gpu.stream().synchronize()
    assert_same_bits([row], expected)


def test_a_table_lives_as_long_as_its_launch(gpu):
    """It may be let go at once, and its memory serve again, since that comes later on the same stream."""
    row = arrays(gpu, 5000, "float32")
    expected = copies([row])
    step_each(expected, [DEFAULTS] * 2)
    with gpu.held_back():
        for _ in range(2):
            step_at_once([row], [DEFAULTS])
        gpu.stream().synchronize()


def test_a_table_is_of_one_stream(gpu):
    """On another it might not be there yet, and might be gone before the launch that reads it."""
    rows = [arrays(gpu, 10, "float32")]
    params, _, *states = (list(column) for column in zip(*rows))
    table, grads = table_of(rows)
    assert table.holds(params, *states)
    stream = gpu.cuda.Stream()
    with stream:
        assert not table.holds(params, *states)
        other = kernel.Table(params, *states)
        assert other.holds(params, *states)
        other.step(grads, [DEFAULTS], 0, 1)
    assert gpu.launches[-1].stream == stream.ptr
    assert not other.holds(params, *states)


def test_a_table_is_of_its_very_arrays(gpu):
    """Equal ones are others."""
    rows = [arrays(gpu, 10, "float32", seed) for seed in range(2)]
    table, _ = table_of(rows)
    columns = [list(column) for column in zip(*rows)]
    del columns[1]
    assert table.holds(*columns)
    for column in columns:
        own = column[1]
        column[1] = own.copy()
        assert not table.holds(*columns)
        column[1] = own
    assert table.holds(*columns)
    assert not table.holds(*(column[:1] for column in columns))


def test_the_stand_in_notices_memory_that_is_gone(gpu):
    """What these tests would find: a launch that comes after its table has been let go on another stream."""
    row = arrays(gpu, 10, "float32")
    table, grads = table_of([row])
    with gpu.held_back():
        stream = gpu.cuda.Stream()
        with stream:
            table.step(grads, [DEFAULTS], 0, 1)
        del table
        gpu.stream().synchronize()
        with pytest.raises(AssertionError, match="not allocated when its turn comes"):
            stream.synchronize()


def test_each_device_has_its_own_table(gpu):
    """Made and stepped where it is current."""
    with Device(1):
        row = arrays(gpu, 10, "float32")
        expected = copies([row])
        step_each(expected, [DEFAULTS])
        step_at_once([row], [DEFAULTS])
    assert gpu.launches[-1].device_id == 1
    assert_same_bits([row], expected)


# CuPy


def test_the_addresses_of_cupys_own_arrays_are_taken(gpu):
    """Of arrays of the class itself, in the host's memory, which needs no GPU."""
    cupy = pytest.importorskip("cupy", exc_type=ImportError, reason=not_installed("cupy"))
    hosts = [numpy.full(20, value, "f4") for value in (1, 2, 5, 1, 0)]

    def on_host(array):
        memory = cupy.cuda.UnownedMemory(array.ctypes.data, array.nbytes, array, device_id=0)
        gpu.adopt(array)
        return cupy.ndarray((4, 5), array.dtype, cupy.cuda.MemoryPointer(memory, 0))

    row = [on_host(array) for array in hosts]
    expected = arrays(gpu, 20, "float32")
    for array, host in zip(expected, hosts):
        array[...] = host
    step_each([expected], [DEFAULTS])
    step_at_once([row], [DEFAULTS])
    for host, array in zip(hosts, expected):
        assert host.tobytes() == array.get().tobytes()
    table, grads = table_of([row])
    assert table.misfits([grads[0].T]) == [0]
    row[0].shape = (5, 4)
    assert table.misfits(grads) == [0]


@pytest.mark.parametrize("version", ["11.6.0", "9.0.0b1"])
def test_a_cupy_that_is_too_old_is_refused(monkeypatch, version):
    """It passes no struct by value."""
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__=version))
    kernel.load_cupy.cache_clear()
    with pytest.raises(ImportError, match=f"needs CuPy 12 or newer, found {version}; install cupy-cuda12x"):
        kernel.load_cupy()


# Its compilation, by NVRTC


@pytest.fixture(scope="module")
def compiler():
    """NVRTC as CuPy uses it, and what it has compiled so far."""
    return nvrtc.Compiler()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES, ids="sm_{}".format)
def test_nvrtc_compiles_what_cupy_would_give_it(compiler, architecture, dtype):
    """Into machine code, for each architecture."""
    ptx, cubin, _ = compiler.table(dtype, architecture)
    assert f".target sm_{architecture}" in ptx
    assert f".entry {cuda.TABLE_NAME}" in ptx
    assert cubin.startswith(b"\x7fELF")


@pytest.mark.parametrize("dtype", DTYPES)
def test_registers_suffice(compiler, dtype):
    """As the assembler reports for Hopper: nothing spilled, nothing on a stack, four blocks on a processor at once."""
    report = compiler.table(dtype, 90).report
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    (registers,) = re.findall(r"Used (\d+) registers", report)
    assert int(registers) <= 65536 // (4 * cuda.THREADS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_are_loaded_and_stored_whole_and_all_loads_come_first(compiler, dtype):
    """Five loads of 16 bytes and four stores, by instructions for global memory; nothing in local memory."""
    codes = nvrtc.instructions(compiler.table(dtype, 90).ptx)
    memory = [code for code in codes if code.split(".")[0] in ("ld", "st") and ".param" not in code]
    assert all(".global" in code for code in memory)
    vectors = {"float16": "v4.u32", "float32": "v4.f32", "float64": "v2.f64"}[dtype]
    wide = [code.split(".")[0] for code in memory if vectors in code]
    assert wide == ["ld"] * 5 + ["st"] * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_is_rounded_and_flushes_nothing(compiler, dtype):
    """In the loop over vectors, and in the one over elements, which the compiler may unroll."""
    elements = nvrtc.rounded_elements(compiler.table(dtype, 90).ptx, dtype)
    assert elements > 16 // numpy.dtype(dtype).itemsize


@pytest.mark.parametrize("dtype", DTYPES)
def test_nvrtc_finds_nothing_to_contract(compiler, dtype):
    """Without leave to fuse products and sums, it makes the same instructions."""
    free, bound = (compiler.table(dtype, 90, *options).ptx for options in ((), ("-fmad=false",)))
    assert nvrtc.instructions(free) == nvrtc.instructions(bound)
