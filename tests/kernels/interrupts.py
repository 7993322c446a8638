"""A program that interrupts updates.

Its arguments are the name of a function below and the arguments of this function, which prints its counts.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy

from rmsprop_graves import RMSpropGraves, kernels
from rmsprop_graves.kernels import numba as numba_kernel
from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels import threads

import chainer  # isort: skip

VALUES = {"lr": 0.01, "alpha": 0.9, "momentum": 0.9, "eps": 1e-4}
UPDATES = 400


class Training:
    """A model whose elements are all equal, and so stay equal unless an update is torn."""

    def __init__(self, sizes: tuple[int, ...] = (3000, 20000, 1)) -> None:
        self.model = chainer.Link()
        with self.model.init_scope():
            for number, size in enumerate(sizes):
                setattr(self.model, f"p{number}", chainer.Parameter(numpy.zeros(size, "f")))
        self.params = list(self.model.params())
        self.optimizer = RMSpropGraves(**VALUES).setup(self.model)
        for param in self.params:
            param.grad = numpy.ones_like(param.array)
        self.optimizer.update()
        self.arrays = [[param.array, *map(param.update_rule.state.get, ("n", "g", "delta"))] for param in self.params]
        # The values of an element in param, n, g and delta after each number of updates.
        row, grad = numpy.zeros((4, 1), "f"), numpy.ones(1, "f")
        self.expected = [row.ravel().tolist()]
        for _ in range(UPDATES):
            numpy_kernel.step(row[0], grad, *row[1:], **VALUES)
            self.expected.append(row.ravel().tolist())

    def restart(self) -> None:
        """Go back to the values before any update."""
        for param, arrays in zip(self.params, self.arrays):
            param.update_rule.t = 0
            for array in arrays:
                array.fill(0)

    def update(self) -> None:
        """Update the whole model."""
        self.optimizer.update()

    def step(self) -> None:
        """Step one parameter with the kernel's own function."""
        param, n, g, delta = self.arrays[1]
        numba_kernel.step(param, self.params[1].grad, n, g, delta, **VALUES)

    def snapshot(self) -> list[bytes]:
        """Return the bits of all parameters and states."""
        return [array.tobytes() for arrays in self.arrays for array in arrays]

    def count(self, place: int) -> int:
        """Return how many updates the parameter has seen; -1 if it is torn."""
        firsts = [float(array[0]) for array in self.arrays[place]]
        is_whole = all((array == array[0]).all() for array in self.arrays[place])
        return self.expected.index(firsts) if is_whole and firsts in self.expected else -1

    def check(self, is_step: bool = False) -> int:
        """Assert that nothing is torn and nothing still writes; return the number of updates."""
        before = self.snapshot()
        time.sleep(0.0005)
        assert self.snapshot() == before, "written after the interrupt"
        if is_step:
            count = self.count(1)
        else:
            count, *others = {self.count(place) for place in range(len(self.params))}
            assert not others, "the launch is torn"
            assert {param.update_rule.t for param in self.params} == {count}, "t is torn"
        assert count >= 0, "a parameter is torn"
        return count


def at_events(method: str, error: str, count: str, stride: str) -> None:
    """Raise an error at every call, return and bytecode of the package and of `queue`, or at every `stride`-th."""
    threads.SPAN = 256
    kernels.set_num_threads(int(count))
    training = Training()
    act, is_step = getattr(training, method), method == "step"
    error_class = {"KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError, "RuntimeError": RuntimeError}[
        error
    ]
    seen = {0: 0, 1: 0}
    for k in range(0, 1_000_000, int(stride)):
        training.restart()
        left = k
        caught = False

        def trace(frame, event, arg):
            nonlocal left
            name = frame.f_code.co_filename
            if "rmsprop_graves" not in name and event == "call" and "queue" not in name:
                return None
            frame.f_trace_opcodes = True
            if event == "line":
                # A bytecode follows at once, and Python 3.8 would lose the error here.
                return trace
            if left == 0:
                left = -1
                raise error_class
            left -= 1
            return trace

        try:
            sys.settrace(trace)
            act()
            sys.settrace(None)
        except error_class:
            caught = True
        finally:
            sys.settrace(None)
        seen[training.check(is_step)] += 1
        if not caught and left > 0:
            break
        act()
        training.check(is_step)
    print(k, *seen.values())


SENDER = """
import os, random, signal, sys, time
rng = random.Random(0)
while sys.stdin.buffer.read(1):
    end = time.perf_counter() + rng.random() * 0.001
    while time.perf_counter() < end:
        pass
    os.kill(int(sys.argv[1]), signal.SIGINT)
"""


def at_random(count: str, interrupts: str) -> None:
    """Receive many SIGINTs from another process, each at a random time within an update."""
    import os

    threads.SPAN = 256
    kernels.set_num_threads(int(count))
    training = Training()
    expects = [False]

    def interrupt(signum, frame):
        if expects[0]:
            expects[0] = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    sender = subprocess.Popen(
        [sys.executable, "-S", "-c", SENDER, str(os.getpid())], stdin=subprocess.PIPE, start_new_session=True
    )
    seen = set()
    for _ in range(int(interrupts)):
        training.restart()
        try:
            expects[0] = True
            os.write(sender.stdin.fileno(), b"x")
            for _ in range(UPDATES):
                training.update()
            # A busy loop would not do: Python 3.14 does not guard some of its jumps by the `except`.
            time.sleep(60)
            raise AssertionError("no interrupt has come")
        except KeyboardInterrupt:
            pass
        seen.add(training.check())
    sender.stdin.close()
    assert sender.wait(60) == 0
    training.restart()
    training.update()
    assert training.check() == 1
    print(interrupts, len(seen))


if __name__ == "__main__":
    kernels.use_on_cpu("numba")

    {"at_events": at_events, "at_random": at_random}[sys.argv[1]](*sys.argv[2:])
