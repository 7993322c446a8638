"""A small classifier, its data, and trainers that train it."""

from __future__ import annotations

import chainer
import numpy
from chainer import functions, links
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training import Trainer, extensions
from chainer.training.updaters import ParallelUpdater, StandardUpdater
from models import assert_same_bits, copies_of

ITERATIONS_PER_EPOCH = 5

EPOCHS = 4

ITERATIONS = EPOCHS * ITERATIONS_PER_EPOCH


def classifier(seed=0):
    """Return a classifier with random weights and biases. It is made of Chainer's classes, so it can be pickled."""
    random = numpy.random.RandomState(seed)
    weights, biases = random.randn(2, 4, 4), random.randn(2, 4)
    return links.Classifier(links.Highway(4, False, functions.tanh, *weights, *biases))


def dataset(seed=0, size=8 * ITERATIONS_PER_EPOCH):
    """Return random points; the class of a point is the one of four directions along which it lies farthest."""
    random = numpy.random.RandomState(seed)
    x = random.randn(size, 4).astype(numpy.float32)
    directions = numpy.random.RandomState(100).randn(4, 4)
    return TupleDataset(x, (x @ directions).argmax(axis=1).astype(numpy.int32))


def next_order(order, position):
    """Return the order of samples in the next epoch. It depends only on the last order, which a snapshot contains."""
    return numpy.roll(order, 7)


def standard_updater(iterator, optimizer, **kwargs):
    return StandardUpdater(iterator, optimizer, **kwargs)


def parallel_updater(iterator, optimizer):
    return ParallelUpdater(iterator, optimizer, devices={"main": "@numpy", "second": "@numpy"})


def trainer_of(optimizer_class, out, make_updater=standard_updater, stop=(EPOCHS, "epoch"), seed=0):
    optimizer = optimizer_class(lr=1e-2).setup(classifier(seed))
    iterator = SerialIterator(dataset(), 8, order_sampler=next_order)
    return Trainer(make_updater(iterator, optimizer), stop, str(out))


def optimizer_of(trainer):
    return trainer.updater.get_optimizer("main")


def run(trainer):
    trainer.run(show_loop_exception_msg=False)


def record_arrays(trainer):
    """Return a list that will hold the trainer's arrays after each iteration."""
    history = []
    trainer.extend(lambda trainer: history.append(copies_of(optimizer_of(trainer))), name="record")
    return history


def assert_same_history(actual, expected):
    assert len(actual) == len(expected) == ITERATIONS
    for arrays, others in zip(actual, expected):
        assert_same_bits(arrays, others)


def log_of(trainer):
    """Return LogReport's entries without their elapsed time; assert that each has one."""
    entries = [dict(entry) for entry in trainer.get_extension("LogReport").log]
    for entry in entries:
        assert entry.pop("elapsed_time") > 0
    return entries


def extend_with_log(trainer, test=True):
    """Add LogReport and, if `test` is true, Evaluator on other points."""
    if test:
        iterator = SerialIterator(dataset(seed=1, size=12), 8, repeat=False, shuffle=False)
        trainer.extend(extensions.Evaluator(iterator, optimizer_of(trainer).target))
    trainer.extend(extensions.observe_lr())
    trainer.extend(extensions.LogReport())


def batches(count):
    data = dataset()
    return [chainer.dataset.concat_examples(data[8 * i : 8 * (i + 1)]) for i in range(count)]


def update_on(optimizer, some_batches):
    for batch in some_batches:
        optimizer.update(optimizer.target, *batch)
    return optimizer


def optimizer_after(optimizer_class, steps, seed=0):
    return update_on(optimizer_class(lr=1e-2).setup(classifier(seed)), batches(5)[:steps])
