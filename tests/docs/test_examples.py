"""The example scripts, run as a user runs them: on a small scale, on real data, and interrupted."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import numpy
import pytest
from skips import not_installed

from rmsprop_graves import load_npz

CORRIDOR = Path(__file__).with_name("corridor.py")
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
OPTIONS = {
    "train_digits.py": ["--epoch", "2"],
    "train_dqn.py": [
        *["--game", "corridor:Corridor", "--frames", "1200", "--interval", "600"],
        *["--start", "100", "--exploration", "1000"],
    ],
    "train_text.py": ["--epoch", "2", "--unit", "16", "--text", "text"],
}

# Run a script and press Ctrl-C, once or twice, when a function is called for the n-th time.
PRESS = """
import importlib, operator, os, runpy, signal, sys
import rmsprop_graves

module, owner, name, nth, presses, *sys.argv = sys.argv[1:]
owner = operator.attrgetter(owner)(importlib.import_module(module)) if owner else importlib.import_module(module)
function, calls = getattr(owner, name), []

def press_and_call(*args, **kwargs):
    calls.append(None)
    if len(calls) == int(nth):
        for _ in range(int(presses)):
            handler = signal.getsignal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is handler:
                pass
    return function(*args, **kwargs)

setattr(owner, name, press_and_call)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# The scripts set this themselves, but too late if PRESS has already imported NumPy.
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
IN_AN_UPDATE = ("chainer", "Variable", "backward")
IN_AN_EVALUATION = ("chainer.training.extensions", "Evaluator", "evaluate")
IN_A_SNAPSHOT = ("numpy", "", "savez_compressed")
BEFORE_THE_FIRST_UPDATE = ("chainer.training.extensions", "ExponentialShift", "initialize")


def require(script):
    """Skip the test if the script cannot run."""
    packages = {"train_digits.py": ["matplotlib", "sklearn"], "train_dqn.py": ["matplotlib"], "train_text.py": []}
    for package in packages[script]:
        pytest.importorskip(package, reason=not_installed(package))


def run(folder, script, *options, launcher=(), press=None, status=0):
    """Run a script in a folder and assert its exit status; `press` has the arguments of PRESS."""
    require(script)
    (folder / "text").write_text("\n".join(topics[name] for name in sorted(topics))[:21_000], encoding="utf-8")
    shutil.copy(CORRIDOR, folder)
    start = launcher if press is None else ["-c", PRESS, *map(str, press)]
    command = [sys.executable, *start, str(EXAMPLES / script), "--out", "out", *OPTIONS[script], *options]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def run_here(folder, monkeypatch, script, *options):
    """Run a script that exits before it trains, in this process to save time; return sys.exit's argument."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # so that pytest undoes the script's own setting
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return stop.value.code


def log_of(folder):
    """Return the log of a run."""
    return json.loads((folder / "out" / "log.json").read_text())


def without_time(log):
    """Return a log without the times, which differ between equal runs."""
    return [{name: value for name, value in entry.items() if name != "elapsed_time"} for entry in log]


def last_snapshot(folder):
    """Return the arrays and the log of the snapshot with the most steps, without times."""
    path = max((folder / "out").glob("snapshot_iter_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    with numpy.load(path) as file:  # fails on pickled objects
        arrays = {name: file[name] for name in file.files if name != "_snapshot_elapsed_time"}
    log = arrays.pop("extensions/LogReport/_log").item()
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}, without_time(json.loads(log))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Run a script to its end, once per script; return the folder and the output."""
    runs = {}

    def get(script):
        if script not in runs:
            folder = tmp_path_factory.mktemp(script)
            runs[script] = folder, run(folder, script).stdout
        return runs[script]

    return get


def test_digits_are_learned(whole_run):
    """Two epochs halve the loss and recognize nine of ten test images; the last line reports the accuracy."""
    folder, output = whole_run("train_digits.py")
    first, last = log_of(folder)
    assert last["main/loss"] < first["main/loss"] / 2
    assert last["test/main/accuracy"] > 0.9
    assert f"Test accuracy: {last['test/main/accuracy']:.1%} of 360 images" in output


