"""The four hyperparameters: their defaults, their valid values, and the places where they are set."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import chainer
import numpy
import pytest
from models import Arrays, arrays_of, assert_same_bits, train_one

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule


def test_defaults_and_their_order_are_chainers():
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
        (["0.1"], TypeError),
        (numpy.array([1j]), TypeError),
        ((float("nan"),), ValueError),
        (numpy.array([[numpy.inf]]), ValueError),
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
    """Both constructors and both sets of hyperparameters refuse it. The error has the name and the value."""
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


@pytest.mark.filterwarnings("ignore:(alpha|momentum) is :UserWarning")
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
    """An optimizer's repr evaluates to an equal one. A rule's repr shows its values, t, and whether it is disabled."""
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


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "u1", "?"])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)])
def test_a_list_tuple_or_array_of_one_element_is_taken_as_its_number(dtype, shape):
    """Training is bit-identical to training with a plain number, and a schedule can multiply the value."""
    one = numpy.ones(shape, dtype)
    number = numpy.ones((), dtype).item()
    gradients = numpy.random.RandomState(0).standard_normal((3, 7)).astype("f4")
    for wrapped in (one, one.tolist(), (one,), [[number]], ([(number,)],), [numpy.ones((), dtype)]):
        given_as = {"lr": wrapped, "eps": wrapped}
        optimizer = train_one(RMSpropGraves, numpy.zeros(7, "f4"), gradients, **given_as)
        expected = train_one(RMSpropGraves, numpy.zeros(7, "f4"), gradients, lr=number, eps=number)
        assert_same_bits(arrays_of(optimizer), arrays_of(expected))
        optimizer.lr = optimizer.lr * 0.5
        assert optimizer.lr == 0.5
        assert RMSpropGravesRule(lr=wrapped).hyperparam.lr == 1
    for name in ("alpha", "momentum"):
        assert getattr(RMSpropGraves(**{name: numpy.full(shape, 0.5)}), name) == 0.5


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (numpy.full((2, 3), 0.1), r"ndarray of shape \(2, 3\)"),
        (numpy.empty(0), r"ndarray of shape \(0,\)"),
        ([0.1, 0.2], "list of 2 elements"),
        (((0.1, 0.2),), "tuple of 2 elements"),
        ([], "list of 0 elements"),
        ([numpy.full(2, 0.1)], r"ndarray of shape \(2,\)"),
    ],
    ids=repr,
)
def test_several_elements_are_refused_with_the_advice_to_set_a_parameters_own_value(name, value, found):
    """The advice works: one parameter gets a value of its own."""
    optimizer = RMSpropGraves().setup(Arrays([1.0], [1.0]))
    with pytest.raises(
        TypeError, match=f"^{name} must be a finite number.*, got {found}; a parameter has one {name}"
    ) as e:
        setattr(optimizer, name, value)
    assert str(e.value).endswith(f"param.update_rule.hyperparam.{name} = ...")
    for param in optimizer.target.params():
        setattr(param.update_rule.hyperparam, name, 0.5)
        break
    assert sorted(getattr(param.update_rule.hyperparam, name) == 0.5 for param in optimizer.target.params()) == [0, 1]


def test_an_array_that_is_changed_in_place_is_checked_by_the_next_update():
    """The update uses a new number, and refuses NaN before the parameter moves.

    An array with dimensions is replaced by its number when it is set.
    """
    value, copied = numpy.array(0.5), numpy.array([0.25])
    optimizer = RMSpropGraves(lr=value, eps=copied).setup(Arrays([1.0]))
    value[...], copied[...] = 1.0, numpy.nan
    assert (optimizer.lr, optimizer.eps) == (1.0, 0.25)
    optimizer.target.p0.grad = numpy.ones(1)
    optimizer.update()
    value[...] = numpy.nan
    before = optimizer.target.p0.array.copy()
    with pytest.raises(ValueError, match=r"^lr must be a finite number, got array\(nan\)"):
        optimizer.update()
    numpy.testing.assert_array_equal(optimizer.target.p0.array, before)


def test_chainers_own_hyperparameter_class_may_hold_an_array():
    """Chainer's class keeps an array of one element; the update reads its number."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    hyperparam = chainer.optimizer.Hyperparameter(optimizer.hyperparam)
    hyperparam.lr = numpy.array([0.0])
    optimizer.target.p0.update_rule.hyperparam = hyperparam
    optimizer.target.p0.grad = numpy.ones(1)
    optimizer.update()
    assert optimizer.target.p0.array == [1.0]


PLACES = {
    "constructor": lambda name, value, optimizer, rule: RMSpropGraves(**{name: value}),
    "rule's constructor": lambda name, value, optimizer, rule: RMSpropGravesRule(**{name: value}),
    "attribute": lambda name, value, optimizer, rule: setattr(optimizer, name, value),
    "hyperparam": lambda name, value, optimizer, rule: setattr(optimizer.hyperparam, name, value),
    "rule": lambda name, value, optimizer, rule: setattr(rule.hyperparam, name, value),
    "Chainer's function": lambda name, value, optimizer, rule: chainer.training.extensions.LinearShift(
        name, (value, value), (0, 1), optimizer
    )(SimpleNamespace(updater=SimpleNamespace(iteration=1))),
}


@pytest.mark.parametrize("value", [1, 1.0, 95.0, numpy.float32(2), numpy.array(1.5), numpy.nextafter(1, 2)], ids=repr)
@pytest.mark.parametrize("name", ["alpha", "momentum"])
@pytest.mark.parametrize("place", PLACES)
def test_a_decay_of_one_or_more_warns_at_the_users_line(place, name, value):
    """The warning has the value and the valid range. The value is accepted."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    expected = rf"^{name} is {value}: with {name} >= 1 .*; the range is 0 <= {name} < 1$"
    with pytest.warns(UserWarning, match=expected.replace("+", r"\+")) as caught:
        PLACES[place](name, value, optimizer, optimizer.target.p0.update_rule)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("value", [0, 0.999, 1 - 1e-9, numpy.nextafter(1, 0)], ids=repr)
def test_a_decay_below_one_does_not_warn(value):
    """Nor does one that float32 rounds to 1. lr and eps may be 1 or more."""
    RMSpropGraves(lr=2, alpha=value, momentum=value, eps=2)


def test_copies_pickles_updates_and_checkpoints_do_not_warn_again():
    """Only setting the value warns."""
    with pytest.warns(UserWarning, match="the range is"):
        optimizer = RMSpropGraves(alpha=1.0, momentum=1).setup(Arrays([1.0]))
    optimizer.target.p0.grad = numpy.ones(1)
    for one in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        one.update()
        saved = chainer.serializers.DictionarySerializer()
        saved.save(one)
        chainer.serializers.NpzDeserializer(saved.target).load(one)
        assert (one.alpha, one.momentum) == (1, 1)
