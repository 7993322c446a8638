"""Replaces Chainer's class with this package's, so that a program needs no change."""

from __future__ import annotations

import importlib
import sys

from rmsprop_graves._chainer7 import processes
from rmsprop_graves._chainer7.loader import when_imported


def install_in_chainer() -> None:
    """Makes ``chainer.optimizers.RMSpropGraves`` this package's class, in this process and its children.

    Call it before or after Chainer is imported. A name that was imported before the call, for example by
    ``from chainer.optimizers import RMSpropGraves``, still refers to Chainer's class, and so does
    ``chainer.optimizers.rmsprop_graves.RMSpropGraves``.

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
    # A program may import a private module first, as pickles of 1.0.0 do, and that module then imports Chainer. It is
    # half imported now, but the class needs all of it: import it anew. The first import then returns the new module.
    half_imported = [
        name
        for name, module in list(sys.modules.items())
        if name.startswith("rmsprop_graves.") and getattr(getattr(module, "__spec__", None), "_initializing", False)
    ]
    for name in half_imported:
        del sys.modules[name]
    for name in half_imported:
        importlib.import_module(name)
    import chainer

    from rmsprop_graves import RMSpropGraves

    chainer.optimizers.RMSpropGraves = RMSpropGraves
