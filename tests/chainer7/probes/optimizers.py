"""Calls of every optimizer, of every hook of optimizers and links, and of every initializer."""

from __future__ import annotations

import io
import re

import chainer
import chainer.functions as F
import chainer.initializers as I
import chainer.links as L
import numpy
from chainer import function_hooks, link_hooks, optimizer_hooks, optimizers

from .inputs import DTYPE, FLOATS, h, normal, words

DTYPES = FLOATS
SHAPES = {"w": (2, 3), "b": (), "none": (0, 2)}

# The arguments of each optimizer. No number is exact in a narrower dtype, so that rounding to one shows.
HYPERPARAMETERS = {
    "AdaDelta": {"rho": 0.9, "eps": 1e-3},
    "AdaGrad": {"lr": 0.1, "eps": 1e-3},
    "Adam": {"alpha": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "eta": 0.9, "weight_decay_rate": 0.1},
    "AdamW": {"alpha": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "eta": 0.9, "weight_decay_rate": 0.1},
    "AMSGrad": {"alpha": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "eta": 0.9},
    "AdaBound": {"alpha": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "final_lr": 0.01, "gamma": 1e-3},
    "AMSBound": {"alpha": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "final_lr": 0.01, "gamma": 1e-3},
    "CorrectedMomentumSGD": {"lr": 0.1, "momentum": 0.9},
    "MomentumSGD": {"lr": 0.1, "momentum": 0.9},
    "MSVAG": {"lr": 0.1, "beta": 0.9, "eta": 0.9, "weight_decay_rate": 0.1},
    "NesterovAG": {"lr": 0.1, "momentum": 0.9},
    "RMSprop": {"lr": 0.1, "alpha": 0.9, "eps": 1e-3},
    "RMSpropGraves": {"lr": 0.1, "alpha": 0.9, "momentum": 0.9, "eps": 1e-3},
    "SGD": {"lr": 0.1},
    "SMORMS3": {"lr": 0.1, "eps": 1e-3},
}


def _stepped(optimizer, dtype, *hooks, steps=20, largest=2.0, full_precision=False, shapes=SHAPES):
    """Returns every parameter and state after some steps, with gradients that are the same in every dtype."""
    model = chainer.Chain()
    with model.init_scope():
        for name, shape in shapes.items():
            setattr(model, name, chainer.Parameter(numpy.full(shape, 1.5, dtype)))
    optimizer.setup(model)
    if full_precision:
        optimizer.use_fp32_update()
    for hook in hooks:
        optimizer.add_hook(hook)
    state = numpy.random.RandomState(0)
    for _ in range(steps):
        for _, param in sorted(model.namedparams()):
            # Multiples of 1/256 of the largest, which is a power of two, so that they are exact in float16.
            param.grad = numpy.array(state.randint(-256, 257, param.shape) * (largest / 256), dtype)
        optimizer.update()
    return _state(optimizer)


def _state(optimizer):
    state = {"t": optimizer.t}
    for path, param in optimizer.target.namedparams():
        state[path] = param.array
        state[f"{path} grad"] = param.grad
        for name, value in (param.update_rule.state or {}).items():
            state[f"{path} {name}"] = value
    return state


def _optimizer(name, values):
    make = getattr(optimizers, name)

    def given(h):
        # If MSVAG's beta is an array, Chainer multiplies it in place.
        return make(
            **{key: value if key == "beta" and h is numpy.array else h(value) for key, value in values.items()}
        )

    return (
        lambda dtype=DTYPE, h=h: _stepped(given(h), dtype),
        lambda dtype=DTYPE: _stepped(make(), dtype, steps=300, shapes={"w": (3,), "b": ()}),
        lambda dtype=DTYPE, h=h: _stepped(given(h), dtype, largest=512),
        lambda dtype=DTYPE: _stepped(make(), dtype, largest=512, steps=40, shapes={"w": (3,), "b": ()}),
        lambda dtype=DTYPE: _stepped(make(), dtype, largest=2**-10, steps=40, shapes={"w": (3,), "b": ()}),
        lambda dtype=DTYPE: _stepped(make(), dtype, largest=0, steps=3),
        lambda dtype=DTYPE, h=h: _stepped(given(h), dtype, full_precision=True),
        lambda dtype=DTYPE: _scaled(make(), dtype),
        lambda dtype=DTYPE: _saved(given(float), given(float), dtype),
        lambda dtype=DTYPE, h=h: _of_its_own(make(), values, dtype, h),
    )


