"""The benchmark on a CPU: floor, hooks, host cost, the compiled torch step, and the report."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from interpreter import run_python

from benchmarks import floor, hooks, libraries, report
from rmsprop_graves import RMSpropGraves

HAS_CUPY = importlib.util.find_spec("cupy") is not None
needs_cupy = pytest.mark.skipif(not HAS_CUPY, reason="CuPy is not installed")

# The benchmarks are not part of the installed package.
FIND = f"import sys; sys.path.append({str(Path(__file__).resolve().parents[1])!r})\n"
# This makes CuPy's kernels do nothing, also on a machine with a GPU, so it runs in a process of its own.
LAUNCHES = """
import json
from rmsprop_graves import RMSpropGraves
from benchmarks import host, no_device
no_device.install()
import cupy
launches = {}
for name, cls in host.CLASSES.items():
    update = host._model(cls, cupy, [(3, 4), (5,), (2,)]).update
    for _ in range(3):
        before = no_device.Kernel.launches
        update()
    launches[name] = no_device.Kernel.launches - before
print(json.dumps(launches))
"""


def test_every_row_is_measured_or_left_out_with_its_reason():
    """Rows are whole updates and single parameters on a CPU and, with CuPy, the same on a simulated GPU."""
    stdout, _ = run_python(f"{FIND}from benchmarks import host; print(host.json.dumps(host.measure(quick=True)))")
    results = json.loads(stdout)
    names = [row["what"] for row in results["rows"]]
    steps = [f"param.update(), {kind}" for kind in ("plain", "own rule hook", "fp32 master")]
    expected = ["CPU: whole update, 200 of 100", *(f"CPU: {step}" for step in steps)]
    if HAS_CUPY:
        expected += ["GPU: whole update, 200 of 100", *(f"GPU: {step}" for step in steps)]
        expected += ["GPU: packing of one launch"]
    else:
        assert "cupy" in results["left out"][0]
    assert names == expected
    for row in results["rows"]:
        assert libraries.OURS in row["microseconds"]
        for microseconds in row["microseconds"].values():
            assert len(microseconds) == 3
            assert min(microseconds) > 0


@needs_cupy
def test_the_simulated_gpu_gets_as_many_launches_as_a_real_one():
    """This package makes one launch for the whole model, Chainer's class one for each parameter."""
    stdout, _ = run_python(FIND + LAUNCHES)
    assert json.loads(stdout) == {libraries.OURS: 1, libraries.CHAINER: 3}


def test_a_row_shows_the_median_of_the_ratios_of_its_rounds():
    """It is not the ratio of the medians, because the machine may be slow in one round."""
    row = {"what": "a step", "microseconds": {libraries.CHAINER: [2, 40, 9], libraries.OURS: [1, 10, 3]}}
    only_ours = {"what": "packing", "microseconds": {libraries.OURS: [5, 5, 5]}}
    table = report.host_costs({"rows": [row, only_ours], "left out": ["the rest (no reason)"]})
    assert "| a step | 9 (5.5 to 24.5) | 3 (2 to 6.5) | 3 (2.5 to 3.5) |" in table
    assert "| packing | - | 5 (5 to 5) | - |" in table
    assert "Left out: the rest (no reason)." in table


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch calls it itself
def test_a_step_that_torch_compiles_again_is_an_error():
    """torch compiles again after a number in the step has changed. The time would then include the compilation."""
    torch = pytest.importorskip("torch")
    param = torch.ones(3, requires_grad=True)
    param.grad = torch.ones(3)
    optimizer = torch.optim.RMSprop([param], 1e-3, centered=True, momentum=0.9)
    step = libraries.CompiledStep(optimizer.step)
    step.check()
    optimizer.param_groups[0]["momentum"] = 0.5
    step()
    with pytest.raises(RuntimeError, match="must make graphs: 1, made 2"):
        step.check()


@pytest.fixture
def small_floor():
    """Return a floor with arrays of three spans each, of the smaller size."""
    pytest.importorskip("numba")
    return floor.Floor(2, bytes_each=1_200_000)


def test_the_floor_adds_the_gradient_to_four_arrays(small_floor):
    """Every way reads and writes each element once, also with threads and spans."""
    ways = small_floor.measure(rounds=1)
    assert len({tuple(way[key] for key in ("loop", "shift", "threads", "span")) for way in ways}) == len(ways) == 18
    for way in ways:
        arrays = small_floor.placements[way["shift"]]
        for place, array in enumerate(arrays):
            array[:] = numpy.arange(array.size) + place
        small_floor.run(way["loop"], way["shift"], way["threads"], way["span"])
        grad, *written = arrays
        assert sum(array.nbytes for array in arrays) == 5 * 1_200_000
        numpy.testing.assert_array_equal(grad, numpy.arange(grad.size))
        for place, array in enumerate(written, 1):
            numpy.testing.assert_array_equal(array, 2 * grad + place)


