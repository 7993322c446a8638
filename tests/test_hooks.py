"""Hooks of the optimizer and of its rules, held to what Chainer's class does with them, bit for bit."""

from __future__ import annotations

import functools
import re

import chainer
import numpy
import pytest
from chainer import functions, links
from chainer.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
    WeightDecay,
)
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import Arrays, arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves

STEPS = 10
PARAMS = ["/l1/W", "/l1/b", "/l2/W", "/l2/b"]
NOT_SET_UP = re.escape("Optimizer is not set up. Call `setup` method.")


class Perceptron(chainer.Chain):
    """A classifier of two layers with biases, whose weights are always the same."""

    def __init__(self):
        """Draws the weights from a generator of its own."""
        super().__init__()
        random = numpy.random.RandomState(0)
        with self.init_scope():
            self.l1 = links.Linear(4, 6, initialW=random.randn(6, 4), initial_bias=random.randn(6))
            self.l2 = links.Linear(6, 3, initialW=random.randn(3, 6), initial_bias=random.randn(3))

    def forward(self, x, t):
        """The loss of a batch."""
        return functions.softmax_cross_entropy(self.l2(functions.tanh(self.l1(x))), t)


def batches(count=STEPS):
    random = numpy.random.RandomState(1)
    return [(random.randn(5, 4).astype(numpy.float32), random.randint(3, size=5)) for _ in range(count)]


def copies_of(optimizer):
    """Copies of every parameter, state and gradient."""
    arrays = arrays_of(optimizer)
    arrays.update((f"{path}/grad", param.grad) for path, param in optimizer.target.namedparams())
    return {name: array.copy() for name, array in arrays.items()}


def train(optimizer_class, prepare):
    """Trains a model on an optimizer that `prepare` has added hooks to: its arrays after each step."""
    # What GradientNoise draws from.
    numpy.random.seed(0)
    optimizer = optimizer_class(lr=1e-2).setup(Perceptron())
    prepare(optimizer)
    history = []
    for x, t in batches():
        optimizer.update(optimizer.target, x, t)
        history.append(copies_of(optimizer))
    return history


def train_as_chainer(prepare):
    """Trains and asserts that Chainer's class has the same bits after each step: the arrays after each."""
    ours = train(RMSpropGraves, prepare)
    chainers = train(ChainerRMSpropGraves, prepare)
    for actual, expected in zip(ours, chainers):
        assert_same_bits(actual, expected)
    return ours


@functools.lru_cache(maxsize=None)
def train_without_hooks():
    return train(RMSpropGraves, lambda optimizer: None)


def differing(history, other):
    """Names of the arrays that differ after some step."""
    return {name for arrays, others in zip(history, other) for name in arrays if (arrays[name] != others[name]).any()}


def rules_of(optimizer):
    return [param.update_rule for param in optimizer.target.params()]


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
    """Each built-in hook changes every parameter's training, and exactly as it does Chainer's."""
    trained = train_as_chainer(lambda optimizer: optimizer.add_hook(make_hook(), timing=timing))
    changed = differing(trained, train_without_hooks())
    assert changed.issuperset(PARAMS)
    assert changed.issuperset(f"{path}/grad" for path in PARAMS)


@parametrize_hooks
def test_builtin_hook_after_the_update_changes_gradients_alone(make_hook):
    """A hook of timing 'post' finds the step done: it changes the gradients, which the next update clears."""
    trained = train_as_chainer(lambda optimizer: optimizer.add_hook(make_hook(), timing="post"))
    assert differing(trained, train_without_hooks()) == {f"{path}/grad" for path in PARAMS}


def test_builtin_hook_after_the_update_reaches_the_next_through_gradients_that_stay():
    """Without a loss function no gradient is cleared, so what a 'post' hook added is used by the next update."""

    def train_on_one_gradient(optimizer_class, *hooks):
        optimizer = optimizer_class().setup(Arrays(numpy.array([1, -2], numpy.float32)))
        for hook in hooks:
            optimizer.add_hook(hook, timing="post")
        optimizer.target.set_grads(numpy.array([0.5, 0.25], numpy.float32))
        history = []
        for _ in range(STEPS):
            optimizer.update()
            history.append(copies_of(optimizer))
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
    """A hook that takes a rule and a parameter may be added to the rules themselves, at any timing."""

    def prepare(optimizer):
        for rule in rules_of(optimizer):
            rule.add_hook(make_hook(), timing=timing)

    changed = differing(train_as_chainer(prepare), train_without_hooks())
    assert changed.issuperset(f"{path}/grad" for path in PARAMS)
    # As with the optimizer's: after the update it is too late to change a parameter.
    assert changed.isdisjoint(PARAMS) if timing == "post" else changed.issuperset(PARAMS)


