"""What a child process of multiprocessing runs in place of a launched program's main module."""

import runpy
import sys

from rmsprop_graves import _launch

_path, _module = sys.argv[1:3]
del sys.argv[1:3]
_launch.take_over()
if _path:
    globals().update(runpy.run_path(_path, run_name="__mp_main__"))
elif _module and _module.rpartition(".")[2] != "__main__":
    globals().update(runpy.run_module(_module, run_name="__mp_main__", alter_sys=True))
else:
    # As multiprocessing: a __main__.py has no guard against being run again, so it is not. Nor is this module,
    # which a child of this child would otherwise take for the program.
    globals().update(__spec__=None, __file__=None)
