"""Arrays, gradients, models and comparisons for the tests on a GPU."""

from __future__ import annotations

import numpy
import pytest
from chainer.backends import cuda
from models import Arrays, assert_same_bits, gradients

GPU = "@cupy:0"
ON_A_GPU = pytest.param("gpu", marks=pytest.mark.gpu)
# For a test that the stand-in cannot run.
on_a_gpu_only = pytest.mark.parametrize("xp", [ON_A_GPU], indirect=True)
DTYPES = ("f2", "f4", "f8")


def start_at(param):
    """Return a copy of a parameter, and states of zeros."""
    return {"param": param.copy(), **{name: numpy.zeros_like(param) for name in ("n", "g", "delta")}}


def varied_gradients(dtype, steps, size=2000):
    """Return gradients of many magnitudes, with zeros, subnormals and the largest numbers among them."""
    random = numpy.random.RandomState(313)
    largest, smallest = numpy.finfo(dtype).max, numpy.finfo(dtype).smallest_subnormal
    magnitude = 10 ** random.uniform(-6, {"f2": 1.5, "f4": 6, "f8": 6}[dtype], size)
    mean = random.randint(0, 3, size)
    drawn = [(magnitude * (mean + random.standard_normal(size))).astype(dtype) for _ in range(steps)]
    for grad in drawn:
        grad[:8] = [0, -0.0, smallest, -smallest, 9 * smallest, largest, -largest, largest / 2]
    return drawn


def on_gpu(xp, arrays):
    """Return copies of a dict of arrays on the GPU."""
    return {name: xp.asarray(array) for name, array in arrays.items()}


def on_cpu(arrays):
    """Return copies of a dict of arrays on the CPU."""
    return {name: cuda.to_cpu(array).copy() for name, array in arrays.items()}


def assert_same(actual, expected):
    """Assert that two dicts of arrays, on either device, have the same bits; a NaN equals any NaN."""
    assert_same_bits(on_cpu(actual), on_cpu(expected))


def train(optimizer, steps):
    """Update a model of `Arrays` once for each list of gradients, which are sent to their parameters' devices."""
    for grads in steps:
        set_gradients(optimizer.target, grads)
        optimizer.update()
    return optimizer


def set_gradients(model, grads):
    """Give each parameter of a model of `Arrays` a copy of its gradient, on its device."""
    for i, grad in enumerate(grads):
        param = getattr(model, f"p{i}")
        param.grad = param.device.send(grad.copy())


def model_and_gradients(dtype="f4", steps=6):
    """Return a model of two parameters, and a list of gradients for each step."""
    shapes = (3, 4), (5,)
    return Arrays(*gradients(*shapes, dtype=dtype)), [
        gradients(*shapes, seed=seed, dtype=dtype) for seed in range(1, steps + 1)
    ]