@pytest.mark.parametrize("script", OPTIONS)
def test_the_printed_columns_are_aligned(whole_run, script):
    """Every value begins below the name of its column."""
    header, *rows = whole_run(script)[1].splitlines()[: len(log_of(whole_run(script)[0])) + 1]
    begins = [word.start() for word in re.finditer(r"\S+", header)]
    for row in rows:
        assert [word.start() for word in re.finditer(r"\S+", row)] == begins


def test_numbers_of_any_size_keep_the_columns_aligned(monkeypatch, capsys):
    """With the six digits that Chainer prints, 0.000107374 is wider than its column."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    columns = ["epoch", "lr", "main/loss", "main/accuracy"]
    report = importlib.import_module("interruptible").PrintReport(columns, has_bar=False)
    log = [dict(zip(columns, row)) for row in ([100_000, 0.000107374, -1.23456e-5, 1.0], [9, 12345.6, 1e-300, 0.5])]
    report(SimpleNamespace(get_extension=lambda name: SimpleNamespace(log=log)))
    assert capsys.readouterr().out.splitlines() == [
        "epoch       lr          main/loss   main/accuracy",
        "100000      0.0001074   -1.235e-05  1              ",
        "9           12350       1e-300      0.5            ",
    ]


def test_digits_under_the_launcher_leave_the_same_log(tmp_path, whole_run):
    """The launcher also lets the script import the module beside it."""
    folder, _ = whole_run("train_digits.py")
    run(tmp_path, "train_digits.py", launcher=("-m", "rmsprop_graves"))
    assert without_time(log_of(tmp_path)) == without_time(log_of(folder))


def test_digits_schedule_shifts_the_learning_rate(whole_run):
    """The log has the rate of each epoch."""
    folder, _ = whole_run("train_digits.py")
    assert [entry["lr"] for entry in log_of(folder)] == [1e-3, 1e-3 * 0.8]


def test_digits_leave_the_files_that_they_name(whole_run):
    """The plots are pictures that are not blank."""
    folder, output = whole_run("train_digits.py")
    named = re.findall(r"out/\S*[^\s,]", output)
    assert named == ["out/loss.png", "out/accuracy.png", "out/log.json", "out/snapshot_iter_180"]
    assert all((folder / name).stat().st_size for name in named)
    from matplotlib import image

    for name in named[:2]:
        pixels = image.imread(str(folder / name), format="png")
        assert min(pixels.shape[:2]) > 100
        assert len(numpy.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


@pytest.mark.parametrize("optimizer", ["chainer", "adam"])
def test_digits_compare_optimizers(tmp_path, optimizer):
    """An epoch with another optimizer learns too."""
    run(tmp_path, "train_digits.py", "--optimizer", optimizer, "--epoch", "1")
    assert log_of(tmp_path)[-1]["test/main/accuracy"] > 0.6


def test_text_costs_less_than_its_order0_entropy(tmp_path):
    """Four epochs on a small text: both numbers are printed, then a sample."""
    output = run(tmp_path, "train_text.py", "--epoch", "4", "--unit", "32").stdout
    bits, entropy = re.search(r"Held-out text: (\S+) bits per character; order-0 entropy: (\S+)\n", output).groups()
    assert float(bits) == pytest.approx(log_of(tmp_path)[-1]["held-out/main/bits"], abs=0.005)
    assert float(bits) < float(entropy) - 0.2
    assert len(output.partition("A sample:\n\n")[2]) > 400


def test_text_entropy_is_computed_from_the_held_out_characters(whole_run):
    """The expected entropy is computed from the last tenth of the file."""
    folder, output = whole_run("train_text.py")
    text = (folder / "text").read_text(encoding="utf-8")
    held_out = text[len(text) * 9 // 10 :]
    p = numpy.array([held_out.count(character) for character in set(held_out)]) / len(held_out)
    assert f"order-0 entropy: {-(p * numpy.log2(p)).sum():.2f}\n" in output


@pytest.mark.parametrize(
    ("script", "function", "nth"),
    [
        ("train_digits.py", IN_AN_UPDATE, 120),
        ("train_dqn.py", IN_AN_UPDATE, 1),
        ("train_dqn.py", IN_AN_UPDATE, 901),
        ("train_text.py", IN_AN_UPDATE, 12),
        ("train_text.py", IN_AN_EVALUATION, 1),
        ("train_text.py", IN_A_SNAPSHOT, 1),
    ],
)
def test_a_run_resumed_after_ctrl_c_ends_with_the_same_bits(tmp_path, whole_run, script, function, nth):
    """Every array of the last snapshot and every entry of the log are equal, whenever Ctrl-C came."""
    stopped = run(tmp_path, script, press=(*function, nth, 1), status=130)
    snapshot = re.fullmatch(r"Stopped\. To go on: --resume (out/snapshot_iter_\d+)\n", stopped.stderr).group(1)
    assert len(log_of(tmp_path) if (tmp_path / "out" / "log.json").exists() else []) < 2
    run(tmp_path, script, "--resume", snapshot)
    folder, _ = whole_run(script)
    assert last_snapshot(tmp_path) == last_snapshot(folder)
    assert without_time(log_of(tmp_path)) == without_time(log_of(folder))


def dqn_module(monkeypatch):
    """Import train_dqn.py as a module."""
    require("train_dqn.py")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return runpy.run_path(str(EXAMPLES / "train_dqn.py"))


def test_dqn_learns_the_value_of_every_action(tmp_path, monkeypatch):
    """The values agree with Bellman's equation: a reward that comes n frames later is worth 0.99^n."""
    output = run(tmp_path, "train_dqn.py", "--frames", "4200").stdout
    assert "without random actions, return 1 in " in output
    assert float(re.search(r"Mean return of the last hundred episodes: (\S+)\n", output).group(1)) > 0.9
    assert float(re.search(r"Mean return of a random player: +(\S+)\n", output).group(1)) == pytest.approx(
        0.5, abs=0.15
    )
    model = dqn_module(monkeypatch)["QNetwork"]((1, 3, 5), 2)
    load_npz(tmp_path / "out" / "snapshot_iter_4200", model, path="updater/model:main/")
    states = numpy.zeros((3, 1, 3, 5), "f")
    states[range(3), 0, 1, [1, 2, 3]] = 1
    right = numpy.array([0.99**2, 0.99, 1])
    left = numpy.array([0, 0.99 * right[0], 0.99 * right[1]])
    numpy.testing.assert_allclose(model(states).array, numpy.stack([left, right], axis=1), atol=0.05)


