"""Prints how each client has fared; the status is 1 if one has not ended with the bits of Chainer's class."""

from __future__ import annotations

import os
import sys

# One thread, so that the bits of the gradients do not depend on what else the machine does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Chainer is importable from here on.
import rmsprop_graves  # noqa: F401  isort: skip

from clients.comparison import main

sys.exit(main())
