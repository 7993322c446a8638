"""Raises errors where Chainer's own workers would hang or silently lose a snapshot, and hands them copies to write.

The repairs of MultiprocessIterator and of the snapshot writers call these functions.
"""

from __future__ import annotations

import copy
import multiprocessing.pool
import sys
import threading
from typing import Any

_SNAPSHOTS = "snapshots have not been written"


class Thread(threading.Thread):
    """A thread that stores the exception that ended it in `error`."""

    error: BaseException | None = None

    def run(self) -> None:
        """Runs the target and stores its exception."""
        try:
            super().run()
        except BaseException as error:
            self.error = error
            raise


def run_task(loop: Any) -> bool:
    """Runs one step of MultiprocessIterator's thread, and stores an exception for the iterator to raise."""
    try:
        return bool(loop._task())
    except BaseException as error:
        # If a killed worker held the pool's lock, terminating or joining the pool waits for ever.
        threading.Thread(target=loop._pool.terminate, daemon=True).start()
        loop._pool = _EndedPool()
        loop._comm._error = error
        return False


class Pool(multiprocessing.pool.Pool):
    """A pool that lists every worker it has ever started in `started`; the base class forgets ended workers."""

    def __init__(self, **options: Any) -> None:
        started: list[Any] = []
        self.started = started

        def start(context: Any, *args: Any, **kwds: Any) -> Any:
            worker = context.Process(*args, **kwds)
            started.append(worker)
            return worker

        self.Process = start  # type: ignore[assignment, method-assign]
        super().__init__(context=multiprocessing.get_context(), **options)


class _EndedPool:
    def close(self) -> None:
        """Does nothing, like the other methods."""

    join = terminate = close


def wait_for_batch(comm: Any, seconds: float) -> None:
    """Waits for the next batch of a MultiprocessIterator.

    Raises:
        RuntimeError: The iterator's thread has failed; its exception is the cause.
    """
    error = getattr(comm, "_error", None)
    if error is not None:
        raise RuntimeError(f"MultiprocessIterator has no more batches: {error}") from error
    comm._not_empty_cond.wait(seconds)


def is_terminated(loop: Any) -> bool:
    """Whether a MultiprocessIterator was terminated while its thread waits for the workers.

    Raises:
        RuntimeError: A worker has failed, or its result cannot be unpickled. The pool would replace the worker and
            wait for the lost task for ever.
    """
    if loop._comm.is_terminated:
        return True
    for worker in loop._pool.started:
        status = worker.exitcode
        # With maxtasksperchild, a worker that has completed its tasks ends with status 0.
        if status or (status == 0 and not loop.maxtasksperchild):
            raise RuntimeError(f"a worker process has ended with {_in_words(status)}; {_about_start_method()}")
    if not loop._pool._result_handler.is_alive():
        raise RuntimeError("the main process cannot unpickle a result or an exception of a worker process")
    return False


def copied(target: Any) -> Any:
    """Returns a copy of a serialized object, because it refers to the model's own arrays if they are on a CPU."""
    # One call for the whole dictionary: an array under two names, such as tied weights, is copied once.
    return copy.deepcopy(target) if isinstance(target, dict) else target


def copied_for_worker(writer: Any, target: Any) -> Any:
    """Returns a copy for the worker of a StandardWriter; the object itself for the worker of a ProcessWriter.

    A process needs no copy: it has its own memory by fork, or its arrays are pickled before `start` returns.
    """
    process_writer: Any = sys.modules["chainer.training.extensions.snapshot_writers"].ProcessWriter
    return target if type(writer).create_worker is process_writer.create_worker else copied(target)


def copied_for(writer: Any, target: Any) -> Any:
    """Returns a copy for a snapshot writer, because it may write later, for example in a thread.

    SimpleWriter needs no copy: it writes before it returns. Chainer's other writers make the copy themselves.
    """
    writers: Any = sys.modules["chainer.training.extensions.snapshot_writers"]
    kind = type(writer)
    if kind is writers.SimpleWriter:
        return target
    # A subclass with its own `__call__` may not make the copy.
    bases = (writers.StandardWriter, writers.QueueWriter)
    makes_copy = isinstance(writer, bases) and kind.__call__ in [base.__call__ for base in bases]
    return target if makes_copy else copied(target)


def join(worker: Any, filename: str) -> None:
    """Joins the thread or process that writes a snapshot.

    Raises:
        RuntimeError: The thread or process has failed, and this was not reported yet.
    """
    worker.join()
    if _failure_of(worker) and not _is_reported(worker):
        raise _error(f"the snapshot {filename} has not been written", worker)


def put(queue: Any, task: Any, consumer: Any) -> None:
    """Puts a snapshot into the queue of the thread or process that writes snapshots.

    Raises:
        RuntimeError: That thread or process has failed.
    """
    if _failure_of(consumer):
        raise _error(_SNAPSHOTS, consumer)
    queue.put(task)


def finish(queue: Any, consumer: Any) -> None:
    """Waits until all snapshots in the queue are written.

    Raises:
        RuntimeError: The thread or process that writes them has failed, and this was not reported yet.
    """
    if not _failure_of(consumer):
        # After a failure this could hang at exit: the queue's own thread may have stopped while it held `put`'s lock.
        queue.put(None)
    consumer.join()
    if not _failure_of(consumer):
        queue.join()
        return
    if hasattr(queue, "cancel_join_thread"):
        # Nobody reads the pipe any more; at exit the interpreter would wait until it is empty.
        queue.cancel_join_thread()
    if not _is_reported(consumer):
        raise _error(_SNAPSHOTS, consumer)


def _error(what: str, worker: Any) -> RuntimeError:
    worker._is_reported = True
    error = RuntimeError(f"{what}: {_failure_of(worker)}")
    error.__cause__ = getattr(worker, "error", None)
    return error


def _is_reported(worker: Any) -> bool:
    # Chainer finalizes a writer at the end of training and again when it is deleted.
    return getattr(worker, "_is_reported", False)


def _failure_of(worker: Any) -> str:
    """Returns why a thread or process has failed, or an empty string."""
    # The worker of a subclass may be of another kind, which does not tell whether it has failed.
    if isinstance(worker, Thread) and worker.error:
        return f"{type(worker.error).__name__}: {worker.error}"
    if isinstance(worker, multiprocessing.process.BaseProcess) and worker.exitcode:
        return f"the writing process has ended with {_in_words(worker.exitcode)}"
    return ""


def _in_words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _about_start_method() -> str:
    method = multiprocessing.get_start_method()
    if method == "fork":
        return "the dataset may have ended it, or the system, for example because memory ran out"
    return (
        f"with the start method {method}, the dataset's class has to be in a module, and the script's own code under "
        "`if __name__ == '__main__':`; or call multiprocessing.set_start_method('fork') first"
    )
