"""A checkpoint with a wrong or missing entry is refused, and nothing of it is loaded."""

from __future__ import annotations

import numpy
import pytest
from checkpoint.training import (
    STATES,
    entries_of,
    everything_of,
    fresh,
    mastered,
    replaced,
    set_to,
    train,
    without,
)
from models import arrays_of, assert_same_bits

NAN = float("nan")
DAMAGES = {
    "t missing": (without("t"), KeyError, "t: it is not in the checkpoint"),
    "epoch missing": (without("epoch"), KeyError, "epoch: it is not in the checkpoint"),
    "t of a rule missing": (without("p1/t"), KeyError, "/p1/t: it is not in the checkpoint"),
    "n missing": (without("p1/n"), KeyError, "/p1/n: it is not in the checkpoint"),
    "g missing": (without("p1/g"), KeyError, "/p1/g: it is not in the checkpoint"),
    "delta of the last parameter missing": (without("p2/delta"), KeyError, "/p2/delta: it is not in the checkpoint"),
    "None as n": (replaced("p1/n", None), KeyError, "/p1/n: it is not in the checkpoint"),
    "all states missing": (without("p1/n", "p1/g", "p1/delta"), KeyError, "/p1/n: it is not in the checkpoint"),
    "all entries of a parameter missing": (
        without("p1/t", "p1/n", "p1/g", "p1/delta"),
        KeyError,
        "/p1/t: it is not in the checkpoint",
    ),
    "negative t": (replaced("t", numpy.array(-1)), ValueError, r"t: found -1, expected an integer >= 0"),
    "fractional t": (replaced("t", numpy.array(1.5)), ValueError, r"t: found 1\.5, expected an integer >= 0"),
    "NaN as t": (replaced("t", numpy.array(NAN)), ValueError, r"t: found nan, expected an integer >= 0"),
    "vector as t": (replaced("t", numpy.array([3])), ValueError, r"t: found an array of shape \(1,\) and dtype int64"),
    "boolean t": (replaced("t", numpy.array(True)), ValueError, "t: found True, expected an integer >= 0"),
    "negative t of a rule": (replaced("p0/t", numpy.array(-3)), ValueError, "/p0/t: found -3"),
    "t that cannot grow": (
        replaced("t", numpy.array(2**63 - 1)),
        ValueError,
        "t: found 9223372036854775807, expected an integer <= 9223372036854775806",
    ),
    "unsigned t of a rule that cannot grow": (
        replaced("p1/t", numpy.array(2**64 - 1, "u8")),
        ValueError,
        "/p1/t: found 18446744073709551615, expected an integer <= 9223372036854775806",
    ),
    "epoch that cannot grow": (
        replaced("epoch", numpy.array(2**63 - 1)),
        ValueError,
        "epoch: found 9223372036854775807",
    ),
    "negative epoch": (replaced("epoch", numpy.array(-1)), ValueError, "epoch: found -1"),
    "n of another shape": (
        replaced("p1/n", numpy.ones(5, "f4")),
        ValueError,
        r"/p1/n: found shape \(5,\), expected \(4,\)",
    ),
    "g of a shape that broadcasts": (
        replaced("p0/g", numpy.ones(3, "f4")),
        ValueError,
        r"/p0/g: found shape \(3,\), expected \(2, 3\)",
    ),
    "scalar as delta": (
        replaced("p0/delta", numpy.array(1, "f4")),
        ValueError,
        r"/p0/delta: found shape \(\), expected \(2, 3\)",
    ),
    "vector of one element as n of a scalar": (
        replaced("p2/n", numpy.ones(1, "f4")),
        ValueError,
        r"/p2/n: found shape \(1,\), expected \(\)",
    ),
    "transposed n": (replaced("p0/n", numpy.transpose), ValueError, r"/p0/n: found shape \(3, 2\), expected \(2, 3\)"),
    "empty n": (replaced("p1/n", numpy.ones(0, "f4")), ValueError, r"/p1/n: found shape \(0,\), expected \(4,\)"),
    "all states of another shape": (
        lambda entries: entries.update((f"p1/{name}", numpy.ones(7, "f4")) for name in STATES),
        ValueError,
        r"/p1/n: found shape \(7,\), expected \(4,\)",
    ),
    "integers as n": (
        replaced("p1/n", numpy.ones(4, "i8")),
        ValueError,
        r"/p1/n: found an array of shape \(4,\) and dtype int64, expected real floating-point numbers",
    ),
    "booleans as n": (replaced("p1/n", numpy.ones(4, "?")), ValueError, "and dtype bool, expected real floating"),
    "complex g": (replaced("p1/g", numpy.ones(4, "c8")), ValueError, "and dtype complex64, expected real floating"),
    "bytes as g": (replaced("p1/g", numpy.full(4, b"1.5")), ValueError, r"dtype \|S3, expected real floating"),
    "NaN in n": (set_to("p0/n", (1, 2), NAN), ValueError, "/p0/n: found NaN, expected numbers"),
    "NaN in g": (set_to("p1/g", 0, NAN), ValueError, "/p1/g: found NaN, expected numbers"),
    "NaN in delta": (set_to("p2/delta", (), NAN), ValueError, "/p2/delta: found NaN, expected numbers"),
    "infinity in g": (set_to("p1/g", 0, float("inf")), ValueError, "/p1/g: found inf, expected finite numbers"),
    "minus infinity in delta": (
        set_to("p1/delta", 3, -float("inf")),
        ValueError,
        "/p1/delta: found -inf, expected finite",
    ),
    "minus infinity in n": (set_to("p0/n", (0, 0), -float("inf")), ValueError, "/p0/n: found -inf, expected finite"),
    "n too large for the dtype": (
        replaced("p1/n", numpy.array([1, 2, 1e300, 3])),
        ValueError,
        r"/p1/n: found 1e\+300, expected a number that fits into float32",
    ),
    "delta too large for the dtype": (
        replaced("p1/delta", numpy.array([1, 2, 1e300, 3])),
        ValueError,
        r"/p1/delta: found 1e\+300, expected a number that fits into float32",
    ),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(load_entries, updates, damage, error, message):
    """The error names the entry, the value found and the value expected. Training goes on as if nothing was loaded."""
    entries = entries_of(train(fresh(), 1, 2, 3))
    damage(entries)
    optimizer, untouched = (train(fresh(), *range(4, 4 + updates)) for _ in range(2))
    before = everything_of(optimizer)
    with pytest.raises(error, match=message):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before
    assert_same_bits(arrays_of(train(optimizer, 8, 9)), arrays_of(train(untouched, 8, 9)))


@pytest.mark.parametrize("missing", [("n",), ("g", "delta")])
def test_states_of_a_rule_that_was_never_updated_are_all_there_or_all_missing(load_entries, updates, missing):
    """If t is 0, all states may be missing, but not only some."""
    entries = {**entries_of(train(fresh(), 1, 2, 3)), "p1/t": numpy.array(0)}
    without(*(f"p1/{name}" for name in missing))(entries)
    optimizer = train(fresh(), *range(4, 4 + updates))
    before = everything_of(optimizer)
    with pytest.raises(KeyError, match=f"/p1/{missing[0]}: it is not in the checkpoint"):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replaced("p0/fp32_param", numpy.ones(2, "f4")), r"/p0/fp32_param: found shape \(2,\), expected \(2, 3\)"),
        (replaced("p1/fp32_param", numpy.ones(4, "i4")), r"/p1/fp32_param: .* int32, expected real floating-point"),
    ],
    ids=["shape", "dtype"],
)
def test_a_damaged_master_is_refused_and_changes_nothing(load_entries, updates, damage, message):
    """The existing masters stay too."""
    entries = entries_of(train(mastered(), 1))
    damage(entries)
    optimizer = train(mastered(), *range(4, 4 + updates))
    before = everything_of(optimizer)
    with pytest.raises(ValueError, match=message):
        load_entries(entries, optimizer)
    assert everything_of(optimizer) == before
