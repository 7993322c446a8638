"""Checkpoints: loaded as a whole or not at all, to and from Chainer's own class, and from files that mean harm."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import chainer
import numpy
import pytest
from chainer import links as L
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.optimizers.sgd import SGDRule
from chainer.serializers import load_hdf5, load_npz, save_hdf5, save_npz
from file_formats import SAVE_AND_LOAD, h5py, needs_h5py
from models import Arrays, arrays_of, assert_same_bits

import rmsprop_graves
from rmsprop_graves import RMSpropGraves, RMSpropGravesRule

STATES = ("n", "g", "delta")
SHAPES = {"p0": (2, 3), "p1": (4,), "p2": ()}


def model_of(dtype="f4", seed=0, shapes=SHAPES):
    """Three parameters."""
    rng = numpy.random.RandomState(seed)
    return Arrays(*(numpy.asarray(rng.standard_normal(shapes[name])).astype(dtype) for name in shapes))


def train(optimizer, *seeds):
    """An update with gradients of each seed."""
    for seed in seeds:
        rng = numpy.random.RandomState(seed)
        for _, param in sorted(optimizer.target.namedparams()):
            param.grad = numpy.asarray(rng.standard_normal(param.shape)).astype(param.dtype)
        optimizer.update()
    return optimizer


def fresh(dtype="f4"):
    """An optimizer before its first update."""
    return RMSpropGraves(lr=0.01).setup(model_of(dtype))


def everything_of(optimizer):
    """All that loading could change: numbers, and for arrays the objects themselves and their bytes."""
    found = {"t": optimizer.t, "epoch": optimizer.epoch, "scale": optimizer._loss_scale}
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        found[path] = param.array.tobytes()
        found[path, "t"] = rule.t
        found[path, "state"] = None if rule.state is None else {**rule.state}.keys()
        for name, array in (rule.state or {}).items():
            found[path, name] = id(array), array.dtype, array.shape, array.tobytes()
        if rule._fp32_param is not None:
            found[path, "master"] = id(rule._fp32_param), rule._fp32_param.array.tobytes()
    return found


# Files, as dicts of their entries


def entries_of(optimizer):
    """What is saved of an optimizer."""
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(optimizer)
    return dict(serializer.target)


def write_npz(path, entries):
    numpy.savez(path, **entries)


def write_hdf5(path, entries):
    with h5py.File(path, "w") as file:
        for key, value in entries.items():
            value = numpy.asarray(value)
            file.create_dataset(
                key,
                data=None if value.dtype == object else value,
                **({"dtype": "f4", "shape": None} if value.dtype == object and value.item() is None else {}),
            )


FORMATS = {"npz": (write_npz, load_npz), "hdf5": (write_hdf5, load_hdf5)}
BOTH_FORMATS = ["npz", pytest.param("hdf5", marks=needs_h5py)]


def replaced(key, value):
    """An entry that is another."""

    def damage(entries):
        entries[key] = value(entries[key]) if callable(value) else value

    return damage


def without(*keys):
    """Entries that are missing."""

    def damage(entries):
        for key in keys:
            del entries[key]

    return damage


def set_to(key, place, value):
    """One element that is another."""

    def damage(entries):
        entries[key] = entries[key].copy()
        entries[key][place] = value

    return damage


NAN = float("nan")
DAMAGES = {
    "no t": (without("t"), KeyError, "t: it is not in the checkpoint"),
    "no epoch": (without("epoch"), KeyError, "epoch: it is not in the checkpoint"),
    "no t of a rule": (without("p1/t"), KeyError, "/p1/t: it is not in the checkpoint"),
    "no n": (without("p1/n"), KeyError, "/p1/n: it is not in the checkpoint"),
    "no g": (without("p1/g"), KeyError, "/p1/g: it is not in the checkpoint"),
    "no delta of the last": (without("p2/delta"), KeyError, "/p2/delta: it is not in the checkpoint"),
    "no states": (without("p1/n", "p1/g", "p1/delta"), KeyError, "/p1/n: it is not in the checkpoint"),
    "nothing of a parameter": (
        without("p1/t", "p1/n", "p1/g", "p1/delta"),
        KeyError,
        "/p1/t: it is not in the checkpoint",
    ),
    "negative t": (replaced("t", numpy.array(-1)), ValueError, r"t: found -1, expected an integer >= 0"),
    "t with a fraction": (replaced("t", numpy.array(1.5)), ValueError, r"t: found 1\.5, expected an integer >= 0"),
    "t a NaN": (replaced("t", numpy.array(NAN)), ValueError, r"t: found nan, expected an integer >= 0"),
    "t a vector": (replaced("t", numpy.array([3])), ValueError, r"t: found an array of shape \(1,\) and dtype int64"),
    "t a truth value": (replaced("t", numpy.array(True)), ValueError, "t: found True, expected an integer >= 0"),
    "t of a rule negative": (replaced("p0/t", numpy.array(-3)), ValueError, "/p0/t: found -3"),
    "epoch negative": (replaced("epoch", numpy.array(-1)), ValueError, "epoch: found -1"),
    "another shape": (
        replaced("p1/n", numpy.ones(5, "f4")),
        ValueError,
        r"/p1/n: found shape \(5,\), expected \(4,\)",
    ),
    "a shape that broadcasts": (
        replaced("p0/g", numpy.ones(3, "f4")),
        ValueError,
        r"/p0/g: found shape \(3,\), expected \(2, 3\)",
    ),
    "a scalar": (
        replaced("p0/delta", numpy.array(1, "f4")),
        ValueError,
        r"/p0/delta: found shape \(\), expected \(2, 3\)",
    ),
    "a vector of one for no dimensions": (
        replaced("p2/n", numpy.ones(1, "f4")),
        ValueError,
        r"/p2/n: found shape \(1,\), expected \(\)",
    ),
    "transposed": (replaced("p0/n", numpy.transpose), ValueError, r"/p0/n: found shape \(3, 2\), expected \(2, 3\)"),
    "empty": (replaced("p1/n", numpy.ones(0, "f4")), ValueError, r"/p1/n: found shape \(0,\), expected \(4,\)"),
    "all of another shape": (
        lambda entries: entries.update((f"p1/{name}", numpy.ones(7, "f4")) for name in STATES),
        ValueError,
        r"/p1/n: found shape \(7,\), expected \(4,\)",
    ),
    "integers": (
        replaced("p1/n", numpy.ones(4, "i8")),
        ValueError,
        r"/p1/n: found an array of shape \(4,\) and dtype int64, expected real floating numbers",
    ),
    "truth values": (replaced("p1/n", numpy.ones(4, "?")), ValueError, "and dtype bool, expected real floating"),
    "complex": (replaced("p1/g", numpy.ones(4, "c8")), ValueError, "and dtype complex64, expected real floating"),
    "bytes": (replaced("p1/g", numpy.full(4, b"1.5")), ValueError, r"dtype \|S3, expected real floating"),
    "a NaN in n": (set_to("p0/n", (1, 2), NAN), ValueError, "/p0/n: found NaN, expected numbers"),
    "a NaN in g": (set_to("p1/g", 0, NAN), ValueError, "/p1/g: found NaN, expected numbers"),
    "a NaN in delta": (set_to("p2/delta", (), NAN), ValueError, "/p2/delta: found NaN, expected numbers"),
    "an infinite g": (set_to("p1/g", 0, float("inf")), ValueError, "/p1/g: found inf, expected finite numbers"),
    "an infinite delta": (set_to("p1/delta", 3, -float("inf")), ValueError, "/p1/delta: found -inf, expected finite"),
    "an n of less than all": (set_to("p0/n", (0, 0), -float("inf")), ValueError, "/p0/n: found -inf, expected finite"),
    "an n too large for the dtype": (
        replaced("p1/n", numpy.array([1, 2, 1e300, 3])),
        ValueError,
        r"/p1/n: found 1e\+300, expected what fits into float32",
    ),
    "too large for the dtype": (
        replaced("p1/delta", numpy.array([1, 2, 1e300, 3])),
        ValueError,
        r"/p1/delta: found 1e\+300, expected what fits into float32",
    ),
}


@pytest.fixture(params=BOTH_FORMATS)
def checkpoint(request, tmp_path):
    """A file of entries, and what loads it."""
    write, load = FORMATS[request.param]

    def make(entries):
        path = str(tmp_path / f"checkpoint.{request.param}")
        write(path, entries)
        return lambda optimizer: load(path, optimizer)

    return make


with_and_without_state = pytest.mark.parametrize("updates", [0, 2], ids=["fresh", "trained"])


@with_and_without_state
@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(checkpoint, damage, error, message, updates):
    """By name, with what was found and what was expected. Later updates go on as if nothing had been tried."""
    entries = entries_of(train(fresh(), 1, 2, 3))
    damage(entries)
    optimizer, untouched = (train(fresh(), *range(4, 4 + updates)) for _ in range(2))
    before = everything_of(optimizer)
    with pytest.raises(error, match=message):
        checkpoint(entries)(optimizer)
    assert everything_of(optimizer) == before
    assert_same_bits(arrays_of(train(optimizer, 8, 9)), arrays_of(train(untouched, 8, 9)))


ODD = {
    "as it is": lambda entries: None,
    "float64": lambda entries: entries.update((k, v.astype("f8")) for k, v in entries.items() if v.dtype == "f4"),
    "big-endian": lambda entries: entries.update((k, v.astype(">f4")) for k, v in entries.items() if v.dtype == "f4"),
    "in Fortran's order": lambda entries: entries.update(
        (k, numpy.asfortranarray(v)) for k, v in entries.items() if v.ndim
    ),
    "t in 8 bits": lambda entries: entries.update((k, v.astype("u1")) for k, v in entries.items() if k.endswith("t")),
    "with more entries": lambda entries: entries.update(unknown=numpy.ones(3), **{"p1/more": numpy.ones(2)}),
}


@with_and_without_state
@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_odd_checkpoint_is_loaded(checkpoint, change, updates):
    """Another width, byte order, layout or type of integer: the states are of the parameter's dtype, to the bit."""
    saved = train(fresh(), 1, 2, 3)
    entries = entries_of(saved)
    change(entries)
    optimizer = train(fresh(), *range(4, 4 + updates))
    before = {path: array for path, array in arrays_of(optimizer).items() if path.count("/") == 2}
    checkpoint(entries)(optimizer)
    save_model_into(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    assert (optimizer.t, [p.update_rule.t for p in optimizer.target.params()]) == (3, [3, 3, 3])
    # In place, for others may hold them.
    assert all(arrays_of(optimizer)[path] is array for path, array in before.items())
    assert_same_bits(arrays_of(train(optimizer, 5, 6)), arrays_of(train(saved, 5, 6)))


def save_model_into(saved, optimizer):
    """The parameters too, which are the model's to save."""
    optimizer.target.copyparams(saved.target)


def test_an_infinite_n_is_loaded(checkpoint):
    """It is what a float16 gradient beyond 256 leaves, and training goes on beside it."""
    saved = train(fresh("f2"), 1, 2)
    saved.target.p1.update_rule.state["n"][1] = numpy.inf
    optimizer = fresh("f2")
    checkpoint(entries_of(saved))(optimizer)
    save_model_into(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))