def test_dqn_log_has_a_line_for_each_interval(whole_run):
    """The share of random actions falls from 1 to 0.1 in the first 1000 frames."""
    log = log_of(whole_run("train_dqn.py")[0])
    assert [entry["iteration"] for entry in log] == [600, 1200]
    assert [entry["epsilon"] for entry in log] == pytest.approx([1 - 0.9 * 0.6, 0.1])
    assert log[0]["episodes"] < log[1]["episodes"]
    assert all(0 <= entry["return"] <= 1 for entry in log)


def test_dqn_leaves_the_files_that_it_names(whole_run):
    """The animation shows each frame of the last episode."""
    folder, output = whole_run("train_dqn.py")
    named = re.findall(r"out/\S*[^\s,]", output)
    assert named == ["out/episode.gif", "out/return.png", "out/log.json", "out/snapshot_iter_1200"]
    assert len(list((folder / "out").iterdir())) == len(named)
    from PIL import Image, ImageSequence

    with Image.open(folder / "out" / "return.png") as plot:
        assert len(plot.convert("RGB").getcolors(1 << 20)) > 10
    with Image.open(folder / "out" / "episode.gif") as animation:
        frames = [frame.convert("L") for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == int(re.search(r"return \d in (\d+) frames", output).group(1)) + 1
    # The player's cell is the only one of another colour.
    cells = [numpy.flatnonzero(numpy.asarray(frame)[24, 8::16]) for frame in frames]
    assert all(len(cell) == 1 for cell in cells)
    assert all(abs(after - before) == 1 for before, after in zip(cells, cells[1:]))


def test_dqn_does_not_replace_the_snapshot_of_another_run(tmp_path, whole_run):
    """Only the newest snapshot is kept, so a new run in the same folder would delete the other run's."""
    shutil.copytree(whole_run("train_dqn.py")[0], tmp_path, dirs_exist_ok=True)
    before = last_snapshot(tmp_path)
    error = run(tmp_path, "train_dqn.py", status=2).stderr
    assert error.endswith("--out out has the snapshot of another run: add --resume, or choose another folder\n")
    assert last_snapshot(tmp_path) == before


def test_dqn_names_no_plot_before_an_episode_has_ended(tmp_path):
    """The first hundred frames of this game end no episode."""
    (tmp_path / "endless.py").write_text(
        "from corridor import Corridor\n\n"
        "class Endless(Corridor):\n"
        "    def act(self, action):\n"
        "        return 0, False\n"
    )
    options = ["--game", "endless:Endless", "--frames", "100", "--interval", "100", "--start", "0"]
    output = run(tmp_path, "train_dqn.py", *options).stdout
    assert "No episode has ended.\n" in output
    assert "return 0 in the first 300 frames\n" in output
    assert "return.png" not in output
    assert not (tmp_path / "out" / "return.png").exists()


def test_dqn_refuses_a_game_whose_states_are_numbers(tmp_path):
    """The replay memory packs booleans into bits."""
    (tmp_path / "number_game.py").write_text(
        "from corridor import Corridor\n\n"
        "class Numbers(Corridor):\n"
        "    def state(self):\n"
        "        return super().state().astype(float)\n"
    )
    error = run(tmp_path, "train_dqn.py", "--game", "number_game:Numbers", status=2).stderr
    assert error.endswith("--game number_game:Numbers cannot be loaded: its state must be an array of booleans\n")


def test_dqn_with_chainers_class_ends_with_the_same_bits(tmp_path, whole_run):
    """Parameters, states, replay memory and log are equal; only the settings have another name."""
    run(tmp_path, "train_dqn.py", "--optimizer", "chainer")
    (chainers, log), (ours, our_log) = last_snapshot(tmp_path), last_snapshot(whole_run("train_dqn.py")[0])
    assert chainers.pop("settings") != ours.pop("settings")
    assert chainers == ours
    assert log == our_log


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "rmsprop"],
        ["--optimizer", "adam"],
        ["--optimizer", "momentum"],
        ["--lr", "1e-3"],
        ["--momentum", "0.95"],
    ],
)
def test_dqn_compares_optimizers(tmp_path, whole_run, options):
    """Another optimizer, learning rate or momentum learns nearly the same values."""
    run(tmp_path, "train_dqn.py", "--frames", "600", *options)
    (value,) = (entry["main/q"] for entry in log_of(tmp_path))
    default = log_of(whole_run("train_dqn.py")[0])[0]["main/q"]
    assert value != default
    assert value == pytest.approx(default, rel=0.1)


