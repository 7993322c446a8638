"""Setup, updates and epochs: everything that Chainer documents about an optimizer."""

from __future__ import annotations

import doctest
import warnings

import chainer
import numpy
import pytest
from both_classes import CLASSES, assert_same_training, assert_trains_as_chainers
from chainer import functions as F
from chainer import links as L
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRMSpropGravesRule
from models import Arrays, gradients

import rmsprop_graves
from rmsprop_graves import RMSpropGraves, RMSpropGravesRule


def test_the_classes_derive_from_chainers_base_classes():
    """They do not derive from Chainer's RMSpropGraves and its rule."""
    assert issubclass(RMSpropGraves, chainer.optimizer.GradientMethod)
    assert issubclass(RMSpropGravesRule, chainer.optimizer.UpdateRule)
    assert not issubclass(RMSpropGraves, ChainerRMSpropGraves)
    assert not issubclass(RMSpropGravesRule, ChainerRMSpropGravesRule)
    assert RMSpropGraves.__name__ == "RMSpropGraves"


@pytest.mark.parametrize(
    "call",
    [
        lambda optimizer: optimizer.update(),
        lambda optimizer: optimizer.update(lambda: None),
        lambda optimizer: optimizer.serialize(chainer.serializers.DictionarySerializer()),
        lambda optimizer: optimizer.add_hook(print, name="print"),
        lambda optimizer: optimizer.remove_hook("print"),
        lambda optimizer: optimizer.call_hooks(),
        lambda optimizer: optimizer.call_hooks("post"),
    ],
    ids=["update", "update with a loss", "serialize", "add_hook", "remove_hook", "call_hooks", "call_hooks post"],
)
def test_methods_that_need_a_model_raise_before_setup(call):
    """The message is Chainer's, because programs show it and test for it."""
    with pytest.raises(RuntimeError, match=r"^Optimizer is not set up\. Call `setup` method\.$"):
        call(RMSpropGraves())


def test_setup_returns_the_optimizer_and_starts_over():
    """The target is the model. t, epoch and the states start over."""
    model = Arrays([1.0])
    optimizer = RMSpropGraves()
    assert optimizer.target is None
    assert optimizer.setup(model) is optimizer
    assert optimizer.target is model
    model.set_grads(numpy.ones(1))
    optimizer.update()
    optimizer.new_epoch()
    assert (optimizer.t, optimizer.epoch) == (1, 1)
    optimizer.setup(model)
    assert (optimizer.t, optimizer.epoch, model.p0.update_rule.t) == (0, 0, 0)
    assert model.p0.update_rule.state is None


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ([L.Linear(1, 1)], "got a list: put several links into a ChainList"),
        ({"a": L.Linear(1, 1)}, "got a dict: put several links into a ChainList"),
        (L.Linear(1, 1).params(), "got a generator: pass the model itself, not its parameters"),
        (L.Linear(1, 1).W, "got a Parameter: pass the model itself, not its parameters"),
        (RMSpropGraves(), "got an RMSpropGraves: "),
        (numpy.ones(1), "got an ndarray: "),
        (L.Linear, "got the class Linear: create the model first"),
        (None, "got None: pass the model, a chainer.Link such as a Chain"),
        (L.Linear(1, 1).forward, "got a method: pass the model, a chainer.Link such as a Chain"),
    ],
    ids=["list", "dict", "generator", "parameter", "optimizer", "array", "class", "None", "method"],
)
def test_setup_refuses_anything_but_a_link(target, advice):
    """The error begins like Chainer's. The optimizer keeps its model."""
    model = Arrays([1.0])
    optimizer = RMSpropGraves().setup(model)
    rule, model.p0.grad = model.p0.update_rule, numpy.ones(1)
    optimizer.update()
    with pytest.raises(TypeError, match=f"^optimization target must be a link, {advice}"):
        optimizer.setup(target)
    assert (optimizer.target, optimizer.t, model.p0.update_rule) == (model, 1, rule)


