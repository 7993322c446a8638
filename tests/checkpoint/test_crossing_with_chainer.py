"""Checkpoints go from Chainer's class to this package's and back."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.serializers import load_npz, save_npz
from checkpoint.training import entries_of, everything_of, mastered, masters_of, model_of, states_of, train, without
from file_formats import SAVE_AND_LOAD, write_npz
from models import arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves

# No scalar parameter: Chainer computes its step in float64, so the bits would differ.
SHAPES = ((2, 3), (4,))

both_ways = pytest.mark.parametrize(
    ("first", "second"),
    [(RMSpropGraves, ChainerRMSpropGraves), (ChainerRMSpropGraves, RMSpropGraves)],
    ids=["to Chainer", "from Chainer"],
)


@both_ways
@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_training_goes_on_with_the_same_bits_in_the_other_class(tmp_path, updates, first, second, save, load, dtype):
    """The result is as if the first class had trained on."""

    def set_up(cls):
        return cls(lr=0.01).setup(model_of(dtype, shapes=SHAPES))

    saved = train(set_up(first), 1, 2, 3)
    save(str(tmp_path / "file"), saved)
    save(str(tmp_path / "model"), saved.target)
    optimizer = train(set_up(second), *range(8, 8 + updates))
    load(str(tmp_path / "file"), optimizer)
    load(str(tmp_path / "model"), optimizer.target)
    assert_same_bits(arrays_of(train(optimizer, 4, 5)), arrays_of(train(saved, 4, 5)))


@both_ways
@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
def test_chainers_class_and_ours_make_masters_from_the_parameters_of_each_other(tmp_path, first, second, save, load):
    """Chainer's class ignores the masters in our file, and its own file has none."""
    saved = train(mastered(first, shapes=SHAPES), 1, 2, 3)
    save(str(tmp_path / "file"), saved)
    save(str(tmp_path / "model"), saved.target)
    optimizer = mastered(second, shapes=SHAPES)
    load(str(tmp_path / "file"), optimizer)
    load(str(tmp_path / "model"), optimizer.target)
    rounded = {path: param.array.astype("f4") for path, param in optimizer.target.namedparams()}
    train(optimizer, 4)
    states = states_of(optimizer)
    expected = {path: array + states[f"{path}/delta"] for path, array in rounded.items()}
    assert_same_bits(masters_of(optimizer), expected)


def of_chainer_2():
    """Train Chainer's class. Return it, and its entries as Chainer 2 saved them: without the rules' t."""
    saved = train(ChainerRMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), 1, 2, 3)
    entries = entries_of(saved)
    without("p0/t", "p1/t")(entries)
    return saved, entries


def test_a_checkpoint_of_chainer_2_is_loaded(load_entries, updates):
    """The file has no t of the rules, so they take the optimizer's t."""
    saved, entries = of_chainer_2()
    optimizer = train(RMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), *range(8, 8 + updates))
    load_entries(entries, optimizer)
    optimizer.target.copyparams(saved.target)
    assert [param.update_rule.t for param in optimizer.target.params()] == [3, 3]
    assert_same_bits(arrays_of(train(optimizer, 4, 5)), arrays_of(train(saved, 4, 5)))


def test_a_checkpoint_of_chainer_2_is_loaded_from_a_snapshot(tmp_path, updates):
    """In a snapshot, the optimizer's entries have a prefix."""
    saved, entries = of_chainer_2()
    path = "updater/optimizer:main/"
    write_npz(tmp_path / "snapshot.npz", {path + key: value for key, value in entries.items()})
    optimizer = train(RMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), *range(8, 8 + updates))
    load_npz(str(tmp_path / "snapshot.npz"), optimizer, path=path)
    optimizer.target.copyparams(saved.target)
    assert_same_bits(arrays_of(train(optimizer, 4, 5)), arrays_of(train(saved, 4, 5)))


def test_without_strict_rules_keep_their_t(tmp_path, updates):
    """With strict=False, a missing entry leaves its value unchanged. Chainer 2 saved no t of the rules."""
    _, entries = of_chainer_2()
    write_npz(tmp_path / "file.npz", entries)
    optimizer = train(RMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), *range(8, 8 + updates))
    load_npz(str(tmp_path / "file.npz"), optimizer, strict=False)
    assert (optimizer.t, [param.update_rule.t for param in optimizer.target.params()]) == (3, [updates, updates])


def test_a_checkpoint_of_chainer_2_saved_before_the_first_update_sets_states_to_zero(load_entries, updates):
    """Such a file holds only t and epoch."""
    optimizer = train(RMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), *range(8, 8 + updates))
    load_entries({"t": numpy.array(0), "epoch": numpy.array(0)}, optimizer)
    assert [param.update_rule.t for param in optimizer.target.params()] == [0, 0]
    assert not any(state.any() for state in states_of(optimizer).values())


@pytest.mark.parametrize("lost", [("p0/n",), ("p1/g",), ("p1/delta",), ("p1/n", "p1/g", "p1/delta")])
def test_a_checkpoint_of_chainer_2_that_lost_a_state_is_refused(load_entries, updates, lost):
    """The optimizer had been updated, so every parameter had a state to save."""
    _, entries = of_chainer_2()
    without(*lost)(entries)
    optimizer = train(RMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), *range(8, 8 + updates))
    before = everything_of(optimizer)
    with pytest.raises(KeyError, match=f"/{lost[0]}: it is not in the checkpoint"):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before


def test_only_our_files_hold_masters():
    """The masters have a key that Chainer's class does not read."""
    keys = {cls: entries_of(train(mastered(cls), 1)).keys() for cls in (RMSpropGraves, ChainerRMSpropGraves)}
    assert keys[RMSpropGraves] - keys[ChainerRMSpropGraves] == {f"p{i}/fp32_param" for i in range(3)}
    assert keys[ChainerRMSpropGraves] <= keys[RMSpropGraves]


def train_strongly(optimizer, *seeds):
    """Update with gradients whose squares overflow in float16."""
    for seed in seeds:
        for param in optimizer.target.params():
            param.grad = numpy.full(param.shape, 2000 + seed, "f2")
        optimizer.update()
    return optimizer


def test_float32_states_of_chainers_class_wait_for_use_fp32_update(tmp_path, updates):
    """Loading used to convert them to float16: n overflowed, and its elements were never updated again."""
    saved = train_strongly(mastered(ChainerRMSpropGraves), 1, 2, 3)
    save_npz(str(tmp_path / "optimizer"), saved)
    save_npz(str(tmp_path / "model"), saved.target)
    ends = []
    for loads_first in (False, True):
        optimizer = train_strongly(RMSpropGraves(lr=1e-4).setup(model_of("f2")), *range(updates))
        if not loads_first:
            optimizer.use_fp32_update()
        load_npz(str(tmp_path / "optimizer"), optimizer)
        load_npz(str(tmp_path / "model"), optimizer.target)
        optimizer.use_fp32_update()
        ends.append(arrays_of(train_strongly(optimizer, 4)))
    assert_same_bits(*ends)
    assert numpy.isfinite(ends[0]["/p0/n"]).all()
    assert ends[0]["/p0/n"].dtype == numpy.float32