def test_the_floor_is_the_fastest_way_of_as_many_threads(small_floor, monkeypatch):
    """A faster way with more threads does not count."""
    way = {"loop": "by block", "shift": 64, "span": 1 << 19}
    measured = [
        {**way, "threads": 2, "GB/s": 50.0},
        {**way, "threads": 2, "GB/s": 49.0, "loop": "by element"},
        {**way, "threads": 1, "GB/s": 30.0, "shift": 0},
        {**way, "threads": 1, "GB/s": 20.0},
    ]
    calls = []
    monkeypatch.setattr(small_floor, "run", lambda **arguments: calls.append(arguments))
    one, two = small_floor.contenders(measured)
    one.update()
    two.update()
    assert (one.name, two.name) == ("floor, 1 threads", "floor, 2 threads")
    assert calls == [{**way, "threads": 1, "shift": 0}, {**way, "threads": 2}]


@pytest.mark.parametrize("optimizer_class", [ChainerRMSpropGraves, RMSpropGraves])
def test_hooks_change_the_gradients_in_every_call(optimizer_class):
    """Hooks on gradients that are already clipped would be faster than in training."""
    arrays = libraries.draw([(3, 4), (50,)], "float32")
    optimizer = hooks.Hooked(optimizer_class, arrays)
    of = {choice.name: choice for choice in hooks.CHOICES}
    params, grads = (numpy.concatenate([array.ravel() for array in column]) for column in arrays)

    def updated(choice, calls):
        contender = optimizer.contender("it", 1, of[choice], "numpy")
        contender.prepare()
        for _ in range(calls):
            contender.update()
        return numpy.concatenate([param.grad.ravel() for param in optimizer.link.params()])

    norm = numpy.linalg.norm(grads)
    numpy.testing.assert_allclose(updated("GradientClipping(5)", 3), grads / norm * 5 * 0.99**3, rtol=1e-5)
    numpy.testing.assert_array_equal(updated("none", 2), grads)
    numpy.testing.assert_allclose(updated("WeightDecay(1e-4)", 1), grads + 1e-4 * params, rtol=0, atol=1e-5)
    numpy.testing.assert_allclose(updated("both", 1), grads / norm * 4.95 + 1e-4 * params, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 0])
def test_torch_is_timed_with_its_own_clipping_and_decay(scale, monkeypatch):
    """Clipped gradients have the norm 5. With gradients of zero only weight decay moves the parameters."""
    torch = pytest.importorskip("torch")
    arrays = libraries.draw([(3, 4), (50,)], "float32")
    for grad in arrays.grads:
        grad *= scale
    monkeypatch.setattr(libraries, "_reasons", {libraries.TORCH_COMPILED: "it takes long"})
    model = hooks.TorchModel(arrays, 1)
    found = set()
    for choice, contender in model.contenders():
        before = [param.detach().clone() for param in model.params]
        contender.prepare()
        contender.update()
        norm = float(torch.cat([param.grad.flatten() for param in model.params]).norm())
        is_moved = not all(torch.equal(old, new) for old, new in zip(before, model.params))
        if scale:
            assert (abs(norm - 5) < 1e-3) is choice.clips
        else:
            assert is_moved is choice.decays
        found.add((contender.name, choice))
    assert found == {(name, choice) for name in libraries.TORCH for choice in hooks.CHOICES}


def test_hooks_are_compared_within_a_round():
    """The last column is our time over our time without hooks."""
    seconds = {"Chainer": [2, 40, 9], "ours, Numba": [1, 10, 3], "ours, NumPy": [2, 20, 9]}
    case = {"model": "a model", "hooks": "none", "seconds": seconds}
    both = {
        "model": "a model",
        "hooks": "both",
        "seconds": {name: [2 * one for one in of] for name, of in seconds.items()},
    }
    both["seconds"]["Chainer"] = [10, 100, 30]
    table = "\n".join(report._hook_ratios({"hooks": [case, both]}))
    assert "| a model | none | 3 (2.5 to 3.5) | - | - | 1 (1 to 1.5) | 1 (1 to 1) |" in table
    assert "| a model | both | 5 (5 to 5) | - | - | 2.5 (2.08 to 2.5) | 2 (2 to 2) |" in table


def test_the_readme_shows_every_processor_that_has_results():
    """Each processor has a section with the summary of its results and its pictures."""
    readme = report.README.read_text(encoding="utf-8")
    runs = sorted(report.FOLDER.glob("*/results.json"))
    assert runs
    for path in runs:
        results = json.loads(path.read_text(encoding="utf-8"))
        assert path.parent.name == report.folder_name(results["machine"]["CPU"])
        assert f"### {results['machine']['CPU']}\n\n{report.summary(results)}\n\n![" in readme
        for picture in ("time", "bandwidth"):
            assert f"(results/{path.parent.name}/{picture}.png)" in readme
