"""Tables of addresses, for Numba and for a stand-in for a GPU: their bits, limits and lifetime."""

from __future__ import annotations

import gc
import mmap
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy
import pytest
from gpu_stand_in import Device
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import cases
from models import assert_same_bits, on_host
from random_models import NUMPY_LAYOUTS, laid_out, reshape_in_place

from rmsprop_graves.kernels import cuda, threads
from rmsprop_graves.kernels import cupy as cupy_kernel

COLUMNS = cases.NAMES
DEFAULTS = tuple(cases.DEFAULTS.values())
SETTINGS = [tuple(values.values()) for values in {**cases.SETTINGS, **cases.EXTREME_SETTINGS}.values()]


@pytest.fixture(params=["numba", "gpu"])
def place(request, monkeypatch):
    """A kernel with a table; `to` copies an array to its device, and `dtypes` are the dtypes that it can step."""
    if request.param == "gpu":
        gpu = request.getfixturevalue("gpu")
        return SimpleNamespace(kernel=cupy_kernel, to=gpu.asarray, dtypes=("f2", "f4", "f8"), gpu=gpu)
    module = pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError)
    monkeypatch.setattr(threads, "_num_threads", 2)
    monkeypatch.setattr(threads, "SPAN", 8)
    return SimpleNamespace(kernel=module, to=numpy.array, dtypes=("f4", "f8"), gpu=None)


@pytest.fixture
def on_gpu(gpu):
    """The same as `place`, for the stand-in only."""
    return SimpleNamespace(kernel=cupy_kernel, to=gpu.asarray, gpu=gpu)


def row_of(place, shape, dtype="f4", seed=0, offset=0):
    """Return param, grad, n, g and delta. Each begins `offset` elements after the start of its memory."""
    rng = numpy.random.RandomState(seed)
    size = int(numpy.prod(shape))
    values = rng.standard_normal((5, size)) * 10.0 ** rng.uniform(-3, 1, (5, 1))
    values[2] = values[3] ** 2 + numpy.abs(values[2])
    rooms = (place.to(numpy.concatenate([numpy.zeros(offset), value]).astype(dtype)) for value in values)
    return [room[offset:].reshape(shape) for room in rooms]


def rows_of(place, *shapes, **options):
    return [row_of(place, shape, seed=seed, **options) for seed, shape in enumerate(shapes)]


def copies(rows):
    return [[array.copy() for array in row] for row in rows]


def table_of(place, rows):
    """Return the table of the rows, and their gradients."""
    params, grads, *states = map(list, zip(*rows))
    return place.kernel.Table(params, *states), grads


def can_step(place, rows):
    """Whether a table can step the rows at once."""
    table, grads = table_of(place, rows)
    return table.locate(grads) is not None


def step_at_once(place, rows, sets):
    table, grads = table_of(place, rows)
    addresses = table.locate(grads)
    assert addresses is not None
    table.step(addresses, sets)


def assert_steps_as_each(place, rows, sets, steps=1):
    """Assert that stepping by a table and one parameter at a time are bit-identical."""
    expected = copies(rows)
    for _ in range(steps):
        for (param, grad, n, g, delta), values in zip(expected, sets):
            place.kernel.step(param, grad, n, g, delta, **dict(zip(cases.DEFAULTS, values)))
        step_at_once(place, rows, sets)
    for row, other in zip(rows, expected):
        assert_same_bits(*({name: on_host(one) for name, one in zip(COLUMNS, arrays)} for arrays in (row, other)))


# Bits


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_table_has_the_bits_of_the_kernel_of_one_parameter(place, data):
    """Arrays may be empty or tiny, begin anywhere, and end in the middle of a vector, chunk or span."""
    dtype = data.draw(st.sampled_from(place.dtypes))
    whole = cuda.CHUNK_BYTES // numpy.dtype(dtype).itemsize
    size = st.one_of(
        st.integers(0, 40),
        st.integers(1, 3).flatmap(lambda chunks: st.integers(chunks * whole - 9, chunks * whole + 9)),
    )
    one = st.tuples(size, st.sampled_from([0, 0, 0, 1, 3, 8]), st.sampled_from(SETTINGS))
    specs = data.draw(st.lists(one, min_size=1, max_size=8))
    rows = [row_of(place, size, dtype, seed, offset) for seed, (size, offset, _) in enumerate(specs)]
    assert_steps_as_each(place, rows, [values for *_, values in specs])


