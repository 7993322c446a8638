"""The four hyperparameters: their defaults, their valid values, and the places where they are set."""

from __future__ import annotations

from types import SimpleNamespace

import chainer
import numpy
import pytest
from models import Arrays, arrays_of, assert_same_bits, train_one

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule


def test_defaults_and_their_order_are_chainers():
    """Keyword and positional arguments both follow the documentation."""
    optimizer = RMSpropGraves()
    assert (optimizer.lr, optimizer.alpha, optimizer.momentum, optimizer.eps) == (1e-4, 0.95, 0.9, 1e-4)
    optimizer = RMSpropGraves(1, 0.5, 0.25, 0.125)
    assert (optimizer.lr, optimizer.alpha, optimizer.momentum, optimizer.eps) == (1, 0.5, 0.25, 0.125)


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
def test_attributes_are_aliases_of_the_hyperparameters(name):
    """The optimizer's attribute and its hyperparam entry are one value, which every rule reads."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    setattr(optimizer, name, 0.5)
    assert getattr(optimizer.hyperparam, name) == 0.5
    assert getattr(optimizer.target.p0.update_rule.hyperparam, name) == 0.5
    setattr(optimizer.hyperparam, name, 0.25)
    assert getattr(optimizer, name) == 0.25


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("x", TypeError),
        ("0.1", TypeError),
        (None, TypeError),
        (1j, TypeError),
        ([0.1], TypeError),
        (numpy.array([0.1]), TypeError),
        (numpy.complex64(1), TypeError),
        (chainer.Variable(numpy.ones((), "f4")), TypeError),
        (SimpleNamespace(shape=(), dtype="torch.float32"), TypeError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (numpy.float32("-inf"), ValueError),
        (numpy.array(numpy.nan), ValueError),
        (10**400, ValueError),
    ],
    ids=repr,
)
def test_an_invalid_value_is_refused_wherever_it_is_set(name, value, error):
    """Both constructors and both sets of hyperparameters refuse it. The error names it, and nothing changes."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    rule = optimizer.target.p0.update_rule
    places = [
        lambda: RMSpropGraves(**{name: value}),
        lambda: setattr(optimizer, name, value),
        lambda: setattr(optimizer.hyperparam, name, value),
        lambda: setattr(rule.hyperparam, name, value),
    ]
    if value is not None:  # in a rule's constructor None means inherited
        places.append(lambda: RMSpropGravesRule(**{name: value}))
    for place in places:
        with pytest.raises(error, match=f"^{name} must be a finite number.*, got ") as caught:
            place()
        assert repr(value) in str(caught.value)
    assert repr(optimizer) == repr(RMSpropGraves())
    assert name not in vars(rule.hyperparam)


@pytest.mark.parametrize("name", ["alpha", "momentum", "eps"])
def test_a_negative_decay_or_eps_is_refused(name):
    """The smallest negative number is refused and zero is accepted."""
    with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0, got -5e-324"):
        RMSpropGraves(**{name: -5e-324})
    RMSpropGraves(**{name: 0})


@pytest.mark.parametrize(
    "values",
    [
        {"lr": -1e-3},
        {"lr": 1.0001, "alpha": 1.05, "momentum": 1.0, "eps": 0.1001},
        {"lr": numpy.float32(0.5), "alpha": numpy.array(0.5), "momentum": 0, "eps": numpy.int64(1)},
        {"lr": numpy.array(1, "u1"), "alpha": numpy.uint8(0), "momentum": numpy.array(0), "eps": numpy.array(1, "f2")},
    ],
    ids=["ascent", "each default plus 0.1", "other number types", "arrays of no dimensions"],
)
def test_other_numbers_are_accepted_and_kept_as_the_same_objects(values):
    """A negative lr ascends, and NumPy scalars are numbers. Chainer's own tests set each default plus 0.1."""
    optimizer = RMSpropGraves(**values).setup(Arrays([1.0]))
    for name, value in values.items():
        assert getattr(optimizer, name) is value
    optimizer.target.set_grads(numpy.ones(1))
    optimizer.update()
    assert numpy.isfinite(optimizer.target.p0.array).all()


def test_repr_shows_the_values():
    """An optimizer's repr evaluates to its equal. A rule's shows its own values, its t and whether it is disabled."""
    optimizer = RMSpropGraves(lr=0.5)
    assert repr(optimizer) == "RMSpropGraves(lr=0.5, alpha=0.95, momentum=0.9, eps=0.0001)"
    assert repr(eval(repr(optimizer))) == repr(optimizer)
    rule = optimizer.create_update_rule()
    rule.hyperparam.eps = 1
    assert repr(rule) == "<RMSpropGravesRule(lr=0.5, alpha=0.95, momentum=0.9, eps=1) t=0>"
    rule.enabled = False
    assert repr(rule).endswith("t=0 disabled>")


def test_numpy_scalars_as_hyperparameters_give_the_bits_of_python_floats():
    """On NumPy 2 a float64 scalar would make float64 temporaries of float32 arrays."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((10, 100)).astype("f4")
    plain = {"lr": 1e-3, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
    expected = arrays_of(train_one(RMSpropGraves, numpy.zeros(100, "f4"), gradients, **plain))
    for convert in (numpy.float64, numpy.array):
        given_as = {name: convert(value) for name, value in plain.items()}
        assert_same_bits(arrays_of(train_one(RMSpropGraves, numpy.zeros(100, "f4"), gradients, **given_as)), expected)
