"""The loss is multiplied by a scale before backward, and gradients are divided by it before the step."""

from __future__ import annotations

import numpy
import pytest
from both_classes import assert_trains_as_chainers, parametrize_class
from chainer import functions as F
from chainer import links as L
from models import Arrays, arrays_of, assert_same_bits, copies_of, gradients

from rmsprop_graves import RMSpropGraves

LARGEST = 65504  # the largest float16


@pytest.mark.parametrize("configure", [lambda o: o.loss_scaling(scale=8.0), lambda o: o.set_loss_scale(8.0)])
def test_a_static_loss_scale_is_divided_out(configure):
    """A power of two rounds nothing: training is bit-identical to training without a scale, and to Chainer's."""

    def set_up(cls):
        optimizer = cls(lr=1e-2).setup(L.Linear(3, 2, initialW=0.5))
        configure(optimizer)
        return optimizer

    def step(optimizer, t):
        x = gradients((4, 3), seed=t)[0]
        optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))

    ours, _ = assert_trains_as_chainers(set_up, step)
    plain = RMSpropGraves(lr=1e-2).setup(L.Linear(3, 2, initialW=0.5))
    for t in range(5):
        step(plain, t)
    assert_same_bits(arrays_of(ours), arrays_of(plain))


def test_an_update_with_an_infinite_gradient_makes_no_step():
    """It counts in t, moves no parameter, and warns of each parameter, as an update of Chainer's class does."""

    def set_up(cls):
        optimizer = cls(lr=1e-2).setup(L.Linear(3, 2, initialW=0.5))
        optimizer.loss_scaling(interval=10)
        return optimizer

    def step(optimizer, t):
        x = gradients((4, 3), seed=t)[0]
        if t != 3:
            optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))
            assert optimizer.is_safe_to_update()
            return
        x[0, 0] = numpy.inf
        before = copies_of(optimizer)
        with numpy.errstate(all="ignore"), pytest.warns(UserWarning, match="Non finite number found") as warned:
            optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))
        assert [str(warning.message).split(" of ")[1].split()[0] for warning in warned] == ["/W", "/b"]
        assert not optimizer.is_safe_to_update()
        assert_same_bits(arrays_of(optimizer), before)

    ours, _ = assert_trains_as_chainers(set_up, step, steps=6)
    assert ours.t == 6
    assert ours.target.W.update_rule.t == 5


def scales_of(optimizer_class, steps, overflows=(), configure=lambda optimizer: optimizer.loss_scaling()):
    """Return the scale at each update. A hook reads it from the scaled gradient of a loss with gradient 1."""
    optimizer = optimizer_class().setup(Arrays(numpy.ones(1, "f4")))
    configure(optimizer)
    scales = []
    optimizer.add_hook(lambda optimizer: scales.append(float(optimizer.target.p0.grad[0])), name="look")
    for step in range(steps):
        factor = numpy.float32("inf" if step in overflows else 1)
        optimizer.update(lambda factor=factor: F.sum(optimizer.target.p0 * factor))
    return scales


@parametrize_class
def test_a_dynamic_scale_doubles_up_to_the_largest_float16(optimizer_class):
    """It begins at 1, and without an infinite gradient it doubles at each update."""
    assert scales_of(optimizer_class, 19) == [min(2.0**step, LARGEST) for step in range(19)]


@pytest.mark.filterwarnings("ignore:Non finite number found in param.grad:UserWarning")
@parametrize_class
def test_a_dynamic_scale_halves_at_an_infinite_gradient_and_then_grows_slowly(optimizer_class):
    """After the first infinite gradient it doubles once per interval, by the same factor at each update."""
    scales = scales_of(optimizer_class, 15, overflows=[5], configure=lambda optimizer: optimizer.loss_scaling(8))
    assert scales[:5] == [1, 2, 4, 8, 16]
    assert scales[5] == numpy.inf
    numpy.testing.assert_allclose(scales[6:], [16 * 2 ** (step / 8) for step in range(9)], rtol=1e-6)


@parametrize_class
def test_a_dynamic_scale_is_adapted_after_the_last_hook(optimizer_class):
    """A scale that a hook sets after the second update doubles before the third."""

    def set_scale(optimizer):
        if optimizer.t == 2:
            optimizer.set_loss_scale(64.0)

    def configure(optimizer):
        optimizer.loss_scaling()
        optimizer.add_hook(set_scale, timing="post")

    assert scales_of(optimizer_class, 4, configure=configure) == [1, 2, 128, 256]


@pytest.mark.filterwarnings("ignore:Non finite number found in param.grad:UserWarning")
@parametrize_class
def test_a_dynamic_scale_is_never_less_than_1(optimizer_class):
    """Infinite gradients halve it no further."""
    assert scales_of(optimizer_class, 5, overflows=range(4))[4] == 1


@parametrize_class
def test_setting_a_fixed_scale_later_does_not_switch_dynamic_scaling_off(optimizer_class):
    """As with Chainer's class, dynamic scaling continues from that scale."""

    def configure(optimizer):
        optimizer.loss_scaling()
        optimizer.set_loss_scale(64.0)

    assert scales_of(optimizer_class, 3, configure=configure) == [64, 128, 256]


@parametrize_class
@pytest.mark.parametrize("arguments", [{"scale": 0}, {"scale": -1.0}, {"interval": 0}], ids=str)
def test_an_invalid_scale_or_interval_is_refused(optimizer_class, arguments):
    """A scale is positive, and an interval is at least 1."""
    with pytest.raises(ValueError, match=r"must be (a positive number|greater than or equal to 1)"):
        optimizer_class().loss_scaling(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "8"}, "scale must be a number, got '8'"),
        ({"scale": [8.0]}, "scale must be a number, got [8.0]"),
        ({"interval": "1000"}, "interval must be a number, got '1000'"),
        ({"interval": None}, "interval must be a number, got None"),
    ],
    ids=str,
)
def test_the_error_of_a_scale_or_interval_of_another_type_names_the_argument(arguments, message):
    """The error of Chainer's class is only about Python's operator ``<=``."""
    with pytest.raises(TypeError) as caught:
        RMSpropGraves().loss_scaling(**arguments)
    assert str(caught.value) == message
