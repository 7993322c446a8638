"""Checkpoints that are saved or loaded while a parameter is not initialized."""

from __future__ import annotations

import chainer
import numpy
import pytest
from chainer import functions as F
from chainer import links as L
from checkpoint.training import copy_params, entries_of
from models import arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves


def call(optimizer, layer, size):
    """Update with the loss of one layer, which initializes it."""
    x = numpy.ones((1, size), chainer.config.dtype)
    optimizer.update(lambda: F.sum(getattr(optimizer.target, layer)(x)))
    return optimizer


def partly_initialized():
    """Make a model of two layers, one of which has been called and updated once."""
    model = chainer.Chain()
    with model.init_scope():
        model.called = L.Linear(2, 2)
        model.other = L.Linear(None, 2)
    return call(RMSpropGraves().setup(model), "called", 2)


def test_the_states_of_a_parameter_that_is_not_initialized_may_be_missing(load_entries):
    """The rule of such a parameter still counts updates."""
    entries = entries_of(partly_initialized())
    assert "other/W/n" not in entries
    entries["other/W/t"] = numpy.array(7)
    optimizer = partly_initialized()
    load_entries(entries, optimizer)
    rule = optimizer.target.other.W.update_rule
    assert (rule.t, rule.state) == (7, None)


def test_states_loaded_before_the_parameter_is_initialized_are_kept_for_it(load_entries):
    """The states stay bit-identical, and training starts from them."""
    saved = call(partly_initialized(), "other", 5)
    optimizer = partly_initialized()
    load_entries(entries_of(saved), optimizer)
    optimizer.target.other(numpy.ones((1, 5), "f4"))
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    assert_same_bits(arrays_of(call(optimizer, "other", 5)), arrays_of(call(saved, "other", 5)))


def test_states_loaded_before_the_parameter_is_initialized_must_have_one_shape(load_entries):
    """The parameter's shape is not known yet."""
    entries = entries_of(call(partly_initialized(), "other", 5))
    entries["other/W/g"] = numpy.ones((3, 3), "f4")
    with pytest.raises(ValueError, match=r"/other/W: found n of shape \(2, 5\), g of shape \(3, 3\)"):
        load_entries(entries, partly_initialized())


def test_states_loaded_before_the_parameter_is_initialized_are_native(load_entries):
    """A GPU supports no other byte order."""
    entries = entries_of(call(partly_initialized(), "other", 5))
    optimizer = partly_initialized()
    load_entries({**entries, "other/W/n": entries["other/W/n"].astype(">f4")}, optimizer)
    state = optimizer.target.other.W.update_rule.state["n"]
    assert state.dtype.isnative
    assert numpy.array_equal(state, entries["other/W/n"])


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("use_fp32_update", [False, True])
def test_states_loaded_before_the_parameter_is_initialized_get_its_dtype(load_entries, dtype, use_fp32_update):
    """The next update converts them. Until then the dtype is not final, because an initializer can change it."""
    ends = []
    for saved_as in ("f4", "f8"):
        numpy.random.seed(0)  # the layers' weights
        with chainer.using_config("dtype", numpy.dtype(dtype)):
            saved, optimizer = partly_initialized(), partly_initialized()
            entries = {
                key: value.astype(saved_as) if value.dtype.kind == "f" else value
                for key, value in entries_of(call(saved, "other", 5)).items()
            }
            if use_fp32_update:
                optimizer.use_fp32_update()
            load_entries(entries, optimizer)
            call(optimizer, "other", 5)
        ends.append(arrays_of(optimizer))
    expected = {"/other/W": numpy.dtype(dtype)}
    state = numpy.dtype("f4" if use_fp32_update else dtype)
    expected.update((f"/other/W/{name}", state) for name in ("n", "g", "delta"))
    assert {path: array.dtype for path, array in ends[0].items() if path.startswith("/other/W")} == expected
    assert_same_bits(*ends)


def test_an_update_before_the_parameter_is_initialized_leaves_what_was_loaded_for_it(load_entries):
    """The update keeps the float32 states and the float32 master. Without them the float16 bits would differ."""
    ends = []
    with chainer.using_config("dtype", numpy.dtype("f2")):
        saved, *optimizers = (partly_initialized() for _ in range(3))
        for optimizer in (saved, *optimizers):
            optimizer.use_fp32_update()
        for _ in range(3):
            call(saved, "other", 5)
        for optimizer, is_updated in zip(optimizers, (True, False)):
            load_entries(entries_of(saved), optimizer)
            if is_updated:
                call(optimizer, "called", 2)
            optimizer.target.other(numpy.ones((1, 5), "f2"))
            copy_params(saved, optimizer)
            call(optimizer, "other", 5)
            entries = entries_of(optimizer)
            ends.append({key: entries[f"other/W/{key}"] for key in ("n", "g", "delta", "fp32_param")})
    assert_same_bits(*ends)
