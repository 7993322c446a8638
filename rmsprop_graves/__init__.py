"""Alex Graves's RMSprop for Chainer.

After this package is imported, Chainer 7 can be imported on newer versions of Python and NumPy than Chainer supports.
The package imports Chainer only when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from rmsprop_graves._chainer7 import loader, processes
from rmsprop_graves._take_over import install_in_chainer

if TYPE_CHECKING:
    from rmsprop_graves import kernels as kernels
    from rmsprop_graves._hdf5 import load_hdf5
    from rmsprop_graves._npz import load_npz
    from rmsprop_graves._optimizer import RMSpropGraves
    from rmsprop_graves._update_rule import RMSpropGravesRule

__version__ = "1.1.0"
__all__ = ["RMSpropGraves", "RMSpropGravesRule", "install_in_chainer", "load_hdf5", "load_npz"]

_NEED_CHAINER = {
    "RMSpropGraves": "_optimizer",
    "RMSpropGravesRule": "_update_rule",
    "load_hdf5": "_hdf5",
    "load_npz": "_npz",
}

processes.prepare_children()
try:
    loader.make_importable()
except ImportError:
    # While python imports the package for `python -m rmsprop_graves`, argv[0] is "-m"; the launcher reports the error.
    if sys.argv[:1] != ["-m"]:
        raise


# Hidden from type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Lazy, because importing Chainer initializes CUDA and reads environment variables: a script run by
        # `python -m rmsprop_graves` may set CUDA_VISIBLE_DEVICES or CHAINER_DTYPE before it imports Chainer.
        if name in _NEED_CHAINER:
            # Import Chainer first: then no module of this package is half imported when `_take_over` needs the class.
            importlib.import_module("chainer")
            return getattr(importlib.import_module(f"{__name__}.{_NEED_CHAINER[name]}"), name)
        if name == "kernels":
            return importlib.import_module(f"{__name__}.kernels")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "kernels"})
