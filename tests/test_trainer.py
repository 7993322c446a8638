"""Training as Chainer's programs do it, held to what the same program does on Chainer's class, bit for bit."""

from __future__ import annotations

import copy
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import chainer
import numpy
import pytest
from chainer import functions, links, serializers
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.optimizer_hooks import WeightDecay
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.training import Trainer, extensions
from chainer.training.updaters import ParallelUpdater, StandardUpdater
from file_formats import SAVE_AND_LOAD
from models import arrays_of, assert_same_bits

import rmsprop_graves
from rmsprop_graves import RMSpropGraves, RMSpropGravesRule

ITERATIONS_PER_EPOCH = 5
EPOCHS = 4
ITERATIONS = EPOCHS * ITERATIONS_PER_EPOCH

CLASSES = [RMSpropGraves, ChainerRMSpropGraves]
parametrize_class = pytest.mark.parametrize("optimizer_class", CLASSES, ids=["ours", "Chainer's"])


def classifier(seed=0):
    """Two layers with biases, whose values depend on the seed alone; of Chainer's classes, so that it pickles."""
    random = numpy.random.RandomState(seed)
    weights, biases = random.randn(2, 4, 4), random.randn(2, 4)
    return links.Classifier(links.Highway(4, False, functions.tanh, *weights, *biases))


def dataset(seed=0, size=8 * ITERATIONS_PER_EPOCH):
    """Points and which of four directions each is the farthest in."""
    random = numpy.random.RandomState(seed)
    x = random.randn(size, 4).astype(numpy.float32)
    directions = numpy.random.RandomState(100).randn(4, 4)
    return TupleDataset(x, (x @ directions).argmax(axis=1).astype(numpy.int32))


def next_order(order, position):
    """The order of the next epoch, which depends on that of the last alone, so that a snapshot holds it all."""
    return numpy.roll(order, 7)


def standard_updater(iterator, optimizer, **kwargs):
    return StandardUpdater(iterator, optimizer, **kwargs)


def standard_updater_on_a_device(iterator, optimizer):
    return StandardUpdater(iterator, optimizer, device="@numpy")


def standard_updater_with_loss_scale(iterator, optimizer):
    # Not a power of two, so that it rounds.
    return StandardUpdater(iterator, optimizer, loss_scale=100.0)


def parallel_updater(iterator, optimizer):
    return ParallelUpdater(iterator, optimizer, devices={"main": "@numpy", "second": "@numpy"})


def trainer_of(optimizer_class, out, make_updater=standard_updater, stop=(EPOCHS, "epoch"), seed=0):
    optimizer = optimizer_class(lr=1e-2).setup(classifier(seed))
    iterator = SerialIterator(dataset(), 8, order_sampler=next_order)
    return Trainer(make_updater(iterator, optimizer), stop, str(out))


def optimizer_of(trainer):
    return trainer.updater.get_optimizer("main")


def run(trainer):
    trainer.run(show_loop_exception_msg=False)


def copies_of(optimizer):
    return {name: array.copy() for name, array in arrays_of(optimizer).items()}


def record_arrays(trainer):
    """The list that will hold the trainer's arrays after each iteration."""
    history = []
    trainer.extend(lambda trainer: history.append(copies_of(optimizer_of(trainer))), name="record")
    return history


def assert_same_history(actual, expected):
    assert len(actual) == len(expected) == ITERATIONS
    for arrays, others in zip(actual, expected):
        assert_same_bits(arrays, others)


def log_of(trainer):
    """What LogReport has logged, but the time, which every entry must have."""
    entries = [dict(entry) for entry in trainer.get_extension("LogReport").log]
    for entry in entries:
        assert entry.pop("elapsed_time") > 0
    return entries


@pytest.mark.parametrize(
    "make_updater",
    [standard_updater, standard_updater_on_a_device, standard_updater_with_loss_scale, parallel_updater],
)
def test_trainer_run_has_the_bits_of_chainers_class(make_updater, tmp_path):
    """After every iteration, with either updater; t and epoch count up as they do there."""

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
    """Two models see half a batch each, and hold the same parameters after each update."""
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


def extend_with_log(trainer, test=True):
    """LogReport, and Evaluator on other points."""
    if test:
        iterator = SerialIterator(dataset(seed=1, size=12), 8, repeat=False, shuffle=False)
        trainer.extend(extensions.Evaluator(iterator, optimizer_of(trainer).target))
    trainer.extend(extensions.observe_lr())
    trainer.extend(extensions.LogReport())


def test_logreport_and_evaluator_log_what_they_do_on_chainers_class(tmp_path):
    """Losses and accuracies in training and on the other points, to the last bit, in memory and in the file."""

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


