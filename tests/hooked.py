"""A small classifier trained with hooks, by this class and by Chainer's."""

from __future__ import annotations

import functools

import chainer
import numpy
from both_classes import CLASSES
from chainer import functions, links
from models import assert_same_bits, copies_of

from rmsprop_graves import RMSpropGraves

STEPS = 10
PARAMS = ["/l1/W", "/l1/b", "/l2/W", "/l2/b"]


class Perceptron(chainer.Chain):
    """A classifier with two layers, whose initial weights are always the same."""

    def __init__(self):
        """Draw the weights from a generator with a fixed seed."""
        super().__init__()
        random = numpy.random.RandomState(0)
        with self.init_scope():
            self.l1 = links.Linear(4, 6, initialW=random.randn(6, 4), initial_bias=random.randn(6))
            self.l2 = links.Linear(6, 3, initialW=random.randn(3, 6), initial_bias=random.randn(3))

    def forward(self, x, t):
        """Return the loss of a batch."""
        return functions.softmax_cross_entropy(self.l2(functions.tanh(self.l1(x))), t)


class Recorder:
    """A hook that records its name and the names of the parameters that it is called with."""

    def __init__(self, name, calls, **attributes):
        """Take a list to append to, and attributes such as call_for_each_param and timing."""
        self.name = name
        self.calls = calls
        vars(self).update(attributes)

    def __call__(self, *args):
        """Record a call."""
        self.calls.append((self.name, *(arg.name for arg in args if isinstance(arg, chainer.Parameter))))


def batches(count=STEPS):
    random = numpy.random.RandomState(1)
    return [(random.randn(5, 4).astype(numpy.float32), random.randint(3, size=5)) for _ in range(count)]


def copies_with_gradients(optimizer):
    """Return copies of every parameter, state and gradient."""
    gradients = {f"{path}/grad": param.grad.copy() for path, param in optimizer.target.namedparams()}
    return {**copies_of(optimizer), **gradients}


def train_with(optimizer_class, add_hooks, before_step=lambda optimizer, step: None):
    """Train a `Perceptron` for `STEPS` steps; return the arrays and gradients after each.

    Args:
        optimizer_class: This class or Chainer's.
        add_hooks: Called with the optimizer before the first step.
        before_step: Called with the optimizer and the number of each step.
    """
    numpy.random.seed(0)  # GradientNoise draws from NumPy's global generator
    optimizer = optimizer_class(lr=1e-2).setup(Perceptron())
    add_hooks(optimizer)
    history = []
    for step, (x, t) in enumerate(batches()):
        before_step(optimizer, step)
        optimizer.update(optimizer.target, x, t)
        history.append(copies_with_gradients(optimizer))
    return history


def train_as_chainers(add_hooks, **options):
    """Train with both classes, assert the same bits after each step, and return the arrays after each step."""
    ours, chainers = (train_with(optimizer_class, add_hooks, **options) for optimizer_class in CLASSES)
    for actual, expected in zip(ours, chainers):
        assert_same_bits(actual, expected)
    return ours


@functools.lru_cache(maxsize=None)
def train_without_hooks():
    return train_with(RMSpropGraves, lambda optimizer: None)


def differing(history, other):
    """Return the names of the arrays that differ after at least one step."""
    return {name for arrays, others in zip(history, other) for name in arrays if (arrays[name] != others[name]).any()}


def rules_of(optimizer):
    return [param.update_rule for param in optimizer.target.params()]
