"""Time the import of this package and of Chainer alone, in turn, each in a new interpreter.

Run it by `python -m benchmarks.startup`. Chainer alone needs Python 3.11 or older, NumPy older than 1.24 and
setuptools older than 74. If it cannot be imported, only the times of this package are printed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

ALONE = "import chainer"
STATEMENTS = (ALONE, "import rmsprop_graves, chainer", "from rmsprop_graves import RMSpropGraves")
ROUNDS = 15


def main() -> None:
    run(*STATEMENTS)  # compiles the bytecode
    rounds = [run(*STATEMENTS) for _ in range(ROUNDS)]
    for statement in STATEMENTS:
        times = [seconds[statement] for seconds in rounds if statement in seconds]
        if not times:
            print(f"{statement}: cannot be imported here")
            continue
        line = f"{statement}: {1e3 * median(times):.0f} ms ({1e3 * min(times):.0f} to {1e3 * max(times):.0f})"
        if ALONE in rounds[0]:
            line += f", {median(seconds[statement] / seconds[ALONE] for seconds in rounds):.2f} of {ALONE}"
        print(line)


def run(*statements):
    seconds = {}
    for statement in statements:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", statement], capture_output=True, check=False)
        if done.returncode == 0:
            seconds[statement] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    main()
