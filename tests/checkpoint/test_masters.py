"""Float32 masters of float16 parameters in checkpoints: a resumed run with use_fp32_update loses no bits."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.serializers import load_npz, save_npz
from checkpoint.training import copy_params, entries_of, load_from_dict, mastered, masters_of, model_of, train
from file_formats import SAVE_AND_LOAD, write_npz
from models import arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves


def save_both(tmp_path, optimizer, save=save_npz):
    """Save an optimizer and its model."""
    save(str(tmp_path / "optimizer"), optimizer)
    save(str(tmp_path / "model"), optimizer.target)


def load_both(tmp_path, optimizer, load=load_npz, order=("optimizer", "model")):
    """Load an optimizer and its model, and return the optimizer."""
    for name in order:
        load(str(tmp_path / name), optimizer if name == "optimizer" else optimizer.target)
    return optimizer


@pytest.mark.parametrize("order", [("optimizer", "model"), ("model", "optimizer")], ids=" then ".join)
@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
def test_a_resumed_run_in_mixed_precision_has_the_bits_of_an_uninterrupted_one(tmp_path, updates, save, load, order):
    """The masters have digits that float16 loses. Saving again before the next update keeps them too."""
    saved = train(mastered(), 1, 2, 3)
    assert any((master.astype("f2").astype("f4") != master).any() for master in masters_of(saved).values())
    save_both(tmp_path, saved, save)
    resumed = load_both(tmp_path, train(mastered(), *range(8, 8 + updates)), load, order)
    save_both(tmp_path, resumed, save)
    again = load_both(tmp_path, mastered(), load, order)
    train(saved, 4, 5, 6)
    for optimizer in (resumed, again):
        train(optimizer, 4, 5, 6)
        assert_same_bits(arrays_of(optimizer), arrays_of(saved))
        assert_same_bits(masters_of(optimizer), masters_of(saved))


def test_a_master_that_does_not_round_to_its_parameter_is_made_anew(tmp_path, updates):
    """A model loaded from elsewhere takes precedence over the master in the optimizer's file."""
    save_npz(str(tmp_path / "optimizer"), train(mastered(), 1, 2, 3))
    optimizer = train(mastered(), *range(8, 8 + updates))
    load_npz(str(tmp_path / "optimizer"), optimizer)
    for param in optimizer.target.params():
        param.array[...] = 3
    train(optimizer, 4)
    for path, master in masters_of(optimizer).items():
        expected = numpy.float32(3) + arrays_of(optimizer)[f"{path}/delta"]
        assert numpy.array_equal(master, expected), path


def test_one_element_that_does_not_round_to_its_parameter_is_enough(tmp_path):
    """The whole master is then made from the parameter."""
    saved = train(mastered(), 1, 2, 3)
    save_both(tmp_path, saved)
    optimizer = load_both(tmp_path, mastered())
    optimizer.target.p0.array[0, 0] += 1
    rounded = optimizer.target.p0.array.astype("f4")
    train(optimizer, 4)
    assert numpy.array_equal(masters_of(optimizer)["/p0"], rounded + arrays_of(optimizer)["/p0/delta"])


@pytest.mark.parametrize("when", ["after loading", "after an update"])
def test_a_resized_parameter_gets_a_new_master(when):
    """The existing master has the old shape."""
    saved, optimizer = train(mastered(), 1), mastered()
    load_from_dict(entries_of(saved), optimizer)
    if when == "after an update":
        copy_params(saved, optimizer)
        train(optimizer, 3)
    param = optimizer.target.p1
    param.cleargrad()
    param.array = numpy.ones(7, "f2")
    param.update_rule.init_state(param)
    train(optimizer, 2)
    assert masters_of(optimizer)["/p1"].shape == (7,)


def test_use_fp32_update_may_follow_loading(tmp_path):
    """Until the next update, states and masters stay as wide as in the file."""
    saved = train(mastered(), 1, 2, 3)
    save_both(tmp_path, saved)
    resumed = load_both(tmp_path, RMSpropGraves(lr=1e-4).setup(model_of("f2")))
    resumed.use_fp32_update()
    train(saved, 4, 5)
    assert_same_bits(arrays_of(train(resumed, 4, 5)), arrays_of(saved))
    assert_same_bits(masters_of(resumed), masters_of(saved))


def test_without_use_fp32_update_states_become_float16_and_masters_are_dropped(tmp_path, updates):
    """Training is as in a run that never had masters, and a later checkpoint has no masters."""
    save_both(tmp_path, train(mastered(), 1, 2, 3))
    optimizer = train(RMSpropGraves(lr=1e-4).setup(model_of("f2")), *range(8, 8 + updates))
    load_both(tmp_path, optimizer)
    train(optimizer, 4, 5)
    assert {array.dtype.name for array in arrays_of(optimizer).values()} == {"float16"}
    assert not any(key.endswith("fp32_param") for key in entries_of(optimizer))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_use_fp32_update_concerns_float16_parameters_alone(tmp_path, dtype):
    """use_fp32_update does not change how states of float32 and float64 parameters are loaded."""

    def set_up():
        optimizer = RMSpropGraves(lr=1e-4).setup(model_of(dtype))
        optimizer.use_fp32_update()
        return optimizer

    saved = train(set_up(), 1, 2, 3)
    save_both(tmp_path, saved)
    resumed = load_both(tmp_path, set_up())
    assert_same_bits(arrays_of(train(resumed, 4, 5)), arrays_of(train(saved, 4, 5)))


