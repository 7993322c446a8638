"""Gradients of extreme size, and gradients that are not finite."""

from __future__ import annotations

import numpy
import pytest
from models import Arrays, arrays_of, gradients, train
from reference import step as reference_step

from rmsprop_graves import RMSpropGraves

HYPERPARAMETERS = {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "eps": 1e-4}
LARGEST = {"f4": 1.8e19, "f8": 1.3e154}  # whose squares are finite
TINY = {"f4": 1e-42, "f8": 1e-320}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_largest_gradients_give_no_nan(dtype):
    """n and g^2 overflow to infinity, and infinity minus infinity would be NaN. The parameter stays finite."""
    model = Arrays(*[numpy.ones(40, dtype)] * 5)
    optimizer = RMSpropGraves(momentum=0.5).setup(model)
    largest = numpy.finfo(dtype).max
    with numpy.errstate(over="ignore"):
        for step in range(40):
            grads = [numpy.full(40, largest / 2**i, dtype) for i in range(5)]
            grads[1][::2] *= -1
            grads[2] *= numpy.dtype(dtype).type((-1) ** step)
            model.set_grads(*grads)
            optimizer.update()
    for path, array in arrays_of(optimizer).items():
        assert not numpy.isnan(array).any(), path
        if path.count("/") == 1:
            assert numpy.isfinite(array).all(), path


def gradients_of(kind, dtype, steps):
    """Return the gradients of one element at successive steps."""
    one = {"largest": LARGEST[dtype], "denormal": TINY[dtype], "zero": 0.0}.get(kind, 1.0)
    if kind.startswith("steady"):
        one = float(kind.split()[1])
    sign = -1 if kind.startswith("alternating") else 1
    return [one * sign**step for step in range(steps)]


KINDS = ["zero", "denormal", "largest", "alternating", *(f"steady 1e{e}" for e in (-15, -8, -3, -1, 0, 1, 3, 8, 15))]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_results_of_extreme_gradients_stay_finite_and_near_plain_python_floats(dtype, kind):
    """The first three steps are compared. With steady gradients, Chainer's class becomes NaN within the 400 steps."""
    optimizer = RMSpropGraves(**HYPERPARAMETERS).setup(Arrays(numpy.zeros(4, dtype)))
    expected = {"param": 0.0, "n": 0.0, "g": 0.0, "delta": 0.0}
    for step, number in enumerate(gradients_of(kind, dtype, 400)):
        optimizer.target.p0.grad = numpy.full(4, number, dtype)
        optimizer.update()
        found = arrays_of(optimizer)
        assert all(numpy.isfinite(array).all() for array in found.values())
        if step < 3:
            values = [expected[name] for name in ("param", "n", "g", "delta")]
            values = reference_step(values[0], number, *values[1:], **HYPERPARAMETERS)
            expected = dict(zip(("param", "n", "g", "delta"), values))
            tolerance = {"f4": 1e-4, "f8": 1e-10}[dtype]
            for name, value in expected.items():
                array = found["/p0" if name == "param" else f"/p0/{name}"]
                numpy.testing.assert_allclose(array, value, rtol=tolerance, atol=float(numpy.finfo(dtype).tiny))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf], ids=str)
def test_a_gradient_that_is_not_finite_changes_only_its_element(bad):
    """The other elements and parameters are bit-identical to a step with finite gradients."""
    shapes = [(2, 3)] * 5
    grads = [gradients(*shapes, seed=seed) for seed in (1, 2)]
    optimizer, sound = (RMSpropGraves(**HYPERPARAMETERS).setup(Arrays(*gradients(*shapes))) for _ in range(2))
    train(sound, grads)
    grads[1][2] = grads[1][2].copy()
    grads[1][2][1, 1] = bad
    with numpy.errstate(all="ignore"):
        train(optimizer, grads)
    for (path, array), other in zip(arrays_of(optimizer).items(), arrays_of(sound).values()):
        differs = (array != other) | numpy.isnan(array)
        expected = numpy.zeros((2, 3), bool)
        expected[1, 1] = path.startswith("/p2")
        numpy.testing.assert_array_equal(differs, expected, err_msg=path)