def test_an_n_that_is_infinite_throughout_is_loaded(checkpoint):
    """Its least was taken for minus infinity."""
    saved = train(fresh("f2"), 1, 2)
    saved.target.p1.update_rule.state["n"][...] = numpy.inf
    optimizer = fresh("f2")
    checkpoint(entries_of(saved))(optimizer)
    assert numpy.isinf(optimizer.target.p1.update_rule.state["n"]).all()


def test_a_half_that_is_rolled_back_to_before_its_first_update_gets_float32_states():
    """Zeros in the dtype of its old state were kept, where a new process has those of the master."""
    optimizer = train(fresh("f2"), 1)
    chainer.serializers.NpzDeserializer(entries_of(fresh("f2"))).load(optimizer)
    optimizer.use_fp32_update()
    train(optimizer, 2)
    assert {state.dtype.name for state in optimizer.target.p1.update_rule.state.values()} == {"float32"}


def test_a_wider_n_may_become_infinite_in_a_half_and_the_others_may_not(checkpoint):
    """As it would in training; an infinite g or delta would be one of the file's making."""
    entries = entries_of(train(fresh("f4"), 1, 2))
    entries["p1/n"] = numpy.array([1e6, 1, 1, 1], "f4")
    optimizer = fresh("f2")
    checkpoint(entries)(optimizer)
    with numpy.errstate(over="ignore"):
        train(optimizer, 3)
    assert numpy.isinf(optimizer.target.p1.update_rule.state["n"][0])
    entries["p1/g"] = numpy.array([1e6, 1, 1, 1], "f4")
    with pytest.raises(ValueError, match=r"/p1/g: found 1000000\.0, expected what fits into float16"):
        checkpoint(entries)(fresh("f2"))


