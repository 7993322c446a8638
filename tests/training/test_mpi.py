"""MPI processes with ChainerMN's naive communicator train like a single process on the whole batch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from skips import not_installed

DIGITS = Path(__file__).resolve().parents[2] / "docs" / "examples" / "train_digits.py"
# Two epochs of 45 steps.
OPTIONS = ["--communicator", "naive", "--epoch", "2", "--out", "out"]

# Open MPI needs a short path for its session folder.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": "/tmp"}

# Every rank runs this first. The arguments are the folder for results, then the scenario's own.
COMMON = """
import os, signal, sys
import rmsprop_graves
import chainer, chainermn, numpy
import chainer.functions as F
from chainer import optimizer_hooks, serializers, training
from rmsprop_graves import RMSpropGraves

class Model(chainer.Chain):
    def __init__(self):
        super().__init__()
        rng = numpy.random.RandomState(0)
        with self.init_scope():
            for i, shape in enumerate([(6, 5), (5,), (5, 4), (4,), (4, 1), (1,)]):
                setattr(self, f"p{i}", chainer.Parameter(rng.standard_normal(shape)))

    def forward(self, x, y):
        h = F.tanh(F.matmul(x, self.p0) + F.broadcast_to(self.p1, (len(x), 5)))
        h = F.tanh(F.matmul(h, self.p2) + F.broadcast_to(self.p3, (len(x), 4)))
        return F.mean((F.matmul(h, self.p4) + F.broadcast_to(self.p5, (len(x), 1)) - y) ** 2)

def batch(step, rank=0, size=1):
    rng = numpy.random.RandomState(100 + step)
    x, y = rng.standard_normal((16, 6)), rng.standard_normal((16, 1))
    return x[rank::size], y[rank::size]

def save(folder, name, optimizer):
    arrays = {"t": optimizer.t, "epoch": optimizer.epoch, "lr": optimizer.lr}
    for path, param in optimizer.target.namedparams():
        arrays[path] = param.array
        arrays.update((f"{path}/{key}", state) for key, state in (param.update_rule.state or {}).items())
    numpy.savez(os.path.join(folder, name), **arrays)
"""

TRAIN = """
folder = sys.argv[1]
comm = chainermn.create_communicator("naive") if "alone" not in sys.argv else None
rank, size = (comm.rank, comm.size) if comm else (0, 1)

def wrapped(optimizer):
    return chainermn.create_multi_node_optimizer(optimizer, comm) if comm else optimizer

def set_up():
    optimizer = wrapped(RMSpropGraves(lr=0.05, momentum=0.5)).setup(Model())
    if rank:  # ChainerMN's first update must overwrite this
        for param in optimizer.target.params():
            param.array[...] += rank
    optimizer.target.p1.update_rule.hyperparam.lr = 0.01
    optimizer.target.p3.update_rule.add_hook(lambda rule, param: param.grad.__imul__(0.5))
    optimizer.add_hook(optimizer_hooks.WeightDecay(0.01))
    optimizer.add_hook(optimizer_hooks.GradientClipping(1.0))
    if comm:
        optimizer.update(optimizer.target, *batch(0, rank, size))  # the first update only broadcasts the parameters
    return optimizer

optimizer = set_up()
single = []
update = chainer.Parameter.update
chainer.Parameter.update = lambda param: single.append(param.name) or update(param)
for step in range(12):
    optimizer.lr = 0.05 * 0.9**step
    optimizer.update(optimizer.target, *batch(step, rank, size))
    if step % 4 == 3:
        optimizer.new_epoch()
    if step in (0, 6):  # the first update, and the first after loading, update parameters one by one
        single.clear()
    if step == 5:
        name = os.path.join(folder, f"checkpoint{rank}of{size}.npz")
        serializers.save_npz(name, optimizer)
        serializers.save_npz(name + ".model", optimizer.target)
        optimizer = set_up()
        serializers.load_npz(name, optimizer)
        serializers.load_npz(name + ".model", optimizer.target)
# Every parameter without a hook is stepped in the batch.
assert set(single) == {"p3"}, single
save(folder, f"rank{rank}of{size}.npz", optimizer)
"""

RESUME = """
folder, killed_at = sys.argv[1], int(sys.argv[2])
comm = chainermn.create_communicator("naive")
optimizer = chainermn.create_multi_node_optimizer(RMSpropGraves(lr=0.05), comm).setup(Model())
data = chainermn.scatter_dataset(
    [(x, y) for step in range(4) for x, y in zip(*batch(step))] if comm.rank == 0 else None, comm, shuffle=True, seed=0
)
iterator = chainer.iterators.SerialIterator(data, 8, shuffle=False)
updater = training.updaters.StandardUpdater(iterator, optimizer)
trainer = training.Trainer(updater, (20, "iteration"), folder)
checkpointer = chainermn.create_multi_node_checkpointer("run", comm, path=os.path.join(folder, "checkpoints"))
trainer.extend(checkpointer, trigger=(3, "iteration"))