@parametrize_hooks_of_each_param
@pytest.mark.parametrize("timing", ["pre", "post", "auto"])
def test_builtin_hook_on_one_rule_trains_as_on_chainers_class(make_hook, timing):
    """A hook on one parameter's rule is called for that one alone, and the others are stepped as ever."""
    trained = train_as_chainer(
        lambda optimizer: optimizer.target.l1.W.update_rule.add_hook(make_hook(), timing=timing)
    )
    first_step = differing(trained[:1], train_without_hooks()[:1])
    assert "/l1/W/grad" in first_step
    assert all(name.startswith("/l1/W") for name in first_step)


@pytest.mark.parametrize("name", ["WeightDecay", "Lasso", "GradientHardClipping", "GradientLARS"])
def test_hook_for_each_param_is_the_same_on_the_optimizer_and_on_every_rule(name):
    """Unless it reads rule.t, as GradientNoise does: a rule's hook finds the step counted already."""

    def on_rules(optimizer):
        for rule in rules_of(optimizer):
            rule.add_hook(HOOKS[name]())

    on_optimizer = train(RMSpropGraves, lambda optimizer: optimizer.add_hook(HOOKS[name]()))
    for actual, expected in zip(train(RMSpropGraves, on_rules), on_optimizer):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize(
    "timings",
    [["pre"] * 6, ["post"] * 6, ["auto"] * 6, ["pre", "post"] * 3],
    ids=["pre", "post", "auto", "pre and post"],
)
@pytest.mark.parametrize("order", [SIX, SIX[::-1]], ids=["one order", "the reverse"])
def test_six_builtin_hooks_together_train_as_on_chainers_class(order, timings):
    """All built-in hooks on one optimizer, in two orders of registration."""

    def prepare(optimizer):
        for name, timing in zip(order, timings):
            optimizer.add_hook(HOOKS[name](), timing=timing)

    trained = train_as_chainer(prepare)
    assert differing(trained, train_without_hooks()).issuperset(f"{path}/grad" for path in PARAMS)


def test_order_of_registration_of_builtin_hooks_matters():
    """The two orders of the test above are two different trainings."""

    def prepare(order, optimizer):
        for name in order:
            optimizer.add_hook(HOOKS[name]())

    one = train(RMSpropGraves, functools.partial(prepare, SIX))
    reverse = train(RMSpropGraves, functools.partial(prepare, SIX[::-1]))
    assert differing(one, reverse).issuperset(PARAMS)


def test_builtin_hooks_on_the_optimizer_and_on_rules_train_as_on_chainers_class():
    """Hooks of both kinds at once: two on the optimizer, one on every rule and another on one rule."""

    def prepare(optimizer):
        optimizer.add_hook(GradientClipping(0.1))
        optimizer.add_hook(WeightDecay(0.01))
        for rule in rules_of(optimizer):
            rule.add_hook(GradientNoise(0.3))
        optimizer.target.l2.b.update_rule.add_hook(Lasso(0.01), timing="post")

    assert differing(train_as_chainer(prepare), train_without_hooks()).issuperset(PARAMS)


class Recorder:
    """A hook that records its name and the names of the parameters that it is called with."""

    def __init__(self, name, calls, **attributes):
        """Takes a list to append to, and attributes such as call_for_each_param and timing."""
        self.name = name
        self.calls = calls
        vars(self).update(attributes)

    def __call__(self, *args):
        """Records a call."""
        self.calls.append((self.name, *(arg.name for arg in args if isinstance(arg, chainer.Parameter))))


