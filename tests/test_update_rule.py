"""The update rule of one parameter: hyperparameters, state and step."""

from __future__ import annotations

from types import SimpleNamespace

import chainer
import numpy
import pytest
from both_classes import assert_trains_as_chainers
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRMSpropGravesRule
from models import Arrays, arrays_of, assert_same_bits, copies_of, gradients, train

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels


def test_create_update_rule_makes_a_new_rule_that_inherits_the_hyperparameters():
    """Its state is None until the first update."""
    optimizer = RMSpropGraves(lr=0.5)
    rule = optimizer.create_update_rule()
    assert isinstance(rule, RMSpropGravesRule)
    assert rule is not optimizer.create_update_rule()
    assert rule.hyperparam.parent is optimizer.hyperparam
    assert rule.state is None
    assert rule.is_elementwise


def test_the_state_is_updated_in_place():
    """Other code, such as ChainerRL's workers, keeps these arrays. They have the parameter's shape and dtype."""
    optimizer = RMSpropGraves().setup(Arrays(*gradients((2, 3))))
    optimizer.target.set_grads(*gradients((2, 3), seed=1))
    optimizer.update()
    param = optimizer.target.p0
    state = param.update_rule.state
    assert sorted(state) == ["delta", "g", "n"]
    held = dict(state, param=param.array)
    before = {name: array.copy() for name, array in held.items()}
    optimizer.update()
    for name, array in dict(state, param=param.array).items():
        assert array is held[name], name
        assert (array.shape, array.dtype) == ((2, 3), "f4")
        assert (array != before[name]).all(), name


def test_init_state_can_be_called_from_outside_and_its_arrays_replaced():
    """ChainerRL sets `rule._state = {}`, calls init_state, and puts views of shared memory in place of the arrays."""

    def prepare(cls):
        optimizer = cls().setup(Arrays(*gradients((2, 3))))
        rule = optimizer.target.p0.update_rule
        rule._state = {}
        rule.init_state(optimizer.target.p0)
        for name, array in rule.state.items():
            numpy.testing.assert_array_equal(array, numpy.zeros((2, 3), "f4"))
            shared = numpy.zeros(7, "f4")
            rule.state[name] = shared[1:].reshape(2, 3)
        return optimizer

    def step(optimizer, t):
        optimizer.target.set_grads(*gradients((2, 3), seed=t))
        optimizer.update()

    ours, _ = assert_trains_as_chainers(prepare, step)
    for array in ours.target.p0.update_rule.state.values():
        assert array.base is not None
        assert array.base.ravel()[0] == 0


def test_a_rules_own_hyperparameters_override_the_optimizers():
    """They apply to that parameter only, until they are deleted, even if the optimizer's values change."""

    def prepare(cls):
        optimizer = cls().setup(Arrays(*gradients(3, 3)))
        optimizer.target.p0.update_rule.hyperparam.lr = 0.5
        optimizer.target.p0.update_rule.hyperparam.momentum = 0.1
        return optimizer

    def step(optimizer, t):
        optimizer.lr = 0.1 * t
        optimizer.target.set_grads(*gradients(3, 3, seed=t))
        optimizer.update()

    ours, _ = assert_trains_as_chainers(prepare, step)
    assert ours.target.p0.update_rule.hyperparam.lr == 0.5
    assert ours.target.p1.update_rule.hyperparam.lr == 0.4
    del ours.target.p0.update_rule.hyperparam.lr
    assert ours.target.p0.update_rule.hyperparam.lr == 0.4


def test_a_rule_takes_values_in_its_constructor():
    """Without an optimizer, the other values are the defaults. The step is bit-identical to Chainer's rule."""
    results = []
    for cls in (RMSpropGravesRule, ChainerRMSpropGravesRule):
        param = chainer.Parameter(*gradients(5))
        param.update_rule = cls(lr=0.1, momentum=0.5)
        assert param.update_rule.hyperparam.alpha == 0.95
        for seed in range(3):
            (param.grad,) = gradients(5, seed=seed)
            param.update()
        results.append({"param": param.array, **param.update_rule.state})
    assert_same_bits(*results)