@pytest.mark.parametrize("from_chainer", [False, True])
def test_masters_of_a_run_that_is_rolled_back_are_dropped(tmp_path, from_chainer):
    """After small steps they still round to the reloaded parameter, and were therefore kept."""
    saved = train(mastered(ChainerRMSpropGraves, lr=1e-5), 1) if from_chainer else mastered(lr=1e-5)
    save_both(tmp_path, saved)
    ends = []
    for optimizer in (train(mastered(lr=1e-5), 1, 2, 3), mastered(lr=1e-5)):
        load_both(tmp_path, optimizer, order=("model", "optimizer"))
        ends.append({**arrays_of(train(optimizer, 7)), **masters_of(optimizer)})
    assert_same_bits(*ends)


@pytest.mark.parametrize("options", [{"ignore_names": lambda name: True}, {"strict": False}], ids=["ignored", "empty"])
def test_masters_stay_if_no_masters_are_loaded(tmp_path, options):
    """Every entry is ignored, or the file has none of the optimizer's entries."""
    optimizer, untouched = train(mastered(), 1, 2, 3), train(mastered(), 1, 2, 3)
    entries = entries_of(train(mastered(), 8)) if "ignore_names" in options else {"other": numpy.ones(1)}
    write_npz(tmp_path / "file.npz", entries)
    load_npz(str(tmp_path / "file.npz"), optimizer, **options)
    assert_same_bits(arrays_of(train(optimizer, 4, 5)), arrays_of(train(untouched, 4, 5)))
    assert_same_bits(masters_of(optimizer), masters_of(untouched))


def test_a_nan_in_the_parameter_does_not_cost_the_other_elements_their_master(tmp_path):
    """A NaN in the master rounds to a NaN in the parameter."""
    saved = train(mastered(), 1, 2, 3)
    for array in (saved.target.p0.array, masters_of(saved)["/p0"]):
        array[0, 0] = numpy.nan
    save_both(tmp_path, saved)
    resumed = load_both(tmp_path, mastered())
    assert_same_bits(arrays_of(train(resumed, 4, 5)), arrays_of(train(saved, 4, 5)))
    assert_same_bits(masters_of(resumed), masters_of(saved))


def test_a_master_of_another_width_is_loaded_as_float32(load_entries):
    """Here it is float64, big-endian and in Fortran order."""
    saved = train(mastered(), 1, 2, 3)
    entries = entries_of(saved)
    entries["p0/fp32_param"] = numpy.asfortranarray(entries["p0/fp32_param"], ">f8")
    resumed = mastered()
    load_entries(entries, resumed)
    copy_params(saved, resumed)
    assert_same_bits(arrays_of(train(resumed, 4, 5)), arrays_of(train(saved, 4, 5)))
    assert_same_bits(masters_of(resumed), masters_of(saved))


def test_from_the_first_update_after_loading_a_changed_parameter_no_longer_counts(tmp_path):
    """As in an uninterrupted run, the update overwrites the parameter with its master."""
    saved = train(mastered(), 1, 2, 3)
    save_both(tmp_path, saved)
    resumed = load_both(tmp_path, mastered())
    for optimizer in (saved, resumed):
        train(optimizer, 4)
        optimizer.target.p0.array[...] = 3
        train(optimizer, 5)
    assert_same_bits(arrays_of(resumed), arrays_of(saved))
    assert_same_bits(masters_of(resumed), masters_of(saved))


def test_a_model_may_move_to_a_gpu_after_loading(gpu, tmp_path):
    """The master follows its parameter, and the bits are the same as on the CPU."""
    saved = train(mastered(), 1, 2, 3)
    save_both(tmp_path, saved)
    resumed = load_both(tmp_path, mastered())
    resumed.target.to_device("@cupy:1")
    for _, param in resumed.target.namedparams():
        param.grad = param.device.send(numpy.full(param.shape, 0.5, "f2"))
    for _, param in saved.target.namedparams():
        param.grad = numpy.full(param.shape, 0.5, "f2")
    resumed.update()
    saved.update()
    resumed.target.to_device("@numpy")
    assert {path: param.array.tobytes() for path, param in resumed.target.namedparams()} == {
        path: param.array.tobytes() for path, param in saved.target.namedparams()
    }


def test_a_loaded_master_shares_no_memory_with_the_entries():
    """The entries may be arrays of another optimizer that trains on."""
    saved, resumed = train(mastered(), 1), mastered()
    load_from_dict(entries_of(saved), resumed)
    copy_params(saved, resumed)
    train(resumed, 2)
    for one, other in zip(masters_of(saved).values(), masters_of(resumed).values()):
        assert not numpy.shares_memory(one, other)
