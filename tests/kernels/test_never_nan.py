"""Finite gradients never give NaN, whatever overflows in between."""

from __future__ import annotations

import itertools

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import cpp
from kernels.cases import DTYPES, start_at

from rmsprop_graves.kernels import cupy as cuda_kernel
from rmsprop_graves.kernels import numpy as kernel

# For each dtype, the smallest normal number of the dtype in which it is computed.
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
    """The step gives the same as from a state of zeros. Infinity times zero would give NaN."""
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
    """A float16 parameter overflows, and then delta overflows with the opposite sign."""
    arrays = start_at(numpy.zeros(1, "float16"))
    for i in range(60):
        grad = numpy.full(1, 1000 if i < 30 else -1000, "float16")
        kernel.step(grad=grad, **arrays, lr=1.0, alpha=0.0, momentum=0.9, eps=1e-6)
    assert (arrays["param"].item(), abs(arrays["delta"].item())) == (-numpy.inf, numpy.inf)


def edges(dtype):
    """Return positive numbers at the edges of a dtype, with their neighbours."""
    limits = numpy.finfo(dtype)
    subnormal = numpy.nextafter(numpy.zeros((), dtype), numpy.ones((), dtype))
    normal, largest = limits.tiny, limits.max
    numbers = [normal, numpy.sqrt(normal), dtype.type(1), numpy.sqrt(largest), largest / dtype.type(4)]
    neighbours = [numpy.nextafter(number, dtype.type(end)) for number in numbers for end in (0, numpy.inf)]
    return numpy.unique(numpy.array([subnormal, *numbers, *neighbours, largest], dtype))


def at_the_edges(dtype):
    """Return every combination of a gradient, a parameter and states; all but the gradient may be infinite."""
    numbers = edges(dtype)
    signed = numpy.concatenate([-numbers[::-1], [0], numbers])
    few = numpy.array([-numpy.inf, -numbers[-1], 0, numbers[-1], numpy.inf], dtype)
    ns = numpy.concatenate([[0], numbers, [numpy.inf]])
    gs = numpy.concatenate([few, numbers[[0, -2]], -numbers[[0, -2]]])
    columns = numpy.meshgrid(few, signed, ns, gs, few, indexing="ij")
    return [numpy.ascontiguousarray(column.ravel().astype(dtype)) for column in columns]


# Hyperparameters at the edges of float32 and float64. In float32 some round to 0, to 1, or to infinity.
LRS = (0.0, -0.0, 5e-324, -1e-45, 1e-4, 1.0, -1.0)
ALPHAS = (0.0, 5e-324, 1e-45, 0.5, 0.95, 1 - 2.0**-24, 1 - 2.0**-26, 1 - 2.0**-53, 1.0)
MOMENTA = (0.0, 5e-324, 1e-45, 0.9, 1 - 2.0**-24, 1 - 2.0**-53, 1.0, 3e38)
# In float64 every positive eps is valid, in float32 every eps that does not round to 0.
EPSILONS = {
    "float16": (1e-45, 2.0**-126, 2.0**-14, 1e-4, 1.0, 1e300),
    "float32": (1e-45, 2.0**-126, 2.0**-104, 1e-4, 1.0, 1e300),
    "float64": (5e-324, 2.0**-1022, 2.0**-126, 1e-4, 1.0, 1e308),
}


def steps(monkeypatch, folder):
    """Return the `step` of each kernel: NumPy's, Numba's if it is installed, and CUDA's, built with g++."""
    found = [kernel.step]
    try:
        from rmsprop_graves.kernels import numba as numba_kernel

        found.append(numba_kernel.step)
    except ImportError:
        pass
    try:
        cpp.build("// nothing", folder)
    except pytest.skip.Exception:
        return found
    cpp.use(monkeypatch, folder)
    return [*found, cuda_kernel.step]


def check_edges(dtype, number, monkeypatch, folder):
    """Make three steps on every kernel with `number` sets of hyperparameters; return the number of element steps."""
    gradient_of = {}
    columns = at_the_edges(numpy.dtype(dtype))
    rng = numpy.random.RandomState(0)
    sets = list(itertools.product(LRS, ALPHAS, MOMENTA, EPSILONS[dtype]))
    tried = 0
    for index in rng.permutation(len(sets))[:number]:
        values = dict(zip(("lr", "alpha", "momentum", "eps"), sets[index]))
        for step in steps(monkeypatch, folder):
            param, grad, n, g, delta = (column.copy() for column in columns)
            for turn in range(3):
                with numpy.errstate(all="ignore"):
                    step(param, grad, n, g, delta, **values)
                for name, array in (("param", param), ("n", n), ("g", g), ("delta", delta)):
                    is_nan = numpy.isnan(array)
                    if is_nan.any():
                        place = is_nan.argmax()
                        start = [column[place] for column in columns]
                        raise AssertionError((step.__module__, name, values, turn, start))
                # The same magnitude with the other sign, and then other magnitudes.
                if turn not in gradient_of:
                    gradient_of[turn] = -columns[1] if turn == 0 else rng.permutation(columns[1])
                grad = gradient_of[turn]
            tried += 3 * param.size
    return tried


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_state_and_no_gradient_at_the_edges_of_a_dtype_gives_nan(dtype, monkeypatch, tmp_path_factory):
    """Some states can come only from a file, such as n = 0 and a large g: delta then overflows in float32."""
    assert check_edges(dtype, 30, monkeypatch, tmp_path_factory.getbasetemp()) > 10**7


@pytest.mark.search
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_hyperparameters_at_the_edges_give_nan(dtype, monkeypatch, tmp_path_factory):
    """The same with every combination of hyperparameters."""
    assert check_edges(dtype, None, monkeypatch, tmp_path_factory.getbasetemp()) > 10**9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_infinite_delta_stays_infinite(dtype, monkeypatch, tmp_path_factory):
    """Two steps overflow with opposite signs; infinity minus infinity would be NaN."""
    largest = numpy.finfo(dtype).max
    for step in steps(monkeypatch, tmp_path_factory.getbasetemp()):
        arrays = start_at(numpy.zeros(1, dtype))
        arrays["g"][:] = largest / 4
        for sign in (1, -1):
            grad = numpy.full(1, sign * 4 * numpy.sqrt(largest), dtype)
            with numpy.errstate(all="ignore"):
                step(grad=grad, **arrays, lr=1.0, alpha=31 / 32, momentum=0.5, eps=float(numpy.finfo(dtype).tiny))
        assert (arrays["param"].item(), arrays["delta"].item()) == (-numpy.inf, -numpy.inf)
