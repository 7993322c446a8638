"""Chainer's own hooks wait to be applied with the step. A program cannot notice, except by the time."""

from __future__ import annotations

import copy
import warnings

import numpy
import pytest
from chainer.optimizer import GradientMethod
from chainer.optimizer_hooks import GradientClipping, GradientLARS, WeightDecay
from interpreter import run_python
from models import Arrays, assert_same_bits, snapshot_of

from rmsprop_graves import RMSpropGraves


class ByChainer(RMSpropGraves):
    """No hook waits."""

    def call_hook(self, hook):
        """Call it at once, by Chainer's method."""
        super()._call_hook_now(hook)


def new(cls, *hooks, timing="pre"):
    """Return an optimizer of two parameters, whose gradients are zero."""
    optimizer = cls(lr=0.1).setup(Arrays(*(numpy.arange(1, 4, dtype="f4") for _ in range(2))))
    for k, hook in enumerate(hooks):
        optimizer.add_hook(hook, str(k), timing)
    optimizer.target.set_grads(*(numpy.zeros(3, "f4") for _ in range(2)))
    return optimizer


def outcome(act):
    """Return the type and message of the error that a call raises, or None."""
    try:
        act()
    except Exception as error:
        return type(error), str(error)
    return None


def test_a_hook_that_calls_a_hook_finds_its_effect(kernel):
    """The calling hook then replaces the gradients, and another hook follows."""
    seen = []

    def decay_and_halve(optimizer):
        optimizer.call_hook(WeightDecay(1))
        for param in optimizer.target.params():
            seen.append(param.grad.tolist())
            param.grad = param.grad / numpy.float32(2)

    pair = [new(cls, WeightDecay(0.5), decay_and_halve, WeightDecay(0.25)) for cls in (RMSpropGraves, ByChainer)]
    for optimizer in pair:
        optimizer.update()
    assert seen == [[1.5, 3.0, 4.5]] * 4
    assert_same_bits(*map(snapshot_of, pair))


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_a_hook_may_set_the_optimizer_up_anew(kernel, timing):
    """The model may be the same or another one. This update and later ones continue."""
    for other in (False, True):
        ends = []
        for cls in (RMSpropGraves, ByChainer):
            optimizer = new(cls, WeightDecay(0.5), timing=timing)
            model = new(cls).target if other else optimizer.target
            optimizer.add_hook(lambda optimizer, model=model: optimizer.setup(model), "setup", timing)
            optimizer.update()
            optimizer.target.set_grads(*(numpy.ones(3, "f4") for _ in range(2)))
            optimizer.update()
            ends.append({**snapshot_of(optimizer), "t": numpy.array(optimizer.t)})
        assert_same_bits(*ends)


def read_only(optimizer):
    optimizer.target.p1.grad.flags.writeable = False


def of_another_shape(optimizer):
    optimizer.target.p1._grad = numpy.zeros((3, 1), "f4")


def of_another_dtype(optimizer):
    optimizer.target.p1._grad = numpy.zeros(3, "i4")


@pytest.mark.parametrize("spoil", [read_only, of_another_shape, of_another_dtype])
def test_a_hook_that_fails_fails_as_chainers(kernel, spoil):
    """The error and the gradients are the same, and t does not count the update."""
    ends = []
    for cls in (RMSpropGraves, ByChainer):
        optimizer = new(cls, WeightDecay(0.5), WeightDecay(0.25))
        spoil(optimizer)
        end = outcome(optimizer.update)
        ends.append((end, optimizer.t, [param.grad.tolist() for param in optimizer.target.params()]))
    assert ends[0] == ends[1]


def test_floating_point_errors_are_raised_as_by_chainers_code(kernel):
    """An overflow raises an error; a rate that is rounded to zero does not."""
    for rate in (1e38, 1e-50):
        ends = []
        for cls in (RMSpropGraves, ByChainer):
            optimizer = new(cls, WeightDecay(rate))
            optimizer.target.p0.array[...] = 1e30
            with numpy.errstate(all="raise", under="ignore"):
                ends.append((outcome(optimizer.update), optimizer.t))
        assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "make_hook", [lambda: GradientClipping(0), lambda: GradientLARS(-1, 0, 0)], ids=["clipping", "LARS"]
)
def test_a_division_by_zero_warns_once_in_chainers_module(kernel, make_hook):
    """A program may filter the warnings of that module."""
    seen = []
    for cls in (RMSpropGraves, ByChainer):
        optimizer = new(cls, make_hook())
        optimizer.target.p0.array[...] = optimizer.target.p1.array[...] = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.update()
        seen.append([(str(one.message), one.filename) for one in caught if "optimizer_hooks" in one.filename])
        assert not [one for one in caught if one.filename.endswith("_hooks.py")]
    assert seen[0] == seen[1] != []


def test_a_class_between_this_one_and_chainers_finds_each_hook(kernel):
    """`super().call_hook` calls its method."""
    called = []

    class Counting(GradientMethod):
        def call_hook(self, hook):
            called.append(hook)
            super().call_hook(hook)

    class Both(RMSpropGraves, Counting):
        pass

    hooks = [WeightDecay(0.5), WeightDecay(0.25)]
    new(Both, *hooks).update()
    assert called == hooks


@pytest.mark.parametrize(
    "patch",
    [
        "hooks.WeightDecay.__call__ = mine",
        "hooks.WeightDecay = type('WeightDecay', (hooks.WeightDecay,), {'__call__': mine})",
        "import functools; hooks.WeightDecay.__call__ = functools.wraps(hooks.WeightDecay.__call__)(mine)",
    ],
)
def test_a_hook_that_is_patched_before_the_first_import_is_called(patch):
    """The module of the optimizer is imported at the first use, after the patch."""
    code = f"""
        import rmsprop_graves, numpy, chainer
        from chainer import optimizer_hooks as hooks

        def mine(self, rule, param):
            print("called")

        {patch}
        model = chainer.links.Linear(2, 3)
        optimizer = rmsprop_graves.RMSpropGraves().setup(model)
        optimizer.add_hook(hooks.WeightDecay(0.5))
        for param in model.params():
            param.grad = numpy.ones_like(param.array)
        optimizer.update()
    """
    assert run_python(code, "-W", "ignore")[0].split() == ["called", "called"]


def test_a_copy_that_a_hook_makes_trains_on_with_its_hooks(kernel):
    """The copy includes the effect of a hook that was waiting."""
    copies = []
    optimizer = new(RMSpropGraves, WeightDecay(0.5), lambda optimizer: copies.append(copy.deepcopy(optimizer)))
    optimizer.update()
    optimizer = copies[0]
    assert optimizer.target.p0.grad.tolist() == [0.5, 1, 1.5]
    optimizer.remove_hook("1")
    optimizer.update()
    assert optimizer.target.p0.grad.tolist() == [1, 2, 3]
