"""The update of a whole model on GPUs, where there are none: what is launched, where and when, and its bits."""

from __future__ import annotations

import copy
import gc
import pickle

import chainer
import numpy
import pytest
from chainer import links as L
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from gpu_stand_in import Device
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interpreter import run_python
from models import Arrays, OneByOne, mostly
from skips import not_installed

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels
from rmsprop_graves.kernels import cuda as cuda_text
from rmsprop_graves.kernels import cupy as kernel

GPUS = ("@cupy:0", "@cupy:1")


def set_up(model, lr=0.01, one_by_one=False):
    """An optimizer of a model."""
    optimizer = RMSpropGraves(lr=lr, alpha=0.9, momentum=0.5, eps=1e-4).setup(model)
    if one_by_one:
        optimizer._plan = OneByOne()
    return optimizer


def model_of(*specs, seed=0):
    """A model of parameters of these shapes, dtypes and devices."""
    rng = numpy.random.RandomState(seed)
    model = Arrays(*(rng.standard_normal(shape).astype(dtype) for shape, dtype, _ in specs))
    for i, (*_, device) in enumerate(specs):
        getattr(model, f"p{i}").to_device(device)
    return model


def give_gradients(optimizer, seed):
    """Each parameter its own."""
    rng = numpy.random.RandomState(seed)
    for param in optimizer.target.params():
        param.grad = on_device(param, rng.standard_normal(param.shape).astype(param.dtype))


def on_device(param, array):
    """A copy where a parameter is."""
    return param.device.send(numpy.array(array))


def update(optimizer, *seeds):
    """Updates once with gradients of each seed."""
    for seed in seeds:
        give_gradients(optimizer, seed)
        optimizer.update()
    return optimizer


def host(array):
    """A copy of an array of any device."""
    return array.copy() if isinstance(array, numpy.ndarray) else array.get()


def copies_of(optimizer):
    """Copies of all that an update may change: bytes, where they are, and what each rule counts."""
    found = {}
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        arrays = {"": param.array, "grad": param.grad, **((rule and rule.state) or {})}
        if rule is not None and rule._fp32_param is not None:
            arrays["fp32"] = rule._fp32_param.array
        for name, array in arrays.items():
            if array is not None:
                found[path, name] = host(array).dtype, host(array).shape, host(array).tobytes()
        found[path, "t"] = rule and rule.t
    return found


def launches_of(gpu):
    """The launches, from which those before are left out, as kernel and device."""
    names = {cuda_text.NAME: "one", cuda_text.TABLE_NAME: "table"}
    launches = [(names[one.name], one.device_id) for one in gpu.launches]
    gpu.launches.clear()
    return launches


# Random models


def halve(rule, param):
    param.grad *= param.dtype.type(0.5)


class HalvingRule(RMSpropGravesRule):
    """Another rule, which is asked for its own step."""

    def update_core_gpu(self, param):
        """Halves the gradient first."""
        halve(self, param)
        super().update_core_gpu(param)


LAYOUTS = {
    "contiguous": lambda gpu, array: array,
    "transposed": lambda gpu, array: gpu.array(array.host.T.copy()).T,
    "strided": lambda gpu, array: gpu.array(numpy.repeat(array.host, 2, axis=-1))[..., ::2] if array.ndim else array,
    "off a vector": lambda gpu, array: (
        gpu.array(numpy.append(array.host, array.host.ravel()[:1]))[-array.size :].reshape(array.shape)
        if array.size
        else array
    ),
}

SPECIALS = {
    "nothing": lambda optimizer, param: None,
    "rule hook": lambda optimizer, param: param.update_rule.add_hook(halve),
    "late rule hook": lambda optimizer, param: param.update_rule.add_hook(halve, timing="post"),
    "subclassed rule": lambda optimizer, param: setattr(param, "update_rule", HalvingRule(optimizer.hyperparam)),
    "disabled": lambda optimizer, param: setattr(param.update_rule, "enabled", False),
    "no rule": lambda optimizer, param: setattr(param, "update_rule", None),
    "own lr": lambda optimizer, param: setattr(param.update_rule.hyperparam, "lr", 0.5),
    "own alpha": lambda optimizer, param: setattr(param.update_rule.hyperparam, "alpha", 0.25),
    "fp32 update": lambda optimizer, param: param.update_rule.use_fp32_update(),
    "loss scale": lambda optimizer, param: setattr(param, "_loss_scale", 4.0),
}


