"""When hooks are called, in which order, with which arguments, and the names under which they are registered."""

from __future__ import annotations

import functools

import chainer
import numpy
import pytest
from both_classes import parametrize_class
from chainer.optimizer_hooks import (
    Lasso,
    WeightDecay,
)
from hooked import (
    Perceptron,
    Recorder,
    batches,
)

from rmsprop_graves import RMSpropGraves


def test_hooks_of_the_optimizer_are_called_in_order_of_registration():
    """The order holds within each timing, even if registrations of the two timings alternate."""
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
    """At 'pre' the optimizer's hooks are called before those of a rule, at 'post' after them."""
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
    """The default timing 'auto' reads the attribute, and means 'pre' if there is none."""
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
    """Chainer warns of such an attribute."""
    optimizer = RMSpropGraves().setup(Perceptron())
    calls = []
    with pytest.warns(UserWarning, match=r"defaulting timing to 'pre'\."):
        optimizer.add_hook(Recorder("sometimes", calls, timing="sometimes"))
    optimizer.call_hooks("post")
    assert calls == []
    optimizer.call_hooks("pre")
    assert calls == [("sometimes",)]


def test_hook_for_each_param_is_called_with_each_rule_and_parameter_in_order():
    """The order is the one of target.params(), disabled rules included. Then the next hook is called."""
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
    """Its parameter is not stepped either. After the rule is enabled again, both happen."""
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


def test_hook_removed_by_name_is_not_called_again():
    """This holds at each timing, on the optimizer and on a rule. The name can then be used again."""
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


def hookable_optimizer():
    return RMSpropGraves().setup(Perceptron())


def hookable_rule():
    return hookable_optimizer().target.l1.W.update_rule


parametrize_hookables = pytest.mark.parametrize(
    "make_hookable", [hookable_optimizer, hookable_rule], ids=["optimizer", "rule"]
)


@parametrize_hookables
@pytest.mark.parametrize("timing", ["pre", "post"])
def test_a_second_hook_of_a_name_is_refused(make_hookable, timing):
    """It is refused at either timing, and the first one stays."""
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
def test_a_hook_is_registered_by_the_first_name_that_it_has(make_hookable):
    """The argument `name` comes first, then the hook's attribute `name`, then its `__name__`."""

    def own_hook(*args):
        pass

    hookable = make_hookable()
    hookable.add_hook(own_hook)
    hookable.add_hook(Recorder("attribute", []))
    hookable.add_hook(Recorder("attribute", []), name="given")
    for name in ("own_hook", "attribute", "given"):
        hookable.remove_hook(name)
        with pytest.raises(KeyError, match=name):
            hookable.remove_hook(name)


@parametrize_hookables
def test_removing_an_unknown_hook_raises_keyerror(make_hookable):
    """The error contains the name."""
    hookable = make_hookable()
    hookable.add_hook(WeightDecay(0.1))
    with pytest.raises(KeyError, match="Lasso"):
        hookable.remove_hook("Lasso")


def test_the_error_of_removing_an_unknown_hook_names_the_hooks_that_exist():
    """The message lists the hooks of both timings. Here the hook was added under another name than its own."""
    optimizer = hookable_optimizer()
    with pytest.raises(KeyError) as caught:
        optimizer.remove_hook("WeightDecay")
    assert caught.value.args == ('hook "WeightDecay" does not exist; existing hooks: none',)
    optimizer.add_hook(WeightDecay(0.1), name="decay", timing="post")
    optimizer.add_hook(Recorder("look", []))
    with pytest.raises(KeyError) as caught:
        optimizer.remove_hook("WeightDecay")
    assert caught.value.args == ('hook "WeightDecay" does not exist; existing hooks: look, decay',)


@pytest.mark.parametrize(
    ("hook", "found"), [("WeightDecay", "a str"), (1e-4, "a float"), (None, "None"), ([print], "a list")], ids=str
)
def test_the_error_of_a_hook_that_is_not_callable_says_what_to_write(hook, found):
    """It begins like Chainer's."""
    with pytest.raises(TypeError) as caught:
        hookable_optimizer().add_hook(hook)
    assert str(caught.value) == (
        f"hook function must be callable, got {found}: write a function, or an object such as "
        "chainer.optimizer_hooks.WeightDecay(1e-4)"
    )


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
def test_an_invalid_hook_name_or_timing_is_refused(make_hookable, hook, arguments, error, message):
    """The errors are Chainer's."""
    with pytest.raises(error, match=message):
        make_hookable().add_hook(hook, **arguments)


