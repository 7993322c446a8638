"""The GPU benchmark on a stand-in for a GPU: it runs and writes its results, but the times mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRule
from gpu_stand_in import Device, Gpu, Launch, RawKernel
from kernels import cpp, nvrtc
from skips import not_installed

from benchmarks import gpu, gpu_report, sweep
from benchmarks.__main__ import main as benchmarks_main
from rmsprop_graves.kernels import cuda as cuda_text


class Event:
    """cupy.cuda.Event."""

    def record(self):
        """Record the current time."""
        self.at = time.perf_counter()

    def synchronize(self):
        """Return at once: the stand-in has done its work already."""


class TimedGpu(Gpu):
    """The stand-in, with the other parts of CuPy that the benchmark uses."""

    def __init__(self, folder):
        """Add the parts that the stand-in lacks."""
        super().__init__(folder)
        self.cuda.Event = Event
        self.cuda.get_elapsed_time = lambda begin, end: 1e3 * (end.at - begin.at)
        self.cuda.runtime = SimpleNamespace(
            getDevice=lambda: 0,
            getDeviceCount=lambda: 1,
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
        self.spins, self.copied = [], []
        self.free = 10**9
        self.RawKernel = self.raw_kernel

    def install(self, patch):
        """Install the stand-in; Chainer's kernel is recorded but not run."""
        super().install(patch)
        patch.setattr(ChainerRule, "_kernel", lambda *_: self.launches.append(Launch("Chainer's", 0, 0, -1, ())))

    def raw_kernel(self, source, name):
        """Make a table's kernel, or one that keeps the device busy."""
        if name == cuda_text.TABLE_NAME:
            return RawKernel(self, source, name)
        return lambda grid, block, arguments: self.spins.append(arguments) or time.sleep(1e-4)

    def ones(self, size, dtype):
        """Make an array that records its copies."""
        data = SimpleNamespace(copy_from_device_async=lambda source, nbytes: self.copied.append(nbytes))
        return SimpleNamespace(data=data, nbytes=size * numpy.dtype(dtype).itemsize)

    def get_default_memory_pool(self):
        """Return a pool that has nothing to free."""
        return SimpleNamespace(free_all_blocks=lambda: None)


# So few that a large array of `sweep` has more chunks than a persistent kernel has blocks.
PROCESSORS = 2


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return the stand-in, with cases that take about a second."""
    made = TimedGpu(tmp_path)
    made.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setattr(Device, "synchronize", lambda self: None, raising=False)
    monkeypatch.setattr(Device, "attributes", {"MultiProcessorCount": PROCESSORS}, raising=False)
    small = [("one", [(300,)], "float32"), ("many", [(3, place) for place in range(9)], "float32")]
    kinds = "float16", "float64", gpu.MASTERS, f"{gpu.MASTERS} and {gpu.SCALED}", f"float32 {gpu.SCALED}"
    small += [("many", small[1][1], kind) for kind in kinds]
    monkeypatch.setattr(gpu, "CASES", small)
    monkeypatch.setattr(gpu, "ROUNDS", 3)
    monkeypatch.setattr(gpu, "why_torch_is_left_out", lambda: "it finds no CUDA device")
    return made


def test_every_contender_is_timed_on_every_case(stand_in):
    """Each round has a time on the device, on the host and by the wall clock."""
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


def test_a_case_that_needs_too_much_memory_is_left_out_with_a_line(stand_in, monkeypatch):
    """The other cases are measured."""
    monkeypatch.setattr(gpu, "CASES", [("huge", [(10**8,)], "float32"), gpu.CASES[0]])
    results = gpu.measure()
    assert results["left out"][0] == "huge, float32 (needs 18 GB, 1 GB are free)"
    assert [case["model"] for case in results["cases"]] == ["one"]


def test_ours_is_one_launch_and_the_others_are_one_for_each_parameter(stand_in, monkeypatch):
    """The copy launches no kernel."""
    monkeypatch.setattr(gpu, "CASES", gpu.CASES[1:2])
    for contender in gpu._contenders(gpu.CASES[0][1], "float32"):
        for _ in range(2):
            stand_in.launches.clear()
            contender.update()
        names = [launch.name for launch in stand_in.launches]
        assert (
            names
            == {
                gpu.OURS: [cuda_text.TABLE_NAME],
                gpu.PER_PARAMETER: [cuda_text.NAME] * 9,
                gpu.CHAINER: ["Chainer's"] * 9,
                gpu.COPY: [],
            }[contender.name]
        )


def test_a_table_json_and_a_picture_are_written(stand_in, tmp_path):
    """They contain every case and every contender, and no NaN."""
    results = gpu.measure(quick=True)
    pytest.importorskip("matplotlib", reason=not_installed("matplotlib"))
    written = gpu_report.write(results, tmp_path)
    assert [path.name for path in written] == ["gpu.md", "gpu.json", "gpu.png"]
    assert json.loads(written[1].read_text(encoding="utf-8"))["cases"][1]["parameters"] == 9
    text = written[0].read_text(encoding="utf-8")
    for name in ("a stand-in", "| one | float32 | 1 |", "| many | float32 | 9 |", "Left out: torch", gpu.COPY):
        assert name in text
    assert "nan" not in text


def test_ratios_are_taken_round_by_round():
    """Ours takes half of Chainer's time in one round and a quarter in the other. On the device it equals the copy."""
    case = {
        "seconds": {
            gpu.OURS: {"wall": [1.0, 2.0], "device": [1.0, 1.0]},
            gpu.CHAINER: {"wall": [2.0, 8.0], "device": [1.0, 1.0]},
            gpu.COPY: {"wall": [], "device": [1.0, 1.0]},
            gpu.FOREACH: {"wall": [], "device": [5.0, 5.0]},
            gpu.GRAPH: {"wall": [], "device": [4.0, 4.0]},
            gpu.COMPILED: {"wall": [8.0, 8.0], "device": [2.0, 2.0]},
            gpu.COMPILED_GRAPH: {"wall": [7.0, 7.0], "device": [3.0, 3.0]},
        }
    }
    assert gpu_report.ratios(case, gpu.CHAINER, gpu.OURS, "wall") == [2, 4]
    assert gpu_report.shares(case, gpu.OURS) == [1, 1]
    assert gpu_report.best(case, gpu.EAGER) == gpu.GRAPH
    by_clock = [gpu_report.best(case, gpu.BY_COMPILER, clock) for clock in ("device", "wall")]
    assert by_clock == [gpu.COMPILED, gpu.COMPILED_GRAPH]
    assert gpu_report.best({"seconds": {}}, gpu.TORCH) is None


