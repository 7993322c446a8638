"""rmsprop_graves.load_npz runs no code from a file, and its error names a damaged entry."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import chainer
import numpy
import pytest
from chainer.serializers import load_npz, save_npz
from checkpoint.training import copy_params, entries_of, everything_of, fresh, model_of, train
from file_formats import h5py, needs_h5py, write_npz
from models import arrays_of, assert_same_bits

import rmsprop_graves

DONE = []


def do_harm():
    """Record that code from the file has run."""
    DONE.append("harm")


class Harm:
    """An object whose pickle does harm when it is loaded."""

    def __reduce__(self):
        """Make the pickle a call of the harmful function."""
        return do_harm, ()


@pytest.fixture
def harm():
    """The list in which code from a file records that it has run."""
    DONE.clear()
    return DONE


def hostile(path, place):
    """Write a file with a pickled object at this place."""
    entries = entries_of(train(fresh(), 1))
    if place == "the whole file":
        path.write_bytes(pickle.dumps(Harm()))
        return
    if place == "a state":
        entries["p1/g"] = numpy.array(Harm(), object)
    elif place == "a field of a structured array":
        entries["p1/g"] = numpy.array([(1.0, Harm())], [("a", "f4"), ("b", object)])
    else:
        entries["elsewhere"] = numpy.array([Harm()], object)
    write_npz(path, entries)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a state", r"hostile\.npz: p1/g\.npy is a pickled object, which may run any code"),
        ("a field of a structured array", r"hostile\.npz: p1/g\.npy is a pickled object"),
        ("an entry that is not loaded", r"hostile\.npz: elsewhere\.npy is a pickled object"),
        ("the whole file", r"hostile\.npz: it is not in the npz format"),
    ],
)
def test_a_pickled_object_is_refused_and_not_run(tmp_path, harm, place, message):
    """Loading finds the object before it changes anything."""
    path = tmp_path / "hostile.npz"
    hostile(path, place)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=message):
        rmsprop_graves.load_npz(path, optimizer)
    assert harm == []
    assert everything_of(optimizer) == before


def test_chainers_loader_runs_a_pickled_object(tmp_path, harm):
    """This shows that the file of the test above runs code if it is unpickled."""
    hostile(tmp_path / "hostile.npz", "a state")
    with pytest.raises(KeyError):
        load_npz(str(tmp_path / "hostile.npz"), fresh())
    assert "harm" in harm


def test_every_pickled_object_is_counted(tmp_path):
    """The error names the first."""
    write_npz(tmp_path / "hostile.npz", {name: numpy.array(Harm(), object) for name in "abc"})
    with pytest.raises(ValueError, match=r"a\.npy is a pickled object.*, and so are 2 more entries; "):
        rmsprop_graves.load_npz(tmp_path / "hostile.npz", fresh())


# Loading


@pytest.mark.parametrize("source", [str, os.fsencode, Path, lambda path: io.BytesIO(path.read_bytes())])
def test_an_optimizer_is_loaded_from_any_path_or_open_file(tmp_path, source):
    """NumPy loads from the same kinds of files."""
    saved, optimizer = train(fresh(), 1, 2), fresh()
    save_npz(str(tmp_path / "file.npz"), saved)
    rmsprop_graves.load_npz(source(tmp_path / "file.npz"), optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    assert optimizer.t == 2


@pytest.mark.parametrize("load", ["load_npz", pytest.param("load_hdf5", marks=needs_h5py)])
def test_what_is_no_file_is_named(tmp_path, load):
    """Examples are arguments in the wrong order, a file opened as text, and a file object of h5py."""
    path = tmp_path / "file"
    path.write_text("")
    opened = [None, 3, {}, fresh(), io.StringIO()]
    if load == "load_hdf5":
        opened.append(h5py.File(tmp_path / "made", "w"))
    with open(path) as text:
        for file in [text, *opened]:
            with pytest.raises(TypeError, match=f"^file must be a path .*, got {type(file).__name__}$"):
                getattr(rmsprop_graves, load)(file, fresh())


def test_an_open_file_is_read_from_its_current_position(tmp_path):
    """Other bytes may precede the archive."""
    saved, optimizer = train(fresh(), 1, 2), fresh()
    save_npz(str(tmp_path / "file.npz"), saved)
    (tmp_path / "longer").write_bytes(b"header" + (tmp_path / "file.npz").read_bytes())
    with (tmp_path / "longer").open("rb") as file:
        file.seek(6)
        rmsprop_graves.load_npz(file, optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_headers_is_read(tmp_path, version):
    """NumPy writes version 2 for long headers, and version 3 for field names that are not Latin-1."""
    saved, optimizer = train(fresh(), 1, 2), fresh()
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        for key, array in entries_of(saved).items():
            with archive.open(f"{key}.npy", "w") as entry:
                numpy.lib.format.write_array(entry, numpy.asarray(array), version)
    rmsprop_graves.load_npz(tmp_path / "file.npz", optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))


def test_a_model_is_loaded_from_a_path_within_the_file(tmp_path):
    """`path` and `strict` mean the same as for Chainer's loader."""
    saved = model_of(seed=1)
    path = str(tmp_path / "file.npz")
    save_npz(path, chainer.Chain(model=saved))
    model = model_of(seed=5)
    rmsprop_graves.load_npz(path, model, path="model/")
    assert [param.array.tobytes() for param in model.params()] == [param.array.tobytes() for param in saved.params()]
    other = model_of(seed=5)
    with pytest.raises(KeyError):
        rmsprop_graves.load_npz(path, other, path="other/")
    rmsprop_graves.load_npz(path, other, path="other/", strict=False)
    unchanged = model_of(seed=5)
    assert [param.array.tobytes() for param in other.params()] == [
        param.array.tobytes() for param in unchanged.params()
    ]


