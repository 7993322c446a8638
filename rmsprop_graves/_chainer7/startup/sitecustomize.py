"""Run by every interpreter that a launched program starts, of whatever version."""

import os
import sys

# As without this file: off the import path.
_startup = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _startup]

if os.environ.get("RMSPROP_GRAVES_LAUNCHED_BY") == "%x %s" % (sys.hexversion, sys.prefix):  # noqa: UP031
    # Found by the parent where it may not be found here.
    _root = os.path.dirname(os.path.dirname(os.path.dirname(_startup)))
    sys.path.append(_root)
    try:
        from rmsprop_graves import _take_over
    except ImportError:
        pass
    else:
        _take_over.launch()
    sys.path.remove(_root)

# The one that is found without this file is run, too.
_this = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # noqa: F401
except ImportError as error:
    if getattr(error, "name", "sitecustomize") != "sitecustomize":
        raise
finally:
    sys.modules.setdefault("sitecustomize", _this)
