"""Trains each client with Chainer's class and with this package's from the same seed, and compares all bits."""

from __future__ import annotations

import importlib
import platform
import random
import traceback
from typing import NamedTuple

import chainer
import numpy
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import arrays_of

from rmsprop_graves import RMSpropGraves, kernels


class Client(NamedTuple):
    """A program that trains: ``module.function(optimizer)`` sets the optimizer up, trains and returns it."""

    title: str
    module: str  # imported late, because it may need a package that is not installed
    function: str
    settings: dict


# As in ChainerRL's train_dqn.py for Atari.
NATURE = {"lr": 2.5e-4, "alpha": 0.95, "momentum": 0.0, "eps": 1e-2}

CLIENTS = (
    Client("Chainer's mnist, MLP", "clients.chainer_examples", "mnist_mlp", {}),
    Client("Chainer's ptb, LSTM", "clients.chainer_examples", "ptb_lstm", {"lr": 1e-3, "alpha": 0.9}),
    Client("Chainer's VAE", "clients.chainer_examples", "vae", {}),
    Client("ChainerRL's DQN", "clients.chainerrl_dqn", "dqn", NATURE),
    Client("ChainerRL's DoubleDQN", "clients.chainerrl_dqn", "double_dqn", NATURE),
    Client("Chainer Chemistry's GGNN", "clients.chemistry_ggnn", "ggnn", {"lr": 1e-3}),
)
KERNELS = ("numba", "numpy")


def row(title, parameters, elements, updates, *verdicts):
    cells = (f"  {verdict:<9}" for verdict in verdicts)
    return f"{title:<26}{parameters:>10}{elements:>12}{updates:>9}{''.join(cells)}".rstrip()


def end_of(train, optimizer):
    """Returns the result of a training: the parameters, the states and t of every rule, and t of the optimizer."""
    random.seed(0)
    numpy.random.seed(0)
    optimizer = train(optimizer)
    end = arrays_of(optimizer)
    for path, param in optimizer.target.namedparams():
        end[f"{path}/t"] = numpy.array(param.update_rule.t)
    end["t"] = numpy.array(optimizer.t)
    return end


def first_difference(actual, expected):
    """Describes the first difference between the bits of two results, or returns None."""
    if actual.keys() != expected.keys():
        return f"only one of them has {', '.join(sorted(actual.keys() ^ expected.keys()))}"
    for name, array in expected.items():
        other = actual[name]
        if (other.dtype, other.shape) != (array.dtype, array.shape):
            return f"{name} is {other.dtype} {other.shape}, not {array.dtype} {array.shape}"
        if other.tobytes() != array.tobytes():
            ours, chainers = (numpy.frombuffer(one.tobytes(), f"V{one.itemsize}") for one in (other, array))
            return f"{name} differs in {numpy.count_nonzero(ours != chainers)} of {array.size} elements"
    return None


class Witness(ChainerRMSpropGraves):
    """Chainer's class, which also counts the elements where this package's results differ by design."""

    negative = 0

    def update(self, lossfun=None, *args, **kwds):
        """Updates, and counts variances that rounding has made negative."""
        super().update(lossfun, *args, **kwds)
        for param in self.target.params():
            state = param.update_rule.state
            if state:
                self.negative += numpy.count_nonzero(state["n"] - state["g"] * state["g"] < 0)


def compare(client, train):
    """Trains with Chainer's class and with each kernel; returns the table's lines and whether all bits agree."""
    expected = end_of(train, ChainerRMSpropGraves(**client.settings))
    found = {}
    for kernel in KERNELS:
        kernels.use_on_cpu(kernel)
        found[kernel] = first_difference(end_of(train, RMSpropGraves(**client.settings)), expected)
    counts = [name for name in expected if name.endswith("/t")]
    elements = sum(expected[name[: -len("/t")]].size for name in counts)
    verdicts = ["differs" if found[kernel] else "same bits" for kernel in KERNELS]
    lines = [row(client.title, len(counts), f"{elements:,}", f"{expected['t']:,}", *verdicts)]
    if any(found.values()):
        lines += [f"    {kernel}: {difference}" for kernel, difference in found.items() if difference]
        witness = Witness(**client.settings)
        again = first_difference(end_of(train, witness), expected)
        lines.append(f"    Chainer's n - g^2 was negative {witness.negative} times")
        if again:
            lines.append(f"    Chainer's class does not repeat itself: {again}")
    return "\n".join(lines), not any(found.values())


def main(clients=CLIENTS):
    """Prints the table row by row, and returns the exit status."""
    print(f"Python {platform.python_version()}, NumPy {numpy.__version__}, Chainer {chainer.__version__}")
    print(row("", "parameters", "elements", "updates", *KERNELS), flush=True)
    status = 0
    for client in clients:
        try:
            train = getattr(importlib.import_module(client.module), client.function)
        except ModuleNotFoundError as error:
            print(f"{client.title:<26}not run: {error}", flush=True)
            continue
        try:
            lines, same = compare(client, train)
        except Exception as error:
            traceback.print_exc()
            lines, same = f"{client.title:<26}failed: {type(error).__name__}: {error}", False
        print(lines, flush=True)
        status |= not same
    return status