def build(gpu, spec, one_by_one):
    """A model and its optimizer, the same at every call."""
    rng = numpy.random.RandomState(spec["seed"])
    model = chainer.Link()
    buffers = {}
    with model.init_scope():
        for i, one in enumerate(spec["params"]):
            array = numpy.asarray(rng.standard_normal(one["shape"]), one["dtype"])
            param = chainer.Parameter(array)
            if one["memory"] == "registered before" and i:
                param = getattr(model, f"p{one['other'] % i}")
            setattr(model, f"p{i}", param)
            if one["memory"] == "registered before" and i:
                continue
            param.to_device(one["device"])
            if one["device"] == "@numpy":
                continue
            with param.device.create_context():
                if one["memory"] == "in a buffer":
                    key = one["device"], one["dtype"]
                    if key not in buffers:
                        buffers[key] = gpu.asarray(rng.standard_normal(64).astype(one["dtype"]))
                    param.array = buffers[key][one["other"] :][: array.size].reshape(array.shape)
                else:
                    param.array = LAYOUTS[one["layout"]](gpu, param.array)
    optimizer = set_up(model, one_by_one=one_by_one)
    for i, one in enumerate(spec["params"]):
        param = getattr(model, f"p{i}")
        if one["memory"] != "registered before":
            SPECIALS[one["special"]](optimizer, param)
    return optimizer


def give_laid_out_gradients(gpu, optimizer, spec, step):
    """Each parameter its own, or an array of another, as its specification says."""
    rng = numpy.random.RandomState(spec["seed"] + step + 1)
    model = optimizer.target
    for i, one in enumerate(spec["params"]):
        param = getattr(model, f"p{i}")
        other = getattr(model, f"p{one['other'] % len(spec['params'])}")
        grad = on_device(param, rng.standard_normal(param.shape).astype(param.dtype))
        if one["gradient"] == "array of another":
            if (other.shape, other.dtype, other.device) == (param.shape, param.dtype, param.device):
                grad = other.array
        elif not isinstance(grad, numpy.ndarray):
            with param.device.create_context():
                grad = LAYOUTS[one["gradient"]](gpu, grad)
        param.grad = grad


def halved(array):
    array = array.copy()
    array *= array.dtype.type(0.5)
    return array


def replace_array(gpu, optimizer, param):
    param.array = halved(param.array)


def replace_states(gpu, optimizer, param):
    for name, state in ((param.update_rule and param.update_rule.state) or {}).items():
        param.update_rule.state[name] = halved(state) if name == "delta" else state.copy()


def states_to_the_other_device(gpu, optimizer, param):
    rule = param.update_rule
    if rule is not None and rule.state:
        rule.state["g"] = chainer.get_device(GPUS[1]).send(host(rule.state["g"]))


def to_device(gpu, optimizer, param):
    optimizer.target.to_device(GPUS[1])


def set_lr(gpu, optimizer, param):
    optimizer.lr *= 0.5


def hook(gpu, optimizer, param):
    optimizer.add_hook(halve_all, name=str(len(optimizer._hookable._pre_update_hooks)), timing="pre")


def halve_all(optimizer):
    for param in optimizer.target.params():
        halve(None, param)


def flatten(gpu, optimizer, param):
    for array in (param.array, param.grad, *((param.update_rule and param.update_rule.state) or {}).values()):
        if array is not None and not isinstance(array, numpy.ndarray) and array.flags.c_contiguous:
            array.shape = (-1,)


def forget_state(gpu, optimizer, param):
    if param.update_rule is not None:
        param.update_rule._state = None


EVENTS = {
    event.__name__: event
    for event in (
        replace_array,
        replace_states,
        states_to_the_other_device,
        to_device,
        set_lr,
        hook,
        flatten,
        forget_state,
    )
}


