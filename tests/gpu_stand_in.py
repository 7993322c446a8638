"""A stand-in for CuPy with two GPUs: its arrays are in host memory, and g++ builds the kernels that run on them.

It has the parts of CuPy that this package and Chainer's optimizers use. It records every launch. Before a launch runs
on its stream, the stand-in checks that all memory that it reads or writes is allocated on its device.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import weakref
from bisect import bisect_right
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import chainer
import numpy
from chainer.backends import cuda
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRule
from kernels import cpp
from numpy.lib.mixins import NDArrayOperatorsMixin

from rmsprop_graves import kernels
from rmsprop_graves.kernels import cuda as cuda_text
from rmsprop_graves.kernels import cupy as kernel

DEVICES = 2
ROW = numpy.dtype([(name, numpy.uint64) for name in ("param", "n", "g", "delta", "size")])


class Device:
    """cupy.cuda.Device."""

    _current = threading.local()

    def __init__(self, device=None):
        """Make the device with this number, or the current one."""
        self.id = self.current_id() if device is None else int(device)
        assert 0 <= self.id < DEVICES
        self._before = []

    @classmethod
    def current_id(cls):
        """Return the number of this thread's current device."""
        return getattr(cls._current, "id", 0)

    def __enter__(self):
        """Make this the current device."""
        self._before.append(self.current_id())
        self.use()
        return self

    def __exit__(self, *_):
        """Restore the previous device."""
        Device._current.id = self._before.pop()

    def __eq__(self, other):
        """Devices are equal if their numbers are."""
        return isinstance(other, Device) and other.id == self.id

    __hash__ = None

    def use(self):
        """Make this the current device."""
        Device._current.id = self.id


class Stream:
    """cupy.cuda.Stream, of the device that is current when it is made."""

    def __init__(self, gpu, ptr=None, non_blocking=True):
        """Make a stream of the current device; it does not wait for other streams."""
        self.gpu, self.device_id = gpu, Device.current_id()
        self.ptr = id(self) if ptr is None else ptr
        self.pending = []

    def __enter__(self):
        """Make this the current stream of its device."""
        self._before = self.gpu.streams[self.device_id]
        self.gpu.streams[self.device_id] = self
        return self

    def __exit__(self, *_):
        """Restore the previous stream."""
        self.gpu.streams[self.device_id] = self._before

    def enqueue(self, work):
        """Run work in the order of the stream: at once, unless the GPU holds work back."""
        self.pending.append(work)
        if not self.gpu.holds_back:
            self.synchronize()

    def synchronize(self):
        """Run the work that has been held back."""
        while self.pending:
            self.pending.pop(0)()


class Pointer(NamedTuple):
    """cupy.cuda.MemoryPointer."""

    ptr: int
    device_id: int


class Block:
    """Memory of the current device. As in CuPy's pool, it can be reused on its stream as soon as it is freed."""

    def __init__(self, gpu, nbytes):
        """Allocate memory filled with 0xFF bytes, so that tests notice a read of uninitialized memory."""
        self.gpu, self.device_id = gpu, Device.current_id()
        room = numpy.full(nbytes + 512, 0xFF, numpy.uint8)
        self.bytes = room[-room.ctypes.data % 512 :][:nbytes]
        begin = self.bytes.ctypes.data
        gpu.memory[begin] = (begin + nbytes, self.device_id, room)
        weakref.finalize(self, gpu.stream().enqueue, functools.partial(gpu.memory.pop, begin))


