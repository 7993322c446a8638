"""Pickles of the public classes: the names that they contain, and pickles that version 1.0.0 wrote."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
from both_classes import assert_same_training
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from interpreter import run
from optimizer.pickles.make import UPDATES, set_up, update

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule

FOLDER = Path(__file__).resolve().parent / "pickles"
PICKLES = sorted(FOLDER.glob("*.pickle"))
MORE_UPDATES = 2
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)

parametrize_pickles = pytest.mark.parametrize("path", PICKLES, ids=lambda path: path.stem)


def dtype_of(path):
    return path.stem.split("-")[1]


def trained_by(optimizer_class, dtype, updates):
    optimizer = set_up(optimizer_class, dtype)
    for step in range(updates):
        update(optimizer, step)
    return optimizer


def names_in(pickled):
    """Return the (module, name) of every class and function that a pickle imports."""
    names = set()

    class Recording(pickle.Unpickler):
        def find_class(self, module, name):
            names.add((module, name))
            return super().find_class(module, name)

    Recording(io.BytesIO(pickled)).load()
    return names


# Makes one update of an optimizer in a pickle, and pickles it again.
PROGRAM = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    optimizer = pickle.load(file)
print(type(optimizer).__name__, optimizer.t)
for param in optimizer.target.params():
    param.grad = param.array + 1
optimizer.update()
with open(sys.argv[2], "wb") as file:
    pickle.dump(optimizer, file)
"""


def assert_trains_on_in_a_new_process(path, folder):
    """Assert that an update after loading the pickle is bit-identical in a new process and in this one."""
    done = run("-c", PROGRAM, path, "trained.pickle", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["RMSpropGraves", str(UPDATES)]
    trained = pickle.loads((folder / "trained.pickle").read_bytes())
    here = pickle.loads(path.read_bytes())
    for param in here.target.params():
        param.grad = param.array + 1
    here.update()
    assert_same_training(trained, here)
    assert trained.t == UPDATES + 1


def test_a_pickle_of_each_kind_is_there():
    """They are float32, float16, and float16 after loading a checkpoint, before an update."""
    assert {path.stem for path in PICKLES} == {"1.0.0-float32", "1.0.0-float16", "1.0.0-float16-loaded"}


@parametrize_pickles
def test_a_pickle_of_version_1_0_0_trains_on_to_the_bits_of_chainers_class(path):
    """Chainer's class makes all five updates; the pickled optimizer has made the first three."""
    optimizer = pickle.loads(path.read_bytes())
    assert type(optimizer) is RMSpropGraves
    assert {type(param.update_rule) for param in optimizer.target.params()} == {RMSpropGravesRule}
    assert optimizer.t == UPDATES
    for step in range(UPDATES, UPDATES + MORE_UPDATES):
        update(optimizer, step)
    expected = trained_by(ChainerRMSpropGraves, dtype_of(path), UPDATES + MORE_UPDATES)
    assert_same_training(optimizer, expected)
    assert optimizer.t == UPDATES + MORE_UPDATES
    assert optimizer.target[0].b.update_rule.hyperparam.lr == 1e-3


@parametrize_pickles
def test_a_pickle_of_version_1_0_0_loads_in_a_process_that_has_imported_nothing(path, tmp_path):
    """The first name in the pickle imports this package, which makes Chainer importable for the rest."""
    assert_trains_on_in_a_new_process(path, tmp_path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_of_today_loads_in_a_process_that_has_imported_nothing(protocol, tmp_path):
    """A program can load an optimizer without importing this package or Chainer first."""
    path = tmp_path / "optimizer.pickle"
    path.write_bytes(pickle.dumps(trained_by(RMSpropGraves, "float32", UPDATES), protocol))
    assert_trains_on_in_a_new_process(path, tmp_path)


@pytest.mark.parametrize("cls", [RMSpropGraves, RMSpropGravesRule])
def test_a_public_class_says_where_users_import_it_from(cls):
    """Its module is the package, so that its repr names no private file."""
    assert cls.__module__ == "rmsprop_graves"
    assert repr(cls) == f"<class 'rmsprop_graves.{cls.__name__}'>"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_names_the_public_classes_by_the_package(protocol):
    """A file of this package may move or be renamed; a pickle that named it would no longer load."""
    optimizer = trained_by(RMSpropGraves, "float32", 1)
    names = names_in(pickle.dumps(optimizer, protocol))
    assert ("rmsprop_graves", "RMSpropGraves") in names
    assert ("rmsprop_graves", "RMSpropGravesRule") in names
    assert not {module for module, name in names if name.startswith("RMSpropGraves")} - {"rmsprop_graves"}
