"""Runs a program as python would, but in a process that already runs `python -m rmsprop_graves` or IPython."""

from __future__ import annotations

import builtins
import contextlib
import io
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType, TracebackType
from typing import Any, Callable, Iterator

from rmsprop_graves._chainer7 import advice
from rmsprop_graves._chainer7.processes import LAUNCHED_BY

# Under -P and -I python does not add the program's folder to the import path.
_IS_SAFE_PATH = getattr(sys.flags, "safe_path", sys.flags.isolated)


def run(arguments: list[str]) -> None:
    """Runs the program that `python ARGUMENTS` would run. `sys.path` must be as `python -m` sets it."""
    first = arguments[0] if arguments else ""
    if first[:2] in ("-c", "-m"):
        attached = [first[2:]] if first[2:] else []
        value, *rest = [*attached, *arguments[1:]]
        return (_run_string if first[:2] == "-c" else _run_module)(value, rest)
    if first == "--":
        del arguments[0]
    if arguments and arguments[0] != "-":
        return _run_file(arguments[0], arguments)
    return _run_stdin(arguments or [""])


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = ["-m", *arguments]
    # Python itself calls this function for -m, a folder and a zip file; it reports a module that it cannot find.
    _run_as_main(runpy._run_module_as_main, name)  # type: ignore[attr-defined]


def _run_string(source: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    _head_path("")
    _run_as_main(_execute_string, source)


def _run_stdin(argv: list[str]) -> None:
    sys.argv = argv
    _head_path("")
    stdin: Any = sys.stdin  # None if it is closed
    if stdin and stdin.isatty():
        _run_as_main(_interact)
    else:
        _run_as_main(_execute_file, stdin.buffer.read() if stdin else b"", "<stdin>")


def _run_file(path: str, argv: list[str]) -> None:
    if path.endswith(".ipynb"):
        # As a program, a notebook does nothing: it is an expression of dictionaries and lists.
        sys.exit(
            f"{path} is a notebook: open it with Jupyter and import rmsprop_graves in its first cell, or make a "
            f"script of it with: jupyter nbconvert --to script {path}"
        )
    sys.argv = argv
    file = _absolute(path)
    if pkgutil.get_importer(file) is not None:
        if not _IS_SAFE_PATH:
            del sys.path[0]
        sys.path.insert(0, file)
        return _run_as_main(runpy._run_module_as_main, "__main__", False)  # type: ignore[attr-defined]
    _head_path(os.path.dirname(os.path.realpath(path)))
    try:
        with io.open_code(file) as stream:
            content = stream.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {file!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    return _run_as_main(_execute_file, content, file)


def _absolute(path: str) -> str:
    """Returns the path that python stores in `__file__`: absolute since Python 3.9, before that as it was given."""
    if sys.version_info < (3, 9) or os.path.isabs(path):
        return path
    return os.path.abspath(path) if os.name == "nt" else os.path.join(os.getcwd(), path)


def _head_path(folder: str) -> None:
    # Replace the entry that `python -m` has set.
    if not _IS_SAFE_PATH:
        sys.path[0] = folder


def _run_as_main(execute: Callable[..., Any], *arguments: Any) -> None:
    main = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __loader__=BuiltinImporter)
    if sys.version_info < (3, 14):
        vars(main).update(__annotations__={})
    # It stays in sys.modules after the code has ended, because threads, atexit handlers and pickle look there.
    # `__mp_main__` is multiprocessing's alias; pickles from a child process use it.
    sys.modules["__main__"] = main
    if "__mp_main__" in sys.modules:
        sys.modules["__mp_main__"] = main
    execute(*arguments)


def _execute_string(source: str) -> None:
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    compiled = compile(source, "<string>", "exec", dont_inherit=True)
    # So that tracebacks show its lines.
    if sys.version_info >= (3, 13):
        key = compiled if sys.version_info >= (3, 14) else "<string>"
        linecache._register_code(key, source, "<string>")
    exec(compiled, vars(sys.modules["__main__"]))


def _execute_file(content: bytes, file: str) -> None:
    main = vars(sys.modules["__main__"])
    main["__file__"] = file
    if sys.version_info < (3, 15):
        main["__cached__"] = None
    is_bytecode = file.endswith(".pyc") or content[:2] == MAGIC_NUMBER[:2]
    if file != "<stdin>":
        main["__loader__"] = (SourcelessFileLoader if is_bytecode else SourceFileLoader)("__main__", file)
    exec(_bytecode(content) if is_bytecode else compile(content, file, "exec", dont_inherit=True), main)
    _forget_file()


def _bytecode(content: bytes) -> CodeType:
    compiled: CodeType | None = pkgutil.read_code(io.BytesIO(content))
    if compiled is None:
        raise RuntimeError("Bad magic number in .pyc file")
    return compiled


def _forget_file() -> None:
    """Removes the attributes that python removes when a script has ended or its traceback is printed."""
    main = sys.modules.get("__main__")
    if main is not None and getattr(main, "__spec__", None) is None:
        vars(main).pop("__file__", None)
        vars(main).pop("__cached__", None)


def _interact() -> None:
    import code  # at the top this would hide a program's own module `code`

    # `site` defines this hook, which sets up completion and history.
    getattr(sys, "__interactivehook__", lambda: None)()
    code.interact(local=vars(sys.modules["__main__"]), exitmsg="")


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Context of a process that only runs the program: python prints its traceback, and advice follows."""
    try:
        yield
    except SystemExit:
        if sys.version_info >= (3, 14):
            _forget_file()
        raise
    except BaseException:
        hook = sys.excepthook

        def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            sys.excepthook = hook
            while traceback and traceback.tb_frame.f_code is not _run_as_main.__code__:
                traceback = traceback.tb_next
            while traceback and traceback.tb_frame.f_code.co_filename == __file__:
                traceback = traceback.tb_next
            sys.last_traceback = traceback
            hook(kind, error.with_traceback(traceback), traceback)
            _forget_file()
            advice.print_for(error)

        # The interpreter calls this hook after the launcher has ended.
        sys.excepthook = report
        raise


@contextlib.contextmanager
def borrowed_process() -> Iterator[None]:
    """Context of a process that outlives the program, such as IPython's.

    At the end it restores sys.argv, sys.path, the main module and the environment variables of the launcher.
    """
    argv, path, entries = sys.argv, sys.path, sys.path[:]
    environment = {name: os.environ.get(name) for name in ("PYTHONPATH", LAUNCHED_BY)}
    modules = {name: sys.modules[name] for name in ("__main__", "__mp_main__") if name in sys.modules}
    if not _IS_SAFE_PATH:
        # As `python -m` does.
        sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.argv, sys.path = argv, path
        path[:] = entries
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        sys.modules.pop("__mp_main__", None)
        for name, module in modules.items():
            sys.modules[name] = module
