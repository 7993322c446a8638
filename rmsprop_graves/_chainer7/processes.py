"""Prepares child processes before they unpickle objects of Chainer.

A forked child inherits everything. A child that multiprocessing's spawn or forkserver or joblib's loky starts first
unpickles a dictionary from its parent: this module adds an entry that imports the package there. An interpreter that
is started by a command, as `subprocess` does, unpickles nothing: the launcher puts a `sitecustomize` on its path.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rmsprop_graves._chainer7.loader import when_imported

_FOLDER = os.path.dirname(os.path.abspath(__file__))
# Where this package was found.
_ROOT = os.path.dirname(os.path.dirname(_FOLDER))

# A child may find the package only where its parent found it. One that has no such package is left alone.
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

# Each of these modules has a function get_preparation_data: a child unpickles its result first.
_STARTERS = ("multiprocessing.spawn", "joblib.externals.loky.backend.spawn", "loky.backend.spawn")

# Names the interpreter that runs the launched program; other interpreters are left alone.
LAUNCHED_BY = "RMSPROP_GRAVES_LAUNCHED_BY"


class _Preparation:
    """Runs the code when it is unpickled."""

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
    """Makes child processes run a statement such as ``rmsprop_graves.install_in_chainer()`` after that import."""
    if call not in _calls:
        _calls.append(call)


def _prepare_children_of(starter: Any) -> None:
    original = starter.get_preparation_data
    if getattr(original, "_prepares", False):
        return

    def get_preparation_data(*args: Any, **kwds: Any) -> dict[str, Any]:
        # It comes first, because a dictionary is unpickled in order.
        return {"rmsprop_graves": _Preparation(), **original(*args, **kwds)}

    get_preparation_data._prepares = True  # type: ignore[attr-defined]
    starter.get_preparation_data = get_preparation_data


def _prepare_forkserver() -> None:
    # The forkserver imports the main module, from Python 3.14 on, and what it was told to preload, before any child.
    util: Any = sys.modules["multiprocessing.util"]
    original = util.spawnv_passfds

    def spawnv_passfds(path: Any, args: Any, passfds: Any) -> Any:
        starts_server = [isinstance(arg, str) and "from multiprocessing.forkserver import main" in arg for arg in args]
        code = f"exec({_code()!r}, {{}}); "
        return original(path, [code + arg if starts else arg for arg, starts in zip(args, starts_server)], passfds)

    util.spawnv_passfds = spawnv_passfds


def fork_by_default() -> None:
    """Makes fork the default start method on Linux, as before Python 3.14. A program may still choose another."""
    if sys.platform == "linux" and sys.version_info >= (3, 14):
        when_imported("multiprocessing.context", _fork_by_default)


def _fork_by_default() -> None:
    # Not by multiprocessing.set_start_method, which a program may call only once.
    context: Any = sys.modules["multiprocessing.context"]
    context._default_context._default_context = context._concrete_contexts["fork"]


def launch_interpreters() -> None:
    """Makes interpreters that this process starts, and their children, run as under the launcher."""
    startup = os.path.join(_FOLDER, "startup")
    # Empty entries stay: each is the current folder.
    path = os.environ.get("PYTHONPATH")
    if not path:
        os.environ["PYTHONPATH"] = startup
    elif path.split(os.pathsep)[0] != startup:
        os.environ["PYTHONPATH"] = startup + os.pathsep + path
    os.environ[LAUNCHED_BY] = f"{sys.hexversion:x} {sys.prefix}"
