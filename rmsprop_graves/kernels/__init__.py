"""The four lines of the rule, once for each kind of array.

Every kernel takes plain arrays through one signature,
``step(param, grad, n, g, delta, *, lr, alpha, momentum, eps)``, and knows nothing of Chainer.

All kernels give the same bits, on a CPU and on a GPU. NumPy arrays are stepped by the compiled kernel where Numba is
installed and by NumPy otherwise.
:func:`on_cpu` says which; the environment variable ``RMSPROP_GRAVES_CPU_KERNEL`` or :func:`use_on_cpu` forces one.

Large parameters and models are divided among threads, to the same bits: one for each core that the process may use,
or ``OMP_NUM_THREADS`` if that is fewer. :func:`get_num_threads` says how many, :func:`set_num_threads` sets it.
"""

from __future__ import annotations

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
    """The kernel that steps NumPy arrays. Numba is imported when it is first asked for.

    Raises:
        ValueError: ``RMSPROP_GRAVES_CPU_KERNEL`` names no kernel.
        ImportError: ``RMSPROP_GRAVES_CPU_KERNEL`` asks for Numba, which cannot be imported.
    """
    if _on_cpu is None:
        use_on_cpu(os.environ.get(_VARIABLE) or "auto")
        assert _on_cpu is not None
    return _on_cpu


def use_on_cpu(name: str) -> None:
    """Chooses the kernel that steps NumPy arrays from here on.

    Args:
        name: ``'numba'``, ``'numpy'``, or ``'auto'`` for Numba's where it can be imported and else NumPy's.

    Raises:
        ValueError: There is no such kernel.
        ImportError: Numba is asked for and cannot be imported. What it raises where it cannot compile is raised too.
    """
    global _on_cpu
    if name not in _NAMES:
        raise ValueError(f"the kernel on a CPU ({_VARIABLE}) must be one of {', '.join(_NAMES)}, got {name!r}")
    _on_cpu = _best() if name == "auto" else _kernel(name)


@functools.lru_cache(maxsize=None)
def on_gpu() -> ModuleType:
    """The kernel that steps CuPy arrays.

    Raises:
        ImportError: CuPy is missing, or older than the kernel is made for.
    """
    kernel = _kernel("cupy")
    kernel.load_cupy()
    return kernel


def _best() -> ModuleType:
    try:
        return _kernel("numba")
    except Exception as error:
        # Numba is an extra. One that is there says here what it lacks, such as a NumPy as old as it.
        if not (isinstance(error, ModuleNotFoundError) and error.name == "numba"):
            warnings.warn(
                f"Numba cannot be used ({type(error).__name__}: {error}). "
                "The update goes on with NumPy alone, to the same bits, but slower.",
                RuntimeWarning,
                stacklevel=3,
            )
    return _kernel("numpy")


def _kernel(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