@pytest.mark.parametrize("odd", range(5), ids=COLUMNS)
def test_a_single_array_may_be_unaligned_to_vectors(place, odd):
    """The other arrays and the other row are aligned."""
    for dtype in place.dtypes:
        rows = rows_of(place, 100, 100, dtype=dtype)
        rows[0][odd] = row_of(place, 100, dtype, 3, offset=1)[odd]
        assert_steps_as_each(place, rows, [DEFAULTS] * 2)


@pytest.mark.parametrize("shapes", [(0,), (0, (2, 0), 5, 0, (0, 3), 4, (), 0, 0), ((2, 3), (), (3, 1), 17)], ids=str)
def test_arrays_may_have_any_shapes_and_no_elements(place, shapes):
    """Arrays without elements are at the beginning, in the middle and at the end."""
    assert_steps_as_each(place, rows_of(place, *shapes), [DEFAULTS] * len(shapes), steps=2)


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf], ids=str)
def test_a_gradient_that_is_not_finite_reaches_its_element_and_no_other(place, value):
    """The other elements of its vector stay finite."""
    for dtype in place.dtypes:
        row = row_of(place, 40, dtype)
        row[1][17] = value
        step_at_once(place, [row], [DEFAULTS])
        numpy.testing.assert_array_equal(numpy.flatnonzero(~numpy.isfinite(on_host(row[0]))), [17])


def test_nothing_beyond_the_arrays_is_written(place):
    """The memory before and after them does not change, in steps by vectors or by elements."""
    for dtype in place.dtypes:
        for size, offset in ((37, 16), (37, 3), (4096 + 5, 16)):
            rooms = [place.to(numpy.full(size + 2 * offset, 7, dtype)) for _ in range(5)]
            step_at_once(place, [[room[offset : offset + size] for room in rooms]], [DEFAULTS])
            for room in map(on_host, rooms):
                assert (numpy.concatenate([room[:offset], room[offset + size :]]) == 7).all()


def test_zeros_of_either_sign_are_different_hyperparameters(place):
    """A learning rate of -0.0 gives a step with the other sign."""
    rows = rows_of(place, 1, 1)
    for row in rows:
        row[1][...] = 1
        row[4][...] = -0.0
    step_at_once(place, rows, [(lr, 0.95, 0.0, 1e-4) for lr in (0.0, -0.0)])
    assert numpy.signbit(on_host(rows[0][4])) != numpy.signbit(on_host(rows[1][4]))


def test_a_hyperparameter_too_large_for_the_dtype_is_infinite_without_a_warning(place):
    """A table rounds hyperparameters to float32 as the kernel of one parameter does."""
    assert_steps_as_each(place, rows_of(place, 5, 3), [(1e300, *DEFAULTS[1:]), DEFAULTS])


