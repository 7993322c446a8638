"""Finite gradients never give NaN; a gradient that is not finite is not hidden."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Arrays, arrays_of, assert_same_bits, train, train_one

from rmsprop_graves import RMSpropGraves


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt:RuntimeWarning")
def test_steady_gradients_turn_chainers_class_to_nan_and_not_this_one():
    """With the defaults and float32 gradients of 5 to 10, rounding makes n - g^2 + eps negative near step 260."""
    gradient = numpy.random.RandomState(0).uniform(5, 10, 4096).astype("f4")
    gradients = [gradient] * 300
    chainers = train_one(ChainerRMSpropGraves, numpy.zeros(4096, "f4"), gradients)
    ours = train_one(RMSpropGraves, numpy.zeros(4096, "f4"), gradients)
    is_nan = numpy.isnan(chainers.target.p0.array)
    assert is_nan.any()
    for array in arrays_of(ours).values():
        assert numpy.isfinite(array).all()
    # n and g, which the clamp does not touch, are still Chainer's.
    for name in ("n", "g"):
        assert_same_bits(*({name: o.target.p0.update_rule.state[name]} for o in (ours, chainers)))
    # No element diverges: lr x / sqrt(eps) is at most 0.1, and with the momentum a step is at most ten times that.
    assert numpy.abs(ours.target.p0.array).max() < 300 * 1e-4 * 10 / 1e-2 / (1 - 0.9)


@settings(max_examples=100)
@given(
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    exponent=st.floats(-1, 1),
    pattern=st.sampled_from(["steady", "alternating", "bursts", "shrinking"]),
    lr=st.floats(-1, 1),
    alpha=st.floats(1e-3, 1, exclude_max=True),
    momentum=st.floats(1e-3, 1, exclude_max=True),
    eps=st.floats(-1, 0),
    seed=st.integers(0, 2**32 - 1),
)
def test_finite_gradients_never_give_nan(dtype, exponent, pattern, lr, alpha, momentum, eps, seed):
    """Gradients of any magnitude, in any order, for |lr| <= 1, decays below 1 and an eps that is a normal number.

    Numbers may overflow to infinity, above all in float16.
    """
    limits = numpy.finfo(dtype)
    rng = numpy.random.RandomState(seed)
    base = float(limits.max) ** exponent * rng.uniform(0.5, 1, 64)
    eps = float(limits.tiny) ** -eps  # from the smallest normal number of the dtype to 1, evenly in its logarithm
    factor = {
        "steady": lambda t: 1.0,
        "alternating": lambda t: (-1.0) ** t,
        "bursts": lambda t: 1.0 if t % 17 < 3 else 0.0,
        "shrinking": lambda t: 0.8**t,
    }[pattern]
    grads = [(base * factor(t)).astype(dtype) for t in range(150)]
    values = {"lr": lr, "alpha": alpha, "momentum": momentum, "eps": eps}
    with numpy.errstate(over="ignore", under="ignore"):
        optimizer = train_one(RMSpropGraves, numpy.zeros(64, dtype), grads, **values)
    for name, array in arrays_of(optimizer).items():
        assert not numpy.isnan(array).any(), name


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        # n is infinite after the first step, and alpha n would be NaN.
        pytest.param("f2", {"alpha": 0.0}, id="alpha float16"),
        pytest.param("f4", {"alpha": 0.0}, id="alpha float32"),
        pytest.param("f8", {"alpha": 0.0}, id="alpha float64"),
        # The variance is 0, so delta overflows in float16, and momentum times an infinite delta would be NaN.
        pytest.param("f2", {"alpha": 0.0, "momentum": 0.0, "lr": 1.0, "eps": 1e-7}, id="momentum float16"),
    ],
)
def test_a_decay_of_zero_gives_no_nan_after_an_overflow(dtype, values):
    """Infinity times zero is NaN, so a decay of zero must reset an infinite state."""
    size = 100.0 if "momentum" in values else float(numpy.finfo(dtype).max)
    grads = [numpy.full(4, size, dtype), numpy.ones(4, dtype), numpy.zeros(4, dtype)]
    with numpy.errstate(over="ignore"):
        optimizer = train_one(RMSpropGraves, numpy.zeros(4, dtype), grads, **values)
    for name, array in arrays_of(optimizer).items():
        assert not numpy.isnan(array).any(), name


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf])
def test_a_gradient_that_is_not_finite_shows_as_on_chainers_class(bad):
    """The same elements are NaN, and every other bit is the same, in later steps too."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((6, 30)).astype("f4")
    gradients[2, 7] = bad
    optimizers = [train_one(cls, numpy.zeros(30, "f4"), gradients) for cls in (RMSpropGraves, ChainerRMSpropGraves)]
    assert_same_bits(*map(arrays_of, optimizers))
    numpy.testing.assert_array_equal(numpy.flatnonzero(numpy.isnan(optimizers[0].target.p0.array)), [7])


def test_float16_training_stays_close_to_float64():
    """The step is computed in float32. Storing in float16 makes the error, a few thousandths of the range."""
    rng = numpy.random.RandomState(0)
    gradients = rng.standard_normal((100, 200)).astype("f2")
    hyperparameters = {"lr": 1e-2, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
    results = {
        dtype: train_one(RMSpropGraves, numpy.zeros(200, dtype), gradients.astype(dtype), **hyperparameters)
        for dtype in ("f2", "f8")
    }
    error = numpy.abs(results["f2"].target.p0.array.astype("f8") - results["f8"].target.p0.array).max()
    # Parameters reach 2, where an ulp is 2^-9. A store is off by up to half of it; 100 stores add up as a random walk.
    assert 0 < error < 100**0.5 * 2**-9


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_float16_square_that_overflows_stops_its_element_unless_fp32_update_is_used():
    """n becomes infinite, and further steps are zero, not NaN."""
    gradients = [numpy.full(4, 2000, "f2")] * 4
    plain = train_one(RMSpropGraves, numpy.zeros(4, "f2"), gradients, momentum=0.0)
    assert numpy.isinf(plain.target.p0.update_rule.state["n"]).all()
    numpy.testing.assert_array_equal(plain.target.p0.update_rule.state["delta"], numpy.zeros(4, "f2"))

    optimizer = RMSpropGraves(momentum=0.0).setup(Arrays(numpy.zeros(4, "f2")))
    optimizer.use_fp32_update()
    state = train(optimizer, [[gradient] for gradient in gradients]).target.p0.update_rule.state
    assert (state["n"] > numpy.finfo("f2").max).all()
    assert numpy.isfinite(state["n"]).all()
    assert (state["delta"] < 0).all()
