"""Time an update on a GPU by this package, Chainer and torch, in turn, in one process: python -m benchmarks --gpu.

Three times are measured. The device time is between two CUDA events, after enough other work that the device never
waits for the host. The host time ends when the call returns. The wall-clock time is the mean of several calls with
one synchronization. It is about the larger of the other two, or more if device and host wait for each other.
"""

from __future__ import annotations

import functools
import gc
import random
import time
from typing import Any, Callable, Iterator, NamedTuple

import chainer
import numpy
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves

from benchmarks import machine, models
from benchmarks.libraries import ALPHA, EPS, LR, MOMENTUM, CompiledStep, forget_compiled, in_one_line, nothing
from rmsprop_graves import RMSpropGraves, __version__

OURS, PER_PARAMETER, CHAINER = "ours", "ours, per parameter", "Chainer"
EAGER = FOREACH, CAPTURABLE, GRAPH = "torch, foreach", "torch, foreach, capturable", "torch, capturable, in a graph"
BY_COMPILER = COMPILED, COMPILED_GRAPH = "torch, compiled", "torch, compiled, in a graph"
TORCH = EAGER + BY_COMPILER
COPY = "copy"
# float16 parameters with `use_fp32_update`, and a loss scale, which divides each gradient before the step.
MASTERS = "float16 with fp32 masters"
SCALED = "with a loss scale"

SIZES = {"one million": 10**6, "ten million": 10**7, "a hundred million": 10**8}
CASES: list[tuple[str, models.Shapes, str]] = [
    *((name, [(size,)], "float32") for name, size in SIZES.items()),
    *((name, shapes, "float32") for name, shapes in models.REAL.items()),
    ("a hundred million", [(10**8,)], "float16"),
    ("a hundred million", [(10**8,)], "float64"),
    ("ResNet-50", models.REAL["ResNet-50"], "float16"),
    ("ResNet-50", models.REAL["ResNet-50"], MASTERS),
    ("ResNet-50", models.REAL["ResNet-50"], f"{MASTERS} and {SCALED}"),
    ("ResNet-50", models.REAL["ResNet-50"], f"float32 {SCALED}"),
]
QUICK = 2
ROUNDS = 21
# The host time is the mean of this many calls, few enough that they do not fill the queue of launches.
CALLS = 4


class Contender(NamedTuple):
    """A way to update a model, or the copy that it is compared with.

    `prepare` is called before the timings of each round, and is not timed itself.
    """

    name: str
    update: Callable[[], Any]
    nbytes: int
    prepare: Callable[[], Any] = nothing


# Yields the contenders of a model and kind. Its last argument is a function that records why one is left out.
Contenders = Callable[[models.Shapes, str, Callable[[str], None]], Iterator[Contender]]


def why_not() -> str:
    """Return the reason why nothing can be measured, in one line, or an empty string."""
    try:
        import cupy

        return "" if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no CUDA device"
    except Exception as error:
        return in_one_line(error)


def contenders(shapes: models.Shapes, kind: str, leave_out: Callable[[str], None]) -> Iterator[Contender]:
    """Yield every contender for an update of these parameters."""
    yield from _contenders(shapes, kind)
    torch_is_left_out = why_torch_is_left_out()
    if torch_is_left_out:
        leave_out(f"torch ({torch_is_left_out})")
    else:
        yield from _torchs(shapes, kind, leave_out)


def measure(
    quick: bool = False,
    after_each: Callable[[dict[str, Any]], Any] = lambda results: None,
    cases: list[tuple[str, models.Shapes, str]] | None = None,
    contenders: Contenders = contenders,
) -> dict[str, Any]:
    """Time the contenders on each case (default: `CASES`). `after_each` gets the results so far after each case."""
    start = time.perf_counter()
    results: dict[str, Any] = {"machine": describe(), "left out": [], "cases": []}

    def leave_out(line: str) -> None:
        if line not in results["left out"]:
            results["left out"].append(line)
            print(f"Left out: {line}", flush=True)

    for name, shapes, kind in (CASES if cases is None else cases)[: QUICK if quick else None]:
        needed, free = _needed_memory(shapes, kind), _free_memory()
        if needed > free:
            leave_out(f"{name}, {kind} (needs {needed / machine.GB:.0f} GB, {free / machine.GB:.0f} GB are free)")
            continue
        print(f"{kind}, {name}", flush=True)
        made = list(contenders(shapes, kind, leave_out))
        seconds = _time_in_turn(made, rounds=3 if quick else ROUNDS)
        results["cases"].append(
            {
                "model": name,
                "kind": kind,
                "parameters": len(shapes),
                "elements": models.size(shapes),
                "bytes": {contender.name: contender.nbytes for contender in made},
                "seconds": seconds,
            }
        )
        del made
        results["minutes"] = (time.perf_counter() - start) / 60
        after_each(results)
    results["minutes"] = (time.perf_counter() - start) / 60
    return results