def _of_its_own(optimizer, values, dtype, h):
    """Returns parameters that have their own hyperparameters, and the optimizer's learning rate."""
    model = L.Linear(3, 2, initialW=0.5)
    optimizer.setup(model)
    for name, value in values.items():
        if name != "beta":
            setattr(model.W.update_rule.hyperparam, name, h(value))
    x = numpy.linspace(-1, 2, 12).reshape(4, 3).astype(dtype)
    for _ in range(3):
        optimizer.update(lambda: F.sum(model(x) ** 2))
    rates = [float(rule.lr) for rule in (optimizer, model.W.update_rule) if hasattr(type(rule), "alpha_t")]
    return _state(optimizer), rates


def _scaled(optimizer, dtype):
    """Trains with a fixed and a dynamic loss scale."""
    model = L.Linear(3, 2, initialW=0.5)
    optimizer.setup(model)
    optimizer.add_hook(optimizer_hooks.WeightDecay(0.1))
    x = numpy.linspace(-1, 2, 12).reshape(4, 3).astype(dtype)
    for scale in (numpy.float32(128), 128.0, "dynamic"):
        if scale == "dynamic":
            optimizer.loss_scaling(interval=2)
        else:
            optimizer.set_loss_scale(scale)
        for _ in range(5):
            optimizer.update(lambda: F.sum(model(x) ** 2))
    return _state(optimizer)


def _saved(optimizer, other, dtype):
    """Saves an optimizer after some steps, and loads it."""
    _stepped(optimizer, dtype)
    saved = {}
    optimizer.serialize(chainer.serializers.DictionarySerializer(saved))
    _stepped(other, dtype, steps=1)
    other.serialize(chainer.serializers.NpzDeserializer(saved))
    return saved, _state(other)


def _hook(make, full_precision=False):
    return (
        lambda dtype=DTYPE, h=h: _stepped(optimizers.SGD(0.1), dtype, make(h), steps=3),
        lambda dtype=DTYPE, h=h: _stepped(optimizers.MomentumSGD(0.1), dtype, make(h), largest=512),
        lambda dtype=DTYPE, h=h: _stepped(optimizers.SGD(0.1), dtype, make(h), largest=2**-10, steps=3),
        lambda dtype=DTYPE, h=h: _stepped(optimizers.SGD(0.1), dtype, make(h), largest=2**-16, steps=3),
        lambda dtype=DTYPE, h=h: _stepped(optimizers.SGD(), dtype, make(h), full_precision=True, steps=3),
        lambda dtype=DTYPE, h=h: _stepped(
            optimizers.SGD(), dtype, make(h), steps=3, largest=64, shapes={"a": (100,), "b": (100,), "c": (100,)}
        ),
    )


def _normalized(make):
    """Probes of a link with a hook, in training and test mode."""

    def probe(x=normal[4, 3], h=h):
        link = L.Linear(3, 4)
        link.add_hook(make(h))
        for _ in range(5):
            y = link(x)
        with chainer.using_config("train", False):
            return y, link(x), link

    def image(x=normal[2, 2, 4, 4], h=h):
        link = L.Convolution2D(None, 3, 2)
        link.add_hook(make(h))
        return link(x), link

    def transposed(x=normal[2, 2, 4, 4]):
        link = L.Deconvolution2D(2, 3, 2)
        link.add_hook(make(float))
        return link(x), link

    return probe, image, transposed


def _timed(hook, called):
    """Returns the numbers of calls that a timing hook has counted."""
    with hook:
        called(L.Linear(3, 2))
    return {name: times["occurrence"] for name, times in hook.summary().items()}, len(hook.call_history)


def _printed(x):
    text = io.StringIO()
    with function_hooks.PrintHook(file=text, flush=False):
        y = F.sum(x * 2)
        y.backward()
    return re.sub("0x[0-9a-f]+", "0x", text.getvalue()).splitlines()


def _initialized(make, *shapes):
    """Probes of an initializer: it makes an array, fills one, and has a dtype of its own."""

    def probe(dtype=DTYPE, h=h):
        return [I.generate_array(make(h, dtype), shape, numpy, device="@numpy") for shape in shapes]

    def filled(dtype=DTYPE):
        arrays = [numpy.empty(shape, dtype) for shape in shapes]
        for array in arrays:
            make(float, None)(array)
        return arrays

    def in_link(dtype=DTYPE, h=h):
        param = chainer.Parameter(make(h, None))
        param.initialize(shapes[0])
        return param.array

    return probe, filled, in_link