def test_evaluator_leaves_training_as_it_is(tmp_path):
    """An evaluation between two updates changes no bit of what training goes on from."""

    def history_with(evaluator):
        trainer = trainer_of(RMSpropGraves, tmp_path)
        extend_with_log(trainer, evaluator)
        history = record_arrays(trainer)
        run(trainer)
        return history

    assert_same_history(history_with(True), history_with(False))


def test_printreport_prints_what_it_does_on_chainers_class(tmp_path):
    """A header, then a line for each epoch."""

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
    """Read from standard output: the bar of Chainer 7 does not heed `out`."""
    trainer = trainer_of(RMSpropGraves, tmp_path)
    trainer.extend(extensions.ProgressBar(update_interval=10, out=io.StringIO()))
    run(trainer)
    shown = capsys.readouterr().out
    assert "        10 iter, 2 epoch / 4 epochs" in shown
    assert "        20 iter, 4 epoch / 4 epochs" in shown
    assert " 50.00%" in shown
    assert "100.00%" in shown


def test_plotreport_writes_a_picture_of_the_loss(tmp_path):
    """A PNG that matplotlib reads back, with something drawn in it."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
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


def extend_for_resuming(trainer):
    """All that a program usually has, and a schedule that must go on where it was."""
    extend_with_log(trainer)
    trainer.extend(extensions.ExponentialShift("lr", 0.9), trigger=(2, "iteration"))
    trainer.extend(extensions.PrintReport(["epoch", "main/loss"], out=io.StringIO()))
    trainer.extend(extensions.FailOnNonNumber())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A trainer that has run on Chainer's class, and its history."""
    trainer = trainer_of(ChainerRMSpropGraves, tmp_path_factory.mktemp("uninterrupted"))
    extend_for_resuming(trainer)
    history = record_arrays(trainer)
    run(trainer)
    return trainer, history


@pytest.mark.parametrize("stop", [10, 7], ids=["after an epoch", "within an epoch"])
@pytest.mark.parametrize(
    ("first_class", "second_class"),
    [
        pytest.param(RMSpropGraves, RMSpropGraves, id="ours by ours"),
        pytest.param(ChainerRMSpropGraves, RMSpropGraves, id="Chainer's by ours"),
        pytest.param(RMSpropGraves, ChainerRMSpropGraves, id="ours by Chainer's"),
    ],
)
def test_snapshot_is_resumed_as_if_never_interrupted(first_class, second_class, uninterrupted, stop, tmp_path):
    """From new objects of other weights: the bits, the log and the schedule of Chainer's class, uninterrupted."""
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


def test_snapshot_is_found_and_loaded_by_itself(tmp_path):
    """With autoload, a snapshot resumes the same program when it is started again."""
    straight = trainer_of(ChainerRMSpropGraves, tmp_path / "straight")
    run(straight)
    for seed, stop in enumerate((7, ITERATIONS)):
        trainer = trainer_of(RMSpropGraves, tmp_path / "resumed", stop=(stop, "iteration"), seed=seed)
        trainer.extend(extensions.snapshot(filename="snapshot", autoload=True), trigger=(7, "iteration"))
        os.makedirs(trainer.out, exist_ok=True)
        run(trainer)
    assert trainer.updater.iteration == ITERATIONS
    assert_same_bits(arrays_of(optimizer_of(trainer)), arrays_of(optimizer_of(straight)))


