"""Training with Chainer's own hooks is bit-identical to training with them on Chainer's class."""

from __future__ import annotations

import functools
import tracemalloc

import numpy
import pytest
from chainer.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
    WeightDecay,
)
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from hooked import (
    PARAMS,
    STEPS,
    copies_with_gradients,
    differing,
    rules_of,
    train_as_chainers,
    train_with,
    train_without_hooks,
)
from models import Arrays, assert_same_bits

from rmsprop_graves import RMSpropGraves


def noise_that_falls(xp, shape, dtype, hook, rule):
    return xp.full(shape, hook.eta / (1 + rule.t), dtype)


# Each is strong enough here to change every gradient at the first step.
EACH_PARAM = {
    "WeightDecay": functools.partial(WeightDecay, 0.1),
    "Lasso": functools.partial(Lasso, 0.01),
    "GradientNoise": functools.partial(GradientNoise, 0.3),
    "GradientNoise with a noise_func": functools.partial(GradientNoise, 0.3, noise_that_falls),
    "GradientHardClipping": functools.partial(GradientHardClipping, -0.01, 0.01),
    "GradientLARS": functools.partial(GradientLARS, weight_decay=0.01),
}
HOOKS = {**EACH_PARAM, "GradientClipping": functools.partial(GradientClipping, 0.1)}
SIX = [name for name in HOOKS if name != "GradientNoise with a noise_func"]

parametrize_hooks = pytest.mark.parametrize("make_hook", HOOKS.values(), ids=HOOKS.keys())
parametrize_hooks_of_each_param = pytest.mark.parametrize("make_hook", EACH_PARAM.values(), ids=EACH_PARAM.keys())


@parametrize_hooks
@pytest.mark.parametrize("timing", ["pre", "auto"])
def test_builtin_hook_before_the_update_trains_as_on_chainers_class(make_hook, timing):
    """Each hook changes the training of every parameter."""
    trained = train_as_chainers(lambda optimizer: optimizer.add_hook(make_hook(), timing=timing))
    changed = differing(trained, train_without_hooks())
    assert changed.issuperset(PARAMS)
    assert changed.issuperset(f"{path}/grad" for path in PARAMS)


@parametrize_hooks
def test_builtin_hook_after_the_update_changes_only_gradients(make_hook):
    """At 'post' the step is done, and the next update clears the gradients."""
    trained = train_as_chainers(lambda optimizer: optimizer.add_hook(make_hook(), timing="post"))
    assert differing(trained, train_without_hooks()) == {f"{path}/grad" for path in PARAMS}


def test_builtin_hook_after_the_update_reaches_the_next_one_if_gradients_stay():
    """Without a loss function nothing clears the gradients, so the next update uses those that the hook changed."""

    def train_on_one_gradient(optimizer_class, *hooks):
        optimizer = optimizer_class().setup(Arrays(numpy.array([1, -2], numpy.float32)))
        for hook in hooks:
            optimizer.add_hook(hook, timing="post")
        optimizer.target.set_grads(numpy.array([0.5, 0.25], numpy.float32))
        history = []
        for _ in range(STEPS):
            optimizer.update()
            history.append(copies_with_gradients(optimizer))
        return history

    ours = train_on_one_gradient(RMSpropGraves, WeightDecay(0.1))
    for actual, expected in zip(ours, train_on_one_gradient(ChainerRMSpropGraves, WeightDecay(0.1))):
        assert_same_bits(actual, expected)
    plain = train_on_one_gradient(RMSpropGraves)
    assert differing(ours[:1], plain[:1]) == {"/p0/grad"}
    assert differing(ours[1:2], plain[1:2]) == {"/p0", "/p0/n", "/p0/g", "/p0/delta", "/p0/grad"}


@parametrize_hooks_of_each_param
@pytest.mark.parametrize("timing", ["pre", "post", "auto"])
def test_builtin_hook_on_every_rule_trains_as_on_chainers_class(make_hook, timing):
    """Hooks that take a rule and a parameter can be added to rules, at any timing."""

    def add_hooks(optimizer):
        for rule in rules_of(optimizer):
            rule.add_hook(make_hook(), timing=timing)

    changed = differing(train_as_chainers(add_hooks), train_without_hooks())
    assert changed.issuperset(f"{path}/grad" for path in PARAMS)
    # After the update it is too late to change a parameter.
    assert changed.isdisjoint(PARAMS) if timing == "post" else changed.issuperset(PARAMS)


@parametrize_hooks_of_each_param
@pytest.mark.parametrize("timing", ["pre", "post", "auto"])
def test_builtin_hook_on_one_rule_trains_as_on_chainers_class(make_hook, timing):
    """It is called for its own parameter only. The first step of the others does not change."""
    trained = train_as_chainers(
        lambda optimizer: optimizer.target.l1.W.update_rule.add_hook(make_hook(), timing=timing)
    )
    first_step = differing(trained[:1], train_without_hooks()[:1])
    assert "/l1/W/grad" in first_step
    assert all(name.startswith("/l1/W") for name in first_step)


