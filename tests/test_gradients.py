"""Gradients that no training should see: the right result, or an error before any parameter has moved."""

from __future__ import annotations

import chainer
import numpy
import pytest
from chainer import optimizer_hooks
from models import Arrays, arrays_of, assert_same_bits
from reference import step as reference_step

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels

HYPERPARAMETERS = {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "eps": 1e-4}
LARGEST = {"f4": 1.8e19, "f8": 1.3e154}  # whose squares are finite
TINY = {"f4": 1e-42, "f8": 1e-320}


@pytest.fixture(params=["numba", "numpy"])
def kernel(request, monkeypatch):
    """Each kernel in turn."""
    monkeypatch.setattr(kernels, "_on_cpu", None)
    if request.param == "numba":
        pytest.importorskip("numba")
    kernels.use_on_cpu(request.param)


def special(param):
    """One that takes Chainer's ordinary path."""
    param.update_rule.add_hook(lambda rule, param: None)


def set_up(specials, count=6, dtype="f4"):
    """A model of some parameters, those of the places given special, trained once."""
    rng = numpy.random.RandomState(0)
    model = Arrays(*(rng.standard_normal((2, 3)).astype(dtype) for _ in range(count)))
    optimizer = RMSpropGraves(**HYPERPARAMETERS).setup(model)
    for place in specials:
        special(getattr(model, f"p{place}"))
    give(optimizer, 1)
    optimizer.update()
    return optimizer


def give(optimizer, seed):
    """Each parameter a sound gradient."""
    rng = numpy.random.RandomState(seed)
    for _, param in sorted(optimizer.target.namedparams()):
        param.grad = rng.standard_normal(param.shape).astype(param.dtype)


def times_of(optimizer):
    return {path: param.update_rule.t for path, param in optimizer.target.namedparams()}


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
    """Assigned past Chainer's check; whatever else is in the model. The next update goes on as if it had not been."""
    optimizer, untouched = set_up(specials), set_up(specials)
    give(optimizer, 2)
    param = getattr(optimizer.target, f"p{place}")
    param._grad = wrong
    before, times = {name: array.copy() for name, array in arrays_of(optimizer).items()}, times_of(optimizer)
    with pytest.raises(error, match=f"parameter p{place}: {message}"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)
    assert times_of(optimizer) == times
    for one in (optimizer, untouched):
        give(one, 3)
        one.update()
    assert_same_bits(arrays_of(optimizer), arrays_of(untouched))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("specials", [(), (1,), (3,)], ids=["none", "another", "itself"])
@pytest.mark.parametrize("name", ["n", "g", "delta"])
def test_a_state_of_another_shape_is_refused_before_any_parameter_has_moved(name, specials):
    """As a checkpoint loaded by Chainer's own means, or by hand, may leave it."""
    optimizer = set_up(specials)
    optimizer.target.p3.update_rule.state[name] = numpy.ones(3, "f4")
    give(optimizer, 2)
    before = {key: array.copy() for key, array in arrays_of(optimizer).items()}
    with pytest.raises(ValueError, match=rf"parameter p3: found a state {name} of shape \(3,\), expected \(2, 3\)"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("specials", [(), (1,)])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "found a state g of type NoneType, expected an array"),
        (numpy.ones((2, 3), "i4"), "found a state g of dtype int32, expected real floating numbers"),
        (numpy.ones((2, 3), "c8"), "found a state g of dtype complex64, expected real floating numbers"),
    ],
    ids=["none", "integers", "complex"],
)
def test_a_state_that_is_none_of_real_floating_numbers_is_refused_before_any_parameter_has_moved(
    state, message, specials
):
    """By the parameter's name."""
    optimizer = set_up(specials)
    optimizer.target.p4.update_rule.state["g"] = state
    give(optimizer, 2)
    before = {path: array.copy() for path, array in arrays_of(optimizer).items() if array is not state}
    with pytest.raises(TypeError, match=f"parameter p4: {message}"):
        optimizer.update()
    assert_same_bits({path: array for path, array in arrays_of(optimizer).items() if array is not state}, before)


@pytest.mark.parametrize("hook", [optimizer_hooks.WeightDecay(0.1), optimizer_hooks.GradientClipping(1.0)])
@pytest.mark.parametrize("wrong", ["another shape", "words"])
def test_a_wrong_gradient_that_a_hook_fails_at_is_refused_by_the_parameters_name(hook, wrong):
    """The hook's own error, which its cause still shows, tells of no parameter."""
    optimizer = set_up(())
    optimizer.add_hook(hook)
    give(optimizer, 2)
    optimizer.target.p3._grad, error, message = WRONG[wrong]
    before = {path: array.copy() for path, array in arrays_of(optimizer).items()}
    with pytest.raises(error, match=f"parameter p3: {message}"):
        optimizer.update()
    assert_same_bits(arrays_of(optimizer), before)


def test_an_error_of_a_hook_alone_stays_what_it_is():
    """No gradient is to blame."""
    optimizer = set_up(())

    def fail(optimizer):
        raise RuntimeError("the hook itself")

    optimizer.add_hook(fail, name="fail")
    give(optimizer, 2)
    with pytest.raises(RuntimeError, match="the hook itself"):
        optimizer.update()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_largest_gradients_of_all_turn_nothing_into_nan(dtype):
    """Both n and the square of g are infinite then, and infinite less infinite is NaN: the element stands still."""
    model = Arrays(*[numpy.ones(40, dtype)] * 5)
    optimizer = RMSpropGraves(momentum=0.5).setup(model)
    largest = numpy.finfo(dtype).max
    with numpy.errstate(over="ignore"):
        for step in range(40):
            grads = [numpy.full(40, largest / 2**i, dtype) for i in range(5)]
            grads[1][::2] *= -1
            grads[2] *= numpy.dtype(dtype).type((-1) ** step)
            model.set_grads(*grads)
            optimizer.update()
    for path, array in arrays_of(optimizer).items():
        assert not numpy.isnan(array).any(), path
        if path.count("/") == 1:
            assert numpy.isfinite(array).all(), path