def test_a_disabled_rule_does_nothing_until_enabled():
    """It makes no step and no state, and does not count the update in its t."""

    def prepare(cls):
        optimizer = cls().setup(Arrays(*gradients(3, 3)))
        optimizer.target.p0.update_rule.enabled = False
        return optimizer

    def step(optimizer, t):
        rule = optimizer.target.p0.update_rule
        if t == 2:
            assert (rule.t, rule.state) == (0, None)
            numpy.testing.assert_array_equal(optimizer.target.p0.array, gradients(3)[0])
            rule.enabled = True
        optimizer.target.set_grads(*gradients(3, 3, seed=t))
        optimizer.update()

    assert_trains_as_chainers(prepare, step)


def test_a_rule_without_a_gradient_counts_the_update_and_moves_nothing():
    """Chainer's rule does the same."""
    results = []
    for cls in (RMSpropGravesRule, ChainerRMSpropGravesRule):
        param = chainer.Parameter(*gradients(5))
        param.update_rule = cls()
        param.cleargrad()
        param.update()
        results.append({"param": param.array, **param.update_rule.state})
        assert param.update_rule.t == 1
    assert_same_bits(*results)
    assert_same_bits({"param": results[0]["param"]}, {"param": gradients(5)[0]})


def test_an_array_of_another_library_is_refused_by_its_type(monkeypatch):
    """iDeep's arrays look like NumPy's, but no NumPy function can write into one."""

    class Mdarray:
        __module__ = "ideep4py"
        shape, dtype = (1,), numpy.dtype("f4")

    optimizer = RMSpropGraves().setup(Arrays(numpy.ones(1, "f4")))
    param = optimizer.target.p0
    param.grad = numpy.ones(1, "f4")
    optimizer.update()
    param.update_rule.state["n"] = Mdarray()
    monkeypatch.setattr(chainer, "get_array_types", lambda: (numpy.ndarray, Mdarray))
    with pytest.raises(TypeError, match=r"parameter p0: .* takes numpy\.ndarray, found ideep4py.*Mdarray; .*to_cpu"):
        param.update_rule.update_core_cpu(param)


@pytest.mark.parametrize("has_grad", [True, False])
def test_update_core_gpu_calls_the_cupy_kernel(monkeypatch, has_grad):
    """It gets arrays in its order and hyperparameters as Python floats. Without a gradient it is not called."""
    calls = []
    kernel = SimpleNamespace(step=lambda *arrays, **values: calls.append((arrays, values)))
    monkeypatch.setattr(kernels, "on_gpu", lambda: kernel)
    optimizer = RMSpropGraves(lr=numpy.float32(0.5)).setup(Arrays(numpy.ones(2, "f4")))
    param = optimizer.target.p0
    rule = param.update_rule
    param.grad = numpy.ones(2, "f4") if has_grad else None
    rule._state = {}
    rule.init_state(param)
    rule.update_core_gpu(param)
    if not has_grad:
        assert calls == []
        return
    ((arrays, values),) = calls
    for given, expected in zip(arrays, (param.array, param.grad, *(rule.state[name] for name in ("n", "g", "delta")))):
        assert given is expected
    assert values == {"lr": 0.5, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
    assert {type(value) for value in values.values()} == {float}


@pytest.mark.parametrize("method", ["update_core_cpu", "update_core_gpu"])
@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (numpy.ones(3, "f4"), ValueError, r"a gradient of shape \(3,\), expected \(2, 3\)"),
        (numpy.ones((2, 3), "c8"), TypeError, "a gradient of dtype complex64, expected real numbers"),
    ],
    ids=["shape", "dtype"],
)
def test_the_step_of_one_parameter_refuses_a_wrong_gradient(monkeypatch, method, grad, error, message):
    """A program may call these methods itself. After the error nothing has changed."""
    monkeypatch.setattr(kernels, "on_gpu", lambda: pytest.fail("the kernel was asked for"))
    optimizer = train(RMSpropGraves().setup(Arrays(*gradients((2, 3)))), [gradients((2, 3))])
    param = optimizer.target.p0
    param._grad = grad  # past Chainer's own check
    before = copies_of(optimizer)
    with pytest.raises(error, match=f"parameter p0: found {message}"):
        getattr(param.update_rule, method)(param)
    assert_same_bits(arrays_of(optimizer), before)


def test_update_core_calls_the_method_of_the_parameters_device():
    """A subclass can override the method of each device."""
    called = []

    class Rule(RMSpropGravesRule):
        def update_core_cpu(self, param):
            called.append(param)

    param = chainer.Parameter(*gradients(3))
    Rule().update_core(param)
    assert len(called) == 1
    assert called[0] is param