# What Chainer refuses and should not


@with_and_without_state
def test_a_checkpoint_saved_before_the_first_update_is_loaded(checkpoint, updates):
    """Its states are zeros, in the arrays that are there."""
    entries = entries_of(fresh())
    assert "p0/n" not in entries
    optimizer = train(fresh(), *range(4, 4 + updates))
    before = {path: array for path, array in arrays_of(optimizer).items() if path.count("/") == 2}
    checkpoint(entries)(optimizer)
    save_model_into(fresh(), optimizer)
    assert optimizer.t == 0
    assert all(arrays_of(optimizer)[path] is array and not array.any() for path, array in before.items())
    assert_same_bits(arrays_of(train(optimizer, 1, 2)), arrays_of(train(fresh(), 1, 2)))


def test_a_resized_parameter_begins_anew_with_a_checkpoint_saved_before_the_first_update(checkpoint):
    """Its old state was set to zeros in the old shape, and every later update refused."""
    entries = entries_of(fresh())
    optimizer = train(fresh(), 1)
    param = optimizer.target.p1
    param.cleargrad()
    param.array = numpy.zeros(7, "f4")
    checkpoint(entries)(optimizer)
    train(optimizer, 2)
    assert param.update_rule.state["n"].shape == (7,)


@with_and_without_state
def test_all_entries_of_a_frozen_parameter_may_be_absent(checkpoint, updates):
    """Its t too; nothing of it changes."""
    entries = entries_of(train(fresh(), 1, 2, 3))
    for name in ("t", *STATES):
        del entries[f"p1/{name}"]
    optimizer = train(fresh(), *range(4, 4 + updates))
    optimizer.target.p1.update_rule.enabled = False
    before = everything_of(optimizer)
    checkpoint(entries)(optimizer)
    after = everything_of(optimizer)
    assert after["t"] == 3
    of_p1 = [key for key in before if key == "/p1" or key[0] == "/p1"]
    assert of_p1
    assert all(after[key] == before[key] for key in of_p1)


@with_and_without_state
def test_entries_of_a_frozen_parameter_may_be_absent(checkpoint, updates):
    """They stay as they are."""
    saved = train(fresh(), 1)
    saved.target.p1.update_rule.enabled = False
    entries = entries_of(train(saved, 2))
    without("p1/n", "p1/g", "p1/delta")(entries)
    optimizer = train(fresh(), *range(4, 4 + updates))
    optimizer.target.p1.update_rule.enabled = False
    before = optimizer.target.p1.update_rule.state
    before = before and {name: array.copy() for name, array in before.items()}
    checkpoint(entries)(optimizer)
    after = optimizer.target.p1.update_rule.state
    assert (after is None) == (before is None)
    for name, array in (before or {}).items():
        assert after[name].tobytes() == array.tobytes()
    train(optimizer, 5)


def lazy():
    """A model of which one layer has not been called."""
    model = chainer.Chain()
    with model.init_scope():
        model.called = L.Linear(2, 2)
        model.never = L.Linear(None, 2)
    optimizer = RMSpropGraves().setup(model)
    x = numpy.ones((1, 2), chainer.config.dtype)
    optimizer.update(lambda: chainer.functions.sum(model.called(x)))
    return optimizer


def trained_lazily(optimizer):
    """The layer that has not been called is, and updated."""
    x = numpy.ones((1, 5), chainer.config.dtype)
    optimizer.update(lambda: chainer.functions.sum(optimizer.target.never(x)))
    return optimizer


def test_entries_of_a_parameter_that_is_not_initialized_may_be_absent(checkpoint):
    """Its rule counts updates all the same."""
    entries = entries_of(lazy())
    assert "never/W/n" not in entries
    assert entries["never/W/t"] == 1
    optimizer = lazy()
    checkpoint(entries)(optimizer)
    assert optimizer.target.never.W.update_rule.state is None


