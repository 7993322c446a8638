"""Plain parameters are stepped in one batch, and a special parameter leaves the others batched."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from random_models import (
    GPUS,
    LAYOUTS,
    Model,
    around,
    build,
    laid_out,
    plain,
    scaled,
    train_plain,
    use_on_cpu,
    user_attributes,
)

from rmsprop_graves import RMSpropGraves, kernels


@pytest.fixture(params=["numba", "gpu"])
def watched(request, monkeypatch):
    """A device whose kernel counts `alone`, the parameters stepped one by one, and `tables`, the tables made."""
    if request.param == "gpu":
        request.getfixturevalue("gpu")
        module, device = kernels.on_gpu(), GPUS[0]
    else:
        use_on_cpu("numba", monkeypatch)
        module, device = kernels.on_cpu(), "@numpy"
    seen = SimpleNamespace(device=device, alone=0, tables=0)
    step, table = module.step, module.Table

    def counting_step(*arrays, **values):
        seen.alone += 1
        step(*arrays, **values)

    class CountingTable(table):
        def __init__(self, *columns):
            seen.tables += 1
            super().__init__(*columns)

    monkeypatch.setattr(module, "step", counting_step)
    monkeypatch.setattr(module, "Table", CountingTable)
    return seen


def stepped_alone(watched, optimizer, **options):
    """Return how many parameters the second update steps one by one. The first update makes the states."""
    train_plain(optimizer, 0)
    watched.alone = 0
    train_plain(optimizer, 1, **options)
    return watched.alone


def test_plain_parameters_are_stepped_at_once(watched):
    """No parameter is stepped alone."""
    assert stepped_alone(watched, plain(RMSpropGraves, watched.device)) == 0


def test_a_users_attributes_change_nothing(watched):
    """They may be on a rule, a parameter or hyperparameters."""
    optimizer = plain(RMSpropGraves, watched.device)
    for param in optimizer.target.params():
        user_attributes(optimizer, param)
    assert stepped_alone(watched, optimizer) == 0


def test_own_hyperparameters_change_nothing(watched):
    """Each rule may have its own learning rate."""
    optimizer = plain(RMSpropGraves, watched.device)
    for i, param in enumerate(optimizer.target.params()):
        param.update_rule.hyperparam.lr = 0.01 * (i + 1)
    assert stepped_alone(watched, optimizer) == 0


def test_tied_weights_leave_the_rest_batched(watched):
    """The tied parameters are in two batches."""
    params = around({"device": watched.device}, memory="registered before")
    assert stepped_alone(watched, build(RMSpropGraves, Model(params))) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_any_layout_leave_the_model_batched(watched, layout):
    """A gradient is only read, so a copy can replace it."""

    def give(optimizer):
        for param in optimizer.target.params():
            param.grad = laid_out(param.grad, layout)

    assert stepped_alone(watched, plain(RMSpropGraves, watched.device), give=give) == 0


def test_only_a_special_parameter_is_stepped_by_itself(watched):
    """The parameters before and after it are stepped at once."""
    params = around({"device": watched.device}, special="subclassed rule")
    assert stepped_alone(watched, build(RMSpropGraves, Model(params))) == 1


def test_a_table_is_reused_while_the_arrays_are_the_same(watched):
    """New gradients, values and hyperparameters need no new table; a new parameter or state array does."""
    optimizer = train_plain(plain(RMSpropGraves, watched.device), 0, 1)
    param = optimizer.target.p1
    made = watched.tables
    optimizer.lr = param.update_rule.hyperparam.momentum = 0.5
    param.array[...] = 3
    train_plain(optimizer, 2, 3)
    assert watched.tables == made
    param.array = scaled(param.array, 1)
    train_plain(optimizer, 4, 5)
    assert watched.tables == made + 1
    for i, name in enumerate(("n", "g", "delta")):
        param.update_rule.state[name] = scaled(param.update_rule.state[name], 1)
        train_plain(optimizer, 6, 7)
        assert watched.tables == made + 2 + i
