"""Fixtures of the checkpoint tests."""

from __future__ import annotations

import pytest
from chainer.serializers import load_hdf5, load_npz
from file_formats import needs_h5py, write_hdf5, write_npz


@pytest.fixture(params=["npz", pytest.param("hdf5", marks=needs_h5py)])
def load_entries(request, tmp_path):
    """Return a function that writes entries to a file and loads it into an optimizer, for each file format."""
    write, load = {"npz": (write_npz, load_npz), "hdf5": (write_hdf5, load_hdf5)}[request.param]

    def write_and_load(entries, optimizer):
        path = str(tmp_path / "checkpoint.npz")  # NumPy would append a missing suffix
        write(path, entries)
        load(path, optimizer)

    return write_and_load


@pytest.fixture(params=[0, 2], ids=["fresh", "trained"])
def updates(request):
    """The number of updates before loading. A fresh optimizer has no state yet, a trained one has."""
    return request.param
