"""The benchmark of the host cost, and the benchmark's compiled torch step."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from interpreter import run_python

from benchmarks import libraries, report

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
    """Not the ratio of the medians: the machine may be slow in one round."""
    row = {"what": "a step", "microseconds": {libraries.CHAINER: [2, 40, 9], libraries.OURS: [1, 10, 3]}}
    only_ours = {"what": "packing", "microseconds": {libraries.OURS: [5, 5, 5]}}
    table = report.host_costs({"rows": [row, only_ours], "left out": ["the rest (no reason)"]})
    assert "| a step | 9 (5.5 to 24.5) | 3 (2 to 6.5) | 3 (2.5 to 3.5) |" in table
    assert "| packing | - | 5 (5 to 5) | - |" in table
    assert "Left out: the rest (no reason)." in table


def test_a_step_that_torch_compiles_again_is_an_error():
    """torch compiles again when a number in the step has changed, and would be timed while it compiles."""
    torch = pytest.importorskip("torch")
    param = torch.ones(3, requires_grad=True)
    param.grad = torch.ones(3)
    optimizer = torch.optim.RMSprop([param], 1e-3, centered=True, momentum=0.9)
    step = libraries.CompiledStep(optimizer)
    step.check()
    optimizer.param_groups[0]["momentum"] = 0.5
    step()
    with pytest.raises(RuntimeError, match="must make one graph of the step, made 2"):
        step.check()
