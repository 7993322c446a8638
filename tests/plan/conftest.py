"""The kernels that the tests of whole-model updates run with."""

from __future__ import annotations

import pytest
from random_models import GPUS, use_on_cpu


@pytest.fixture(params=["numba", "numpy"])
def kernel(request, monkeypatch):
    """The name of each kernel on a CPU, in use."""
    return use_on_cpu(request.param, monkeypatch)


@pytest.fixture(params=["numba", "numpy", "gpu"])
def device(request, monkeypatch):
    """Where to train: on a CPU with each kernel, or on a GPU's stand-in."""
    if request.param == "gpu":
        request.getfixturevalue("gpu")
        return GPUS[0]
    use_on_cpu(request.param, monkeypatch)
    return "@numpy"
