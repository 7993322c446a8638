"""Training on a GPU: whole models, checkpoints, moves between devices, hooks and mixed precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import chainer
import numpy
import pytest
from chainer import optimizer_hooks
from chainer.backends import cuda
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from gpu.arrays import (
    DTYPES,
    GPU,
    assert_same,
    model_and_gradients,
    on_a_gpu_only,
    on_cpu,
    set_gradients,
    train,
)
from models import Arrays, arrays_of, gradients
from skips import not_installed

from rmsprop_graves import RMSpropGraves


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_on_the_gpu_is_trained_there(dtype):
    """States are made on the GPU and updated in place; the result is bit-identical to training on the CPU."""
    model, steps = model_and_gradients(dtype)
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    model.to_device(GPU)
    optimizer = train(RMSpropGraves(lr=1e-2).setup(model), steps[:1])
    before = arrays_of(optimizer)
    train(optimizer, steps[1:])
    after = arrays_of(optimizer)
    assert all(after[name] is array for name, array in before.items())
    device = chainer.get_device(GPU)
    assert all(device.is_array_supported(array) for array in after.values())
    assert_same(after, arrays_of(expected))


@pytest.mark.parametrize(("first", "second"), [(GPU, "@numpy"), ("@numpy", GPU)], ids=["gpu to cpu", "cpu to gpu"])
def test_a_checkpoint_resumes_on_the_other_device(tmp_path, first, second):
    """An optimizer loads it before its first update or after two; training is bit-identical to the CPU's."""
    model, steps = model_and_gradients()
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    model.to_device(first)
    stopped = train(RMSpropGraves(lr=1e-2).setup(model), steps[:3])
    chainer.serializers.save_npz(str(tmp_path / "optimizer.npz"), stopped)
    chainer.serializers.save_npz(str(tmp_path / "model.npz"), model)
    for updates_before in (0, 2):
        other = model_and_gradients()[0]
        other.to_device(second)
        resumed = train(RMSpropGraves(lr=1e-2).setup(other), steps[:updates_before])
        chainer.serializers.load_npz(str(tmp_path / "optimizer.npz"), resumed)
        chainer.serializers.load_npz(str(tmp_path / "model.npz"), other)
        train(resumed, steps[3:])
        assert resumed.t == 6
        assert_same(arrays_of(resumed), arrays_of(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_bit_identical_to_updates_of_single_parameters(dtype):
    """The model has a rule's hook, a float32 master, a transposed array, a tied parameter and a rule's own lr."""
    shapes = [(1 + i % 7, 1 + 5 * i % 40) for i in range(50)]
    drawn, *steps = ([*gradients(*shapes, seed=seed, dtype=dtype)] for seed in range(6))
    runs = []
    for one_by_one in (False, True):
        model = Arrays(*drawn)
        model.to_device(GPU)
        model.p10.array = model.p10.array.T.copy().T
        assert not model.p10.array.flags.c_contiguous
        with model.init_scope():
            model.again = model.p3
        optimizer = RMSpropGraves(lr=1e-2).setup(model)
        model.p11.update_rule.add_hook(lambda rule, param: param.grad.__imul__(2), name="double")
        model.p13.update_rule.use_fp32_update()
        model.p17.update_rule.hyperparam.lr = 0.5
        for grads in steps:
            set_gradients(model, grads)
            if one_by_one:
                for param in model.params():
                    param.update()
            else:
                optimizer.update()
        runs.append(arrays_of(optimizer))
    assert_same(*runs)


def test_a_model_on_two_gpus_is_updated_on_each():
    """Each parameter's arrays stay on its device."""
    if cuda.cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    model, steps = model_and_gradients()
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    model.p0.to_device("@cupy:0")
    model.p1.to_device("@cupy:1")
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    train(optimizer, steps)
    assert_same(arrays_of(optimizer), arrays_of(expected))
    assert [array.device.id for array in arrays_of(optimizer).values()].count(1) == 4


@on_a_gpu_only
def test_memory_of_tables_is_not_reused_too_early(xp):
    """Tables, gradients and arrays are made and freed on two streams before the launches have run."""
    rng = numpy.random.RandomState(0)
    shapes = [(1 + 97 * i % 1000,) for i in range(60)]
    models = [Arrays(*(rng.standard_normal(shape).astype("f4") for shape in shapes)) for _ in range(2)]
    models[1] = models[0].copy("copy")
    for model in models:
        model.to_device(GPU)
    optimizers = [RMSpropGraves(lr=1e-2).setup(model) for model in models]
    stream = xp.cuda.Stream(non_blocking=True)
    gradients_of = [[rng.standard_normal(shape).astype("f4") for shape in shapes] for _ in range(20)]
    for i, grads in enumerate(gradients_of):
        with stream if i % 3 == 1 else xp.cuda.Stream.null:
            train(optimizers[0], [grads])
            if i % 4 == 0:
                for param in models[0].params():
                    param.array = param.array.copy()
        # A program that changes streams must synchronize them; there is no other synchronization.
        if i % 3 != 2:
            xp.cuda.get_current_stream().synchronize()
            stream.synchronize()
    for grads in gradients_of:
        set_gradients(models[1], grads)
        for param in models[1].params():
            param.update()
    xp.cuda.Device().synchronize()
    assert_same(arrays_of(optimizers[0]), arrays_of(optimizers[1]))


EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@on_a_gpu_only
@pytest.mark.parametrize(
    ("script", "options"),
    [("train_digits.py", ["--epoch", "3"]), ("train_text.py", ["--epoch", "1", "--unit", "64"])],
    ids=["digits", "text"],
)
def test_an_example_trains_to_the_same_losses_as_on_the_cpu(tmp_path, script, options):
    """Chainer's functions round differently on a GPU, and training amplifies it; the tolerance is 5 %."""
    for module in ("matplotlib", "sklearn"):
        pytest.importorskip(module, reason=not_installed(module))
    logs = []
    for device in ("@numpy", GPU):
        out = tmp_path / device.strip("@").replace(":", "")
        command = [sys.executable, str(EXAMPLES / script), *options, "--device", device, "--out", str(out)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, run.stdout + run.stderr
        logs.append(json.loads((out / "log.json").read_text(encoding="utf-8")))
    assert len(logs[0]) == len(logs[1]) > 0
    for expected, entry in zip(*logs):
        losses = [name for name in expected if name.endswith(("loss", "bits"))]
        assert losses
        for name in losses:
            numpy.testing.assert_allclose(entry[name], expected[name], rtol=0.05, err_msg=name)


def test_a_model_that_moves_between_devices_takes_its_states_along():
    """It moves from the CPU to the GPU and back within one training."""
    model, steps = model_and_gradients()
    expected = train(RMSpropGraves(lr=1e-2).setup(model.copy("copy")), steps)
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    for device, part in (("@numpy", steps[:2]), (GPU, steps[2:4]), ("@numpy", steps[4:])):
        model.to_device(device)
        train(optimizer, part)
        assert all(chainer.get_device(device).is_array_supported(array) for array in arrays_of(optimizer).values())
    assert_same(arrays_of(optimizer), arrays_of(expected))


HOOKS = [
    optimizer_hooks.WeightDecay(0.1),
    optimizer_hooks.Lasso(0.1),
    optimizer_hooks.GradientHardClipping(-0.3, 0.3),
    optimizer_hooks.GradientClipping(0.5),
    optimizer_hooks.GradientLARS(),
    optimizer_hooks.GradientNoise(0.1),
]


@pytest.mark.parametrize("hook", HOOKS[:-1], ids=lambda hook: hook.name)
def test_hooks_run_before_the_step(hook):
    """The hooks' own arithmetic rounds differently on a GPU, and sums in another order."""
    runs = []
    for device in ("@numpy", GPU):
        model, steps = model_and_gradients()
        model.to_device(device)
        optimizer = RMSpropGraves(lr=1e-2).setup(model)
        optimizer.add_hook(hook)
        runs.append(on_cpu(arrays_of(train(optimizer, steps))))
    for name, array in runs[0].items():
        numpy.testing.assert_allclose(runs[1][name], array, 1e-5, 1e-5, err_msg=name)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_after_a_hook_has_the_bits_of_a_step_on_the_cpu(dtype, hook):
    """The step on the CPU takes the gradients that the hook left on the GPU."""
    model, steps = model_and_gradients(dtype)
    expected = RMSpropGraves(lr=1e-2).setup(model.copy("copy"))
    model.to_device(GPU)
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    optimizer.add_hook(hook)
    for grads in steps:
        train(optimizer, [grads])
        changed = [cuda.to_cpu(param.grad) for param in (model.p0, model.p1)]
        assert any((one != other).any() for one, other in zip(changed, grads))
        train(expected, [changed])
        assert_same(arrays_of(optimizer), arrays_of(expected))


def test_fp32_update_keeps_float32_masters_of_float16_parameters():
    """Training is bit-identical to a float32 model's, except that the parameters are rounded to float16."""
    model, steps = model_and_gradients("f2")
    wide = Arrays(*(param.array.astype("f4") for param in (model.p0, model.p1)))
    wide.to_device(GPU)
    expected = arrays_of(
        train(RMSpropGraves(lr=1e-2).setup(wide), [[g.astype("f4") for g in grads] for grads in steps])
    )
    model.to_device(GPU)
    optimizer = RMSpropGraves(lr=1e-2).setup(model)
    optimizer.use_fp32_update()
    actual = arrays_of(train(optimizer, steps))
    for name, array in on_cpu(expected).items():
        assert actual[name].dtype == ("f4" if name.count("/") == 2 else "f2")
        numpy.testing.assert_array_equal(cuda.to_cpu(actual[name]), array.astype(actual[name].dtype), err_msg=name)


def test_the_step_divides_gradients_by_the_loss_scale():
    """Dividing by a power of two does not round, so the results are bit-identical to those without a scale."""
    runs = []
    for scale in (None, 256.0):
        model, steps = model_and_gradients()
        model.to_device(GPU)
        optimizer = RMSpropGraves(lr=1e-2).setup(model)
        if scale is not None:
            optimizer.set_loss_scale(scale)
        device = chainer.get_device(GPU)
        for grads in steps:
            optimizer.update(loss_with_gradients, model, [device.send(grad) for grad in grads])
        runs.append(arrays_of(optimizer))
    assert_same(runs[1], runs[0])


def loss_with_gradients(model, grads):
    """Return a loss that has the given gradients."""
    return chainer.functions.sum(model.p0 * grads[0]) + chainer.functions.sum(model.p1 * grads[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 1e-4), ("f8", 1e-12)])
def test_chainers_class_gives_about_the_same_result_on_a_gpu(dtype, tolerance):
    """Its kernel uses fused multiply-adds, and in float32 it loses digits of 1 - alpha."""
    start, *steps = (gradients(2000, seed=seed, dtype=dtype) for seed in range(51))
    runs = []
    for cls in (RMSpropGraves, ChainerRMSpropGraves):
        optimizer = cls().setup(Arrays(*start))
        optimizer.target.to_device(GPU)
        runs.append(on_cpu(arrays_of(train(optimizer, steps))))
    for name, array in runs[1].items():
        scale = numpy.abs(array).max()
        numpy.testing.assert_allclose(runs[0][name], array, tolerance, tolerance * scale, err_msg=name)
