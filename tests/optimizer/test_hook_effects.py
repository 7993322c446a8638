"""The model as hooks see it, and the changes that hooks may make."""

from __future__ import annotations

import functools

import chainer
import numpy
import pytest
from chainer import links
from chainer.optimizer_hooks import (
    WeightDecay,
)
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from hooked import (
    STEPS,
    Perceptron,
    batches,
    copies_with_gradients,
    differing,
    rules_of,
    train_as_chainers,
    train_with,
    train_without_hooks,
)
from models import Arrays, arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves


def test_hook_of_the_optimizer_sees_the_model_just_before_or_just_after_the_step():
    """At 'pre' it sees t, parameters and states as the last step left them, at 'post' the new ones."""

    def record(optimizer_class):
        seen = []

        def add_hooks(optimizer):
            for timing in ("pre", "post"):
                # The name tells the two apart.
                optimizer.add_hook(
                    lambda optimizer: seen.append((optimizer.t, copies_with_gradients(optimizer))), timing, timing
                )

        return seen, train_with(optimizer_class, add_hooks)

    seen, history = record(RMSpropGraves)
    expected, _ = record(ChainerRMSpropGraves)
    assert [t for t, _ in seen] == [t for t, _ in expected] == [t for i in range(STEPS) for t in (i, i + 1)]
    for (_, actual), (_, arrays) in zip(seen, expected):
        assert_same_bits(actual, arrays)
    for i, arrays in enumerate(history):
        assert_same_bits(seen[2 * i + 1][1], arrays)
    # Before a step, everything except the gradients is as the last step left it.
    for i, arrays in enumerate(history[:-1]):
        without_gradients = {name: array for name, array in arrays.items() if not name.endswith("grad")}
        assert_same_bits({name: seen[2 * i + 2][1][name] for name in without_gradients}, without_gradients)
    assert "/l1/W/n" not in seen[0][1]
    assert "/l1/W/n" in seen[1][1]


def test_hook_of_a_rule_sees_its_parameter_just_before_or_just_after_the_step():
    """At both timings rule.t already counts the step, and the states exist. Before the first step they are zeros."""

    def record(optimizer_class):
        seen = []

        def look(timing, rule, param):
            arrays = {"param": param.array, "grad": param.grad, **rule.state}
            seen.append((timing, rule.t, {name: array.copy() for name, array in arrays.items()}))

        def add_hooks(optimizer):
            for timing in ("pre", "post"):
                optimizer.target.l1.W.update_rule.add_hook(functools.partial(look, timing), timing, timing)

        return seen, train_with(optimizer_class, add_hooks)

    seen, history = record(RMSpropGraves)
    expected, _ = record(ChainerRMSpropGraves)
    assert len(seen) == len(expected) == 2 * STEPS
    for (timing, t, arrays), (other_timing, other_t, others) in zip(seen, expected):
        assert (timing, t) == (other_timing, other_t)
        assert_same_bits(arrays, others)
    assert [(timing, t) for timing, t, _ in seen] == [(s, t + 1) for t in range(STEPS) for s in ("pre", "post")]
    first = seen[0][2]
    numpy.testing.assert_array_equal(first["param"], Perceptron().l1.W.array)
    for name in ("n", "g", "delta"):
        assert not first[name].any()
    for i, arrays in enumerate(history):
        numpy.testing.assert_array_equal(seen[2 * i + 1][2]["param"], arrays["/l1/W"])
        assert (seen[2 * i][2]["param"] != seen[2 * i + 1][2]["param"]).any()


def in_every_gradient(change):
    def hook(optimizer):
        for param in optimizer.target.params():
            change(param)

    return hook


def double_in_place(param):
    param.grad *= 2


def double_anew(param):
    param.grad = param.grad * 2


def replace_array(optimizer):
    optimizer.target.l1.W.array = optimizer.target.l1.W.array * numpy.float32(0.9)


def replace_states(optimizer):
    rule = optimizer.target.l1.W.update_rule
    for name in ("n", "delta"):
        rule.state[name] = rule.state[name] * numpy.float32(1.5)


def change_state_in_place(optimizer):
    optimizer.target.l1.W.update_rule.state["g"] *= numpy.float32(0.5)


def replace_rule(optimizer):
    optimizer.target.l1.W.update_rule = optimizer.create_update_rule()


def replace_link(optimizer):
    del optimizer.target.l1
    with optimizer.target.init_scope():
        optimizer.target.l1 = links.Linear(4, 6, initialW=0.5)
    for param in optimizer.target.l1.params():
        param.update_rule = optimizer.create_update_rule()
        param.grad = numpy.full_like(param.array, 0.1)


def set_lr_of_optimizer(optimizer):
    optimizer.lr = 1e-3 * optimizer.t


def set_momentum_of_rule(optimizer):
    optimizer.target.l1.W.update_rule.hyperparam.momentum = 0.5


def disable_rule(optimizer):
    optimizer.target.l1.W.update_rule.enabled = optimizer.t % 2 == 0


def clear_gradient(optimizer):
    optimizer.target.l1.W.cleargrad()


