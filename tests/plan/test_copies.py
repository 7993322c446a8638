"""A copy of an optimizer shares nothing with it."""

from __future__ import annotations

import copy
import pickle

import pytest
from models import assert_same_bits, snapshot_of
from random_models import assert_same, plain, train_plain

from rmsprop_graves import RMSpropGraves


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_trains_on_by_itself(device, duplicate):
    """Copy and original both stay bit-identical to an optimizer that was never copied, and share no arrays."""
    original, undisturbed = (train_plain(plain(RMSpropGraves, device), 0, 1, 2) for _ in range(2))
    duplicated = duplicate(original)
    before = snapshot_of(original)
    train_plain(duplicated, 3, 4)
    assert_same_bits(snapshot_of(original), before)
    train_plain(original, 3, 4), train_plain(undisturbed, 3, 4)
    assert_same(original, duplicated, undisturbed)
