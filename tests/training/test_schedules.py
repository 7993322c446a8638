"""Chainer's schedules of hyperparameters, compared with their formulas and with Chainer's class."""

from __future__ import annotations

import pytest
from both_classes import parametrize_class
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.training import extensions
from trainers import (
    ITERATIONS,
    assert_same_history,
    log_of,
    optimizer_of,
    record_arrays,
    run,
    trainer_of,
)

from rmsprop_graves import RMSpropGraves

# By name: the extension, the attribute, and the value that it must have in iteration i, counted from 0.
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
def test_schedule_sets_the_value_of_each_iteration(schedule, tmp_path):
    """The values follow the schedule's formula. Values, parameters and states are the same on Chainer's class."""
    make_shift, attribute, formula = schedule

    def run_with(optimizer_class):
        trainer = trainer_of(optimizer_class, tmp_path)
        trainer.extend(make_shift())
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


def test_a_schedule_changes_only_rules_without_their_own_value(tmp_path):
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
    """observe_lr runs at the end of an iteration, after the schedule has set the next value."""
    trainer = trainer_of(optimizer_class, tmp_path)
    trainer.extend(extensions.ExponentialShift("lr", 0.8), priority=400)
    trainer.extend(extensions.observe_lr(), trigger=(1, "iteration"))
    trainer.extend(extensions.LogReport(trigger=(1, "iteration")))
    run(trainer)
    observed = [entry["lr"] for entry in log_of(trainer)]
    assert observed == [0.01 * 0.8 ** (i + 1) for i in range(ITERATIONS)]