def test_hooks_of_the_optimizer_are_called_in_order_of_registration():
    """At each timing by itself, however registrations of the two timings alternate."""
    optimizer = RMSpropGraves().setup(Perceptron())
    calls = []
    for name, timing in [("d", "post"), ("b", "pre"), ("a", "auto"), ("e", "post"), ("c", "pre")]:
        optimizer.add_hook(Recorder(name, calls), timing=timing)
    optimizer.call_hooks()
    assert calls == [("b",), ("a",), ("c",)]
    del calls[:]
    optimizer.call_hooks("post")
    assert calls == [("d",), ("e",)]
    del calls[:]
    optimizer.update(optimizer.target, *batches(1)[0])
    assert calls == [("b",), ("a",), ("c",), ("d",), ("e",)]


def test_hooks_of_a_rule_are_called_in_order_of_registration():
    """Before the optimizer's at 'post' and after them at 'pre', as the rule's update lies between these."""
    optimizer = RMSpropGraves().setup(Perceptron())
    calls = []
    rule = optimizer.target.l1.b.update_rule
    for name, timing in [("d", "post"), ("b", "pre"), ("a", "auto"), ("e", "post")]:
        rule.add_hook(Recorder(name, calls), timing=timing)
        optimizer.add_hook(Recorder(f"optimizer's {name}", calls), timing=timing)
    optimizer.update(optimizer.target, *batches(1)[0])
    assert calls == [
        ("optimizer's b",),
        ("optimizer's a",),
        ("b", "b"),
        ("a", "b"),
        ("d", "b"),
        ("e", "b"),
        ("optimizer's d",),
        ("optimizer's e",),
    ]


def test_hook_takes_its_timing_from_its_attribute():
    """With timing 'auto', the default, and 'pre' where there is no attribute."""
    optimizer = RMSpropGraves().setup(Perceptron())
    calls = []
    for add_hook in (optimizer.add_hook, optimizer.target.l1.b.update_rule.add_hook):
        add_hook(Recorder("late", calls, timing="post"))
        add_hook(Recorder("early", calls, timing="pre"))
        add_hook(Recorder("unsaid", calls))
        add_hook(Recorder("told", calls, timing="post"), timing="pre")
    optimizer.update(optimizer.target, *batches(1)[0])
    rules = [("early", "b"), ("unsaid", "b"), ("told", "b"), ("late", "b")]
    assert calls == [("early",), ("unsaid",), ("told",), *rules, ("late",)]


def test_hook_with_an_unknown_timing_attribute_is_called_before_the_update():
    """The optimizer warns of such an attribute and goes on."""
    optimizer = RMSpropGraves().setup(Perceptron())
    calls = []
    with pytest.warns(UserWarning, match=r"defaulting timing to 'pre'\."):
        optimizer.add_hook(Recorder("sometimes", calls, timing="sometimes"))
    optimizer.call_hooks("post")
    assert calls == []
    optimizer.call_hooks("pre")
    assert calls == [("sometimes",)]


def test_hook_for_each_param_is_called_with_each_rule_and_parameter_in_order():
    """That of target.params(), before the next hook is called; a disabled rule's parameter too."""
    optimizer = RMSpropGraves().setup(Perceptron())
    optimizer.target.l2.disable_update()
    calls = []

    def record(rule, param):
        assert rule is param.update_rule
        calls.append(param)

    record.call_for_each_param = True
    optimizer.add_hook(record)
    optimizer.add_hook(calls.append, name="the whole optimizer")
    optimizer.update(optimizer.target, *batches(1)[0])
    model = optimizer.target
    expected = [model.l1.W, model.l1.b, model.l2.W, model.l2.b, optimizer]
    assert [id(call) for call in calls] == [id(call) for call in expected]


def test_hook_of_a_disabled_rule_is_not_called():
    """Nor is its parameter stepped; enabled again, both are."""
    optimizer = RMSpropGraves().setup(Perceptron())
    bias = optimizer.target.l1.b
    before = bias.array.copy()
    calls = []
    bias.update_rule.add_hook(Recorder("hook", calls))
    bias.update_rule.enabled = False
    optimizer.update(optimizer.target, *batches(1)[0])
    assert calls == []
    numpy.testing.assert_array_equal(bias.array, before)
    bias.update_rule.enabled = True
    optimizer.update(optimizer.target, *batches(1)[0])
    assert calls == [("hook", "b")]
    assert (bias.array != before).all()


