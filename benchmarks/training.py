"""Time whole training iterations with Chainer's class and this package's.

torch and optax are left out: with networks of their own libraries, this would compare networks instead of optimizers.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves

from benchmarks.libraries import CHAINER, NUMBA, NUMPY, why_left_out
from rmsprop_graves import RMSpropGraves, kernels

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


class Training(NamedTuple):
    """The two parts of a training iteration: `differentiate` computes the gradients, and `update` uses them."""

    differentiate: Callable[[], Any]
    update: Callable[[], Any]


class NatureDQN(chainer.Chain):
    """Mnih et al. 2015; see models.nature_dqn."""

    def __init__(self, actions: int = 18) -> None:
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(4, 32, 8, stride=4)
            self.conv2 = L.Convolution2D(32, 64, 4, stride=2)
            self.conv3 = L.Convolution2D(64, 64, 3, stride=1)
            self.hidden = L.Linear(64 * 7 * 7, 512)
            self.output = L.Linear(512, actions)

    def forward(self, frames):
        """Return the value of each action."""
        h = F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(frames))))))
        return self.output(F.relu(self.hidden(h)))


def train_dqn(optimizer_class) -> Training:
    """Train on a batch of 32 random transitions, with the paper's hyperparameters and a target network."""
    random = numpy.random.default_rng(0)
    frames, next_frames = (random.random((32, 4, 84, 84), "float32") for _ in range(2))
    actions = random.integers(0, 18, 32).astype("i")
    rewards = random.integers(-1, 2, 32).astype("f")
    network = NatureDQN()
    target = network.copy("copy")
    optimizer = optimizer_class(lr=2.5e-4, alpha=0.95, momentum=0.0, eps=1e-2).setup(network)

    def differentiate():
        with chainer.no_backprop_mode():
            y = rewards + 0.99 * target(next_frames).array.max(axis=1)
        q = F.select_item(network(frames), actions)
        loss = F.sum(F.huber_loss(q[:, None], y[:, None], 1.0))
        network.cleargrads()
        loss.backward()

    return Training(differentiate, optimizer.update)


def train_text(optimizer_class) -> Training:
    """Train the model of docs/examples/train_text.py, with its text, learning rate and hook."""
    example = _example("train_text")
    alphabet, ids = numpy.unique(list(example.read_text(None)), return_inverse=True)
    windows = example.cut_windows(ids.astype("i"))
    model = example.CharacterModel(len(alphabet), 128)
    optimizer = optimizer_class(lr=1e-2).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(5))
    place = 0

    def differentiate():
        nonlocal place
        loss = model(*windows[place % len(windows)])
        place += 1
        model.cleargrads()
        loss.backward()
        model.lstm.c.unchain()
        model.lstm.h.unchain()

    return Training(differentiate, optimizer.update)


NETWORKS = {"text example": train_text, "Nature DQN": train_dqn}


def time_in_turn(network: str, threads: int, rounds: int, iterations: int = 3) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of an iteration and of its update, for each optimizer in each round."""
    kernel_of = {CHAINER: "numpy", NUMPY: "numpy"}  # Chainer's class ignores it
    if not why_left_out("numba"):
        kernel_of[NUMBA] = "numba"
    make = NETWORKS[network]
    kernels.set_num_threads(threads)
    trainings = {name: make(ChainerRMSpropGraves if name == CHAINER else RMSpropGraves) for name in kernel_of}
    seconds: dict[str, dict[str, list[float]]] = {name: {"iteration": [], "update": []} for name in trainings}
    for round_ in range(rounds + 1):
        for name, training in trainings.items():
            kernels.use_on_cpu(kernel_of[name])
            whole = updating = 0.0
            for iteration in range(iterations + 1):
                start = time.perf_counter()
                training.differentiate()
                middle = time.perf_counter()
                training.update()
                end = time.perf_counter()
                if iteration > 0:
                    whole += end - start
                    updating += end - middle
            if round_ > 0:
                seconds[name]["iteration"].append(whole / iterations)
                seconds[name]["update"].append(updating / iterations)
    return seconds


def _example(name: str) -> Any:
    if name not in sys.modules:
        sys.path.insert(0, str(EXAMPLES))  # they import each other
        try:
            importlib.import_module(name)
        finally:
            sys.path.remove(str(EXAMPLES))
    return sys.modules[name]
