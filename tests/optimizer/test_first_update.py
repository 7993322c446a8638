"""The first update warns of mistakes that would train a model wrongly, or not at all, without an error."""

from __future__ import annotations

import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from models import Arrays

from rmsprop_graves import RMSpropGraves

X = numpy.ones((4, 3), "f")
NO_GRADIENT = "^no parameter has a gradient, so nothing is trained: call loss.backward"
ALL_NAN = "^all gradients are NaN, and so will be the parameters: .* call model.cleargrads"


def loss_of(model):
    return F.sum(model(X) ** 2)


def no_backward(model, optimizer):
    model.cleargrads()
    loss_of(model)
    optimizer.update()


def in_no_backprop_mode(model, optimizer):
    with chainer.no_backprop_mode():
        optimizer.update(loss_of, model)


def from_an_array(model, optimizer):
    optimizer.update(lambda: chainer.Variable(loss_of(model).array))


def with_another_model(model, optimizer):
    optimizer.update(loss_of, L.Linear(3, 2))


def with_separate_pickles(model, optimizer):
    model, optimizer = (pickle.loads(pickle.dumps(one)) for one in (model, optimizer))
    optimizer.update(loss_of, model)


@pytest.mark.parametrize(
    "update", [no_backward, in_no_backprop_mode, from_an_array, with_another_model, with_separate_pickles]
)
def test_a_model_without_any_gradient_warns_at_the_users_line(update):
    """The parameters do not move."""
    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    before = model.W.array.copy()
    with pytest.warns(UserWarning, match=NO_GRADIENT) as caught:
        update(model, optimizer)
    assert [one.filename for one in caught] == [__file__]
    numpy.testing.assert_array_equal(model.W.array, before)


def test_a_model_after_training_is_pickled_warns_too():
    """The optimizer's pickle contains a copy of the model, which gets no gradients. Here t is not 0."""
    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    optimizer.update(loss_of, model)
    with pytest.warns(UserWarning, match=NO_GRADIENT):
        with_separate_pickles(model, optimizer)


@pytest.mark.parametrize("has_backward", [False, True])
def test_gradients_that_were_never_cleared_warn(has_backward):
    """Chainer fills the gradients of new parameters with NaN, and `backward` adds to them."""
    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    if has_backward:
        loss_of(model).backward()
    with pytest.warns(UserWarning, match=ALL_NAN):
        optimizer.update()


def test_a_model_without_parameters_warns():
    """Links in a plain list, or assigned outside `init_scope`, are not part of the model."""

    class Model(chainer.Chain):
        def __init__(self):
            super().__init__()
            self.layers = [L.Linear(3, 2)]
            self.last = L.Linear(2, 2)

        def forward(self, x):
            return self.last(self.layers[0](x))

    model = Model()
    optimizer = RMSpropGraves().setup(model)
    with pytest.warns(UserWarning, match=r"^the model has no parameters.* `with self.init_scope\(\):`"):
        optimizer.update(loss_of, model)


@pytest.mark.parametrize(
    ("name", "right"), [("lr", "hyperparam.lr"), ("momentum", "hyperparam.momentum"), ("enable", "enabled")]
)
def test_an_attribute_of_a_rule_that_nothing_reads_warns(name, right):
    """`update_rule.lr = 0.1` does not change the parameter's lr, and `enable = False` does not freeze it."""
    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    setattr(model.W.update_rule, name, 0)
    with pytest.warns(
        UserWarning, match=f"^update_rule.{name} of parameter W has no effect: set update_rule.{right}$"
    ):
        optimizer.update(loss_of, model)


@pytest.mark.filterwarnings("error")
def test_only_the_first_update_warns():
    """Later updates may lack gradients on purpose, and must not spend time on the check."""
    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    optimizer.update(loss_of, model)
    no_backward(model, optimizer)


@pytest.mark.filterwarnings("error")
def test_right_first_updates_do_not_warn():
    """Some gradients may be missing or NaN. Frozen and uninitialized models need none. Zeros are gradients.

    If the loss is NaN, all gradients may be NaN.
    """
    model = chainer.Sequential(L.Linear(3, 2), L.Linear(2, 2))
    RMSpropGraves().setup(model).update(lambda: F.sum(model[0](X)))

    model = Arrays([1.0, 1.0], [1.0])
    optimizer = RMSpropGraves().setup(model)
    model.p0.grad, model.p1.grad = numpy.array([numpy.nan, 1.0]), numpy.array([numpy.nan])
    optimizer.update()

    model = Arrays([1.0])
    optimizer = RMSpropGraves().setup(model)
    model.p0.grad = numpy.zeros(1)
    optimizer.update()

    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    model.disable_update()
    model.cleargrads()
    optimizer.update()

    model = L.Linear(None, 2, nobias=True)
    optimizer = RMSpropGraves().setup(model)
    model.cleargrads()
    optimizer.update()

    model = L.Linear(3, 2)
    optimizer = RMSpropGraves().setup(model)
    optimizer.update(lambda: F.sum(model(X)) * numpy.nan)
    assert numpy.isnan(model.W.array).all()
