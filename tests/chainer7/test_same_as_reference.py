"""Chainer gives the results that `chainer7.probes` recorded on Python 3.8 with NumPy 1.22."""

from __future__ import annotations

import importlib.util

import chainer
import numpy
import pytest
from chainer7.probes import names, record, runner
from chainer7.probes.bounds import ARITHMETIC, SUMS, Bound, bound_of
from chainer7.probes.inputs import FLOATS, FORMS, INTEGERS, h, normal
from skips import not_installed

ABOUT, RECORDED = record.read()
PROBES = names.probes()

pytestmark = pytest.mark.skipif(
    chainer.__version__ != record.CHAINER, reason=f"the record is of Chainer {record.CHAINER}"
)


def outcomes_of(name):
    """Returns the outcomes of a name's probes in this environment."""
    package = names.NEEDS.get(name)
    if package and not importlib.util.find_spec(package):
        pytest.skip(not_installed(package))
    return runner.outcomes_of(*PROBES[name])


@pytest.mark.parametrize("name", sorted(PROBES))
def test_results_are_those_of_the_record(name):
    """Dtypes, shapes and exceptions are the same, values within a few units in the last place; no warning is new."""
    outcomes = outcomes_of(name)
    assert outcomes.keys() == RECORDED[name].keys()
    found = [
        f"{call}: {difference}"
        for call, outcome in outcomes.items()
        for difference in record.differences(outcome, RECORDED[name][call], bound_of(name, call.split()[-1]))
    ]
    assert not found, f"{len(found)} differences, of which the first are:\n" + "\n".join(found[:20])


def test_every_public_name_has_probes_or_a_reason():
    """This test fails for a new or renamed public name until it gets probes, or a reason to have none."""
    public = set(names.public_names())
    assert public - PROBES.keys() == names.LEFT_OUT.keys()
    assert PROBES.keys() <= public
    assert PROBES.keys() == RECORDED.keys()


def test_the_public_names_are_those_of_the_reference():
    """No name is new or missing."""
    assert names.public_names() == ABOUT["names"]


def test_every_name_has_a_recorded_result():
    """If all probes of a name raise, no result is compared. Only the names in RAISING may raise in every call."""
    silent = [
        name
        for name, calls in RECORDED.items()
        if all(outcome.keys() & {"raises", "backward raises"} for outcome in calls.values())
    ]
    assert sorted(silent) == sorted(names.RAISING)


def test_every_kind_of_input_has_been_compared():
    """For each dtype and each form of numbers some call succeeded, and some call has second derivatives."""
    worked = {
        call.split()[1:][i]
        for calls in RECORDED.values()
        for call, o in calls.items()
        if "raises" not in o
        for i in (0, 1)
    }
    assert worked == {*FLOATS, *INTEGERS, *FORMS}
    labels = {label.split(" of ")[0] for calls in RECORDED.values() for outcome in calls.values() for label in outcome}
    assert {"gradient", "second gradient"} <= labels


NUMBERS = numpy.array([1, 100, -3], "f4")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (numpy.nextafter(numpy.nextafter(NUMBERS, 200), 200), "2 times the bound"),
        (NUMBERS.astype("f8"), "float64 (3,)"),
        (NUMBERS.reshape(3, 1), "float32 (3, 1)"),
        (NUMBERS * numpy.array([1, 1, numpy.nan], "f4"), "inf times the bound"),
        (NUMBERS[0], "float32 ()"),
        (None, "None, not float32"),
    ],
)
def test_a_result_that_changed_is_found(changed, said):
    """Cases: one unit beyond the bound, another dtype, another shape, another kind of object, and NaN."""
    recorded = {"": NUMBERS}
    assert not list(record.differences({"": numpy.nextafter(NUMBERS, 200)}, recorded, ARITHMETIC))
    (difference,) = record.differences(
        {"": changed if changed is None else numpy.array(changed)}, recorded, ARITHMETIC
    )
    assert said in difference


def test_a_missing_value_a_new_value_and_a_new_warning_are_found():
    """A warning that is no longer given does not count as a difference."""
    recorded = {"x": NUMBERS, "warns FutureWarning: then": None}
    found = list(record.differences({"raises": "TypeError", "warns FutureWarning: now": None}, recorded, ARITHMETIC))
    assert [difference.split(":")[0] for difference in found] == ["raises", "warns FutureWarning", "x"]
    assert not list(record.differences({"x": NUMBERS}, recorded, ARITHMETIC))


def test_an_exception_of_another_type_is_found():
    """NumPy renamed its exceptions, so the comparison uses the first base class that Python defines."""
    (difference,) = record.differences({"raises": "OverflowError"}, {"raises": "InvalidType"}, ARITHMETIC)
    assert difference == "raises: 'OverflowError', not 'InvalidType'"
    outcome = runner.run(lambda: numpy.zeros(2).sum(axis=3), "float32", "python")
    assert outcome == {"raises": "ValueError"}


def test_sums_are_compared_in_units_of_the_largest_element():
    """A sum is compared in units of the array's largest element, any other result in units of the element itself."""
    other = NUMBERS.copy()
    other[0] += 20 * numpy.spacing(NUMBERS[1])
    assert record.parts_of(SUMS, other, NUMBERS).max() < 1
    assert record.parts_of(Bound(1000), other, NUMBERS).max() > 1


def test_a_float16_may_differ_by_a_few_units_only():
    """A bound of hundreds of float16 units would accept almost any number."""
    half = NUMBERS.astype("f2")
    other = half.copy()
    other[1] += 8 * numpy.spacing(half[1])
    assert record.parts_of(Bound(8, 256), other, half).max() > 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_narrow_scalar_is_found(dtype):
    """A NumPy scalar widens the result on NumPy 2; on NumPy 1 the result keeps the array's dtype."""
    then = runner.run(lambda x=normal[2, 3], h=h: x * float(h(0.75)), dtype, "float64")
    now = runner.run(lambda x=normal[2, 3], h=h: chainer.Variable(x.array * numpy.array([h(0.75)])), dtype, "float64")
    assert bool(list(record.differences({"": now[""]}, {"": then[""]}, ARITHMETIC))) == (dtype != "float64")


def test_the_record_round_trips(tmp_path):
    """Cases: every dtype, empty and zero-dimensional arrays, strings and None."""
    outcome = {dtype: numpy.arange(3).astype(dtype) for dtype in (*FLOATS, *INTEGERS, "bool", "complex64")}
    outcome.update({"empty": numpy.zeros((0, 2)), "scalar": numpy.array(2.5), "text": "text", "none": None})
    for name in ("once.npz", "again.npz"):
        record.write({"name": {"call": outcome, "same": outcome}}, {"about": 1}, tmp_path / name)
    about, outcomes = record.read(tmp_path / "once.npz")
    assert about == {"about": 1}
    for call in ("call", "same"):
        assert not list(record.differences(outcomes["name"][call], outcome, ARITHMETIC))
    assert (tmp_path / "once.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_the_record_is_not_made_on_another_stack(monkeypatch):
    """On any other stack the command says what is wrong, and writes nothing."""
    from chainer7.probes import __main__ as command

    monkeypatch.setattr(record, "write", lambda *_: pytest.fail("written"))
    with pytest.raises(SystemExit, match="rmsprop_graves is imported"):
        command.main()
