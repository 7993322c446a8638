"""The rule compared with a closed form, plain Python floats, other libraries and Chainer's class."""

from __future__ import annotations

import chainer
import hypothesis.extra.numpy as hypothesis_numpy
import numpy
import pytest
import reference
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Arrays, arrays_of, assert_same_bits, copies_of, train_one
from skips import not_installed

from rmsprop_graves import RMSpropGraves

FIRST_STEPS = [
    ({}, 0.3),
    ({"lr": 2.5e-4, "alpha": 0.95, "momentum": 0.0, "eps": 1e-2}, -2.0),
    ({"lr": 1e-2, "alpha": 0.5, "momentum": 0.5, "eps": 1e-8}, 40.0),
]


@pytest.mark.parametrize(("hyperparameters", "x"), FIRST_STEPS, ids=["defaults", "dqn", "other"])
def test_first_step_is_the_closed_form(hyperparameters, x):
    """From zeros, n - g^2 is alpha (1 - alpha) x^2."""
    optimizer = train_one(RMSpropGraves, numpy.zeros(1), [numpy.array([x])], **hyperparameters)
    lr, alpha, eps = optimizer.lr, optimizer.alpha, optimizer.eps
    expected = -lr * x / numpy.sqrt(alpha * (1 - alpha) * x**2 + eps)
    numpy.testing.assert_allclose(optimizer.target.p0.array, [expected], rtol=1e-14)


def test_zero_gradient_decays_delta_only():
    """delta gets no new term: it decays, and the parameter moves by it. n and g decay as in every step."""
    optimizer = train_one(RMSpropGraves, numpy.ones(3), [numpy.full(3, 0.7)])
    before = copies_of(optimizer)
    optimizer.target.set_grads(numpy.zeros(3))
    optimizer.update()
    after = arrays_of(optimizer)
    numpy.testing.assert_array_equal(after["/p0/delta"], before["/p0/delta"] * 0.9)
    numpy.testing.assert_array_equal(after["/p0"], before["/p0"] + after["/p0/delta"])
    numpy.testing.assert_array_equal(after["/p0/n"], before["/p0/n"] * 0.95)
    numpy.testing.assert_array_equal(after["/p0/g"], before["/p0/g"] * 0.95)


# How far each dtype may be from plain Python floats after 100 steps. An error made in n or g stays for
# 1 / (1 - alpha) = 20 steps, and n - g^2 loses a few bits: a few hundred roundings of half an ulp.
REFERENCE_TOLERANCE = {"f4": 300 * numpy.finfo("f4").eps, "f8": 300 * numpy.finfo("f8").eps}

# Settings from other libraries' tests of the same rule.
SETTINGS = [
    {},
    {"lr": 0.1, "alpha": 0.9, "momentum": 0.9, "eps": 1e-8},
    {"lr": 1e-3, "alpha": 0.8, "momentum": 0.8, "eps": 1e-8},
    {"lr": 2.5e-4, "alpha": 0.95, "momentum": 0.0, "eps": 1e-2},
    {"lr": -1e-2, "alpha": 0.0, "momentum": 0.0, "eps": 1.0},
]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("hyperparameters", SETTINGS, ids=str)
def test_a_hundred_steps_follow_plain_python_floats(hyperparameters, dtype):
    """The parameter and every state entry are compared, element by element."""
    rng = numpy.random.RandomState(313)
    start = rng.standard_normal(20).astype(dtype)
    gradients = rng.standard_normal((100, 20)).astype(dtype)
    actual = arrays_of(train_one(RMSpropGraves, start, gradients, **hyperparameters))
    elements = [reference.run(float(w), map(float, x), **hyperparameters) for w, x in zip(start, gradients.T)]
    tolerance = REFERENCE_TOLERANCE[dtype]
    for name, expected in zip(("/p0", "/p0/n", "/p0/g", "/p0/delta"), zip(*elements)):
        scale = numpy.abs(expected).max()
        numpy.testing.assert_allclose(actual[name], expected, tolerance, tolerance * scale, err_msg=name)


def test_the_golden_values_of_keras_are_met():
    """Keras's own test of centered RMSprop: ten parameters of 1, a small gradient, then 0.1 to 1.0 four times."""
    gradients = [numpy.full(10, 0.01)] + [numpy.arange(1, 11) / 10] * 4
    for steps, golden in enumerate([0.9967, 0.9933, 0.9908, 0.9885, 0.9864], start=1):
        optimizer = train_one(
            RMSpropGraves, numpy.ones(10), gradients[:steps], lr=1e-3, alpha=0.9, momentum=0.0, eps=1e-7
        )
        # Keras gives one number of four decimals for all ten; they differ in the fourth.
        numpy.testing.assert_allclose(optimizer.target.p0.array, golden, rtol=0, atol=2e-4)


