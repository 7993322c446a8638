"""Runs an unmodified Chainer program on this optimizer, as python itself would run it."""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import runpy
import sys
from importlib.machinery import SourceFileLoader
from multiprocessing import spawn
from types import ModuleType, TracebackType
from typing import Any, Callable

from rmsprop_graves import _chainer

# The modules that import Chainer, and what each defines after that. A program may import one of them first, which is
# then half imported when Chainer is whole: the optimizer is put in Chainer when none of them is.
_IMPORTERS = {
    "rmsprop_graves._hyperparameter": "Hyperparameter",
    "rmsprop_graves._update_rule": "RMSpropGravesRule",
    "rmsprop_graves._optimizer": "RMSpropGraves",
}


def take_over() -> None:
    """Makes `chainer.optimizers.RMSpropGraves` this project's class, here and in child processes.

    Chainer's own class stays where it is, `chainer.optimizers.rmsprop_graves.RMSpropGraves`.
    """
    for name in ("chainer", *_IMPORTERS):
        _chainer.when_imported(name, _replace_optimizer)

    # A spawned child, or a forkserver's, is a new interpreter that runs the main module again. It is told to
    # run `_child` in its place, which takes over there and then runs what it would have run.
    original: Callable[[str], dict[str, Any]] = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        path, module = data.pop("init_main_from_path", ""), data.pop("init_main_from_name", "")
        data["init_main_from_name"] = "rmsprop_graves._child"
        data["sys_argv"] = [*sys.argv[:1], path, module, *sys.argv[1:]]
        return data

    spawn.get_preparation_data = get_preparation_data


def _replace_optimizer() -> None:
    if any(name in sys.modules and not hasattr(sys.modules[name], later) for name, later in _IMPORTERS.items()):
        return
    import chainer

    from rmsprop_graves import RMSpropGraves

    chainer.optimizers.RMSpropGraves = RMSpropGraves


def run_script(path: str, arguments: list[str]) -> None:
    """Runs a script, or a folder or zip file with a `__main__.py`, as `python path arguments` does."""
    sys.argv = [path, *arguments]
    # Since Python 3.9 the path of the main program is made absolute, but in sys.argv.
    file = os.path.abspath(path) if sys.version_info >= (3, 9) else path
    # Under -P and -I nothing of the caller's heads the import path, and the script's folder is not put there.
    is_safe_path = getattr(sys.flags, "safe_path", sys.flags.isolated)
    if not is_safe_path:
        del sys.path[0]
    if pkgutil.get_importer(file) is not None:
        sys.path.insert(0, file)
        # What python itself calls, here and for -m. It reports what it cannot find, as python does.
        return _run_as_main(runpy._run_module_as_main, "__main__", False)  # type: ignore[attr-defined]
    if not is_safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    try:
        with io.open_code(os.path.abspath(path)) as stream:
            source = stream.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {file!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    return _run_as_main(_execute, source, file)


def run_module(name: str, arguments: list[str]) -> None:
    """Runs a module as `python -m name arguments` does."""
    sys.argv = ["-m", *arguments]
    _run_as_main(runpy._run_module_as_main, name)  # type: ignore[attr-defined]


def _run_as_main(run: Callable[..., Any], *arguments: Any) -> None:
    take_over()
    # Kept in sys.modules for good: threads, atexit handlers and pickle look there after the code has ended.
    # `__mp_main__` is multiprocessing's alias, under which a child's objects come back.
    main = sys.modules["__main__"] = sys.modules["__mp_main__"] = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __annotations__={})
    try:
        run(*arguments)
    except BaseException:
        _hide_launcher()
        raise


def _execute(source: bytes, file: str) -> None:
    attributes = sys.modules["__main__"].__dict__
    attributes.update(__file__=file, __loader__=SourceFileLoader("__main__", file), __cached__=None)
    exec(compile(source, file, "exec", dont_inherit=True), attributes)


def _hide_launcher() -> None:
    """Lets the interpreter report the exception under way as if the program had not been called from here."""
    hook = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sys.excepthook = hook
        while traceback and traceback.tb_frame.f_code is not _run_as_main.__code__:
            traceback = traceback.tb_next
        while traceback and traceback.tb_frame.f_code.co_filename == __file__:
            traceback = traceback.tb_next
        sys.last_traceback = traceback
        hook(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = report
