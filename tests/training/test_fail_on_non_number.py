"""FailOnNonNumber stops a training that has become NaN or infinite, and no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import chainer
import numpy
import pytest
from chainer import functions
from chainer.iterators import SerialIterator
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.training import Trainer, extensions
from chainer.training.updaters import StandardUpdater
from models import arrays_of
from trainers import (
    optimizer_of,
    run,
    trainer_of,
)

from rmsprop_graves import RMSpropGraves


class SteadyGradient(chainer.Link):
    """A loss whose gradient is the same at every step, between 5 and 10."""

    def __init__(self):
        """Draw the gradient from a generator with a fixed seed."""
        super().__init__()
        self.gradient = numpy.random.RandomState(0).uniform(5, 10, 4096).astype(numpy.float32)
        with self.init_scope():
            self.p = chainer.Parameter(numpy.zeros(4096, numpy.float32))

    def forward(self, batch):
        """Return the loss, which does not depend on the batch."""
        return functions.sum(self.p * self.gradient)


def trainer_on_a_steady_gradient(optimizer_class, out):
    optimizer = optimizer_class().setup(SteadyGradient())
    updater = StandardUpdater(SerialIterator(numpy.zeros((1, 1), numpy.float32), 1), optimizer)
    trainer = Trainer(updater, (300, "iteration"), str(out))
    trainer.extend(extensions.FailOnNonNumber())
    return trainer


def run_into_non_number(trainer):
    """Run a trainer until FailOnNonNumber stops it.

    The trainer runs in a thread of its own, because a failed trainer of Chainer 7.0 leaves its reporter in its thread.
    """

    def run_silently():
        with numpy.errstate(invalid="ignore"):
            run(trainer)

    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="parameters in optimizer 'main' diverge"):
        thread.submit(run_silently).result()


def test_failonnonnumber_passes_a_steady_gradient(tmp_path):
    """Rounding makes n - g^2 negative, but it is clamped to zero, so no parameter becomes NaN."""
    trainer = trainer_on_a_steady_gradient(RMSpropGraves, tmp_path)
    run(trainer)
    assert trainer.updater.iteration == 300
    assert all(numpy.isfinite(array).all() for array in arrays_of(optimizer_of(trainer)).values())


def test_failonnonnumber_stops_chainers_class_on_a_steady_gradient(tmp_path):
    """This shows that the gradient of the test above leads to NaN without the clamp."""
    trainer = trainer_on_a_steady_gradient(ChainerRMSpropGraves, tmp_path)
    run_into_non_number(trainer)
    assert 200 < trainer.updater.iteration < 300


def test_failonnonnumber_stops_an_infinite_gradient(tmp_path):
    """The optimizer does not hide an infinite gradient."""
    trainer = trainer_of(RMSpropGraves, tmp_path)
    trainer.extend(extensions.FailOnNonNumber())

    def spoil(optimizer):
        if optimizer.t == 3:
            next(optimizer.target.params()).grad[...] = numpy.inf

    optimizer_of(trainer).add_hook(spoil)
    run_into_non_number(trainer)
    assert trainer.updater.iteration == 4
