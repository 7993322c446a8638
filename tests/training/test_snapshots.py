"""Training resumes from snapshots and checkpoints as if it had not stopped."""

from __future__ import annotations

import io
import os

import pytest
from chainer import serializers
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.training import extensions
from file_formats import SAVE_AND_LOAD
from models import arrays_of, assert_same_bits
from trainers import (
    EPOCHS,
    ITERATIONS,
    assert_same_history,
    batches,
    extend_with_log,
    log_of,
    optimizer_after,
    optimizer_of,
    record_arrays,
    run,
    trainer_of,
    update_on,
)

from rmsprop_graves import RMSpropGraves

# The class that saves, and the class that resumes.
CROSSINGS = [
    pytest.param(RMSpropGraves, RMSpropGraves, id="ours by ours"),
    pytest.param(ChainerRMSpropGraves, RMSpropGraves, id="Chainer's by ours"),
    pytest.param(RMSpropGraves, ChainerRMSpropGraves, id="ours by Chainer's"),
]


def extend_for_resuming(trainer):
    """Add the usual extensions, and a schedule that must continue where it stopped."""
    extend_with_log(trainer)
    trainer.extend(extensions.ExponentialShift("lr", 0.9), trigger=(2, "iteration"))
    trainer.extend(extensions.PrintReport(["epoch", "main/loss"], out=io.StringIO()))
    trainer.extend(extensions.FailOnNonNumber())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Run a trainer on Chainer's class without a stop; return it and its history."""
    trainer = trainer_of(ChainerRMSpropGraves, tmp_path_factory.mktemp("uninterrupted"))
    extend_for_resuming(trainer)
    history = record_arrays(trainer)
    run(trainer)
    return trainer, history


@pytest.mark.parametrize("stop", [10, 7], ids=["after an epoch", "within an epoch"])
@pytest.mark.parametrize(("first_class", "second_class"), CROSSINGS)
def test_snapshot_is_resumed_as_if_never_interrupted(first_class, second_class, uninterrupted, stop, tmp_path):
    """New objects with other weights reach the bits, log and schedule of an uninterrupted run on Chainer's class."""
    straight, expected = uninterrupted

    first = trainer_of(first_class, tmp_path, stop=(stop, "iteration"))
    extend_for_resuming(first)
    first.extend(extensions.snapshot(filename="snapshot"), trigger=(stop, "iteration"))
    history = record_arrays(first)
    run(first)

    second = trainer_of(second_class, tmp_path, seed=1)
    extend_for_resuming(second)
    second.extend(extensions.snapshot(filename="later"), trigger=(stop, "iteration"))
    serializers.load_npz(tmp_path / "snapshot", second)
    assert_same_bits(arrays_of(optimizer_of(second)), history[-1])
    history += record_arrays(second)
    later = record_arrays(second)
    run(second)

    assert_same_history(history + later, expected)
    assert log_of(second) == log_of(straight)
    ours, chainers = optimizer_of(second), optimizer_of(straight)
    assert (ours.t, ours.epoch, ours.lr) == (chainers.t, chainers.epoch, chainers.lr)
    assert (ours.t, ours.epoch) == (ITERATIONS, EPOCHS)
    assert [param.update_rule.t for param in ours.target.params()] == [ITERATIONS] * 4


def test_autoload_resumes_the_same_program(tmp_path):
    """With ``snapshot(autoload=True)`` a restarted program loads its snapshot."""
    straight = trainer_of(ChainerRMSpropGraves, tmp_path / "straight")
    run(straight)
    for seed, stop in enumerate((7, ITERATIONS)):
        trainer = trainer_of(RMSpropGraves, tmp_path / "resumed", stop=(stop, "iteration"), seed=seed)
        trainer.extend(extensions.snapshot(filename="snapshot", autoload=True), trigger=(7, "iteration"))
        os.makedirs(trainer.out, exist_ok=True)
        run(trainer)
    assert trainer.updater.iteration == ITERATIONS
    assert_same_bits(arrays_of(optimizer_of(trainer)), arrays_of(optimizer_of(straight)))


@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
@pytest.mark.parametrize("steps_before_loading", [0, 3], ids=["into a new one", "into a trained one"])
@pytest.mark.parametrize(("saved_class", "loaded_class"), CROSSINGS)
def test_an_optimizer_saved_during_training_resumes_as_if_uninterrupted(
    saved_class, loaded_class, steps_before_loading, save, load, tmp_path
):
    """Model and optimizer have a file each. Objects with other weights load t, epoch and every bit."""
    saved = optimizer_after(saved_class, 2)
    saved.new_epoch()
    save(str(tmp_path / "model"), saved.target)
    save(str(tmp_path / "optimizer"), saved)

    loaded = optimizer_after(loaded_class, steps_before_loading, seed=1)
    load(str(tmp_path / "model"), loaded.target)
    load(str(tmp_path / "optimizer"), loaded)
    assert_same_bits(arrays_of(loaded), arrays_of(saved))
    assert (loaded.t, loaded.epoch) == (2, 1)
    update_on(loaded, batches(5)[2:])
    assert loaded.t == 5
    assert [param.update_rule.t for param in loaded.target.params()] == [5] * 4
    assert_same_bits(arrays_of(loaded), arrays_of(optimizer_after(ChainerRMSpropGraves, 5)))
