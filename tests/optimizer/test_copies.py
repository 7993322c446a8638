"""Copies of an optimizer, by copy.deepcopy and by pickle."""

from __future__ import annotations

import copy
import pickle

import numpy
import pytest
from chainer.optimizer_hooks import WeightDecay
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import arrays_of, assert_same_bits, copies_of
from trainers import (
    batches,
    classifier,
    optimizer_after,
    update_on,
)

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule

COPIES = {
    "deepcopy": copy.deepcopy,
    "oldest pickle": lambda found: pickle.loads(pickle.dumps(found, 2)),
    "newest pickle": lambda found: pickle.loads(pickle.dumps(found, pickle.HIGHEST_PROTOCOL)),
}
parametrize_copies = pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES.keys())


@parametrize_copies
@pytest.mark.parametrize("steps", [0, 2], ids=["before training", "in mid-training"])
def test_copy_of_an_optimizer_trains_on_as_the_original(make_copy, steps):
    """The copy includes the model and the hooks, shares nothing with the original, and stays bit-identical to it."""
    original = RMSpropGraves(lr=1e-2, momentum=0.5).setup(classifier())
    original.add_hook(WeightDecay(0.01))
    expected = ChainerRMSpropGraves(lr=1e-2, momentum=0.5).setup(classifier())
    expected.add_hook(WeightDecay(0.01))
    update_on(original, batches(5)[:steps])
    before = copies_of(original)

    copied = make_copy(original)
    assert type(copied) is RMSpropGraves
    assert copied.t == steps
    assert_same_bits(arrays_of(copied), before)
    update_on(copied, batches(5)[steps:])
    assert_same_bits(arrays_of(original), before)
    assert (original.t, copied.t) == (steps, 5)
    update_on(original, batches(5)[steps:])
    assert_same_bits(arrays_of(copied), arrays_of(original))
    assert_same_bits(arrays_of(copied), arrays_of(update_on(expected, batches(5))))


@parametrize_copies
def test_copy_of_an_optimizer_has_hyperparameters_of_its_own(make_copy):
    """The copy's rules inherit from the copy, and the original's rules from the original."""
    original = optimizer_after(RMSpropGraves, 1)
    first = next(original.target.params()).update_rule
    first.hyperparam.eps = 0.5
    copied = make_copy(original)
    copied.lr = 1.0
    original.alpha = 0.5
    copied_first, *copied_others = [param.update_rule for param in copied.target.params()]
    assert (original.lr, original.alpha) == (0.01, 0.5)
    assert (copied.lr, copied.alpha) == (1.0, 0.95)
    assert {rule.hyperparam.lr for rule in (copied_first, *copied_others)} == {1.0}
    assert (first.hyperparam.lr, first.hyperparam.alpha) == (0.01, 0.5)
    assert [rule.hyperparam.eps for rule in (copied_first, *copied_others)] == [0.5] + [1e-4] * 3
    copied_first.hyperparam.eps = 0.25
    assert first.hyperparam.eps == 0.5
    with pytest.raises(ValueError, match="alpha must be a finite number >= 0, got -1"):
        copied.alpha = -1


@parametrize_copies
def test_copy_of_a_rule_holds_its_state_and_values(make_copy):
    """A rule copied by itself has the same t and hyperparameters, and arrays of its own."""
    rule = next(optimizer_after(RMSpropGraves, 2).target.params()).update_rule
    rule.hyperparam.momentum = 0.25
    copied = make_copy(rule)
    assert type(copied) is RMSpropGravesRule
    assert copied.t == 2
    assert copied.hyperparam.get_dict() == rule.hyperparam.get_dict()
    assert copied.hyperparam.get_dict() == {"lr": 0.01, "alpha": 0.95, "momentum": 0.25, "eps": 1e-4}
    assert_same_bits(copied.state, rule.state)
    assert sorted(copied.state) == ["delta", "g", "n"]
    assert not any(numpy.shares_memory(copied.state[name], rule.state[name]) for name in rule.state)


@parametrize_copies
def test_copy_of_a_template_can_be_set_up(make_copy):
    """A program may keep an optimizer without a model as a template."""
    template = RMSpropGraves(lr=1e-2)
    copied = make_copy(template).setup(classifier())
    assert template.target is None
    update_on(copied, batches(5))
    assert_same_bits(arrays_of(copied), arrays_of(optimizer_after(ChainerRMSpropGraves, 5)))


@parametrize_copies
@pytest.mark.parametrize("found", [RMSpropGraves, RMSpropGravesRule])
def test_copy_of_a_class_is_the_class(make_copy, found):
    """Copies and pickles refer to a class by its name."""
    assert make_copy(found) is found