def test_a_rule_alone_refuses_it_too():
    """Where a program updates its parameters one by one."""
    optimizer = set_up(())
    optimizer.target.p2._grad = numpy.ones(3, "f4")
    with pytest.raises(ValueError, match=r"parameter p2: found a gradient of shape \(3,\), expected \(2, 3\)"):
        optimizer.target.p2.update()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", ["f2", "f8", "i4", "?"])
def test_a_gradient_of_other_real_numbers_is_taken_as_what_it_is(dtype):
    """Past Chainer's check, which wants the parameter's dtype: the result is that of the same numbers in it."""
    numbers = numpy.array([[0, 1, 0], [1, 1, 0]])
    optimizers = set_up(()), set_up(())
    for optimizer, grad in zip(optimizers, (numbers.astype(dtype), numbers.astype("f4"))):
        give(optimizer, 2)
        optimizer.target.p4._grad = grad
        optimizer.update()
    assert_same_bits(arrays_of(optimizers[0]), arrays_of(optimizers[1]))


def gradients_of(kind, dtype, steps):
    """Numbers for one element, a step after the other."""
    one = {"largest": LARGEST[dtype], "denormal": TINY[dtype], "zero": 0.0}.get(kind, 1.0)
    if kind.startswith("steady"):
        one = float(kind.split()[1])
    sign = -1 if kind.startswith("alternating") else 1
    return [one * sign**step for step in range(steps)]


KINDS = ["zero", "denormal", "largest", "alternating", *(f"steady 1e{e}" for e in (-15, -8, -3, -1, 0, 1, 3, 8, 15))]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_extreme_gradients_stay_finite_and_near_the_rule_in_python_floats(dtype, kind):
    """Over 400 steps, beyond which Chainer's class is NaN for steady ones; the first 3 are compared."""
    optimizer = RMSpropGraves(**HYPERPARAMETERS).setup(Arrays(numpy.zeros(4, dtype)))
    expected = {"param": 0.0, "n": 0.0, "g": 0.0, "delta": 0.0}
    for step, number in enumerate(gradients_of(kind, dtype, 400)):
        optimizer.target.p0.grad = numpy.full(4, number, dtype)
        optimizer.update()
        found = arrays_of(optimizer)
        assert all(numpy.isfinite(array).all() for array in found.values())
        if step < 3:
            values = [expected[name] for name in ("param", "n", "g", "delta")]
            values = reference_step(values[0], number, *values[1:], **HYPERPARAMETERS)
            expected = dict(zip(("param", "n", "g", "delta"), values))
            tolerance = {"f4": 1e-4, "f8": 1e-10}[dtype]
            for name, value in expected.items():
                array = found["/p0" if name == "param" else f"/p0/{name}"]
                numpy.testing.assert_allclose(array, value, rtol=tolerance, atol=float(numpy.finfo(dtype).tiny))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf], ids=str)
def test_a_gradient_that_is_not_finite_touches_its_element_alone(bad):
    """Of its parameter; no other parameter of the step either."""
    optimizer, sound = set_up(()), set_up(())
    for one in (optimizer, sound):
        give(one, 2)
    optimizer.target.p2.grad[1, 1] = bad
    with numpy.errstate(all="ignore"):
        optimizer.update()
    sound.update()
    for (path, array), other in zip(arrays_of(optimizer).items(), arrays_of(sound).values()):
        differs = (array != other) | numpy.isnan(array)
        expected = numpy.zeros((2, 3), bool)
        expected[1, 1] = path.startswith("/p2")
        numpy.testing.assert_array_equal(differs, expected, err_msg=path)


@pytest.mark.usefixtures("kernel")
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("shape", [(2, 3), (3, 3)])
def test_a_matrix_is_taken_as_the_array_that_it_holds(shape):
    """Its operator * multiplies matrices: an error half-way through the model, or other numbers where it is square."""
    ends = []
    for kind in (numpy.asarray, numpy.matrix):
        model = Arrays(*[numpy.ones(shape, "f4")] * 5)
        optimizer = RMSpropGraves(**HYPERPARAMETERS).setup(model)
        for seed in range(2):
            give(optimizer, seed)
            model.p3.grad = kind(model.p3.grad)
            optimizer.update()
        ends.append(arrays_of(optimizer))
    assert_same_bits(*ends)


def test_a_frozen_parameter_is_not_held_to_it():
    """Nothing is done with its gradient."""
    optimizer = set_up((1,))
    give(optimizer, 2)
    optimizer.target.p3.update_rule.enabled = False
    optimizer.target.p3._grad = numpy.ones(3, "f4")
    before = arrays_of(optimizer)["/p0"].copy()
    optimizer.update()
    assert (arrays_of(optimizer)["/p0"] != before).any()


def test_a_rule_of_another_class_is_not_held_to_it():
    """What it makes of a gradient that broadcasts is its own."""
    optimizer = set_up((1,))
    optimizer.target.p3.update_rule = chainer.optimizers.sgd.SGDRule(lr=0.5)
    give(optimizer, 2)
    before = optimizer.target.p3.array.copy()
    optimizer.target.p3._grad = numpy.ones(3, "f4")
    optimizer.update()
    numpy.testing.assert_array_equal(optimizer.target.p3.array, before - numpy.float32(0.5))
    assert type(optimizer.target.p0.update_rule) is RMSpropGravesRule