def _needed_memory(shapes: models.Shapes, kind: str) -> int:
    # Five arrays each for ours, Chainer and four torch optimizers; nine for the copy; five temporary ones of torch.
    return (5 * 6 + 9 + 5) * models.size(shapes) * max(4, _dtype(kind).itemsize)


def _free_memory() -> int:
    """Free all cached memory; return the free bytes of the device."""
    import cupy

    gc.collect()  # Chainer's links are reference cycles
    cupy.get_default_memory_pool().free_all_blocks()
    if not why_torch_is_left_out():
        import torch

        torch.cuda.empty_cache()
    return cupy.cuda.runtime.memGetInfo()[0]  # type: ignore[no-any-return]


def describe() -> dict[str, str]:
    """Describe the GPU, the host and the installed versions."""
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    name = properties["name"]
    return {
        "rmsprop-graves": __version__,
        "GPU": name.decode() if isinstance(name, bytes) else name,
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": str(properties["multiProcessorCount"]),
        "memory": f"{properties['totalGlobalMem'] / machine.GB:.0f} GB",
        "CUDA driver, runtime": f"{_cuda(runtime.driverGetVersion())}, {_cuda(runtime.runtimeGetVersion())}",
        **machine.describe_host(),
        "cupy": machine.version("cupy-cuda13x", "cupy-cuda12x", "cupy"),
        **{name: machine.version(name) for name in ("numpy", "chainer", "torch")},
    }


def why_torch_is_left_out() -> str:
    """Return the reason why torch cannot use the GPU, in one line, or an empty string."""
    try:
        import torch

        return "" if torch.cuda.is_available() else "it finds no CUDA device"
    except Exception as error:
        return in_one_line(error)


def _contenders(shapes: models.Shapes, kind: str) -> Iterator[Contender]:
    dtype, nbytes = _dtype(kind), _moved_bytes(shapes, kind)
    for name, optimizer_class in ((OURS, RMSpropGraves), (CHAINER, ChainerRMSpropGraves)):
        optimizer = optimizer_class(LR, ALPHA, MOMENTUM, EPS).setup(_link(shapes, dtype))
        if kind.startswith(MASTERS):
            optimizer.use_fp32_update()
        if kind.endswith(SCALED):
            for param in optimizer.target.params():
                param._loss_scale = 1.0  # backward sets it in training; 1, because the gradients are used again
        yield Contender(name, optimizer.update, nbytes)
        if name == OURS:
            yield Contender(PER_PARAMETER, functools.partial(_update_each, list(optimizer.target.params())), nbytes)
    yield Contender(COPY, _copy(nbytes), nbytes)


def _dtype(kind: str) -> numpy.dtype:
    return numpy.dtype(kind.split()[0])


def _moved_bytes(shapes: models.Shapes, kind: str) -> int:
    """Return the bytes of an update that reads five arrays and writes four, each once."""
    # With a master, parameter and gradient are float16; the master and the three states are float32.
    of_one = 3 * 2 + 8 * 4 if kind.startswith(MASTERS) else 9 * _dtype(kind).itemsize
    return of_one * models.size(shapes)


def _link(shapes: models.Shapes, dtype: numpy.dtype) -> chainer.Link:
    import cupy

    link = chainer.Link()
    with link.init_scope():
        for place, shape in enumerate(shapes):
            param = chainer.Parameter(cupy.asarray(_draw(shape, dtype, 0)))
            param.grad = cupy.asarray(_draw(shape, dtype, 1))
            setattr(link, f"param{place:03}", param)
    return link


def _draw(shape: tuple[int, ...], dtype: numpy.dtype, seed: int) -> numpy.ndarray:
    # Repeat a million numbers: to draw a hundred million would take longer than to time them.
    return numpy.resize(numpy.random.default_rng(seed).standard_normal(999_983, "float32").astype(dtype), shape)


def _update_each(params: list[chainer.Parameter]) -> None:
    for param in params:
        param.update()


