"""Pickles of optimizers that release 1.0.0 made after loading. Its rules kept loaded arrays until the next update."""

from __future__ import annotations

import copy
import pickle
import pickletools

import numpy
import pytest
from checkpoint.make_pickles_of_1_0_0 import PICKLE, TRAINED, half, resume
from checkpoint.training import copy_params, entries_of, load_from_dict, mastered, masters_of, train
from models import assert_same_bits

CASES = ["new", "updated before", "without masters", "uninitialized"]


def test_the_pickle_holds_rules_whose_loading_the_next_update_completes():
    """The tests below depend on it."""
    strings = {argument for _, argument, _ in pickletools.genops(PICKLE.read_bytes()) if isinstance(argument, str)}
    assert strings >= {*CASES, "_master", "_is_loaded"}


def again(optimizer):
    """Pickle and unpickle with today's code."""
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("make_copy", [again, copy.deepcopy])
@pytest.mark.parametrize("case", CASES)
def test_a_pickle_of_1_0_0_trains_on_to_the_bits_of_1_0_0(case, make_copy):
    """Every parameter, state and float32 master is compared, in the unpickled optimizer and in a copy of it."""
    optimizer = pickle.loads(PICKLE.read_bytes())[case]
    with numpy.load(TRAINED) as trained:
        expected = {key[len(case) :]: trained[key] for key in trained if key.startswith(f"{case}/")}
    copied = make_copy(optimizer)
    assert_same_bits(resume(optimizer), expected)
    assert_same_bits(resume(copied), expected)


@pytest.mark.parametrize("case", ["new", "updated before"])
def test_a_checkpoint_saved_from_a_pickle_of_1_0_0_holds_the_masters(case):
    """This holds even without an update between unpickling and saving."""
    optimizer = pickle.loads(PICKLE.read_bytes())[case]
    resumed = half()
    load_from_dict(entries_of(optimizer), resumed)
    copy_params(optimizer, resumed)
    assert_same_bits(resume(resumed), resume(optimizer))


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_master_loaded_without_a_state_is_compared_with_the_parameter(is_changed):
    """Release 1.0.0 kept such a master without states, for example for a frozen parameter."""
    master = numpy.array([1 + 2**-15, 2, 3, 4], "f4")
    optimizer = mastered(lr=0.0)
    param = optimizer.target.p1
    param.array[...] = 3 if is_changed else master
    rule = param.update_rule
    rule.__dict__["_master"] = master
    param.update_rule = pickle.loads(pickle.dumps(rule))
    train(optimizer, 1)
    assert masters_of(optimizer)["/p1"].tolist() == ([3] * 4 if is_changed else master.tolist())
    assert "_master" not in param.update_rule.__dict__