class ndarray(NDArrayOperatorsMixin):  # noqa: N801  CuPy's name
    """cupy.ndarray, as a wrapper of a NumPy array."""

    def __init__(self, array, block):
        """Wrap a view of a block's memory."""
        self.host, self.block = array, block

    @classmethod
    def of(cls, gpu, array):
        """Copy a NumPy array to the current device."""
        array = numpy.asarray(array)
        block = Block(gpu, array.nbytes)
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        made = cls(numpy.ndarray(array.shape, array.dtype, block.bytes, order=order), block)
        made.host[...] = array
        return made

    def _view(self, array):
        return ndarray(array, self.block)

    dtype = property(lambda self: self.host.dtype)
    size = property(lambda self: self.host.size)
    ndim = property(lambda self: self.host.ndim)
    strides = property(lambda self: self.host.strides)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: self.host.flags)
    device = property(lambda self: Device(self.block.device_id))
    T = property(lambda self: self._view(self.host.T))

    @property
    def shape(self):
        """The shape, which can be set in place as NumPy's can."""
        return self.host.shape

    @shape.setter
    def shape(self, shape):
        self.host = self.host.reshape(shape)

    @property
    def data(self):
        """The address and the device; CuPy's address is 0 for an array without elements."""
        return Pointer(self.host.ctypes.data if self.size else 0, self.block.device_id)

    def __getitem__(self, key):
        """Return a view."""
        return self._view(self.host[key])

    def __setitem__(self, key, value):
        """Write elements. As without peer access, both arrays must be on the current GPU."""
        if isinstance(value, ndarray):
            assert {self.block.device_id, value.block.device_id} == {Device.current_id()}, "of another device"
            value = value.host
        self.host[key] = value

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        """Call a NumPy function, with a new array or `out` as the result."""
        arrays = hosts_of(inputs)
        if out:
            getattr(ufunc, method)(*arrays, out=out[0].host, **options)
            return out[0]
        return ndarray.of(self.block.gpu, getattr(ufunc, method)(*arrays, **options))

    def reshape(self, *shape):
        """Return a view of another shape."""
        return self._view(self.host.reshape(*shape))

    def astype(self, dtype, copy=True):
        """Return a copy of another dtype, or the array itself if it has the dtype and `copy` is false."""
        if not copy and self.host.dtype == dtype:
            return self
        return ndarray.of(self.block.gpu, self.host.astype(dtype))

    def __bool__(self):
        """Whether the only element is true."""
        return bool(self.host)

    def copy(self):
        """Return a copy in C order, as CuPy does."""
        return ndarray.of(self.block.gpu, numpy.array(self.host, order="C"))

    def __deepcopy__(self, memo):
        """Return a copy."""
        return self.copy()

    def __reduce__(self):
        """Pickle the values and the device."""
        return revived, (self.host, self.block.device_id)

    def get(self, stream=None):
        """Return a copy on the host."""
        return self.host.copy()

    def set(self, array):
        """Write the elements of a NumPy array."""
        self.host[...] = array

    def __getattr__(self, name):
        """Return NumPy's method; its result is a view of the same memory or a new array of the current device."""
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self.host, name)

        def call(*arguments, **options):
            found = method(*hosts_of(arguments), **options)
            is_view = isinstance(found, numpy.ndarray) and numpy.shares_memory(found, self.host)
            return self._view(found) if is_view else ndarray.of(self.block.gpu, found)

        return call


def hosts_of(arguments):
    """Replace each array of the stand-in by its NumPy array; keep the other arguments."""
    return [one.host if isinstance(one, ndarray) else one for one in arguments]


def revived(array, device_id):
    with Device(device_id):
        return ndarray.of(cuda.cupy, array)


class Functions:
    """The functions of NumPy or of one of its modules, for arrays of the stand-in."""

    def __init__(self, gpu, module):
        """Take NumPy's module."""
        self.gpu, self.module = gpu, module

    def __getattr__(self, name):
        """Return a function that returns an array of the current device, or writes to `out`."""
        found = getattr(self.module, name)
        if isinstance(found, ModuleType):
            return Functions(self.gpu, found)
        if isinstance(found, numpy.ufunc):
            return found

        def call(*arguments, out=None, **options):
            if out is None:
                return ndarray.of(self.gpu, found(*hosts_of(arguments), **options))
            found(*hosts_of(arguments), out=out.host, **options)
            return out

        return call


class Launch(NamedTuple):
    """A recorded launch of a kernel."""

    name: str
    device_id: int
    stream: int
    grid: int
    arguments: Any