def test_dqn_resumes_a_game_of_minatar_to_the_same_bits(tmp_path):
    """Ctrl-C comes in the middle of an episode. The snapshot holds its actions instead of the game's state."""
    pytest.importorskip("minatar", reason=not_installed("minatar"))
    options = ["--game", "breakout", "--frames", "40", "--interval", "20"]
    for name, presses in (("whole", []), ("stopped", [{"press": (*IN_AN_UPDATE, 33, 1), "status": 130}])):
        (tmp_path / name).mkdir()
        for press in presses:
            run(tmp_path / name, "train_dqn.py", *options, **press)
        run(tmp_path / name, "train_dqn.py", *options, *["--resume"] * len(presses))
    whole, stopped = last_snapshot(tmp_path / "whole"), last_snapshot(tmp_path / "stopped")
    assert stopped == whole


@pytest.mark.parametrize("game", ["asterix", "breakout", "freeway", "seaquest", "space_invaders"])
def test_dqn_restores_a_game_from_its_actions(monkeypatch, game):
    """A new player with the same actions sees the same states as one that has played other episodes before."""
    pytest.importorskip("minatar", reason=not_installed("minatar"))
    module = dqn_module(monkeypatch)
    load_game, player_class = module["load_game"], module["Player"]
    rng = numpy.random.RandomState(0)
    first = player_class(load_game(game), 5)
    for episode in range(40):
        first.start(episode)
        second = player_class(load_game(game), 5)
        second.start(episode)
        is_end = False
        while not is_end and len(first.actions) < 100:
            action = rng.randint(6)
            reward, is_end = first.act(action)
            assert second.act(action) == (reward, is_end)
            numpy.testing.assert_array_equal(second.state(), first.state())


