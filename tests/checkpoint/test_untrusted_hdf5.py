"""rmsprop_graves.load_hdf5 reads nothing outside of its file, and otherwise works like Chainer's loader."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy
import pytest
from chainer.serializers import load_hdf5, save_hdf5
from checkpoint.training import copy_params, everything_of, fresh, model_of, train
from file_formats import h5py, needs_h5py
from models import arrays_of, assert_same_bits, snapshot_of

import rmsprop_graves

pytestmark = needs_h5py


def external_link(file, secret):
    """Link to a dataset of another file."""
    file["p1/n"] = h5py.ExternalLink(secret, "n")


def external_group(file, secret):
    """Link to a group of another file, where the entry's own group is expected."""
    del file["p1"]
    file["p1"] = h5py.ExternalLink(secret, "/")


def external_behind_soft(file, secret):
    """Reach the other file through two links."""
    file["elsewhere"] = h5py.ExternalLink(secret, "/")
    file["p1/n"] = h5py.SoftLink("/elsewhere/n")


def external_storage(file, secret):
    """Store the entry in another file, whose bytes become its numbers."""
    file.create_dataset("p1/n", (4,), "f4", external=[(secret, 0, 16)])


def virtual(file, secret):
    """Map a dataset of another file."""
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(secret, "n", (4,), "f4")
    file.create_virtual_dataset("p1/n", layout)


def unused(file, secret):
    """Put the link into an entry that would not be loaded."""
    file["p1/n"] = numpy.ones(4, "f4")
    file["unused"] = h5py.ExternalLink(secret, "n")


