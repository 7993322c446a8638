"""Times an update by each kernel and by Chainer's own class, in turn, in one process.

Run it as `make bench`, or as `python -m benchmarks` where the package is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from statistics import median

import numpy

import rmsprop_graves
from rmsprop_graves import RMSpropGraves, kernels

import chainer  # isort: skip - importable once rmsprop_graves has been imported
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves  # isort: skip

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def main() -> None:
    """Prints one table for each dtype, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds of small sizes, to see that it runs")
    options = parser.parse_args()
    sizes, rounds = (SIZES[:4], 3) if options.quick else (SIZES, 15)

    kernel_names = ["numpy"] if importlib.util.find_spec("numba") is None else ["numpy", "numba"]

    print(
        f"rmsprop_graves {rmsprop_graves.__version__}, Chainer {chainer.__version__}, NumPy {numpy.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}\n"
    )
    for dtype in ("float32", "float64"):
        print(f"{dtype}: rule.update() of one parameter, nanoseconds per element, median (minimum to maximum)\n")
        print("| elements | Chainer |" + "".join(f" {name} kernel | times faster |" for name in kernel_names))
        print("|---:|---:|" + "---:|---:|" * len(kernel_names))
        for size in sizes:
            update = make_update(RMSpropGraves, size, dtype)
            # Chainer's class does not ask which kernel is in use.
            chainers = use("numpy", make_update(ChainerRMSpropGraves, size, dtype))
            chainers, *ours = time_in_turn([chainers, *(use(name, update) for name in kernel_names)], size, rounds)
            row = f"| {size:,} | {summary(chainers, size)} |"
            for seconds in ours:
                # The ratio is taken round by round, so that a machine whose speed drifts does not count.
                ratio = median(a / b for a, b in zip(chainers, seconds))
                row += f" {summary(seconds, size)} | {ratio:.2f} |"
            print(row, flush=True)
        print()


def use(kernel_name, update):
    """The update by one kernel: chosen at the first call of a round, which is not timed."""

    def prepare():
        kernels.use_on_cpu(kernel_name)
        update()
        return update

    return prepare


def make_update(optimizer_class, size, dtype):
    """One parameter's update, by its rule, with a gradient that was trained with for a while."""
    rng = numpy.random.RandomState(0)
    param = chainer.Parameter(rng.standard_normal(size).astype(dtype))
    param.grad = rng.standard_normal(size).astype(dtype)
    param.update_rule = optimizer_class().create_update_rule()
    param.update()
    return param.update


def time_in_turn(prepares, size, rounds):
    """Seconds for a call of what each of `prepares` returns, in each round, with calls enough to be measured."""
    calls = max(1, 2_000_000 // (size + 10_000))
    seconds = [[] for _ in prepares]
    for round_ in range(rounds + 1):
        for prepare, times in zip(prepares, seconds):
            function = prepare()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            if round_ > 0:  # the first warms up
                times.append((time.perf_counter() - start) / calls)
    return seconds


def summary(seconds, size):
    low, middle, high = (1e9 * value / size for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    main()