@pytest.mark.parametrize(
    "kind",
    [
        *("an LSTM", "an MLP", "an NStepLSTM", "an RNN", "an X", "an Inception", "an int"),
        *("a Linear", "a Model", "a Net", "a UNet", "a VGG", "a list", "a nested"),
    ],
)
def test_the_article_before_the_name_of_a_class_follows_its_sound(kind):
    """The letters of an abbreviation are spoken."""
    made = type(kind.split()[1], (), {})()
    with pytest.raises(TypeError, match=f"got {kind}: pass the model"):
        RMSpropGraves().setup(made)


@pytest.mark.parametrize(
    "first",
    [
        lambda model: model,
        lambda model: model.params(),
        lambda model: model.namedparams(),
        lambda model: list(model.params()),
        lambda model: tuple(model.params()),
        lambda model: [model, model],
        lambda model: model.W,
        lambda model: list(model.namedparams()),
        lambda model: dict(model.namedparams()),
        lambda model: [{"params": list(model.params())}],
        type,
    ],
    ids=[
        "model",
        "params",
        "namedparams",
        "list of params",
        "tuple of params",
        "list of models",
        "one param",
        "list of namedparams",
        "dict of params",
        "param groups",
        "class",
    ],
)
def test_a_model_as_the_first_argument_is_refused_with_advice(first):
    """Other libraries' optimizers take the parameters there."""
    with pytest.raises(
        TypeError, match=r"^lr must be a number, got (an?|the class) \w+: .* RMSpropGraves\(\)\.setup\(model\)$"
    ):
        RMSpropGraves(first(L.Linear(1, 1)))
    with pytest.raises(TypeError, match=r"^alpha must be a number, got .*setup\(model\)$"):
        RMSpropGraves(1e-3, first(L.Linear(1, 1)))


VECTOR = numpy.ones(3, "f4")
NO_FUNCTION = [
    chainer.Variable(VECTOR),
    chainer.Variable(VECTOR[:1]),
    F.sum(chainer.Variable(VECTOR)),
    VECTOR,
    VECTOR[0],
    1.0,
    0,
    "loss",
    [print],
    {},
]
NO_LOSS = [None, 0.0, VECTOR[0], VECTOR, numpy.array(1.0), (F.sum(chainer.Variable(VECTOR)), 1), [], {}, "loss", print]
NO_SCALAR = [(3,), (0,), (1, 3), (2, 2), (1, 0)]