def unknown_filter(file, secret):
    """Use a filter that hdf5 looks for in its plugins."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((4,))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"p1/n", h5py.h5t.IEEE_F32LE, space, settings)


def references(file, secret):
    """Store references to objects of the file instead of numbers."""
    file.create_dataset("p1/n", (4,), h5py.ref_dtype)


HOSTILE = {
    external_link: r"p1/n is an external link",
    external_group: r"p1 is an external link",
    external_behind_soft: r"elsewhere is an external link",
    external_storage: r"p1/n is stored in another file, '.*secret\.h5'",
    virtual: r"p1/n is a virtual dataset",
    unused: r"unused is an external link",
    unknown_filter: r"p1/n needs filter 32015",
    references: r"p1/n holds references",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("strict", [True, False])
def test_a_file_that_needs_others_is_refused_by_the_name_of_the_entry(tmp_path, make, strict):
    """No other file is opened, and the optimizer is unchanged."""
    secret, path = str(tmp_path / "secret.h5"), str(tmp_path / "hostile.h5")
    with h5py.File(secret, "w") as file:
        file["n"] = numpy.ones(4, "f4")
    save_hdf5(path, train(fresh(), 1))
    with h5py.File(path, "a") as file:
        del file["p1/n"]
        make(file, secret)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=rf"hostile\.h5: {HOSTILE[make]}"):
        rmsprop_graves.load_hdf5(path, optimizer, strict=strict)
    assert everything_of(optimizer) == before


@pytest.mark.parametrize("make", [external_link, external_group, external_behind_soft, external_storage, virtual])
def test_chainers_loader_reads_the_other_file(tmp_path, make):
    """This shows that the files of the test above do make a loader read another file."""
    secret, path = str(tmp_path / "secret.h5"), str(tmp_path / "hostile.h5")
    saved = train(fresh(), 1)
    save_hdf5(path, saved)
    with h5py.File(secret, "w") as file, h5py.File(path, "a") as source:
        for name in ("t", "n", "g", "delta"):
            file[name] = source["p1"][name][()]
        file["n"][...] = 0.5
        del source["p1/n"]
        make(source, secret)
    optimizer = fresh()
    try:
        load_hdf5(path, optimizer)
    except ValueError as error:
        # The bytes of the other file were read, but are not valid states.
        assert make in (external_storage, virtual), error  # noqa: PT017
    else:
        assert make is external_storage or (optimizer.target.p1.update_rule.state["n"] == 0.5).all()


def test_soft_and_hard_links_within_the_file_are_followed_and_cycles_end(tmp_path):
    """Such links lead to data of the file itself."""
    path = str(tmp_path / "file.h5")
    saved, optimizer = train(fresh(), 1, 2), fresh()
    save_hdf5(path, saved)
    with h5py.File(path, "a") as file:
        file.move("p1", "moved")
        file["p1"] = h5py.SoftLink("/moved")
        file["again"] = file["/"]
        file["moved/up"] = file["/"]
        file["loop"] = h5py.SoftLink("/loop")
        file["dangling"] = h5py.SoftLink("/nothing")
    rmsprop_graves.load_hdf5(path, optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    with h5py.File(path, "a") as file:
        del file["p1"]
        file["p1"] = h5py.SoftLink("/p1")
    with pytest.raises((KeyError, ValueError), match=r"file\.h5: /?p1"):
        rmsprop_graves.load_hdf5(path, fresh())


@pytest.mark.parametrize("source", [str, os.fsencode, Path, lambda path: io.BytesIO(path.read_bytes())])
@pytest.mark.parametrize("compression", [None, 4])
def test_an_optimizer_is_loaded_from_any_path_or_open_file(tmp_path, source, compression):
    """load_npz loads from the same kinds of paths and files."""
    saved, optimizer = train(fresh(), 1, 2), fresh()
    save_hdf5(str(tmp_path / "file.h5"), saved, compression=compression)
    rmsprop_graves.load_hdf5(source(tmp_path / "file.h5"), optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))


def test_path_and_strict_mean_the_same_as_for_load_npz(tmp_path):
    """A missing entry raises a KeyError, or is ignored with strict=False."""
    saved, model = model_of(seed=1), model_of(seed=5)
    path = str(tmp_path / "file.h5")
    with h5py.File(path, "w") as file:
        for name, param in saved.namedparams():
            file[f"a/b{name}"] = param.array
    before = [param.array.tobytes() for param in model.params()]
    with pytest.raises(KeyError, match=r"file\.h5: other/p\d: it is not in the checkpoint"):
        rmsprop_graves.load_hdf5(path, model, path="other/")
    rmsprop_graves.load_hdf5(path, model, path="other/", strict=False)
    assert [param.array.tobytes() for param in model.params()] == before
    rmsprop_graves.load_hdf5(path, model, path="a/b/")
    assert [param.array.tobytes() for param in model.params()] == [param.array.tobytes() for param in saved.params()]


def test_errors_of_files_that_are_missing_or_not_hdf5(tmp_path, monkeypatch):
    """A missing file raises the system's error. A file in another format raises a ValueError that names it."""
    with pytest.raises(FileNotFoundError):
        rmsprop_graves.load_hdf5(tmp_path / "nothing.h5", fresh())
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(ValueError, match=r"text\.h5: it is not in the hdf5 format"):
        rmsprop_graves.load_hdf5(tmp_path / "text.h5", fresh())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="load_hdf5 needs h5py"):
        rmsprop_graves.load_hdf5(tmp_path / "text.h5", fresh())


@pytest.mark.parametrize("load", [load_hdf5, rmsprop_graves.load_hdf5])
def test_a_name_that_is_no_utf8_is_described_too(tmp_path, load):
    """h5py returns such a name as bytes, which failed with a TypeError."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[b"a\xff"] = 1
    with pytest.raises(KeyError, match=r"a\.h5: t: .*it holds a"):
        load(str(tmp_path / "a.h5"), fresh())


def test_a_path_that_is_not_in_the_file_changes_nothing_without_strict(tmp_path):
    """load_npz does the same. load_hdf5 failed with an AttributeError, because there was no group."""
    optimizer = fresh()
    train(optimizer, 2)
    before = snapshot_of(optimizer)
    save_hdf5(str(tmp_path / "a.h5"), optimizer)
    rmsprop_graves.load_hdf5(str(tmp_path / "a.h5"), optimizer, path="elsewhere", strict=False)
    assert_same_bits(snapshot_of(optimizer), before)


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupt_within_h5py_is_not_taken_for_damage(tmp_path, monkeypatch, cause):
    """Compiled code that is interrupted as it returns raises a SystemError whose cause is the interrupt."""
    save_hdf5(str(tmp_path / "a.h5"), fresh())

    def interrupted(*args):
        raise SystemError("returned a result with an exception set") from cause

    monkeypatch.setattr(h5py.Group, "__getitem__", interrupted)
    with pytest.raises(type(cause)):
        rmsprop_graves.load_hdf5(str(tmp_path / "a.h5"), fresh())
