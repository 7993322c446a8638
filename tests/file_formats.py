"""The file formats of Chainer's checkpoints. hdf5 needs h5py, which has no wheel for Python 3.15 yet."""

from __future__ import annotations

import numpy
import pytest
from chainer.serializers import load_hdf5, load_npz, save_hdf5, save_npz
from skips import not_installed

try:
    import h5py
except ImportError:
    h5py = None

needs_h5py = pytest.mark.skipif(h5py is None, reason=not_installed("h5py"))

SAVE_AND_LOAD = [
    pytest.param(save_npz, load_npz, id="npz"),
    pytest.param(save_hdf5, load_hdf5, id="hdf5", marks=needs_h5py),
]


def write_npz(path, entries):
    """Write a dict of entries in the format of Chainer's npz files."""
    numpy.savez(path, **entries)


def write_hdf5(path, entries):
    """Write a dict of entries in the format of Chainer's hdf5 files."""
    with h5py.File(path, "w") as file:
        for key, value in entries.items():
            # Chainer saves an uninitialized array as None.
            file[key] = h5py.Empty("f4") if numpy.asarray(value).dtype == object else value