def test_hook_of_the_optimizer_sees_the_model_just_before_or_just_after_the_step():
    """At 'pre', t, the parameters and the states are still those of the last step; at 'post' they are new."""

    def record(optimizer_class):
        seen = []

        def prepare(optimizer):
            for timing in ("pre", "post"):
                # The name tells the two apart.
                optimizer.add_hook(lambda optimizer: seen.append((optimizer.t, copies_of(optimizer))), timing, timing)

        return seen, train(optimizer_class, prepare)

    seen, history = record(RMSpropGraves)
    expected, _ = record(ChainerRMSpropGraves)
    assert [t for t, _ in seen] == [t for t, _ in expected] == [t for i in range(STEPS) for t in (i, i + 1)]
    for (_, actual), (_, arrays) in zip(seen, expected):
        assert_same_bits(actual, arrays)
    for i, arrays in enumerate(history):
        assert_same_bits(seen[2 * i + 1][1], arrays)
    # Before a step, everything is as the last step left it, but for the gradients.
    for i, arrays in enumerate(history[:-1]):
        without_gradients = {name: array for name, array in arrays.items() if not name.endswith("grad")}
        assert_same_bits({name: seen[2 * i + 2][1][name] for name in without_gradients}, without_gradients)
    assert "/l1/W/n" not in seen[0][1]
    assert "/l1/W/n" in seen[1][1]


def test_hook_of_a_rule_sees_its_parameter_just_before_or_just_after_the_step():
    """At both timings rule.t counts the step already; the state is there, of zeros before the first step."""

    def record(optimizer_class):
        seen = []

        def look(timing, rule, param):
            arrays = {"param": param.array, "grad": param.grad, **rule.state}
            seen.append((timing, rule.t, {name: array.copy() for name, array in arrays.items()}))

        def prepare(optimizer):
            for timing in ("pre", "post"):
                optimizer.target.l1.W.update_rule.add_hook(functools.partial(look, timing), timing, timing)

        return seen, train(optimizer_class, prepare)

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


def test_hook_removed_by_name_is_not_called_again():
    """Of either timing, on the optimizer and on a rule; the other hooks stay, and the name is free again."""
    optimizer = RMSpropGraves().setup(Perceptron())
    for hookable in (optimizer, optimizer.target.l1.b.update_rule):
        calls = []
        for name, timing in [("a", "pre"), ("b", "pre"), ("c", "post"), ("d", "post")]:
            hookable.add_hook(Recorder(name, calls), timing=timing)
        hookable.remove_hook("a")
        hookable.remove_hook("d")
        optimizer.update(optimizer.target, *batches(1)[0])
        assert [name for name, *_ in calls] == ["b", "c"]
        hookable.add_hook(Recorder("a", calls))
        del calls[:]
        optimizer.update(optimizer.target, *batches(1)[0])
        assert [name for name, *_ in calls] == ["b", "a", "c"]


@pytest.mark.parametrize("of_rule", [False, True], ids=["optimizer", "rule"])
def test_builtin_hook_added_and_removed_in_mid_training_trains_as_on_chainers_class(of_rule):
    """Training goes on from what the hook left, with no trace of the hook itself."""

    def train_in_parts(optimizer_class, hook):
        optimizer = optimizer_class(lr=1e-2).setup(Perceptron())
        hookable = optimizer.target.l1.W.update_rule if of_rule else optimizer
        history = []
        for step, batch in enumerate(batches()):
            if step == 3:
                hookable.add_hook(hook)
            if step == 6:
                hookable.remove_hook("WeightDecay")
            optimizer.update(optimizer.target, *batch)
            history.append(copies_of(optimizer))
        return history

    ours = train_in_parts(RMSpropGraves, WeightDecay(0.1))
    for actual, expected in zip(ours, train_in_parts(ChainerRMSpropGraves, WeightDecay(0.1))):
        assert_same_bits(actual, expected)
    plain = train_without_hooks()
    assert not differing(ours[:3], plain[:3])
    assert "/l1/W" in differing(ours[3:4], plain[3:4])
    always = train(RMSpropGraves, lambda optimizer: optimizer.add_hook(WeightDecay(0.1)))
    assert "/l1/W" in differing(ours[6:], always[6:])


def hookable_optimizer():
    return RMSpropGraves().setup(Perceptron())


def hookable_rule():
    return hookable_optimizer().target.l1.W.update_rule


