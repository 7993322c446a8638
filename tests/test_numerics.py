"""The numeric contract: Chainer's bits, never NaN from finite gradients, and the rule itself."""

from __future__ import annotations

import chainer
import hypothesis.extra.numpy as hypothesis_numpy
import numpy
import pytest
import reference
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Arrays, arrays_of, assert_same_bits
from skips import not_installed

from rmsprop_graves import RMSpropGraves


def train(optimizer_class, start, gradients, **hyperparameters):
    """The optimizer of one parameter after a step with each gradient."""
    optimizer = optimizer_class(**hyperparameters).setup(Arrays(start))
    for gradient in gradients:
        optimizer.target.set_grads(gradient)
        optimizer.update()
    return optimizer


# The rule

FIRST_STEPS = [
    ({}, 0.3),
    ({"lr": 2.5e-4, "alpha": 0.95, "momentum": 0.0, "eps": 1e-2}, -2.0),
    ({"lr": 1e-2, "alpha": 0.5, "momentum": 0.5, "eps": 1e-8}, 40.0),
]


@pytest.mark.parametrize(("hyperparameters", "x"), FIRST_STEPS, ids=["defaults", "dqn", "other"])
def test_first_step_is_the_closed_form(hyperparameters, x):
    """From zeros, n - g^2 is alpha (1 - alpha) x^2."""
    optimizer = train(RMSpropGraves, numpy.zeros(1), [numpy.array([x])], **hyperparameters)
    lr, alpha, eps = optimizer.lr, optimizer.alpha, optimizer.eps
    expected = -lr * x / numpy.sqrt(alpha * (1 - alpha) * x**2 + eps)
    numpy.testing.assert_allclose(optimizer.target.p0.array, [expected], rtol=1e-14)


def test_zero_gradient_decays_delta_only():
    """And n and g on their way to zero; the parameter moves on by what is left of delta."""
    optimizer = train(RMSpropGraves, numpy.ones(3), [numpy.full(3, 0.7)])
    before = {name: array.copy() for name, array in arrays_of(optimizer).items()}
    optimizer.target.set_grads(numpy.zeros(3))
    optimizer.update()
    after = arrays_of(optimizer)
    numpy.testing.assert_array_equal(after["/p0/delta"], before["/p0/delta"] * 0.9)
    numpy.testing.assert_array_equal(after["/p0"], before["/p0"] + after["/p0/delta"])
    numpy.testing.assert_array_equal(after["/p0/n"], before["/p0/n"] * 0.95)
    numpy.testing.assert_array_equal(after["/p0/g"], before["/p0/g"] * 0.95)


# How far each dtype may be from plain Python floats after 100 steps. An error made in n or g stays for
# 1 / (1 - alpha) = 20 steps, and n - g^2 loses a few bits: some hundred roundings of half an ulp.
REFERENCE_TOLERANCE = {"f4": 300 * numpy.finfo("f4").eps, "f8": 300 * numpy.finfo("f8").eps}

# Settings in which others test their implementations of the same rule.
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
    """The parameter and every state entry, element by element."""
    rng = numpy.random.RandomState(313)
    start = rng.standard_normal(20).astype(dtype)
    gradients = rng.standard_normal((100, 20)).astype(dtype)
    actual = arrays_of(train(RMSpropGraves, start, gradients, **hyperparameters))
    elements = [reference.run(float(w), map(float, x), **hyperparameters) for w, x in zip(start, gradients.T)]
    tolerance = REFERENCE_TOLERANCE[dtype]
    for name, expected in zip(("/p0", "/p0/n", "/p0/g", "/p0/delta"), zip(*elements)):
        scale = numpy.abs(expected).max()
        numpy.testing.assert_allclose(actual[name], expected, tolerance, tolerance * scale, err_msg=name)


def test_the_golden_values_of_keras_are_met():
    """Keras's own test of centered RMSprop: ten parameters of 1, a small gradient, then 0.1 to 1.0 four times."""
    gradients = [numpy.full(10, 0.01)] + [numpy.arange(1, 11) / 10] * 4
    for steps, golden in enumerate([0.9967, 0.9933, 0.9908, 0.9885, 0.9864], start=1):
        optimizer = train(RMSpropGraves, numpy.ones(10), gradients[:steps], lr=1e-3, alpha=0.9, momentum=0.0, eps=1e-7)
        # They are given to four decimals, for gradients that differ in the fourth.
        numpy.testing.assert_allclose(optimizer.target.p0.array, golden, rtol=0, atol=2e-4)


def test_optax_steps_the_same_rule():
    """optax.rmsprop with eps inside the root, from zeros, in float32: the parameter and all three states."""
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
    optimizer = train(RMSpropGraves, start, gradients, lr=1e-2, alpha=0.9, momentum=0.8, eps=1e-4)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    states = {str(path[-1]).strip("."): leaf for path, leaf in leaves}
    expected = {"/p0": param, "/p0/g": states["mu"], "/p0/n": states["nu"], "/p0/delta": states["trace"]}
    for name, array in arrays_of(optimizer).items():
        # 50 steps of a few roundings each, where n - g^2 has lost some bits.
        numpy.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


# Chainer's bits