@trainer.extend
def die(trainer):
    if trainer.updater.iteration == killed_at and comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)

# ChainerMN's first update only broadcasts the parameters. Without this, a step would be missing after a restart.
optimizer.update()
checkpointer.maybe_load(trainer, optimizer)
print("begins at", trainer.updater.iteration, flush=True)
trainer.run()
save(folder, f"rank{comm.rank}.npz", optimizer)
"""

# Run a script in which one rank does something in its 60th step.
IN_A_STEP = """
import resource, runpy, time

folder, act, script = sys.argv[1:4]
rank = chainermn.create_communicator("naive").rank

def press():
    signal.raise_signal(signal.SIGINT)

def wait_for_mpiexec():
    handler = signal.getsignal(signal.SIGTERM)
    open(os.path.join(folder, "waits"), "w").close()
    while signal.getsignal(signal.SIGTERM) is handler:
        time.sleep(0.01)

def fail():
    raise RuntimeError("this rank alone")

def fill():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

acts = {"press": (1, press), "wait": (1, wait_for_mpiexec), "fail": (1, fail), "fill": (0, fill)}
backward, steps = chainer.Variable.backward, []

def act_and_go_back(*args, **kwargs):
    steps.append(None)
    if len(steps) == 60 and act in acts and rank == acts[act][0]:
        acts[act][1]()
    return backward(*args, **kwargs)

train = training.Trainer.run

def train_and_save(trainer, **options):
    train(trainer, **options)
    save(folder, f"rank{rank}.npz", trainer.updater.get_optimizer("main"))

chainer.Variable.backward, training.Trainer.run = act_and_go_back, train_and_save
if rank:
    numpy.savez_compressed = None  # only the first rank writes snapshots
sys.argv = sys.argv[3:]
sys.path.insert(0, os.path.dirname(script))
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def mpiexec():
    """The path of mpiexec, which starts the ranks."""
    pytest.importorskip("mpi4py", reason=not_installed("mpi4py"))
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("not installed: mpiexec (extra mpi, or an MPI of the system)")
    return found


def command(mpiexec, ranks, *program):
    """Return the command that runs a program in this many ranks, or without mpiexec for 0."""
    launcher = [mpiexec, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks)] if ranks else []
    return [*launcher, sys.executable, *map(str, program)]


