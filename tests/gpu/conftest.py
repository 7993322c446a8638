"""The GPU of the tests in this folder: a real one, or the stand-in on a CPU."""

from __future__ import annotations

import pytest
from chainer.backends import cuda
from gpu.arrays import ON_A_GPU


@pytest.fixture(scope="session")
def real():
    """Return CuPy if it has a device; otherwise skip the test with the reason."""
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


@pytest.fixture(params=[ON_A_GPU, "stand-in"], autouse=True)
def xp(request):
    """Return CuPy, or the stand-in: a test that would fail on every GPU also fails on a machine without one."""
    return request.getfixturevalue("gpu" if request.param == "stand-in" else "real")