ANY_MODEL = st.fixed_dictionaries(
    {
        "params": st.lists(
            st.fixed_dictionaries(
                {
                    "shape": st.sampled_from([(3,), (2, 3), (17,), (1,), (), (0,), (2, 0), (5, 7)]),
                    "dtype": mostly("f4", "f2", "f8"),
                    "device": mostly("@cupy:0", "@cupy:1", "@numpy"),
                    "layout": mostly(*LAYOUTS),
                    "memory": mostly("own", "registered before", "in a buffer"),
                    "gradient": mostly(*LAYOUTS, "array of another"),
                    "special": st.one_of(st.just("nothing"), st.sampled_from(sorted(SPECIALS))),
                    "other": st.integers(0, 7),
                }
            ),
            min_size=1,
            max_size=9,
        ),
        "events": st.lists(
            st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 7)), max_size=2), min_size=3, max_size=5
        ),
        "seed": st.integers(0, 1000),
    }
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=ANY_MODEL)
def test_any_model_trains_as_with_each_parameter_updated_by_itself(gpu, spec):
    """All bits, states and times, whatever is special of its parameters and whatever happens between updates."""
    optimizers = [build(gpu, spec, one_by_one) for one_by_one in (False, True)]
    for step, events in enumerate(spec["events"]):
        outcomes = []
        for optimizer in optimizers:
            for name, place in events:
                EVENTS[name](gpu, optimizer, getattr(optimizer.target, f"p{place % len(spec['params'])}"))
            give_laid_out_gradients(gpu, optimizer, spec, step)
            error = None
            try:
                optimizer.update()
            except ValueError as raised:  # such as of a gradient of another shape than a state, or on another device
                error = raised
            outcomes.append((repr(error), copies_of(optimizer)))
        if any("found a" in outcome for outcome, _ in outcomes):
            # Where the one goes half-way, the other finds it before it begins.
            assert outcomes[0][0] == outcomes[1][0]
            return
        assert outcomes[0] == outcomes[1], step


# What is launched


def residual_network():
    """As many parameters as ResNet-50 has, and of as many sizes."""
    return model_of(*(((1 + place % 7, place), "f4", GPUS[0]) for place in range(161)))


def test_a_model_is_one_launch(gpu):
    """From the second update on; the first makes the states, parameter by parameter, as Chainer does."""
    optimizer = set_up(residual_network())
    update(optimizer, 0)
    assert launches_of(gpu) == [("one", 0)] * 161
    update(optimizer, 1, 2)
    assert launches_of(gpu) == [("table", 0)] * 2


def test_nothing_is_copied_to_a_device_while_the_arrays_are_the_same(gpu, monkeypatch):
    """What changes comes with the launch: the gradients, new at each update, and the learning rate."""
    optimizer = update(set_up(residual_network()), 0, 1)
    expected = update(set_up(residual_network(), one_by_one=True), 0, 1)
    copied = []
    for one in (optimizer, expected):
        give_gradients(one, 2)
        one.lr = 0.5
    monkeypatch.setattr(gpu, "asarray", lambda array: copied.append(array))
    optimizer.update()
    assert copied == []
    expected.update()
    assert copies_of(optimizer) == copies_of(expected)


def test_each_device_and_dtype_has_its_own_launch(gpu):
    """In the order in which they come first, each on its device."""
    model = model_of(
        ((3,), "f4", GPUS[1]),
        ((4,), "f2", GPUS[0]),
        ((5,), "f4", GPUS[1]),
        ((7,), "f4", GPUS[0]),
        ((8,), "f2", GPUS[0]),
        ((6,), "f4", "@numpy"),
    )
    optimizer = update(set_up(model), 0)
    launches_of(gpu)
    update(optimizer, 1)
    assert launches_of(gpu) == [("table", 1), ("table", 0), ("table", 0)]
    assert Device().id == 0
    expected = update(set_up(model_of(*[(p.shape, p.dtype, p.device) for p in model.params()]), one_by_one=True), 0, 1)
    assert copies_of(optimizer) == copies_of(expected)


def test_a_special_parameter_is_stepped_when_its_turn_comes(gpu):
    """Those before it are launched before, those after it after."""
    optimizer = update(set_up(model_of(*[((3,), "f4", GPUS[0])] * 5)), 0)
    seen = []
    optimizer.target.p2.update_rule.add_hook(lambda rule, param: seen.append(launches_of(gpu)))
    launches_of(gpu)
    update(optimizer, 1)
    assert seen == [[("table", 0)]]
    assert launches_of(gpu) == [("one", 0), ("table", 0)]


