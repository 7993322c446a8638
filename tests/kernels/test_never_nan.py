"""Finite gradients never give NaN, whatever overflows in between."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.cases import DTYPES, start_at

from rmsprop_graves.kernels import numpy as kernel

# The smallest normal number of the dtype in which each dtype is computed.
SMALLEST_EPS = {"float16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


@settings(max_examples=300)
@given(
    dtype=st.sampled_from(DTYPES),
    lr=st.sampled_from([1.0, -1.0, 1e-4]) | st.floats(-1, 1),
    alpha=st.sampled_from([0.0, 0.95]) | st.floats(0, 1, exclude_max=True),
    momenta=st.lists(st.sampled_from([0.0, 0.9, 0.999]) | st.floats(0, 1, exclude_max=True), min_size=1, max_size=2),
    eps=st.none() | st.sampled_from([1e-30, 1e-8, 1e-4, 1.0]),
    length=st.integers(1, 40),
    exponent=st.floats(-1, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_finite_gradients_never_give_a_nan(dtype, lr, alpha, momenta, eps, length, exponent, seed):
    """Gradients are constant for some steps, of all magnitudes up to the largest, and the momentum changes."""
    rng = numpy.random.RandomState(seed)
    largest = float(numpy.finfo(dtype).max)
    eps = eps or SMALLEST_EPS[dtype]
    start = rng.choice([0, 1, -largest, largest], 64).astype(dtype)
    arrays = start_at(start)
    with numpy.errstate(all="ignore"):
        for i in range(300):
            if i % length == 0:
                magnitude = largest ** rng.choice([1.0, 0.5, exponent], 64)
                grad = (magnitude * rng.choice([0, 1, -1, 0.7], 64)).astype(dtype)
            kernel.step(grad=grad, **arrays, lr=lr, alpha=alpha, momentum=momenta[i // 50 % len(momenta)], eps=eps)
            for name, array in arrays.items():
                assert not numpy.isnan(array).any(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rate_of_zero_resets_an_infinite_state(dtype):
    """n, g and delta are as after a state of zeros; infinity times zero would make them NaN."""
    infinite = {name: numpy.array([numpy.inf, sign * numpy.inf], dtype) for name, sign in (("n", 1), ("g", -1))}
    arrays = {"param": numpy.zeros(2, dtype), **infinite, "delta": numpy.array([-numpy.inf, numpy.inf], dtype)}
    expected = start_at(arrays["param"])
    for run in (arrays, expected):
        kernel.step(grad=numpy.ones(2, dtype), **run, lr=1.0, alpha=0.0, momentum=0.0, eps=0.25)
    for name, array in arrays.items():
        numpy.testing.assert_array_equal(array, expected[name], err_msg=name)
    numpy.testing.assert_array_equal(arrays["delta"], [-2, -2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rate_above_zero_keeps_an_infinite_state(dtype):
    """An element with an infinite variance is not updated, as in Chainer's class."""
    arrays = {name: numpy.full(1, value, dtype) for name, value in (("param", 1), ("n", numpy.inf), ("g", 3))}
    arrays["delta"] = numpy.zeros(1, dtype)
    kernel.step(grad=numpy.ones(1, dtype), **arrays, lr=1.0, alpha=0.5, momentum=0.5, eps=0.25)
    assert [array.item() for array in arrays.values()] == [1, numpy.inf, 2, 0]


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_infinite_parameter_stays_infinite():
    """A float16 parameter overflows, and then delta overflows with the other sign."""
    arrays = start_at(numpy.zeros(1, "float16"))
    for i in range(60):
        grad = numpy.full(1, 1000 if i < 30 else -1000, "float16")
        kernel.step(grad=grad, **arrays, lr=1.0, alpha=0.0, momentum=0.9, eps=1e-6)
    assert (arrays["param"].item(), abs(arrays["delta"].item())) == (-numpy.inf, numpy.inf)
