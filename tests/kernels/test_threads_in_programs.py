"""Programs that fork, start processes or threads, or exit, while updates are divided among threads."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
from interpreter import run_python

# The scripts below begin with this. train(seed) updates a model with four threads and returns its bits.
TRAIN = """
import _thread, atexit, os, sys, threading, time, warnings
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
    arrays = [param.array for param in model.params()]
    arrays += [state for param in model.params() for state in param.update_rule.state.values()]
    return b"".join(array.tobytes() for array in arrays)
"""


# For a moment the system still counts a thread that has ended, and Python warns of a fork by the system's count. The
# hook is registered first, so it is called after the one of this package, which ends the threads.
WAIT_FOR_THE_COUNT = """
import os, time

def wait():
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end:
        time.sleep(0.001)

if os.path.isdir("/proc/self/task"):
    os.register_at_fork(before=wait)
"""


def run_training(code, *options, before="", **environment):
    """Run a script after `TRAIN`, which must print nothing to standard error; return the words that it prints."""
    # NumPy's BLAS has threads of its own, and Python 3.12 warns of a fork beside other threads.
    environment = {"OPENBLAS_NUM_THREADS": "1", **environment}
    stdout, stderr = run_python(before + TRAIN + code, *options, **environment)
    assert stderr == ""
    return stdout.split()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

divides = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="without Numba an update is not divided among threads"
)


@divides
def test_several_threads_can_update_a_model_each():
    """Each model is bit-identical to one that is trained alone."""
    code = """
expected = [train(seed, 20) for seed in range(4)]
ends = {}
trainers = [threading.Thread(target=lambda seed=seed: ends.update({seed: train(seed, 20)})) for seed in range(4)]
for trainer in trainers:
    trainer.start()
for trainer in trainers:
    trainer.join()
print([ends[seed] for seed in range(4)] == expected)
"""
    assert run_training(code) == ["True"]


@divides
@needs_fork
def test_parent_and_child_train_on_after_a_fork():
    """The child starts its own threads. No thread runs during the fork, so Python does not warn."""
    code = """
expected = train(0), train(1)
# A thread is counted when it first runs.
while _thread._count() < 3:
    time.sleep(0.001)
child = os.fork()
if not child:
    sys.exit(train(1) != expected[1])
assert train(0) == expected[0]
print(os.waitpid(child, 0)[1])
assert train(0) == expected[0]
"""
    assert run_training(code, "-W", "error", before=WAIT_FOR_THE_COUNT) == ["0"]


@divides
@needs_fork
def test_a_fork_during_an_update_in_another_thread_disturbs_neither():
    """The fork waits for the spans in progress, and the child does not continue that update."""
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
    # Python 3.12 warns of any fork while another thread runs.
    assert run_training(code, "-W", "ignore::DeprecationWarning") == ["0"] * 5


@divides
@pytest.mark.parametrize("method", ["spawn", "forkserver", pytest.param("fork", marks=needs_fork)])
def test_children_of_multiprocessing_train(tmp_path, method):
    """This works with each start method while the parent has threads."""
    if method != "spawn" and sys.platform == "win32":
        pytest.skip("this system has no other start method")
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
    # Pool has threads of its own when it forks, and Python 3.12 warns of that.
    assert run_python(code, "-W", "ignore::DeprecationWarning")[0] == "done\n"


@divides
def test_a_program_can_end_while_a_daemon_thread_trains():
    """Python stops the thread without a message."""
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
def test_a_thread_can_train_on_after_the_main_thread_has_ended():
    """Python starts no more threads by then, so this thread does all the work."""
    code = """
expected = train(0)

def train_later():
    threading.main_thread().join()
    print(train(0) == expected)

threading.Thread(target=train_later).start()
"""
    assert run_training(code) == ["True"]


@divides
def test_a_program_can_train_while_it_exits():
    """A function registered with atexit trains, whether or not threads were started before."""
    assert run_training("atexit.register(lambda: print(train(0) == expected))\nexpected = train(0)") == ["True"]
    assert run_training("atexit.register(lambda: print(train(0) == train(0)))") == ["True"]
