"""A Chainer trainer that Ctrl-C stops between two steps and that goes on from there to the same bits.

Chainer's snapshots hold the parameters, the optimizer, the schedules and the iterator's order, but no state of a
random generator and no recurrent state. So a script draws no random number after its first step, or draws it
from what a snapshot holds, and its updater saves what else runs on from step to step. Like Chainer, this is to be
imported after rmsprop_graves.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path

from chainer import training
from chainer.training import extensions

from rmsprop_graves import load_npz


class InterruptibleTrainer(training.Trainer):
    """Trains for a number of epochs, with a snapshot after each and at Ctrl-C.

    Args:
        updater: As for ``chainer.training.Trainer``.
        epochs: When to stop, counted from the beginning of the first run.
        out: The folder for snapshots, logs and plots.
        settings: What a run must have in common with a snapshot to resume from it; anything that JSON can hold.
        comm: ChainerMN's communicator, if several ranks train. The first saves for all, who may differ in nothing but
            their data; all load from the folder.
    """

    def __init__(self, updater, epochs, out, settings, comm=None):
        super().__init__(updater, _Stop(epochs, comm), out)
        self._settings = settings
        self._comm = comm
        self._snapshot = extensions.snapshot()
        self._is_first = comm is None or comm.rank == 0
        if self._is_first:
            self.extend(self._snapshot)

    def run(self):
        """Trains to the end, or until Ctrl-C, which ends the process with status 130.

        The first Ctrl-C lets the step that is under way finish, with all its hooks and extensions, and writes a
        snapshot. The second stops at once. Ranks stop after the same step, whichever of them it comes to.
        A snapshot gets its name only when it is whole. If there is no room for one, or no right to write it, the
        process ends with status 1, and the ones before it stay.
        """
        stop = self.stop_trigger

        def interrupt(signum, frame):
            stop.now = True
            signal.signal(signum, signal.default_int_handler)

        # Open MPI's mpiexec turns Ctrl-C into SIGTERM, and kills a quarter of a second later.
        signums = [signal.SIGTERM, signal.SIGINT] if self._comm else [signal.SIGINT]
        previous = {signum: signal.signal(signum, interrupt) for signum in signums}
        try:
            super().run(show_loop_exception_msg=False)
            if stop.is_trained(self):
                return
            if self._is_first:
                print(self._save_where_stopped(), file=sys.stderr, flush=True)
            if self._comm:
                self._comm.mpi_comm.barrier()  # until that is done, for a rank that exits ends the others
        except KeyboardInterrupt:
            print("Stopped at once. To go on from the last whole snapshot, if there is one: --resume", file=sys.stderr)
        except OSError as error:
            sys.exit(
                f"Stopped by the system: {error}. "
                f"To go on from the last whole snapshot in {self.out}, if there is one: --resume"
            )
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
        sys.exit(130)

    def _save_where_stopped(self):
        if self.updater.iteration == 0:
            return "Stopped before the first step: nothing to resume."
        self._snapshot(self)
        return f"Stopped. To go on: --resume {self.newest_snapshot()}"

    def resume(self, path=None):
        """Goes to where a snapshot was taken, by default the newest in the folder.

        Raises:
            ValueError: There is no such snapshot, or it is not one of a run with the same settings.
        """
        path = path or self.newest_snapshot()
        if path is None:
            raise ValueError(f"no snapshot in {self.out}")
        try:
            load_npz(path, self)
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


@contextlib.contextmanager
def ranks_end_together():
    """Under MPI, has a rank that ends with an error end the others, which would wait for it for ever."""
    try:
        yield
    except BaseException as error:
        if "mpi4py.MPI" in sys.modules:
            from mpi4py.run import set_abort_status

            set_abort_status(error.code if isinstance(error, SystemExit) else 1)
        raise


class _Stop:
    # Keeps nothing of its own, so a run may resume with more epochs, and is over at once with fewer.
    def __init__(self, epochs, comm):
        self.epochs = epochs
        self.comm = comm
        self.now = False

    def __call__(self, trainer):
        # Ctrl-C may come to one rank alone, or to each in another step, and a rank that goes on alone waits for ever.
        now = self.comm.allreduce_obj(self.now) if self.comm else self.now
        return now or self.is_trained(trainer)

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
