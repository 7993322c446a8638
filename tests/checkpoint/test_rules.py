"""Rules loaded by themselves, rules of other classes, and subclasses with entries of their own."""

from __future__ import annotations

import chainer
import numpy
import pytest
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.sgd import SGDRule
from chainer.serializer import Deserializer
from chainer.serializers import NpzDeserializer
from checkpoint.training import (
    STATES,
    condition_of,
    entries_of,
    everything_of,
    fresh,
    load_from_dict,
    replaced,
    train,
    without,
)

from rmsprop_graves import RMSpropGravesRule


def with_rule(rule_class):
    """Make an optimizer with a rule of this class for the parameter p1."""
    optimizer = fresh()
    optimizer.target.p1.update_rule = rule_class(optimizer.hyperparam)
    return optimizer


def test_a_rule_is_loaded_by_itself_as_a_whole_or_not_at_all():
    """The rule does not know its parameter, so its old state gives the shapes."""
    param = train(fresh(), 1, 2).target.p1
    rule = param.update_rule
    entries = entries_of(train(fresh(), 3).target.p1.update_rule)
    before = condition_of(param)
    with pytest.raises(ValueError, match=r"/delta: found shape \(5,\), expected \(4,\)"):
        load_from_dict({**entries, "delta": numpy.ones(5, "f4")}, rule)
    assert condition_of(param) == before
    load_from_dict(entries, rule)
    assert rule.t == 1
    assert all(rule.state[name].tobytes() == entries[name].tobytes() for name in STATES)


def with_rules_of_chainer():
    """Make an optimizer that has Chainer's own rules for two of its parameters."""
    optimizer = fresh()
    optimizer.target.p2.update_rule = AdamRule(chainer.optimizers.Adam().hyperparam)
    optimizer.target.p1.update_rule = SGDRule(lr=0.1)
    return optimizer


@pytest.mark.parametrize(
    "damage",
    [without("p2/v"), replaced("p2/v", numpy.ones(3, "f4")), replaced("p0/n", numpy.ones(3, "f4"))],
    ids=["missing in a rule of Chainer's", "wrong in a rule of Chainer's", "wrong in a rule of ours"],
)
def test_rules_of_chainer_are_restored_after_an_error(load_entries, damage):
    """Chainer's rules write while they read: t and m are loaded before the error."""
    entries = entries_of(train(with_rules_of_chainer(), 1, 2, 3))
    damage(entries)
    optimizer = train(with_rules_of_chainer(), 4, 5)
    before = everything_of(optimizer)
    # Chainer's errors depend on the file format.
    with pytest.raises((KeyError, TypeError, ValueError)):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before


def test_rules_of_chainer_are_restored_to_having_no_state(load_entries):
    """The rules have not had their first update."""
    entries = entries_of(train(with_rules_of_chainer(), 1, 2, 3))
    without("p2/v")(entries)
    optimizer = with_rules_of_chainer()
    before = everything_of(optimizer)
    with pytest.raises(KeyError):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before


def test_rules_of_chainer_are_loaded(load_entries, updates):
    """The optimizer has rules of this package too."""
    entries = entries_of(train(with_rules_of_chainer(), 1, 2, 3))
    optimizer = train(with_rules_of_chainer(), *range(4, 4 + updates))
    load_entries(entries, optimizer)
    assert {key: value.tobytes() for key, value in entries_of(optimizer).items()} == {
        key: value.tobytes() for key, value in entries.items()
    }


class Noted(RMSpropGravesRule):
    """A rule that saves a note of its own, and another note after everything else."""

    note = last_note = 0

    def serialize(self, serializer):
        """Save or load the notes too. Only loading sets an attribute."""
        note = serializer("note", self.note)
        if isinstance(serializer, Deserializer):
            self.note = note
        super().serialize(serializer)
        serializer("last_note", self.last_note)


def test_a_subclass_that_extends_serialize_is_checked_against_its_parameter(load_entries, updates):
    """Errors name the parameter and give its shape, and states get its dtype."""
    saved = train(with_rule(Noted), 1)
    saved.target.p1.update_rule.note = 5
    entries = entries_of(saved)
    optimizer = train(with_rule(Noted), *range(4, 4 + updates))
    before = everything_of(optimizer)
    broken = {**entries, **{f"p1/{name}": numpy.ones(7, "f4") for name in STATES}}
    with pytest.raises(ValueError, match=r"/p1/n: found shape \(7,\), expected \(4,\)"):
        load_entries(broken, optimizer)
    assert everything_of(optimizer) == before
    load_entries({**entries, "p1/n": entries["p1/n"].astype("f8")}, optimizer)
    rule = optimizer.target.p1.update_rule
    assert (rule.note, rule.state["n"].dtype) == (5, numpy.float32)
    assert rule.state["n"].tobytes() == entries["p1/n"].tobytes()