def test_optax_steps_the_same_rule():
    """optax.rmsprop, centered, with eps inside the root: the parameter and all three states, in float32."""
    jax = pytest.importorskip("jax", reason=not_installed("jax"))
    optax = pytest.importorskip("optax", reason=not_installed("optax"))
    rng = numpy.random.RandomState(0)
    start, gradients = rng.standard_normal(20).astype("f4"), rng.standard_normal((50, 20)).astype("f4")
    transform = optax.rmsprop(
        1e-2, decay=0.9, eps=1e-4, centered=True, momentum=0.8, eps_in_sqrt=True, initial_scale=0.0
    )
    param = jax.numpy.asarray(start)
    state = transform.init(param)
    for gradient in gradients:
        updates, state = transform.update(jax.numpy.asarray(gradient), state, param)
        param = optax.apply_updates(param, updates)
    optimizer = train_one(RMSpropGraves, start, gradients, lr=1e-2, alpha=0.9, momentum=0.8, eps=1e-4)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    states = {str(path[-1]).strip("."): leaf for path, leaf in leaves}
    expected = {"/p0": param, "/p0/g": states["mu"], "/p0/n": states["nu"], "/p0/delta": states["trace"]}
    for name, array in arrays_of(optimizer).items():
        # 50 steps of a few roundings each, where n - g^2 has lost some bits.
        numpy.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


HYPERPARAMETERS = st.fixed_dictionaries(
    {
        "lr": st.floats(-1, 1),
        # Chainer's own tests set each default plus 0.1.
        "alpha": st.floats(0, 1.05),
        "momentum": st.floats(0, 1.0),
        "eps": st.sampled_from([1e-8, 1e-4, 1e-2, 1.0]),
    }
)

# Hooks that act element by element, so that a difference in one element stays in it.
HOOKS = {
    "WeightDecay": lambda: chainer.optimizer_hooks.WeightDecay(1e-2),
    "Lasso": lambda: chainer.optimizer_hooks.Lasso(1e-2),
    "GradientHardClipping": lambda: chainer.optimizer_hooks.GradientHardClipping(-1.0, 1.0),
}


@pytest.mark.filterwarnings("ignore:(alpha|momentum) is :UserWarning")
@settings(max_examples=150)
@given(
    shape=hypothesis_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6),
    dtype=st.sampled_from(["f4", "f8"]),
    hyperparameters=HYPERPARAMETERS,
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 30.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.sampled_from(["step", "cleared", "new epoch", "new lr"]), max_size=12),
    hooks=st.sets(st.sampled_from(sorted(HOOKS))),
)
def test_every_bit_is_chainers_while_the_variance_is_not_negative(
    shape, dtype, hyperparameters, scale, seed, steps, hooks
):
    """Shapes, hyperparameters, hooks, epochs and cleared gradients are random.

    Zero-dimensional arrays are left out: Chainer computes float32 ones in float64.
    """
    rng = numpy.random.RandomState(seed)
    start = numpy.asarray(rng.standard_normal(shape), dtype)
    optimizers = [cls(**hyperparameters).setup(Arrays(start, start)) for cls in (RMSpropGraves, ChainerRMSpropGraves)]
    ours, chainers = optimizers
    was_negative = numpy.zeros((2, *shape), bool)
    for optimizer in optimizers:
        for name in sorted(hooks):
            optimizer.add_hook(HOOKS[name]())
    for step in steps:
        gradients = [numpy.asarray(scale * rng.standard_normal(shape), dtype) for _ in range(2)]
        for optimizer in optimizers:
            optimizer.target.set_grads(*(gradient.copy() for gradient in gradients))
            if step == "cleared":
                optimizer.target.p1.cleargrad()
            if step == "new epoch":
                optimizer.new_epoch()
            if step == "new lr":
                optimizer.lr *= 0.5
            with numpy.errstate(all="ignore"):
                optimizer.update()
        for i, param in enumerate((chainers.target.p0, chainers.target.p1)):
            state = param.update_rule.state
            with numpy.errstate(all="ignore"):
                was_negative[i] |= ~(state["n"] - state["g"] * state["g"] >= 0)

    assert (ours.t, ours.epoch) == (chainers.t, chainers.epoch)
    actual, expected = arrays_of(ours), arrays_of(chainers)
    for path, negative in zip(("/p0", "/p1"), was_negative):
        for arrays in (actual, expected):
            for name in arrays:
                if name.startswith(path):
                    arrays[name] = arrays[name][~negative]
    assert_same_bits(actual, expected)


def test_the_bits_are_chainers_for_varied_gradients():
    """Their variance is seldom negative, so the test above leaves out few elements: none of 1,000 here."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((50, 1000)).astype("f4")
    optimizers = [train_one(cls, numpy.zeros(1000, "f4"), gradients) for cls in (RMSpropGraves, ChainerRMSpropGraves)]
    assert_same_bits(*map(arrays_of, optimizers))