class Gpu:
    """The module cupy, with two devices.

    Args:
        folder: The folder in which kernels are built.
    """

    __version__ = "14.0.0"
    ndarray = ndarray

    def __init__(self, folder):
        """Start without launches and without allocated memory."""
        self.folder = folder
        self.launches = []
        # Allocated memory by its first address: (end, device, the object that keeps it alive).
        self.memory = {}
        # The blocks of a grid to run.
        self.blocks = slice(None)
        self.holds_back = False
        self.streams = []
        for device_id in range(DEVICES):
            with Device(device_id):
                self.streams.append(Stream(self, 0))
        self.cuda = SimpleNamespace(
            Device=Device,
            Stream=functools.partial(Stream, self),
            get_current_stream=self.stream,
            runtime=SimpleNamespace(getDeviceCount=lambda: DEVICES),
        )
        self.ElementwiseKernel = functools.partial(ElementwiseKernel, self)
        self.RawKernel = functools.partial(RawKernel, self)

    def __getattr__(self, name):
        """Return NumPy's function or module of this name."""
        return getattr(Functions(self, numpy), name)

    def stream(self):
        """Return the current stream of the current device."""
        return self.streams[Device.current_id()]

    def asarray(self, array):
        """Copy a NumPy array to the current device, in the order of the stream."""
        if isinstance(array, ndarray):
            return array
        made = ndarray.of(self, numpy.zeros_like(array))
        staged = array.copy()
        self.stream().enqueue(lambda host=made.host: host.__setitem__(..., staged))
        return made

    def adopt(self, array):
        """Make an array of the current device from a NumPy array's memory, without a copy."""
        block = SimpleNamespace(gpu=self, device_id=Device.current_id())
        self.memory[array.ctypes.data] = (array.ctypes.data + array.nbytes, block.device_id, array)
        return ndarray(array, block)

    def array(self, array, copy=True):
        """Copy an array to the current device."""
        return ndarray.of(self, array.host if isinstance(array, ndarray) else array)

    def zeros_like(self, array):
        """Return a contiguous array of zeros."""
        return ndarray.of(self, numpy.zeros(array.shape, array.dtype))

    def get_array_module(self, *arguments):
        """Return this module if one argument is an array of a GPU, otherwise NumPy."""
        return self if any(isinstance(one, ndarray) for one in arguments) else numpy

    @contextlib.contextmanager
    def held_back(self):
        """Run no work in this context until its stream is synchronized."""
        self.holds_back = True
        try:
            yield
        finally:
            self.holds_back = False

    def assert_allocated(self, device_id, *extents):
        """Assert that each (address, number of bytes) lies in allocated memory of the device."""
        begins = [0, *sorted(self.memory)]
        for address, nbytes in extents:
            if nbytes:
                end, device, _ = self.memory.get(begins[bisect_right(begins, address) - 1], (0, 0, 0))
                assert address < end, "a launch reads or writes memory that is not allocated when its turn comes"
                assert address + nbytes <= end, "a launch reads or writes beyond the end of an array"
                assert device == device_id, "a launch reads or writes memory of another device"

    def launch(self, launch, work):
        """Record a launch, and do its work in the order of the stream."""
        self.launches.append(launch)
        self.stream().enqueue(work)

    def install(self, patch):
        """Replace CuPy in this package and in Chainer, until the patch is undone."""
        patch.setattr(kernel, "load_cupy", lambda: self)
        # New caches, because the old ones hold kernels of another CuPy.
        for name in ("_kernel", "_table_kernel"):
            patch.setattr(kernel, name, functools.lru_cache(maxsize=None)(getattr(kernel, name).__wrapped__))
        patch.setattr(kernels, "on_gpu", lambda: kernel)
        patch.setattr(cuda, "available", True)
        patch.setattr(cuda, "cupy", self)
        patch.setattr(cuda, "ndarray", ndarray)
        patch.setattr(cuda, "Device", Device)
        patch.setattr(cuda, "check_cuda_available", lambda: None)
        patch.setattr(cuda, "elementwise", functools.lru_cache(maxsize=None)(self.ElementwiseKernel))
        patch.setattr(ChainerRule, "_kernel", None)
        patch.setattr(cuda.GpuDevice, "xp", self)
        patch.setattr(cuda.GpuDevice, "supported_array_types", (ndarray,))
        patch.setattr(chainer, "_array_types", (*chainer.get_array_types(), ndarray))


