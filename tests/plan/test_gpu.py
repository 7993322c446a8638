"""Whole-model updates on a stand-in with two GPUs: what is launched, where and when."""

from __future__ import annotations

import gc

import chainer
import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from gpu_stand_in import Device
from interpreter import run_python
from models import assert_same_bits, on_host, snapshot_of
from random_models import (
    GPUS,
    Model,
    Parameter,
    PerParameter,
    assert_same,
    build,
    give_gradients,
    plain,
    scaled,
    train_plain,
)

from rmsprop_graves import RMSpropGraves, kernels
from rmsprop_graves.kernels import cuda

# 161 parameters, as in ResNet-50, of different sizes; one has no elements.
RESIDUAL_NETWORK = Model([Parameter((1 + place % 7, place), device=GPUS[0]) for place in range(161)])


def model_on(*specs):
    """Return a model with one parameter for each device and dtype."""
    return Model([Parameter((3 + i,), dtype, device) for i, (device, dtype) in enumerate(specs)])


def update(optimizer, model, *steps):
    """Update once for each step number."""
    for step in steps:
        give_gradients(optimizer, model, step)
        optimizer.update()
    return optimizer


def launches_of(gpu):
    """Return the kernel and the device of each launch since the last call."""
    launches = [({cuda.NAME: "one", cuda.TABLE_NAME: "table"}[one.name], one.device_id) for one in gpu.launches]
    gpu.launches.clear()
    return launches


def test_a_model_is_one_launch(gpu):
    """This holds from the second update on. The first makes the states, one parameter after another."""
    optimizer = update(build(RMSpropGraves, RESIDUAL_NETWORK), RESIDUAL_NETWORK, 0)
    assert launches_of(gpu) == [("one", 0)] * 161
    update(optimizer, RESIDUAL_NETWORK, 1, 2)
    assert launches_of(gpu) == [("table", 0)] * 2


def test_nothing_is_copied_to_a_device_while_the_arrays_are_the_same(gpu, monkeypatch):
    """The learning rate and the addresses of the gradients are arguments of the launch."""
    optimizer = update(build(RMSpropGraves, RESIDUAL_NETWORK), RESIDUAL_NETWORK, 0, 1)
    give_gradients(optimizer, RESIDUAL_NETWORK, 2)
    optimizer.lr = 0.5
    copied = []
    monkeypatch.setattr(gpu, "asarray", copied.append)
    optimizer.update()
    assert copied == []


def test_each_device_and_dtype_has_its_own_launch(gpu):
    """Launches are in the order of their first parameters, each on its own device."""
    model = model_on(
        (GPUS[1], "f4"), (GPUS[0], "f2"), ("@numpy", "f4"), (GPUS[1], "f4"), (GPUS[0], "f4"), (GPUS[0], "f2")
    )
    optimizer, expected = (update(build(cls, model), model, 0) for cls in (RMSpropGraves, PerParameter))
    launches_of(gpu)
    update(optimizer, model, 1)
    assert launches_of(gpu) == [("table", 1), ("table", 0), ("table", 0)]
    assert Device().id == 0
    assert_same(optimizer, update(expected, model, 1))


def test_a_special_parameter_is_launched_when_its_turn_comes(gpu):
    """The parameters before it are launched earlier, the parameters after it later."""
    model = model_on(*[(GPUS[0], "f4")] * 5)
    optimizer = update(build(RMSpropGraves, model), model, 0)
    seen = []
    optimizer.target.p2.update_rule.add_hook(lambda rule, param: seen.append(launches_of(gpu)))
    launches_of(gpu)
    update(optimizer, model, 1)
    assert seen == [[("table", 0)]]
    assert launches_of(gpu) == [("one", 0), ("table", 0)]


def test_a_tied_parameter_is_updated_twice_in_two_launches(gpu):
    """The two updates would race in one launch."""
    model = Model([Parameter(device=GPUS[0]), Parameter(device=GPUS[0]), Parameter(memory="registered before")])
    optimizer = update(build(RMSpropGraves, model), model, 0)
    launches_of(gpu)
    update(optimizer, model, 1)
    assert launches_of(gpu) == [("table", 0)] * 2
    assert optimizer.target.p0.update_rule.t == 4


