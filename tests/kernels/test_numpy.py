"""The NumPy kernel alone: layouts, dtypes, blocks and memory."""

from __future__ import annotations

import tracemalloc

import numpy
import pytest
import reference
from models import assert_same_bits

from rmsprop_graves.kernels import numpy as kernel

HYPERPARAMETERS = {"lr": 1e-2, "alpha": 0.9, "momentum": 0.8, "eps": 1e-4}
NAMES = ("param", "grad", "n", "g", "delta")


def random_arrays(shape, dtype, seed=0):
    """Return a parameter, a gradient and a state as training produces them, with n > g^2."""
    rng = numpy.random.RandomState(seed)
    arrays = {name: numpy.asarray(rng.standard_normal(shape), dtype) for name in NAMES}
    arrays["n"] = numpy.asarray(arrays["g"] ** 2 + rng.random_sample(shape), dtype)
    return arrays


def stepped(arrays, steps=3):
    """Return contiguous copies of the arrays after some steps."""
    arrays = {name: numpy.array(array, order="C") for name, array in arrays.items()}
    for _ in range(steps):
        kernel.step(**arrays, **HYPERPARAMETERS)
    return arrays


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_each_element_follows_the_rule_in_plain_python_floats(dtype):
    """The tolerance is a few roundings of half an ulp each, and the four bits that n - g^2 may lose here."""
    arrays = random_arrays(50, dtype)
    expected = [reference.step(*map(float, element), **HYPERPARAMETERS) for element in zip(*arrays.values())]
    kernel.step(**arrays, **HYPERPARAMETERS)
    tolerance = 64 * numpy.finfo(dtype).eps
    for i, name in enumerate(("param", "n", "g", "delta")):
        numpy.testing.assert_allclose(
            arrays[name], [element[i] for element in expected], tolerance, tolerance, err_msg=name
        )


def strided(array):
    room = numpy.full([2 * length + 1 for length in array.shape], 7, array.dtype)
    view = room[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def reversed_view(array):
    return array[tuple(slice(None, None, -1) for _ in array.shape)].copy()[
        tuple(slice(None, None, -1) for _ in array.shape)
    ]


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder())


def unaligned(array):
    buffer = numpy.zeros(array.nbytes + 1, "u1")
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


LAYOUTS = {
    "contiguous": numpy.copy,
    "fortran": lambda array: array.copy(order="F"),
    "strided": strided,
    "reversed": reversed_view,
    "byte-swapped": byte_swapped,
    "unaligned": unaligned,
}
BIG = (3, kernel.BLOCK // 2 + 5)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "longdouble"])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), BIG], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_gives_the_bits_of_the_contiguous_one(layout, shape, dtype):
    """Arrays are small or span several blocks. All of them have the layout, or only one."""
    arrays = random_arrays(shape, dtype)
    expected = stepped(arrays)
    for odd in (NAMES, ("param",), ("grad",), ("n",), ("delta",)):
        laid_out = {name: LAYOUTS[layout](array) if name in odd else array.copy() for name, array in arrays.items()}
        for _ in range(3):
            kernel.step(**laid_out, **HYPERPARAMETERS)
        assert_same_bits({name: array.astype(dtype) for name, array in laid_out.items()}, expected)


def test_a_strided_step_writes_only_the_elements_of_the_view():
    """The elements between them, in the view's base, do not change."""
    base = numpy.arange(20, dtype="f4")
    arrays = random_arrays(10, "f4")
    kernel.step(base[::2], *list(arrays.values())[1:], **HYPERPARAMETERS)
    numpy.testing.assert_array_equal(base[1::2], numpy.arange(1, 20, 2))
    assert (base[::2] != numpy.arange(0, 20, 2)).all()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1)], ids=str)
def test_tiny_shapes_are_stepped_as_elements_of_a_vector(shape, dtype):
    """This includes arrays without elements and zero-dimensional ones, which NumPy 1 would compute in float64."""
    arrays = random_arrays(shape, dtype)
    expected = {
        name: array.reshape(shape)
        for name, array in stepped({name: array.reshape(-1) for name, array in arrays.items()}).items()
    }
    for _ in range(3):
        kernel.step(**arrays, **HYPERPARAMETERS)
    assert_same_bits(arrays, expected)


def test_a_read_only_broadcast_gradient_is_only_read():
    """Chainer's backward of a sum returns such a gradient. All its strides are zero."""
    arrays = random_arrays((40, 1000), "f4")
    full = {**arrays, "grad": numpy.full((40, 1000), 2, "f4")}
    expected = stepped(full, 1)
    arrays["grad"] = numpy.broadcast_to(numpy.float32(2), (40, 1000))
    kernel.step(**arrays, **HYPERPARAMETERS)
    expected["grad"] = arrays["grad"]
    assert_same_bits(arrays, expected)