def test_a_layout_that_a_table_does_not_hold_is_launched_by_itself(gpu):
    """In its turn, by the kernel of one parameter."""
    model = model_of(*[((3, 2), "f4", GPUS[0])] * 4)
    model.p1.array = gpu.asarray(numpy.ones((2, 3), "f4")).T
    optimizer = update(set_up(model), 0)
    launches_of(gpu)
    update(optimizer, 1)
    assert launches_of(gpu) == [("table", 0), ("one", 0), ("table", 0)]


def test_a_tied_parameter_is_updated_twice_in_two_launches(gpu):
    """In one they would race."""
    optimizers = []
    for one_by_one in (False, True):
        encoder, decoder = L.Linear(3, 3, nobias=True), L.Linear(3, 3)
        encoder.W.array[...] = decoder.W.array[...] = numpy.arange(9.0).reshape(3, 3)
        with decoder.init_scope():
            decoder.W = encoder.W
        model = chainer.ChainList(encoder, decoder)
        model.to_device(GPUS[0])
        optimizer = update(set_up(model, one_by_one=one_by_one), 0)
        launches_of(gpu)
        optimizers.append(update(optimizer, 1))
        assert launches_of(gpu) == ([("one", 0)] * 3 if one_by_one else [("table", 0)] * 2)
    assert optimizers[0].target[0].W.update_rule.t == 4
    assert copies_of(optimizers[0]) == copies_of(optimizers[1])


def test_the_current_stream_of_each_device_is_used(gpu):
    """By the launch and by what precedes it."""
    optimizer = update(set_up(model_of(((3,), "f4", GPUS[0]), ((3,), "f4", GPUS[1]))), 0, 1)
    gpu.launches.clear()
    with Device(1):
        stream = gpu.cuda.Stream()
    give_gradients(optimizer, 2)
    with stream:
        optimizer.update()
    assert [(launch.device_id, launch.stream) for launch in gpu.launches] == [(0, 0), (1, stream.ptr)]


def test_an_update_waits_for_nothing_and_what_it_needs_lives_until_it_runs(gpu):
    """Not even where parameters, states and gradients are replaced, and let go, before anything has run."""
    optimizer, expected = (set_up(residual_network(), one_by_one=one_by_one) for one_by_one in (False, True))
    update(optimizer, 0, 1), update(expected, 0, 1)
    with gpu.held_back():
        for seed in (2, 3, 4):
            for one in (optimizer, expected):
                give_gradients(one, seed)
        optimizer.update()
        before = copies_of(optimizer)
        gpu.stream().synchronize()
        assert copies_of(optimizer) != before
        # Into new arrays, and back into others, while launches on the old ones are still to run.
        update_held_back(gpu, optimizer)
        gc.collect()
        gpu.stream().synchronize()
    expected.update()
    for seed in (5, 6):
        update(expected, seed)
    assert copies_of(optimizer) == copies_of(expected)


def update_held_back(gpu, optimizer):
    """Two updates, of which the second finds every array replaced."""
    give_gradients(optimizer, 5)
    optimizer.update()
    gpu.stream().enqueue(lambda: None)
    for param in optimizer.target.params():
        for name, state in param.update_rule.state.items():
            param.update_rule.state[name] = late_copy(gpu, state)
        param.array = late_copy(gpu, param.array)
    give_gradients(optimizer, 6)
    optimizer.update()


def late_copy(gpu, array):
    """A copy made when its turn on the stream comes."""
    made = gpu.zeros_like(array)
    source, target = array.host, made.host
    gpu.stream().enqueue(lambda: target.__setitem__(..., source))
    return made


def test_an_update_on_another_stream_finds_its_table_there(gpu):
    """The table of the first stream is let go on the first, whatever is still to run on the second."""
    optimizer = update(set_up(model_of(*[((3,), "f4", GPUS[0])] * 5)), 0, 1)
    expected = update(set_up(model_of(*[((3,), "f4", GPUS[0])] * 5), one_by_one=True), 0, 1, 2, 3)
    stream = gpu.cuda.Stream()
    with gpu.held_back():
        give_gradients(optimizer, 2)
        with stream:
            optimizer.update()
        gpu.stream().synchronize()
        stream.synchronize()
        give_gradients(optimizer, 3)
        optimizer.update()
        stream.synchronize()
        gpu.stream().synchronize()
    assert copies_of(optimizer) == copies_of(expected)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"]
)
def test_a_copy_of_an_optimizer_makes_tables_of_its_own(gpu, duplicate):
    """Its plan holds nothing of the first's."""
    optimizer = update(set_up(model_of(*[((3,), "f4", GPUS[0])] * 5)), 0, 1)
    assert optimizer._plan._tables
    assert duplicate(optimizer._plan)._tables == []