def test_dqn_samples_the_newest_transitions(monkeypatch):
    """Every sample is one of the newest five, and all five are drawn, also across the end of the ring."""
    module = dqn_module(monkeypatch)
    memory_class = module["ReplayMemory"]
    monkeypatch.setitem(memory_class.__init__.__globals__, "MEMORY", 5)
    rng = numpy.random.RandomState(0)
    states = rng.rand(14, 2, 3, 3) < 0.5
    memory = memory_class(states[0])
    for count in range(1, 14):
        memory.append(count, count / 2, count % 3 == 0, states[count])
        x, actions, rewards, is_end, following = (
            numpy.concatenate(parts) for parts in zip(*[memory.sample(rng) for _ in range(4)])
        )
        assert set(actions) == set(range(max(1, count - 4), count + 1))
        numpy.testing.assert_array_equal(x, states[actions - 1])
        numpy.testing.assert_array_equal(following, states[actions])
        numpy.testing.assert_array_equal(rewards, actions / 2)
        numpy.testing.assert_array_equal(is_end, actions % 3 == 0)


def test_a_second_ctrl_c_leaves_the_last_whole_snapshot(tmp_path, whole_run):
    """The second Ctrl-C comes while a snapshot is written. The run resumes from the previous snapshot."""
    stopped = run(tmp_path, "train_text.py", press=(*IN_A_SNAPSHOT, 2, 2), status=130)
    assert stopped.stderr.startswith("Stopped at once.")
    assert len(list((tmp_path / "out").glob("*snapshot*"))) == 1
    run(tmp_path, "train_text.py", "--resume")
    assert last_snapshot(tmp_path) == last_snapshot(whole_run("train_text.py")[0])


def test_ctrl_c_before_the_first_update_leaves_nothing(tmp_path):
    """A snapshot without optimizer states would not load, so the script writes none."""
    stopped = run(tmp_path, "train_text.py", press=(*BEFORE_THE_FIRST_UPDATE, 1, 1), status=130)
    assert stopped.stderr == "Stopped before the first step: nothing to resume.\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_finished_run_resumes(tmp_path, whole_run):
    """From its end it prints the same without training. From an earlier epoch it reaches the same result."""
    folder, output = whole_run("train_text.py")
    again = run(tmp_path, "train_text.py", "--resume", str(folder / "out" / "snapshot_iter_18")).stdout
    assert again.partition("Held-out")[2].splitlines()[0] == output.partition("Held-out")[2].splitlines()[0]
    assert again.partition("A sample:")[2] == output.partition("A sample:")[2]
    run(tmp_path, "train_text.py", "--resume", str(folder / "out" / "snapshot_iter_9"))
    assert last_snapshot(tmp_path) == last_snapshot(folder)