def test_float16_is_computed_in_float32_and_rounded_once_per_store():
    """Each step equals a float32 step from the stored float16 numbers, rounded. lr is subnormal in float16."""
    hyperparameters = {"lr": 3e-6, "alpha": 0.9501, "momentum": 0.9, "eps": 1e-8}
    arrays = random_arrays(1000, "f2")
    wide = {name: array.astype("f4") for name, array in arrays.items()}
    kernel.step(**arrays, **hyperparameters)
    kernel.step(**wide, **hyperparameters)
    assert_same_bits(arrays, {name: array.astype("f2") for name, array in wide.items()})
    assert numpy.abs(arrays["delta"] - numpy.float16(0.9) * random_arrays(1000, "f2")["delta"]).max() > 0


def test_zeros_of_both_signs_are_different_hyperparameters():
    """They compare equal, so a cache could take one for the other. delta is the sum of two zeros."""
    for lr, momentum, is_negative in ((0.0, -0.0, True), (-0.0, -0.0, False), (0.0, 0.0, False), (0.0, -0.0, True)):
        arrays = random_arrays(5, "f4")
        arrays["grad"][:] = arrays["delta"][:] = 1
        kernel.step(**arrays, lr=lr, alpha=0.9, momentum=momentum, eps=1e-4)
        numpy.testing.assert_array_equal(arrays["delta"], 0)
        assert (numpy.signbit(arrays["delta"]) == is_negative).all()


def test_a_gradient_of_another_dtype_is_converted_first():
    """This holds for small arrays and for large ones."""
    for size in (1000, kernel.BLOCK + 10):
        arrays = random_arrays(size, "f4")
        double = arrays["grad"].astype("f8") + 1e-12
        expected = stepped({**arrays, "grad": double.astype("f4")}, 1)
        kernel.step(**{**arrays, "grad": double}, **HYPERPARAMETERS)
        assert_same_bits(arrays, {**expected, "grad": arrays["grad"]})


@pytest.mark.parametrize("size", [10, 2 * kernel.BLOCK + 10])
def test_a_gradient_that_is_a_view_of_the_parameter_is_read_first(size):
    """A block of a reversed view would read elements that an earlier block has written."""
    for order in (slice(None), slice(None, None, -1)):
        arrays = random_arrays(size, "f4")
        expected = stepped({**arrays, "grad": arrays["param"][order].copy()}, 1)
        arrays["grad"] = arrays["param"][order]
        kernel.step(**arrays, **HYPERPARAMETERS)
        del arrays["grad"], expected["grad"]
        assert_same_bits(arrays, expected)


@pytest.mark.parametrize("dtype", ["i4", "c8", "?"])
def test_a_parameter_that_is_not_real_and_floating_is_refused(dtype):
    """Nothing is written: complex variances cannot be compared, and integers would be truncated."""
    arrays = {name: numpy.ones(3, dtype) for name in NAMES}
    with pytest.raises(TypeError, match=f"param must be of a real floating-point dtype, got {numpy.dtype(dtype)}"):
        kernel.step(**arrays, **HYPERPARAMETERS)
    for array in arrays.values():
        numpy.testing.assert_array_equal(array, numpy.ones(3, dtype))


def test_a_variance_that_rounding_makes_negative_is_clamped_to_zero():
    """n is one ulp below g^2, so the step divides by the root of eps."""
    arrays = {name: numpy.full(3, value, "f4") for name, value in zip(NAMES, (1, 0.5, 0.25, 0.5, 0))}
    arrays["n"] = numpy.nextafter(arrays["n"], numpy.float32(0))
    kernel.step(**arrays, lr=1.0, alpha=1.0, momentum=0.0, eps=0.25)
    numpy.testing.assert_array_equal(arrays["delta"], numpy.full(3, -1, "f4"))


@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
def test_a_gradient_that_is_not_finite_reaches_its_element_and_no_other(bad, dtype):
    """That element of the parameter becomes NaN."""
    arrays = random_arrays(9, dtype)
    expected = stepped(arrays, 1)
    arrays["grad"][4] = bad
    kernel.step(**arrays, **HYPERPARAMETERS)
    assert numpy.isnan(arrays["param"][4])
    others = numpy.arange(9) != 4
    assert_same_bits(
        {name: array[others] for name, array in arrays.items()},
        {name: array[others] for name, array in expected.items()},
    )


def test_no_array_larger_than_a_block_is_allocated():
    """Stepping four million elements of each dtype needs the memory of a few blocks."""
    for dtype in ("f2", "f4", "f8"):
        arrays = random_arrays(1 << 22, dtype)
        tracemalloc.start()
        kernel.step(**arrays, **HYPERPARAMETERS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Two temporaries, and a conversion buffer for each of the five arrays.
        assert peak < 8 * kernel.BLOCK * 8
