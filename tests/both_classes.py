"""Train one model with this class and with Chainer's, and compare the results bit for bit."""

from __future__ import annotations

import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves

CLASSES = (RMSpropGraves, ChainerRMSpropGraves)
parametrize_class = pytest.mark.parametrize("optimizer_class", CLASSES, ids=["ours", "Chainer's"])


def rule_times(optimizer):
    """Return the t of each parameter's rule."""
    return [param.update_rule.t for param in optimizer.target.params()]


def assert_same_training(ours, chainers):
    """Assert that two optimizers have the same bits, t, epoch, and t of each rule."""
    assert_same_bits(arrays_of(ours), arrays_of(chainers))
    assert rule_times(ours) == rule_times(chainers)
    assert (ours.t, ours.epoch) == (chainers.t, chainers.epoch)


def assert_trains_as_chainers(set_up, step, steps=5):
    """Train with both classes; return both optimizers.

    Args:
        set_up: Called with each class; returns an optimizer of a new model.
        step: Called with each optimizer and the number of the step. The optimizers are compared after each step.
        steps: The number of steps.
    """
    ours, chainers = map(set_up, CLASSES)
    for t in range(steps):
        for optimizer in (ours, chainers):
            step(optimizer, t)
        assert_same_training(ours, chainers)
    return ours, chainers
