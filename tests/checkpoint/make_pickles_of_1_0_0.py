"""Make pickled_by_1_0_0.pickle, and trained_by_1_0_0.npz with the arrays after three more updates.

Run it from the root of this repository, with release 1.0.0 and NumPy 1. Every NumPy reads the pickles of NumPy 1:

    PYTHONPATH=<checkout of 1.0.0>:tests python tests/checkpoint/make_pickles_of_1_0_0.py
"""

from __future__ import annotations

import pickle
from pathlib import Path

import rmsprop_graves  # first: it makes Chainer importable

import chainer  # isort: skip
import numpy
from checkpoint.training import copy_params, entries_of, load_from_dict, mastered, model_of, train
from models import arrays_of

PICKLE = Path(__file__).with_name("pickled_by_1_0_0.pickle")
TRAINED = Path(__file__).with_name("trained_by_1_0_0.npz")


def set_up(*arrays):
    """Make an optimizer of a plain `chainer.Link`, so that the pickle refers to no test module."""
    model = chainer.Link()
    with model.init_scope():
        for i, array in enumerate(arrays):
            setattr(model, f"p{i}", chainer.Parameter(array))
    return rmsprop_graves.RMSpropGraves(lr=1e-4).setup(model)


def half(use_fp32_update=True):
    """Make an optimizer of float16 parameters."""
    optimizer = set_up(*(param.array for param in model_of("f2").params()))
    if use_fp32_update:
        optimizer.use_fp32_update()
    return optimizer


def loaded_optimizers():
    """Load checkpoints into optimizers that make no update afterwards."""
    saved = train(mastered(), 1, 2, 3)
    optimizers = {
        "new": half(),
        "updated before": train(half(), 8, 9),
        "without masters": half(use_fp32_update=False),
    }
    for optimizer in optimizers.values():
        load_from_dict(entries_of(saved), optimizer)
        copy_params(saved, optimizer)
    # The states stay float64 until the parameter is initialized, because its dtype is not known before.
    optimizers["uninitialized"] = set_up(chainer.initializers.Constant(0.5))
    wide = train(set_up(numpy.ones((2, 3), "f8")), 1)
    load_from_dict(entries_of(wide), optimizers["uninitialized"])
    return optimizers


def resume(optimizer):
    """Update three times, and return the arrays, float32 masters included."""
    for param in optimizer.target.params():
        if param.array is None:
            param.initialize((2, 3))
    train(optimizer, 4, 5, 6)
    arrays = arrays_of(optimizer)
    for path, param in optimizer.target.namedparams():
        if param.update_rule._fp32_param is not None:
            arrays[f"{path}/master"] = param.update_rule._fp32_param.array
    return arrays


def main():
    """Write both files."""
    if rmsprop_graves.__version__ != "1.0.0":
        raise SystemExit(f"expected rmsprop-graves 1.0.0, found {rmsprop_graves.__version__}")
    PICKLE.write_bytes(pickle.dumps(loaded_optimizers(), protocol=4))
    trained = {name: resume(optimizer) for name, optimizer in loaded_optimizers().items()}
    numpy.savez_compressed(
        TRAINED, **{f"{name}{path}": array for name, arrays in trained.items() for path, array in arrays.items()}
    )


if __name__ == "__main__":
    main()