def test_a_checkpoint_is_loaded_before_the_model_is_initialized(checkpoint):
    """Its states wait for the parameter; they are of one shape at least."""
    saved = lazy()
    saved.update(lambda: chainer.functions.sum(saved.target.never(numpy.ones((1, 5), "f"))))
    entries = entries_of(saved)
    optimizer = lazy()
    checkpoint(entries)(optimizer)
    optimizer.target.never(numpy.ones((1, 5), "f"))
    save_model_into(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    entries["never/W/g"] = numpy.ones((3, 3), "f4")
    with pytest.raises(ValueError, match=r"/never/W: found n of shape \(2, 5\), g of shape \(3, 3\)"):
        checkpoint(entries)(lazy())


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("wide", [False, True])
def test_states_loaded_before_the_model_is_initialized_get_its_dtype(checkpoint, dtype, wide):
    """At the next update, for before no dtype is known: an initializer's need not be the one that it makes."""
    ends = []
    for saved_as in ("f4", "f8"):
        numpy.random.seed(0)  # the layers' weights
        with chainer.using_config("dtype", numpy.dtype(dtype)):
            saved, optimizer = lazy(), lazy()
            entries = {
                key: value.astype(saved_as) if value.dtype.kind == "f" else value
                for key, value in entries_of(trained_lazily(saved)).items()
            }
            if wide:
                optimizer.use_fp32_update()
            checkpoint(entries)(optimizer)
            trained_lazily(optimizer)
        ends.append(arrays_of(optimizer))
    expected = numpy.dtype("f4" if wide else dtype)
    assert {array.dtype for path, array in ends[0].items() if path.startswith("/never/W/")} == {expected}
    assert_same_bits(*ends)


# Other ways of loading


def test_not_strict_leaves_what_is_missing_as_it_is(tmp_path):
    """And loads the rest."""
    saved, optimizer = train(fresh(), 1, 2, 3), train(fresh(), 4, 5)
    entries = entries_of(saved)
    without("t", "p1/n", "p2/t")(entries)
    kept = optimizer.target.p1.update_rule.state["n"].copy()
    write_npz(str(tmp_path / "some.npz"), entries)
    load_npz(str(tmp_path / "some.npz"), optimizer, strict=False)
    assert (optimizer.t, optimizer.target.p2.update_rule.t, optimizer.target.p0.update_rule.t) == (2, 2, 3)
    states = optimizer.target.p1.update_rule.state
    assert states["n"].tobytes() == kept.tobytes()
    assert states["g"].tobytes() == saved.target.p1.update_rule.state["g"].tobytes()
    unmade = fresh()
    load_npz(str(tmp_path / "some.npz"), unmade, strict=False)
    assert unmade.target.p1.update_rule.state is None
    train(unmade, 6)


def test_names_to_ignore_stay_as_they_are(tmp_path):
    """As in Chainer."""
    saved, optimizer = train(fresh(), 1, 2, 3), train(fresh(), 4, 5)
    kept = optimizer.target.p1.update_rule.state["n"].copy()
    save_npz(str(tmp_path / "all.npz"), saved)
    load_npz(str(tmp_path / "all.npz"), optimizer, ignore_names=["t", "p1/n"])
    assert optimizer.t == 2
    assert optimizer.target.p1.update_rule.state["n"].tobytes() == kept.tobytes()


def test_a_rule_alone_is_loaded_all_or_nothing():
    """Without its parameter, its own state tells the shapes."""
    rule = train(fresh(), 1, 2).target.p1.update_rule
    serializer = chainer.serializers.DictionarySerializer()
    train(fresh(), 3).target.p1.update_rule.serialize(serializer)
    before = {name: array.copy() for name, array in rule.state.items()}
    broken = {**serializer.target, "delta": numpy.ones(5, "f4")}
    with pytest.raises(ValueError, match=r"/delta: found shape \(5,\), expected \(4,\)"):
        rule.serialize(chainer.serializers.NpzDeserializer(broken))
    assert rule.t == 2
    assert all(rule.state[name].tobytes() == array.tobytes() for name, array in before.items())
    rule.serialize(chainer.serializers.NpzDeserializer(serializer.target))
    assert rule.t == 1
    assert rule.state["delta"].tobytes() == serializer.target["delta"].tobytes()


def test_rules_of_other_classes_are_as_they_were_after_an_error(tmp_path):
    """Of Chainer's, which write while they read."""

    def mixed():
        optimizer = fresh()
        optimizer.target.p2.update_rule = chainer.optimizers.adam.AdamRule(chainer.optimizers.Adam().hyperparam)
        optimizer.target.p1.update_rule = SGDRule(lr=0.1)
        return optimizer

    entries = entries_of(train(mixed(), 1, 2, 3))
    optimizer = train(mixed(), 4, 5)
    before = everything_of(optimizer)
    for damage in (without("p2/v"), replaced("p0/n", numpy.ones(3, "f4")), replaced("p2/v", numpy.ones(3, "f4"))):
        broken = dict(entries)
        damage(broken)
        write_npz(str(tmp_path / "broken.npz"), broken)
        with pytest.raises((KeyError, ValueError)):
            load_npz(str(tmp_path / "broken.npz"), optimizer)
        assert everything_of(optimizer) == before
    write_npz(str(tmp_path / "whole.npz"), entries)
    load_npz(str(tmp_path / "whole.npz"), optimizer)
    assert optimizer.target.p2.update_rule.t == 3


def test_loading_costs_one_temporary_copy_of_the_state(tmp_path):
    """Of 12 MB, measured where they are loaded into the arrays that are there."""
    model = Arrays(numpy.ones(1_000_000, "f4"))
    optimizer = RMSpropGraves().setup(model)
    model.p0.grad = numpy.ones(1_000_000, "f4")
    optimizer.update()
    save_npz(str(tmp_path / "large.npz"), optimizer, compression=False)
    tracemalloc.start()
    try:
        load_npz(str(tmp_path / "large.npz"), optimizer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 12e6


# To and from Chainer's own class


@pytest.mark.parametrize(
    ("first", "second"),
    [(RMSpropGraves, ChainerRMSpropGraves), (ChainerRMSpropGraves, RMSpropGraves)],
    ids=["to Chainer", "from Chainer"],
)
@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_checkpoint_of_either_class_is_gone_on_from_by_the_other(tmp_path, first, second, save, load, dtype):
    """To the bit, into an optimizer before its first update, and into one with a state."""

    def set_up(cls):
        # Chainer computes a step of no dimensions in float64.
        return cls(lr=0.01).setup(model_of(dtype, shapes={"p0": (2, 3), "p1": (4,)}))

    saved = train(set_up(first), 1, 2, 3)
    save(str(tmp_path / "file"), saved)
    save(str(tmp_path / "model"), saved.target)
    expected = arrays_of(train(saved, 4, 5))
    for updates in (0, 2):
        optimizer = train(set_up(second), *range(8, 8 + updates))
        load(str(tmp_path / "file"), optimizer)
        load(str(tmp_path / "model"), optimizer.target)
        assert_same_bits(arrays_of(train(optimizer, 4, 5)), expected)


# float16 with float32 masters, and loss scaling


def mastered(cls=RMSpropGraves, lr=1e-4):
    """Of float16, stepped in float32; the steps are too small for halves."""
    optimizer = cls(lr=lr).setup(model_of("f2"))
    optimizer.use_fp32_update()
    return optimizer


def masters_of(optimizer):
    return {path: param.update_rule._fp32_param.array for path, param in optimizer.target.namedparams()}


@pytest.mark.parametrize("order", ["optimizer first", "model first"])
@pytest.mark.parametrize(("save", "load"), SAVE_AND_LOAD)
def test_a_resumed_run_in_half_precision_has_the_bits_of_an_uninterrupted_one(tmp_path, save, load, order):
    """The masters hold what halves cannot."""
    saved = train(mastered(), 1, 2, 3)
    assert any((m.astype("f2").astype("f4") != m).any() for m in masters_of(saved).values())
    files = {"optimizer": saved, "model": saved.target}
    for name, obj in files.items():
        save(str(tmp_path / name), obj)
    resumed = mastered()
    targets = {"optimizer": resumed, "model": resumed.target}
    for name in targets if order == "optimizer first" else reversed(list(targets)):
        load(str(tmp_path / name), targets[name])
    # Saved again before it has been used.
    save(str(tmp_path / "again"), resumed)
    again = mastered()
    load(str(tmp_path / "again"), again)
    load(str(tmp_path / "model"), again.target)
    train(saved, 4, 5, 6)
    for optimizer in (resumed, again):
        train(optimizer, 4, 5, 6)
        assert_same_bits(arrays_of(optimizer), arrays_of(saved))
        assert_same_bits(masters_of(optimizer), masters_of(saved))


@with_and_without_state
def test_masters_that_are_not_of_the_parameters_are_made_anew(tmp_path, updates):
    """Where the model is loaded from elsewhere it counts, and not what the optimizer's file remembers."""
    save_npz(str(tmp_path / "optimizer"), train(mastered(), 1, 2, 3))
    optimizer = train(mastered(), *range(8, 8 + updates))
    load_npz(str(tmp_path / "optimizer"), optimizer)
    for param in optimizer.target.params():
        param.array[...] = 3
    train(optimizer, 4)
    for master in masters_of(optimizer).values():
        assert (abs(master - 3) < 0.1).all()


def test_use_fp32_update_may_follow_loading(tmp_path):
    """States and masters are kept as wide as they are in the file; without it, the states become halves."""
    saved = train(mastered(), 1, 2, 3)
    for name, obj in (("optimizer", saved), ("model", saved.target)):
        save_npz(str(tmp_path / name), obj)
    resumed, halved = (RMSpropGraves(lr=1e-4).setup(model_of("f2")) for _ in range(2))
    for optimizer in (resumed, halved):
        load_npz(str(tmp_path / "optimizer"), optimizer)
        load_npz(str(tmp_path / "model"), optimizer.target)
    resumed.use_fp32_update()
    train(saved, 4, 5)
    assert_same_bits(arrays_of(train(resumed, 4, 5)), arrays_of(saved))
    assert_same_bits(masters_of(resumed), masters_of(saved))
    assert {array.dtype.name for array in arrays_of(train(halved, 4, 5)).values()} == {"float16"}


@pytest.mark.parametrize("updates", [0, 2])
def test_float32_states_of_chainers_wait_for_use_fp32_update(tmp_path, updates):
    """Chainer's file has no masters. Made halves when they were loaded, n was infinite and its element stood still."""

    def strong(optimizer, *seeds):
        for seed in seeds:
            for param in optimizer.target.params():
                param.grad = numpy.full(param.shape, 2000 + seed, "f2")
            optimizer.update()
        return optimizer

    saved = strong(mastered(ChainerRMSpropGraves), 1, 2, 3)
    for name, obj in (("optimizer", saved), ("model", saved.target)):
        save_npz(str(tmp_path / name), obj)
    ends = []
    for loads_first in (False, True):
        optimizer = strong(RMSpropGraves(lr=1e-4).setup(model_of("f2")), *range(updates))
        if not loads_first:
            optimizer.use_fp32_update()
        load_npz(str(tmp_path / "optimizer"), optimizer)
        load_npz(str(tmp_path / "model"), optimizer.target)
        optimizer.use_fp32_update()
        ends.append(arrays_of(strong(optimizer, 4)))
    assert_same_bits(*ends)
    assert numpy.isfinite(ends[0]["/p0/n"]).all()
    assert ends[0]["/p0/n"].dtype == numpy.float32


@pytest.mark.parametrize("from_chainer", [False, True])
def test_masters_of_a_run_that_is_rolled_back_are_given_up(tmp_path, from_chainer):
    """They round to the parameter as long as no step has been half its last place, and were taken for its own."""
    optimizer = mastered(lr=1e-5)
    saved = train(mastered(ChainerRMSpropGraves, lr=1e-5), 1) if from_chainer else mastered(lr=1e-5)
    for name, obj in (("optimizer", saved), ("model", saved.target)):
        save_npz(str(tmp_path / name), obj)
    train(optimizer, 1, 2, 3)
    ends = []
    for one in (optimizer, mastered(lr=1e-5)):
        load_npz(str(tmp_path / "model"), one.target)
        load_npz(str(tmp_path / "optimizer"), one)
        ends.append({**arrays_of(train(one, 7)), **masters_of(one)})
    assert_same_bits(*ends)


@pytest.mark.parametrize("options", [{"ignore_names": lambda name: True}, {"strict": False}], ids=["ignored", "empty"])
def test_masters_stay_where_none_are_loaded(tmp_path, options):
    """From a file of which nothing is taken."""
    saved, untouched = train(mastered(), 1, 2, 3), train(mastered(), 1, 2, 3)
    write_npz(str(tmp_path / "file.npz"), entries_of(saved) if "ignore_names" in options else {"other": numpy.ones(1)})
    load_npz(str(tmp_path / "file.npz"), saved, **options)
    assert_same_bits(arrays_of(train(saved, 4, 5)), arrays_of(train(untouched, 4, 5)))
    assert_same_bits(masters_of(saved), masters_of(untouched))


def test_one_nan_does_not_cost_the_other_elements_their_master(tmp_path):
    """A NaN of the parameter is one of the master."""
    saved = train(mastered(), 1, 2, 3)
    for array in (saved.target.p0.array, saved.target.p0.update_rule._fp32_param.array):
        array[0, 0] = numpy.nan
    for name, obj in (("optimizer", saved), ("model", saved.target)):
        save_npz(str(tmp_path / name), obj)
    resumed = mastered()
    load_npz(str(tmp_path / "optimizer"), resumed)
    load_npz(str(tmp_path / "model"), resumed.target)
    assert_same_bits(arrays_of(train(resumed, 4, 5)), arrays_of(train(saved, 4, 5)))


def test_a_loaded_master_shares_no_memory_with_its_source():
    """Where the entries are arrays of another optimizer that trains on."""
    saved = train(mastered(), 1)
    resumed = mastered()
    chainer.serializers.NpzDeserializer(entries_of(saved)).load(resumed)
    save_model_into(saved, resumed)
    train(resumed, 2)
    for one, other in zip(masters_of(saved).values(), masters_of(resumed).values()):
        assert not numpy.shares_memory(one, other)


def test_chainer_reads_a_file_with_masters_and_this_one_without(tmp_path):
    """Chainer's class ignores them; without them they are made of the parameters, as by Chainer."""
    ours, chainers = train(mastered(), 1, 2, 3), train(mastered(ChainerRMSpropGraves), 1, 2, 3)
    for name, saved, other in (("ours", ours, ChainerRMSpropGraves), ("chainers", chainers, RMSpropGraves)):
        save_npz(str(tmp_path / name), saved)
        save_npz(str(tmp_path / f"{name} model"), saved.target)
        optimizer = mastered(other)
        load_npz(str(tmp_path / name), optimizer)
        load_npz(str(tmp_path / f"{name} model"), optimizer.target)
        train(optimizer, 4)
        for path, master in masters_of(optimizer).items():
            assert master.dtype == numpy.float32, path
    assert any(key.endswith("fp32_param") for key in entries_of(ours))


def test_a_damaged_master_is_refused(checkpoint):
    """By name, and nothing has changed."""
    entries = entries_of(train(mastered(), 1))
    entries["p0/fp32_param"] = numpy.ones(2, "f4")
    optimizer = train(mastered(), 2)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=r"/p0/fp32_param: found shape \(2,\), expected \(2, 3\)"):
        checkpoint(entries)(optimizer)
    assert everything_of(optimizer) == before


def test_dynamic_loss_scaling_goes_on_from_where_it_was(checkpoint):
    """Chainer starts again at one."""

    def scaled():
        optimizer = fresh()
        optimizer.loss_scaling(interval=3)
        return optimizer

    saved = train(scaled(), 1, 2, 3)
    saved.target.p0.grad[...] = numpy.inf
    with pytest.warns(UserWarning, match="Non finite number found"):
        saved.update()
    entries = entries_of(saved)
    resumed = scaled()
    checkpoint(entries)(resumed)
    assert (resumed._loss_scale, resumed._loss_scaling_isnan_ever) == (saved._loss_scale, True)
    assert resumed._loss_scale > 1
    without("loss_scale", "loss_scaling_isnan_ever")(entries)
    as_before = scaled()
    checkpoint(entries)(as_before)
    assert as_before._loss_scale == 1
    entries["loss_scale"] = numpy.array(-2.0)
    with pytest.raises(ValueError, match=r"loss_scale: found -2\.0, expected a finite number > 0"):
        checkpoint(entries)(scaled())
    # A scale that a program has set is its own to set again.
    static = fresh()
    static.set_loss_scale(8.0)
    assert "loss_scale" not in entries_of(static)


# Files from elsewhere


DONE = []


def do_harm():
    """What a file has Python do."""
    DONE.append("harm")


class Harm:
    """It is done when its pickle is loaded."""

    def __reduce__(self):
        """A pickle is a call of this."""
        return do_harm, ()


@pytest.fixture
def harm():
    """What has been run of a hostile file."""
    DONE.clear()
    return DONE


def test_a_hostile_file_runs_nothing(tmp_path, harm):
    """It is refused by the entry's name, before anything is read; Chainer's loader runs it."""
    entries = entries_of(train(fresh(), 1))
    hostile = numpy.empty((), object)
    hostile[()] = Harm()
    entries["p1/g"] = hostile
    path = str(tmp_path / "hostile.npz")
    write_npz(path, entries)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=r"hostile\.npz: p1/g\.npy is a pickled object, which may run any code"):
        rmsprop_graves.load_npz(path, optimizer)
    assert harm == []
    assert everything_of(optimizer) == before
    with pytest.raises(KeyError):
        load_npz(path, optimizer)
    assert "harm" in harm


