"""Which kernel steps NumPy arrays, where Numba is missing or cannot be used."""

from __future__ import annotations

import importlib

import pytest

from rmsprop_graves import kernels
from rmsprop_graves.kernels import numpy as numpy_kernel


@pytest.fixture
def _unchosen(monkeypatch):
    monkeypatch.setattr(kernels, "_on_cpu", None)
    monkeypatch.delenv("RMSPROP_GRAVES_CPU_KERNEL", raising=False)


@pytest.fixture
def import_error(monkeypatch, _unchosen):
    """Makes the import of the compiled kernel fail with an error."""

    def fail_with(error):
        def import_module(name):
            if name == "rmsprop_graves.kernels.numba":
                raise error
            return importlib.import_module(name)

        monkeypatch.setattr(kernels, "importlib", type("importlib", (), {"import_module": import_module}))

    return fail_with


def test_without_numba_numpy_steps_and_says_nothing(import_error):
    """It is an extra."""
    import_error(ModuleNotFoundError("No module named 'numba'", name="numba"))
    assert kernels.on_cpu() is numpy_kernel
    with pytest.raises(ModuleNotFoundError, match="numba"):
        kernels.use_on_cpu("numba")


def test_a_numba_that_cannot_be_used_is_warned_of_once(import_error):
    """It is made for certain versions of NumPy."""
    import_error(ImportError("Numba needs NumPy 2.2 or less. Got NumPy 2.5."))
    with pytest.warns(RuntimeWarning, match=r"Numba cannot be used \(Numba needs NumPy 2\.2 or less"):
        assert kernels.on_cpu() is numpy_kernel
    assert kernels.on_cpu() is numpy_kernel  # a second warning would be an error


def test_what_else_is_missing_is_not_taken_for_numba(import_error):
    """An error in the kernel itself must not be hidden."""
    import_error(ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite"))
    with pytest.raises(ModuleNotFoundError, match="llvmlite"):
        kernels.on_cpu()


@pytest.mark.usefixtures("_unchosen")
@pytest.mark.parametrize("how", ["function", "variable"])
def test_a_kernel_that_does_not_exist_is_refused_by_name(monkeypatch, how):
    """The message names the variable, the value and what there is."""
    monkeypatch.setenv("RMSPROP_GRAVES_CPU_KERNEL", "fortran")
    message = r"the kernel on a CPU \(RMSPROP_GRAVES_CPU_KERNEL\) must be one of auto, numba, numpy, got 'fortran'"
    with pytest.raises(ValueError, match=message):
        kernels.use_on_cpu("fortran") if how == "function" else kernels.on_cpu()
