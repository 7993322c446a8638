"""Small optimizers to save and load, and the entries of their checkpoints."""

from __future__ import annotations

import numpy
from chainer.serializers import DictionarySerializer, NpzDeserializer
from models import Arrays, arrays_of

from rmsprop_graves import RMSpropGraves

STATES = ("n", "g", "delta")


def model_of(dtype="f4", seed=0, shapes=((2, 3), (4,), ())):
    """Make a model of the parameters p0, p1, ... with random values."""
    rng = numpy.random.RandomState(seed)
    return Arrays(*(numpy.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes))


def fresh(dtype="f4"):
    """Make an optimizer that has not been updated yet."""
    return RMSpropGraves(lr=0.01).setup(model_of(dtype))


def mastered(cls=RMSpropGraves, lr=1e-4, shapes=((2, 3), (4,), ())):
    """Make an optimizer of float16 parameters with float32 masters. Its steps are too small for float16."""
    optimizer = cls(lr=lr).setup(model_of("f2", shapes=shapes))
    optimizer.use_fp32_update()
    return optimizer


def train(optimizer, *seeds):
    """Update once for each seed, with random gradients drawn from it, and return the optimizer."""
    for seed in seeds:
        rng = numpy.random.RandomState(seed)
        for _, param in sorted(optimizer.target.namedparams()):
            param.grad = numpy.asarray(rng.standard_normal(param.shape)).astype(param.dtype)
        optimizer.update()
    return optimizer


def entries_of(target):
    """Save an optimizer or a rule to a dict: the entries of its file."""
    serializer = DictionarySerializer()
    target.serialize(serializer)
    return dict(serializer.target)


def load_from_dict(entries, target):
    """Load entries that are arrays in memory, without a file."""
    target.serialize(NpzDeserializer(entries))


def copy_params(saved, optimizer):
    """Copy the parameters. The checkpoint of an optimizer does not contain them."""
    optimizer.target.copyparams(saved.target)


def states_of(optimizer):
    """Return the arrays of all states: {'/p0/n': array, ...}."""
    params = dict(optimizer.target.namedparams())
    return {path: array for path, array in arrays_of(optimizer).items() if path not in params}


def masters_of(optimizer):
    """Return the float32 masters: {'/p0': array, ...}."""
    return {path: param.update_rule._fp32_param.array for path, param in optimizer.target.namedparams()}


def condition_of(param):
    """Return everything that loading could change in a parameter and its rule: values, and ids of arrays."""
    rule = param.update_rule
    entries = {key: numpy.asarray(value) for key, value in entries_of(rule).items()}
    return {
        "parameter": (id(param.array), param.array.tobytes()),
        "entries": {key: (array.dtype, array.shape, array.tobytes()) for key, array in entries.items()},
        "states": rule.state if rule.state is None else {name: id(array) for name, array in rule.state.items()},
        "master": id(rule._fp32_param),
    }


def everything_of(optimizer):
    """Return everything that loading could change in an optimizer, its model and its rules."""
    # Chainer has no public way to read the loss scale, and a fixed one is not saved.
    found = {path: condition_of(param) for path, param in optimizer.target.namedparams()}
    return {"optimizer": (optimizer.t, optimizer.epoch, optimizer._loss_scale), **found}


# Functions that return a change of the entries, made in place


def without(*keys):
    """Remove entries."""

    def change(entries):
        for key in keys:
            del entries[key]

    return change


def replaced(key, value):
    """Replace an entry by a value, or by a function of the old one."""

    def change(entries):
        entries[key] = value(entries[key]) if callable(value) else value

    return change


def set_to(key, place, value):
    """Replace one element of an entry."""

    def change(entries):
        entries[key] = entries[key].copy()
        entries[key][place] = value

    return change
