"""Memory that loading takes, and arrays that an optimizer must not share with the entries it loads."""

from __future__ import annotations

import tracemalloc

import numpy
from chainer.serializers import load_npz, save_npz
from checkpoint.training import entries_of, fresh, load_from_dict, mastered, model_of, train

from rmsprop_graves import RMSpropGraves


def test_loading_costs_one_temporary_copy_of_the_state(tmp_path):
    """A state of 12 MB is loaded into existing arrays."""
    optimizer = train(RMSpropGraves().setup(model_of(shapes=((1_000_000,),))), 1)
    save_npz(str(tmp_path / "large.npz"), optimizer, compression=False)
    tracemalloc.start()
    try:
        load_npz(str(tmp_path / "large.npz"), optimizer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 12e6


def test_training_does_not_write_into_the_entries_it_was_loaded_from():
    """An optimizer without states used the arrays of a dict as its states."""
    entries = entries_of(train(fresh(), 1, 2))
    for value in entries.values():
        value.flags.writeable = False
    before = {key: value.tobytes() for key, value in entries.items()}
    optimizer = fresh()
    load_from_dict(entries, optimizer)
    train(optimizer, 3)
    assert {key: value.tobytes() for key, value in entries.items()} == before
    states = optimizer.target.p1.update_rule.state
    assert not any(numpy.shares_memory(states[name], entries[f"p1/{name}"]) for name in states)


def test_training_does_not_write_into_entries_that_are_wider_than_the_old_state():
    """A float32 entry took the place of a float16 state, and the rule trained on the entry itself."""
    entries = entries_of(train(mastered(), 1, 2))
    before = {key: value.tobytes() for key, value in entries.items()}
    optimizer = train(fresh("f2"), 3)
    load_from_dict(entries, optimizer)
    optimizer.use_fp32_update()
    train(optimizer, 4)
    assert {key: value.tobytes() for key, value in entries.items()} == before
