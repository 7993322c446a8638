"""The threads that divide an update: their number and their work."""

from __future__ import annotations

import os
import threading

import pytest
from interpreter import run_python

from rmsprop_graves import kernels
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


@pytest.fixture
def _small_spans(monkeypatch):
    monkeypatch.setattr(threads, "SPAN", 64)
    kernels.set_num_threads(4)


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
    """The warning names the variable, its value and what is required."""
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


def assert_cover(spans, size):
    """Assert that every number of ``range(size)`` lies in exactly one span."""
    assert sorted(number for span in spans for number in range(*span)) == list(range(size))


@pytest.mark.usefixtures("_small_spans")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 127, 128, 129, 1000])
def test_spans_cover_everything_once(count, size):
    """The spans have no gaps and no overlaps, for any size and number of threads."""
    kernels.set_num_threads(count)
    spans = []
    threads.run(lambda begin, end: spans.append((begin, end)), size)
    assert_cover(spans, size)


@pytest.mark.usefixtures("_small_spans")
def test_a_slow_thread_does_not_delay_the_others():
    """While one thread works on its first span, the other does more than half of the work."""
    kernels.set_num_threads(2)
    caller = threading.current_thread()
    others_began, is_enough = threading.Event(), threading.Event()
    stepped = []

    def work(begin, end):
        if threading.current_thread() is caller:
            assert others_began.wait(60)
            stepped.append(end - begin)
            if sum(stepped) >= 5000:
                is_enough.set()
        else:
            others_began.set()
            is_enough.wait(10)

    threads.run(work, 8000)
    assert is_enough.is_set()


@pytest.mark.usefixtures("_small_spans")
def test_the_work_is_done_by_several_threads():
    """In its first span each thread waits for the three others, which a single thread could not do."""
    barrier = threading.Barrier(4, timeout=60)
    names = set()

    def work(begin, end):
        name = threading.current_thread().name
        if name not in names:
            names.add(name)
            barrier.wait()

    threads.run(work, 4 * 64)
    assert len(names) == 4


@pytest.mark.usefixtures("_small_spans")
def test_an_exception_is_raised_after_every_thread_has_finished():
    """After Ctrl-C in the calling thread, no other thread still writes to the arrays."""
    others_began, under_way = threading.Event(), []

    def work(begin, end):
        if threading.current_thread() is caller:
            assert others_began.wait(60)
            raise KeyboardInterrupt
        under_way.append(begin)
        others_began.set()
        # Long enough for a caller that does not wait to return.
        threading.Event().wait(0.1)
        under_way.remove(begin)

    caller = threading.current_thread()
    kernels.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        threads.run(work, 128)
    assert under_way == []


@pytest.mark.usefixtures("_small_spans")
def test_ctrl_c_while_waiting_is_raised_after_every_thread_has_finished(monkeypatch):
    """This holds however often it is pressed."""
    others_began, presses, ended = threading.Event(), [], []

    def work(begin, end):
        if threading.current_thread() is caller:
            assert others_began.wait(60)
        else:
            others_began.set()
            while len(presses) < 3:
                threading.Event().wait(0.01)
            ended.append(begin)

    def wait(futures):
        if len(presses) < 3:
            presses.append("Ctrl-C")
            raise KeyboardInterrupt
        return original(futures)

    original = threads.wait
    monkeypatch.setattr(threads, "wait", wait)
    caller = threading.current_thread()
    kernels.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        threads.run(work, 128)
    assert len(ended) == 1


@pytest.mark.usefixtures("_small_spans")
def test_work_that_is_queued_when_no_thread_can_start_is_waited_for(monkeypatch):
    """A thread of another model's update may run it, and must not write after this update has returned."""
    began, ended = [], []

    def work(begin, end):
        began.append((begin, end))
        threading.Event().wait(0.05)
        ended.append((begin, end))

    original = threads.ThreadPoolExecutor.submit

    def submit(self, function):
        original(self, function)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.ThreadPoolExecutor, "submit", submit)
    threads.run(work, 256)
    assert sorted(began) == sorted(ended)
    assert_cover(ended, 256)


@pytest.mark.usefixtures("_small_spans")
def test_an_exception_of_another_thread_is_raised_in_the_calling_one():
    """NumPy raises floating point errors in the thread that computes, if the program asks for them."""
    others_began = threading.Event()

    def work(begin, end):
        if threading.current_thread() is caller:
            assert others_began.wait(60)
        else:
            others_began.set()
            raise FloatingPointError("overflow")

    caller = threading.current_thread()
    with pytest.raises(FloatingPointError, match="overflow"):
        threads.run(work, 256)


@pytest.mark.usefixtures("_small_spans")
def test_the_calling_thread_does_all_the_work_if_no_thread_can_start(monkeypatch):
    """A process may have reached its limit of threads."""

    def submit(self, function):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.ThreadPoolExecutor, "submit", submit)
    done = []
    threads.run(lambda begin, end: done.append((begin, end)), 200)
    assert_cover(done, 200)
