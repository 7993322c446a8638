"""An equivalent of chainerrl.misc.async_, which puts parameters and states into memory that processes share."""

from __future__ import annotations

import functools
import multiprocessing

import chainer
import numpy


def as_shared_objects(owner):
    """Move a link's parameters or an optimizer's states to shared memory; return that memory by name."""
    shared = {name: multiprocessing.RawArray(array.dtype.char, array.ravel()) for name, array, _ in entries(owner)}
    synchronize_to_shared_objects(owner, shared)
    return shared


def synchronize_to_shared_objects(owner, shared):
    """Replace the arrays of a link or an optimizer by views of shared memory; return the link or optimizer."""
    for name, array, replace in entries(owner):
        replace(numpy.frombuffer(shared[name], array.dtype).reshape(array.shape))
    return owner


def entries(owner):
    """Yield the name of each array, the array, and a function that replaces it."""
    if isinstance(owner, chainer.Link):
        for path, param in owner.namedparams():
            yield path, param.array, functools.partial(setattr, param, "array")
        return
    for path, param in owner.target.namedparams():
        rule = param.update_rule
        if rule.state is None:
            # ChainerRL sets the private attribute too: Chainer has no public way to set the state.
            rule._state = {}
            rule.init_state(param)
        for name, state in list(rule.state.items()):
            yield f"{path}/{name}", state, functools.partial(rule.state.__setitem__, name)


def run_async(n_process, run_func):
    """Call ``run_func(index)`` in ``n_process`` concurrent processes and wait for them.

    Raises:
        RuntimeError: A process has failed.
    """
    processes = [multiprocessing.Process(target=run_func, args=(index,)) for index in range(n_process)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    statuses = [process.exitcode for process in processes]
    if any(statuses):
        raise RuntimeError(f"the exit statuses of the processes are {statuses}")