class ElementwiseKernel:
    """cupy.ElementwiseKernel."""

    def __init__(self, gpu, in_params, out_params, operation, name, preamble=""):
        """Take CuPy's arguments."""
        self.gpu, self.name = gpu, name
        self.results = len(out_params.split(","))
        self.kernel = cpp.ElementwiseKernel(in_params, out_params, operation, name, preamble, folder=gpu.folder)

    def __call__(self, *arguments, block_size=128):
        """Record a launch, and run it on arrays of any layout."""
        gpu, device_id = self.gpu, Device.current_id()
        arrays = [one for one in arguments if isinstance(one, ndarray)]
        for array in arrays:
            if array.block.device_id != device_id:
                # CuPy raises this error if the devices cannot read each other's memory; otherwise it warns.
                raise ValueError(f"an array of device {array.block.device_id} while device {device_id} is current")
        # Inputs are broadcast to the shape of the outputs.
        shape = arrays[-1].shape
        for array in arrays:
            if numpy.broadcast_shapes(array.shape, shape) != shape or (
                array is not arrays[0] and array.shape != shape
            ):
                raise ValueError(f"Out shape is mismatched: {array.shape} and {shape}")
        hosts = hosts_of(arguments)
        extents = [(one.data.ptr, one.nbytes) for one in arrays if one.flags.c_contiguous]

        def work():
            gpu.assert_allocated(device_id, *extents)
            contiguous = [numpy.array(one, order="C") if isinstance(one, numpy.ndarray) else one for one in hosts]
            contiguous[0] = numpy.array(numpy.broadcast_to(hosts[0], shape), order="C")
            for place, (kind, _) in enumerate(self.kernel.params):
                if kind == "T" and not isinstance(hosts[place], numpy.ndarray):
                    contiguous[place] = numpy.full(shape, hosts[place], hosts[-1].dtype)
            self.kernel(*contiguous)
            for host, result in list(zip(hosts, contiguous))[-self.results :]:
                host[...] = result

        # The record has no arrays, because it must not keep them alive.
        gpu.launch(Launch(self.name, device_id, gpu.stream().ptr, -1, ()), work)


class RawKernel:
    """cupy.RawKernel, for the kernel of a table."""

    def __init__(self, gpu, source, name):
        """Take CuPy's arguments."""
        self.gpu, self.name = gpu, name
        self.kernel = cpp.RawKernel(source, name, folder=gpu.folder)
        stored = source.split(" T;")[0].split()[-1]
        (char,) = (char for char, (own, _) in cuda_text.TYPES.items() if own == stored)
        self.itemsize = numpy.dtype(char).itemsize
        self.layout = cuda_text.launch_layout(char)

    def __call__(self, grid, block, arguments):
        """Record a launch with a copy of its argument, and run it."""
        gpu, device_id = self.gpu, Device.current_id()
        argument = arguments[0].view(self.layout).copy()
        (count,) = grid
        assert 0 < count < 2**31, "a grid has 1 to 2**31 - 1 blocks"
        assert argument.itemsize <= 4096, "a launch has room for 4 KiB of arguments"

        def work():
            (launch,) = argument
            chunks_at, rows_at = int(launch["chunks"]), int(launch["rows"])
            gpu.assert_allocated(device_id, (chunks_at, count * cuda_text.CHUNK.itemsize))
            places = numpy.unique(read(chunks_at, count, cuda_text.CHUNK)["row"]).tolist()
            gpu.assert_allocated(device_id, (rows_at, (places[-1] + 1) * ROW.itemsize))
            rows = read(rows_at, places[-1] + 1, ROW)
            gpu.assert_allocated(
                device_id,
                *(
                    (int(address), int(rows[place]["size"]) * self.itemsize)
                    for place in places
                    for address in (launch["grads"][place - launch["first"]], *list(rows[place])[:4])
                ),
            )
            self.kernel(grid, block, (argument,), gpu.blocks)

        gpu.launch(Launch(self.name, device_id, gpu.stream().ptr, count, argument), work)


def read(address, count, dtype):
    """Return the memory at an address as an array."""
    return numpy.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype)