@pytest.mark.parametrize("where", ["in a field", "as the file itself", "in an entry that is not asked for"])
def test_a_pickle_is_not_loaded_from_anywhere(tmp_path, harm, where):
    """Of a structured array, in the place of the archive, and where nobody would look."""
    path = tmp_path / "hostile.npz"
    entries = entries_of(train(fresh(), 1))
    if where == "in a field":
        entries["p1/g"] = numpy.array([(1.0, Harm())], [("a", "f4"), ("b", object)])
        write_npz(path, entries)
    elif where == "as the file itself":
        path.write_bytes(pickle.dumps(Harm()))
    else:
        entries["elsewhere"] = numpy.array([Harm()], object)
        write_npz(path, entries)
    with pytest.raises(ValueError, match=r"hostile\.npz: .*(is a pickled object|not in the npz format)"):
        rmsprop_graves.load_npz(str(path), fresh())
    assert harm == []


def test_a_trusted_file_is_loaded_as_chainers_loader_does(tmp_path):
    """An optimizer, a model under a path, from a name or an open file, and not strictly."""
    saved = train(fresh(), 1, 2)
    path = str(tmp_path / "file.npz")
    save_npz(path, saved)
    for source in (path, tmp_path / "file.npz", io.BytesIO((tmp_path / "file.npz").read_bytes())):
        optimizer = fresh()
        rmsprop_graves.load_npz(source, optimizer)
        save_model_into(saved, optimizer)
        assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    chain = chainer.Chain(model=saved.target)
    save_npz(path, chain)
    model = model_of(seed=5)
    rmsprop_graves.load_npz(path, model, path="model/")
    assert model.p0.array.tobytes() == saved.target.p0.array.tobytes()
    with pytest.raises(KeyError):
        rmsprop_graves.load_npz(path, model_of(), path="other/")
    rmsprop_graves.load_npz(path, model_of(), path="other/", strict=False)


