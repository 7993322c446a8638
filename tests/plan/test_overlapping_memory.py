"""Parameters and gradients may share memory: the result is that of stepping one parameter after another."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import Arrays
from random_models import PerParameter, assert_same, drawn

from rmsprop_graves import RMSpropGraves

pytestmark = pytest.mark.usefixtures("kernel")

CLASSES = (RMSpropGraves, PerParameter, ChainerRMSpropGraves)


def train_three(lay_out, give):
    """Train p0, p1 and p2 of 100 elements. `lay_out` sets their memory, and `give` their gradients."""
    optimizers = []
    for cls in CLASSES:
        rng = numpy.random.RandomState(0)
        model = Arrays(*(drawn(rng, 100, "f4") for _ in range(3)))
        lay_out(model)
        optimizers.append(cls(lr=1e-2).setup(model))
        for _ in range(6):
            model.set_grads(*(drawn(rng, 100, "f4") for _ in range(3)))
            give(model)
            optimizers[-1].update()
    assert_same(*optimizers)
    return optimizers[0]


def leave(model):
    pass


@pytest.mark.parametrize("overlap", [0, 1, 30])
def test_parameters_may_be_views_of_one_buffer(overlap):
    """Shared elements are stepped with one parameter, then with the other."""

    def lay_out(model):
        buffer = drawn(numpy.random.RandomState(1), 200, "f4")
        model.p0.array = buffer[:100]
        model.p2.array = buffer[100 - overlap : 200 - overlap]

    train_three(lay_out, leave)


def test_a_parameter_of_two_links_is_updated_twice():
    """The second update starts from the first one's result, with the same gradient."""

    def lay_out(model):
        with model.init_scope():
            model.q = model.p1

    ours = train_three(lay_out, leave)
    assert [getattr(ours.target, name).update_rule.t for name in ("p0", "p1", "p2")] == [6, 12, 6]


@pytest.mark.parametrize(("reader", "read"), [(0, 1), (1, 0), (0, 0)])
def test_a_gradient_may_be_the_array_of_a_parameter(reader, read):
    """It is read when its parameter is stepped, before or after the other parameter's step."""

    def give(model):
        getattr(model, f"p{reader}").grad = getattr(model, f"p{read}").array

    train_three(leave, give)


@pytest.mark.parametrize("shift", [-3, 3])
def test_a_gradient_may_overlap_its_own_parameter(shift):
    """The whole gradient is read before the parameter is written."""

    def lay_out(model):
        model.p1.array = drawn(numpy.random.RandomState(1), 106, "f4")[3:103]

    def give(model):
        model.p1.grad = model.p1.array.base[3 + shift : 103 + shift]

    train_three(lay_out, give)


@pytest.mark.parametrize(("reader", "read"), [("p1", "p0"), ("p1", "p2"), ("p1", "p1")])
@pytest.mark.parametrize("step", [-1, 2])
def test_a_gradient_may_be_a_strided_view_of_a_parameter(reader, read, step):
    """It is read when its parameter's turn comes, although other strided gradients are copied earlier."""

    def lay_out(model):
        model.memory = drawn(numpy.random.RandomState(2), 300, "f4")
        getattr(model, read).array = model.memory[100:200]

    def give(model):
        view = model.memory[100:200][::-1] if step < 0 else model.memory[60:260:2]
        getattr(model, reader).grad = view

    train_three(lay_out, give)


def test_a_gradient_may_lie_in_the_memory_of_a_parameter_of_another_dtype():
    """It is read when its parameter's turn comes, although each dtype has a table of its own."""
    optimizers = []
    for cls in CLASSES:
        rng = numpy.random.RandomState(0)
        model = Arrays(drawn(rng, 100, "f4"), drawn(rng, 50, "f8"), drawn(rng, 100, "f4"))
        optimizers.append(cls(lr=1e-2).setup(model))
        for _ in range(6):
            model.set_grads(drawn(rng, 100, "f4"), drawn(rng, 50, "f8"), drawn(rng, 100, "f4"))
            model.p1.grad = model.p0.array.view("f8")
            optimizers[-1].update()
    assert_same(*optimizers)
