"""Fixtures for the tests of the optimizer."""

from __future__ import annotations

import pytest
from skips import not_installed

from rmsprop_graves import kernels


@pytest.fixture(params=["numba", "numpy"])
def kernel(request):
    """Run the test with each CPU kernel in turn."""
    if request.param == "numba":
        pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError, reason=not_installed("numba"))
    before = kernels.on_cpu()
    kernels.use_on_cpu(request.param)
    yield
    kernels.use_on_cpu(before.__name__.rpartition(".")[2])
