"""Files made by old Chainer releases with ``old_releases/make.py``. Up to 3.3 they have no t per parameter."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy
import pytest
from chainer.serializers import load_hdf5, load_npz
from checkpoint.old_releases.make import END, HYPERPARAMETERS, SAVED, entries_of, model_of, set_gradients, trainer_of
from checkpoint.training import STATES, load_from_dict, replaced, without
from file_formats import needs_h5py
from models import assert_same_bits

import rmsprop_graves

FILES = Path(__file__).with_name("old_releases")
RELEASES = ["1.24.0", "2.1.0", "3.0.0", "3.5.0", "6.7.0"]
WITHOUT_COUNTS = RELEASES[:3]  # of the rules
WITHOUT_TRIGGERS = RELEASES[:2]
OF_BOTH = [
    pytest.param("npz", load_npz, id="npz"),
    pytest.param("npz", rmsprop_graves.load_npz, id="npz-untrusted"),
    pytest.param("h5", load_hdf5, id="hdf5", marks=needs_h5py),
    pytest.param("h5", rmsprop_graves.load_hdf5, id="hdf5-untrusted", marks=needs_h5py),
]


def optimizer_of(release, updates=0):
    optimizer = rmsprop_graves.RMSpropGraves(**HYPERPARAMETERS).setup(model_of(is_lazy=release != "1.24.0"))
    return go_on(optimizer, updates)


def go_on(optimizer, updates):
    for _ in range(updates):
        set_gradients(optimizer.target, optimizer.t)
        optimizer.update()
    return optimizer


def read(release, name):
    with numpy.load(FILES / release / name, allow_pickle=True) as file:
        return dict(file)


def assert_ends_as(release, optimizer):
    """Assert that params, n, g and delta are bit-identical to the old run's, and that the counts are right."""
    expected = {key: value for key, value in read(release, "end.npz").items() if value.dtype.kind == "f"}
    actual = entries_of(optimizer)
    assert len(expected) == 6 * 4
    assert_same_bits({key: actual[key] for key in expected}, expected)
    assert optimizer.t == END
    assert counts_of(optimizer) == {END}


def counts_of(optimizer):
    """Return the distinct t of the rules, except for the rule of the uninitialized parameter."""
    return {param.update_rule.t for param in optimizer.target.params() if param.array is not None}


@pytest.mark.parametrize(("suffix", "load"), OF_BOTH)
@pytest.mark.parametrize("release", RELEASES)
def test_a_run_of_an_old_release_goes_on_to_its_bits(release, suffix, load, updates):
    """The optimizer's file is loaded strictly, into a new optimizer and into one with a state."""
    optimizer = optimizer_of(release, updates)
    load_npz(str(FILES / release / "model.npz"), optimizer.target)
    load(str(FILES / release / f"optimizer.{suffix}"), optimizer)
    assert counts_of(optimizer) == {SAVED}
    assert_ends_as(release, go_on(optimizer, END - SAVED))


# The npz snapshots hold a pickled None for the uninitialized parameter, which load_npz of this package refuses.
@pytest.mark.parametrize(("suffix", "load"), [one for one in OF_BOTH if one.id != "npz-untrusted"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_trainer_resumes_from_a_snapshot_of_an_old_release(release, suffix, load, tmp_path):
    """Model, optimizer, iterator and counts are in one file, which is loaded strictly."""
    trainer = trainer_of(optimizer_of(release), str(tmp_path), END)
    with warnings.catch_warnings():
        if release in WITHOUT_TRIGGERS:
            warnings.filterwarnings("ignore", "The previous value of")
        load(str(FILES / release / f"snapshot.{suffix}"), trainer)
    assert_resumes(release, trainer)


def assert_resumes(release, trainer):
    assert trainer.updater.iteration == SAVED
    trainer.run(show_loop_exception_msg=False)
    assert_ends_as(release, trainer.updater.get_optimizer("main"))


def assert_refused(release, change, expected, updates):
    """Assert that the release's file is refused after a change, and that the optimizer is as before."""
    entries = read(release, "optimizer.npz")
    change(entries)
    optimizer = optimizer_of(release, updates)
    before = {key: value.tobytes() for key, value in entries_of(optimizer).items()}
    with pytest.raises((KeyError, ValueError), match=expected):
        load_from_dict(entries, optimizer)
    assert {key: value.tobytes() for key, value in entries_of(optimizer).items()} == before


PATHS = ["first/W", "first/b", "block/second/W", "block/second/scale", "block/sometimes", "block/unused"]


@pytest.mark.parametrize("release", RELEASES)
def test_a_lost_state_is_refused(release, updates):
    """One entry is lost, or the whole state of a parameter."""
    for path in PATHS:
        lost = [f"{path}/{name}" for name in STATES]
        for keys in ([lost[0]], [lost[1]], [lost[2]], lost[1:], lost):
            assert_refused(release, without(*keys), f"{path}/", updates)


@pytest.mark.parametrize("release", RELEASES)
def test_the_state_of_every_parameter_is_refused_if_it_is_lost(release, updates):
    """Only the counts are left."""
    keys = [key for key in read(release, "optimizer.npz") if key.rpartition("/")[2] in STATES]
    assert_refused(release, without(*keys), "/n: it is not", updates)


@pytest.mark.parametrize("release", ["3.5.0", "6.7.0"])
def test_a_lost_count_is_refused_where_other_parameters_have_one(release, updates):
    for path in PATHS:
        assert_refused(release, without(f"{path}/t"), f"{path}/t", updates)


@pytest.mark.parametrize("release", WITHOUT_COUNTS)
@pytest.mark.parametrize("key", ["t", "epoch"])
def test_a_lost_count_of_the_optimizer_is_refused(release, key, updates):
    assert_refused(release, without(key), key, updates)


@pytest.mark.parametrize("release", WITHOUT_COUNTS)
def test_a_wrong_shape_in_an_old_file_is_refused(release, updates):
    assert_refused(release, replaced("first/W/g", numpy.zeros((3, 4), "f4")), "first/W/g", updates)


def test_a_file_of_an_old_release_saved_before_the_first_update_is_loaded():
    """Chainer 2 and 3 had no state to save then."""
    optimizer = optimizer_of("2.1.0")
    load_from_dict({"t": numpy.array(0), "epoch": numpy.array(4)}, optimizer)
    assert (optimizer.t, optimizer.epoch) == (0, 4)
    expected = optimizer_of("2.1.0", 2)
    assert_same_bits(
        {k: v for k, v in entries_of(go_on(optimizer, 2)).items() if v.dtype.kind == "f"},
        {k: v for k, v in entries_of(expected).items() if v.dtype.kind == "f"},
    )
