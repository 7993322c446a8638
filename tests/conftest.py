"""Settings and fixtures for every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# To import benchmarks/ from the repository. Appended last, so that an installed rmsprop_graves comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# Warnings are errors here, and Chainer warns when it is imported beside a CuPy without cuDNN, such as CuPy 14.
os.environ.setdefault("CHAINER_CUDNN", "0")
# For the processes that tests start: without a GPU, CuPy warns of missing CUDA libraries.
os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:cupy._environment")

# Before any test imports Chainer, as the README tells users to.
import rmsprop_graves  # noqa: F401  isort: skip

# The hook that counts skipped tests.
from skips import pytest_terminal_summary  # noqa: F401  isort: skip

settings.register_profile("derandomized", derandomize=True, deadline=None)
settings.load_profile("derandomized")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return the folder in which tests compile C++; each source is compiled once per session."""
    return tmp_path_factory.mktemp("cpp")


@pytest.fixture
def gpu(built, monkeypatch):
    """Replace CuPy and its devices by a stand-in with two GPUs that computes on the CPU."""
    from gpu_stand_in import Gpu

    stand_in = Gpu(built)
    stand_in.install(monkeypatch)
    return stand_in