def finish(folder, program):
    """Run a command; return the completed process."""
    options = {"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(program, check=False, **options)


def run(mpiexec, folder, code, ranks, *arguments):
    """Write a script and run it in ranks; return the completed process."""
    script = folder / "script.py"
    script.write_text(COMMON + code, encoding="utf-8")
    return finish(folder, command(mpiexec, ranks, script, folder, *arguments))


def loaded(path):
    """Return the arrays that a rank has saved."""
    with numpy.load(path) as entries:
        return dict(entries)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_are_bit_identical_to_each_other_and_close_to_a_single_process(mpiexec, tmp_path, ranks):
    """One rule has its own lr, and another a hook. The run has a schedule, epochs and a checkpoint."""
    result = run(mpiexec, tmp_path, TRAIN, ranks)
    assert result.returncode == 0, result.stderr
    alone = run(mpiexec, tmp_path, TRAIN, 0, "alone")
    assert alone.returncode == 0, alone.stderr
    first, *others = (loaded(tmp_path / f"rank{rank}of{ranks}.npz") for rank in range(ranks))
    expected = loaded(tmp_path / "rank0of1.npz")
    assert first.keys() == expected.keys()
    assert (first["t"], first["epoch"]) == (12, 3)
    for name, array in first.items():
        assert all(other[name].tobytes() == array.tobytes() for other in others), name
        numpy.testing.assert_allclose(array, expected[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_job_with_a_killed_rank_resumes_to_the_same_bits(mpiexec, tmp_path):
    """The job resumes from ChainerMN's last checkpoint that all ranks have saved."""
    folders = whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    result = run(mpiexec, whole, RESUME, 2, 0)
    assert result.returncode == 0, result.stderr
    result = run(mpiexec, killed, RESUME, 2, 11)
    assert result.returncode != 0
    assert not (killed / "rank0.npz").exists()
    result = run(mpiexec, killed, RESUME, 2, 0)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("begins at 9") == 2
    for rank in range(2):
        expected, actual = (loaded(folder / f"rank{rank}.npz") for folder in folders)
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            assert actual[name].tobytes() == array.tobytes(), name


@pytest.fixture(scope="module")
def digits(mpiexec, tmp_path_factory):
    """Run the digits example in two ranks to its end; return its folder and its output."""
    pytest.importorskip("matplotlib", reason=not_installed("matplotlib"))
    pytest.importorskip("sklearn", reason=not_installed("sklearn"))
    folder = tmp_path_factory.mktemp("digits")
    done = finish(folder, command(mpiexec, 2, DIGITS, *OPTIONS))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def log_of(folder):
    """Return the log of a run without the times, which differ between equal runs."""
    log = json.loads((folder / "out" / "log.json").read_text())
    return [{name: value for name, value in entry.items() if name != "elapsed_time"} for entry in log]


def trained(folder):
    """Return the last snapshot's entries of the model, the optimizer and the iterator."""
    path = max((folder / "out").glob("snapshot_iter_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    return {name: (a.dtype, a.tobytes()) for name, a in loaded(path).items() if name.startswith("updater/")}


def test_digits_are_learned_in_two_ranks_as_in_one_process(digits, tmp_path):
    """Each rank reports its share of the images. Only the first reports the rest. The accuracy is about the same."""
    folder, output = digits
    assert sorted(line for line in output.splitlines() if "Rank" in line) == [
        "Rank 0 of 2: 719 of 1,437 images",
        "Rank 1 of 2: 719 of 1,437 images",
    ]
    alone = finish(tmp_path, command(None, 0, DIGITS, *OPTIONS[2:]))
    assert alone.returncode == 0, alone.stderr
    for text in ("main/loss", "Test accuracy: ", "Snapshot: out/snapshot_iter_90"):
        assert output.count(text) == 1
    names = ["accuracy.png", "log.json", "loss.png", "snapshot_iter_45", "snapshot_iter_90"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == names
    accuracy, expected = (log_of(path)[-1]["test/main/accuracy"] for path in (folder, tmp_path))
    assert f"Test accuracy: {accuracy:.1%} of 360 images" in output
    assert accuracy > 0.9
    assert accuracy == pytest.approx(expected, abs=0.05)


def test_ranks_stop_together_at_ctrl_c_and_resume_to_the_same_bits(mpiexec, digits, tmp_path):
    """Only one rank gets Ctrl-C. Both ranks of the resumed run end bit-identical to an uninterrupted run."""
    stopped = run(mpiexec, tmp_path, IN_A_STEP, 2, "press", DIGITS, *OPTIONS)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.count("Stopped. To go on: --resume out/snapshot_iter_60\n") == 1
    assert "Traceback" not in stopped.stderr
    assert [loaded(tmp_path / f"rank{rank}.npz")["t"] for rank in range(2)] == [60, 60]
    resumed = run(mpiexec, tmp_path, IN_A_STEP, 2, "", DIGITS, *OPTIONS, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    first, second = (loaded(tmp_path / f"rank{rank}.npz") for rank in range(2))
    assert first["t"] == 90
    for name, array in first.items():
        assert second[name].tobytes() == array.tobytes(), name
    assert trained(tmp_path) == trained(digits[0])
    assert log_of(tmp_path) == log_of(digits[0])


def test_ctrl_c_at_mpiexec_ends_the_job_and_loses_no_snapshot(mpiexec, digits, tmp_path):
    """Open MPI gives the ranks a quarter of a second, which may or may not be enough to save."""
    (tmp_path / "script.py").write_text(COMMON + IN_A_STEP, encoding="utf-8")
    program = command(mpiexec, 2, tmp_path / "script.py", tmp_path, "wait", DIGITS, *OPTIONS)
    options = {"cwd": tmp_path, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(program, **options) as job:
        while not (tmp_path / "waits").exists():
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=60)
    assert job.returncode != 0
    resumed = finish(tmp_path, command(mpiexec, 2, DIGITS, *OPTIONS, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert trained(tmp_path) == trained(digits[0])
    assert log_of(tmp_path) == log_of(digits[0])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("fail", "RuntimeError: this rank alone"),
        ("fill", "Stopped by the system: [Errno 27] File too large. To go on from the last whole snapshot in out, "),
    ],
    ids=["error", "no room"],
)
def test_a_rank_that_fails_ends_the_job(mpiexec, digits, tmp_path, act, message):
    """The whole job exits with status 1, so the other rank does not wait forever."""
    failed = run(mpiexec, tmp_path, IN_A_STEP, 2, act, DIGITS, *OPTIONS)
    assert failed.returncode == 1, failed.stderr
    assert message in failed.stderr
    assert [path.name for path in (tmp_path / "out").glob("*snapshot*")] == ["snapshot_iter_45"]


def test_a_snapshot_of_another_number_of_ranks_is_refused(digits, tmp_path):
    """A snapshot holds only the order of the first rank's share of the images."""
    snapshot = digits[0] / "out" / "snapshot_iter_90"
    refused = finish(tmp_path, command(None, 0, DIGITS, "--resume", snapshot))
    assert refused.returncode == 2
    assert f"cannot resume from {snapshot}: it was made with " in refused.stderr
