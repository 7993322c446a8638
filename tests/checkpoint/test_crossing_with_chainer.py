"""Checkpoints go from Chainer's class to this package's and back."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.serializers import load_npz, save_npz
from checkpoint.training import entries_of, mastered, masters_of, model_of, states_of, train, without
from file_formats import SAVE_AND_LOAD, write_npz
from models import arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves

# Chainer computes the step of a scalar parameter in float64.
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


def test_a_checkpoint_of_chainer_2_is_loaded_without_strict(tmp_path, updates):
    """It has no t of rules, so the rules keep their t."""
    saved = train(ChainerRMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), 1, 2, 3)
    entries = entries_of(saved)
    without("p0/t", "p1/t")(entries)
    write_npz(tmp_path / "file.npz", entries)
    save_npz(str(tmp_path / "model"), saved.target)
    optimizer = train(RMSpropGraves(lr=0.01).setup(model_of(shapes=SHAPES)), *range(8, 8 + updates))
    load_npz(str(tmp_path / "file.npz"), optimizer, strict=False)
    load_npz(str(tmp_path / "model"), optimizer.target)
    assert (optimizer.t, [param.update_rule.t for param in optimizer.target.params()]) == (3, [updates, updates])
    assert_same_bits(arrays_of(train(optimizer, 4, 5)), arrays_of(train(saved, 4, 5)))


def test_only_our_files_hold_masters():
    """The masters have a key that Chainer's class does not read."""
    keys = {cls: entries_of(train(mastered(cls), 1)).keys() for cls in (RMSpropGraves, ChainerRMSpropGraves)}
    assert keys[RMSpropGraves] - keys[ChainerRMSpropGraves] == {f"p{i}/fp32_param" for i in range(3)}
    assert keys[ChainerRMSpropGraves] <= keys[RMSpropGraves]


def train_strongly(optimizer, *seeds):
    """Update with gradients whose square float16 cannot hold."""
    for seed in seeds:
        for param in optimizer.target.params():
            param.grad = numpy.full(param.shape, 2000 + seed, "f2")
        optimizer.update()
    return optimizer


def test_float32_states_of_chainers_class_wait_for_use_fp32_update(tmp_path, updates):
    """Loading once converted them to float16: n overflowed, and its element was never updated again."""
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
