"""What every test runs under."""

from __future__ import annotations

from hypothesis import settings

# Chainer is imported through this package on every stack, as the README tells people to.
import rmsprop_graves  # noqa: F401  isort: skip

settings.register_profile("derandomized", derandomize=True, deadline=None)
settings.load_profile("derandomized")

