"""The formats of Chainer's checkpoints; hdf5 only where h5py is installed, of which Python 3.15 has no wheel yet."""

from __future__ import annotations

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
