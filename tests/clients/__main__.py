"""Prints the result of each client; the exit status is 1 if one differs from Chainer's class in any bit."""

from __future__ import annotations

import os
import sys

# With one thread the bits of the gradients do not depend on the machine's load.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# This makes Chainer importable.
import rmsprop_graves  # noqa: F401  isort: skip

from clients.comparison import main

sys.exit(main())