def test_the_current_stream_of_each_device_is_used(gpu):
    """The launch and the operations before it are on that stream."""
    model = model_on((GPUS[0], "f4"), (GPUS[1], "f4"))
    optimizer = update(build(RMSpropGraves, model), model, 0, 1)
    gpu.launches.clear()
    with Device(1):
        stream = gpu.cuda.Stream()
    give_gradients(optimizer, model, 2)
    with stream:
        optimizer.update()
    assert [(launch.device_id, launch.stream) for launch in gpu.launches] == [(0, 0), (1, stream.ptr)]


def test_an_update_is_asynchronous_and_keeps_its_memory_until_it_runs(gpu):
    """Parameters, states and gradients may be replaced and freed before the launch has run."""
    model = RESIDUAL_NETWORK
    optimizer, expected = (update(build(cls, model), model, 0, 1) for cls in (RMSpropGraves, PerParameter))
    for one in (optimizer, expected):
        give_gradients(one, model, 2)
    expected.update()
    with gpu.held_back():
        optimizer.update()
        before = snapshot_of(optimizer)
        gpu.stream().synchronize()
        assert any((before[f"/p{i}"] != snapshot_of(optimizer)[f"/p{i}"]).any() for i in range(1, 161))
        give_gradients(optimizer, model, 3)
        optimizer.update()
        for param in optimizer.target.params():
            for name, state in param.update_rule.state.items():
                param.update_rule.state[name] = late_copy(gpu, state)
            param.array = late_copy(gpu, param.array)
        give_gradients(optimizer, model, 4)
        optimizer.update()
        gc.collect()
        gpu.stream().synchronize()
    assert_same(optimizer, update(expected, model, 3, 4))


def late_copy(gpu, array):
    """Copy an array in the order of the stream."""
    made = gpu.zeros_like(array)
    source, target = array.host, made.host
    gpu.stream().enqueue(lambda: target.__setitem__(..., source))
    return made


def test_an_update_on_another_stream_makes_a_table_there(gpu):
    """The first stream's table is freed on that stream, even if launches on the second stream have not run."""
    model = model_on(*[(GPUS[0], "f4")] * 5)
    optimizer, expected = (update(build(cls, model), model, 0, 1) for cls in (RMSpropGraves, PerParameter))
    stream = gpu.cuda.Stream()
    with gpu.held_back():
        give_gradients(optimizer, model, 2)
        with stream:
            optimizer.update()
        gpu.stream().synchronize()
        stream.synchronize()
        give_gradients(optimizer, model, 3)
        optimizer.update()
        stream.synchronize()
        gpu.stream().synchronize()
    assert_same(optimizer, update(expected, model, 2, 3))


@pytest.mark.parametrize("scale", [None, 128.0])
def test_float16_with_fp32_masters_trains_as_in_chainers_loop(gpu, scale):
    """The model has float32 parameters too, and training may have a loss scale."""
    model = model_on(*[(GPUS[0], "f2")] * 3, *[(GPUS[0], "f4")] * 2)
    optimizers = [build(cls, model) for cls in (RMSpropGraves, PerParameter)]
    for optimizer in optimizers:
        optimizer.use_fp32_update()
        for step in range(4):
            give_gradients(optimizer, model, step)
            for param in optimizer.target.params():
                param._loss_scale = scale
                param.grad = scaled(param.grad, scale or 1)
            optimizer.update()
    assert_same(*optimizers)
    for i in range(3):
        found = snapshot_of(optimizers[0])
        assert_same_bits({"": found[f"/p{i}"]}, {"": found[f"/p{i}/fp32_param"].astype("f2")})
        assert (found[f"/p{i}"] != found[f"/p{i}/fp32_param"]).any()


@pytest.mark.parametrize("move", ["to_gpu()", "to_device('@cupy:0')"])
def test_moving_a_model_without_a_gpu_is_an_error(move):
    """With the installed CuPy, Chainer's error names what is missing, and the model stays trainable on the CPU."""
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    try:
        if cupy.cuda.runtime.getDeviceCount():
            pytest.skip("there is a GPU")
    except cupy.cuda.runtime.CUDARuntimeError:
        pass
    code = f"""
        from rmsprop_graves import RMSpropGraves
        import chainer, numpy
        model = chainer.links.Linear(2, 2)
        try:
            model.{move}
        except Exception as error:
            print(type(error).__name__, error)
        assert type(model.W.array) is numpy.ndarray
        optimizer = RMSpropGraves().setup(model)
        optimizer.update(lambda: chainer.functions.sum(model(numpy.ones((1, 2), "f"))))
        print("trained on the CPU")
    """
    output, _ = run_python(code)
    assert output.startswith(("RuntimeError CUDA environment is not correctly set up", "CUDARuntimeError cudaError"))
    assert "trained on the CPU" in output


