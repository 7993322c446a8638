"""Names that do not exist: arguments, attributes and hyperparameters of the optimizer."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import warnings
from types import SimpleNamespace

import chainer
import pytest
from models import Arrays

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("learning_rate", "its name is lr"),
        ("LR", "its name is lr"),
        ("epsilon", "its name is eps"),
        ("rho", "its name is alpha"),
        ("momemtum", "its name is momentum"),
        ("aplha", "its name is alpha"),
        ("decay", "the decay rate of the running means is alpha; to decay lr, set optimizer.lr during training"),
        ("centered", "the arguments are lr, alpha, momentum, eps"),
        ("weight_decay", "call add_hook(chainer.optimizer_hooks.WeightDecay(rate))"),
    ],
)
def test_the_error_of_an_unknown_argument_says_what_to_write(name, advice):
    """The message is Python's, followed by advice."""
    with pytest.raises(TypeError) as caught:
        RMSpropGraves(**{name: 0.1})
    assert str(caught.value) == f"RMSpropGraves() got an unexpected keyword argument {name!r}: {advice}"


@pytest.mark.parametrize("make", [lambda model: (model,), lambda model: (model.params(),)], ids=["model", "params"])
def test_a_model_as_first_argument_is_sent_to_setup_even_beside_a_keyword(make):
    """As in `RMSprop(model.parameters(), lr=0.1)` of PyTorch. Python's own error would be about two values for lr."""
    with pytest.raises(TypeError, match=r"^lr must be a number, got an? .*: pass the model to setup, as in"):
        RMSpropGraves(*make(Arrays([1.0])), lr=0.1)


def test_a_model_by_keyword_is_sent_to_setup():
    """The name of the keyword does not matter."""
    with pytest.raises(TypeError, match=r"argument 'model': pass the model to setup, as in RMSpropGraves\(\)\.setup"):
        RMSpropGraves(model=Arrays([1.0]))


def test_the_signature_is_shown_as_it_is_written():
    """`help` and editors show the four arguments with their defaults."""
    assert list(inspect.signature(RMSpropGraves).parameters) == ["lr", "alpha", "momentum", "eps"]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("learning_rate", "lr"),
        ("Lr", "lr"),
        ("epsilon", "eps"),
        ("momentun", "momentum"),
        ("alhpa", "alpha"),
        ("lerning_rate", "lr"),
        ("stepsize", "lr"),
        ("epsilom", "eps"),
    ],
)
@pytest.mark.parametrize("place", ["optimizer", "hyperparam", "rule's hyperparam", "schedule"])
def test_setting_a_misnamed_hyperparameter_warns_at_the_users_line(place, name, right):
    """Python would set an attribute that nothing reads, and the training would go on with the old value."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    rule = optimizer.target.p0.update_rule
    trainer = SimpleNamespace(updater=SimpleNamespace(iteration=1))
    set_it = {
        "optimizer": lambda: setattr(optimizer, name, 0.5),
        "hyperparam": lambda: setattr(optimizer.hyperparam, name, 0.5),
        "rule's hyperparam": lambda: setattr(rule.hyperparam, name, 0.5),
        "schedule": lambda: chainer.training.extensions.LinearShift(name, (1, 0.5), (0, 1), optimizer)(trainer),
    }[place]
    expected = f"^{name} has no effect: the name of this hyperparameter is {right}$"
    with pytest.warns(UserWarning, match=expected) as caught:
        set_it()
    assert [one.filename for one in caught] == [__file__]


def test_a_programs_own_attributes_do_not_warn():
    """Any other name is free, and a subclass may use every name."""

    class Scheduled(RMSpropGraves):
        def __init__(self):
            super().__init__()
            self.learning_rate = 0.5

    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    names = "alpha0", "initial_lr", "lr_decay", "epoch_size", "ep", "steps", "_epsilon", "beta", "decay"
    names += "step", "save", "load", "params", "param_groups", "zero_grad", "minimize"
    names += "learning_rates", "epsilon_decay", "step_size_0", "learning_starts", "batch_size", "episodes"
    for name in names:
        setattr(optimizer, name, 1)
        setattr(optimizer.hyperparam, name, 1)
        assert getattr(optimizer, name) == 1
    assert Scheduled().learning_rate == 0.5


@pytest.mark.parametrize(
    ("name", "hook"), [("weight_decay", "WeightDecay(rate)"), ("clip_grads", "GradientClipping(norm)")]
)
def test_setting_a_value_that_belongs_to_a_hook_warns_at_the_users_line(name, hook):
    """The training would go on without decay or clipping. On a hyperparam, where own rules look, it is silent."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    setattr(optimizer.hyperparam, name, 0.1)
    expected = rf"^{name} has no effect: call add_hook\(chainer\.optimizer_hooks\.{re.escape(hook)}\)$"
    with pytest.warns(UserWarning, match=expected) as caught:
        setattr(optimizer, name, 0.1)
    assert [one.filename for one in caught] == [__file__]
    assert getattr(optimizer, name) == 0.1


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("learning_rate", "its name is lr"),
        ("step", "call update()"),
        ("zero_grad", "call model.cleargrads()"),
        ("state_dict", "call chainer.serializers.save_npz(file, optimizer)"),
    ],
)
def test_the_error_of_a_missing_attribute_says_what_to_write(name, advice):
    """The names are PyTorch's or misspelled. Python adds no guess of its own, and the attribute is still missing."""
    optimizer = RMSpropGraves()
    assert not hasattr(optimizer, name)
    with pytest.raises(AttributeError) as caught:
        getattr(optimizer, name)
    assert str(caught.value) == f"'RMSpropGraves' object has no attribute {name!r}: {advice}"


def test_other_missing_attributes_raise_pythons_error():
    """copy and pickle look up many. The error of a subclass without hyperparameters names the missing attribute."""

    class Empty(RMSpropGraves):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match=r"^'RMSpropGraves' object has no attribute 'colour'$"):
        RMSpropGraves().colour  # noqa: B018
    with pytest.raises(AttributeError, match=r"^'Empty' object has no attribute 'hyperparam'$"):
        Empty().lr  # noqa: B018
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for twin in (copy.copy(RMSpropGraves(lr=1)), pickle.loads(pickle.dumps(RMSpropGraves(lr=1)))):
            assert twin.lr == 1


def test_a_class_of_hooks_is_refused():
    """Chainer would create an object at each update: GradientClipping(optimizer) clips nothing."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    expected = r"^hook must be a function, got the class GradientClipping: create it first, as in GradientClipping\("
    with pytest.raises(TypeError, match=expected):
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping)


def test_a_timing_in_place_of_the_name_warns():
    """The second argument is the hook's name, so the hook would be called before the step."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    with pytest.warns(UserWarning, match="^the hook is named 'post': .* write timing='post'$") as caught:
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4), "post")
    assert [one.filename for one in caught] == [__file__]
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(1), "pre")


def test_a_number_in_place_of_the_parent_is_refused():
    """A rule's first argument is the optimizer's hyperparameters. Chainer's rule fails only at the first update."""
    with pytest.raises(TypeError, match=r"^parent_hyperparam must be a Hyperparameter, got 0.1: .*\(lr=0.1\)"):
        RMSpropGravesRule(0.1)