parametrize_hookables = pytest.mark.parametrize(
    "make_hookable", [hookable_optimizer, hookable_rule], ids=["optimizer", "rule"]
)


@parametrize_hookables
@pytest.mark.parametrize("timing", ["pre", "post"])
def test_name_is_taken_once(make_hookable, timing):
    """A second hook of a name is refused, be it at the other timing, and the first one stays."""
    hookable = make_hookable()
    hookable.add_hook(WeightDecay(0.1), timing="pre")
    with pytest.raises(KeyError, match='hook "WeightDecay" already exists'):
        hookable.add_hook(WeightDecay(0.1), timing=timing)
    with pytest.raises(KeyError, match='hook "WeightDecay" already exists'):
        hookable.add_hook(Lasso(0.1), "WeightDecay", timing)
    hookable.add_hook(WeightDecay(0.1), "another name", timing)
    hookable.remove_hook("WeightDecay")
    hookable.remove_hook("another name")


@parametrize_hookables
def test_name_of_a_function_is_its_own(make_hookable):
    """Where the hook has no attribute `name` and none is given."""

    def own_hook(*args):
        pass

    hookable = make_hookable()
    hookable.add_hook(own_hook)
    hookable.remove_hook("own_hook")
    with pytest.raises(KeyError, match="own_hook"):
        hookable.remove_hook("own_hook")


@parametrize_hookables
def test_removing_an_unknown_hook_raises_keyerror(make_hookable):
    """The error names what was asked for."""
    hookable = make_hookable()
    hookable.add_hook(WeightDecay(0.1))
    with pytest.raises(KeyError, match="Lasso"):
        hookable.remove_hook("Lasso")


@parametrize_hookables
@pytest.mark.parametrize(
    ("hook", "arguments", "error", "message"),
    [
        pytest.param("WeightDecay", {}, TypeError, "hook function must be callable", id="not callable"),
        pytest.param(None, {"name": "none"}, TypeError, "hook function must be callable", id="None"),
        pytest.param(
            functools.partial(print), {}, ValueError, "the name of the hook function is not specified", id="no name"
        ),
        pytest.param(print, {"timing": "during"}, ValueError, "timing must be one of", id="unknown timing"),
        pytest.param(print, {"timing": None}, ValueError, "timing must be one of", id="timing None"),
    ],
)
def test_hook_that_cannot_be_added_is_refused(make_hookable, hook, arguments, error, message):
    """As Chainer refuses it, with its words."""
    with pytest.raises(error, match=message):
        make_hookable().add_hook(hook, **arguments)


def test_call_hooks_refuses_an_unknown_timing():
    """Which is 'pre' or 'post': 'auto' is for registration alone."""
    with pytest.raises(ValueError, match="timing must be either 'pre' or 'post'"):
        hookable_optimizer().call_hooks("auto")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda optimizer: optimizer.add_hook(WeightDecay(0.1)), id="add_hook"),
        pytest.param(lambda optimizer: optimizer.remove_hook("WeightDecay"), id="remove_hook"),
        pytest.param(lambda optimizer: optimizer.call_hooks(), id="call_hooks"),
        pytest.param(lambda optimizer: optimizer.call_hooks("post"), id="call_hooks post"),
    ],
)
@pytest.mark.parametrize("optimizer_class", [RMSpropGraves, ChainerRMSpropGraves], ids=["ours", "Chainer's"])
def test_hooks_before_setup_raise_runtimeerror(optimizer_class, call):
    """With Chainer's message, which programs are known to show and to test for."""
    with pytest.raises(RuntimeError, match=f"^{NOT_SET_UP}$"):
        call(optimizer_class())


def test_setup_again_forgets_the_hooks():
    """A second setup makes new rules and a new registry; t starts over."""
    optimizer = hookable_optimizer()
    calls = []
    optimizer.add_hook(Recorder("optimizer's", calls))
    optimizer.target.l1.W.update_rule.add_hook(Recorder("rule's", calls))
    optimizer.update(optimizer.target, *batches(1)[0])
    assert calls == [("optimizer's",), ("rule's", "W")]
    optimizer.setup(optimizer.target)
    optimizer.update(optimizer.target, *batches(1)[0])
    assert len(calls) == 2
    assert optimizer.t == 1
    with pytest.raises(KeyError):
        optimizer.remove_hook("optimizer's")


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
def test_what_a_hook_changes_before_the_update_holds_for_that_update(change):
    """Whatever a hook does to the model from the fourth step on, that very step goes by it."""

    def change_later(optimizer):
        if optimizer.t >= 3:
            change(optimizer)

    trained = train_as_chainer(lambda optimizer: optimizer.add_hook(change_later))
    plain = train_without_hooks()
    assert not differing(trained[:3], plain[:3])
    assert "/l1/W" in differing(trained[3:5], plain[3:5])