@pytest.mark.parametrize("span", [1 << 17, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_threads_has_the_same_bits(monkeypatch, count, span):
    """The arrays have a million elements in all, and end in the middle of spans."""
    kernel = pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError)
    monkeypatch.setattr(threads, "_num_threads", count)
    monkeypatch.setattr(threads, "SPAN", span)
    numba = SimpleNamespace(kernel=kernel, to=numpy.array)
    rows = rows_of(numba, 400_003, 7, 0, (100, 999), 500_000)
    assert_steps_as_each(numba, rows, SETTINGS[:5], steps=2)


# Limits


@pytest.mark.parametrize("layout", ["transposed", "strided", "backwards", *NUMPY_LAYOUTS])
@pytest.mark.parametrize("odd", range(5), ids=COLUMNS)
def test_arrays_of_other_layouts_cannot_be_stepped_but_gradients_are_copied(place, odd, layout):
    """A gradient can be copied because it is only read. Another byte order or class is not supported."""
    rows = [row_of(place, (2, 3), seed=seed) for seed in range(3)]
    rows[1][odd] = laid_out(rows[1][odd], layout)
    is_same = place.gpu is not None and layout in NUMPY_LAYOUTS
    is_copied = odd == 1 and layout not in ("byte-swapped", "subclass")
    assert can_step(place, rows) == (is_same or is_copied)
    if is_copied:
        assert_steps_as_each(place, rows, [DEFAULTS] * 3, steps=2)


@pytest.mark.parametrize("odd", range(5), ids=COLUMNS)
def test_arrays_of_another_shape_or_dtype_cannot_be_stepped(place, odd):
    """Different shapes may have the same number of elements."""
    for other in (numpy.ones((3, 2), "f4"), numpy.ones((1, 3), "f4"), numpy.ones((2, 3), "f8"), numpy.ones(6, "f4")):
        rows = rows_of(place, (2, 3), (2, 3), (2, 3))
        rows[1][odd] = place.to(other)
        assert not can_step(place, rows)


@pytest.mark.parametrize("dtype", ["int32", "complex64", "longdouble", "float16"])
def test_a_dtype_without_a_compiled_loop_cannot_be_stepped(place, dtype):
    """Numba cannot compile float16 for a CPU."""
    rows = [[place.to(numpy.ones(3, dtype)) for _ in range(5)] for _ in range(2)]
    assert can_step(place, rows) == (place.gpu is not None and dtype == "float16")


@pytest.mark.parametrize("column", [0, 2, 3, 4])
def test_a_gradient_that_overlaps_a_written_array_cannot_be_stepped(place, column):
    """The overlap is total or partial, with any row. Adjacent memory is no overlap."""
    for row, part in ((0, slice(3, 43)), (2, slice(10, 50)), (1, slice(0, 40))):
        rows = rows_of(place, 50, 40, 50)
        rows[1][1] = rows[row][column][: rows[1][0].size] if row == 1 else rows[row][column][part]
        assert not can_step(place, rows)
    room = place.to(numpy.ones(90, "f4"))
    rows = rows_of(place, 50, 40, 50)
    rows[0][column], rows[1][1] = room[:50], room[50:]
    assert_steps_as_each(place, rows, [DEFAULTS] * 3)


@pytest.mark.parametrize("overlap", [0, 1, 30])
@pytest.mark.parametrize("column", [0, 2, 3, 4])
def test_rows_that_share_memory_cannot_be_stepped_at_once(place, column, overlap):
    """One shared element is enough. Adjacent memory can be stepped."""
    room = abs(row_of(place, 100)[2])
    rows = rows_of(place, 50, 7, 50 + overlap)
    rows[0][column], rows[2][0] = room[:50], room[50 - overlap :]
    assert can_step(place, rows) == (overlap == 0)


@pytest.mark.parametrize("seed", range(5))
def test_arrays_back_to_back_in_one_buffer_are_stepped_in_any_order(place, seed):
    """An array that begins one element early, in the one before it, is refused unless both are gradients."""
    sizes = numpy.repeat([7, 50, 20], 5)
    order = numpy.random.RandomState(seed).permutation(len(sizes))
    begins = numpy.zeros(len(sizes), int)
    begins[order[1:]] = numpy.cumsum(sizes[order])[:-1]
    room = place.to(numpy.arange(1, 1 + sizes.sum(), dtype="f4"))
    arrays = [room[begin : begin + size] for begin, size in zip(begins, sizes)]
    assert_steps_as_each(place, [arrays[:5], arrays[5:10], arrays[10:]], [DEFAULTS] * 3)
    for before, one in zip(order, order[1:]):
        early = list(arrays)
        early[one] = room[begins[one] - 1 :][: sizes[one]]
        are_gradients = before % 5 == one % 5 == 1
        assert can_step(place, [early[:5], early[5:10], early[10:]]) == are_gradients


# Lifetime


def test_a_table_can_be_reused_only_with_the_same_array_objects(place):
    """Equal copies, fewer arrays or more arrays need a new table."""
    rows = rows_of(place, 10, 10)
    table, _ = table_of(place, rows)
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
    assert not table.holds(*(column * 2 for column in columns))


def reshape(array):
    reshape_in_place(array, (3, 2))


def resize(array):
    array.resize((100,), refcheck=False)


def lock(array):
    array.flags.writeable = False


@pytest.mark.parametrize("change", [resize, lock, reshape])
@pytest.mark.parametrize("column", range(4))
def test_a_table_cannot_be_reused_after_an_array_changed_in_place(column, change):
    """Its shape, its size or its writeable flag changes."""
    kernel = pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError)
    columns = [[numpy.ones((2, 3), "f4") for _ in range(3)] for _ in range(4)]
    table = kernel.Table(*columns)
    assert table.holds(*columns)
    change(columns[column][1])
    assert not table.holds(*columns)


