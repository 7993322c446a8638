"""User code that runs during an update: that it is called, and what it sees."""

from __future__ import annotations

import chainer
import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import arrays_of, copies_of, snapshot_of
from random_models import PerParameter, assert_same, param_of, plain, train_plain

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule


def times_of(optimizer):
    return [param_of(optimizer, i).update_rule.t for i in range(5)]


@pytest.mark.parametrize(("timing", "stepped"), [("pre", 2), ("post", 3)])
def test_a_rules_hook_finds_only_earlier_parameters_stepped(device, timing, stepped):
    """Its own parameter is stepped if the hook has the timing 'post'."""
    optimizer = train_plain(plain(RMSpropGraves, device), 0)
    before = snapshot_of(optimizer)
    seen = []
    optimizer.target.p2.update_rule.add_hook(lambda rule, param: seen.append(snapshot_of(optimizer)), "look", timing)
    train_plain(optimizer, 1)
    (found,) = seen
    for i in range(5):
        assert (found[f"/p{i}"] != before[f"/p{i}"]).any() == (i < stepped)
        assert found[f"/p{i}/t"] == (2 if i < 3 else 1)


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_after_an_exception_in_a_rules_hook_only_earlier_parameters_are_stepped(device, timing):
    """The others have not changed, and training can continue."""

    def refuse(rule, param):
        if rule.t == 2:
            raise RuntimeError("refused by a hook")

    optimizers = [plain(cls, device) for cls in (RMSpropGraves, PerParameter)]
    for optimizer in optimizers:
        optimizer.target.p2.update_rule.add_hook(refuse, timing=timing)
        train_plain(optimizer, 0)
        with pytest.raises(RuntimeError, match="refused by a hook"):
            train_plain(optimizer, 1)
        assert times_of(optimizer) == [2, 2, 2, 1, 1]
        train_plain(optimizer, 2)
    assert_same(*optimizers)


@pytest.mark.parametrize("entry", ["param", "n", "g", "delta"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_read_only_array_is_refused_before_any_parameter_has_moved(kernel, entry, place):
    """In Chainer's own loop, which updates one parameter after another, it is refused when its turn comes."""
    in_turn = [3] * (place + 1) + [2] * (4 - place)
    for cls, times in ((RMSpropGraves, [2] * 5), (PerParameter, in_turn)):
        optimizer = train_plain(plain(cls), 0, 1)
        param = param_of(optimizer, place)
        array = param.array if entry == "param" else param.update_rule.state[entry]
        array.flags.writeable = False
        before = copies_of(optimizer)
        with pytest.raises(ValueError, match=f"parameter p{place}: found .* read-only"):
            train_plain(optimizer, 2)
        assert times_of(optimizer) == times
        after = arrays_of(optimizer)
        moved = {path for path in before if (after[path] != before[path]).any()}
        assert {path[:3] for path in moved} == {f"/p{i}" for i in range(times.count(3) - 1)}


METHODS = ["update", "update_core", "update_core_on_device", "init_state", "param.update"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_set_on_an_instance_is_called(device, method):
    """It is called at every update, or for `init_state` at the first."""
    optimizer, expected = (plain(RMSpropGraves, device) for _ in range(2))
    param = optimizer.target.p2
    calls = []
    owner = param if method == "param.update" else param.update_rule
    name = method.rpartition(".")[2].replace("on_device", "cpu" if device == "@numpy" else "gpu")
    original = getattr(owner, name)

    def overridden(*args):
        calls.append(times_of(optimizer))
        original(*args)

    if method != "init_state":
        train_plain(optimizer, 0), train_plain(expected, 0)
    setattr(owner, name, overridden)
    train_plain(optimizer, 1, 2), train_plain(expected, 1, 2)
    assert len(calls) == (1 if method == "init_state" else 2)
    # The method is called after earlier parameters have counted the update, and before later ones do.
    first = calls[0]
    assert first[0] == first[1] == first[3] + 1 == first[4] + 1
    assert_same(optimizer, expected)


@pytest.mark.parametrize("method", METHODS[:3] + METHODS[4:])
def test_a_method_that_a_subclass_overrides_is_called(device, method):
    """The subclass is of a rule, made by `create_update_rule`, or of a parameter."""
    calls = []
    name = method.rpartition(".")[2].replace("on_device", "cpu" if device == "@numpy" else "gpu")
    base = chainer.Parameter if method == "param.update" else RMSpropGravesRule

    def overridden(self, *args):
        calls.append(self)
        getattr(base, name)(self, *args)

    subclass = type("Subclass", (base,), {name: overridden})

    class Overriding(RMSpropGraves):
        def create_update_rule(self):
            return subclass(self.hyperparam) if base is RMSpropGravesRule else super().create_update_rule()

    optimizers = [plain(cls, device) for cls in (Overriding, RMSpropGraves)]
    if base is chainer.Parameter:
        for optimizer in optimizers:
            old = optimizer.target.p2
            with optimizer.target.init_scope():
                optimizer.target.p2 = (subclass if optimizer is optimizers[0] else chainer.Parameter)(old.array)
            optimizer.target.p2.update_rule = old.update_rule
    for optimizer in optimizers:
        train_plain(optimizer, 0, 1, 2)
    assert len(calls) == 3 * (1 if base is chainer.Parameter else 5)
    assert_same(*optimizers)


def test_a_device_of_another_class_updates_its_parameter_as_with_chainers_class(kernel):
    """Such a device may do anything, so its parameter is stepped alone. New states pass through its `send`."""
    sent = []

    class Device(chainer.backend.CpuDevice):
        def send(self, arrays):
            sent.append(arrays)
            return super().send(arrays)

    optimizers = [plain(cls) for cls in (ChainerRMSpropGraves, RMSpropGraves)]
    for optimizer in optimizers:
        sent.clear()
        optimizer.target.p2._device = Device()
        for step in range(4):
            for param in optimizer.target.params():
                param.grad = numpy.full(param.shape, 1 + step, param.dtype)
            optimizer.update()
    assert len(sent) >= 3
    assert_same(*optimizers)


def test_a_subclass_need_not_call_our_constructor(device):
    """It may set the hyperparameters itself, as a subclass of Chainer's class may."""

    class Own(RMSpropGraves):
        def __init__(self, **values):
            chainer.optimizer.GradientMethod.__init__(self)
            self.hyperparam = RMSpropGraves(**values).hyperparam

    assert_same(*(train_plain(plain(cls, device), 0, 1) for cls in (Own, RMSpropGraves)))
