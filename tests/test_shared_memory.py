"""Two processes train one model in shared memory, as in ChainerRL's A3C, in turns and at the same time."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
from pathlib import Path

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from interpreter import run_python
from models import Arrays, arrays_of, assert_same_bits
from skips import not_installed

from rmsprop_graves import RMSpropGraves, kernels
from rmsprop_graves.kernels import threads

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork, as ChainerRL does")

# The process that makes each update.
TURNS = [0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 1]
# Updates before the model is shared, and whether the processes use the optimizer inherited from their parent.
LIVES = [(before, inherits) for before in (0, 3) for inherits in (False, True)]
SHAPES = [(40, 5), (7,), (1,), (300,)]
FREE_UPDATES = 400


@pytest.fixture(params=["sharing", "chainerrl.misc.async_"], ids=["equivalent", "chainerrl"])
def sharing(request):
    """The name of the module that shares arrays: ChainerRL's own or an equivalent."""
    package = request.param.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(not_installed(package))
    return request.param


def require(kernel):
    """Skip the test if the kernel is not available."""
    if kernel == "numba":
        pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError, reason=not_installed("numba"))


def new_optimizer(cls, seed):
    """Return an optimizer of a new model."""
    rng = numpy.random.RandomState(seed)
    return cls(lr=1e-2).setup(Arrays(*(numpy.asarray(rng.standard_normal(shape), "f") for shape in SHAPES)))


def update(optimizer, time):
    """Make an update that depends only on the parameters and the time, a step number."""
    rng = numpy.random.RandomState(time)
    optimizer.lr = 1e-2 * 0.98**time
    for param in optimizer.target.params():
        param.grad = numpy.asarray(param.array - rng.standard_normal(param.shape), "f")
    optimizer.update()


def two_processes(function, *args):
    """Call a function of this file in a new interpreter, which has no other threads when it forks."""
    code = f"""
        import rmsprop_graves
        import test_shared_memory
        test_shared_memory.{function.__name__}(*{args!r})
    """
    path = str(Path(__file__).resolve().parent)
    # NumPy's BLAS has threads of its own, and Python 3.12 warns of a fork beside other threads.
    _, stderr = run_python(code, PYTHONPATH=path, OPENBLAS_NUM_THREADS="1")
    assert stderr == ""


def prepare(sharing, kernel):
    """Use fork and divide small arrays among threads; return the module that shares arrays, and the class."""
    multiprocessing.set_start_method("fork")
    module = importlib.import_module(sharing)
    if kernel == "chainer":
        return module, ChainerRMSpropGraves
    kernels.use_on_cpu(kernel)
    kernels.set_num_threads(2)
    threads.SPAN = 8
    return module, RMSpropGraves


def share(module, optimizer):
    """Move parameters and states to shared memory; return a function that makes another optimizer use that memory."""
    shared = [module.as_shared_objects(owner) for owner in (optimizer.target, optimizer)]

    def join(other):
        for owner, memory in zip((other.target, other), shared):
            module.synchronize_to_shared_objects(owner, memory)
        return other

    return join


def train_by_turns(module, cls, before, inherits):
    """Train in two processes in turns, then make an update in their parent; return its arrays and the children's t."""
    optimizer = new_optimizer(cls, seed=0)
    for time in range(before):
        update(optimizer, time)
    join = share(module, optimizer)
    # After this update the plan holds the shared arrays; a process that inherits the optimizer inherits the plan.
    update(optimizer, before)
    barrier, times = multiprocessing.Barrier(2), multiprocessing.RawArray("i", 2)

    def train(process):
        own = optimizer if inherits else join(new_optimizer(cls, seed=1 + process))
        for time, turn in enumerate(TURNS, before + 1):
            if turn == process:
                update(own, time)
            barrier.wait(60)
        times[process] = own.t

    module.run_async(2, train)
    update(optimizer, before + 1 + len(TURNS))
    return {"times": numpy.array(times), **arrays_of(optimizer)}


def train_all_by_turns(folder, sharing, kernel):
    """Save the results of each of LIVES."""
    module, cls = prepare(sharing, kernel)
    for before, inherits in LIVES:
        numpy.savez(Path(folder) / f"{before} {inherits}.npz", **train_by_turns(module, cls, before, inherits))


@pytest.mark.parametrize("kernel", ["chainer", "numba", "numpy"])
def test_two_processes_in_turns_have_the_bits_of_one(tmp_path, sharing, kernel):
    """Parameters and states are bit-identical with every kernel; each optimizer counts only its own updates."""
    require(kernel)
    two_processes(train_all_by_turns, str(tmp_path), sharing, kernel)
    for before, inherits in LIVES:
        alone = new_optimizer(ChainerRMSpropGraves, seed=0)
        for time in range(before + 1 + len(TURNS) + 1):
            update(alone, time)
        with numpy.load(tmp_path / f"{before} {inherits}.npz") as entries:
            found = dict(entries)
        inherited = before + 1 if inherits else 0
        assert list(found.pop("times")) == [inherited + TURNS.count(process) for process in (0, 1)]
        assert_same_bits(found, arrays_of(alone))


def train_freely(folder, sharing, kernel):
    """Train in two processes at once, without a lock: the first moves p0 to 1, the second p1, and both p2."""
    module, cls = prepare(sharing, kernel)

    def new():
        return cls(lr=1e-2, momentum=0.0, eps=1e-2).setup(Arrays(*numpy.zeros((3, 1000), "f")))

    optimizer = new()
    join = share(module, optimizer)
    barrier = multiprocessing.Barrier(2)

    def train(process):
        own = join(new())
        model = own.target
        barrier.wait(60)
        for _ in range(FREE_UPDATES):
            grads = [model.p0.array - 1, model.p1.array - 1, model.p2.array - 1]
            grads[1 - process][...] = 0
            model.set_grads(*grads)
            own.update()

    module.run_async(2, train)
    numpy.savez(Path(folder) / "free.npz", **arrays_of(optimizer))


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
def test_concurrent_updates_of_two_processes_move_the_parameters(tmp_path, sharing, kernel):
    """One process may overwrite an update of the other, but no step goes too far, and nothing becomes NaN.

    Without momentum a step is at most lr / sqrt(eps), a tenth, of the distance to 1, even if n and g come from
    different updates. A quarter of the updates would be enough to halve the distance.
    """
    require(kernel)
    two_processes(train_freely, str(tmp_path), sharing, kernel)
    with numpy.load(tmp_path / "free.npz") as entries:
        found = dict(entries)
    assert len(found) == 12
    for name, array in found.items():
        assert numpy.isfinite(array).all(), name
    for name in ("/p0", "/p1", "/p2"):
        distance = abs(found[name] - 1)
        assert distance.max() <= 1, name
        assert distance.mean() < 0.5, name
