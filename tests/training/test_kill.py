"""A training that is killed, or cannot write a snapshot, keeps the snapshots that it has saved."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from skips import not_installed

for _module in ("matplotlib", "sklearn"):
    pytest.importorskip(_module, reason=not_installed(_module))

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "examples" / "train_digits.py"
# So many that the program is still running at each kill.
EPOCHS = 80
KILLS = 20

pytestmark = pytest.mark.long


# Run some code, then a script.
FIRST = """
import io, os, resource, runpy, signal, sys
import numpy
{first}
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Write half of the second snapshot, then die.
DIE_WHILE_SAVING = """
save, saved = numpy.savez_compressed, []

def save_to_a_half(file, **arrays):
    saved.append(file)
    if len(saved) < 2:
        return save(file, **arrays)
    whole = io.BytesIO()
    save(whole, **arrays)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

numpy.savez_compressed = save_to_a_half
"""


def start(out, *options, first=""):
    """Start the digits example in a process of its own."""
    program = [sys.executable, *(["-c", FIRST.format(first=first)] if first else []), str(SCRIPT)]
    command = [*program, "--epoch", str(EPOCHS), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(out, *options):
    """Run the example to its end; return the seconds until its first snapshot."""
    begin = time.monotonic()
    process = start(out, *options)
    while process.poll() is None and not snapshots(out):
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, output + errors
    return seconds


def snapshots(out):
    """Return the snapshots in the order in which they were written."""
    return sorted(Path(out).glob("snapshot_iter_*"), key=lambda path: path.stat().st_mtime_ns)


def trained(out):
    """Return the last snapshot's entries of the model, the optimizer and the iterator."""
    with numpy.load(snapshots(out)[-1], allow_pickle=True) as entries:
        names = [name for name in entries.files if name.startswith("updater/")]
        return {name: (entries[name].dtype, entries[name].tobytes()) for name in names}


def test_a_run_that_is_killed_twenty_times_ends_bit_identical_to_an_uninterrupted_one(tmp_path):
    """Every fourth kill comes while the run writes a snapshot, and the others come at random moments."""
    first_snapshot = finish(tmp_path / "whole")
    out = tmp_path / "killed"
    moments = random.Random(0)
    for kill in range(KILLS):
        is_saving = kill % 4 == 3
        resume = ["--resume"] if snapshots(out) else []
        process = start(out, *resume, first=DIE_WHILE_SAVING if is_saving else "")
        if not is_saving:
            end = time.monotonic() + moments.uniform(0, 2 * first_snapshot)
            # No run exceeds its share of the epochs, or the training could end early on a machine that becomes idle.
            share = EPOCHS * (kill + 1) // (KILLS + 2)
            while time.monotonic() < end and len(snapshots(out)) < share:
                time.sleep(0.01)
            assert process.poll() is None, process.communicate()
            process.kill()
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL
        if is_saving:
            assert any(out.glob("tmpsnapshot_iter_*/*"))
        # Every file with a snapshot's final name is complete.
        for path in snapshots(out):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
    assert 0 < len(snapshots(out)) < EPOCHS
    finish(out, "--resume")
    assert snapshots(out)[-1].name == snapshots(tmp_path / "whole")[-1].name
    assert trained(out) == trained(tmp_path / "whole")


NO_ROOM = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""

# Drop CAP_DAC_OVERRIDE, which lets root write where the file mode forbids it.
HEED_MODES = """
import ctypes
libc, version_3, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
assert libc.capget(version_3, sets) == 0
sets[0] &= ~2
assert libc.capset(version_3, sets) == 0
"""

# Make the folder read-only before the next file is written.
WHILE_TRAINING = """
import rmsprop_graves
from chainer.training.updaters import StandardUpdater
update = StandardUpdater.update

def turn_and_update(updater):
    os.chmod("out", 0o555)
    update(updater)

StandardUpdater.update = turn_and_update
"""

# Make the folder read-only when the next snapshot is complete but still has its temporary name.
WHILE_SAVING = """
save = numpy.savez_compressed

def save_and_turn(file, **arrays):
    save(file, **arrays)
    os.chmod("out", 0o555)

numpy.savez_compressed = save_and_turn
"""
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can make root obey file modes")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no read-only folders and file size limits")
@pytest.mark.parametrize(
    ("first", "mode", "status", "message"),
    [
        pytest.param(NO_ROOM, 0o755, 1, "Stopped by the system: [Errno 27] File too large. To go on ", id="no room"),
        pytest.param(
            HEED_MODES,
            0o555,
            2,
            "train_digits.py: error: --out out cannot be written to: Permission denied\n",
            id="read-only",
            marks=ON_LINUX,
        ),
        pytest.param(
            HEED_MODES + WHILE_TRAINING,
            0o755,
            1,
            "Stopped by the system: [Errno 13] Permission denied: 'out/",
            id="read-only while training",
            marks=ON_LINUX,
        ),
        pytest.param(
            HEED_MODES + WHILE_SAVING,
            0o755,
            1,
            "Stopped by the system: [Errno 13] Permission denied: 'out/tmpsnapshot_iter_270",
            id="read-only while saving",
            marks=ON_LINUX,
        ),
    ],
)
def test_failing_to_write_a_snapshot_is_an_error_and_keeps_the_last_one(tmp_path, first, mode, status, message):
    """The run ends with one line that gives the system's reason. Training can resume from the last snapshot."""
    out = tmp_path / "out"
    command = [str(SCRIPT), "--out", "out", "--epoch"]

    def run(*program):
        env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
        program = [sys.executable, *program]
        return subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, env=env, timeout=300)

    done = run(*command, "2")
    assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in snapshots(out)}
    out.chmod(mode)
    try:
        failed = run("-c", FIRST.format(first=first), *command, "4", "--resume")
    finally:
        out.chmod(0o755)
    assert failed.returncode == status
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {path: path.read_bytes() for path in snapshots(out)} == before
    done = run(*command, "4", "--resume")
    assert done.returncode == 0, done.stderr