# For each: the extension, the attribute, and the value that iteration i, from 0, is to be run with.
SCHEDULES = {
    "ExponentialShift": (lambda: extensions.ExponentialShift("lr", 0.8), "lr", lambda i: 0.01 * 0.8**i),
    "ExponentialShift with init and target": (
        lambda: extensions.ExponentialShift("lr", 1.5, init=1e-3, target=1e-2),
        "lr",
        lambda i: min(1e-3 * 1.5**i, 1e-2),
    ),
    "LinearShift": (
        lambda: extensions.LinearShift("lr", (1e-2, 1e-3), (2, 12)),
        "lr",
        lambda i: 1e-2 - 9e-4 * min(max(i - 2, 0), 10),
    ),
    "InverseShift": (
        lambda: extensions.InverseShift("lr", gamma=0.5, power=0.75),
        "lr",
        lambda i: 0.01 * (1 + 0.5 * i) ** -0.75,
    ),
    "PolynomialShift": (
        lambda: extensions.PolynomialShift("lr", rate=2.0, max_count=30),
        "lr",
        lambda i: 0.01 * (1 - i / 30) ** 2,
    ),
    "StepShift": (lambda: extensions.StepShift("lr", gamma=0.7, step=4), "lr", lambda i: 0.01 * 0.7 ** (i // 4)),
    "MultistepShift": (
        lambda: extensions.MultistepShift("lr", gamma=0.3, step_value=[3, 7, 11], init=0.02),
        "lr",
        lambda i: 0.02 * 0.3 ** sum(i >= step for step in (3, 7, 11)),
    ),
    "WarmupShift": (
        lambda: extensions.WarmupShift("lr", warmup_start=1e-4, warmup_iter=8, init=1e-2),
        "lr",
        lambda i: 1e-4 + (1e-2 - 1e-4) * min(i / 8, 1),
    ),
    "LinearShift of momentum": (
        lambda: extensions.LinearShift("momentum", (0.5, 0.99), (0, 10)),
        "momentum",
        lambda i: 0.5 + 0.049 * min(i, 10),
    ),
    "StepShift of momentum": (
        lambda: extensions.StepShift("momentum", gamma=0.5, step=6),
        "momentum",
        lambda i: 0.9 * 0.5 ** (i // 6),
    ),
    "LinearShift of alpha": (
        lambda: extensions.LinearShift("alpha", (0.5, 0.99), (0, 10)),
        "alpha",
        lambda i: 0.5 + 0.049 * min(i, 10),
    ),
    "ExponentialShift of eps": (lambda: extensions.ExponentialShift("eps", 0.5), "eps", lambda i: 1e-4 * 0.5**i),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_schedule_sets_what_each_iteration_is_run_with(schedule, tmp_path):
    """The values are the schedule's own formula and those on Chainer's class, and so are the bits.

    StepShift sets a NumPy float64, with which Chainer's class computes in float64 on NumPy 2, 1e-7 off; it is
    given the same value as a Python float here, and this project's class is not.
    """
    make_shift, attribute, formula = schedule

    def make_python_float(trainer):
        setattr(optimizer_of(trainer), attribute, float(getattr(optimizer_of(trainer), attribute)))

    def run_with(optimizer_class):
        trainer = trainer_of(optimizer_class, tmp_path)
        trainer.extend(make_shift())
        if optimizer_class is ChainerRMSpropGraves:
            trainer.extend(make_python_float, priority=0)
        values = []
        optimizer_of(trainer).add_hook(lambda optimizer: values.append(getattr(optimizer, attribute)), name="look")
        history = record_arrays(trainer)
        run(trainer)
        return values, history

    values, history = run_with(RMSpropGraves)
    expected_values, expected_history = run_with(ChainerRMSpropGraves)
    assert values == expected_values
    assert values == pytest.approx([formula(i) for i in range(ITERATIONS)], rel=1e-12)
    assert len(set(values)) > 2
    assert_same_history(history, expected_history)


def test_schedule_reaches_the_rules_that_have_no_value_of_their_own(tmp_path):
    """A rule with its own lr keeps it, as on Chainer's class."""

    def run_with(optimizer_class):
        trainer = trainer_of(optimizer_class, tmp_path)
        own, *others = [param.update_rule for param in optimizer_of(trainer).target.params()]
        own.hyperparam.lr = 0.5
        trainer.extend(extensions.ExponentialShift("lr", 0.8))
        history = record_arrays(trainer)
        run(trainer)
        assert own.hyperparam.lr == 0.5
        assert {rule.hyperparam.lr for rule in others} == {optimizer_of(trainer).lr}
        return history

    assert_same_history(run_with(RMSpropGraves), run_with(ChainerRMSpropGraves))


@parametrize_class
def test_observe_lr_logs_the_lr_of_the_next_iteration(optimizer_class, tmp_path):
    """Observed at the end of an iteration, when the schedule has moved on already."""
    trainer = trainer_of(optimizer_class, tmp_path)
    trainer.extend(extensions.ExponentialShift("lr", 0.8), priority=400)
    trainer.extend(extensions.observe_lr(), trigger=(1, "iteration"))
    trainer.extend(extensions.LogReport(trigger=(1, "iteration")))
    run(trainer)
    observed = [entry["lr"] for entry in log_of(trainer)]
    assert observed == [0.01 * 0.8 ** (i + 1) for i in range(ITERATIONS)]


@parametrize_class
@pytest.mark.parametrize("make_updater", [standard_updater, parallel_updater])
def test_updater_counts_the_optimizers_epochs(optimizer_class, make_updater, tmp_path):
    """At the last iteration of each epoch."""
    trainer = trainer_of(optimizer_class, tmp_path, make_updater)
    optimizer = optimizer_of(trainer)
    assert optimizer.use_auto_new_epoch
    epochs = []
    trainer.extend(lambda trainer: epochs.append((optimizer.epoch, trainer.updater.epoch)), name="record")
    run(trainer)
    assert epochs == [(i // ITERATIONS_PER_EPOCH,) * 2 for i in range(1, ITERATIONS + 1)]


@parametrize_class
def test_new_epoch_by_hand_under_an_updater_raises_runtimeerror(optimizer_class, tmp_path):
    """Each epoch would be counted twice."""
    optimizer = optimizer_of(trainer_of(optimizer_class, tmp_path))
    with pytest.raises(RuntimeError, match="duplicated new_epoch with the updater"):
        optimizer.new_epoch()
    assert optimizer.epoch == 0


@parametrize_class
def test_new_epoch_by_an_unannounced_updater_raises_runtimeerror(optimizer_class):
    """An updater that counts epochs must have said so."""
    optimizer = optimizer_class().setup(classifier())
    with pytest.raises(RuntimeError, match="invalid new_epoch call"):
        optimizer.new_epoch(auto=True)
    assert optimizer.epoch == 0


@parametrize_class
def test_new_epoch_by_hand_counts_where_the_updater_does_not(optimizer_class, tmp_path):
    """With auto_new_epoch=False, and without any updater."""
    trainer = trainer_of(optimizer_class, tmp_path, lambda *args: standard_updater(*args, auto_new_epoch=False))
    optimizer = optimizer_of(trainer)
    run(trainer)
    assert optimizer.epoch == 0
    optimizer.new_epoch()
    optimizer.new_epoch()
    assert optimizer.epoch == 2


class SteadyGradient(chainer.Link):
    """A loss whose gradient is always the same, of about 10."""

    def __init__(self):
        """Draws the gradient from a generator of its own."""
        super().__init__()
        self.gradient = numpy.random.RandomState(0).uniform(5, 10, 4096).astype(numpy.float32)
        with self.init_scope():
            self.p = chainer.Parameter(numpy.zeros(4096, numpy.float32))

    def forward(self, batch):
        """The loss, whatever the batch."""
        return functions.sum(self.p * self.gradient)


def trainer_on_a_steady_gradient(optimizer_class, out):
    optimizer = optimizer_class().setup(SteadyGradient())
    updater = StandardUpdater(SerialIterator(numpy.zeros((1, 1), numpy.float32), 1), optimizer)
    trainer = Trainer(updater, (300, "iteration"), str(out))
    trainer.extend(extensions.FailOnNonNumber())
    return trainer


def run_into_non_number(trainer):
    """Runs a trainer until FailOnNonNumber stops it.

    In a thread, whose end ends what Chainer 7.0 leaves behind when a trainer fails: its reporter, as that of
    everything that runs in the thread from then on.
    """

    def run_silently():
        with numpy.errstate(invalid="ignore"):
            run(trainer)

    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="parameters in optimizer 'main' diverge"):
        thread.submit(run_silently).result()


def test_failonnonnumber_passes_a_steady_gradient(tmp_path):
    """Rounding makes n - g^2 negative here; it is taken as zero, so no parameter turns NaN."""
    trainer = trainer_on_a_steady_gradient(RMSpropGraves, tmp_path)
    run(trainer)
    assert trainer.updater.iteration == 300
    assert all(numpy.isfinite(array).all() for array in arrays_of(optimizer_of(trainer)).values())


def test_failonnonnumber_stops_chainers_class_on_a_steady_gradient(tmp_path):
    """Which shows that the test above is of such a case."""
    trainer = trainer_on_a_steady_gradient(ChainerRMSpropGraves, tmp_path)
    run_into_non_number(trainer)
    assert 200 < trainer.updater.iteration < 300


def test_failonnonnumber_stops_an_infinite_gradient(tmp_path):
    """What is not a number in the data is not hidden from those who look for it."""
    trainer = trainer_of(RMSpropGraves, tmp_path)
    trainer.extend(extensions.FailOnNonNumber())

    def spoil(optimizer):
        if optimizer.t == 3:
            next(optimizer.target.params()).grad[...] = numpy.inf

    optimizer_of(trainer).add_hook(spoil)
    run_into_non_number(trainer)
    assert trainer.updater.iteration == 4


def test_class_is_found_by_the_name_in_a_configuration():
    """Programs look it up as an attribute or by a dotted path, and give it keywords or floats in order."""
    config = {"target": "rmsprop_graves.RMSpropGraves", "lr": 2.5e-4, "alpha": 0.9, "momentum": 0.0, "eps": 1e-2}
    module, name = config.pop("target").rsplit(".", 1)
    optimizer_class = getattr(importlib.import_module(module), name)
    assert optimizer_class is RMSpropGraves
    optimizer = optimizer_class(**config)
    assert {key: getattr(optimizer, key) for key in config} == config
    in_order = optimizer_class(*config.values())
    assert {key: getattr(in_order, key) for key in config} == config
    assert name in dir(rmsprop_graves)


def test_class_calls_itself_as_chainers_does():
    """Programs choose by the name, in any case, and show the first sentence of the docstring to their users."""
    assert RMSpropGraves.__name__ == RMSpropGraves.__qualname__ == ChainerRMSpropGraves.__name__ == "RMSpropGraves"
    by_lower_name = {name.lower(): getattr(rmsprop_graves, name) for name in rmsprop_graves.__all__}
    assert by_lower_name["rmspropgraves"] is RMSpropGraves
    sentence = RMSpropGraves.__doc__.split(".")[0]
    assert sentence.startswith("Alex Graves's RMSprop")
    assert len(sentence.split()) > 4
    assert sentence == sentence.strip()
    assert "\n" not in sentence


def batches(count):
    data = dataset()
    return [chainer.dataset.concat_examples(data[8 * i : 8 * (i + 1)]) for i in range(count)]


def update_on(optimizer, some_batches):
    for batch in some_batches:
        optimizer.update(optimizer.target, *batch)
    return optimizer


def optimizer_after(optimizer_class, steps, seed=0):
    return update_on(optimizer_class(lr=1e-2).setup(classifier(seed)), batches(5)[:steps])


COPIES = {
    "deepcopy": copy.deepcopy,
    "oldest pickle": lambda found: pickle.loads(pickle.dumps(found, 2)),
    "newest pickle": lambda found: pickle.loads(pickle.dumps(found, pickle.HIGHEST_PROTOCOL)),
}
parametrize_copies = pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES.keys())


@parametrize_copies
@pytest.mark.parametrize("steps", [0, 2], ids=["before training", "in mid-training"])
def test_copy_of_an_optimizer_trains_on_as_the_original(make_copy, steps):
    """Copied together with its model and hooks: the same bits from there on, and nothing shared."""
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
    """The copy's rules follow the copy, the original's the original."""
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
    """By itself, with its t and its own hyperparameters, and with arrays of its own."""
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
def test_copy_of_an_optimizer_that_is_not_set_up_can_be(make_copy):
    """A program may keep one as a template."""
    template = RMSpropGraves(lr=1e-2)
    copied = make_copy(template).setup(classifier())
    assert template.target is None
    update_on(copied, batches(5))
    assert_same_bits(arrays_of(copied), arrays_of(optimizer_after(ChainerRMSpropGraves, 5)))


@parametrize_copies
@pytest.mark.parametrize("found", [RMSpropGraves, RMSpropGravesRule])
def test_copy_of_a_class_is_the_class(make_copy, found):
    """Pickled by its name."""
    assert make_copy(found) is found


def test_pickle_is_loaded_by_a_program_that_has_imported_nothing(tmp_path):
    """The class's own module comes first in the pickle, and makes Chainer importable for the rest."""
    optimizer = optimizer_after(RMSpropGraves, 2)
    (tmp_path / "optimizer.pickle").write_bytes(pickle.dumps((optimizer, batches(5)[2:])))
    program = """
import pickle

with open("optimizer.pickle", "rb") as file:
    optimizer, batches = pickle.load(file)
for batch in batches:
    optimizer.update(optimizer.target, *batch)
with open("trained.pickle", "wb") as file:
    pickle.dump(optimizer, file)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    trained = pickle.loads((tmp_path / "trained.pickle").read_bytes())
    assert trained.t == 5
    assert_same_bits(arrays_of(trained), arrays_of(optimizer_after(ChainerRMSpropGraves, 5)))


@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
@pytest.mark.parametrize("steps_before_loading", [0, 3], ids=["into a new one", "into a trained one"])
@pytest.mark.parametrize(
    ("saved_class", "loaded_class"),
    [
        pytest.param(RMSpropGraves, RMSpropGraves, id="ours by ours"),
        pytest.param(ChainerRMSpropGraves, RMSpropGraves, id="Chainer's by ours"),
        pytest.param(RMSpropGraves, ChainerRMSpropGraves, id="ours by Chainer's"),
    ],
)
def test_optimizer_saved_in_mid_training_goes_on_as_if_never_saved(
    saved_class, loaded_class, steps_before_loading, save, load, tmp_path
):
    """Model and optimizer in a file each, loaded into objects of other weights: t, epoch and every bit."""
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