def test_call_hooks_refuses_an_unknown_timing():
    """'auto' is for registration only."""
    with pytest.raises(ValueError, match="timing must be either 'pre' or 'post'"):
        hookable_optimizer().call_hooks("auto")


def test_a_second_setup_removes_all_hooks():
    """The rules are new, and t starts over."""
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


@parametrize_class
def test_cleared_gradients_are_reallocated_around_every_hook_and_update(optimizer_class):
    """A subclass may override the documented method, which is called at the same moments as on Chainer's class."""
    calls = []

    class Recording(optimizer_class):
        def reallocate_cleared_grads(self):
            calls.append(("reallocate",))
            super().reallocate_cleared_grads()

    optimizer = Recording().setup(Perceptron())
    for name, timing in [("a", "pre"), ("b", "pre"), ("c", "post")]:
        optimizer.add_hook(Recorder(name, calls), timing=timing)
    optimizer.target.l1.W.update_rule.add_hook(Recorder("step", calls))
    optimizer.update(optimizer.target, *batches(1)[0])
    again = ("reallocate",)
    assert calls == [again, ("a",), again, ("b",), again, ("step", "W"), again, ("c",), again]


@parametrize_class
def test_gradient_of_a_parameter_that_a_rules_hook_adds_is_reallocated_too(optimizer_class):
    """Hooks after the update find zeros, as for the other parameters."""
    optimizer = optimizer_class().setup(Perceptron())
    layer = optimizer.target.l2
    seen = []

    def replace(rule, param):
        with layer.init_scope():
            layer.b = chainer.Parameter(param.array)
        layer.b.cleargrad()

    layer.b.update_rule.add_hook(replace, timing="post")
    optimizer.add_hook(lambda optimizer: seen.append(layer.b.grad), "look", timing="post")
    optimizer.update(optimizer.target, *batches(1)[0])
    numpy.testing.assert_array_equal(seen, [numpy.zeros(layer.b.shape)])


@parametrize_class
@pytest.mark.parametrize("for_each_param", [False, True])
def test_call_hook_calls_one_hook_and_then_reallocates_cleared_gradients(optimizer_class, for_each_param):
    """A subclass may call it with any hook that add_hook takes, registered or not."""

    def clear(*args):
        calls.append(args)
        optimizer.target.l1.b.cleargrad()

    calls = []
    clear.call_for_each_param = for_each_param
    optimizer = optimizer_class().setup(Perceptron())
    optimizer.reallocate_cleared_grads()
    optimizer.call_hook(clear)
    params = list(optimizer.target.params())
    expected = [(param.update_rule, param) for param in params] if for_each_param else [(optimizer,)]
    assert [tuple(map(id, args)) for args in calls] == [tuple(map(id, args)) for args in expected]
    numpy.testing.assert_array_equal(optimizer.target.l1.b.grad, numpy.zeros(6, "f4"))


@parametrize_class
def test_methods_set_on_the_optimizer_itself_are_called(optimizer_class):
    """As with Chainer's class, a parameter that such a `call_hooks` adds is updated."""
    model = chainer.Link()
    with model.init_scope():
        model.a = chainer.Parameter(numpy.ones(2, "f"))
    optimizer = optimizer_class().setup(model)
    model.a.grad = numpy.ones(2, "f")
    optimizer.update()
    calls = []
    optimizer.reallocate_cleared_grads = lambda: calls.append("reallocate")

    def call_hooks(timing="pre"):
        calls.append(timing)
        if timing == "pre":
            with model.init_scope():
                model.b = chainer.Parameter(numpy.ones(2, "f"))
            model.b.update_rule = optimizer.create_update_rule()
            model.b.grad = numpy.ones(2, "f")

    optimizer.call_hooks = call_hooks
    optimizer.update()
    assert calls == ["reallocate", "pre", "reallocate", "post"]
    assert model.b.update_rule.t == 1
