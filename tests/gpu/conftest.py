"""Fixtures of the tests that need a GPU."""

from __future__ import annotations

import pytest
from chainer.backends import cuda


@pytest.fixture(scope="session", autouse=True)
def xp():
    """Return CuPy if it has a device; otherwise skip every test of this folder with the reason."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() == 0:
            pytest.skip("no GPU, run make gpu on a machine with one: CuPy finds no device")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no GPU, run make gpu on a machine with one: {str(error).splitlines()[0]}")
    # Without a library such as libcublas, Chainer silently disables its GPU support.
    assert cuda.available, (
        "Chainer cannot use CuPy: python -c 'import chainer; chainer.backends.cuda.check_cuda_available()'"
    )
    return cupy
