"""Alex Graves's RMSprop for Chainer.

Importing this package makes Chainer 7 importable on Pythons and NumPys newer than it, and imports
Chainer itself only when one of the names below is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rmsprop_graves import _chainer

if TYPE_CHECKING:
    from rmsprop_graves._npz import load_npz
    from rmsprop_graves._optimizer import RMSpropGraves
    from rmsprop_graves._update_rule import RMSpropGravesRule

__version__ = "1.0.0"
__all__ = ["RMSpropGraves", "RMSpropGravesRule", "load_npz"]

_MODULES = {"RMSpropGraves": "_optimizer", "RMSpropGravesRule": "_update_rule", "load_npz": "_npz"}

_chainer.make_importable()


def __getattr__(name: str) -> Any:
    # Lazy, because importing Chainer starts CUDA and reads its environment variables: a script run by
    # `python -m rmsprop_graves` may set CUDA_VISIBLE_DEVICES or CHAINER_DTYPE before it imports Chainer.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name == "kernels":
        return importlib.import_module(f"{__name__}.kernels")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "kernels"})
