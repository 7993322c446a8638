"""Replaces Chainer's class by this package's in programs that are not changed for it."""

from __future__ import annotations

import sys

from rmsprop_graves._chainer7 import processes
from rmsprop_graves._chainer7.loader import when_imported

# The modules that import Chainer, and the last name that each defines. A program may import one of them first; Chainer
# is then complete before that module is. The class is replaced when none of them is half imported.
_IMPORTERS = {
    "rmsprop_graves._hyperparameter": "Hyperparameter",
    "rmsprop_graves._update_rule": "RMSpropGravesRule",
    "rmsprop_graves._optimizer": "RMSpropGraves",
}


def install_in_chainer() -> None:
    """Makes ``chainer.optimizers.RMSpropGraves`` this package's class, in this process and its children.

    Call it before or after Chainer is imported. Names that were imported before the call, as by
    ``from chainer.optimizers import RMSpropGraves``, keep Chainer's class, and
    ``chainer.optimizers.rmsprop_graves.RMSpropGraves`` stays Chainer's class.

    Example:
        >>> rmsprop_graves.install_in_chainer()
        >>> chainer.optimizers.RMSpropGraves is rmsprop_graves.RMSpropGraves
        True
    """
    for name in ("chainer", *_IMPORTERS):
        when_imported(name, _install)
    processes.call_in_children("rmsprop_graves.install_in_chainer()")


def launch() -> None:
    """Prepares this process and its children to run a program as `python -m rmsprop_graves` does."""
    install_in_chainer()
    processes.fork_by_default()
    processes.launch_interpreters()
    processes.call_in_children("rmsprop_graves._take_over.launch()")


def _install() -> None:
    modules = sys.modules
    if "chainer" not in modules or any(
        name in modules and not hasattr(modules[name], last) for name, last in _IMPORTERS.items()
    ):
        return
    import chainer

    from rmsprop_graves import RMSpropGraves

    chainer.optimizers.RMSpropGraves = RMSpropGraves
