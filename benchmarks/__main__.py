"""Time one update by this package, Chainer, torch and optax, alternately in one process.

Run it by `make bench`, or by `python -m benchmarks` from the repository's root. benchmarks/README.md describes the
measurements and shows the last run.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import warnings
from datetime import date
from itertools import chain
from pathlib import Path

import numpy

import rmsprop_graves  # isort: split - chainer is importable from here on
from benchmarks import floor, hooks, host, libraries, machine, models, report, timing, training
from rmsprop_graves import kernels

DTYPES = ("float32", "float64")
QUICK = ("200 of 100", "200 of 4,096")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="measure on a GPU instead, with CuPy")
    parser.add_argument("--sweep", action="store_true", help="with --gpu: time variants of the kernel of whole models")
    parser.add_argument("--quick", action="store_true", help="a few rounds of small models, to check that it runs")
    parser.add_argument("--report", action="store_true", help="measure nothing; write the pages of all results again")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: benchmarks/results/PROCESSOR; with --quick, a temporary folder)",
    )
    options = parser.parse_args()
    if options.report:
        print(f"Written: {', '.join(str(path) for path in report.write_all())}")
        return
    if options.sweep and not options.gpu:
        parser.error("--sweep needs --gpu")
    if options.gpu:
        from benchmarks import gpu, gpu_report, sweep

        if gpu.why_not():
            parser.error(f"--gpu needs CuPy and a GPU: {gpu.why_not()}")
    processor = report.FOLDER if options.gpu else report.FOLDER / report.folder_name(machine.describe_host()["CPU"])
    output = options.output or (Path(tempfile.mkdtemp()) if options.quick else processor)
    output.mkdir(parents=True, exist_ok=True)

    if options.gpu:
        reporter = sweep if options.sweep else gpu_report
        what = (sweep.CASES, sweep.contenders) if options.sweep else (gpu.CASES, gpu.contenders)
        results = gpu.measure(options.quick, lambda so_far: reporter.write(so_far, output), *what)
        written = reporter.write(results, output)
        print(f"\n{reporter.summary(results)}\nWritten: {', '.join(str(path) for path in written)}")
        return
    results = measure(options.quick)
    written = report.write(results, output)
    if output.resolve() == processor:
        written = report.write_all()
    print(f"\n{report.summary(results)}\nWritten: {', '.join(str(path) for path in written)}")


def measure(quick: bool) -> dict:
    start = time.perf_counter()
    threads = kernels.get_num_threads()
    if quick:
        libraries.leave_out(libraries.TORCH_COMPILED, "torch takes a minute to compile the step of each model")
    sizes = {**models.SYNTHETIC, **models.REAL}
    results: dict = {
        "machine": {
            "rmsprop-graves": rmsprop_graves.__version__,
            "date": f"{date.today()}",
            **machine.describe(threads),
        },
        "left out": [f"{name} ({reason})" for name, reason in libraries.left_out().items()],
        "floor": {},
        "threads": {},
        "cases": [],
        "hooks": [],
        "training": [],
    }
    for line in results["left out"]:
        print(f"Left out: {line}", flush=True)
    print("floor", flush=True)
    yardstick = floor.Floor(threads)
    results["floor"] = {"bytes": yardstick.moved_bytes, "ways": yardstick.measure(2 if quick else floor.ROUNDS)}
    floors = list(yardstick.contenders(results["floor"]["ways"]))
    for dtype in DTYPES:
        for name, shapes in sizes.items():
            if quick and name not in QUICK:
                continue
            if not fits(name, shapes, dtype, results["left out"]):
                continue
            print(f"{dtype}, {name}", flush=True)
            case, used = measure_case(name, shapes, dtype, threads, floors, quick)
            results["cases"].append(case)
            results["threads"].update(used)
    del floors, yardstick
    for name in hooks.MODELS[: 1 if quick else None]:
        if fits(f"{name} with hooks", sizes[name], "float32", results["left out"]):
            print(f"hooks, {name}", flush=True)
            results["hooks"] += hooks.measure_case(name, threads, quick)
    for network in training.NETWORKS:
        print(f"training, {network}", flush=True)
        times = training.time_in_turn(network, threads, 2 if quick else 15, 1 if quick else 3)
        results["training"] += [{"network": network, "optimizer": name, **seconds} for name, seconds in times.items()]
    print("host cost", flush=True)
    results["host"] = host.measure_in_a_process(quick)
    results["left out"] += results["host"]["left out"]
    results["minutes"] = (time.perf_counter() - start) / 60
    return results


def measure_case(name, shapes, dtype, threads, floors, quick):
    arrays = libraries.draw(shapes, dtype)
    contenders = list(chain.from_iterable(library(arrays, threads) for library in libraries.LIBRARIES))
    del arrays
    seconds = timing.time_in_turn([*contenders, *floors], **({"budget": 0, "fewest": 3} if quick else {"budget": 20}))
    used = {contender.name: contender.threads for contender in (*contenders, *floors)}
    # Free the memory for the next model. Chainer's links are reference cycles, so they need the collector.
    del contenders
    gc.collect()
    size = models.size(shapes)
    case = {
        "model": name,
        "dtype": dtype,
        "parameters": len(shapes),
        "elements": size,
        "bytes": 9 * numpy.dtype(dtype).itemsize * size,
        "seconds": seconds,
    }
    return case, used


def fits(name, shapes, dtype, left_out):
    """Return whether there is enough memory to measure a model. If not, add the reason to `left_out`."""
    needed, available = needed_memory(shapes, dtype), machine.available_memory()
    if available is None or needed <= available:
        return True
    left_out.append(f"{name}, {dtype} (needs {needed / 1e9:.0f} GB of memory, {available / 1e9:.0f} GB are free)")
    print(f"Left out: {left_out[-1]}", flush=True)
    return False


def needed_memory(shapes, dtype):
    # Two drawn arrays; five each for ours, Chainer, three torch contenders and optax; two temporary arrays.
    arrays = 2 + libraries.ARRAYS * 6 + 2
    return arrays * models.size(shapes) * numpy.dtype(dtype).itemsize


if __name__ == "__main__":
    # Other libraries warn of future changes.
    warnings.simplefilter("ignore")
    main()
