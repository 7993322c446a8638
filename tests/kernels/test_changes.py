"""Each kernel changes gradients as Chainer's hooks do, bit for bit."""

from __future__ import annotations

import importlib
import itertools

import chainer
import numpy
import pytest
from chainer import optimizer_hooks as hooks
from kernels.cases import special_values
from models import assert_same_bits
from skips import not_installed

from rmsprop_graves.kernels import changes, threads
from rmsprop_graves.kernels.changes import ADD, CLIP, SCALE, SIGN, Change

NUMBERS = (0.1, -0.3, 0.0, -0.0, 1.0, 1e-30, 1e-46, 3e38)
BOUNDS = ((-1.0, 1.0), (1e-20, 1e30), (0.5, -0.5), (-1e-40, 1e-40), (-1e40, 1e40))
CASES = [
    *((ADD, a, 0.0, hooks.WeightDecay(a)) for a in NUMBERS),
    *((SIGN, a, 0.0, hooks.Lasso(a)) for a in NUMBERS),
    *((CLIP, a, b, hooks.GradientHardClipping(a, b)) for a, b in BOUNDS),
    *((SCALE, a, 0.0, lambda rule, param, a=a: param.grad.__imul__(param.dtype.type(a))) for a in NUMBERS),
]


@pytest.fixture(params=["numba", "numpy"])
def change(request):
    """Return the function `change` of a kernel."""
    if request.param == "numpy":
        return changes.change
    pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError, reason=not_installed("numba"))
    return importlib.import_module("rmsprop_graves.kernels.numba").change


def crossed(dtype):
    """Return each pair of special values, as parameter and gradient."""
    return numpy.array(list(itertools.product(special_values(dtype), repeat=2))).T.copy()


def by_chainer(params, grads, used):
    """Return the gradients that Chainer's hooks leave."""
    found = []
    for array, grad in zip(params, grads):
        param = chainer.Parameter(array)
        param.grad = grad.copy()
        for hook in used:
            hook(None, param)
        found.append(param.grad)
    return found


def assert_as_by_chainer(change, params, grads, used):
    ours = [grad.copy() for grad in grads]
    with numpy.errstate(all="ignore"):
        assert change(params, ours, [Change(kind, numpy.array([[a, b]])) for kind, a, b, _ in used])
        expected = by_chainer(params, grads, [hook for *_, hook in used])
    assert_same_bits(*({str(k): grad for k, grad in enumerate(grads)} for grads in (ours, expected)))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_special_values_have_the_bits_of_chainers_hook(change, dtype, case):
    """Zeros of both signs, subnormals, the largest numbers, infinities and NaN, at every place of a vector."""
    param, grad = crossed(dtype)
    # Before NumPy 1.25, adding -0 in place to a one-element array of -0 gives 0.
    is_old = numpy.lib.NumpyVersion(numpy.__version__) < "1.25.0"
    for size in (2 if is_old else 1, 7, 100, param.size):
        assert_as_by_chainer(change, [param[:size]], [grad[:size]], [CASES[case]])
    assert_as_by_chainer(change, [param], [grad[::-1].copy()], [CASES[case]])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_many_changes_of_many_gradients_on_several_threads(change, monkeypatch, count):
    """The parameters are smaller and larger than a block, and empty."""
    monkeypatch.setattr(threads, "SPAN", 500)
    monkeypatch.setattr(threads, "_num_threads", 3)
    rng = numpy.random.RandomState(count)
    for _ in range(20):
        shapes = [(rng.choice([0, 2, 3, 2047, 2048, 2049, 40_000]),) for _ in range(rng.randint(1, 6))]
        params, grads = ([rng.standard_normal(shape).astype("f4") for shape in shapes] for _ in range(2))
        assert_as_by_chainer(change, params, grads, [CASES[k] for k in rng.randint(0, len(CASES), count)])


def test_each_parameter_may_have_numbers_of_its_own(change):
    """GradientLARS scales each gradient by a factor of its own."""
    params, grads = ([numpy.full(3, k + 1, "f4") for k in range(4)] for _ in range(2))
    assert change(params, grads, [Change(SCALE, numpy.array([[k, 0.0] for k in (1, 2, 3, 4)]))])
    assert [grad[0] for grad in grads] == [1, 4, 9, 16]


def test_gradients_that_share_memory_are_left_to_chainer(change):
    """Chainer's hooks change them one after the other."""
    memory = numpy.ones(10, "f4")
    one = Change(SCALE, numpy.array([[2.0, 0.0]]))
    other = numpy.ones(6, "f4")
    for params, grads in (
        ([other, other], [memory[:6], memory[4:]]),
        ([memory[:6]], [memory[4:]]),
        ([memory[:6], other], [numpy.ones(6, "f4"), memory[:6]]),
        ([other, other], [memory, memory]),
        ([memory], [memory]),
    ):
        assert not change(params, grads, [one])
        assert (memory == 1).all()
    assert change([other, other], [memory[:6], numpy.ones(6, "f4")], [one])


def test_a_last_block_of_one_element_keeps_the_sign_of_a_zero(change):
    """Before NumPy 1.25, adding -0 in place to a one-element array of -0 gives 0."""
    for size in (2**11 + 1, 2**15 + 1, 2**16 + 1):
        params, grads = [numpy.ones(size, "f4")], [numpy.full(size, -0.0, "f4")]
        assert change(params, grads, [Change(ADD, numpy.array([[-0.0, 0.0]]))])
        assert numpy.signbit(grads[0]).all()
