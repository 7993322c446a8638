"""Small models, random gradients, training loops, and comparisons of optimizers."""

from __future__ import annotations

import chainer
import numpy
from chainer.serializers import DictionarySerializer


class Arrays(chainer.Link):
    """A link whose parameters are copies of the arrays given, named p0, p1, ..."""

    def __init__(self, *arrays):
        """Make one parameter from each array."""
        super().__init__()
        with self.init_scope():
            for i, array in enumerate(arrays):
                setattr(self, f"p{i}", chainer.Parameter(numpy.array(array)))

    def set_grads(self, *grads):
        """Give each parameter its gradient."""
        for i, grad in enumerate(grads):
            getattr(self, f"p{i}").grad = grad


def gradients(*shapes, seed=0, dtype="f4"):
    """Return an array of normally distributed numbers for each shape."""
    random = numpy.random.RandomState(seed)
    return [numpy.asarray(random.standard_normal(shape), dtype) for shape in shapes]


def train(optimizer, steps):
    """Update a model of `Arrays` once for each list of gradients, and return the optimizer."""
    for grads in steps:
        optimizer.target.set_grads(*grads)
        optimizer.update()
    return optimizer


def train_one(optimizer_class, start, grads, **hyperparameters):
    """Return the optimizer of one parameter after an update with each gradient."""
    return train(optimizer_class(**hyperparameters).setup(Arrays(start)), ([grad] for grad in grads))


def arrays_of(optimizer):
    """Return every parameter and state by name: {'/p0': parameter, '/p0/n': state, ...}."""
    found = {}
    for path, param in optimizer.target.namedparams():
        found[path] = param.array
        for name, state in (param.update_rule.state or {}).items():
            found[f"{path}/{name}"] = state
    return found


def copies_of(optimizer):
    """Return copies of the arrays of `arrays_of`, which later updates do not change."""
    return {name: array.copy() for name, array in arrays_of(optimizer).items()}


def assert_same_bits(actual, expected):
    """Assert that two dicts of arrays hold the same bits; a NaN equals any NaN."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        other = actual[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        # Here 0.0 equals -0.0, so signs are compared below. Bytes are not compared, because longdouble has padding.
        numpy.testing.assert_array_equal(other, array, err_msg=name)
        numbers = ~numpy.isnan(array)
        numpy.testing.assert_array_equal(numpy.signbit(other[numbers]), numpy.signbit(array[numbers]), err_msg=name)


def snapshot_of(optimizer, gradients=True):
    """Return host copies of everything that an update may change.

    These are parameters, gradients, whether rules are enabled, and all entries of a checkpoint: counts, states and
    float32 masters. Chainer's class does not save masters, so they are read from its private attribute.
    """
    saved = DictionarySerializer()
    saved.save(optimizer)
    found = {f"/{name}": value for name, value in saved.target.items()}
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        found[path] = param.array
        if gradients and param.array is not None:
            found[f"{path}/grad"] = param.grad
        if rule is not None:
            found[f"{path}/enabled"] = rule.enabled
            if rule._fp32_param is not None:
                found[f"{path}/fp32_param"] = rule._fp32_param.array
    return {name: numpy.array(on_host(value)) for name, value in found.items() if value is not None}


def on_host(array):
    """Return a NumPy array unchanged, and a copy in host memory of an array on a GPU."""
    return array.get() if hasattr(array, "get") else array
