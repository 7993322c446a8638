"""Simulate a GPU with the real CuPy: arrays have no memory, and kernels do nothing.

An update then takes only the time of the Python code on the host, with Chainer's class and with this package's.
"""

from __future__ import annotations

from typing import Any

import chainer
import numpy
from chainer.backends import cuda


class Kernel:
    """A kernel that reads its arguments and launches nothing.

    Attributes:
        launches: The number of calls of all kernels.
    """

    launches = 0

    def __init__(self, *source: Any, **options: Any) -> None:
        """Take the arguments of ``cupy.RawKernel`` or ``cupy.ElementwiseKernel``, and compile nothing."""

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Count a launch."""
        Kernel.launches += 1
        if len(arguments) == 3 and isinstance(arguments[2], tuple):
            # CuPy reads the address of a structure passed by value in the same way.
            for argument in arguments[2]:
                if isinstance(argument, numpy.ndarray):
                    argument.__array_interface__["data"]


def install() -> None:
    """Make CuPy and Chainer work with a simulated device 0 until the process ends.

    Chainer and this package cache kernels, so the process cannot use a real GPU afterwards.

    Raises:
        ImportError: CuPy cannot be imported.
    """
    import cupy

    class Device(cupy.cuda.Device):  # type: ignore[misc]
        def __init__(self, device: Any = 0) -> None:
            super().__init__(device)

        def __enter__(self) -> Device:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def use(self) -> None:
            pass

    def upload(array: Any, dtype: Any = None, **_: Any) -> Any:
        return cupy.empty(numpy.shape(array), dtype or array.dtype)

    cupy.cuda.set_allocator(_Addresses())
    cupy.cuda.Device = Device
    cupy.cuda.runtime.getDevice = lambda: 0
    cupy.cuda.get_current_stream = lambda *_: cupy.cuda.Stream.null
    cupy.asarray = cupy.array = upload
    cupy.zeros = cupy.empty
    cupy.zeros_like = cupy.empty_like
    cupy.ndarray.astype = lambda array, dtype, **_: cupy.empty(array.shape, dtype)
    cupy.ndarray.set = lambda array, source, **_: None
    cupy.RawKernel = cupy.ElementwiseKernel = Kernel

    cuda.available = True
    cuda.cupy = cuda.GpuDevice.xp = cupy
    cuda.ndarray, cuda.GpuDevice.supported_array_types = cupy.ndarray, (cupy.ndarray,)
    cuda.Device = cupy.cuda.Device.__base__  # the type of `array.device`; Device is a subclass
    cuda.GpuDevice.create_context = lambda device: Device(device.device.id)
    cuda.check_cuda_available = lambda: None
    cuda.elementwise = Kernel
    chainer._array_types = (*chainer.get_array_types(), cupy.ndarray)


class _Addresses:
    """An allocator that gives each array a unique address but no memory."""

    def __init__(self) -> None:
        self._next = 1 << 20

    def __call__(self, nbytes: int) -> Any:
        import cupy

        memory = cupy.cuda.UnownedMemory(self._next, nbytes, self, device_id=0)
        self._next += -(-nbytes // 512) * 512
        return cupy.cuda.MemoryPointer(memory, 0)
