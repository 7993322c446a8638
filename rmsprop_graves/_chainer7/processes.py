"""Prepares child processes before they unpickle objects of Chainer.

A forked child inherits everything. A child of multiprocessing's spawn or forkserver, or of joblib's loky, begins by
unpickling a dictionary from its parent; this module adds an entry that imports the package. An interpreter that a
command starts, for example by `subprocess`, unpickles nothing; the launcher puts a `sitecustomize` on its path.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rmsprop_graves._chainer7.loader import when_imported

_FOLDER = os.path.dirname(os.path.abspath(__file__))
# The folder on the import path that contains this package.
_ROOT = os.path.dirname(os.path.dirname(_FOLDER))

# The child's import path may lack the folder in which its parent found the package. A child that cannot import the
# package even from there, such as another version of Python, is left as it is.
_CODE = """
import sys
sys.path.append({root!r})
try:
    import rmsprop_graves
except ImportError:
    pass
else:
    {calls}
finally:
    sys.path.remove({root!r})
"""
_calls = ["pass"]

# Each of these modules has a function get_preparation_data, and a child unpickles its result first.
_STARTERS = ("multiprocessing.spawn", "joblib.externals.loky.backend.spawn", "loky.backend.spawn")

# This environment variable identifies the interpreter of the launched program. Other interpreters are not launched.
LAUNCHED_BY = "RMSPROP_GRAVES_LAUNCHED_BY"


class _Preparation:
    """Pickles as a call that executes `_code()` when it is unpickled."""

    def __reduce__(self) -> Any:
        # A builtin, because the child has not imported this module yet.
        return exec, (_code(), {})


def _code() -> str:
    return _CODE.format(root=_ROOT, calls="; ".join(_calls))


def prepare_children() -> None:
    """Makes child processes import this package before they unpickle anything else."""
    when_imported("multiprocessing.util", _prepare_forkserver)
    for name in _STARTERS:
        when_imported(name, lambda name=name: _prepare_children_of(sys.modules[name]))  # type: ignore[misc]


def call_in_children(call: str) -> None:
    """Makes child processes execute a statement after they import this package.

    Args:
        call: The statement, such as ``rmsprop_graves.install_in_chainer()``.
    """
    if call not in _calls:
        _calls.append(call)


def _prepare_children_of(starter: Any) -> None:
    original = starter.get_preparation_data
    if getattr(original, "_prepares", False):
        return

    def get_preparation_data(*args: Any, **kwds: Any) -> dict[str, Any]:
        # The new entry is the first, because a dictionary is unpickled in order.
        return {"rmsprop_graves": _Preparation(), **original(*args, **kwds)}

    get_preparation_data._prepares = True  # type: ignore[attr-defined]
    starter.get_preparation_data = get_preparation_data


def _prepare_forkserver() -> None:
    # Before it forks any child, the forkserver imports the modules to preload and, since Python 3.14, the main module.
    util: Any = sys.modules["multiprocessing.util"]
    original = util.spawnv_passfds

    def spawnv_passfds(path: Any, args: Any, passfds: Any) -> Any:
        starts_server = [isinstance(arg, str) and "from multiprocessing.forkserver import main" in arg for arg in args]
        code = f"exec({_code()!r}, {{}}); "
        return original(path, [code + arg if starts else arg for arg, starts in zip(args, starts_server)], passfds)

    util.spawnv_passfds = spawnv_passfds


def fork_by_default() -> None:
    """Makes fork the default start method on Linux, as before Python 3.14. A program may still choose another one."""
    if sys.platform == "linux" and sys.version_info >= (3, 14):
        when_imported("multiprocessing.context", _fork_by_default)


def _fork_by_default() -> None:
    # Not with multiprocessing.set_start_method: it works once per process, and that call is the program's.
    context: Any = sys.modules["multiprocessing.context"]
    context._default_context._default_context = context._concrete_contexts["fork"]


def launch_interpreters() -> None:
    """Makes the interpreters that this process starts, and their children, run their programs as the launcher does."""
    startup = os.path.join(_FOLDER, "startup")
    # Empty entries of PYTHONPATH stay: each means the current folder.
    path = os.environ.get("PYTHONPATH")
    if not path:
        os.environ["PYTHONPATH"] = startup
    elif path.split(os.pathsep)[0] != startup:
        os.environ["PYTHONPATH"] = startup + os.pathsep + path
    os.environ[LAUNCHED_BY] = f"{sys.hexversion:x} {sys.prefix}"
