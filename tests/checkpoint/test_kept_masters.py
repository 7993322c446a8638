"""Float32 masters of parameters that are frozen or not initialized."""

from __future__ import annotations

import chainer
import numpy
import pytest
from checkpoint.training import entries_of, load_from_dict
from file_formats import SAVE_AND_LOAD

import rmsprop_graves
from rmsprop_graves import RMSpropGraves


def set_up(shape=None):
    """Make an optimizer of one float16 parameter with a master. Without a shape the parameter is not initialized."""
    model = chainer.Link()
    with model.init_scope():
        model.w = chainer.Parameter(chainer.initializers.One(dtype=numpy.float16), shape)
    model.cleargrads()
    optimizer = RMSpropGraves().setup(model)
    optimizer.use_fp32_update()
    return optimizer


def train(optimizer, updates):
    """Update with random gradients, and return the optimizer."""
    rng = numpy.random.RandomState(optimizer.t)
    for _ in range(updates):
        param = optimizer.target.w
        if param.array is not None:
            param.grad = rng.standard_normal(param.shape).astype("f2")
        optimizer.update()
    return optimizer


def bytes_of(optimizer):
    """Return the parameter and the entries of a checkpoint, as bytes."""
    entries = {key: numpy.asarray(value).tobytes() for key, value in entries_of(optimizer).items()}
    return {**entries, "the parameter": optimizer.target.w.array.tobytes()}


@pytest.mark.parametrize(
    ("save", "load"),
    [*SAVE_AND_LOAD, pytest.param(chainer.serializers.save_npz, rmsprop_graves.load_npz, id="our load_npz")],
)
def test_an_uninitialized_parameter_has_no_master_to_save(tmp_path, save, load):
    """An entry of None would be a pickled object, which rmsprop_graves.load_npz refuses."""
    saved, resumed = train(set_up(), 2), set_up()
    assert set(entries_of(saved)) == {"t", "epoch", "w/t"}
    save(str(tmp_path / "file"), saved)
    load(str(tmp_path / "file"), resumed)
    assert resumed.t == resumed.target.w.update_rule.t == 2


def test_a_master_loaded_before_its_parameter_is_initialized_waits_for_it():
    """Updates before the initialization keep the master, and so does a checkpoint saved then."""
    saved = train(set_up((2, 3)), 3)
    resumed = set_up()
    load_from_dict(entries_of(saved), resumed)
    resumed.update()
    again = set_up()
    load_from_dict(entries_of(resumed), again)
    again.target.w.initialize((2, 3))
    again.target.w.array[...] = saved.target.w.array
    again.t = again.target.w.update_rule.t = 3
    assert bytes_of(train(again, 2)) == bytes_of(train(saved, 2))


def test_a_frozen_parameter_missing_from_the_checkpoint_keeps_its_master():
    """Unfrozen later, it trains on as if nothing had been loaded."""
    optimizer, untouched = train(set_up((2, 3)), 3), train(set_up((2, 3)), 3)
    rule = optimizer.target.w.update_rule
    rule.enabled = False
    load_from_dict({"t": numpy.array(3), "epoch": numpy.array(0)}, optimizer)
    assert bytes_of(optimizer) == bytes_of(untouched)
    rule.enabled = True
    assert bytes_of(train(optimizer, 2)) == bytes_of(train(untouched, 2))