@pytest.mark.parametrize(
    ("script", "status", "result"),
    [
        ("train_dqn.py", b"Mean return of the last 100 episodes: 0.", b"Mean return of the last hundred episodes: 0."),
        ("train_text.py", b" epoch / 2 epochs", b"Held-out text: "),
    ],
)
def test_the_progress_bar_shows_in_a_terminal(tmp_path, whole_run, script, status, result):
    """The script prints neither the bar nor escape codes to a file or pipe."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    _, output = whole_run(script)
    assert "this epoch [" not in output
    assert "\x1b" not in output
    terminal, end = pty.openpty()
    (tmp_path / "text").write_text("All work and no play.\n" * 1000)
    shutil.copy(CORRIDOR, tmp_path)
    command = [sys.executable, str(EXAMPLES / script), *OPTIONS[script]]
    with subprocess.Popen(command, cwd=tmp_path, stdout=end) as process:
        os.close(end)
        shown = b""
        try:
            while True:
                shown += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            os.close(terminal)
    assert process.returncode == 0
    assert b"this epoch [#" in shown
    assert status in shown
    assert result in shown.rpartition(b"iters/sec")[2]


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("train_digits.py", ["--epoch", "0"], "--epoch must be at least 1, got 0"),
        ("train_digits.py", ["--epoch", "many"], "argument --epoch: invalid int value: 'many'"),
        ("train_digits.py", ["--seed", "-1"], "--seed must be in 0 ... 2**32 - 1, got -1"),
        ("train_digits.py", ["--optimizer", "newton"], "argument --optimizer: invalid choice: 'newton'"),
        ("train_digits.py", ["--device", "@abacus"], "--device @abacus is not available: "),
        ("train_digits.py", ["--resume", "gone"], "--resume: cannot resume from gone: "),
        ("train_digits.py", ["--resume", "not_a_snapshot"], "--resume: cannot resume from not_a_snapshot: "),
        ("train_digits.py", ["--resume"], "--resume: no snapshot in result/digits"),
        ("train_digits.py", ["--out", "latin1/out"], "--out latin1/out cannot be written to: Not a directory"),
        ("train_digits.py", ["--communicator", "drum"], "argument --communicator: invalid choice: 'drum'"),
        ("train_dqn.py", ["--frames", "0"], "--frames must be at least 1, got 0"),
        ("train_dqn.py", ["--frames", "7000"], "--frames must be a multiple of --interval, 5000, got 7000"),
        ("train_dqn.py", ["--start", "-1"], "--start must be at least 0, got -1"),
        ("train_dqn.py", ["--seed", "4294967296"], "--seed must be in 0 ... 2**32 - 1, got 4294967296"),
        ("train_dqn.py", ["--lr", "nan"], "--lr must be a finite number > 0, got nan"),
        ("train_dqn.py", ["--lr", "0"], "--lr must be a finite number > 0, got 0.0"),
        ("train_dqn.py", ["--momentum", "1"], "--momentum must be in 0 <= momentum < 1, got 1.0"),
        ("train_dqn.py", ["--momentum", "0.95", "--optimizer", "adam"], "--momentum: adam has no momentum"),
        ("train_dqn.py", ["--game", "pong"], "--game must be one of asterix, breakout, freeway, seaquest, "),
        ("train_dqn.py", ["--game", "gone:Game"], "--game gone:Game cannot be loaded: No module named 'gone'"),
        ("train_dqn.py", ["--game", "math:Game"], "--game math:Game cannot be loaded: module 'math' has no "),
        ("train_dqn.py", ["--game", "math:inf"], "--game math:inf cannot be loaded: 'float' object is not callable"),
        ("train_dqn.py", ["--game", "fractions:Fraction"], "--game fractions:Fraction cannot be loaded: 'Fraction' o"),
        ("train_dqn.py", ["--device", "abacus"], "--device abacus is not available: "),
        ("train_dqn.py", [*OPTIONS["train_dqn.py"], "--resume", "gone"], "--resume: cannot resume from gone: "),
        ("train_dqn.py", [*OPTIONS["train_dqn.py"], "--resume"], "--resume: no snapshot in result/dqn"),
        ("train_dqn.py", [*OPTIONS["train_dqn.py"], "--out", "latin1/out"], "--out latin1/out cannot be written to: "),
        ("train_text.py", ["--epoch", "-3"], "--epoch must be at least 1, got -3"),
        ("train_text.py", ["--unit", "0"], "--unit must be at least 1, got 0"),
        ("train_text.py", ["--device", "abacus"], "--device abacus is not available: "),
        ("train_text.py", ["--text", "gone"], "--text gone cannot be read: "),
        ("train_text.py", ["--text", "not_a_snapshot"], "--text not_a_snapshot is too short: 5 characters, "),
        ("train_text.py", ["--text", "latin1"], "--text latin1 cannot be read: "),
        ("train_text.py", ["--resume", "gone"], "--resume: cannot resume from gone: "),
        ("train_text.py", ["--resume"], "--resume: no snapshot in result/text"),
    ],
)
def test_an_invalid_argument_is_named(tmp_path, monkeypatch, capsys, script, options, message):
    """One line names the argument, the exit status is 2, and nothing is written."""
    require(script)
    (tmp_path / "not_a_snapshot").write_text("Hello")
    (tmp_path / "latin1").write_bytes("déjà vu".encode("latin-1"))
    shutil.copy(CORRIDOR, tmp_path)
    assert run_here(tmp_path, monkeypatch, script, *options) == 2
    assert f"\n{script}: error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("script", "option", "value"),
    [
        ("train_digits.py", "--seed", "1"),
        ("train_digits.py", "--optimizer", "adam"),
        ("train_dqn.py", "--optimizer", "chainer"),
        ("train_dqn.py", "--momentum", "0.95"),
        ("train_dqn.py", "--exploration", "500"),
    ],
)
def test_a_snapshot_of_another_run_is_refused(tmp_path, monkeypatch, capsys, whole_run, script, option, value):
    """Another seed would put test images among the training images."""
    folder = whole_run(script)[0]
    snapshot = str(next((folder / "out").glob("snapshot_iter_1*")))
    monkeypatch.syspath_prepend(str(folder))
    status = run_here(tmp_path, monkeypatch, script, *OPTIONS[script], "--resume", snapshot, option, value)
    assert status == 2
    assert f"cannot resume from {snapshot}: it was made with " in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["sklearn.datasets", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, missing):
    """The message has no traceback."""
    require("train_digits.py")
    monkeypatch.setitem(sys.modules, missing, None)
    status = run_here(tmp_path, monkeypatch, "train_digits.py")
    assert status.endswith("This example needs scikit-learn and matplotlib: pip install '.[examples]'")


@pytest.mark.parametrize("missing", ["matplotlib", "PIL", "minatar"])
def test_dqn_names_a_missing_package_with_its_extra(tmp_path, monkeypatch, missing):
    """The message has no traceback."""
    require("train_dqn.py")
    monkeypatch.setitem(sys.modules, missing, None)
    status = run_here(tmp_path, monkeypatch, "train_dqn.py")
    assert status.endswith("This example needs MinAtar and matplotlib: pip install '.[dqn]'")
    assert "\n" not in status


@pytest.mark.parametrize("missing", ["chainerrl", "gym", "minatar"])
def test_the_chainerrl_example_names_a_missing_package(tmp_path, monkeypatch, missing):
    for name in ("chainerrl", "gym"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(Env=object))
    monkeypatch.setitem(sys.modules, "minatar", SimpleNamespace(Environment=object))
    monkeypatch.setitem(sys.modules, missing, None)
    status = run_here(tmp_path, monkeypatch, "train_chainerrl.py")
    assert missing in status
    assert status.endswith(
        "This example needs ChainerRL, Gym and MinAtar: docs/how-to/dqn.md has the commands that install them"
    )


# Run a script as if a package were not installed.
WITHOUT = """
import os, runpy, sys
sys.modules[sys.argv[1]] = None
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_communicator_without_mpi4py_is_refused_with_its_extra(tmp_path):
    """Nothing is written."""
    options = ["--communicator", "naive"]
    refused = run(tmp_path, "train_digits.py", *options, launcher=("-c", WITHOUT, "mpi4py"), status=2)
    assert "error: --communicator naive needs MPI: pip install '.[mpi]' (No module named 'mpi4py" in refused.stderr
    assert not (tmp_path / "out").exists()
