"""The threads that divide an update: how many, and in every situation in which a program may train."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading

import numpy
import pytest
from interpreter import run_python
from models import Arrays, arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves, kernels
from rmsprop_graves.kernels import threads

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

# What the scripts below begin with: train(seed) makes three updates of a model that is divided among four threads.
TRAIN = """
import atexit, os, sys, threading, warnings
import numpy
from rmsprop_graves import RMSpropGraves, kernels
from rmsprop_graves.kernels import threads
import chainer

threads.SPAN = 64
kernels.set_num_threads(4)

def train(seed, updates=3):
    rng = numpy.random.RandomState(seed)
    model = chainer.Link()
    with model.init_scope():
        for i in range(3):
            setattr(model, "p%d" % i, chainer.Parameter(rng.standard_normal(1000).astype("f")))
    optimizer = RMSpropGraves().setup(model)
    for _ in range(updates):
        for param in model.params():
            param.grad = rng.standard_normal(1000).astype("f")
        optimizer.update()
    return sum(float(param.array.sum()) for param in model.params())
"""


def run_training(code, *options, **environment):
    """What a script that begins with `TRAIN` prints. It must exit well and print nothing to standard error."""
    # The BLAS of NumPy has threads of its own, which Python 3.12 warns of at a fork as it would of ours.
    environment = {"OPENBLAS_NUM_THREADS": "1", **environment}
    stdout, stderr = run_python(TRAIN + code, *options, **environment)
    assert stderr == ""
    return stdout.split()


@pytest.fixture
def _small_spans(monkeypatch):
    monkeypatch.setattr(threads, "SPAN", 64)
    monkeypatch.setattr(threads, "_num_threads", 4)


@pytest.fixture
def _unset(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("_unset")
@pytest.mark.parametrize(
    ("value", "expected"), [(None, CORES), ("1", 1), ("1,4", 1), (" 1 ", 1), ("1000000", CORES), ("", CORES)]
)
def test_there_are_as_many_as_cores_or_as_openmp_is_told(monkeypatch, value, expected):
    """OpenMP's variable is a number, or a list of one for each level of nested parallelism."""
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert kernels.get_num_threads() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to a core")
def test_cores_that_the_process_may_not_use_do_not_count():
    """As in a container, or under taskset."""
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from rmsprop_graves import kernels
        print(kernels.get_num_threads())
    """
    assert run_python(code, OMP_NUM_THREADS="8")[0] == "1\n"


@pytest.mark.usefixtures("_unset")
@pytest.mark.parametrize("value", ["abc", "0", "-2", "1.5", "two,1"])
def test_what_is_no_number_of_threads_is_warned_of_once_and_ignored(monkeypatch, value):
    """The warning names the variable, the value and what is required."""
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.warns(RuntimeWarning, match=f"OMP_NUM_THREADS must be an integer >= 1, got '{value}'; it is ignored"):
        assert kernels.get_num_threads() == CORES
    assert kernels.get_num_threads() == CORES  # a second warning would be an error


@pytest.mark.usefixtures("_unset")
def test_the_number_can_be_set():
    """Beyond the cores too."""
    kernels.set_num_threads(CORES + 5)
    assert kernels.get_num_threads() == CORES + 5


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_a_number_that_cannot_be_set_is_refused(count):
    """And the one that was set stays."""
    before = kernels.get_num_threads()
    with pytest.raises(ValueError, match=f"the number of threads must be an integer >= 1, got {count!r}"):
        kernels.set_num_threads(count)
    assert kernels.get_num_threads() == before


@pytest.mark.usefixtures("_small_spans")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 127, 128, 129, 1000])
def test_spans_cover_everything_once(count, size):
    """Whatever the size and the number of threads."""
    kernels.set_num_threads(count)
    done = numpy.zeros(size, int)

    def work(begin, end):
        done[begin:end] += 1

    threads.run(work, size)
    assert (done == 1).all()


@pytest.mark.usefixtures("_small_spans")
def test_the_work_is_done_by_several_threads():
    """Each waits here until another has come, which a single one could not."""
    barrier = threading.Barrier(4, timeout=60)
    names = set()

    def work(begin, end):
        if begin < 4 * 64:
            barrier.wait()
        names.add(threading.current_thread().name)

    threads.run(work, 4 * 64)
    assert len(names) == 4


@pytest.mark.usefixtures("_small_spans")
def test_an_exception_comes_when_nothing_is_under_way_any_more():
    """Be it Ctrl-C in the calling thread: what it then looks at is not written to any more."""
    others_began, ended = threading.Event(), []

    def work(begin, end):
        if threading.current_thread() is caller:
            assert others_began.wait(60)
            raise KeyboardInterrupt
        others_began.set()
        # Time for the caller to come back too early, if it does.
        threading.Event().wait(0.2)
        ended.append(begin)

    caller = threading.current_thread()
    kernels.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        threads.run(work, 128)
    assert ended == [64]


@pytest.mark.usefixtures("_small_spans")
def test_ctrl_c_while_others_are_waited_for_is_raised_when_they_are_done(monkeypatch):
    """However often it is pressed."""
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
def test_what_was_queued_when_no_thread_could_be_started_is_waited_for(monkeypatch):
    """The pool of another model's threads may take it up, and must not be writing when the update has returned."""
    began, ended = [], []

    def work(begin, end):
        began.append(begin)
        threading.Event().wait(0.05)
        ended.append(begin)

    original = threads.ThreadPoolExecutor.submit

    def submit(self, function):
        original(self, function)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.ThreadPoolExecutor, "submit", submit)
    threads.run(work, 256)
    assert sorted(began) == sorted(ended) == [0, 64, 128, 192]


