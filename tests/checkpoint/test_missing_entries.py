"""Entries may be missing if the parameter had no state or is frozen, or if the caller allows it."""

from __future__ import annotations

import numpy
import pytest
from chainer.serializers import NpzDeserializer, load_npz, save_npz
from checkpoint.training import (
    STATES,
    condition_of,
    copy_params,
    entries_of,
    everything_of,
    fresh,
    load_from_dict,
    states_of,
    train,
    without,
)
from file_formats import write_npz
from models import arrays_of, assert_same_bits

# Saved before the first update. Chainer cannot load such a checkpoint.


def test_a_checkpoint_saved_before_the_first_update_sets_the_state_to_zero(load_entries, updates):
    """The existing arrays are set to zero, and t becomes 0."""
    entries = entries_of(fresh())
    assert "p0/n" not in entries
    optimizer = train(fresh(), *range(4, 4 + updates))
    before = states_of(optimizer)
    load_entries(entries, optimizer)
    copy_params(fresh(), optimizer)
    assert (optimizer.t, [param.update_rule.t for param in optimizer.target.params()]) == (0, [0, 0, 0])
    assert all(states_of(optimizer)[path] is array and not array.any() for path, array in before.items())
    assert_same_bits(arrays_of(train(optimizer, 1, 2)), arrays_of(train(fresh(), 1, 2)))


def test_a_resized_parameter_gets_a_new_state_from_a_checkpoint_saved_before_the_first_update(load_entries):
    """Loading set its old state to zeros in the old shape, and every later update failed."""
    optimizer = train(fresh(), 1)
    param = optimizer.target.p1
    param.cleargrad()
    param.array = numpy.zeros(7, "f4")
    load_entries(entries_of(fresh()), optimizer)
    train(optimizer, 2)
    assert param.update_rule.state["n"].shape == (7,)


def test_a_float16_parameter_rolled_back_to_before_its_first_update_gets_float32_states():
    """The zeros kept the float16 of the old state. In a new process they are float32, like the master."""
    optimizer = train(fresh("f2"), 1)
    load_from_dict(entries_of(fresh("f2")), optimizer)
    optimizer.use_fp32_update()
    train(optimizer, 2)
    assert {state.dtype.name for state in states_of(optimizer).values()} == {"float32"}


# Frozen parameters


def test_all_entries_of_a_frozen_parameter_may_be_missing(load_entries, updates):
    """This includes its t. Nothing of the parameter changes."""
    entries = entries_of(train(fresh(), 1, 2, 3))
    without("p1/t", *(f"p1/{name}" for name in STATES))(entries)
    optimizer = train(fresh(), *range(4, 4 + updates))
    optimizer.target.p1.update_rule.enabled = False
    before = condition_of(optimizer.target.p1)
    load_entries(entries, optimizer)
    assert (optimizer.t, optimizer.target.p0.update_rule.t) == (3, 3)
    assert condition_of(optimizer.target.p1) == before


def test_the_states_of_a_frozen_parameter_may_be_missing(load_entries, updates):
    """The parameter's t is loaded, and its states stay unchanged."""
    saved = train(fresh(), 1)
    saved.target.p1.update_rule.enabled = False
    entries = entries_of(train(saved, 2))
    without(*(f"p1/{name}" for name in STATES))(entries)
    entries["p1/t"] = numpy.array(7)
    optimizer = train(fresh(), *range(4, 4 + updates))
    optimizer.target.p1.update_rule.enabled = False
    before = condition_of(optimizer.target.p1)
    load_entries(entries, optimizer)
    after = condition_of(optimizer.target.p1)
    assert optimizer.target.p1.update_rule.t == 7
    assert after["states"] == before["states"]
    assert all(after["entries"][name] == before["entries"][name] for name in before["states"] or ())
    train(optimizer, 5)


def test_a_frozen_parameter_with_states_but_no_t_is_refused(load_entries):
    """Half of its entries are missing, so the file is damaged."""
    entries = entries_of(train(fresh(), 1, 2, 3))
    without("p1/t")(entries)
    optimizer = train(fresh(), 4)
    optimizer.target.p1.update_rule.enabled = False
    before = everything_of(optimizer)
    with pytest.raises(KeyError, match="/p1/t: it is not in the checkpoint"):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before


# strict=False and ignore_names


def test_without_strict_missing_entries_leave_values_as_they_are(tmp_path):
    """All other entries are loaded."""
    saved, optimizer = train(fresh(), 1, 2, 3), train(fresh(), 4, 5)
    entries = entries_of(saved)
    without("t", "p1/n", "p2/t")(entries)
    kept = optimizer.target.p1.update_rule.state["n"].copy()
    write_npz(tmp_path / "some.npz", entries)
    load_npz(str(tmp_path / "some.npz"), optimizer, strict=False)
    assert (optimizer.t, optimizer.target.p2.update_rule.t, optimizer.target.p0.update_rule.t) == (2, 2, 3)
    states = optimizer.target.p1.update_rule.state
    assert states["n"].tobytes() == kept.tobytes()
    assert states["g"].tobytes() == saved.target.p1.update_rule.state["g"].tobytes()


def test_without_strict_an_incomplete_state_is_not_loaded_into_a_rule_that_has_none(tmp_path):
    """The next update makes a complete one."""
    entries = entries_of(train(fresh(), 1, 2, 3))
    without("p1/n")(entries)
    write_npz(tmp_path / "some.npz", entries)
    optimizer = fresh()
    load_npz(str(tmp_path / "some.npz"), optimizer, strict=False)
    assert optimizer.target.p1.update_rule.state is None
    train(optimizer, 6)
    assert optimizer.target.p1.update_rule.state.keys() == set(STATES)


def test_ignored_names_stay_as_they_are(tmp_path):
    """Chainer's class does the same."""
    saved, optimizer = train(fresh(), 1, 2, 3), train(fresh(), 4, 5)
    kept = optimizer.target.p1.update_rule.state["n"].copy()
    save_npz(str(tmp_path / "all.npz"), saved)
    load_npz(str(tmp_path / "all.npz"), optimizer, ignore_names=["t", "p1/n"])
    assert (optimizer.t, optimizer.target.p1.update_rule.t) == (2, 3)
    assert optimizer.target.p1.update_rule.state["n"].tobytes() == kept.tobytes()
    assert optimizer.target.p1.update_rule.state["g"].tobytes() == entries_of(saved)["p1/g"].tobytes()


def test_an_ignored_count_does_not_excuse_missing_states():
    """Only a saved count of zero shows that a rule had no state to save."""
    entries = entries_of(train(fresh(), 1))
    without("p1/n", "p1/g", "p1/delta")(entries)
    with pytest.raises(KeyError, match="/p1/n: it is not in the checkpoint"):
        NpzDeserializer(entries, ignore_names=["p1/t"]).load(fresh())
