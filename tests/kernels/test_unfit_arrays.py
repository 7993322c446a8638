"""The kernels' own `step` refuses an array that it cannot write, before anything is written."""

from __future__ import annotations

import numpy
import pytest
from kernels.cases import NAMES
from numpy.lib.stride_tricks import as_strided

from rmsprop_graves.kernels.arrays import fault_of

HYPERPARAMETERS = {"lr": 1e-2, "alpha": 0.9, "momentum": 0.8, "eps": 1e-4}
WRITTEN = ("param", "n", "g", "delta")


def read_only(array):
    array.flags.writeable = False
    return array


def overlapping(array):
    return as_strided(array, array.shape, (0, array.itemsize), writeable=True)


FAULTS = {
    "read-only": (read_only, ValueError, "must be writable, but it is read-only"),
    "broadcast": (overlapping, ValueError, "must be writable, but it has elements that share memory"),
    "integers": (lambda array: array.astype("i4"), TypeError, "must be of a real floating-point dtype, got int32"),
    "complex": (lambda array: array.astype("c8"), TypeError, "must be of a real floating-point dtype, got complex64"),
    "another shape": (lambda array: array[:1], ValueError, "must be of shape "),
}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(2, 3), (300, 500)])
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(("fault", "error", "message"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("module", ["numpy", "numba"])
def test_a_kernel_names_the_array_that_it_cannot_write(module, fault, error, message, name, shape, dtype):
    """The NumPy kernel wrote g before it found that n is read-only."""
    kernel = pytest.importorskip(f"rmsprop_graves.kernels.{module}", exc_type=ImportError)
    arrays = {one: numpy.ones(shape, dtype) for one in NAMES}
    arrays[name] = fault(arrays[name])
    # If the parameter has another shape, no other array fits, and the error names the gradient.
    named = "grad" if (name, message) == ("param", "must be of shape ") else name
    with pytest.raises(error, match=f"^{named} {message}"):
        kernel.step(**arrays, **HYPERPARAMETERS)
    for one, array in arrays.items():
        assert (array == 1).all(), one


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (6,), (1, 2, 3)])
@pytest.mark.parametrize("module", ["numpy", "numba"])
def test_a_kernel_refuses_a_gradient_of_another_shape(module, shape, dtype):
    """The NumPy kernel decayed g before it raised the error, and broadcast a one-element float16 gradient."""
    kernel = pytest.importorskip(f"rmsprop_graves.kernels.{module}", exc_type=ImportError)
    arrays = {one: numpy.ones((2, 3), dtype) for one in NAMES}
    arrays["grad"] = numpy.ones(shape, dtype)
    with pytest.raises(ValueError, match=r"^grad must be of shape \(2, 3\), got "):
        kernel.step(**arrays, **HYPERPARAMETERS)
    for array in arrays.values():
        assert (array == 1).all()


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"read-only"}))
def test_the_cupy_kernel_names_the_array_that_it_cannot_write(gpu, name, fault):
    """CuPy's arrays have no writeable flag."""
    kernel = pytest.importorskip("rmsprop_graves.kernels.cupy")
    change, error, message = FAULTS[fault]
    arrays = {one: gpu.asarray(numpy.ones((2, 3), "f4")) for one in NAMES}
    arrays[name] = arrays[name]._view(change(arrays[name].host))
    if name == "param" and error is TypeError:
        message = "must be of float16, float32, float64"
    expected = f"^{name} {message}"
    if fault == "another shape":
        # CuPy itself refuses a state of another shape.
        expected = "^grad must be of shape" if name == "param" else "^Out shape is mismatched"
    with pytest.raises(error, match=expected):
        kernel.step(**arrays, **HYPERPARAMETERS)
    assert not gpu.launches


def test_an_array_overlaps_itself_if_two_elements_have_a_byte_in_common():
    """The bytes of every element are compared. Strides are random, also negative or smaller than an element."""
    rng = numpy.random.RandomState(0)
    room = numpy.zeros(400, "u1")
    counts = {True: 0, False: 0}
    for _ in range(5000):
        ndim = rng.randint(4)
        shape = tuple(rng.randint(0 if rng.rand() < 0.1 else 1, 4, ndim))
        unit = rng.choice([1, 4])
        strides = tuple(unit * rng.randint(-8, 9, ndim))
        array = numpy.ndarray(shape, "f4", room, 190, strides)
        bytes_of = [
            190 + sum(place * stride for place, stride in zip(index, strides)) + byte
            for index in numpy.ndindex(*shape)
            for byte in range(4)
        ]
        overlaps = len(set(bytes_of)) < len(bytes_of)
        assert (fault_of(array) is not None) == overlaps, (shape, strides)
        counts[overlaps] += 1
    assert min(counts.values()) > 500
