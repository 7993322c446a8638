"""Every interpreter that a launched program starts runs this file, whatever its version."""

import os
import sys

# The program's import path does not contain this folder.
_startup = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _startup]

if os.environ.get("RMSPROP_GRAVES_LAUNCHED_BY") == "%x %s" % (sys.hexversion, sys.prefix):  # noqa: UP031
    # The parent may have found the package in a folder that is not on this interpreter's path.
    _root = os.path.dirname(os.path.dirname(os.path.dirname(_startup)))
    sys.path.append(_root)
    try:
        from rmsprop_graves import _take_over
    except ImportError:
        pass
    else:
        _take_over.launch()
    sys.path.remove(_root)

# This file hides another sitecustomize, which has to run too.
_this = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # noqa: F401
except ImportError as error:
    if getattr(error, "name", "sitecustomize") != "sitecustomize":
        raise
finally:
    sys.modules.setdefault("sitecustomize", _this)