@pytest.mark.parametrize("use_cleargrads", [True, False])
@pytest.mark.parametrize(
    ("lossfun", "error", "message"),
    [
        *(
            (each, TypeError, r"^lossfun must be a function that returns the loss, got an? \w+: ")
            for each in NO_FUNCTION
        ),
        *(
            (
                lambda each=each: each,
                TypeError,
                r"^lossfun must return a chainer\.Variable, got (an? \w+|None): return ",
            )
            for each in NO_LOSS
        ),
        *(
            (
                make(numpy.ones(shape, "f4")),
                ValueError,
                rf"^the loss must be a scalar, got the shape \({shape[0]},.*F\.sum",
            )
            for shape in NO_SCALAR
            for make in (
                lambda array: lambda: chainer.Variable(array),
                lambda array: lambda: F.identity(chainer.Variable(array)),
            )
        ),
        (lambda: chainer.Parameter(), ValueError, "^the loss has no array: "),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_invalid_loss_is_refused_before_anything_has_changed(lossfun, error, message, use_cleargrads):
    """No gradient has been cleared, no hook called, no update counted. The next update works."""
    hooked = []
    model = Arrays(*gradients((2, 3), 4))
    optimizer = RMSpropGraves().setup(model)
    optimizer.use_cleargrads(use_cleargrads)
    optimizer.add_hook(lambda _: hooked.append(1), "hook", timing="pre")
    model.set_grads(*gradients((2, 3), 4))
    before = [(param.array.tobytes(), param.grad.tobytes()) for param in model.params()]
    with pytest.raises(error, match=message):
        optimizer.update(lossfun)
    assert [(param.array.tobytes(), param.grad.tobytes()) for param in model.params()] == before
    assert (optimizer.t, hooked, [param.update_rule.t for param in model.params()]) == (0, [], [0, 0])
    optimizer.update()
    assert (optimizer.t, hooked) == (1, [1])


class _Classifier(L.Linear):
    def forward(self, x, scale=1):
        return scale * F.sum(super().forward(x) ** 2)


class _OwnLoss:
    def __init__(self, loss):
        self.loss = loss

    def backward(self, loss_scale=None):
        self.loss.backward(loss_scale=loss_scale)


def _with_grad(loss):
    loss.grad = numpy.full_like(loss.array, 0.5)
    return loss


@pytest.mark.parametrize(
    ("lossfun", "arguments"),
    [
        (lambda model: model, (2,)),
        (lambda model: model.forward, (2,)),
        (lambda model: lambda x: F.reshape(model(x), (1,)), ()),
        (lambda model: lambda x: F.reshape(model(x), (1, 1, 1)), ()),
        (lambda model: lambda x: _with_grad(L.Linear.forward(model, x)), ()),
        (lambda model: lambda x: _OwnLoss(model(x)), ()),
    ],
    ids=["link", "method", "shape (1,)", "shape (1, 1, 1)", "vector with a gradient", "own object"],
)
@pytest.mark.filterwarnings("ignore:Treating a variable with only one element:DeprecationWarning")
def test_every_loss_that_chainer_takes_is_taken(lossfun, arguments):
    """It may be a callable link, one element of any shape, any shape with a gradient, or have its own backward."""

    def prepare(cls):
        numpy.random.seed(0)
        return cls(lr=1e-2).setup(_Classifier(3, 1))

    def step(optimizer, t):
        optimizer.target.W.cleargrad()
        given = numpy.full((1, 3), t, "f4")
        optimizer.update(lossfun(optimizer.target), given, *arguments)

    assert_trains_as_chainers(prepare, step)


def test_update_calls_the_loss_function_with_its_arguments():
    """It gets positional and keyword arguments. Its gradients replace the previous ones."""
    given = []

    def prepare(cls):
        numpy.random.seed(0)
        return cls(lr=1e-2).setup(L.Linear(3, 2))

    def step(optimizer, t):
        def loss(x, scale):
            given.append((x, scale))
            return scale * F.sum(optimizer.target(x) ** 2)

        optimizer.target.W.grad = numpy.full_like(optimizer.target.W.array, 1e6)
        optimizer.update(loss, numpy.full((1, 3), t, "f4"), scale=2.0)

    assert_trains_as_chainers(prepare, step)
    assert [scale for _, scale in given] == [2.0] * 10


def test_update_without_a_loss_function_uses_the_present_gradients():
    """Each update adds one to t of the optimizer and of every rule."""
    assert_trains_as_chainers(
        lambda cls: cls().setup(Arrays(*gradients((2, 3), 4))),
        lambda optimizer, t: (optimizer.target.set_grads(*gradients((2, 3), 4, seed=t)), optimizer.update()),
    )


@pytest.mark.parametrize("use", [None, True, False], ids=["default", "clear", "zero"])
def test_use_cleargrads_chooses_between_clearing_and_zeroing(use):
    """The default is to clear. Chainer deprecated the choice in version 2, and the method warns."""
    called = []

    class Model(L.Linear):
        def cleargrads(self):
            called.append("cleargrads")
            super().cleargrads()

        def zerograds(self):
            called.append("zerograds")
            for param in self.params():
                param.grad = numpy.zeros_like(param.array)

    optimizer = RMSpropGraves().setup(Model(2, 1))
    if use is not None:
        with pytest.warns(DeprecationWarning, match="use_cleargrads is deprecated"):
            optimizer.use_cleargrads(use)
    optimizer.update(lambda: F.sum(optimizer.target(numpy.ones((1, 2), "f4"))))
    assert called == ["zerograds" if use is False else "cleargrads"]
    assert (optimizer.target.W.array != 0).all()


def test_reallocate_cleared_grads_makes_a_gradient_of_zeros():
    """The zeros have the parameter's shape and dtype. Other gradients stay the same arrays."""
    optimizer = RMSpropGraves().setup(Arrays(*gradients((2, 3), 4)))
    grad = numpy.ones(4, "f4")
    optimizer.target.p0.cleargrad()
    optimizer.target.p1.grad = grad
    optimizer.reallocate_cleared_grads()
    numpy.testing.assert_array_equal(optimizer.target.p0.grad, numpy.zeros((2, 3), "f4"))
    assert optimizer.target.p1.grad is grad


def test_new_epoch_refuses_to_count_an_epoch_twice():
    """Either the program counts epochs, or an updater that has set `use_auto_new_epoch` does."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    optimizer.new_epoch()
    assert optimizer.epoch == 1
    with pytest.raises(RuntimeError, match="invalid new_epoch call with auto=True"):
        optimizer.new_epoch(auto=True)
    optimizer.use_auto_new_epoch = True
    optimizer.new_epoch(auto=True)
    assert optimizer.epoch == 2
    with pytest.raises(RuntimeError, match="duplicated new_epoch with the updater"):
        optimizer.new_epoch()
    assert optimizer.epoch == 2


def test_an_uninitialized_parameter_is_updated_once_it_is_initialized():
    """A layer may take its input size from its first batch. Until then an update skips its weight."""
    optimizers = [cls().setup(chainer.Sequential(L.Linear(None, 2, initialW=0.5))) for cls in CLASSES]
    for optimizer in optimizers:
        layer = optimizer.target[0]
        layer.cleargrads()
        layer.b.grad = numpy.ones(2, "f4")
        optimizer.update()
        assert layer.W.array is None
        assert (layer.b.array != 0).all()
        for t in range(4):
            x = gradients((4, 3), seed=t)[0]
            optimizer.update(lambda x=x, model=optimizer.target: F.sum(model(x) ** 2))
    assert_same_training(*optimizers)


def test_a_parameter_shared_by_two_links_is_updated_twice():
    """Chainer lists it once for each link, and its rule's t counts both updates."""

    def prepare(cls):
        first = L.Linear(2, 2, initialW=0.5)
        second = L.Linear(2, 2, initialW=0.25)
        with second.init_scope():
            second.W = first.W
        return cls().setup(chainer.Sequential(first, second))

    def step(optimizer, t):
        x = gradients((4, 2), seed=t)[0]
        optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))

    ours, _ = assert_trains_as_chainers(prepare, step)
    assert ours.target[0].W is ours.target[1].W
    assert ours.target[0].W.update_rule.t == 10
    assert ours.target[0].b.update_rule.t == 5