HYPERPARAMETERS = st.fixed_dictionaries(
    {
        "lr": st.floats(-1, 1),
        # Up to what Chainer's own suite sets: each default plus 0.1.
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
    """Parameter and states, over shapes, hyperparameters, hooks, epochs and cleared gradients.

    Chainer computes float32 arrays of no dimensions in float64, so they are left out.
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


def test_the_property_above_leaves_out_few_elements():
    """The variance of varied gradients is seldom negative: 1000 of 1000 elements are compared here."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((50, 1000)).astype("f4")
    optimizers = [train(cls, numpy.zeros(1000, "f4"), gradients) for cls in (RMSpropGraves, ChainerRMSpropGraves)]
    assert_same_bits(*map(arrays_of, optimizers))


def test_numpy_scalars_as_hyperparameters_give_the_bits_of_python_floats():
    """A float64 scalar makes no float64 temporaries of float32 arrays, whatever the NumPy."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((10, 100)).astype("f4")
    plain = {"lr": 1e-3, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
    expected = arrays_of(train(RMSpropGraves, numpy.zeros(100, "f4"), gradients, **plain))
    for convert in (numpy.float64, numpy.array):
        given_as = {name: convert(value) for name, value in plain.items()}
        assert_same_bits(arrays_of(train(RMSpropGraves, numpy.zeros(100, "f4"), gradients, **given_as)), expected)


# Never NaN


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt:RuntimeWarning")
def test_steady_gradients_turn_chainer_to_nan_and_leave_this_finite():
    """At default settings, in float32, with gradients of about 10: near step 260 n - g^2 + eps falls below zero."""
    gradient = numpy.random.RandomState(0).uniform(5, 10, 4096).astype("f4")
    gradients = [gradient] * 300
    chainers = train(ChainerRMSpropGraves, numpy.zeros(4096, "f4"), gradients)
    ours = train(RMSpropGraves, numpy.zeros(4096, "f4"), gradients)
    is_nan = numpy.isnan(chainers.target.p0.array)
    assert is_nan.any()
    for array in arrays_of(ours).values():
        assert numpy.isfinite(array).all()
    # n and g, which the clamp does not touch, are still Chainer's.
    for name in ("n", "g"):
        assert_same_bits(*({name: o.target.p0.update_rule.state[name]} for o in (ours, chainers)))
    # An element takes steps of lr x / sqrt(eps), ten times that with the momentum: 10 at the most. None ran away.
    assert numpy.abs(ours.target.p0.array).max() < 300 * 1e-4 * 10 / 1e-2 / (1 - 0.9)


@settings(max_examples=60)
@given(
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    exponent=st.floats(-1, 1),
    pattern=st.sampled_from(["steady", "alternating", "bursts", "shrinking"]),
    alpha=st.floats(0, 1),
    momentum=st.floats(0, 0.99),
    eps=st.sampled_from([1e-7, 1e-4, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_finite_gradients_never_give_a_nan(dtype, exponent, pattern, alpha, momentum, eps, seed):
    """Of any magnitude whose square the dtype can hold, from denormals on, in any order."""
    limits = numpy.finfo(dtype)
    # The magnitude is spread evenly over the logarithms from the smallest normal's root to the largest's.
    magnitude = float(limits.max) ** (exponent / 2.01)
    rng = numpy.random.RandomState(seed)
    base = magnitude * rng.uniform(0.5, 1, 64)
    factor = {
        "steady": lambda t: 1.0,
        "alternating": lambda t: (-1.0) ** t,
        "bursts": lambda t: 1.0 if t % 17 < 3 else 0.0,
        "shrinking": lambda t: 0.8**t,
    }[pattern]
    gradients = [(base * factor(t)).astype(dtype) for t in range(150)]
    with numpy.errstate(under="ignore"):
        optimizer = train(
            RMSpropGraves, numpy.zeros(64, dtype), gradients, lr=1e-4, alpha=alpha, momentum=momentum, eps=eps
        )
    for name, array in arrays_of(optimizer).items():
        assert numpy.isfinite(array).all(), name


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf])
def test_a_gradient_that_is_not_finite_shows_where_it_does_in_chainer(bad):
    """The same elements are NaN, and every other bit is the same, for steps to come."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((6, 30)).astype("f4")
    gradients[2, 7] = bad
    optimizers = [train(cls, numpy.zeros(30, "f4"), gradients) for cls in (RMSpropGraves, ChainerRMSpropGraves)]
    assert_same_bits(*map(arrays_of, optimizers))
    numpy.testing.assert_array_equal(numpy.flatnonzero(numpy.isnan(optimizers[0].target.p0.array)), [7])


# float16


def test_float16_training_stays_close_to_float64():
    """Stored in halves: the error is that of storing, a few thousandths of the range, not of computing."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((100, 200)).astype("f2")
    hyperparameters = {"lr": 1e-2, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
    results = {
        dtype: train(RMSpropGraves, numpy.zeros(200, dtype), gradients.astype(dtype), **hyperparameters)
        for dtype in ("f2", "f8")
    }
    error = numpy.abs(results["f2"].target.p0.array.astype("f8") - results["f8"].target.p0.array).max()
    # Parameters reach 2, where an ulp is 2^-9 and a store is off by half of it: a random walk of 100 of them.
    assert 0 < error < 100**0.5 * 2**-9


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_float16_squares_that_overflow_stop_the_element_and_fp32_update_goes_on():
    """n becomes infinite and further steps zero, not NaN; use_fp32_update is the answer."""
    gradients = [numpy.full(4, 2000, "f2")] * 4
    plain = train(RMSpropGraves, numpy.zeros(4, "f2"), gradients, momentum=0.0)
    assert numpy.isinf(plain.target.p0.update_rule.state["n"]).all()
    numpy.testing.assert_array_equal(plain.target.p0.update_rule.state["delta"], numpy.zeros(4, "f2"))

    optimizer = RMSpropGraves(momentum=0.0).setup(Arrays(numpy.zeros(4, "f2")))
    optimizer.use_fp32_update()
    for gradient in gradients:
        optimizer.target.set_grads(gradient)
        optimizer.update()
    numpy.testing.assert_array_equal(optimizer.target.p0.update_rule.state["n"] > 65504, True)
    assert (optimizer.target.p0.update_rule.state["delta"] < 0).all()
