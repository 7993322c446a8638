"""What an optimizer keeps alive, and the memory that an update needs."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy
import pytest
from models import Arrays, arrays_of
from random_models import plain, scaled, train_plain

from rmsprop_graves import RMSpropGraves
from rmsprop_graves.kernels import threads


def are_gone(references):
    gc.collect()
    return all(reference() is None for reference in references)


def test_gradients_are_not_kept_alive(device):
    """After cleargrads nothing refers to them."""
    optimizer = train_plain(plain(RMSpropGraves, device), 0, 1, 2)
    gone = [weakref.ref(param.grad) for param in optimizer.target.params()]
    optimizer.target.cleargrads()
    assert are_gone(gone)


def test_replaced_arrays_are_not_kept_alive_beyond_the_next_update(device):
    """The arrays may be parameters or states."""
    optimizer = train_plain(plain(RMSpropGraves, device), 0, 1)
    for param in optimizer.target.params():
        param.array = scaled(param.array, 1)  # Chainer keeps the array that a parameter was made of
    train_plain(optimizer, 2)
    gone = [weakref.ref(array) for array in arrays_of(optimizer).values()]
    for param in optimizer.target.params():
        param.array = scaled(param.array, 1)
        for name, state in param.update_rule.state.items():
            param.update_rule.state[name] = scaled(state, 1)
    train_plain(optimizer, 3)
    del param, state
    assert len(gone) == 5 * 4
    assert are_gone(gone)


def test_setup_frees_the_arrays_of_the_last_model(device):
    """The optimizer no longer needs them."""
    optimizer = train_plain(plain(RMSpropGraves, device), 0, 1, 2)
    gone = [weakref.ref(array) for array in arrays_of(optimizer).values()]
    optimizer.setup(Arrays(numpy.ones(5, "f4")))
    assert are_gone(gone)


@pytest.fixture
def traced():
    """Measure memory with tracemalloc, to which NumPy reports its arrays."""
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_the_update_of_a_large_parameter_needs_little_memory(kernel, monkeypatch):
    """For arrays of 16 MB it is less than 1 MiB with Numba, and seven blocks of 32768 elements with NumPy."""
    monkeypatch.setattr(threads, "SPAN", 1 << 17)
    array = numpy.zeros(4_000_000, "f4")
    optimizer = RMSpropGraves().setup(Arrays(array))
    optimizer.target.set_grads(numpy.ones_like(array))
    for _ in range(2):
        optimizer.update()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracemalloc.start()
    optimizer.update()
    _, peak = tracemalloc.get_traced_memory()
    assert before > 5 * array.nbytes  # the arrays are traced at all
    assert peak < {"numba": 1 << 20, "numpy": 2 << 20}[kernel]


@pytest.mark.usefixtures("kernel", "traced")
def test_the_plan_is_small_compared_with_the_model():
    """After an update of 50 parameters of 10,001 elements it is less than 1 % of the parameters."""

    def stepped_once():
        optimizer = RMSpropGraves().setup(Arrays(*numpy.zeros((50, 10_001), "f4")))
        optimizer.target.set_grads(*numpy.ones((50, 10_001), "f4"))
        optimizer.update()
        return optimizer

    stepped_once().update()  # compiles, and fills the caches
    optimizer = stepped_once()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    optimizer.update()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    assert after - before < 0.01 * 50 * 10_001 * 4