def test_overriding_is_safe_to_update_skips_the_step():
    """Hooks run and t counts, but no parameter moves."""

    class Cautious(RMSpropGraves):
        def is_safe_to_update(self):
            return False

    called = []
    optimizer = Cautious().setup(Arrays([1.0]))
    for timing in ("pre", "post"):
        optimizer.add_hook(lambda optimizer, timing=timing: called.append(timing), timing, timing)
    optimizer.target.set_grads(numpy.ones(1))
    optimizer.update()
    assert called == ["pre", "post"]
    assert optimizer.t == 1
    numpy.testing.assert_array_equal(optimizer.target.p0.array, [1.0])


def test_the_examples_in_the_docstrings_run(monkeypatch):
    """A reader types them after the imports that any Chainer script has."""
    monkeypatch.setattr(chainer.optimizers, "RMSpropGraves", ChainerRMSpropGraves)
    names = {
        "chainer": chainer,
        "F": F,
        "numpy": numpy,
        "rmsprop_graves": rmsprop_graves,
        "RMSpropGraves": RMSpropGraves,
    }
    tests = [
        test
        for documented in (RMSpropGraves, RMSpropGravesRule, rmsprop_graves.install_in_chainer)
        for test in doctest.DocTestFinder().find(documented, documented.__name__, globs=names)
        if test.examples
    ]
    assert tests
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.summarize().failed == 0


def test_training_raises_no_warning():
    """Construction and all updates are silent, for unusual shapes too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = RMSpropGraves().setup(Arrays(*gradients((), 0, (2, 3))))
        for seed in range(3):
            optimizer.target.set_grads(*gradients((), 0, (2, 3), seed=seed))
            optimizer.update()
    assert optimizer.t == 3
