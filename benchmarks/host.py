"""Host cost of an update: the microseconds that Python spends on each parameter, compared with Chainer's class.

Run it by `python -m benchmarks.host` from the repository's root. The rows on a GPU need CuPy but no GPU, because
no_device.py simulates one: arrays have no memory and kernels do nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy

from rmsprop_graves import RMSpropGraves, kernels  # isort: split

import chainer
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves

from benchmarks import models, no_device, report, timing
from benchmarks.libraries import ALPHA, CHAINER, EPS, LR, MOMENTUM, OURS, Contender, in_one_line

CLASSES = {CHAINER: ChainerRMSpropGraves, OURS: RMSpropGraves}
# Parameters are small, so that nearly all time is spent in Python.
SHAPES = models.SYNTHETIC["200 of 100"]
MODELS = ("200 of 100", "200 of 4,096", "120 of 65,536")


def measure(quick: bool = False) -> dict[str, Any]:
    """Time every row on the CPU and, if CuPy can be imported, on the simulated GPU of no_device.py.

    The process cannot use a real GPU afterwards.

    Args:
        quick: Take three rounds, with one of the models, only to check that it runs (default: False).

    Returns:
        A dict. ``rows``: for each row its name and, by contender, the microseconds per parameter in every round.
        ``left out``: a line with the reason for each measurement that is left out.
    """
    results: dict[str, Any] = {"rows": [], "left out": []}

    def take(what: str, updates: dict[str, Callable[[], Any]], parameters: int = 1) -> None:
        contenders = [Contender(name, 1, update) for name, update in updates.items()]
        seconds = timing.time_in_turn(contenders, budget=0 if quick else 2, fewest=3 if quick else 15)
        microseconds = {name: [1e6 * one / parameters for one in times] for name, times in seconds.items()}
        results["rows"].append({"what": what, "microseconds": microseconds})

    for name in MODELS[: 1 if quick else None]:
        shapes = models.SYNTHETIC[name]
        take(
            f"CPU: whole update, {name}",
            _each(lambda cls, shapes=shapes: _model(cls, numpy, shapes).update),
            len(shapes),
        )
    for what, updates in _special(numpy):
        take(f"CPU: {what}", updates)
    try:
        no_device.install()
        import cupy
    except Exception as error:
        results["left out"].append(f"the rows on a GPU ({in_one_line(error)})")
        return results
    take(f"GPU: whole update, {len(SHAPES)} of 100", _each(lambda cls: _model(cls, cupy, SHAPES).update), len(SHAPES))
    for what, updates in _special(cupy):
        take(f"GPU: {what}", updates)
    take("GPU: packing of one launch", {OURS: _launch(cupy)})
    return results


def measure_in_a_process(quick: bool = False) -> dict[str, Any]:
    """Call `measure` in a process of its own, so that this one can still use a real GPU."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.host", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _each(update_of: Callable[[Any], Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    return {name: update_of(cls) for name, cls in CLASSES.items()}


def _model(cls: Any, xp: Any, shapes: models.Shapes, dtype: str = "float32") -> Any:
    """Return an optimizer of a model whose parameters have gradients, with the arrays of `xp`."""
    random = numpy.random.default_rng(0)
    link = chainer.Link()
    with link.init_scope():
        for place, shape in enumerate(shapes):
            array, grad = (xp.asarray(random.standard_normal(shape, "float32").astype(dtype)) for _ in range(2))
            param = chainer.Parameter(array)
            param.grad = grad
            setattr(link, f"param{place:03}", param)
    return cls(LR, ALPHA, MOMENTUM, EPS).setup(link)


def _special(xp: Any) -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    """Yield updates of one parameter by `param.update()`: plain, with a rule's hook, and with a float32 master."""

    def plain(cls: Any) -> Any:
        return next(_model(cls, xp, SHAPES[:1]).target.params())

    def hooked(cls: Any) -> Any:
        param = plain(cls)
        param.update_rule.add_hook(lambda rule, param: None, "nothing")
        return param

    def master(cls: Any) -> Any:
        optimizer = _model(cls, xp, SHAPES[:1], "float16")
        optimizer.use_fp32_update()
        return next(optimizer.target.params())

    for what, make in (("plain", plain), ("own rule hook", hooked), ("fp32 master", master)):
        yield f"param.update(), {what}", _each(lambda cls, make=make: make(cls).update)


def _launch(xp: Any) -> Callable[[], Any]:
    """Return a function that repeats the last launch of a model's update."""
    # A private name, because no public call does this alone.
    table = kernels.on_gpu().Table
    method, arguments = table._launch, []

    def record(*given: Any) -> Any:
        arguments[:] = given
        return method(*given)

    optimizer = _model(RMSpropGraves, xp, SHAPES)
    optimizer.update()
    table._launch = record
    try:
        optimizer.update()
    finally:
        table._launch = method
    return lambda: method(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, only to check that it runs")
    parser.add_argument("--json", action="store_true", help="print every round as JSON instead of the table")
    options = parser.parse_args()
    results = measure(options.quick)
    print(json.dumps(results) if options.json else report.host_costs(results))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # other libraries warn of future changes
    main()
