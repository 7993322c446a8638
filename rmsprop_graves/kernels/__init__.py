"""The update rule in three kernels: in NumPy, compiled by Numba, and in CUDA through CuPy.

Each kernel is a module with the function ``step(param, grad, n, g, delta, *, lr, alpha, momentum, eps)``, which takes
arrays and does not depend on Chainer.

All kernels are bit-identical, on a CPU and on a GPU. On a CPU the kernel compiled by Numba is used if Numba is
installed, otherwise the NumPy kernel. :func:`on_cpu` returns the kernel in use. To choose one, set the environment
variable ``RMSPROP_GRAVES_CPU_KERNEL`` or call :func:`use_on_cpu`.

With Numba, large parameters and models are divided among threads: one for each core that the process may use, or
``OMP_NUM_THREADS`` if that is smaller. :func:`get_num_threads` returns the number and :func:`set_num_threads` sets it.
The results are bit-identical for any number.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import warnings
from types import ModuleType

from rmsprop_graves.kernels.threads import get_num_threads, set_num_threads

__all__ = ["get_num_threads", "on_cpu", "on_gpu", "set_num_threads", "use_on_cpu"]

_NAMES = ("auto", "numba", "numpy")
_VARIABLE = "RMSPROP_GRAVES_CPU_KERNEL"

_on_cpu: ModuleType | None = None


def on_cpu() -> ModuleType:
    """Returns the kernel that steps NumPy arrays. The first call chooses it, and may import Numba.

    Raises:
        ValueError: ``RMSPROP_GRAVES_CPU_KERNEL`` is not the name of a kernel.
        ImportError: ``RMSPROP_GRAVES_CPU_KERNEL`` is ``numba``, and Numba cannot be imported.

    Warns:
        RuntimeWarning: Numba is installed but does not work, so NumPy is used.
    """
    if _on_cpu is None:
        use_on_cpu(os.environ.get(_VARIABLE) or "auto")
        assert _on_cpu is not None
    return _on_cpu


def use_on_cpu(name: str) -> None:
    """Chooses the kernel that steps NumPy arrays from now on.

    Args:
        name: ``'numba'``, ``'numpy'``, or ``'auto'`` for Numba if it works here and NumPy otherwise.

    Raises:
        ValueError: There is no such kernel.
        ImportError: ``name`` is ``'numba'``, and Numba cannot be imported. If Numba cannot compile, its own error is
            raised.

    Warns:
        RuntimeWarning: ``name`` is ``'auto'``, and Numba is installed but does not work.
    """
    global _on_cpu
    if name not in _NAMES:
        raise ValueError(f"the kernel on a CPU ({_VARIABLE}) must be one of {', '.join(_NAMES)}, got {name!r}")
    try:
        _on_cpu = _best() if name == "auto" else _kernel(name)
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise ModuleNotFoundError(
            f"the kernel 'numba' needs Numba, which is not installed: run pip install numba, or unset {_VARIABLE}",
            name="numba",
        ) from error


@functools.lru_cache(maxsize=None)
def on_gpu() -> ModuleType:
    """Returns the kernel that steps CuPy arrays.

    Raises:
        ImportError: CuPy is missing or too old.
    """
    kernel = _kernel("cupy")
    kernel.load_cupy()
    return kernel


def _best() -> ModuleType:
    try:
        return _kernel("numba")
    except Exception as error:
        # Numba is optional: warn only if it is installed but does not work, for example with a NumPy that is too new.
        if not (isinstance(error, ModuleNotFoundError) and error.name == "numba"):
            warnings.warn(
                f"Numba cannot be used ({type(error).__name__}: {error}). "
                "Updates use NumPy alone: bit-identical, but slower.",
                RuntimeWarning,
                stacklevel=3,
            )
    return _kernel("numpy")


def _kernel(name: str) -> ModuleType:
    if name == "numba":
        # Chainer and Numba import SciPy's modules in different orders: in two threads at once, one import would fail.
        with contextlib.suppress(Exception):  # the kernel works without Chainer
            importlib.import_module("chainer")
    return importlib.import_module(f"{__name__}.{name}")