def devices_of_states(param):
    """Return the number of each state's GPU."""
    return {state.data.device_id for state in param.update_rule.state.values()}


def test_states_follow_their_parameter_to_another_gpu(gpu):
    """The next update moves them with their values. Other parameters on that GPU have states there already."""
    model = model_on((GPUS[0], "f4"), (GPUS[1], "f4"))
    stays, moves = (update(build(RMSpropGraves, model), model, 0, 1) for _ in range(2))
    moved = moves.target
    moved.to_device(GPUS[1])
    for optimizer in (stays, moves):
        update(optimizer, model, 2, 3)
    assert [devices_of_states(param) for param in moved.params()] == [{1}, {1}]
    assert_same(stays, moves)


def test_a_model_trains_on_after_it_has_moved_to_the_cpu(gpu):
    """It stays bit-identical to a model that stays on the GPU."""
    model = model_on((GPUS[0], "f4"), (GPUS[1], "f4"))
    stays, moves = (update(build(RMSpropGraves, model), model, 0, 1) for _ in range(2))
    moves.target.to_device("@numpy")
    for optimizer in (stays, moves):
        update(optimizer, model, 2, 3)
    assert {type(state) for param in moves.target.params() for state in param.update_rule.state.values()} == {
        numpy.ndarray
    }
    assert_same(stays, moves)


@pytest.mark.usefixtures("gpu")
def test_a_state_is_made_on_its_parameters_gpu():
    """The current GPU does not matter."""
    param = build(RMSpropGraves, model_on((GPUS[1], "f4"))).target.p0
    param.update_rule._state = {}
    param.update_rule.init_state(param)
    assert Device.current_id() == 0
    assert devices_of_states(param) == {1}


def test_a_gradient_on_another_device_is_refused(gpu):
    """CuPy raises the error if one device cannot read the other's memory."""
    model = model_on(*[(GPUS[0], "f4")] * 3)
    optimizer = update(build(RMSpropGraves, model), model, 0)
    give_gradients(optimizer, model, 1)
    optimizer.target.p1.grad = chainer.get_device(GPUS[1]).send(numpy.ones(4, "f4"))
    with pytest.raises(ValueError, match="an array of device 1 while device 0 is current"):
        optimizer.update()


def test_a_model_half_on_a_gpu_is_updated_where_each_half_is(gpu):
    """No array is moved, and both halves are bit-identical to Chainer's class on a CPU."""
    model, whole = (
        model_on(*[(device, "f4") for device in devices * 4]) for devices in ((GPUS[0], "@numpy"), ["@numpy"] * 2)
    )
    optimizer = update(build(RMSpropGraves, model), model, 0, 1)
    expected = update(build(ChainerRMSpropGraves, whole), whole, 0, 1)
    for i, one in enumerate(model.params):
        param, other = (getattr(each.target, f"p{i}") for each in (optimizer, expected))
        assert param.update_rule.t == 2
        for array in (param.array, *param.update_rule.state.values()):
            assert chainer.get_device(one.device).is_array_supported(array)
        assert_same_bits({"": on_host(param.array)}, {"": other.array})


def test_a_cupy_that_is_too_old_is_refused_when_the_optimizer_is_set_up(gpu, monkeypatch):
    """Neither the model nor the optimizer has changed."""
    model = model_on((GPUS[0], "f4"))
    other = build(RMSpropGraves, model)
    target, other.target.p0.update_rule = other.target, None
    optimizer = plain(RMSpropGraves)
    before = snapshot_of(optimizer)

    def refuse():
        raise ImportError("needs CuPy 12 or newer")

    monkeypatch.setattr(kernels, "on_gpu", refuse)
    with pytest.raises(ImportError, match="needs CuPy 12 or newer"):
        optimizer.setup(target)
    assert_same_bits(snapshot_of(optimizer), before)
    assert target.p0.update_rule is None
    train_plain(optimizer, 1)
