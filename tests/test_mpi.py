"""Several processes under MPI, by ChainerMN's naive communicator: as one process on the whole batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

HERE = Path(__file__).resolve().parent

# What every rank runs: argv is the folder for results, and what the scenario takes.
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
    if rank:  # what the first update makes the same
        for param in optimizer.target.params():
            param.array[...] += rank
    optimizer.target.p1.update_rule.hyperparam.lr = 0.01
    optimizer.target.p3.update_rule.add_hook(lambda rule, param: param.grad.__imul__(0.5))
    optimizer.add_hook(optimizer_hooks.WeightDecay(0.01))
    optimizer.add_hook(optimizer_hooks.GradientClipping(1.0))
    if comm:
        optimizer.update(optimizer.target, *batch(0, rank, size))  # ChainerMN's first hands the parameters round
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
    if step == 0:
        single.clear()
    if step == 5:
        name = os.path.join(folder, f"checkpoint{rank}of{size}.npz")
        serializers.save_npz(name, optimizer)
        serializers.save_npz(name + ".model", optimizer.target)
        optimizer = set_up()
        serializers.load_npz(name, optimizer)
        serializers.load_npz(name + ".model", optimizer.target)
# All but the one with a hook are stepped together.
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

# ChainerMN's first update hands the parameters round and is no step; after a restart it would be missing.
optimizer.update()
checkpointer.maybe_load(trainer, optimizer)
print("begins at", trainer.updater.iteration, flush=True)
trainer.run()
save(folder, f"rank{comm.rank}.npz", optimizer)
"""


@pytest.fixture(scope="module")
def mpiexec():
    """The program that starts the ranks."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpiexec is not on the PATH")
    return found


def run(mpiexec, folder, code, ranks, *arguments):
    """What the ranks print, their status and errors."""
    script = folder / "script.py"
    script.write_text(COMMON + code, encoding="utf-8")
    program = [sys.executable, str(script), str(folder), *map(str, arguments)]
    launcher = [mpiexec, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks)] if ranks else []
    # The session's folder of Open MPI has to have a short name.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": "/tmp"}
    return subprocess.run([*launcher, *program], capture_output=True, text=True, check=False, env=env, timeout=300)


def loaded(path):
    """The arrays that a rank has saved."""
    with numpy.load(path) as entries:
        return dict(entries)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_end_with_the_same_bits_as_one_process_on_the_whole_batch(mpiexec, tmp_path, ranks):
    """With settings of a parameter, hooks, a schedule, epochs, and a checkpoint on the way, through the wrapper."""
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


def test_a_job_of_which_a_rank_is_killed_is_started_again_to_the_same_bits(mpiexec, tmp_path):
    """From ChainerMN's last checkpoint that every rank has."""
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