def test_exception_in_a_hook_leaves_the_step_undone():
    """Before the update neither t nor a parameter has moved; the next update is the one that was missed."""

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
    assert_same_bits(copies_of(optimizer), plain[0])


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_gradient_cleared_by_a_hook_is_of_zeros_to_the_next(timing):
    """A cleared gradient is made anew before the next hook and before the step, which decays its state."""
    seen = []

    def clear(optimizer):
        optimizer.target.l1.b.cleargrad()

    def prepare(optimizer):
        optimizer.add_hook(clear, timing=timing)
        optimizer.add_hook(lambda optimizer: seen.append(optimizer.target.l1.b.grad), "look", timing)

    trained = train_as_chainer(prepare)
    assert len(seen) == 2 * STEPS
    for grad in seen:
        assert grad.shape == (6,)
        assert not grad.any()
    if timing == "pre":
        # Nothing but zeros has reached it.
        numpy.testing.assert_array_equal(trained[-1]["/l1/b"], Perceptron().l1.b.array)
        assert not trained[-1]["/l1/b/n"].any()
    else:
        assert differing(trained, train_without_hooks()) == {"/l1/b/grad"}


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_gradient_cleared_by_a_rules_hook_is_of_zeros_afterwards(timing):
    """A rule without a gradient counts the step and does nothing more, be it to delta; the others are stepped."""

    def clear(rule, param):
        if rule.t > 3:
            param.cleargrad()

    trained = train_as_chainer(lambda optimizer: optimizer.target.l1.b.update_rule.add_hook(clear, timing=timing))
    for arrays in trained[3:]:
        assert not arrays["/l1/b/grad"].any()
    if timing == "pre":
        for name in ("/l1/b", "/l1/b/n", "/l1/b/g", "/l1/b/delta"):
            numpy.testing.assert_array_equal(trained[-1][name], trained[2][name])
        assert trained[2]["/l1/b/delta"].any()
    else:
        assert differing(trained, train_without_hooks()) == {"/l1/b/grad"}


def recording(optimizer_class, calls):
    """A subclass that records each call of reallocate_cleared_grads."""

    class Recording(optimizer_class):
        def reallocate_cleared_grads(self):
            calls.append(("reallocate",))
            super().reallocate_cleared_grads()

    return Recording


@pytest.mark.parametrize("optimizer_class", [RMSpropGraves, ChainerRMSpropGraves], ids=["ours", "Chainer's"])
def test_cleared_gradients_are_reallocated_around_every_hook_and_update(optimizer_class):
    """The method is a documented one to override, so a subclass's own is called at the same moments."""
    calls = []
    optimizer = recording(optimizer_class, calls)().setup(Perceptron())
    for name, timing in [("a", "pre"), ("b", "pre"), ("c", "post")]:
        optimizer.add_hook(Recorder(name, calls), timing=timing)
    optimizer.target.l1.W.update_rule.add_hook(Recorder("step", calls))
    optimizer.update(optimizer.target, *batches(1)[0])
    again = ("reallocate",)
    assert calls == [again, ("a",), again, ("b",), again, ("step", "W"), again, ("c",), again]


def test_gradient_may_stay_none_where_reallocation_is_overridden():
    """A parameter without a gradient is then left alone, while its rule counts the update."""

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
    """Its gradient, which backward never set, is of zeros to them: weight decay still shrinks it."""

    def prepare(optimizer):
        with optimizer.target.init_scope():
            optimizer.target.spare = chainer.Parameter(numpy.ones(3, numpy.float32))
        optimizer.target.spare.update_rule = optimizer.create_update_rule()
        optimizer.add_hook(WeightDecay(0.1))

    trained = train_as_chainer(prepare)
    assert (trained[-1]["/spare"] < 1).all()