def test_bandwidths_count_the_bytes_that_are_moved(stand_in):
    """An update moves nine arrays, or with masters three of float16 and eight of float32. A copy moves as much."""
    for kind, of_one in (("float32", 36), ("float64", 72), ("float16", 18), (gpu.MASTERS, 38)):
        for contender in gpu._contenders([(1000,), (24,)], kind):
            assert contender.nbytes == of_one * 1024
            if contender.name == gpu.COPY:
                contender.update()
    assert stand_in.copied == [of_one * 1024 // 2 for of_one in (36, 72, 18, 38)]


class Clock:
    """A clock that only the test advances."""

    now = 0.0

    def perf_counter(self):
        """Return the time, as `time.perf_counter` does."""
        return self.now

    def sleep(self, seconds):
        """Advance the clock."""
        self.now += seconds


def test_times_are_seconds_of_one_call(stand_in, monkeypatch):
    """A call takes 2 s on the host and 3 s on the device, which is kept busy until the host is done."""
    clock, log = Clock(), []
    monkeypatch.setattr(gpu, "time", clock)
    stand_in.cuda.Event = lambda: SimpleNamespace(record=lambda: log.append("event"), synchronize=lambda: None)
    stand_in.cuda.get_elapsed_time = lambda begin, end: 3000.0
    contender = gpu.Contender("one", lambda: log.append("update") or clock.sleep(2), 1)
    assert gpu._on_device(contender, lambda seconds: log.append(f"spin {seconds}"), 5.0) == 3
    assert log == ["spin 10.001", "event", "update", "event"]
    monkeypatch.setattr(gpu, "_synchronize", lambda: clock.sleep(4))
    assert gpu._on_host(contender) == (2, 3)  # four calls, then 4 s for the device


def test_a_contender_is_prepared_before_its_timings_of_a_round(stand_in, monkeypatch):
    """The first three calls warm it up."""
    log = []
    contender = gpu.Contender("one", lambda: log.append("update"), 1, lambda: log.append("prepare"))
    gpu._time_in_turn([contender], rounds=2)
    assert log == ["update"] * 3 + ["prepare", *["update"] * (1 + gpu.CALLS)] * 2


def test_torch_is_left_out_with_a_line_if_it_fails(stand_in, monkeypatch):
    """The other contenders are measured. torch fails, for example, on a GPU for which it was not built."""

    def fail(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(tensor=fail))
    monkeypatch.setattr(gpu, "why_torch_is_left_out", lambda: "")
    monkeypatch.setattr(gpu, "_free_memory", lambda: 10**9)
    monkeypatch.setattr(gpu, "CASES", gpu.CASES[:1])
    results = gpu.measure()
    assert results["left out"] == [
        f"{name}, float32 (RuntimeError: no kernel image is available)"
        for name in gpu.TORCH
        if name != gpu.COMPILED_GRAPH
    ]
    assert list(results["cases"][0]["seconds"]) == [gpu.OURS, gpu.PER_PARAMETER, gpu.CHAINER, gpu.COPY]


def test_the_callback_gets_the_results_after_each_case(stand_in):
    """An interrupted run keeps the results of the finished cases."""
    numbers = []
    gpu.measure(quick=True, after_each=lambda results: numbers.append(len(results["cases"])))
    assert numbers == [1, 2]


VARIANTS = list(sweep.variants(PROCESSORS))
# CUDA's loads and stores with cache hints, which g++ does not know.
HINTS = """
struct alignas(16) uint4 { unsigned x, y, z, w; };
#define __ldcs(pointer) (*(pointer))
#define __ldcg(pointer) (*(pointer))
#define __ldlu(pointer) (*(pointer))
#define __stcs(pointer, value) (*(pointer) = (value))
"""


@pytest.fixture
def sweeping(stand_in, monkeypatch):
    """Return the stand-in, ready for the sweep."""
    monkeypatch.setattr(cpp, "DEFINITIONS", cpp.DEFINITIONS + HINTS)
    # CUDA's compiler allows memory to be read as another type.
    monkeypatch.setattr(cpp, "FLAGS", (*cpp.FLAGS, "-fno-strict-aliasing"))
    monkeypatch.setattr(sweep, "CASES", gpu.CASES[:2])
    sweep.why_not.cache_clear()
    yield stand_in
    sweep.why_not.cache_clear()


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(name, marks=pytest.mark.search) for name in ("f2", "f8"))]
)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_of_the_sweep_has_the_bits_of_the_numpy_kernel(sweeping, variant, dtype):
    """The edited CUDA source is compiled as C++ here."""
    assert sweep.why_not(variant, numpy.dtype(dtype)) == ""
    assert max(launch.grid for launch in sweeping.launches) <= variant.most


