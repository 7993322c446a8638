"""Numba's cache on disk with a checksum: damaged machine code could crash the process."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps


class _WithChecksum(CompileResultCacheImpl):  # type: ignore[misc]
    def reduce(self, cres: Any) -> tuple[bytes, bytes]:
        data = dumps(super().reduce(cres))
        return hashlib.sha256(data).digest(), data

    def rebuild(self, target_context: Any, payload: tuple[bytes, bytes]) -> Any:
        checksum, data = payload
        if hashlib.sha256(data).digest() != checksum:
            raise ValueError("its checksum differs")
        return super().rebuild(target_context, pickle.loads(data))


class Cache(FunctionCache):  # type: ignore[misc]
    """The cache of one function. It replaces the one that Numba gives the function.

    Raises:
        RuntimeError: Numba finds no folder for the cache.
        ValueError: Loading found that a file is damaged.
    """

    _impl_class = _WithChecksum
