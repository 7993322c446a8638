"""Random lives of a model with hooks: everything is bit-identical to training with Chainer's own hooks.

The oracle is the same optimizer with Chainer's `call_hook`.
"""

from __future__ import annotations

import copy
import random
import warnings

import chainer
import numpy
import pytest
from chainer import optimizer_hooks as hooks
from chainer.optimizer import GradientMethod
from models import Arrays, assert_same_bits, snapshot_of

from rmsprop_graves import RMSpropGraves
from rmsprop_graves.kernels import threads

SHAPES = [(3,), (2, 3), (5, 1, 2), (0,), (4097,), (2049, 3), (1,), ()]
# Before NumPy 1.25, adding -0 in place to a one-element array of -0 gives 0.
SHAPES = SHAPES if numpy.lib.NumpyVersion(numpy.__version__) >= "1.25.0" else SHAPES[:6]
SPECIAL = [0.0, -0.0, 1e-40, -1e-30, 1e30, -1e38, numpy.inf, -numpy.inf, numpy.nan]


class ByChainer(RMSpropGraves):
    """Chainer's method calls the hooks."""

    call_hook = GradientMethod.call_hook


class Halved(hooks.WeightDecay):
    """A user's hook, derived from Chainer's."""

    name = "Halved"

    def __call__(self, rule, param):
        """Decay half as much."""
        if param.array is not None:
            param.grad += numpy.asarray(self.rate / 2, param.dtype) * param.array


def doubled(optimizer):
    """A user's hook that replaces the gradients."""
    for param in optimizer.target.params(include_uninit=False):
        param.grad = numpy.asarray(param.grad * 2)


def seen(optimizer):
    """A user's hook that records the gradients."""
    # NaNs of either sign are equal.
    grads = [param.grad for param in optimizer.target.params(include_uninit=False)]
    optimizer.seen.append([numpy.where(numpy.isnan(grad), numpy.nan, grad).tobytes() for grad in grads])


NUMBERS = [0.1, -0.3, 1e-4, 0.0, 1, numpy.float32(0.1), numpy.float64(0.1), numpy.array(0.2), 1e39, numpy.nan, True]


def new_hook(rng):
    number = rng.choice(NUMBERS)
    return rng.choice(
        [
            hooks.WeightDecay(number),
            hooks.Lasso(number),
            hooks.GradientClipping(rng.choice([0.01, 1, 5.0, 1e9, numpy.float32(0.3)])),
            hooks.GradientHardClipping(rng.choice([-0.5, -1e-3, 0.2, None]), rng.choice([0.1, 0, 3.0, -1.0])),
            hooks.GradientLARS(rng.choice([1e-2, 5.0]), rng.choice([0.0, 0.1]), rng.choice([1e-9, 0.1])),
            Halved(0.1),
            doubled,
            seen,
        ]
    )


def new_model(rng):
    dtypes = rng.choice([["f4"], ["f4"], ["f8"], ["f4", "f8"], ["f2", "f4"]])
    drawn = numpy.random.RandomState(rng.randrange(2**31))
    shapes = [rng.choice(SHAPES[: rng.choice([7, 8])]) for _ in range(rng.randint(1, 5))]
    model = Arrays(*(numpy.asarray(drawn.standard_normal(shape)).astype(rng.choice(dtypes)) for shape in shapes))
    if rng.random() < 0.1:
        with model.init_scope():
            model.lazy = chainer.Parameter(chainer.initializers.Zero())
        if rng.random() < 0.5:
            model.lazy.cleargrad()
    if rng.random() < 0.1:
        with model.init_scope():
            model.again = model.p0
    if rng.random() < 0.1:
        model.p0.array = numpy.repeat(model.p0.array, 2, axis=-1)[..., ::2] if model.p0.ndim else model.p0.array
    return model


