"""The choice of the CPU kernel, with a Numba that works, is missing or does not work."""

from __future__ import annotations

import importlib
import re

import pytest
from skips import not_installed

from rmsprop_graves import kernels
from rmsprop_graves.kernels import numpy as numpy_kernel


@pytest.fixture
def _unchosen(monkeypatch):
    monkeypatch.setattr(kernels, "_on_cpu", None)
    monkeypatch.delenv("RMSPROP_GRAVES_CPU_KERNEL", raising=False)


@pytest.fixture
def import_error(monkeypatch, _unchosen):
    """A function that makes the import of the Numba kernel fail with an error."""

    def fail_with(error):
        def import_module(name):
            if name == "rmsprop_graves.kernels.numba":
                raise error
            return importlib.import_module(name)

        monkeypatch.setattr(kernels, "importlib", type("importlib", (), {"import_module": import_module}))

    return fail_with


def test_without_numba_the_numpy_kernel_is_used_without_a_warning(import_error):
    """Numba is optional; asking for it by name raises an error that says how to install it."""
    import_error(ModuleNotFoundError("No module named 'numba'", name="numba"))
    assert kernels.on_cpu() is numpy_kernel
    with pytest.raises(ModuleNotFoundError, match="run pip install numba, or unset RMSPROP_GRAVES_CPU_KERNEL"):
        kernels.use_on_cpu("numba")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("Numba needs NumPy 2.2 or less. Got NumPy 2.5."),
        ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite"),
        OSError("Could not find/load shared object file"),
        ValueError("Cannot compile"),
    ],
    ids=repr,
)
def test_a_numba_that_does_not_work_is_warned_of_once(import_error, error):
    """Numba supports only certain versions of NumPy and LLVM; it may also be importable but unable to compile."""
    import_error(error)
    message = re.escape(f"Numba cannot be used ({type(error).__name__}: {error})")
    with pytest.warns(RuntimeWarning, match=message):
        assert kernels.on_cpu() is numpy_kernel
    assert kernels.on_cpu() is numpy_kernel  # a second warning would be an error
    with pytest.raises(type(error), match=re.escape(str(error))):
        kernels.use_on_cpu("numba")


def test_the_numba_kernel_can_be_imported_if_numba_can_compile():
    """If its own check fails, so does its import. All other tests of the kernel are then skipped."""
    numba = pytest.importorskip("numba", exc_type=ImportError, reason=not_installed("numba"))
    try:
        assert numba.njit(lambda number: number + 1)(1) == 2
    except Exception as error:
        pytest.skip(f"Numba does not compile here: {error}")
    if numba.config.DISABLE_JIT:
        pytest.skip("NUMBA_DISABLE_JIT is set")
    importlib.import_module("rmsprop_graves.kernels.numba")


@pytest.mark.usefixtures("_unchosen")
def test_an_empty_environment_variable_counts_as_unset(monkeypatch):
    """A shell sets an empty variable by ``RMSPROP_GRAVES_CPU_KERNEL=``."""
    monkeypatch.setenv("RMSPROP_GRAVES_CPU_KERNEL", "")
    assert kernels.on_cpu().__name__.startswith("rmsprop_graves.kernels.num")


@pytest.mark.usefixtures("_unchosen")
@pytest.mark.parametrize("how", ["function", "variable"])
def test_a_kernel_that_does_not_exist_is_refused_by_name(monkeypatch, how):
    """The message contains the variable, the value and the valid names."""
    monkeypatch.setenv("RMSPROP_GRAVES_CPU_KERNEL", "fortran")
    message = r"the kernel on a CPU \(RMSPROP_GRAVES_CPU_KERNEL\) must be one of auto, numba, numpy, got 'fortran'"
    with pytest.raises(ValueError, match=message):
        kernels.use_on_cpu("fortran") if how == "function" else kernels.on_cpu()
