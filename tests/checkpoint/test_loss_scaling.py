"""The scale of dynamic loss scaling in checkpoints. Chainer's class does not save it, and starts again at 1."""

from __future__ import annotations

import numpy
import pytest
from checkpoint.training import entries_of, everything_of, fresh, train, without


def scaled():
    """Make an optimizer with dynamic loss scaling.

    The scale doubles at every update until the first overflow, and afterwards every three updates.
    """
    optimizer = fresh()
    optimizer.loss_scaling(interval=3)
    return optimizer


def overflow(optimizer):
    """Make an update with an infinite gradient, which halves the scale."""
    optimizer.target.p0.grad = numpy.full_like(optimizer.target.p0.array, numpy.inf)
    with pytest.warns(UserWarning, match="Non finite number found"):
        optimizer.update()


@pytest.fixture
def saved():
    """An optimizer with a scale above 1 that has met an overflow."""
    optimizer = train(scaled(), 1, 2, 3)
    overflow(optimizer)
    return optimizer


def scaling_of(optimizer):
    """Return the scale, and whether there has been an overflow."""
    entries = entries_of(optimizer)
    return entries["loss_scale"].item(), entries["loss_scaling_isnan_ever"].item()


def test_dynamic_loss_scaling_is_resumed(load_entries, saved):
    """The scale and the record of an overflow are restored: both determine the next scales."""
    resumed = scaled()
    load_entries(entries_of(saved), resumed)
    assert scaling_of(resumed) == scaling_of(saved)
    assert scaling_of(resumed)[0] > 1
    assert scaling_of(resumed)[1] is True
    for seed in (4, 5, 6):
        assert scaling_of(train(resumed, seed)) == scaling_of(train(saved, seed))


@pytest.mark.parametrize(("scale", "saved_scale"), [(2.0**20, 65504), (0.25, 1)])
def test_a_scale_set_by_hand_is_saved_within_the_limits_of_dynamic_scaling(load_entries, scale, saved_scale):
    """A scale outside of the limits could not be loaded. The next update limits it too."""
    optimizer, resumed = scaled(), scaled()
    optimizer.set_loss_scale(scale)
    load_entries(entries_of(optimizer), resumed)
    assert scaling_of(resumed)[0] == saved_scale


def test_a_checkpoint_without_a_loss_scale_leaves_dynamic_scaling_unchanged(load_entries, saved):
    """Checkpoints of Chainer's class have no loss scale."""
    entries = entries_of(saved)
    without("loss_scale", "loss_scaling_isnan_ever")(entries)
    new, trained = scaled(), train(scaled(), 8, 9, 10)
    before = scaling_of(trained)
    assert before != scaling_of(new)
    load_entries(entries, new)
    load_entries(entries, trained)
    assert (scaling_of(new), scaling_of(trained)) == (scaling_of(scaled()), before)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loss_scale", -2.0, r"loss_scale: found -2\.0, expected a finite number > 0"),
        ("loss_scale", 0.0, r"loss_scale: found 0\.0, expected a finite number > 0"),
        ("loss_scale", numpy.inf, "loss_scale: found inf, expected a finite number > 0"),
        ("loss_scale", numpy.nan, "loss_scale: found nan, expected a finite number > 0"),
        ("loss_scale", 0.5, r"loss_scale: found 0\.5, expected a number from 1 to 65504"),
        ("loss_scale", 65505.0, r"loss_scale: found 65505\.0, expected a number from 1 to 65504"),
        ("loss_scale", True, "loss_scale: found True, expected a finite number > 0"),
        ("loss_scale", numpy.ones(1), r"loss_scale: found an array of shape \(1,\) .*, expected a finite number > 0"),
        ("loss_scaling_isnan_ever", 1.0, r"loss_scaling_isnan_ever: found 1\.0, expected a truth value"),
    ],
)
def test_a_damaged_loss_scale_is_refused_and_changes_nothing(load_entries, saved, key, value, message):
    """Nothing else of the file is loaded either."""
    entries = {**entries_of(saved), key: numpy.array(value)}
    optimizer = train(scaled(), 8)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=message):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before


def test_a_fixed_loss_scale_is_neither_saved_nor_loaded(load_entries, saved):
    """A program that sets it will set it again."""
    optimizer = fresh()
    optimizer.set_loss_scale(8.0)
    assert not any("loss_scal" in key for key in entries_of(optimizer))
    load_entries(entries_of(saved), optimizer)
    # Chainer has no public way to read the scale.
    assert optimizer._loss_scale == 8