def test_a_truncated_or_corrupted_file_is_refused_and_changes_nothing(tmp_path):
    """At any length, and with any byte of an array changed, which the archive's checksums tell."""
    saved = train(fresh(), 1)
    path = tmp_path / "file.npz"
    save_npz(str(path), saved, compression=False)
    whole = path.read_bytes()
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    rng = numpy.random.RandomState(0)
    for length in sorted(rng.choice(len(whole), 60, replace=False)):
        path.write_bytes(whole[:length])
        with pytest.raises((ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile)):
            rmsprop_graves.load_npz(str(path), optimizer)
        assert everything_of(optimizer) == before
    begin = whole.index(saved.target.p0.update_rule.state["n"].tobytes())
    for place in range(begin, begin + 24):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            rmsprop_graves.load_npz(str(path), optimizer)
        assert everything_of(optimizer) == before


@needs_h5py
def test_a_corrupted_hdf5_entry_is_refused_by_name(tmp_path):
    """H5py's error is one of the system's kind, and names nothing."""
    model = Arrays(*[numpy.random.RandomState(0).standard_normal(1000).astype("f4")] * 3)
    optimizer = train(RMSpropGraves().setup(model), 1)
    path = tmp_path / "file.hdf5"
    save_hdf5(str(path), optimizer)
    with h5py.File(path, "r") as file:
        chunk = file["p1/n"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 20 : chunk.byte_offset + 60] = bytes(40)
    path.write_bytes(content)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=r"/p1/n: it cannot be read \(OSError: "):
        load_hdf5(str(path), optimizer)
    assert everything_of(optimizer) == before


