"""A wrong gradient or state raises an error that names the parameter, before any parameter has moved."""

from __future__ import annotations

import chainer
import numpy
import pytest
from both_classes import rule_times
from chainer import optimizer_hooks
from models import Arrays, arrays_of, assert_same_bits, copies_of, gradients, train

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule

SHAPES = [(2, 3)] * 6


def set_up(specials):
    """Return an optimizer of six parameters after one update; the rules at the given places have a hook."""
    optimizer = RMSpropGraves(lr=0.01, alpha=0.9, momentum=0.5).setup(Arrays(*gradients(*SHAPES)))
    for place in specials:
        getattr(optimizer.target, f"p{place}").update_rule.add_hook(lambda rule, param: None, name="nothing")
    give(optimizer, 1)
    optimizer.update()
    return optimizer


def give(optimizer, seed):
    """Give each parameter a valid gradient."""
    optimizer.target.set_grads(*gradients(*SHAPES, seed=seed))


WRONG = {
    "another shape": (numpy.ones((3, 2), "f4"), ValueError, r"found a gradient of shape \(3, 2\), expected \(2, 3\)"),
    "one that broadcasts": (numpy.ones(3, "f4"), ValueError, r"found a gradient of shape \(3,\), expected \(2, 3\)"),
    "a number": (numpy.ones((), "f4"), ValueError, r"found a gradient of shape \(\), expected \(2, 3\)"),
    "complex": (numpy.ones((2, 3), "c8"), TypeError, "found a gradient of dtype complex64, expected real numbers"),
    "words": (numpy.full((2, 3), "x"), TypeError, "found a gradient of dtype <U1, expected real numbers"),
    "a list": ([[1.0] * 3] * 2, TypeError, "found a gradient of type list, expected an array"),
    "a scalar": (numpy.float32(1), TypeError, "found a gradient of type float32, expected an array"),
    "objects": (numpy.full((2, 3), None), TypeError, "found a gradient of dtype object, expected real numbers"),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("specials", [(), (1,), (0, 4), range(6)], ids=["none", "one", "two", "all"])
@pytest.mark.parametrize(("wrong", "error", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_gradient_is_refused_before_any_parameter_has_moved(wrong, error, message, specials, place):
    """It is assigned past Chainer's own check. Later updates continue as if it had never been set."""
    optimizer, untouched = set_up(specials), set_up(specials)
    give(optimizer, 2)
    param = getattr(optimizer.target, f"p{place}")
    param._grad = wrong
    before, times = copies_of(optimizer), rule_times(optimizer)
    with pytest.raises(error, match=f"parameter p{place}: {message}"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)
    assert rule_times(optimizer) == times
    for one in (optimizer, untouched):
        give(one, 3)
        one.update()
    assert_same_bits(arrays_of(optimizer), arrays_of(untouched))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("specials", [(), (1,), (3,)], ids=["none", "another", "itself"])
@pytest.mark.parametrize("name", ["n", "g", "delta"])
def test_a_state_of_another_shape_is_refused_before_any_parameter_has_moved(name, specials):
    """A checkpoint loaded by other means, or an assignment, may leave such a state."""
    optimizer = set_up(specials)
    optimizer.target.p3.update_rule.state[name] = numpy.ones(3, "f4")
    give(optimizer, 2)
    before = copies_of(optimizer)
    with pytest.raises(ValueError, match=rf"parameter p3: found a state {name} of shape \(3,\), expected \(2, 3\)"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("specials", [(), (1,)])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "found a state g of type NoneType, expected an array"),
        (numpy.ones((2, 3), "i4"), "found a state g of dtype int32, expected real floating-point numbers"),
        (numpy.ones((2, 3), "c8"), "found a state g of dtype complex64, expected real floating-point numbers"),
    ],
    ids=["none", "integers", "complex"],
)
def test_a_state_of_another_dtype_is_refused_before_any_parameter_has_moved(state, message, specials):
    """A state is an array of real floating-point numbers."""
    optimizer = set_up(specials)
    optimizer.target.p4.update_rule.state["g"] = state
    give(optimizer, 2)
    before = {path: array.copy() for path, array in arrays_of(optimizer).items() if array is not state}
    with pytest.raises(TypeError, match=f"parameter p4: {message}"):
        optimizer.update()
    assert_same_bits({path: array for path, array in arrays_of(optimizer).items() if array is not state}, before)


@pytest.mark.parametrize("hook", [optimizer_hooks.WeightDecay(0.1), optimizer_hooks.GradientClipping(1.0)])
@pytest.mark.parametrize("wrong", ["another shape", "words"])
def test_a_hook_that_fails_because_of_a_wrong_gradient_names_the_parameter(hook, wrong):
    """The hook's own error names no parameter."""
    optimizer = set_up(())
    optimizer.add_hook(hook)
    give(optimizer, 2)
    optimizer.target.p3._grad, error, message = WRONG[wrong]
    before = copies_of(optimizer)
    with pytest.raises(error, match=f"parameter p3: {message}"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)


def test_a_hook_that_fails_for_another_reason_raises_its_own_error():
    """All gradients are valid."""
    optimizer = set_up(())

    def fail(optimizer):
        raise RuntimeError("the hook itself")

    optimizer.add_hook(fail, name="fail")
    give(optimizer, 2)
    with pytest.raises(RuntimeError, match=r"^the hook itself$"):
        optimizer.update()


def test_update_of_one_parameter_refuses_a_wrong_gradient_too():
    """A program may update its parameters one by one."""
    optimizer = set_up(())
    optimizer.target.p2._grad = numpy.ones(3, "f4")
    before = copies_of(optimizer)
    with pytest.raises(ValueError, match=r"parameter p2: found a gradient of shape \(3,\), expected \(2, 3\)"):
        optimizer.target.p2.update()
    assert_same_bits(arrays_of(optimizer), before)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", ["f2", "f8", "i4", "?"])
def test_a_gradient_of_another_real_dtype_is_accepted(dtype):
    """Chainer's own check requires the parameter's dtype. The result is the same as with that dtype."""
    numbers = numpy.array([[0, 1, 0], [1, 1, 0]])
    optimizers = set_up(()), set_up(())
    for optimizer, grad in zip(optimizers, (numbers.astype(dtype), numbers.astype("f4"))):
        give(optimizer, 2)
        optimizer.target.p4._grad = grad
        optimizer.update()
    assert_same_bits(arrays_of(optimizers[0]), arrays_of(optimizers[1]))


@pytest.mark.usefixtures("kernel")
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("shape", [(2, 3), (3, 3)])
def test_a_matrix_is_stepped_as_an_array(shape):
    """Its * is a matrix product, which would give wrong numbers or raise an error half-way through a model."""
    ends = []
    for kind in (numpy.asarray, numpy.matrix):
        optimizer = RMSpropGraves(lr=0.01).setup(Arrays(*[numpy.ones(shape, "f4")] * 5))
        for seed in range(2):
            grads = gradients(*[shape] * 5, seed=seed)
            grads[3] = kind(grads[3])
            train(optimizer, [grads])
        ends.append(arrays_of(optimizer))
    assert_same_bits(*ends)


def test_the_gradient_of_a_disabled_parameter_is_not_checked():
    """Nothing reads it, and the other parameters are stepped."""
    optimizer = set_up((1,))
    give(optimizer, 2)
    optimizer.target.p3.update_rule.enabled = False
    optimizer.target.p3._grad = numpy.ones(3, "f4")
    before = copies_of(optimizer)
    optimizer.update()
    after = arrays_of(optimizer)
    assert {path for path in before if (after[path] == before[path]).all()} == {"/p3", "/p3/n", "/p3/g", "/p3/delta"}


def test_the_gradient_of_a_rule_of_another_class_is_not_checked():
    """Chainer's SGDRule broadcasts it."""
    optimizer = set_up((1,))
    optimizer.target.p3.update_rule = chainer.optimizers.sgd.SGDRule(lr=0.5)
    give(optimizer, 2)
    before = optimizer.target.p3.array.copy()
    optimizer.target.p3._grad = numpy.ones(3, "f4")
    optimizer.update()
    numpy.testing.assert_array_equal(optimizer.target.p3.array, before - numpy.float32(0.5))
    assert type(optimizer.target.p0.update_rule) is RMSpropGravesRule


@pytest.mark.usefixtures("kernel")
def test_a_wrong_gradient_after_tied_weights_is_refused_before_any_parameter_has_moved():
    """A tied weight divides the update into two batches. Both must be checked before the first is stepped."""
    model = Arrays(*gradients((3, 3), (3,), (3,)))
    with model.init_scope():
        model.p1 = model.p0
    optimizer = RMSpropGraves().setup(model)
    for seed in (0, 1):
        model.p0.grad, model.p2.grad = gradients((3, 3), (3,), seed=seed)
        optimizer.update()
    model.p2._grad = numpy.ones(2, "f4")
    before, times = copies_of(optimizer), rule_times(optimizer)
    with pytest.raises(ValueError, match="parameter p2: found a gradient"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)
    assert rule_times(optimizer) == times
