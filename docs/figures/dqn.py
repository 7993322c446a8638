"""Learning curves of the DQN example, over three seeds: optimizers in Breakout, and three games.

The curves are in dqn.json. `python docs/figures/dqn.py --train FOLDER` trains them again, which takes hours, and
`--profile` measures where the time of a frame goes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import style

FOLDER = Path(__file__).resolve().parent
RUNS = FOLDER / "dqn.json"

MISTAKE = "momentum=0.95"
OPTIONS = {
    style.OURS: [],
    style.CHAINER: ["--optimizer", "chainer"],
    "RMSprop": ["--optimizer", "rmsprop"],
    "Adam": ["--optimizer", "adam"],
    "MomentumSGD": ["--optimizer", "momentum"],
    MISTAKE: ["--momentum", "0.95"],
}
# Its name in the legend. In two lines, it fits into a column.
LABELS = {MISTAKE: f"RMSpropGraves,\n{MISTAKE}"}
COLORS = {**style.COLORS, MISTAKE: style.BLACK}
GAMES = ["breakout", "asterix", "space_invaders"]
SEEDS = range(3)
COMPARED = 100_000  # frames over which the other optimizers are compared: half of the default


def train(game, name, seed, folder, options=()):
    """Runs the example, or resumes a run that was stopped.

    Returns:
        The settings; the return of a random player; for each line of the log the number of frames and the mean return
        of the last hundred episodes; and a hash of the final weights, states of the optimizer and replay memory.
    """
    out = Path(folder, f"{game}-{name}-{seed}".replace(":", "-").replace(" ", "-"))
    resume = ["--resume"] if list(out.glob("snapshot_iter_*")) else []
    command = [sys.executable, FOLDER.parent / "examples" / "train_dqn.py", "--game", game, "--seed", str(seed)]
    command += ["--out", out, *OPTIONS[name], *options, *resume]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the other cores have runs of their own
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=environment).stdout
    random = float(output.partition("random player:")[2].split()[0])
    log = json.loads((out / "log.json").read_text())
    final = hashlib.sha256()
    with numpy.load(output.partition("Snapshot: ")[2].strip()) as snapshot:
        for key in sorted(snapshot):
            if key.startswith("updater/"):
                final.update(snapshot[key].tobytes())
    return {
        "game": game,
        "optimizer": name,
        "seed": seed,
        "random": random,
        "seconds": round(log[-1]["elapsed_time"]),
        "hash": final.hexdigest(),
        "returns": [[entry["iteration"], round(entry["return"], 3)] for entry in log if "return" in entry],
    }


def train_all(folder):
    """Trains every optimizer in Breakout and the default in the other games, a run on each core."""
    cases = [(GAMES[0], style.CHAINER, 0, folder)]
    cases += [(game, style.OURS, seed, folder) for game in GAMES[1:] for seed in SEEDS]
    others = [name for name in OPTIONS if name not in (style.OURS, style.CHAINER)]
    cases += [(GAMES[0], style.OURS, seed, folder) for seed in SEEDS]
    cases += [(GAMES[0], name, seed, folder, ["--frames", str(COMPARED)]) for seed in SEEDS for name in others]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(train, *case) for case in cases]
        try:
            return [run.result() for run in runs]
        except BaseException:  # such as Ctrl-C, which every run gets
            for run in runs:
                run.cancel()
            raise


def profile(game, optimizer, frames):
    """Trains for some frames, and returns the frames per second and the share of the time in each part."""
    sys.path.insert(0, str(FOLDER.parent / "examples"))
    import train_dqn as example  # isort: split

    import chainer

    player = example.Player(example.load_game(game), 0, 0)
    model = example.QNetwork(player.state().shape, player.game.num_actions())
    optimizer_class, hyperparameters = example.OPTIMIZERS[optimizer]
    updater = example.DQNUpdater(optimizer_class(**hyperparameters).setup(model), player, 0, 1_000, 1, frames)
    seconds = {}

    def measure(owner, method, part):
        inner = getattr(owner, method)

        def timed(*args, **kwds):
            start = time.perf_counter()
            try:
                return inner(*args, **kwds)
            finally:
                seconds[part] = seconds.get(part, 0) + time.perf_counter() - start

        setattr(owner, method, timed)

    measure(updater, "update", "frame")
    measure(updater, "loss", "forward")
    measure(updater.memory, "sample", "replay")
    measure(updater.player, "act", "game")
    measure(model, "best_action", "action")
    measure(updater.optimizer, "update", "step")
    backward = chainer.Variable.backward
    measure(chainer.Variable, "backward", "backward")
    reporter = chainer.Reporter()
    reporter.add_observer("main", model)
    try:
        with reporter, reporter.scope({}):
            for _ in range(frames // 10):
                updater.update()
            seconds.clear()
            for _ in range(frames):
                updater.update()
    finally:
        chainer.Variable.backward = backward
    whole = seconds.pop("frame")
    seconds["step"] -= seconds["forward"] + seconds["backward"]  # which it calls
    return frames / whole, {part: spent / whole for part, spent in seconds.items()}


def write(runs):
    """Writes the runs, one to a line."""
    RUNS.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n", encoding="utf-8")


def describe(runs):
    """Prints the final return of each game and optimizer, and whether Chainer's class gives the same bits."""
    for game, name in dict.fromkeys((run["game"], run["optimizer"]) for run in runs):
        group = [run for run in runs if (run["game"], run["optimizer"]) == (game, name)]
        finals = ", ".join(f"{run['returns'][-1][1]:.2f}" for run in group)
        print(f"{game}, {name}: {finals}; at random {group[0]['random']:.2f}")
    hashes = {(run["game"], run["optimizer"], run["seed"]): run["hash"] for run in runs}
    for (game, name, seed), chainers in hashes.items():
        if name == style.CHAINER:
            is_same = chainers == hashes[game, style.OURS, seed]
            print(f"Chainer's class in {game}, seed {seed}: {'the same bits' if is_same else 'OTHER BITS'}")