def test_entries_of_a_dictionary_are_not_trained_on():
    """They were taken for the states themselves, of an optimizer before its first update."""
    entries = entries_of(train(fresh(), 1, 2))
    for value in entries.values():
        value.flags.writeable = False
    before = {key: value.tobytes() for key, value in entries.items()}
    optimizer = fresh()
    chainer.serializers.NpzDeserializer(entries).load(optimizer)
    train(optimizer, 3)
    assert {key: value.tobytes() for key, value in entries.items()} == before


@pytest.mark.parametrize("compression", [False, True])
def test_load_npz_refuses_what_is_broken_by_the_entrys_name(tmp_path, compression):
    """Whatever of zip or NumPy breaks: a header that cannot be unpacked, an encrypted entry, another kind of file."""
    path = tmp_path / "file.npz"
    save_npz(str(path), train(fresh(), 1), compression=compression)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("p1/n.npy")
    header = info.header_offset + 30 + len(info.filename)
    header += int.from_bytes(whole[info.header_offset + 28 : info.header_offset + 30], "little")
    directory = whole.rindex(b"p1/n.npy") - 46
    broken = {
        "packed data": [(header, bytes([255] * 24 if compression else [147, 78, 85, 77, 80, 89, 1, 0, 255, 255]))],
        "encrypted": [(info.header_offset + 6, b"\1"), (directory + 8, b"\1")],
    }
    for what, changes in broken.items():
        content = bytearray(whole)
        for place, value in changes:
            content[place : place + len(value)] = value
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"p1/n\.npy: it cannot be read"):
            rmsprop_graves.load_npz(path, fresh())
        assert what
    array = io.BytesIO()
    numpy.save(array, numpy.ones(3))
    path.write_bytes(array.getvalue() + whole)
    with pytest.raises(ValueError, match="it is not in the npz format"):
        rmsprop_graves.load_npz(path, fresh())


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "Path"])
def test_load_npz_takes_any_path(tmp_path, kind):
    """As NumPy does."""
    saved, optimizer = train(fresh(), 1), fresh()
    save_npz(str(tmp_path / "file.npz"), saved)
    rmsprop_graves.load_npz(
        kind(tmp_path / "file.npz") if kind is not bytes else str(tmp_path / "file.npz").encode(), optimizer
    )
    assert optimizer.t == 1