def add_hook_to_rule(optimizer):
    if optimizer.t == 3:
        optimizer.target.l1.W.update_rule.add_hook(WeightDecay(0.1))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(in_every_gradient(double_in_place), id="doubles gradients in place"),
        pytest.param(in_every_gradient(double_anew), id="replaces gradients"),
        pytest.param(replace_array, id="replaces a parameter's array"),
        pytest.param(replace_states, id="replaces states"),
        pytest.param(change_state_in_place, id="changes a state in place"),
        pytest.param(replace_rule, id="replaces a rule"),
        pytest.param(replace_link, id="replaces a link"),
        pytest.param(set_lr_of_optimizer, id="sets the optimizer's lr"),
        pytest.param(set_momentum_of_rule, id="sets a rule's momentum"),
        pytest.param(disable_rule, id="disables a rule every other step"),
        pytest.param(clear_gradient, id="clears a gradient"),
        pytest.param(add_hook_to_rule, id="adds a hook to a rule"),
    ],
)
def test_a_change_by_a_hook_before_the_update_takes_effect_in_that_update(change):
    """The hook changes the model from the fourth step on."""

    def change_later(optimizer):
        if optimizer.t >= 3:
            change(optimizer)

    trained = train_as_chainers(lambda optimizer: optimizer.add_hook(change_later))
    plain = train_without_hooks()
    assert not differing(trained[:3], plain[:3])
    assert "/l1/W" in differing(trained[3:5], plain[3:5])


def test_exception_in_a_hook_leaves_the_step_undone():
    """Neither t nor a parameter has changed, and the next update makes the missed step."""

    def refuse(optimizer):
        raise RuntimeError("refused by a hook")

    optimizer = RMSpropGraves(lr=1e-2).setup(Perceptron())
    plain = train_without_hooks()
    x, t = batches(1)[0]
    optimizer.add_hook(refuse)
    with pytest.raises(RuntimeError, match="refused by a hook"):
        optimizer.update(optimizer.target, x, t)
    assert optimizer.t == 0
    assert [rule.t for rule in rules_of(optimizer)] == [0] * 4
    untrained = RMSpropGraves().setup(Perceptron())
    assert_same_bits(arrays_of(optimizer), arrays_of(untrained))
    optimizer.remove_hook("refuse")
    optimizer.update(optimizer.target, x, t)
    assert_same_bits(copies_with_gradients(optimizer), plain[0])


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_gradient_cleared_by_a_hook_is_zero_for_the_next_hook_and_the_step(timing):
    """A new gradient is allocated before each. A step on zeros decays the state."""
    seen = []

    def clear(optimizer):
        optimizer.target.l1.b.cleargrad()

    def add_hooks(optimizer):
        optimizer.add_hook(clear, timing=timing)
        optimizer.add_hook(lambda optimizer: seen.append(optimizer.target.l1.b.grad), "look", timing)

    trained = train_as_chainers(add_hooks)
    assert len(seen) == 2 * STEPS
    for grad in seen:
        assert grad.shape == (6,)
        assert not grad.any()
    if timing == "pre":
        # All its gradients were zero.
        numpy.testing.assert_array_equal(trained[-1]["/l1/b"], Perceptron().l1.b.array)
        assert not trained[-1]["/l1/b/n"].any()
    else:
        assert differing(trained, train_without_hooks()) == {"/l1/b/grad"}


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_gradient_cleared_by_a_rules_hook_skips_that_parameters_step(timing):
    """The rule counts the step and changes nothing, not even delta. The other parameters are stepped."""

    def clear(rule, param):
        if rule.t > 3:
            param.cleargrad()

    trained = train_as_chainers(lambda optimizer: optimizer.target.l1.b.update_rule.add_hook(clear, timing=timing))
    for arrays in trained[3:]:
        assert not arrays["/l1/b/grad"].any()
    if timing == "pre":
        for name in ("/l1/b", "/l1/b/n", "/l1/b/g", "/l1/b/delta"):
            numpy.testing.assert_array_equal(trained[-1][name], trained[2][name])
        assert trained[2]["/l1/b/delta"].any()
    else:
        assert differing(trained, train_without_hooks()) == {"/l1/b/grad"}


def test_gradient_stays_none_if_reallocation_is_overridden():
    """The parameter does not change, but its rule counts the update."""

    def train_without_reallocation(optimizer_class):
        class WithoutReallocation(optimizer_class):
            def reallocate_cleared_grads(self):
                pass

        optimizer = WithoutReallocation().setup(Arrays(*numpy.ones((2, 3), numpy.float32)))
        optimizer.add_hook(WeightDecay(0.1))
        for i in range(STEPS):
            optimizer.target.set_grads(numpy.float32([1, -2, i]), None)
            optimizer.update()
        return optimizer

    ours = train_without_reallocation(RMSpropGraves)
    chainers = train_without_reallocation(ChainerRMSpropGraves)
    assert ours.target.p1.grad is None
    assert [rule.t for rule in rules_of(ours)] == [rule.t for rule in rules_of(chainers)] == [STEPS] * 2
    assert_same_bits(arrays_of(ours), arrays_of(chainers))
    assert (ours.target.p0.array[:2] != 1).all()
    assert (ours.target.p1.array == 1).all()


def test_parameter_outside_the_loss_is_reached_by_hooks():
    """backward never sets its gradient, so hooks see zeros, and weight decay shrinks the parameter."""

    def add_hooks(optimizer):
        with optimizer.target.init_scope():
            optimizer.target.spare = chainer.Parameter(numpy.ones(3, numpy.float32))
        optimizer.target.spare.update_rule = optimizer.create_update_rule()
        optimizer.add_hook(WeightDecay(0.1))

    trained = train_as_chainers(add_hooks)
    assert (trained[-1]["/spare"] < 1).all()
