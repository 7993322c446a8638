"""Each parameter is stepped with the hyperparameters that it has when its turn comes."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizer import Hyperparameter
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import snapshot_of
from random_models import PerParameter, assert_same, plain, train_plain

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule

CLASSES = (RMSpropGraves, PerParameter, ChainerRMSpropGraves)


def on(device):
    """Return the classes that train on the device."""
    return CLASSES if device == "@numpy" else CLASSES[:2]


def test_a_rules_own_values_win_and_the_others_follow_the_optimizers(device):
    """Rules' and optimizers' values may be set at any time."""
    optimizers = [train_plain(plain(cls, device), 0) for cls in on(device)]
    for optimizer in optimizers:
        rules = [param.update_rule for param in optimizer.target.params()]
        rules[0].hyperparam.lr, rules[2].hyperparam.momentum = 0.1, 0.5
        train_plain(optimizer, 1, 2)
        optimizer.lr = 0.02
        rules[3].hyperparam.alpha, rules[3].hyperparam.eps = 0.5, 1e-2
        train_plain(optimizer, 3)
        del rules[0].hyperparam.lr
        train_plain(optimizer, 4)
    assert_same(*optimizers)


def test_a_negative_zero_is_not_zero(device):
    """A learning rate of -0.0 changes the sign of zeros in delta."""
    optimizers = [train_plain(plain(cls, device), 0) for cls in on(device)]
    for optimizer in optimizers:
        optimizer.momentum = optimizer.lr = 0.0
        optimizer.target.p1.update_rule.hyperparam.lr = -0.0
        train_plain(optimizer, 1)
    assert_same(*optimizers)
    signs = {name: numpy.signbit(array).any() for name, array in snapshot_of(optimizers[0]).items()}
    assert any(signs[f"/p{i}/delta"] for i in range(5))


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
def test_a_missing_hyperparameter_is_noticed_when_its_turn_comes(device, name):
    """Earlier parameters have values of their own and are stepped; later ones are not."""
    ends = []
    for cls in on(device):
        optimizer = train_plain(plain(cls, device), 0, 1)
        params = [getattr(optimizer.target, f"p{i}") for i in range(5)]
        for param in params[:2]:
            setattr(param.update_rule.hyperparam, name, 0.5)
        delattr(optimizer.hyperparam, name)
        before = snapshot_of(optimizer)
        with pytest.raises(AttributeError, match=name):
            train_plain(optimizer, 2)
        after = snapshot_of(optimizer)
        ends.append([(param.name, (before[f"/{param.name}"] != after[f"/{param.name}"]).any()) for param in params])
        assert [param.update_rule.t for param in params] == [3, 3, 3, 2, 2]
    assert [moved for _, moved in ends[0]] == [True, True, False, False, False]
    assert all(end == ends[0] for end in ends)


def test_a_rule_of_create_update_rule_may_have_values_of_its_own(device):
    """The rule is of this package's own class."""

    class Faster(RMSpropGraves):
        def create_update_rule(self):
            return RMSpropGravesRule(self.hyperparam, lr=0.02)

    faster, expected = plain(Faster, device), plain(RMSpropGraves, device)
    expected.lr = 0.02
    assert_same(train_plain(faster, 0, 1, 2), train_plain(expected, 0, 1, 2))


class TenfoldRate(Hyperparameter):
    """Hyperparameters with a computed learning rate."""

    @property
    def lr(self):
        """Return ten times the inherited value."""
        return 10 * self.parent.lr


def test_rules_may_inherit_from_different_hyperparameters(device):
    """They may belong to another optimizer, or to a class that computes a value."""
    optimizers = [train_plain(plain(cls, device), 0) for cls in on(device)]
    for optimizer in optimizers:
        other = type(optimizer)(lr=0.03, alpha=0.5, momentum=0.3, eps=1e-3)
        rules = [param.update_rule for param in optimizer.target.params()]
        rules[1].hyperparam = type(rules[1].hyperparam)(other.hyperparam)
        rules[3].hyperparam = TenfoldRate(optimizer.hyperparam)
        train_plain(optimizer, 1)
        optimizer.lr, other.lr = 0.02, 0.04
        train_plain(optimizer, 2)
    assert_same(*optimizers)