@pytest.fixture(scope="module")
def compiler():
    """NVRTC as CuPy uses it."""
    return nvrtc.Compiler()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_nvrtc_compiles_every_variant_of_the_sweep_to_the_rules_arithmetic(compiler, variant):
    """A variant may change only how work is loaded, stored and divided."""
    for dtype in cuda_text.DTYPES:
        with sweep.constants_of(variant):
            source = cuda_text.table_source(numpy.dtype(dtype).char)
        assert nvrtc.rounded_elements(compiler.compile(source, 90, headers=False).ptx, dtype) > 0


def test_variants_differ_in_name_and_in_more():
    """A pattern that is not in the CUDA source raises an error, so no variant is an unchanged kernel by mistake."""
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS) == len({variant[1:] for variant in VARIANTS})
    with pytest.raises(ValueError, match="the CUDA text must have 'no such text' 1 times, found it 0 times"):
        sweep._edited(("no such text", "", 1))


def test_a_variant_that_is_wrong_or_fails_is_left_out_with_a_line(sweeping, monkeypatch, tmp_path, capsys):
    """The other variants are timed on each case; the JSON and Markdown files have their times."""
    as_it_is, *_, persistent = VARIANTS
    wrong = sweep.Variant("wrong", sweep._edited((r"params\.lane\[k\]", "params.lane[0]", 1)))
    fails = sweep.Variant("fails", as_it_is.source + "no C++")
    monkeypatch.setattr(sweep, "variants", lambda processors: iter([as_it_is, wrong, fails, persistent]))
    output = tmp_path / "results"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--gpu", "--sweep", "--quick", "--output", str(output)])
    benchmarks_main()
    results = json.loads((output / "gpu_sweep.json").read_text(encoding="utf-8"))
    blocks = [f"one by one, blocks of {size}" for size in (128, 256, 512)]
    names = [sweep.AS_IT_IS, persistent.name, *blocks, gpu.COPY]
    assert [list(case["seconds"]) for case in results["cases"]] == [names] * 2
    assert results["left out"][0] == "wrong, float32 (its results are not bit-identical to the NumPy kernel's)"
    assert results["left out"][1].startswith("fails, float32 (AssertionError: ")
    assert len(results["left out"]) == 2
    text = (output / "gpu_sweep.md").read_text(encoding="utf-8")
    assert f"| {sweep.AS_IT_IS} | 1 (1 to 1) | 1 (1 to 1) |" in text
    assert "a stand-in: speed-up over the kernel as it is" in capsys.readouterr().out


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    """It prints an error and exits with the status of an invalid command line."""
    command = [sys.executable, "-m", "benchmarks", "--gpu", "--output", str(tmp_path / "results")]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "error: --gpu needs CuPy and a GPU: " in run.stderr
    assert not (tmp_path / "results").exists()
