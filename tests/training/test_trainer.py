"""chainer.training with this optimizer is bit-identical to Chainer's class: updaters, reports and epochs."""

from __future__ import annotations

import io
import json

import pytest
from both_classes import parametrize_class
from chainer.iterators import SerialIterator
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.training import extensions
from chainer.training.updaters import ParallelUpdater, StandardUpdater
from models import assert_same_bits
from skips import not_installed
from trainers import (
    EPOCHS,
    ITERATIONS,
    ITERATIONS_PER_EPOCH,
    assert_same_history,
    classifier,
    dataset,
    extend_with_log,
    log_of,
    next_order,
    optimizer_of,
    parallel_updater,
    record_arrays,
    run,
    standard_updater,
    trainer_of,
)

from rmsprop_graves import RMSpropGraves


def standard_updater_on_a_device(iterator, optimizer):
    return StandardUpdater(iterator, optimizer, device="@numpy")


def standard_updater_with_loss_scale(iterator, optimizer):
    # Not a power of two, so that dividing by it rounds.
    return StandardUpdater(iterator, optimizer, loss_scale=100.0)


@pytest.mark.parametrize(
    "make_updater",
    [standard_updater, standard_updater_on_a_device, standard_updater_with_loss_scale, parallel_updater],
)
def test_trainer_run_has_the_bits_of_chainers_class(make_updater, tmp_path):
    """The bits are compared after every iteration, for each updater. t counts iterations, and epoch counts epochs."""

    def run_with(optimizer_class):
        trainer = trainer_of(optimizer_class, tmp_path, make_updater)
        history = record_arrays(trainer)
        run(trainer)
        return trainer, history

    trainer, history = run_with(RMSpropGraves)
    assert_same_history(history, run_with(ChainerRMSpropGraves)[1])
    assert (optimizer_of(trainer).t, optimizer_of(trainer).epoch) == (ITERATIONS, EPOCHS)
    # Every parameter has moved at every iteration.
    for arrays, earlier in zip(history[1:], history):
        assert all((arrays[name] != earlier[name]).any() for name in arrays)


def test_parallel_updater_copies_the_step_to_its_other_models(tmp_path):
    """Two models get half of each batch and have the same parameters after each update."""
    optimizer = RMSpropGraves(lr=1e-2).setup(classifier())
    other = classifier(seed=1)
    updater = ParallelUpdater(
        SerialIterator(dataset(), 8, order_sampler=next_order),
        optimizer,
        models={"main": optimizer.target, "second": other},
        devices={"main": "@numpy", "second": "@numpy"},
    )
    before = optimizer.target.predictor.plain.W.array.copy()
    for _ in range(3):
        updater.update()
        assert_same_bits(
            {path: param.array for path, param in other.namedparams()},
            {path: param.array for path, param in optimizer.target.namedparams()},
        )
    assert (optimizer.target.predictor.plain.W.array != before).all()


def test_logreport_and_evaluator_log_as_on_chainers_class(tmp_path):
    """Losses and accuracies, in training and evaluation, are bit-identical in memory and in the file."""

    def log_with(optimizer_class):
        trainer = trainer_of(optimizer_class, tmp_path)
        extend_with_log(trainer)
        run(trainer)
        assert json.loads((tmp_path / "log").read_text()) == trainer.get_extension("LogReport").log
        return log_of(trainer)

    log = log_with(RMSpropGraves)
    assert log == log_with(ChainerRMSpropGraves)
    assert [(entry["epoch"], entry["iteration"]) for entry in log] == [(1, 5), (2, 10), (3, 15), (4, 20)]
    for key in ("main/loss", "validation/main/loss", "main/accuracy", "validation/main/accuracy"):
        assert len({entry[key] for entry in log}) > 1
    assert log[-1]["main/loss"] < log[0]["main/loss"]


def test_evaluator_does_not_change_training(tmp_path):
    """An evaluation between two updates does not change parameters and states."""

    def history_with(evaluator):
        trainer = trainer_of(RMSpropGraves, tmp_path)
        extend_with_log(trainer, evaluator)
        history = record_arrays(trainer)
        run(trainer)
        return history

    assert_same_history(history_with(True), history_with(False))


