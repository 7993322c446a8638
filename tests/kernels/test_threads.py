"""The threads that divide an update: their number and their work."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import pytest
from interpreter import run_python

from rmsprop_graves import kernels
from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels import threads

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# Print the number of threads twice: it must not change, and a warning must appear only once.
ASK = """
    from rmsprop_graves import kernels
    print(kernels.get_num_threads(), kernels.get_num_threads())
"""


@pytest.fixture(autouse=True)
def _number_of_threads():
    """Set the number of threads back after each test."""
    before = kernels.get_num_threads()
    yield
    kernels.set_num_threads(before)


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("1,4", 1), (" 1 ", 1), ("1000000", CORES), ("", CORES)])
def test_the_default_is_the_number_of_cores_or_a_smaller_omp_num_threads(value, expected):
    """The variable is a number, or a list with one number for each level of nested parallelism."""
    stdout, stderr = run_python(ASK, OMP_NUM_THREADS=value)
    assert stdout.split() == [str(expected)] * 2
    assert stderr == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to a core")
def test_cores_that_the_process_may_not_use_do_not_count():
    """A container or taskset may leave a process fewer cores than the machine has."""
    bind = "    import os\n    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert run_python(bind + ASK, OMP_NUM_THREADS="8")[0].split() == ["1", "1"]


@pytest.mark.parametrize("value", ["abc", "0", "-2", "1.5", "two,1"])
def test_an_invalid_omp_num_threads_is_ignored_with_one_warning(value):
    """The warning names the variable, its value and the valid values."""
    stdout, stderr = run_python(ASK, OMP_NUM_THREADS=value)
    assert stdout.split() == [str(CORES)] * 2
    message = f"RuntimeWarning: OMP_NUM_THREADS must be an integer >= 1, got '{value}'; it is ignored"
    assert stderr.count(message) == 1


def test_the_number_can_be_set_beyond_the_cores():
    """A program may want more threads than it has cores."""
    kernels.set_num_threads(CORES + 5)
    assert kernels.get_num_threads() == CORES + 5


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_an_invalid_number_is_refused(count):
    """The number does not change."""
    before = kernels.get_num_threads()
    with pytest.raises(ValueError, match=f"the number of threads must be an integer >= 1, got {count!r}"):
        kernels.set_num_threads(count)
    assert kernels.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 127, 128, 129, 1000])
def test_spans_cover_everything_once(monkeypatch, count, size):
    """The spans have no gaps and no overlaps, for any size and number of threads."""
    monkeypatch.setattr(threads, "SPAN", 64)
    spans = threads.spans(size, count).tolist()
    assert spans[0] == 0
    assert spans[-1] == size
    assert spans == sorted(set(spans))


def arrays_of(size):
    """Return a parameter, gradient, n, g and delta."""
    return [numpy.random.RandomState(seed).rand(size).astype("f") for seed in range(5)]


def step(arrays, kernel):
    kernel.step(*arrays, lr=0.01, alpha=0.9, momentum=0.9, eps=1e-4)


@pytest.fixture
def compiled(monkeypatch):
    """Return the Numba kernel, with four threads and small spans."""
    pytest.importorskip("numba")
    from rmsprop_graves.kernels import numba

    monkeypatch.setattr(threads, "SPAN", 64)
    kernels.set_num_threads(4)
    return numba


def assert_steps(compiled, size=5000):
    """Assert that a step has the bits of the NumPy kernel, whose step is not divided."""
    arrays, expected = arrays_of(size), arrays_of(size)
    step(arrays, compiled)
    step(expected, numpy_kernel)
    assert [array.tobytes() for array in arrays] == [array.tobytes() for array in expected]


def test_the_work_is_done_by_several_threads(compiled, monkeypatch):
    """In at least one of many steps, the process uses more processor time than the calling thread."""
    arrays = arrays_of(1 << 20)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        of_all, own = time.process_time(), time.thread_time()
        step(arrays, compiled)
        own, of_all = time.thread_time() - own, time.process_time() - of_all
        if of_all > 1.3 * own:
            return
    pytest.fail("the calling thread did all the work")


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
@pytest.mark.parametrize("started", [0, 1, 2])
def test_a_step_is_whole_if_a_thread_cannot_start(compiled, monkeypatch, error, started):
    """A process may have reached its limit of threads or memory. Threads that did start share the work."""

    def start(*args):
        starts.append(args)
        if len(starts) > started:
            raise error
        return original(*args)

    starts, original = [], threads.start_new_thread
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "start_new_thread", start)
    for _ in range(3):
        assert_steps(compiled)
    assert len(starts) > started


@pytest.mark.parametrize("error", [RuntimeError(), MemoryError()])
@pytest.mark.parametrize("put", [0, 1, 2])
def test_a_step_is_whole_if_the_queue_has_no_room(compiled, monkeypatch, error, put):
    """Threads that already have the work share it."""

    class Queue(threads.SimpleQueue):
        def put(self, item):
            puts.append(item)
            if len(puts) > put:
                raise error
            super().put(item)

    puts = []
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "SimpleQueue", Queue)
    for _ in range(3):
        assert_steps(compiled)
    assert len(puts) > put


def test_an_interrupt_while_a_thread_starts_leaves_the_arrays_as_they_were(compiled, monkeypatch):
    """Threads that already have the work do not begin it."""

    def start(*args):
        original(*args)
        raise KeyboardInterrupt

    original = threads.start_new_thread
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "start_new_thread", start)
    arrays, before = arrays_of(5000), arrays_of(5000)
    with pytest.raises(KeyboardInterrupt):
        step(arrays, compiled)
    time.sleep(0.05)
    assert all(map(numpy.array_equal, arrays, before))
    monkeypatch.undo()
    assert_steps(compiled)


def interrupt(*arguments, limit=300):
    """Run tests/kernels/interrupts.py, which must end in time and without a message; return the numbers it prints."""
    pytest.importorskip("numba")
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("interrupts.py"), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=limit, cwd=tempfile.gettempdir()
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(map(int, done.stdout.split()))


needs_signals = pytest.mark.skipif(os.name != "posix", reason="this system cannot send SIGINT to a process")


def assert_whole_at_events(call, error, stride):
    places, untouched, whole = interrupt("at_events", call, error, 4, stride)
    assert places > 300
    assert untouched + whole >= places // stride
    assert min(untouched, whole) > 1


@pytest.mark.parametrize(("call", "stride"), [("step", 3), ("update", 17)])
def test_an_interrupt_at_a_bytecode_leaves_a_launch_whole_or_untouched(call, stride):
    """Nothing is written after the error, t counts the steps that were made, and the next update works."""
    assert_whole_at_events(call, "KeyboardInterrupt", stride)


@pytest.mark.search
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
@pytest.mark.parametrize("call", ["step", "update"])
def test_an_error_at_every_bytecode_leaves_a_launch_whole_or_untouched(call, error):
    """The same at each call, return and bytecode, and with another error."""
    assert_whole_at_events(call, error, 1)


@needs_signals
@pytest.mark.parametrize("count", [2, 8])
def test_ctrl_c_at_any_time_leaves_a_model_whole(count):
    """None of 300 interrupts leaves the model torn or the process hung, with few threads or many."""
    assert interrupt("at_random", count, 300)[0] == 300


@pytest.mark.search
@needs_signals
@pytest.mark.parametrize("count", [2, 8])
def test_ctrl_c_leaves_a_model_whole_very_often(count):
    """20,000 interrupts, each at a random time."""
    assert interrupt("at_random", count, 20000, limit=1200)[0] == 20000
