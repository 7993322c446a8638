"""float16 parameters that are updated in float32."""

from __future__ import annotations

import pickle

import chainer
import numpy
import pytest
from both_classes import assert_trains_as_chainers
from chainer import functions as F
from chainer import links as L
from models import Arrays, arrays_of, assert_same_bits, gradients, train

from rmsprop_graves import RMSpropGraves


def half_model():
    with chainer.using_config("dtype", numpy.float16):
        return L.Linear(3, 2, initialW=0.5)


def step_half(optimizer, t):
    x = gradients((4, 3), seed=t, dtype="f2")[0]
    optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))


def masters_of(optimizer):
    """Return a list that will hold the weight's float32 master after each step. A rule's hook gets the master."""
    masters = []
    optimizer.target.W.update_rule.add_hook(
        lambda rule, master: masters.append(master.array.copy()), name="look", timing="post"
    )
    return masters


@pytest.mark.parametrize("before_setup", [True, False])
@pytest.mark.parametrize("hooked", [True, False])
def test_use_fp32_update_keeps_a_float32_master(before_setup, hooked):
    """The states are float32, and the parameter is its master, rounded. All are bit-identical to Chainer's."""
    masters = []

    def set_up(cls):
        optimizer = cls(lr=1e-3)
        if before_setup:
            optimizer.use_fp32_update()
        optimizer.setup(half_model())
        if not before_setup:
            optimizer.use_fp32_update()
        if hooked:
            masters.append(masters_of(optimizer))
        return optimizer

    ours, _ = assert_trains_as_chainers(set_up, step_half)
    weight = ours.target.W
    assert weight.dtype == numpy.float16
    assert {array.dtype for array in weight.update_rule.state.values()} == {numpy.dtype("f4")}
    if hooked:
        assert [master.dtype for master in masters[0]] == [numpy.dtype("f4")] * 5
        for master, expected in zip(*masters):
            numpy.testing.assert_array_equal(master, expected)
        numpy.testing.assert_array_equal(weight.array, masters[0][-1].astype("f2"))
        assert (masters[0][-1] != weight.array).any()


def test_use_fp32_update_of_a_model_ignores_its_flag():
    """As in Chainer, the flag applies only to models that are set up later. A rule's own method applies it at once."""

    def set_up(cls):
        optimizer = cls(lr=1e-3).setup(half_model())
        optimizer.use_fp32_update(False)
        optimizer.target.b.update_rule.use_fp32_update(False)
        return optimizer

    ours, _ = assert_trains_as_chainers(set_up, step_half, steps=1)
    assert ours.target.W.update_rule.state["n"].dtype == numpy.float32
    assert ours.target.b.update_rule.state["n"].dtype == numpy.float16


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_use_fp32_update_changes_nothing_for_other_dtypes(dtype):
    """A model may have parameters of several dtypes; float32 and float64 ones have no master."""
    ends = []
    for use in (True, False):
        optimizer = RMSpropGraves().setup(Arrays(*gradients((2, 3), 4, dtype=dtype)))
        if use:
            optimizer.use_fp32_update()
        ends.append(arrays_of(train(optimizer, [gradients((2, 3), 4, seed=seed, dtype=dtype) for seed in range(3)])))
    assert_same_bits(*ends)


def test_an_uninitialized_half_can_use_fp32_update():
    """Chainer's update fails after other parameters have moved: it makes a master whose gradient cannot be read.

    An optimizer with such a master could not be pickled either.
    """
    ends = []
    for updates_before in (0, 1):
        layer = L.Linear(None, 2, initialW=chainer.initializers.Constant(0.5, "f2"), nobias=True)
        optimizer = RMSpropGraves(lr=1e-3).setup(layer)
        optimizer.use_fp32_update()
        layer.cleargrads()
        for _ in range(updates_before):
            optimizer.update()
            optimizer = pickle.loads(pickle.dumps(optimizer))
            layer = optimizer.target
        assert layer.W.update_rule.t == updates_before
        step_half(optimizer, 0)
        assert layer.W.update_rule.state["n"].dtype == numpy.float32
        ends.append(arrays_of(optimizer))
    assert_same_bits(*ends)


def test_a_resized_half_gets_a_new_master():
    """Chainer compares the gradient with the old master's shape, and fails after other parameters have moved."""
    optimizer = RMSpropGraves(lr=1e-3).setup(half_model())
    optimizer.use_fp32_update()
    step_half(optimizer, 0)
    weight = optimizer.target.W
    masters = masters_of(optimizer)
    weight.cleargrad()
    weight.array = numpy.ones((2, 5), "f2")
    weight.update_rule._state = None
    x = gradients((4, 5), seed=1, dtype="f2")[0]
    optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))
    assert masters[0].shape == weight.shape == (2, 5)
    numpy.testing.assert_array_equal(weight.array, masters[0].astype("f2"))
    assert (weight.array != 1).all()


def test_one_rule_alone_can_use_fp32_update():
    """The states of the other parameters are float16."""
    optimizer = RMSpropGraves().setup(half_model())
    optimizer.target.W.update_rule.use_fp32_update()
    step_half(optimizer, 0)
    assert optimizer.target.W.update_rule.state["n"].dtype == numpy.float32
    assert optimizer.target.b.update_rule.state["n"].dtype == numpy.float16
