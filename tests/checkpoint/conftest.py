"""What the tests of checkpoints run with."""

from __future__ import annotations

import pytest
from file_formats import WRITE_AND_LOAD


@pytest.fixture(params=WRITE_AND_LOAD)
def load_entries(request, tmp_path):
    """Write entries to a file, and load the file into an optimizer: once for each file format."""
    write, load = request.param

    def write_and_load(entries, optimizer):
        path = str(tmp_path / "checkpoint.npz")  # NumPy would append a missing suffix
        write(path, entries)
        load(path, optimizer)

    return write_and_load


@pytest.fixture(params=[0, 2], ids=["fresh", "trained"])
def updates(request):
    """The number of updates before loading: without a state and with one."""
    return request.param