def test_a_gpu_table_cannot_be_reused_after_a_parameter_is_reshaped_in_place(on_gpu):
    """The shape is the only property of a CuPy array that can change in place."""
    rows = [row_of(on_gpu, (2, 3))]
    table, _ = table_of(on_gpu, rows)
    params, _, *states = map(list, zip(*rows))
    assert table.holds(params, *states)
    reshape(rows[0][0])
    assert not table.holds(params, *states)


# On a GPU: launches, streams, devices and lifetimes


def table_launches(gpu):
    return [launch for launch in gpu.launches if launch.name == cuda.TABLE_NAME]


@pytest.mark.parametrize(("count", "launches"), [(1, 1), (400, 1), (401, 2), (1200, 3), (1201, 4)])
def test_more_gradients_than_a_launch_can_hold_need_several_launches(on_gpu, count, launches):
    """A launch holds the addresses of 400 gradients."""
    assert_steps_as_each(on_gpu, rows_of(on_gpu, *[3] * count), [DEFAULTS] * count)
    assert len(table_launches(on_gpu.gpu)) == launches


@pytest.mark.parametrize(("different", "launches"), [(1, 1), (8, 1), (9, 4), (30, 4)])
def test_each_parameter_has_its_own_hyperparameters(on_gpu, different, launches):
    """A launch holds up to eight sets. Equal sets count once, even if they are different objects."""
    sets = [(0.1 + i % different, *DEFAULTS[1:]) for i in range(30)]
    assert_steps_as_each(on_gpu, rows_of(on_gpu, *[5] * 30, dtype="f8"), sets)
    assert len(table_launches(on_gpu.gpu)) == launches


def test_arrays_without_elements_have_no_blocks(on_gpu):
    """One of 161 arrays is empty, so the launch has 160 blocks."""
    step_at_once(on_gpu, rows_of(on_gpu, *range(161)), [DEFAULTS] * 161)
    (launch,) = on_gpu.gpu.launches
    assert (launch.device_id, launch.grid) == (0, 160)


def test_a_step_copies_nothing_to_the_device(on_gpu):
    """Gradients' addresses and hyperparameters are arguments of the launch."""
    table, grads = table_of(on_gpu, rows_of(on_gpu, 10, 10, 10))
    before = len(on_gpu.gpu.memory)
    for _ in range(3):
        table.step(table.locate(grads), [DEFAULTS] * 3)
    assert len(on_gpu.gpu.memory) == before
    assert len(on_gpu.gpu.launches) == 3


def test_a_step_is_asynchronous_and_its_table_may_be_deleted_at_once(on_gpu):
    """The table's memory can be reused only by later work on the same stream."""
    rows = [row_of(on_gpu, 5000)]
    expected, before = copies(rows), copies(rows)
    step_at_once(on_gpu, expected, [DEFAULTS]), step_at_once(on_gpu, expected, [DEFAULTS])
    with on_gpu.gpu.held_back():
        for _ in range(2):
            step_at_once(on_gpu, rows, [DEFAULTS])
            gc.collect()
        assert_same_bits({"": rows[0][0].get()}, {"": before[0][0].get()})
        on_gpu.gpu.stream().synchronize()
    assert_same_bits({"": rows[0][0].get()}, {"": expected[0][0].get()})


def test_a_table_can_be_reused_only_on_its_stream(on_gpu):
    """On another one a launch could run before the addresses are copied or after their memory is reused."""
    rows = rows_of(on_gpu, 10)
    params, _, *states = map(list, zip(*rows))
    table, grads = table_of(on_gpu, rows)
    assert table.holds(params, *states)
    stream = on_gpu.gpu.cuda.Stream()
    with stream:
        assert not table.holds(params, *states)
        other = cupy_kernel.Table(params, *states)
        assert other.holds(params, *states)
        other.step(other.locate(grads), [DEFAULTS])
    assert on_gpu.gpu.launches[-1].stream == stream.ptr
    assert not other.holds(params, *states)


