"""A Chainer trainer that Ctrl-C stops between two steps. A resumed run gives bit-identical results.

Chainer's snapshots hold the parameters, the optimizer, the schedules and the iterator's order, but not the state of
random generators or recurrent links. So after its first step a script must derive random numbers from the contents of
a snapshot, and its updater must save any other state that lasts from step to step. Like Chainer, this module must be
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
        updater: The updater, as for ``chainer.training.Trainer``.
        epochs: The epoch after which training stops, counted from the start of the first run.
        out: The folder for snapshots, logs and plots.
        settings: Any values that JSON can hold. A run resumes only from a snapshot with equal settings.
        comm: ChainerMN's communicator, if several ranks train. The first rank saves for all, so ranks may differ only
            in their data. Every rank loads from the folder.
        n_retains: The number of snapshots to keep, the newest ones. By default all are kept.
    """

    def __init__(self, updater, epochs, out, settings, comm=None, n_retains=-1):
        super().__init__(updater, _Stop(epochs, comm), out)
        self._settings = settings
        self._comm = comm
        self._snapshot = extensions.snapshot(n_retains=n_retains)
        self._is_first = comm is None or comm.rank == 0
        if self._is_first:
            self.extend(self._snapshot)

    def run(self):
        """Trains to the end, or until Ctrl-C, which ends the process with status 130.

        After the first Ctrl-C the current step finishes with its hooks and extensions, and a snapshot is written. The
        second Ctrl-C stops at once. All ranks stop after the same step, whichever of them gets the signal.
        A snapshot gets its name only when it is complete. If it cannot be written, because the disk is full or
        permission is missing, the process ends with status 1, and earlier snapshots stay.
        """
        stop = self.stop_trigger

        def interrupt(signum, frame):
            stop.now = True
            signal.signal(signum, signal.default_int_handler)

        # Open MPI's mpiexec sends SIGTERM at Ctrl-C, and kills the ranks a quarter of a second later.
        signums = [signal.SIGTERM, signal.SIGINT] if self._comm else [signal.SIGINT]
        previous = {signum: signal.signal(signum, interrupt) for signum in signums}
        try:
            super().run(show_loop_exception_msg=False)
            if stop.is_trained(self):
                return
            if self._is_first:
                print(self._save_where_stopped(), file=sys.stderr, flush=True)
            if self._comm:
                self._comm.mpi_comm.barrier()  # wait until it is written: a rank that exits ends the others
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
        """Loads a snapshot, by default the newest in the folder.

        Raises:
            ValueError: There is no such snapshot, or its settings differ.
        """
        path = path or self.newest_snapshot()
        if path is None:
            raise ValueError(f"no snapshot in {self.out}")
        try:
            load_npz(path, self)
        except Exception as error:  # a damaged file may raise anything
            raise ValueError(f"cannot resume from {path}: {error}") from error

    def newest_snapshot(self):
        """Returns the path of the newest snapshot in the folder, or None."""
        paths = Path(self.out).glob("snapshot_iter_*")
        return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)

    def serialize(self, serializer):
        """Saves or loads everything that Chainer's trainer does, and the settings, which must be equal."""
        settings = json.loads(serializer("settings", json.dumps(self._settings)))
        if settings != self._settings:
            raise ValueError(f"it was made with {settings}, not {self._settings}")
        super().serialize(serializer)


@contextlib.contextmanager
def ranks_end_together():
    """Under MPI, ends all ranks if one fails. Otherwise the others would wait for it for ever."""
    try:
        yield
    except BaseException as error:
        if "mpi4py.MPI" in sys.modules:
            from mpi4py.run import set_abort_status

            set_abort_status(error.code if isinstance(error, SystemExit) else 1)
        raise


class _Stop:
    # A snapshot does not hold the number of epochs, so a run can resume with more. With fewer it ends at once.
    def __init__(self, epochs, comm):
        self.epochs = epochs
        self.comm = comm
        self.now = False

    def __call__(self, trainer):
        # Ctrl-C may reach only one rank, or each in a different step, and a rank that goes on alone hangs.
        now = self.comm.allreduce_obj(self.now) if self.comm else self.now
        return now or self.is_trained(trainer)

    def is_trained(self, trainer):
        return trainer.updater.epoch >= self.epochs

    def get_training_length(self):
        return self.epochs, "epoch"


class PlotReport(extensions.PlotReport):
    """Chainer's PlotReport, which also saves its trigger and the current epoch's means, as LogReport does.

    Args:
        entries: The log's entries to plot.
        x_key: ``"epoch"`` or ``"iteration"``.
        label: The label of the vertical axis.
        filename: The name of the plot's file.
    """

    def __init__(self, entries, x_key, label, filename):
        super().__init__(entries, x_key, postprocess=lambda _, axes, __: axes.set_ylabel(label), filename=filename)

    def serialize(self, serializer):
        """Saves or loads the plotted points, the trigger and the means."""
        super().serialize(serializer)
        self._trigger.serialize(serializer["_trigger"])
        self._summary.serialize(serializer["_summary"])


class PrintReport(extensions.PrintReport):
    """Chainer's PrintReport with aligned columns, and with escape codes only if there is a progress bar.

    Args:
        entries: The log's entries to print, a column each.
        has_bar: Whether ``ProgressBar`` draws below the rows, so that a row must erase it first.
    """

    def __init__(self, entries, has_bar):
        super().__init__(entries, out=self)
        self._has_bar = has_bar

    def write(self, text):
        """Prints text, but no escape code without a bar."""
        if self._has_bar or text != "\033[J":
            print(text, end="", flush=True)

    def _print(self, observation):
        # Four digits fit into the narrowest column, of ten characters. Six do not: 0.000107374.
        super()._print(
            {name: value if isinstance(value, int) else float(f"{value:.4g}") for name, value in observation.items()}
        )
