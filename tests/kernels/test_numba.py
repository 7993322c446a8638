"""The compiled kernel against the NumPy kernel: the same bits for every input."""

from __future__ import annotations

import hypothesis.extra.numpy as hypothesis_numpy
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import run_python
from models import assert_same_bits
from skips import not_installed

from rmsprop_graves import kernels
from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels import threads

numba_kernel = pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError, reason=not_installed("numba"))
numba = pytest.importorskip("numba", exc_type=ImportError, reason=not_installed("numba"))

NAMES = ("param", "grad", "n", "g", "delta")
LAYOUTS = {
    "contiguous": lambda array: array,
    "fortran": numpy.asfortranarray,
    "strided": lambda array: numpy.repeat(array, 2, axis=0)[::2] if array.ndim else array,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
}


def assert_both_step_alike(arrays, steps=3, **hyperparameters):
    """Step copies with both kernels, and assert equal bits after each step."""
    ours, numpys = ({name: array.copy(order="K") for name, array in arrays.items()} for _ in range(2))
    with numpy.errstate(all="ignore"):
        for _ in range(steps):
            numba_kernel.step(**ours, **hyperparameters)
            numpy_kernel.step(**numpys, **hyperparameters)
            assert_same_bits(ours, numpys)
    return ours


@settings(max_examples=200)
@given(
    shape=hypothesis_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    scale=st.sampled_from([1e-42, 1e-20, 1.0, 300.0, 1e19, 1e30, numpy.inf, numpy.nan]),
    lr=st.floats(-10, 10),
    alpha=st.floats(0, 1.05),
    momentum=st.floats(0, 1.05),
    eps=st.sampled_from([1e-30, 1e-8, 1e-4, 1.0, 1e30]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_kernel_is_bit_identical_to_the_numpy_kernel(shape, dtype, layout, scale, lr, alpha, momentum, eps, seed):
    """This holds for any shape, dtype, layout and hyperparameters, and for gradients from subnormals to NaN."""
    rng = numpy.random.RandomState(seed)
    with numpy.errstate(all="ignore"):
        arrays = {name: numpy.asarray(rng.standard_normal(shape)).astype(dtype) for name in NAMES}
        arrays["grad"] = (arrays["grad"] * scale).astype(dtype)
        arrays["n"] = arrays["n"] ** 2
    laid_out = {name: LAYOUTS[layout](array) for name, array in arrays.items()}
    assert_both_step_alike(laid_out, lr=lr, alpha=alpha, momentum=momentum, eps=eps)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [1, 7, 8, 33, 1000, 100_003])
def test_vectors_and_their_remainders_have_the_same_bits(dtype, size):
    """Some lengths are near the width of a vector register, others are long."""
    rng = numpy.random.RandomState(size)
    arrays = {name: rng.standard_normal(size).astype(dtype) for name in NAMES}
    arrays["n"] **= 2
    assert_both_step_alike(arrays, lr=1e-2, alpha=0.9, momentum=0.8, eps=1e-4)


def test_steady_gradients_stay_finite_and_bit_identical():
    """Both kernels clamp a negative variance to zero."""
    grad = numpy.random.RandomState(0).uniform(5, 10, 1000).astype("f4")
    arrays = {**{name: numpy.zeros(1000, "f4") for name in NAMES}, "grad": grad}
    ours = assert_both_step_alike(arrays, steps=400, lr=1e-4, alpha=0.95, momentum=0.9, eps=1e-4)
    assert all(numpy.isfinite(array).all() for array in ours.values())


@pytest.mark.parametrize("count", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, count):
    """The arrays are divided at different places."""
    monkeypatch.setattr(threads, "SPAN", 100)
    monkeypatch.setattr(threads, "_num_threads", count)
    rng = numpy.random.RandomState(count)
    arrays = {name: rng.standard_normal((3, 337)).astype("f4") for name in NAMES}
    assert_both_step_alike(arrays, lr=1e-2, alpha=0.9, momentum=0.8, eps=1e-4)


@pytest.mark.parametrize("of", ["param", "n", "g", "delta"])
def test_a_gradient_that_overlaps_a_written_array_is_read_first(of):
    """It begins one element before the parameter or state. Reading it during the writes would give other numbers."""
    hyperparameters = {"lr": 1e-2, "alpha": 0.9, "momentum": 0.8, "eps": 1e-4}
    ends = []
    for kernel in (numba_kernel, numpy_kernel):
        rng = numpy.random.RandomState(0)
        buffer = rng.uniform(1, 2, 101)
        arrays = {name: rng.uniform(1, 2, 100) for name in NAMES}
        arrays[of], arrays["grad"] = buffer[1:], buffer[:-1]
        kernel.step(**arrays, **hyperparameters)
        ends.append(arrays)
    assert_same_bits(*ends)


def test_masked_arrays_are_stepped_by_the_numpy_kernel():
    """Numba does not support them."""
    rng = numpy.random.RandomState(0)
    arrays = {name: numpy.ma.masked_array(rng.uniform(1, 2, 10)) for name in NAMES}
    expected = {name: array.copy() for name, array in arrays.items()}
    hyperparameters = {"lr": 1e-2, "alpha": 0.9, "momentum": 0.8, "eps": 1e-4}
    numba_kernel.step(**arrays, **hyperparameters)
    numpy_kernel.step(**expected, **hyperparameters)
    assert_same_bits({n: a.data for n, a in arrays.items()}, {n: a.data for n, a in expected.items()})


def test_it_multiplies_and_adds_separately():
    """The machine code holds no fused multiply-add, which would round once where NumPy rounds twice."""
    # Compile again, because Numba cannot show the code of a function from its cache.
    compiled = numba.njit(**numba_kernel._OPTIONS)(numba_kernel._step_elements.py_func)
    for dtype in ("f4", "f8"):
        compiled(*(numpy.ones(100, dtype) for _ in NAMES), numpy.array([1e-2, 0.9, 0.1, 0.8, 1e-4]))
    codes = compiled.inspect_asm().values()
    assert len(codes) == 2
    for code in codes:
        assert "sqrt" in code
        assert "fmadd" not in code
        assert "fmla" not in code


@pytest.mark.parametrize(("name", "used"), [("numba", "numba"), ("numpy", "numpy"), ("auto", "numba")])
def test_the_kernel_can_be_chosen_and_queried(monkeypatch, name, used):
    """`use_on_cpu` chooses it. Otherwise the environment variable does so at the first use."""
    monkeypatch.setattr(kernels, "_on_cpu", None)
    monkeypatch.setenv("RMSPROP_GRAVES_CPU_KERNEL", name)
    assert kernels.on_cpu().__name__ == f"rmsprop_graves.kernels.{used}"
    monkeypatch.setattr(kernels, "_on_cpu", None)
    kernels.use_on_cpu(name)
    assert kernels.on_cpu().__name__ == f"rmsprop_graves.kernels.{used}"


STEP = """
import numpy, sys
from rmsprop_graves import RMSpropGraves
import chainer
assert "numba" not in sys.modules
link = chainer.links.Linear(1, 1)
optimizer = RMSpropGraves().setup(link)
assert "numba" not in sys.modules
link.W.grad, link.b.grad = numpy.ones((1, 1), "f"), numpy.ones(1, "f")
for _ in range(3):
    optimizer.update()
from rmsprop_graves.kernels import numba
print("numba" in sys.modules, sum(numba._walk.stats.cache_hits.values()))
"""


def test_numba_is_imported_at_the_first_update_and_its_code_is_cached_on_disk(tmp_path):
    """A second process compiles nothing."""
    cache = str(tmp_path / "cache")
    assert run_python(STEP, NUMBA_CACHE_DIR=cache)[0] == "True 0\n"
    assert run_python(STEP, NUMBA_CACHE_DIR=cache)[0] == "True 2\n"  # one for each dtype


def test_without_a_writable_cache_folder_training_goes_on_after_one_warning():
    """Numba finds none if neither the package's folder nor the home directory is writable."""
    nowhere = """
import numba.core.caching as caching
getattr(caching, "CacheImpl", getattr(caching, "_CacheImpl", None))._locator_classes = []
"""
    stdout, stderr = run_python(nowhere + STEP.replace('assert "numba" not in sys.modules', ""))
    assert stdout == "True 0\n"
    assert stderr.count("RuntimeWarning") == 1
    assert "The update is compiled anew in each process" in stderr


NO_COMPILER = """
import numba.core.dispatcher

def compile(self, signature):
    if {condition}:
        raise numba.core.errors.LoweringError("no such instruction\\nand more of this")
    return original(self, signature)

original = numba.core.dispatcher.Dispatcher.compile
numba.core.dispatcher.Dispatcher.compile = compile
"""


@pytest.mark.parametrize(
    ("code", "environment", "reason"),
    [
        (NO_COMPILER.format(condition="True"), {}, "LoweringError: no such instruction"),
        (
            NO_COMPILER.format(condition="'float64, 1' in str(signature)"),
            {},
            "LoweringError: no such instruction",
        ),
        ("", {"NUMBA_DISABLE_JIT": "1"}, "ImportError: NUMBA_DISABLE_JIT is set"),
    ],
    ids=["fails to compile", "fails to compile for float64", "is told not to compile"],
)
def test_training_goes_on_with_numpy_if_numba_cannot_compile(code, environment, reason):
    """One warning has the reason, sometimes inside a message of Numba. Choosing Numba by name raises its error."""
    code += """
import numpy
from rmsprop_graves import RMSpropGraves, kernels
import chainer
link = chainer.links.Linear(1, 1)
optimizer = RMSpropGraves().setup(link)
link.W.grad, link.b.grad = numpy.ones((1, 1), "f"), numpy.ones(1, "f")
for _ in range(3):
    optimizer.update()
print(kernels.on_cpu().__name__, optimizer.t, link.W.update_rule.t)
try:
    kernels.use_on_cpu("numba")
except Exception as error:
    print(type(error).__name__)
"""
    stdout, stderr = run_python(code, **environment)
    kind, _, message = reason.partition(": ")
    assert stdout == f"rmsprop_graves.kernels.numpy 3 3\n{kind}\n"
    assert stderr.count("RuntimeWarning") == 1
    assert f"Numba cannot be used ({kind}: " in stderr
    assert message in stderr
