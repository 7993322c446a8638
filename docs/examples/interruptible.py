"""A Chainer trainer that Ctrl-C stops between two steps and that goes on from there to the same bits.

Chainer's snapshots hold the parameters, the optimizer, the schedules and the iterator's order, but no state of a
random generator and no recurrent state. So a script draws no random number after its first step, or draws it
from what a snapshot holds, and its updater saves what else runs on from step to step. Like Chainer, this is to be
imported after rmsprop_graves.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from chainer import serializers, training
from chainer.training import extensions


class InterruptibleTrainer(training.Trainer):
    """Trains for a number of epochs, with a snapshot after each and at Ctrl-C.

    Args:
        updater: As for ``chainer.training.Trainer``.
        epochs: When to stop, counted from the beginning of the first run.
        out: The folder for snapshots, logs and plots.
        settings: What a run must have in common with a snapshot to resume from it; anything that JSON can hold.
    """

    def __init__(self, updater, epochs, out, settings):
        super().__init__(updater, _Stop(epochs), out)
        self._settings = settings
        self._snapshot = extensions.snapshot()
        self.extend(self._snapshot)

    def run(self):
        """Trains to the end, or until Ctrl-C, which ends the process with status 130.

        The first Ctrl-C lets the step that is under way finish, with all its hooks and extensions, and writes a
        snapshot. The second stops at once. A snapshot gets its name only when it is whole.
        """
        stop = self.stop_trigger

        def interrupt(signum, frame):
            stop.now = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            super().run()
            if stop.is_trained(self):
                return
            if self.updater.iteration > 0:
                self._snapshot(self)
                note = f"Stopped. To go on: --resume {self.newest_snapshot()}"
            else:
                note = "Stopped before the first step: nothing to resume."
        except KeyboardInterrupt:
            note = "Stopped at once. To go on from the last whole snapshot, if there is one: --resume"
        finally:
            signal.signal(signal.SIGINT, previous)
        print(note, file=sys.stderr)
        sys.exit(130)

    def resume(self, path=None):
        """Goes to where a snapshot was taken, by default the newest in the folder.

        Raises:
            ValueError: There is no such snapshot, or it is not one of a run with the same settings.
        """
        path = path or self.newest_snapshot()
        if path is None:
            raise ValueError(f"no snapshot in {self.out}")
        try:
            serializers.load_npz(path, self)
        except Exception as error:  # a file may be broken in any way
            raise ValueError(f"cannot resume from {path}: {error}") from error

    def newest_snapshot(self):
        """The path of the newest snapshot in the folder, or None."""
        paths = Path(self.out).glob("snapshot_iter_*")
        return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)

    def serialize(self, serializer):
        """Saves or loads all that Chainer's trainer does, and the settings, which must not differ."""
        settings = json.loads(serializer("settings", json.dumps(self._settings)))
        if settings != self._settings:
            raise ValueError(f"it was made with {settings}, not {self._settings}")
        super().serialize(serializer)


class _Stop:
    # Keeps nothing of its own, so a run may resume with more epochs, and is over at once with fewer.
    def __init__(self, epochs):
        self.epochs = epochs
        self.now = False

    def __call__(self, trainer):
        return self.now or self.is_trained(trainer)

    def is_trained(self, trainer):
        return trainer.updater.epoch >= self.epochs

    def get_training_length(self):
        return self.epochs, "epoch"


class PlotReport(extensions.PlotReport):
    """Chainer's, which leaves out of snapshots what LogReport saves: its trigger and the means of the epoch so far."""

    def serialize(self, serializer):
        """Saves or loads them, after the points plotted so far."""
        super().serialize(serializer)
        self._trigger.serialize(serializer["_trigger"])
        self._summary.serialize(serializer["_summary"])
