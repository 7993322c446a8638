"""What every test runs under."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# For the benchmarks; last, so that the package is the installed one where there is one.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# Where CuPy has no cuDNN, as from CuPy 14 on, Chainer warns of it when it is imported, and warnings are errors here.
os.environ.setdefault("CHAINER_CUDNN", "0")
# A CuPy that is there for its compiler alone warns of the libraries that it lacks, in every process started by a test.
os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:cupy._environment")

# Chainer is imported through this package on every stack, as the README tells people to.
import rmsprop_graves  # noqa: F401  isort: skip

settings.register_profile("derandomized", derandomize=True, deadline=None)
settings.load_profile("derandomized")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Where kernels are built, once for all tests."""
    return tmp_path_factory.mktemp("cpp")


@pytest.fixture
def gpu(built, monkeypatch):
    """Two devices in the place of GPUs."""
    from gpu_stand_in import Gpu

    stand_in = Gpu(built)
    stand_in.install(monkeypatch)
    return stand_in