@pytest.mark.parametrize("name", ["WeightDecay", "Lasso", "GradientHardClipping", "GradientLARS"])
def test_hook_for_each_param_is_the_same_on_the_optimizer_and_on_every_rule(name):
    """GradientNoise is left out: it reads rule.t, which already counts the step when a rule's hook is called."""

    def on_rules(optimizer):
        for rule in rules_of(optimizer):
            rule.add_hook(HOOKS[name]())

    on_optimizer = train_with(RMSpropGraves, lambda optimizer: optimizer.add_hook(HOOKS[name]()))
    for actual, expected in zip(train_with(RMSpropGraves, on_rules), on_optimizer):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize(
    "timings",
    [["pre"] * 6, ["post"] * 6, ["auto"] * 6, ["pre", "post"] * 3],
    ids=["pre", "post", "auto", "pre and post"],
)
@pytest.mark.parametrize("order", [SIX, SIX[::-1]], ids=["one order", "the reverse"])
def test_six_builtin_hooks_together_train_as_on_chainers_class(order, timings):
    """All six are on one optimizer, in two orders of registration."""

    def add_hooks(optimizer):
        for name, timing in zip(order, timings):
            optimizer.add_hook(HOOKS[name](), timing=timing)

    trained = train_as_chainers(add_hooks)
    assert differing(trained, train_without_hooks()).issuperset(f"{path}/grad" for path in PARAMS)


def test_order_of_registration_of_builtin_hooks_matters():
    """The two orders of the test above give different results."""

    def add_hooks(order, optimizer):
        for name in order:
            optimizer.add_hook(HOOKS[name]())

    one = train_with(RMSpropGraves, functools.partial(add_hooks, SIX))
    reverse = train_with(RMSpropGraves, functools.partial(add_hooks, SIX[::-1]))
    assert differing(one, reverse).issuperset(PARAMS)


def test_builtin_hooks_on_the_optimizer_and_on_rules_train_as_on_chainers_class():
    """Two hooks are on the optimizer, one on every rule and another on one rule."""

    def add_hooks(optimizer):
        optimizer.add_hook(GradientClipping(0.1))
        optimizer.add_hook(WeightDecay(0.01))
        for rule in rules_of(optimizer):
            rule.add_hook(GradientNoise(0.3))
        optimizer.target.l2.b.update_rule.add_hook(Lasso(0.01), timing="post")

    assert differing(train_as_chainers(add_hooks), train_without_hooks()).issuperset(PARAMS)


@pytest.mark.parametrize("of_rule", [False, True], ids=["optimizer", "rule"])
def test_builtin_hook_added_and_removed_in_mid_training_trains_as_on_chainers_class(of_rule):
    """Training goes on from the arrays that the hook left, with no other trace of it."""

    def add_or_remove(optimizer, step):
        hookable = optimizer.target.l1.W.update_rule if of_rule else optimizer
        if step == 3:
            hookable.add_hook(WeightDecay(0.1))
        if step == 6:
            hookable.remove_hook("WeightDecay")

    ours = train_as_chainers(lambda optimizer: None, before_step=add_or_remove)
    plain = train_without_hooks()
    assert not differing(ours[:3], plain[:3])
    assert "/l1/W" in differing(ours[3:4], plain[3:4])
    always = train_with(RMSpropGraves, lambda optimizer: optimizer.add_hook(WeightDecay(0.1)))
    assert "/l1/W" in differing(ours[6:], always[6:])


@pytest.mark.parametrize("name", sorted(set(HOOKS) - {"GradientNoise", "GradientNoise with a noise_func"}))
@pytest.mark.parametrize("timing", ["pre", "post"])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda: [], id="alone"),
        pytest.param(lambda: [numpy.ones((), "f4")], id="beside a number"),
        pytest.param(lambda: [numpy.ones(3, "f2"), numpy.ones(3, "f8")], id="beside other dtypes"),
        pytest.param(lambda: [numpy.ones((6, 4), "f4")[::2]], id="beside a gradient that is not contiguous"),
    ],
)
def test_a_hook_makes_no_temporary_of_the_parameters_size(kernel, name, timing, odd):
    """Most hooks of Chainer make one. Here Chainer's code changes only the gradients of the odd parameters."""
    size = 1_000_000
    grads = [*odd(), numpy.ones(size, "f4")]
    optimizer = RMSpropGraves().setup(Arrays(*grads))
    optimizer.add_hook(HOOKS[name](), timing=timing)
    optimizer.target.set_grads(*grads)
    for _ in range(2):
        optimizer.update()
    tracemalloc.start()
    try:
        optimizer.update()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size