@pytest.mark.parametrize(("address", "is_reused"), [(2, False), (12345, True)], ids=["of each thread", "of all"])
def test_a_table_of_a_per_thread_default_stream_is_reused_by_its_thread_only(on_gpu, monkeypatch, address, is_reused):
    """CUDA gives all these streams the handle 2. A stream with any other handle is the same in all threads."""
    monkeypatch.setattr(on_gpu.gpu.stream(), "ptr", address)
    params, _, *states = map(list, zip(*rows_of(on_gpu, 10)))
    table = cupy_kernel.Table(params, *states)
    assert table.holds(params, *states)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(table.holds, params, *states).result() == is_reused


def test_the_stand_in_finds_a_launch_that_reads_freed_memory(on_gpu):
    """The launch runs on another stream after its table was deleted, so the tests above can fail."""
    table, grads = table_of(on_gpu, rows_of(on_gpu, 10))
    with on_gpu.gpu.held_back():
        stream = on_gpu.gpu.cuda.Stream()
        with stream:
            table.step(table.locate(grads), [DEFAULTS])
        del table
        on_gpu.gpu.stream().synchronize()
        with pytest.raises(AssertionError, match="not allocated when its turn comes"):
            stream.synchronize()


def test_each_device_has_its_own_table(on_gpu):
    """A table is made and stepped on the current device, and cannot step arrays of another device."""
    elsewhere = row_of(on_gpu, 10)
    with Device(1):
        assert_steps_as_each(on_gpu, rows_of(on_gpu, 10), [DEFAULTS])
        assert on_gpu.gpu.launches[-1].device_id == 1
        for odd in range(5):
            rows = rows_of(on_gpu, 10)
            rows[0][odd] = elsewhere[odd]
            assert not can_step(on_gpu, rows)


NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for more memory than there is")
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_elements_beyond_two_to_the_32nd_are_stepped(on_gpu, dtype):
    """Only the last blocks run, so only the memory that they touch is needed."""
    chunk = cuda.CHUNK_BYTES // numpy.dtype(dtype).itemsize
    size = 2**32 + 2 * chunk + 13
    nbytes = size * numpy.dtype(dtype).itemsize
    rooms = [mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE) for _ in range(5)]
    row = [on_gpu.gpu.adopt(numpy.frombuffer(room, dtype)) for room in rooms]
    tail = row_of(on_gpu, 40, dtype)
    for array, values in zip(row, tail):
        array[-40:] = values
    on_gpu.gpu.blocks = slice(-2, None)
    step_at_once(on_gpu, [row], [DEFAULTS])
    assert on_gpu.gpu.launches[-1].grid == -(-size // chunk)
    cupy_kernel.step(*tail, **cases.DEFAULTS)
    for array, expected in zip(row, tail):
        assert_same_bits({"": array[-40:].get()}, {"": expected.get()})


def test_the_addresses_of_real_cupy_arrays_are_found(on_gpu):
    """The arrays are of CuPy's own class but in host memory, which needs no GPU."""
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    hosts = [numpy.full(20, value, "f4") for value in (1, 2, 5, 1, 0)]

    def wrapped(array):
        memory = cupy.cuda.UnownedMemory(array.ctypes.data, array.nbytes, array, device_id=0)
        on_gpu.gpu.adopt(array)
        return cupy.ndarray((4, 5), array.dtype, cupy.cuda.MemoryPointer(memory, 0))

    row, expected = [wrapped(host) for host in hosts], [on_gpu.to(host) for host in hosts]
    cupy_kernel.step(*expected, **cases.DEFAULTS)
    step_at_once(on_gpu, [row], [DEFAULTS])
    for host, array in zip(hosts, expected):
        assert_same_bits({"": host}, {"": array.get()})
    param, _, *states = [[array] for array in row]
    table = cupy_kernel.Table(param, *states)
    row[0].shape = (5, 4)
    assert not table.holds(param, *states)