def test_printreport_prints_as_on_chainers_class(tmp_path):
    """PrintReport prints a header, then a line for each epoch."""

    def printed_with(optimizer_class):
        trainer = trainer_of(optimizer_class, tmp_path)
        extend_with_log(trainer)
        out = io.StringIO()
        entries = ["epoch", "main/loss", "validation/main/accuracy", "lr"]
        trainer.extend(extensions.PrintReport(entries, out=out))
        run(trainer)
        return out.getvalue()

    printed = printed_with(RMSpropGraves)
    assert printed == printed_with(ChainerRMSpropGraves)
    header, *lines = printed.splitlines()
    assert header.split() == ["epoch", "main/loss", "validation/main/accuracy", "lr"]
    assert [line.replace("\033[J", "").split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert all(line.split()[-1] == "0.01" for line in lines)


def test_progressbar_shows_the_optimizers_progress(tmp_path, capsys):
    """The bar is read from standard output, because Chainer 7 ignores `out`."""
    trainer = trainer_of(RMSpropGraves, tmp_path)
    trainer.extend(extensions.ProgressBar(update_interval=10, out=io.StringIO()))
    run(trainer)
    shown = capsys.readouterr().out
    assert "        10 iter, 2 epoch / 4 epochs" in shown
    assert "        20 iter, 4 epoch / 4 epochs" in shown
    assert " 50.00%" in shown
    assert "100.00%" in shown


def test_plotreport_writes_a_picture_of_the_loss(tmp_path):
    """matplotlib reads the PNG back. The line drawn has the values of the log."""
    matplotlib = pytest.importorskip("matplotlib", reason=not_installed("matplotlib"))
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason=not_installed("matplotlib"))
    drawn = []

    def keep(figure, axes, summary):
        drawn.append([line.get_xydata().tolist() for line in axes.get_lines()])

    trainer = trainer_of(RMSpropGraves, tmp_path)
    trainer.extend(extensions.LogReport(trigger=(2, "epoch")))
    plot = extensions.PlotReport(["main/loss"], "epoch", trigger=(2, "epoch"), filename="loss.png", postprocess=keep)
    trainer.extend(plot)
    run(trainer)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = pyplot.imread(tmp_path / "loss.png")
    assert pixels.min() < pixels.max()
    assert drawn[-1] == [[[entry["epoch"], entry["main/loss"]] for entry in log_of(trainer)]]


@parametrize_class
@pytest.mark.parametrize("make_updater", [standard_updater, parallel_updater])
def test_updater_counts_the_optimizers_epochs(optimizer_class, make_updater, tmp_path):
    """An epoch counts at its last iteration."""
    trainer = trainer_of(optimizer_class, tmp_path, make_updater)
    optimizer = optimizer_of(trainer)
    assert optimizer.use_auto_new_epoch
    epochs = []
    trainer.extend(lambda trainer: epochs.append((optimizer.epoch, trainer.updater.epoch)), name="record")
    run(trainer)
    assert epochs == [(i // ITERATIONS_PER_EPOCH,) * 2 for i in range(1, ITERATIONS + 1)]


@parametrize_class
def test_new_epoch_by_hand_under_an_updater_raises_runtimeerror(optimizer_class, tmp_path):
    """Otherwise each epoch would be counted twice."""
    optimizer = optimizer_of(trainer_of(optimizer_class, tmp_path))
    with pytest.raises(RuntimeError, match="duplicated new_epoch with the updater"):
        optimizer.new_epoch()
    assert optimizer.epoch == 0


@parametrize_class
def test_new_epoch_by_an_unregistered_updater_raises_runtimeerror(optimizer_class):
    """An updater that counts epochs must set ``use_auto_new_epoch`` first."""
    optimizer = optimizer_class().setup(classifier())
    with pytest.raises(RuntimeError, match="invalid new_epoch call"):
        optimizer.new_epoch(auto=True)
    assert optimizer.epoch == 0


@parametrize_class
def test_new_epoch_by_hand_counts_where_the_updater_does_not(optimizer_class, tmp_path):
    """auto_new_epoch=False leaves the counting to the program."""
    trainer = trainer_of(optimizer_class, tmp_path, lambda *args: standard_updater(*args, auto_new_epoch=False))
    optimizer = optimizer_of(trainer)
    run(trainer)
    assert optimizer.epoch == 0
    optimizer.new_epoch()
    optimizer.new_epoch()
    assert optimizer.epoch == 2