def test_an_entry_that_is_no_array_is_refused_by_name(tmp_path):
    """An archive can hold bytes."""
    saved = train(fresh(), 1)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    path = str(tmp_path / "file")
    entries = entries_of(saved)
    del entries["p1/g"]
    write_npz(f"{path}.npz", entries)
    with zipfile.ZipFile(f"{path}.npz", "a") as archive:
        archive.writestr("p1/g.npy", b"raw")
    for load in (load_npz, rmsprop_graves.load_npz):
        with pytest.raises(ValueError, match="/p1/g: "):
            load(f"{path}.npz", optimizer)
    assert everything_of(optimizer) == before


@needs_h5py
def test_an_hdf5_entry_that_is_no_dataset_is_refused_by_name(tmp_path):
    """A group, or a dataset in the place of one."""
    saved = train(fresh(), 1)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    path = str(tmp_path / "file")
    entries = entries_of(saved)
    del entries["p1/g"]
    write_hdf5(f"{path}.h5", entries)
    with h5py.File(f"{path}.h5", "a") as file:
        file.create_group("p1/g")
    with pytest.raises(ValueError, match="/p1/g: "):
        load_hdf5(f"{path}.h5", optimizer)
    with h5py.File(f"{path}.h5", "a") as file:
        del file["p1"]
        file["p1"] = numpy.ones(3)
    with pytest.raises(ValueError, match="/p1: it cannot be read"):
        load_hdf5(f"{path}.h5", optimizer)
    assert everything_of(optimizer) == before


def test_a_subclass_with_its_own_serialize_is_held_to_its_parameter(checkpoint):
    """Where it calls that of the rule: by its parameter's name, shape and dtype."""

    class Noted(RMSpropGravesRule):
        def serialize(self, serializer):
            super().serialize(serializer)
            self.note = serializer("note", getattr(self, "note", 0))

    def noted():
        optimizer = fresh()
        optimizer.target.p1.update_rule = Noted(optimizer.hyperparam)
        return optimizer

    entries = entries_of(train(noted(), 1))
    for updates in (0, 2):
        optimizer = train(noted(), *range(4, 4 + updates))
        before = everything_of(optimizer)
        broken = {**entries, **{f"p1/{name}": numpy.ones(7, "f4") for name in STATES}}
        with pytest.raises(ValueError, match=r"/p1/n: found shape \(7,\), expected \(4,\)"):
            checkpoint(broken)(optimizer)
        assert everything_of(optimizer) == before
        checkpoint({**entries, "p1/n": entries["p1/n"].astype("f8")})(optimizer)
        assert optimizer.target.p1.update_rule.state["n"].dtype == numpy.float32


def test_a_subclass_of_the_rule_with_more_states_saves_and_loads_them(checkpoint):
    """An array is held to the shape that it has; a number is read as Chainer reads it."""

    class Counting(RMSpropGravesRule):
        def init_state(self, param):
            super().init_state(param)
            self.state["more"] = numpy.zeros(2)
            self.state["count"] = 3

    def counting():
        optimizer = fresh()
        optimizer.target.p1.update_rule = Counting(optimizer.hyperparam)
        return optimizer

    saved = train(counting(), 1)
    saved.target.p1.update_rule.state.update(more=numpy.array([5.0, 6.0]), count=7)
    entries = entries_of(saved)
    optimizer = train(counting(), 2)
    checkpoint(entries)(optimizer)
    state = optimizer.target.p1.update_rule.state
    assert (state["more"].tolist(), state["count"]) == ([5, 6], 7)
    entries["p1/more"] = numpy.ones(3)
    with pytest.raises(ValueError, match=r"/p1/more: found shape \(3,\), expected \(2,\)"):
        checkpoint(entries)(optimizer)
    fresh_one = counting()
    checkpoint({**entries, "p1/more": numpy.ones(2)})(fresh_one)
    train(fresh_one, 3)
