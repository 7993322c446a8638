"""The benchmark on a GPU, where there is none: that it runs and writes what it says, with times that mean nothing."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRule
from gpu_stand_in import Device, Gpu, Launch, RawKernel

from benchmarks import gpu, gpu_report
from rmsprop_graves.kernels import cupy as kernel


class Event:
    """cupy.cuda.Event."""

    def record(self):
        """Now."""
        self.at = time.perf_counter()

    def synchronize(self):
        """Nothing is ever late."""


class TimedGpu(Gpu):
    """A stand-in with what a benchmark asks for besides."""

    def __init__(self, folder):
        """Adds it."""
        super().__init__(folder)
        self.cuda.Event = Event
        self.cuda.get_elapsed_time = lambda begin, end: 1e3 * (end.at - begin.at)
        self.cuda.runtime = SimpleNamespace(
            getDevice=lambda: 0,
            getDeviceProperties=lambda device: {
                "name": b"a stand-in",
                "major": 9,
                "minor": 0,
                "multiProcessorCount": 1,
                "totalGlobalMem": 1e9,
            },
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 12090,
            memGetInfo=lambda: (self.free, self.free),
        )
        self.spins = []
        self.free = 10**9
        self.RawKernel = self.raw_kernel

    def install(self, patch):
        """Chainer's kernel is noted and not run."""
        super().install(patch)
        patch.setattr(ChainerRule, "_kernel", lambda *_: self.launches.append(Launch("Chainer's", 0, 0, -1, ())))

    def raw_kernel(self, source, name):
        """That of a table, or one that keeps a device busy."""
        if name == kernel.TABLE_NAME:
            return RawKernel(self, source, name)
        return lambda grid, block, arguments: self.spins.append(arguments) or time.sleep(1e-4)

    def ones(self, size, dtype):
        """What is copied."""
        data = SimpleNamespace(copy_from_device_async=lambda source, nbytes: None)
        return SimpleNamespace(data=data, nbytes=size * numpy.dtype(dtype).itemsize)

    def get_default_memory_pool(self):
        """What is given back."""
        return SimpleNamespace(free_all_blocks=lambda: None)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A GPU, and cases that it can do in a second."""
    made = TimedGpu(tmp_path)
    made.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setattr(Device, "synchronize", lambda self: None, raising=False)
    small = [("one", [(300,)], "float32"), ("many", [(3, place) for place in range(9)], "float32")]
    small += [("many", small[1][1], kind) for kind in ("float16", "float64", gpu.MASTERS)]
    monkeypatch.setattr(gpu, "CASES", small)
    monkeypatch.setattr(gpu, "ROUNDS", 3)
    monkeypatch.setattr(gpu, "why_torch_is_left_out", lambda: "it finds no CUDA device")
    return made


def test_every_contender_is_timed_on_every_case(stand_in):
    """On the device, the host and the wall, once in each round."""
    results = gpu.measure()
    assert [(case["model"], case["kind"]) for case in results["cases"]] == [
        (name, kind) for name, _, kind in gpu.CASES
    ]
    for case in results["cases"]:
        assert list(case["seconds"]) == [gpu.OURS, gpu.PER_PARAMETER, gpu.CHAINER, gpu.COPY]
        for seconds in case["seconds"].values():
            assert [len(seconds[kind]) for kind in ("device", "host", "wall")] == [gpu.ROUNDS] * 3
    assert results["left out"] == ["torch (it finds no CUDA device)"]
    assert (results["machine"]["GPU"], results["machine"]["CUDA driver, runtime"]) == ("a stand-in", "13.0, 12.9")
    assert stand_in.spins


def test_a_case_that_the_device_has_no_memory_for_is_left_out_with_a_line(stand_in, monkeypatch):
    """The others are measured."""
    monkeypatch.setattr(gpu, "CASES", [("huge", [(10**8,)], "float32"), gpu.CASES[0]])
    results = gpu.measure()
    assert results["left out"][1] == "huge, float32 (needs 16 GB, 1 GB are free)"
    assert [case["model"] for case in results["cases"]] == ["one"]


def test_ours_is_one_launch_and_the_others_are_one_for_each_parameter(stand_in, monkeypatch):
    """So that what is timed is what its name says."""
    monkeypatch.setattr(gpu, "CASES", gpu.CASES[1:2])
    for contender in gpu._contenders(gpu.CASES[0][1], "float32", torch=False):
        for _ in range(2):
            stand_in.launches.clear()
            contender.update()
        names = [launch.name for launch in stand_in.launches]
        assert (
            names
            == {
                gpu.OURS: [kernel.TABLE_NAME],
                gpu.PER_PARAMETER: [kernel.NAME] * 9,
                gpu.CHAINER: ["Chainer's"] * 9,
                gpu.COPY: [],
            }[contender.name]
        )


def test_a_table_json_and_a_picture_are_written(stand_in, tmp_path):
    """Of every case and contender, without a hole."""
    results = gpu.measure(quick=True)
    pytest.importorskip("matplotlib")
    written = gpu_report.write(results, tmp_path)
    assert [path.name for path in written] == ["gpu.md", "gpu.json", "gpu.png"]
    assert json.loads(written[1].read_text(encoding="utf-8"))["cases"][1]["parameters"] == 9
    text = written[0].read_text(encoding="utf-8")
    for name in ("a stand-in", "| one | float32 | 1 |", "| many | float32 | 9 |", "Left out: torch", gpu.COPY):
        assert name in text
    assert "nan" not in text


def test_ratios_are_taken_round_by_round():
    """Ours took half of Chainer's time in the first round and a quarter in the second, and all of the copy's."""
    case = {
        "seconds": {
            gpu.OURS: {"wall": [1.0, 2.0], "device": [1.0, 1.0]},
            gpu.CHAINER: {"wall": [2.0, 8.0], "device": [1.0, 1.0]},
            gpu.COPY: {"wall": [], "device": [1.0, 1.0]},
            gpu.FOREACH: {"wall": [], "device": [5.0, 5.0]},
            gpu.GRAPH: {"wall": [], "device": [4.0, 4.0]},
        }
    }
    assert gpu_report.ratios(case, gpu.CHAINER, gpu.OURS, "wall") == [2, 4]
    assert gpu_report.shares(case, gpu.OURS) == [1, 1]
    assert gpu_report.best_torch(case) == gpu.GRAPH