# Half precision


@pytest.mark.parametrize("scale", [None, 128.0])
def test_float16_with_fp32_masters_takes_chainers_ordinary_path(gpu, scale):
    """Beside parameters that do not: the same bits as with each updated by itself, with and without a loss scale."""
    optimizers = []
    for one_by_one in (False, True):
        model = model_of(*[((30,), "f2", GPUS[0])] * 3, *[((30,), "f4", GPUS[0])] * 2)
        optimizer = set_up(model, one_by_one=one_by_one)
        optimizer.use_fp32_update()
        for seed in range(4):
            give_gradients(optimizer, seed)
            for param in model.params():
                if scale is not None:
                    param._loss_scale = scale
                    param.grad = param.grad * param.dtype.type(scale)
            optimizer.update()
        optimizers.append(optimizer)
    assert all(param.update_rule._fp32_param is not None for param in list(model.params())[:3])
    assert copies_of(optimizers[0]) == copies_of(optimizers[1])


# What cannot be


@pytest.mark.parametrize("move", ["to_gpu()", "to_device('@cupy:0')"])
def test_a_cupy_that_finds_no_gpu_is_no_reason_to_go_on_without_a_word(move):
    """CuPy as it is installed here: Chainer says what is missing, the model stays where it was and can be trained."""
    cupy = pytest.importorskip("cupy", exc_type=ImportError, reason=not_installed("cupy"))
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


def test_a_gradient_on_another_device_is_refused(gpu):
    """By CuPy, on the ordinary path, where one device cannot read the other's memory; it is no row of a table."""
    optimizer = update(set_up(model_of(*[((3,), "f4", GPUS[0])] * 3)), 0)
    give_gradients(optimizer, 1)
    optimizer.target.p1.grad = chainer.get_device(GPUS[1]).send(numpy.ones(3, "f4"))
    with pytest.raises(ValueError, match="an array of device 1 while device 0 is current"):
        optimizer.update()


def test_a_model_half_on_a_gpu_is_updated_where_each_half_is(gpu):
    """Nothing is moved, and both halves train as on one device."""
    halves = [((30,), "f4", device) for device in (GPUS[0], "@numpy") * 4]
    optimizer = update(set_up(model_of(*halves)), 0, 1)
    whole = model_of(*[(shape, dtype, "@numpy") for shape, dtype, _ in halves])
    update(ChainerRMSpropGraves(lr=0.01, alpha=0.9, momentum=0.5, eps=1e-4).setup(whole), 0, 1)
    for (*_, device), param, other in zip(halves, optimizer.target.params(), whole.params()):
        assert param.update_rule.t == 2
        for array in (param.array, *param.update_rule.state.values()):
            assert chainer.get_device(device).is_array_supported(array)
        numpy.testing.assert_allclose(host(param.array), other.array, rtol=1e-5)
        if device == "@numpy":
            assert param.array.tobytes() == other.array.tobytes()


def test_a_cupy_that_is_too_old_is_refused_when_the_optimizer_is_set_up(gpu, monkeypatch):
    """Before anything has changed, the optimizer itself included."""
    model = model_of(((3,), "f4", GPUS[0]))
    optimizer = update(set_up(model_of(((3,), "f4", "@numpy"))), 0)
    before = copies_of(optimizer)

    def refuse():
        raise ImportError("needs CuPy 12 or newer")

    monkeypatch.setattr(kernels, "on_gpu", refuse)
    with pytest.raises(ImportError, match="needs CuPy 12 or newer"):
        optimizer.setup(model)
    assert copies_of(optimizer) == before
    assert model.p0.update_rule is None
    update(optimizer, 1)


@pytest.mark.parametrize("dtype", ["complex64", "i4"])
def test_a_dtype_that_is_no_real_floating_one_is_refused_by_name(gpu, dtype):
    """Before anything is written."""
    array = gpu.asarray(numpy.ones(3, dtype))
    with pytest.raises(TypeError, match=f"param must be of float16, float32, float64, got {numpy.dtype(dtype)}"):
        kernel.step(array, array, array, array, array, lr=1.0, alpha=0.5, momentum=0.5, eps=1.0)