class Counting(RMSpropGravesRule):
    """A rule with two more entries in its state, an array and a number."""

    def init_state(self, param):
        """Add both entries to n, g and delta."""
        super().init_state(param)
        self.state["more"] = numpy.zeros(2)
        self.state["count"] = 3


class NotedAndCounting(Noted, Counting):
    """A rule with more entries both in its state and beside it."""


@pytest.mark.parametrize("rule_class", [Noted, NotedAndCounting])
def test_a_subclass_that_extends_serialize_is_restored_after_an_error(load_entries, updates, rule_class):
    """The error comes after its states have been loaded and an attribute has been set."""
    saved = train(with_rule(rule_class), 1)
    saved.target.p1.update_rule.state["count"] = 7
    entries = entries_of(saved)
    entries["p1/note"] = numpy.array(5)
    without("p1/last_note")(entries)
    optimizer = train(with_rule(rule_class), *range(4, 4 + updates))
    before = everything_of(optimizer)
    with pytest.raises(KeyError, match="last_note"):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before
    assert optimizer.target.p1.update_rule.note == 0


class Grouped(RMSpropGravesRule):
    """A rule that keeps a note in a group of its own."""

    note = 0
    is_strict = None

    def serialize(self, serializer):
        """Save or load the rule and its note."""
        super().serialize(serializer)
        self.note = serializer["notes"]("note", self.note)
        if isinstance(serializer, Deserializer):
            self.is_strict = serializer.strict


@pytest.mark.parametrize("is_strict", [True, False])
def test_a_subclass_reads_groups_and_attributes_of_chainers_deserializer(is_strict):
    """The subclass gets a deserializer that also knows the parameter, and otherwise works like Chainer's."""
    saved, optimizer = train(with_rule(Grouped), 1), with_rule(Grouped)
    saved.target.p1.update_rule.note = 5
    entries = entries_of(saved)
    assert entries["p1/notes/note"] == 5
    NpzDeserializer(entries, strict=is_strict).load(optimizer)
    assert (optimizer.target.p1.update_rule.note, optimizer.target.p1.update_rule.is_strict) == (5, is_strict)


def test_a_subclass_with_more_states_saves_and_loads_them(load_entries):
    """An array must keep its shape. A number is read as Chainer reads it."""
    saved = train(with_rule(Counting), 1)
    saved.target.p1.update_rule.state.update(more=numpy.array([5.0, 6.0]), count=7)
    entries = entries_of(saved)
    optimizer = train(with_rule(Counting), 2)
    load_entries(entries, optimizer)
    state = optimizer.target.p1.update_rule.state
    assert (state["more"].tolist(), state["count"]) == ([5, 6], 7)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=r"/p1/more: found shape \(3,\), expected \(2,\)"):
        load_entries({**entries, "p1/more": numpy.ones(3)}, optimizer)
    assert everything_of(optimizer) == before


def test_a_subclass_with_more_states_loads_them_before_its_first_update(load_entries):
    """Without an old state there is no shape to keep."""
    saved = train(with_rule(Counting), 1)
    saved.target.p1.update_rule.state["more"] = numpy.array([5.0, 6.0])
    optimizer = with_rule(Counting)
    load_entries(entries_of(saved), optimizer)
    assert train(optimizer, 3).target.p1.update_rule.state["more"].tolist() == [5, 6]


class Meddling(RMSpropGravesRule):
    """A rule that sets a hyperparameter and adds to its state before an entry can fail to load."""

    def serialize(self, serializer):
        """When loading, set a learning rate and add a state. Then load or save the rule."""
        if isinstance(serializer, Deserializer):
            self.hyperparam.lr = 7.0
            if self.state is not None:
                self.state["extra"] = numpy.zeros(3)
        super().serialize(serializer)


def test_an_error_takes_back_added_states_and_hyperparameters(load_entries, updates):
    """The rule fails after it has changed more than its arrays."""
    entries = entries_of(train(with_rule(Meddling), 1))
    without("p1/n")(entries)
    optimizer = train(with_rule(Meddling), *range(4, 4 + updates))
    rule = optimizer.target.p1.update_rule
    before = everything_of(optimizer)
    with pytest.raises(KeyError, match="n"):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before
    assert "extra" not in (rule.state or {})
    assert rule.hyperparam.lr == optimizer.lr
