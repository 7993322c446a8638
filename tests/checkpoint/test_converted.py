"""States are converted to the parameter's dtype, layout and device when they are loaded."""

from __future__ import annotations

import numpy
import pytest
from checkpoint.training import copy_params, entries_of, fresh, load_from_dict, states_of, train
from models import arrays_of, assert_same_bits


def every(convert, *dtypes):
    """Return a change that converts all entries of these dtypes."""

    def change(entries):
        entries.update((key, convert(value)) for key, value in entries.items() if value.dtype in dtypes)

    return change


FORMS = {
    "as saved": lambda entries: None,
    "float64": every(lambda value: value.astype("f8"), "f4"),
    "big-endian": every(lambda value: value.astype(">f4"), "f4"),
    "Fortran order": every(lambda value: numpy.asarray(value, order="F"), "f4"),
    "float64 in Fortran order": every(lambda value: numpy.asarray(value, "f8", order="F"), "f4"),
    "t of 8 bits": every(lambda value: value.astype("u1"), "i4", "i8"),
    "more entries": lambda entries: entries.update({"unknown": numpy.ones(3), "p1/more": numpy.ones(2)}),
}


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS)
def test_a_checkpoint_in_another_form_loads_the_same_bits(load_entries, updates, change):
    """The entries may have any width, byte order, memory layout and integer type."""
    saved = train(fresh(), 1, 2, 3)
    entries = entries_of(saved)
    change(entries)
    optimizer = train(fresh(), *range(4, 4 + updates))
    before = states_of(optimizer)
    load_entries(entries, optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))
    assert (optimizer.t, [param.update_rule.t for param in optimizer.target.params()]) == (3, [3, 3, 3])
    # Loading must write in place, because other code may refer to the arrays.
    assert all(states_of(optimizer)[path] is array for path, array in before.items())
    assert all(array.dtype.isnative and array.flags.c_contiguous for array in states_of(optimizer).values())
    assert_same_bits(arrays_of(train(optimizer, 5, 6)), arrays_of(train(saved, 5, 6)))


@pytest.mark.parametrize("place", [1, ...], ids=["one element", "all elements"])
def test_an_infinite_n_is_loaded(load_entries, place):
    """A float16 gradient above 256 makes n infinite, and training goes on.

    An n with only infinite elements was refused, because the check for -inf took its minimum for -inf.
    """
    saved = train(fresh("f2"), 1, 2)
    saved.target.p1.update_rule.state["n"][place] = numpy.inf
    optimizer = fresh("f2")
    load_entries(entries_of(saved), optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(optimizer), arrays_of(saved))


def test_a_wide_n_may_overflow_in_float16_but_g_may_not(load_entries):
    """n can overflow in training too. g and delta cannot, so a file with such values is damaged."""
    entries = entries_of(train(fresh("f4"), 1, 2))
    entries["p1/n"] = numpy.array([1e6, 1, 1, 1], "f4")
    optimizer = fresh("f2")
    load_entries(entries, optimizer)
    with numpy.errstate(over="ignore"):
        train(optimizer, 3)
    assert numpy.isinf(optimizer.target.p1.update_rule.state["n"][0])
    for name in ("g", "delta"):
        broken = {**entries, f"p1/{name}": numpy.array([1e6, 1, 1, 1], "f4")}
        with pytest.raises(
            ValueError, match=rf"/p1/{name}: found 1000000\.0, expected a number that fits into float16"
        ):
            load_entries(broken, fresh("f2"))


def test_a_read_only_state_is_replaced():
    """Loading cannot write into the existing array."""
    saved, optimizer = train(fresh(), 1, 2), train(fresh(), 3)
    for array in states_of(optimizer).values():
        array.flags.writeable = False
    load_from_dict(entries_of(saved), optimizer)
    copy_params(saved, optimizer)
    assert_same_bits(arrays_of(train(optimizer, 4)), arrays_of(train(saved, 4)))