# Broken files


def test_a_truncated_file_is_refused_and_changes_nothing(tmp_path):
    """A zip archive has its directory at the end, so any truncation is found before an entry is read."""
    path = tmp_path / "file.npz"
    save_npz(str(path), train(fresh(), 1), compression=False)
    whole = path.read_bytes()
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    for length in sorted(numpy.random.RandomState(0).choice(len(whole), 60, replace=False)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"file\.npz: it is not in the npz format"):
            rmsprop_graves.load_npz(path, optimizer)
        assert everything_of(optimizer) == before


def test_a_changed_byte_of_an_array_is_noticed(tmp_path):
    """The archive has a checksum of each entry."""
    saved = train(fresh(), 1)
    path = tmp_path / "file.npz"
    save_npz(str(path), saved, compression=False)
    whole = path.read_bytes()
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    begin = whole.index(saved.target.p0.update_rule.state["n"].tobytes())
    for place in range(begin, begin + 24):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"/n\.npy: it cannot be read|/n: it cannot be read"):
            rmsprop_graves.load_npz(path, optimizer)
        assert everything_of(optimizer) == before


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("fault", ["unreadable header", "encrypted"])
def test_an_unreadable_entry_is_refused_by_name(tmp_path, compression, fault):
    """The error may come from zipfile or from NumPy."""
    path = tmp_path / "file.npz"
    save_npz(str(path), train(fresh(), 1), compression=compression)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("p1/n.npy")
    if fault == "encrypted":
        # Set the flag in the entry's own header, and in the directory at the end of the archive.
        content[info.header_offset + 6] |= 1
        content[content.rindex(b"p1/n.npy") - 46 + 8] |= 1
    else:
        # The data follow 30 bytes, the name, and extra fields. Bytes 28 and 29 give the length of the extra fields.
        extra = int.from_bytes(content[info.header_offset + 28 : info.header_offset + 30], "little")
        begin = info.header_offset + 30 + len(info.filename) + extra
        header = bytes([255] * 24) if compression else b"\x93NUMPY\1\0\xff\xff"
        content[begin : begin + len(header)] = header
    path.write_bytes(content)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=r"p1/n\.npy: it cannot be read"):
        rmsprop_graves.load_npz(path, optimizer)
    assert everything_of(optimizer) == before


def test_an_archive_after_an_array_is_refused(tmp_path):
    """NumPy recognizes a file by its first bytes, zipfile by its last bytes."""
    path = tmp_path / "file.npz"
    array = io.BytesIO()
    numpy.save(array, numpy.ones(3))
    save_npz(str(path), train(fresh(), 1))
    path.write_bytes(array.getvalue() + path.read_bytes())
    with pytest.raises(ValueError, match="it is not in the npz format"):
        rmsprop_graves.load_npz(path, fresh())
