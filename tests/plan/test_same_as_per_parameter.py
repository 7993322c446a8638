"""A whole-model update is bit-identical to updating one parameter after another, and to Chainer's class."""

from __future__ import annotations

import dataclasses

import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from hypothesis import HealthCheck, given, settings
from random_models import (
    GRADIENTS,
    LAYOUTS,
    MEDDLINGS,
    MEMORIES,
    NUMPY_LAYOUTS,
    SPECIALS,
    Model,
    Parameter,
    PerParameter,
    around,
    models,
    train,
)

from rmsprop_graves import RMSpropGraves, kernels

EVERY_KIND = [
    *(("dtype", dtype) for dtype in ("f2", "f4", "f8")),
    *(("layout", layout) for layout in (*LAYOUTS, *NUMPY_LAYOUTS)),
    *(("memory", memory) for memory in MEMORIES),
    *(("gradient", gradient) for gradient in GRADIENTS),
    *(("special", special) for special in (*SPECIALS, *MEDDLINGS)),
]

any_model = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def is_rounded_as_ours(model):
    """Whether no array is zero-dimensional: Chainer computes float32 ones in float64."""
    return all(param.shape for param in model.params)


@any_model
@given(model=models())
def test_any_model_trains_as_in_chainers_loop(kernel, model):
    """Parameters, rules, hooks and events between updates are random."""
    kernels.use_on_cpu(kernel)
    train(model, RMSpropGraves, PerParameter)


@any_model
@given(model=models(dtypes=("f4", "f8")).filter(is_rounded_as_ours))
def test_any_model_trains_as_with_chainers_class(kernel, model):
    """This holds in float32 and float64, until rounding makes Chainer's variance negative."""
    kernels.use_on_cpu(kernel)
    train(model, RMSpropGraves, ChainerRMSpropGraves)


@settings(any_model, max_examples=200)
@given(model=models(device="@cupy:0"))
def test_any_model_on_gpus_trains_as_in_chainers_loop(gpu, model):
    """Parameters may be on two GPUs and on a CPU."""
    train(model, RMSpropGraves, PerParameter)


def test_copies_of_gradients_live_until_they_are_stepped(device):
    """The copies of both dtypes are made before any is stepped. A copy freed too early would be overwritten."""
    # All have the same number of bytes, so that freed memory is reused at once.
    params = [
        Parameter((rows, 30), dtype, device, gradient="transposed") for rows, dtype in [(40, "f4"), (20, "f8")] * 2
    ]
    train(Model(params, [[], [], []]), RMSpropGraves, PerParameter)


@pytest.mark.parametrize(("name", "value"), EVERY_KIND, ids=lambda text: text.replace(" ", "_"))
def test_every_kind_of_parameter_trains_as_in_chainers_loop_among_plain_ones(device, name, value):
    """Every value of the strategy for random models is tried once, in a parameter between plain ones."""
    params = around({"device": device}, **{name: value})
    if value == "a state of the model":
        # The state is the one of parameter 1, so the shapes must agree.
        params[2] = dataclasses.replace(params[2], shape=params[1].shape)
    classes = [PerParameter] if device != "@numpy" or value == "f2" else [PerParameter, ChainerRMSpropGraves]
    train(Model(params, keeps_gradients_missing=value == "none"), RMSpropGraves, *classes)


@pytest.mark.parametrize("timing", ["pre", "post"])
@pytest.mark.parametrize("hook", MEDDLINGS)
def test_a_rules_hook_may_meddle_with_any_parameter(device, hook, timing):
    """That parameter is an earlier one, a later one or its own; the hook runs before or after the step."""
    for other in range(5):
        params = around({"device": device}, special=hook, timing=timing, other=other)
        train(Model(params), RMSpropGraves, PerParameter, *([ChainerRMSpropGraves] if device == "@numpy" else []))