def aligned(array):
    """Align a copy of a large array to a cache line: the last bits of a BLAS dot product may depend on alignment."""
    if array.size < 1000:
        return array
    memory = numpy.empty(array.nbytes + 64, "u1")
    begin = -memory.ctypes.data % 64
    copied = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def new_gradient(rng, drawn, param):
    grad = numpy.asarray(drawn.standard_normal(param.shape) * 10 ** drawn.uniform(-3, 3)).astype(param.dtype)
    if rng.random() < 0.2 and grad.size:
        grad.flat[drawn.randint(0, grad.size, 3)] = [rng.choice(SPECIAL) for _ in range(3)]
    if rng.random() < 0.05:
        grad = numpy.asfortranarray(grad)
    if rng.random() < 0.05:
        grad = numpy.asarray(numpy.zeros_like(grad) * -1)
    return aligned(grad) if grad.flags.c_contiguous else grad


def act(rng, optimizer):
    """Make a random change and an update; an equal generator makes the same for the other optimizer."""
    params = [param for param in optimizer.target.params() if param.array is not None]
    action = rng.random()
    own = optimizer._hookable
    present = [(name, one) for one in (own._pre_update_hooks, own._post_update_hooks) for name in one]
    if action < 0.35 or not present:
        hook = new_hook(rng)
        optimizer.add_hook(hook, f"{len(present)} {rng.random()}", rng.choice(["auto", "pre", "pre", "post"]))
    elif action < 0.45:
        optimizer.remove_hook(rng.choice(present)[0])
    elif action < 0.55:
        name, of_timing = rng.choice(present)
        if hasattr(of_timing[name], "rate"):
            of_timing[name].rate = rng.choice(NUMBERS)
    elif action < 0.6:
        rule = rng.choice(params).update_rule
        rule.enabled = not rule.enabled
    elif action < 0.63:
        rng.choice(params).update_rule.add_hook(hooks.WeightDecay(0.2), name=str(rng.random()))
    elif action < 0.66:
        optimizer.set_loss_scale(rng.choice([1, 8.0]))
        for param in params:
            param._loss_scale = rng.choice([None, 8.0])
    drawn = numpy.random.RandomState(rng.randrange(2**31))
    shared = None
    for param in params:
        grad = new_gradient(rng, drawn, param)
        if rng.random() < 0.03:
            param.cleargrad()
            continue
        if shared is not None and shared.shape == grad.shape and shared.dtype == grad.dtype and rng.random() < 0.1:
            grad = shared
        shared = grad
        param.grad = grad
        if rng.random() < 0.01:
            grad.flags.writeable = False
    optimizer.update()


def live(seed):
    rng = random.Random(seed)
    model = new_model(rng)
    pair = [cls(lr=0.01, alpha=0.9, momentum=0.5).setup(copy.deepcopy(model)) for cls in (RMSpropGraves, ByChainer)]
    for optimizer in pair:
        optimizer.seen = []
        for param in optimizer.target.params(include_uninit=False):
            if param.array.flags.c_contiguous:
                param.array = aligned(param.array)
    for _ in range(rng.randint(2, 8)):
        state, ends = rng.getstate(), []
        for optimizer in pair:
            rng.setstate(state)
            try:
                act(rng, optimizer)
                ends.append(None)
            except Exception as error:
                ends.append((type(error), str(error)))
        assert ends[0] == ends[1]
        assert pair[0].t == pair[1].t
        assert_same_bits(*map(snapshot_of, pair))
        assert pair[0].seen == pair[1].seen


@pytest.fixture
def small_spans(monkeypatch):
    """Use two threads even for a small model."""
    monkeypatch.setattr(threads, "SPAN", 1000)
    monkeypatch.setattr(threads, "_num_threads", 2)


def run_lives(seeds):
    with warnings.catch_warnings(), numpy.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for seed in seeds:
            try:
                live(seed)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("start", range(0, 200, 100))
def test_random_lives_with_hooks_have_the_bits_of_chainers_hooks(kernel, small_spans, start):
    """Hooks are added, removed and changed. Parameters, gradients and the hooks' numbers may be extreme."""
    run_lives(range(start, start + 100))


@pytest.mark.search
@pytest.mark.parametrize("start", range(1000, 4000, 300))
def test_many_random_lives_with_hooks_have_the_bits_of_chainers_hooks(kernel, small_spans, start):
    """The same with other seeds."""
    run_lives(range(start, start + 300))
