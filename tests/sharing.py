"""An equivalent of chainerrl.misc.async_: parameters and states in memory that processes share."""

from __future__ import annotations

import functools
import multiprocessing

import chainer
import numpy


def as_shared_objects(owner):
    """Moves the parameters of a link or the states of an optimizer to shared memory, and returns that, by name."""
    shared = {name: multiprocessing.RawArray(array.dtype.char, array.ravel()) for name, array, _ in entries(owner)}
    synchronize_to_shared_objects(owner, shared)
    return shared


def synchronize_to_shared_objects(owner, shared):
    """Puts views of shared memory in the place of the arrays of a link or an optimizer, and returns it."""
    for name, array, replace in entries(owner):
        replace(numpy.frombuffer(shared[name], array.dtype).reshape(array.shape))
    return owner


def entries(owner):
    """Each array with its name and what replaces it."""
    if isinstance(owner, chainer.Link):
        for path, param in owner.namedparams():
            yield path, param.array, functools.partial(setattr, param, "array")
        return
    for path, param in owner.target.namedparams():
        rule = param.update_rule
        if rule.state is None:
            # As ChainerRL has it, for Chainer lets nobody set the state.
            rule._state = {}
            rule.init_state(param)
        for name, state in list(rule.state.items()):
            yield f"{path}/{name}", state, functools.partial(rule.state.__setitem__, name)


def run_async(n_process, run_func):
    """Calls ``run_func(index)`` in as many processes at once, and waits for them.

    Raises:
        RuntimeError: One has failed.
    """
    processes = [multiprocessing.Process(target=run_func, args=(index,)) for index in range(n_process)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    statuses = [process.exitcode for process in processes]
    if any(statuses):
        raise RuntimeError(f"the processes have exited with {statuses}")
