"""The comparison of `make clients`: it finds every difference, and says which clients it could not run."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace

import chainer
import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves

from clients import comparison
from clients.chainer_examples import ptb_lstm
from clients.comparison import Client, end_of, first_difference
from rmsprop_graves import RMSpropGraves, kernels

UPDATES = 12
SETTINGS = {"lr": 1e-3, "alpha": 0.9}
train_lstm = functools.partial(ptb_lstm, updates=UPDATES, units=8)


@pytest.fixture(autouse=True)
def _numpy_alone(monkeypatch):
    """Compare with the NumPy kernel alone, even if Numba is installed, and restore the selected kernel afterwards."""
    before = kernels.on_cpu()
    monkeypatch.setattr(comparison, "KERNELS", ("numpy",))
    yield
    kernels.use_on_cpu(before.__name__.rpartition(".")[2])


@pytest.fixture
def run_clients(monkeypatch, capsys):
    """Return a function that compares clients. It returns the exit status, the rows of the table, and the errors."""

    def run(**functions):
        monkeypatch.setitem(sys.modules, "a_client", SimpleNamespace(**functions))
        status = comparison.main([Client(name, "a_client", name, SETTINGS) for name in functions])
        output, errors = capsys.readouterr()
        return status, output.splitlines()[2:], errors

    return run


@pytest.fixture(scope="module")
def expected():
    """The result of training with Chainer's class."""
    return end_of(train_lstm, ChainerRMSpropGraves(**SETTINGS))


def test_both_classes_end_with_the_same_bits(monkeypatch, expected):
    """The first update makes the states, one parameter at a time. Later updates step all parameters in one batch."""
    alone = []
    update = chainer.Parameter.update
    monkeypatch.setattr(chainer.Parameter, "update", lambda param: alone.append(param) or update(param))
    end = end_of(train_lstm, RMSpropGraves(**SETTINGS))
    assert first_difference(end, expected) is None
    assert len(alone) == 9
    assert len(end) == 9 * 5 + 1
    for name, array in end.items():
        assert array.all() if name.endswith("/t") else array.any(), name
    assert end["t"] == UPDATES


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
def test_a_setting_that_differs_by_a_millionth_is_found(expected, name):
    """The setting may be any of the four hyperparameters."""
    optimizer = RMSpropGraves(**SETTINGS)
    setattr(optimizer, name, getattr(optimizer, name) * (1 + 1e-6))
    assert " differs in " in first_difference(end_of(train_lstm, optimizer), expected)


@pytest.mark.parametrize("state", ["", "/n", "/g", "/delta"])
def test_a_single_bit_is_found(expected, state):
    """The bit may be in a parameter or in any of its states."""
    entry = f"/predictor/l3/b{state}"
    other = {name: array.copy() for name, array in expected.items()}
    other[entry].view("u4")[3] ^= 1
    assert first_difference(other, expected) == f"{entry} differs in 1 of {other[entry].size} elements"


def test_counters_are_compared(expected):
    """Every rule and the optimizer have a counter t."""
    for entry in ("/predictor/l3/b/t", "t"):
        other = {**expected, entry: expected[entry] + 1}
        assert first_difference(other, expected) == f"{entry} differs in 1 of 1 elements"


def test_missing_entries_dtypes_shapes_and_signs_of_zero_are_compared():
    """Arrays of different names, dtypes or shapes can have equal bytes."""
    zero = numpy.zeros(2, "f")
    assert first_difference({"a": zero}, {"b": zero}) == "only one of them has a, b"
    assert first_difference({"a": zero.astype("i")}, {"a": zero}) == "a is int32 (2,), not float32 (2,)"
    assert first_difference({"a": zero.reshape(2, 1)}, {"a": zero}) == "a is float32 (2, 1), not float32 (2,)"
    assert first_difference({"a": -zero}, {"a": zero}) == "a differs in 2 of 2 elements"


def test_a_client_with_the_same_bits_passes(run_clients):
    """The client's row says how much was compared."""

    def train_linear(optimizer):
        optimizer.setup(chainer.links.Linear(3, 500))
        for _ in range(2):
            optimizer.update(lambda x: chainer.functions.sum(optimizer.target(x) ** 2), numpy.ones((1, 3), "f"))
        return optimizer

    status, rows, errors = run_clients(linear=train_linear)
    assert (status, errors) == (0, "")
    assert [row.split() for row in rows] == [["linear", "2", "2,000", "2", "same", "bits"]]


def test_a_client_that_differs_fails_and_the_others_are_run(run_clients):
    """The rows below the client's row say where it differs, and how often Chainer's class had a negative variance."""

    def differ(optimizer):
        optimizer.lr *= 1 if isinstance(optimizer, ChainerRMSpropGraves) else 1 + 1e-6
        return train_lstm(optimizer)

    status, rows, _ = run_clients(differ=differ, client=train_lstm)
    assert status == 1
    assert rows[0].split()[-1] == "differs"
    assert rows[1].startswith("    numpy: /predictor/embed/W differs in ")
    assert rows[2:-1] == ["    Chainer's n - g^2 was negative 0 times"]
    assert rows[-1].endswith("same bits")


def test_a_negative_variance_is_counted(run_clients):
    """A negative n - g^2 is the one deliberate difference from Chainer's class."""

    def train_steadily(optimizer):
        optimizer.setup(chainer.links.Linear(1, 100))
        for _ in range(300):
            for param in optimizer.target.params():
                param.grad = numpy.linspace(5, 10, 100).reshape(param.shape).astype("f")
            optimizer.update()
        return optimizer

    with numpy.errstate(invalid="ignore"):
        status, rows, _ = run_clients(steady=train_steadily)
    assert status == 1
    assert int(rows[-1].split()[-2]) > 0


def test_a_client_that_does_not_repeat_itself_fails(run_clients):
    """A client whose results vary from run to run cannot be compared."""
    runs = []

    def never_the_same(optimizer):
        runs.append(None)
        optimizer.lr *= len(runs)
        return train_lstm(optimizer)

    status, rows, _ = run_clients(client=never_the_same)
    assert status == 1
    assert rows[-1].startswith("    Chainer's class does not repeat itself: /predictor/embed/W differs in ")


def test_a_client_that_raises_fails(run_clients):
    """The traceback is printed."""

    def refuse(optimizer):
        raise ValueError("not today")

    status, rows, errors = run_clients(client=refuse)
    assert status == 1
    assert rows == [f"{'client':<26}failed: ValueError: not today"]
    assert "in refuse" in errors


def test_a_client_that_is_not_installed_is_not_run(capsys):
    """The client's row says which module is missing. The exit status is 0."""
    assert comparison.main([Client("Missing", "no_such_package.client", "train", {})]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [f"{'Missing':<26}not run: No module named 'no_such_package'"]
