"""The properties of the machine and the package versions that affect the times."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

GB = 1e9
_PACKAGES = ("numpy", "numba", "chainer", "torch", "jax", "optax")


def describe(threads: int) -> dict[str, str]:
    """Describe CPU, memory and packages. Names of the machine and its users are not included."""
    sizes = cache_sizes()
    memory = _memory("MemTotal")
    return {
        **describe_host(),
        "threads": str(threads),
        "caches": ", ".join(f"{name} {_binary(size)}" for name, size in sizes.items()) or "unknown",
        "memory": "unknown" if memory is None else f"{memory / GB:.0f} GB",
        **{name: version(name) for name in _PACKAGES},
    }


def describe_host() -> dict[str, str]:
    """Describe the CPU, the system and Python."""
    return {
        "CPU": _cpu(),
        "cores usable": str(_cores()),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}, {platform.machine()}",
        "Python": platform.python_version(),
    }


def cache_sizes() -> dict[str, int]:
    """Return the bytes of each level of the first core's data caches; empty if the system is not Linux."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}"] = 1024 * int(size[:-1])
    return sizes


def available_memory() -> int | None:
    return _memory("MemAvailable")


def _memory(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _binary(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def version(*names: str) -> str:
    """Return the version of the first of these packages that is installed, or ``'absent'``."""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "absent"