@pytest.mark.usefixtures("_small_spans")
def test_an_exception_of_another_thread_is_raised_in_the_calling_one():
    """As NumPy's floating point errors are, where they are asked for."""
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
def test_where_no_thread_can_be_started_the_calling_one_does_it_all(monkeypatch):
    """As when the process has as many as it may have."""

    def submit(self, function):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.ThreadPoolExecutor, "submit", submit)
    done = []
    threads.run(lambda begin, end: done.append((begin, end)), 200)
    assert done == [(0, 64), (64, 128), (128, 192), (192, 200)]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
divides = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="without Numba an update is not divided among threads"
)


def train(seed, updates=20):
    rng = numpy.random.RandomState(seed)
    model = Arrays(*(rng.standard_normal(1000).astype("f") for _ in range(3)))
    optimizer = RMSpropGraves().setup(model)
    for _ in range(updates):
        model.set_grads(*(rng.standard_normal(1000).astype("f") for _ in range(3)))
        optimizer.update()
    return arrays_of(optimizer)


@divides
@pytest.mark.usefixtures("_small_spans")
def test_two_threads_may_update_two_models_at_once():
    """Each model ends with the bits of training it alone."""
    ends = {}

    def train_in_thread(seed):
        ends[seed] = train(seed)

    trainers = [threading.Thread(target=train_in_thread, args=(seed,)) for seed in range(4)]
    for trainer in trainers:
        trainer.start()
    for trainer in trainers:
        trainer.join()
    for seed in range(4):
        assert_same_bits(ends[seed], train(seed))


@divides
@needs_fork
def test_parent_and_child_train_on_after_a_fork():
    """The child has threads of its own, and Python has nothing to warn of: none is there when it forks."""
    code = """
expected = train(0), train(1)
names = [thread.name for thread in threading.enumerate()]
assert len(names) == 4, names
child = os.fork()
if not child:
    assert threading.active_count() == 1
    sys.exit(train(1) != expected[1])
assert train(0) == expected[0]
print(os.waitpid(child, 0)[1])
assert train(0) == expected[0]
"""
    assert run_training(code, "-W", "error") == ["0"]


@divides
@needs_fork
def test_a_fork_during_an_update_in_another_thread_disturbs_neither():
    """The fork waits for no more than the spans under way; the child has nothing of that update."""
    code = """
expected = train(0, 50), train(1)
ends = []
trainer = threading.Thread(target=lambda: ends.extend(train(0, 50) for _ in range(4)))
trainer.start()
statuses = []
for _ in range(5):
    child = os.fork()
    if not child:
        os._exit(train(1) != expected[1])
    statuses.append(os.waitpid(child, 0)[1])
trainer.join()
assert ends == [expected[0]] * 4, (ends, expected)
print(*statuses)
"""
    # Python 3.12 warns of any fork while another thread is there.
    assert run_training(code, "-W", "ignore::DeprecationWarning") == ["0"] * 5


@divides
@pytest.mark.parametrize("method", ["spawn", "forkserver", pytest.param("fork", marks=needs_fork)])
def test_children_of_multiprocessing_train(tmp_path, method):
    """Of each start method, while their parent has threads."""
    if method != "spawn" and sys.platform == "win32":
        pytest.skip("this system knows no other start method")
    script = tmp_path / "script.py"
    script.write_text(
        TRAIN
        + f"""
if __name__ == "__main__":
    import multiprocessing
    expected = [train(seed) for seed in range(3)]
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        assert pool.map(train, range(3)) == expected
    assert [train(seed) for seed in range(3)] == expected
    print("done")
"""
    )
    code = f"import runpy, sys; sys.argv = [{str(script)!r}]; runpy.run_path({str(script)!r}, run_name='__main__')"
    # Pool has threads of its own when it starts a process again.
    assert run_python(code, "-W", "ignore::DeprecationWarning")[0] == "done\n"


@divides
def test_a_daemon_thread_may_be_training_when_the_program_ends():
    """It is cut off without a word, as any daemon thread."""
    code = """
def train_for_ever():
    while True:
        train(0)
        began.set()

began = threading.Event()
threading.Thread(target=train_for_ever, daemon=True).start()
assert began.wait(60)
print("done")
"""
    for _ in range(5):
        assert run_training(code) == ["done"]


@divides
def test_a_thread_may_train_on_after_the_main_thread_has_ended():
    """Python starts no thread any more by then, so it does it all itself."""
    code = """
expected = train(0)

def train_later():
    threading.main_thread().join()
    print(train(0) == expected)

threading.Thread(target=train_later).start()
"""
    assert run_training(code) == ["True"]


@divides
def test_a_program_may_train_while_it_exits():
    """In a function registered with atexit, whether or not threads were started before."""
    assert run_training("atexit.register(lambda: print(train(0) == expected))\nexpected = train(0)") == ["True"]
    assert run_training("atexit.register(lambda: print(train(0) == train(0)))") == ["True"]
