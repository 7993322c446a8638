"""A snapshot holds the numbers of its own iteration, even if a writer saves it while the training goes on."""

from __future__ import annotations

import threading
import time

import numpy
import pytest
from chainer import Sequential, iterators, serializers, training
from chainer import links as L
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.training import extensions
from chainer.training.extensions import snapshot_writers

from rmsprop_graves import RMSpropGraves

SNAPSHOTS = 3


def slow_save(file, target):
    """Saves long after the trigger, and in another order than the training writes."""
    time.sleep(0.05)
    with open(file, "wb") as stream:
        numpy.savez(stream, **dict(reversed(list(target.items()))))


class OwnThreads(snapshot_writers.StandardWriter):
    """A program's own writer, which saves in threads that it makes itself."""

    def create_worker(self, filename, outdir, target, **kwds):
        """Returns a thread."""
        return threading.Thread(target=self.save, args=(filename, outdir, target, slow_save))


class OwnWriter(snapshot_writers.Writer):
    """A program's own writer, which shares only the base class with Chainer's writers."""

    def __init__(self):
        super().__init__()
        self.threads = []

    def __call__(self, filename, outdir, target):
        """Saves later."""
        self.threads.append(threading.Thread(target=self.save, args=(filename, outdir, target, slow_save)))
        self.threads[-1].start()

    def finalize(self):
        """Waits for the threads."""
        for thread in self.threads:
            thread.join()


class LaterQueue(snapshot_writers.ThreadQueueWriter):
    """A subclass that replaces __call__ and does not call Chainer's."""

    def __call__(self, filename, outdir, target):
        """Saves later."""
        self._queue.put([self._task, filename, outdir, target])


def own_function():
    """Returns a writer that is a plain function."""
    threads = []

    def write(filename, outdir, target):
        threads.append(threading.Thread(target=slow_save, args=(f"{outdir}/{filename}", target)))
        threads[-1].start()

    write.finalize = lambda: [thread.join() for thread in threads]
    return write


WRITERS = {
    "SimpleWriter": lambda: snapshot_writers.SimpleWriter(slow_save),
    "ThreadWriter": lambda: snapshot_writers.ThreadWriter(slow_save),
    "ProcessWriter": lambda: snapshot_writers.ProcessWriter(slow_save),
    "ThreadQueueWriter": lambda: snapshot_writers.ThreadQueueWriter(slow_save),
    "ProcessQueueWriter": lambda: snapshot_writers.ProcessQueueWriter(slow_save),
    "a queue with a program's task": lambda: snapshot_writers.ThreadQueueWriter(
        task=snapshot_writers.SimpleWriter(slow_save)
    ),
    "a subclass of StandardWriter": OwnThreads,
    "a subclass of ThreadQueueWriter": lambda: LaterQueue(slow_save),
    "a subclass of Writer": OwnWriter,
    "a function": own_function,
}


def numbers_of(target):
    """Returns a copy of everything that a snapshot of the target holds."""
    return {name: numpy.array(value) for name, value in serializers.npz.serialize(target).items()}


def updater_of(optimizer_class):
    """Returns an updater of a model with float16, float32 and float64 parameters and tied weights."""
    model = Sequential(L.Linear(20, 300), L.Linear(300, 20))
    model[1].tied = model[0].W
    for param, dtype in zip(model.params(), ("f4", "f8", "f4", "f2")):
        param.array = param.array.astype(dtype)
    optimizer = optimizer_class(lr=0.1).setup(model)

    class Updater(training.updaters.StandardUpdater):
        def update_core(self):
            for place, param in enumerate(model.params()):
                param.grad = numpy.full_like(param.array, 1 + place + self.iteration)
            optimizer.update()

    return Updater(iterators.SerialIterator([0], 1), optimizer)


@pytest.mark.parametrize("optimizer_class", [RMSpropGraves, ChainerRMSpropGraves], ids=["ours", "Chainer's"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_snapshot_is_of_one_iteration(writer, optimizer_class, tmp_path):
    """Without the repair a writer on a CPU saves the model's own arrays, which the next updates change."""
    writer = WRITERS[writer]()
    updater = updater_of(optimizer_class)
    trainer = training.Trainer(updater, (SNAPSHOTS * 40, "iteration"), str(tmp_path))
    expected = {}

    def record_and_name(trainer):
        expected[str(trainer.updater.iteration)] = numbers_of(trainer)
        return str(trainer.updater.iteration)

    trainer.extend(extensions.snapshot(writer=writer, filename=record_and_name), trigger=(40, "iteration"))
    trainer.run()
    assert len(expected) == SNAPSHOTS
    for name, numbers in expected.items():
        with numpy.load(tmp_path / name, allow_pickle=True) as found:
            assert sorted(found.files) == sorted(numbers)
            for entry, value in numbers.items():
                if "elapsed" not in entry:
                    numpy.testing.assert_array_equal(found[entry], value, err_msg=entry)