def _band(panel, runs, label, **options):
    frames = numpy.array([[frame for frame, _ in run["returns"]] for run in runs])[0]
    returns = numpy.array([[value for _, value in run["returns"]] for run in runs])
    (line,) = panel.plot(frames / 1000, returns.mean(axis=0), label=label, **options)
    panel.fill_between(
        frames / 1000, returns.min(axis=0), returns.max(axis=0), color=line.get_color(), alpha=0.15, lw=0
    )


def _line_of_random_player(panel, runs, game):
    mean = numpy.mean([run["random"] for run in runs if run["game"] == game])
    panel.axhline(mean, color="0.5", linestyle=":", label="random player")


def draw_optimizers(runs):
    """Draws the mean return of each optimizer in Breakout, and the range over the seeds.

    Chainer's class is left out, because its curve coincides with ours.
    """
    figure, (panel,) = style.panels(1, 5)
    for name in OPTIONS:
        if name != style.CHAINER:
            group = [run for run in runs if (run["game"], run["optimizer"]) == (GAMES[0], name)]
            until = [{"returns": [entry for entry in run["returns"] if entry[0] <= COMPARED]} for run in group]
            _band(panel, until, LABELS.get(name, name), color=COLORS[name], linewidth=3 if name == style.OURS else 2)
    _line_of_random_player(panel, runs, GAMES[0])
    panel.set(xlabel="thousands of frames", ylabel="return of the last 100 episodes", xlim=(0, None), ylim=(0, None))
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def draw_games(runs):
    """Draws the mean return in each game with the default optimizer, and the range over the seeds."""
    figure, panels = style.panels(len(GAMES), 6.5, sharex=True)
    for panel, game in zip(panels, GAMES):
        group = [run for run in runs if (run["game"], run["optimizer"]) == (game, style.OURS)]
        _band(panel, group, style.OURS, color=style.BLUE, linewidth=2)
        _line_of_random_player(panel, runs, game)
        panel.set(title=game.replace("_", " ").title(), ylabel="return", xlim=(0, None), ylim=(0, None))
    panels[-1].set_xlabel("thousands of frames")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", metavar="FOLDER", help="train in this folder first; resumes runs that were stopped")
    parser.add_argument("--profile", action="store_true", help="only print where the time of a frame goes")
    args = parser.parse_args()
    if args.profile:
        for optimizer in ("graves", "chainer", "rmsprop", "adam", "momentum"):
            speed, shares = profile(GAMES[0], optimizer, 2_000)
            print(f"{optimizer}: {speed:.0f} frames a second;", ", ".join(f"{k} {v:.1%}" for k, v in shares.items()))
        sys.exit()
    if args.train:
        write(train_all(args.train))
    recorded = json.loads(RUNS.read_text(encoding="utf-8"))
    describe(recorded)
    style.save(draw_optimizers(recorded), "dqn-optimizers.png")
    style.save(draw_games(recorded), "dqn-games.png")