def _torchs(shapes: models.Shapes, kind: str, leave_out: Callable[[str], None]) -> Iterator[Contender]:
    if kind.endswith((MASTERS, SCALED)):
        return
    import torch

    dtype = _dtype(kind)
    step: Callable[[], Any] = nothing
    for name in TORCH:
        try:
            if name == COMPILED_GRAPH:
                update = _captured(step)  # the step of the contender before
            else:
                params = [torch.tensor(_draw(shape, dtype, 0), device="cuda", requires_grad=True) for shape in shapes]
                for param, shape in zip(params, shapes):
                    param.grad = torch.tensor(_draw(shape, dtype, 1), device="cuda")
                optimizer = torch.optim.RMSprop(
                    params, LR, ALPHA, EPS, 0, MOMENTUM, centered=True, foreach=True, capturable=name != FOREACH
                )
                step = optimizer.step
                if name == COMPILED:
                    forget_compiled()
                    step = CompiledStep(step)
                update = _captured(step) if name == GRAPH else step
            update()
            torch.cuda.synchronize()
        except Exception as error:  # for example a GPU for which torch was not built; the others are measured anyway
            leave_out(f"{name}, {kind} ({in_one_line(error)[:200]})")
            if name == COMPILED:
                return
        else:
            yield Contender(name, update, _moved_bytes(shapes, kind), functools.partial(_reset_mean, optimizer))


def _reset_mean(optimizer: Any) -> None:
    """Set torch's running mean of the gradient to zero: with constant gradients its step would lead to NaN."""
    for state in optimizer.state.values():
        state["grad_avg"].zero_()


def _captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """Capture a step in a CUDA graph; return a function that replays it."""
    import torch

    # torch requires a warm-up on another stream than the default one before a capture.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay  # type: ignore[no-any-return]


def _copy(nbytes: int) -> Callable[[], Any]:
    """Return a copy that reads and writes this many bytes in total."""
    import cupy

    source, target = (cupy.ones(nbytes // 2 // 4, "float32") for _ in range(2))
    return lambda: target.data.copy_from_device_async(source.data, source.nbytes)


def _time_in_turn(contenders: list[Contender], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of a call by contender, clock ("device", "host" or "wall") and round.

    Every round has a new random order. torch uses its default stream, which is the same as CuPy's.
    """
    spin = Spin()
    once = {contender.name: _warm_up(contender) for contender in contenders}
    seconds: dict[str, dict[str, list[float]]] = {
        contender.name: {"device": [], "host": [], "wall": []} for contender in contenders
    }
    order = random.Random(0)
    for _ in range(rounds):
        for contender in order.sample(contenders, len(contenders)):
            mine = seconds[contender.name]
            contender.prepare()
            mine["device"].append(_on_device(contender, spin, once[contender.name]))
            host, wall = _on_host(contender)
            mine["host"].append(host)
            mine["wall"].append(wall)
    return seconds


def _warm_up(contender: Contender) -> float:
    """Return the seconds of the third call. The first ones compile or make states."""
    for _ in range(3):
        _synchronize()
        start = time.perf_counter()
        contender.update()
        _synchronize()
        seconds = time.perf_counter() - start
    return seconds


def _on_device(contender: Contender, spin: Spin, once: float) -> float:
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    _synchronize()
    # Keep the device busy until the host is done.
    spin(2 * once + 1e-3)
    begin.record()
    contender.update()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / 1e3


def _on_host(contender: Contender) -> tuple[float, float]:
    _synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        contender.update()
    host = time.perf_counter() - start
    _synchronize()
    return host / CALLS, (time.perf_counter() - start) / CALLS


def _synchronize() -> None:
    import cupy

    cupy.cuda.Device().synchronize()


class Spin:
    """A kernel that keeps the device busy for some seconds."""

    def __init__(self) -> None:
        import cupy

        # `clock64` counts cycles, whose rate varies between devices. The first call compiles; the second is timed.
        self._kernel = cupy.RawKernel(
            'extern "C" __global__ void spin(long long cycles) {'
            " const long long start = clock64(); while (clock64() - start < cycles) {} }",
            "spin",
        )
        self._cycles_per_second = 1e9
        for _ in range(2):
            _synchronize()
            start = time.perf_counter()
            self(0.05)
            _synchronize()
        self._cycles_per_second *= 0.05 / (time.perf_counter() - start)

    def __call__(self, seconds: float) -> None:
        """Launch the kernel without waiting for it."""
        self._kernel((1,), (1,), (numpy.int64(seconds * self._cycles_per_second),))


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
