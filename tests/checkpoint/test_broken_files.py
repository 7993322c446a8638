"""Files that Chainer's loaders can open, with entries that are damaged or are not arrays."""

from __future__ import annotations

import errno
import zipfile

import numpy
import pytest
from chainer.serializers import NpzDeserializer, load_hdf5, load_npz, save_hdf5
from checkpoint.training import entries_of, everything_of, fresh, model_of, train, without
from file_formats import h5py, needs_h5py, write_hdf5, write_npz

import rmsprop_graves
from rmsprop_graves import RMSpropGraves


@pytest.mark.parametrize("load", [load_npz, rmsprop_graves.load_npz], ids=["Chainer's", "ours"])
def test_an_npz_entry_that_is_not_an_array_is_refused_by_name(tmp_path, load):
    """A member of a zip archive can hold any bytes."""
    entries = entries_of(train(fresh(), 1))
    without("p1/g")(entries)
    path = str(tmp_path / "file.npz")
    write_npz(path, entries)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("p1/g.npy", b"raw")
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match="/p1/g: it cannot be read"):
        load(path, optimizer)
    assert everything_of(optimizer) == before


@needs_h5py
def test_an_hdf5_entry_that_is_not_a_dataset_is_refused_by_name(tmp_path):
    """The file has a group where a dataset is expected, or a dataset where a group is expected."""
    entries = entries_of(train(fresh(), 1))
    without("p1/g")(entries)
    path = str(tmp_path / "file.h5")
    write_hdf5(path, entries)
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with h5py.File(path, "a") as file:
        file.create_group("p1/g")
    with pytest.raises(ValueError, match="/p1/g: it cannot be read"):
        load_hdf5(path, optimizer)
    with h5py.File(path, "a") as file:
        del file["p1"]
        file["p1"] = numpy.ones(3)
    with pytest.raises(ValueError, match="/p1: it cannot be read"):
        load_hdf5(path, optimizer)
    assert everything_of(optimizer) == before


@needs_h5py
def test_a_corrupted_hdf5_entry_is_refused_by_name(tmp_path):
    """h5py's own error is an OSError without an errno, and does not name the entry."""
    optimizer = train(RMSpropGraves().setup(model_of(shapes=((1000,),) * 3)), 1)
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


def test_an_error_of_the_operating_system_is_raised_unchanged():
    """The type and errno of the error say more than a ValueError would."""

    class FailingDisk(NpzDeserializer):
        def __call__(self, key, value):
            if self.path + key == "p1/g":
                raise OSError(errno.EIO, "Input/output error")
            return super().__call__(key, value)

        def __getitem__(self, key):
            return FailingDisk(self.npz, self.path + key.strip("/") + "/", strict=self.strict)

    entries = entries_of(train(fresh(), 1))
    optimizer = train(fresh(), 2)
    before = everything_of(optimizer)
    with pytest.raises(OSError, match="Input/output error") as caught:
        optimizer.serialize(FailingDisk(entries))
    assert caught.value.errno == errno.EIO
    assert everything_of(optimizer) == before
