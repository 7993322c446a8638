"""A file that does not hold this optimizer is refused, and the error says what the file looks like."""

from __future__ import annotations

import chainer
import numpy
import pytest
from chainer.serializers import load_hdf5, load_npz
from checkpoint.training import entries_of, everything_of, fresh, model_of, train
from file_formats import needs_h5py, write_hdf5, write_npz

import rmsprop_graves
from rmsprop_graves import RMSpropGraves


def entries_of_class(name):
    """Train another optimizer on the same model, and return its entries."""
    return entries_of(train(getattr(chainer.optimizers, name)().setup(model_of()), 1))


def of_another_model(updates):
    """Train an optimizer of a model with other parameter names, and return its entries."""
    model = chainer.Chain(other=model_of())
    return entries_of(train(RMSpropGraves().setup(model), *range(updates)))


def snapshot():
    """Make the entries of a snapshot: the optimizer and its model."""
    optimizer = train(fresh(), 1)
    parts = {"updater/optimizer:main/": optimizer, "updater/model:main/": optimizer.target}
    entries = {prefix + key: value for prefix, part in parts.items() for key, value in entries_of(part).items()}
    return {**entries, "updater/iteration": numpy.array(1)}


FILES = {
    "a model": (
        lambda: entries_of(model_of()),
        "t: it is not in the checkpoint; this looks like a model's file: it holds p0, p1, p2",
    ),
    "another model, not its optimizer": (
        lambda: {f"l{i}/W": numpy.ones(2) for i in range(9)},
        "this is not an optimizer's file: it holds l0/W, l1/W, l2/W and 6 more",
    ),
    "a snapshot": (
        snapshot,
        "this looks like a trainer's snapshot; load the optimizer with path='updater/optimizer:main/'",
    ),
    "another model's optimizer": (
        lambda: of_another_model(2),
        "the file has other/p0, other/p1, other/p2, which the model does not have; the model has p0, p1, p2",
    ),
    "another model's optimizer, before its first update": (
        lambda: of_another_model(0),
        "the file has other/p0, other/p1, other/p2, which the model does not have; the model has p0, p1, p2",
    ),
    "Adam": (
        lambda: entries_of_class("Adam"),
        "this looks like the file of another optimizer: it holds m, t, v of each parameter",
    ),
    "MomentumSGD": (lambda: entries_of_class("MomentumSGD"), "the file of another optimizer: it holds t, v of each"),
    "nothing": (dict, "t: it is not in the checkpoint; the file has no entries here"),
}


@pytest.mark.parametrize(("make", "message"), FILES.values(), ids=FILES)
def test_another_file_is_refused_with_a_word_on_what_it_is(load_entries, updates, make, message):
    """Nothing is loaded from the file."""
    optimizer = train(fresh(), *range(updates))
    before = everything_of(optimizer)
    with pytest.raises(KeyError) as caught:
        load_entries(make(), optimizer)
    assert message in caught.value.args[0]
    assert everything_of(optimizer) == before


@pytest.mark.parametrize(
    ("load", "write"),
    [
        pytest.param(load_npz, write_npz, id="npz"),
        pytest.param(rmsprop_graves.load_npz, write_npz, id="npz-untrusted"),
        pytest.param(load_hdf5, write_hdf5, id="hdf5", marks=needs_h5py),
        pytest.param(rmsprop_graves.load_hdf5, write_hdf5, id="hdf5-untrusted", marks=needs_h5py),
    ],
)
def test_a_model_given_another_file_says_what_it_is(tmp_path, load, write):
    """Errors of Chainer's own loaders say it too, and keep their type."""
    model = model_of()
    for name, entries, message in (
        ("optimizer", entries_of(train(fresh(), 1)), "this is an optimizer's file, so load it into the optimizer"),
        ("snapshot", snapshot(), "this is a trainer's snapshot: load its model by "),
    ):
        write(tmp_path / f"{name}.npz", entries)
        with pytest.raises((KeyError, AttributeError, ValueError)) as caught:
            load(str(tmp_path / f"{name}.npz"), model)
        assert message in caught.value.args[0]
    write(tmp_path / "other.npz", {"other": numpy.ones(3)})
    with pytest.raises(KeyError) as caught:
        load(str(tmp_path / "other.npz"), model)
    assert caught.value.args[0].endswith("another model's file: it holds other; the model has p0, p1, p2")
