"""Replaces Chainer's class with this package's, so that a program needs no change."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from typing import Any

from rmsprop_graves._chainer7 import processes
from rmsprop_graves._chainer7.loader import is_half_imported, when_imported


def install_in_chainer() -> None:
    """Makes ``chainer.optimizers.RMSpropGraves`` this package's class, in this process and its children.

    Call it before or after Chainer is imported. A name that was imported before the call, for example by
    ``from chainer.optimizers import RMSpropGraves``, still refers to Chainer's class, and so does
    ``chainer.optimizers.rmsprop_graves.RMSpropGraves``.

    Warns:
        UserWarning: The program has imported Chainer's class by name.

    Example:
        >>> rmsprop_graves.install_in_chainer()
        >>> chainer.optimizers.RMSpropGraves is rmsprop_graves.RMSpropGraves
        True
    """
    when_imported("chainer", _install)
    processes.call_in_children("rmsprop_graves.install_in_chainer()")


install_in_chainer.__module__ = "rmsprop_graves"


def launch() -> None:
    """Prepares this process and its children to run a program as `python -m rmsprop_graves` does."""
    install_in_chainer()
    processes.fork_by_default()
    processes.launch_interpreters()
    processes.call_in_children("rmsprop_graves._take_over.launch()")


def _install() -> None:
    import chainer

    if is_half_imported(chainer):
        # A program may import a private module of this package first, as pickles of 1.0.0 do, and that module imports
        # Chainer. Now the module is half imported, in this thread or in another one that waits for Chainer. The class
        # needs the whole module, so load it again, inner modules first. The first import then returns the new module.
        for name, module in reversed(list(sys.modules.items())):
            if re.fullmatch(r"rmsprop_graves\._[a-z][a-z_]*", name) and is_half_imported(module):
                _load_anew(name, module)

    # An import from the private module never waits for that other thread.
    from rmsprop_graves._hyperparameter import level_of_the_caller
    from rmsprop_graves._optimizer import RMSpropGraves

    chainer.optimizers.RMSpropGraves = RMSpropGraves
    replaced = chainer.optimizers.rmsprop_graves.RMSpropGraves
    for name, value in list(vars(sys.modules["__main__"]).items()):
        if value is replaced:
            warnings.warn(
                f"{name} is still Chainer's class: call rmsprop_graves.install_in_chainer() before the line that "
                "imports it",
                UserWarning,
                stacklevel=level_of_the_caller(),
            )


def _load_anew(name: str, module: Any) -> None:
    spec: Any = importlib.util.spec_from_loader(name, module.__spec__.loader)
    new = importlib.util.module_from_spec(spec)
    sys.modules[name] = new
    spec.loader.exec_module(new)
    setattr(sys.modules["rmsprop_graves"], name.rpartition(".")[2], new)