def _scaling(name, *more):
    return _initialized(lambda h, dtype: getattr(I, name)(h(1.1), dtype), (4, 3), (2, 3, 2, 2), *more)


PROBES = {
    "chainer.optimizers": {
        **{name: _optimizer(name, values) for name, values in HYPERPARAMETERS.items()},
        "RMSprop": (
            *_optimizer("RMSprop", HYPERPARAMETERS["RMSprop"]),
            lambda dtype=DTYPE, h=h: _stepped(
                optimizers.RMSprop(h(0.1), h(0.9), h(1e-3), eps_inside_sqrt=True), dtype
            ),
        ),
    },
    "chainer.optimizer_hooks": {
        "GradientClipping": _hook(lambda h: optimizer_hooks.GradientClipping(h(0.1)))
        + _hook(lambda h: optimizer_hooks.GradientClipping(h(100))),
        "GradientHardClipping": _hook(lambda h: optimizer_hooks.GradientHardClipping(h(-0.1), h(0.75))),
        "GradientLARS": _hook(lambda h: optimizer_hooks.GradientLARS(h(0.1), h(0.01), h(1e-3)))
        + _hook(lambda h: optimizer_hooks.GradientLARS(eps=h(1e-6))),
        "GradientNoise": _hook(lambda h: optimizer_hooks.GradientNoise(h(0.1))),
        "Lasso": _hook(lambda h: optimizer_hooks.Lasso(h(0.1))),
        "WeightDecay": _hook(lambda h: optimizer_hooks.WeightDecay(h(0.1))),
    },
    "chainer.link_hooks": {
        "SpectralNormalization": _normalized(lambda h: link_hooks.SpectralNormalization(eps=h(1e-3), factor=h(0.75)))
        + _normalized(lambda h: link_hooks.SpectralNormalization(2, use_gamma=True)),
        "TimerHook": lambda x=normal[4, 3]: _timed(link_hooks.TimerHook(), lambda link: link(link(x)[:, :1] * x)),
        "WeightStandardization": _normalized(lambda h: link_hooks.WeightStandardization(eps=h(1e-3))),
    },
    "chainer.function_hooks": {
        "TimerHook": lambda x=normal[4, 3]: _timed(function_hooks.TimerHook(), lambda link: F.relu(link(x))),
        "PrintHook": lambda x=normal[4, 3]: _printed(x),
    },
    "chainer.initializers": {
        "Constant": _initialized(lambda h, dtype: I.Constant(h(0.1), dtype), (2, 3), ()),
        "Identity": _initialized(lambda h, dtype: I.Identity(h(1.1), dtype), (3, 3)),
        "NaN": _initialized(lambda h, dtype: I.NaN(dtype), (2, 3)),
        "One": _initialized(lambda h, dtype: I.One(dtype), (2, 3)),
        "Zero": _initialized(lambda h, dtype: I.Zero(dtype), (2, 3)),
        "HeNormal": (
            *_scaling("HeNormal"),
            lambda dtype=DTYPE, h=h: I.generate_array(
                I.HeNormal(h(1.1), dtype, fan_option="fan_out", rng=numpy.random.RandomState(1)), (4, 3), numpy
            ),
        ),
        "Normal": _scaling("Normal", ()),
        "Uniform": _scaling("Uniform", ()),
        **{
            name: _scaling(name)
            for name in words("""LeCunNormal GlorotNormal LeCunUniform GlorotUniform HeUniform Orthogonal""")
        },
        "UpsamplingDeconvFilter": _initialized(lambda h, dtype: I.UpsamplingDeconvFilter(dtype=dtype), (3, 3, 4, 4)),
        "DownsamplingConvFilter": _initialized(lambda h, dtype: I.DownsamplingConvFilter(dtype=dtype), (3, 3, 3, 3)),
        "generate_array": lambda dtype=DTYPE: (
            I.generate_array(I.Constant(0.1), (2,), numpy, dtype),
            I.generate_array(I.Normal(0.1, "float64"), (2,), numpy),
        ),
    },
}

LEFT_OUT = {
    "chainer.function_hooks.CUDAProfileHook": "needs a GPU",
    "chainer.function_hooks.CupyMemoryProfileHook": "needs a GPU",
}
