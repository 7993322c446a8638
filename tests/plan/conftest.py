"""The kernels that the tests of whole-model updates run with."""

from __future__ import annotations

import pytest
from random_models import GPUS, use_on_cpu


@pytest.fixture(params=["numba", "numpy"])
def kernel(request, monkeypatch):
    """Use each CPU kernel and return its name."""
    return use_on_cpu(request.param, monkeypatch)


@pytest.fixture(params=["numba", "numpy", "gpu"])
def device(request, monkeypatch):
    """The device of the training: a CPU with each kernel, or the stand-in for a GPU."""
    if request.param == "gpu":
        request.getfixturevalue("gpu")
        return GPUS[0]
    use_on_cpu(request.param, monkeypatch)
    return "@numpy"
