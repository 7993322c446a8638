"""ChainerRL's DQN and DoubleDQN on MinAtar's Breakout, as in docs/examples/train_chainerrl.py."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import chainerrl

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs" / "examples"))

from train_chainerrl import train


def dqn(optimizer, updates=1000, agent_class=chainerrl.agents.DQN):
    """Trains with a hook that decays the learning rate at every step."""
    start = 100
    steps = start + updates
    decay = chainerrl.experiments.LinearInterpolationHook(steps, optimizer.lr, 0, set_lr)
    with tempfile.TemporaryDirectory() as out:
        train(optimizer, steps, start, out, agent_class, hooks=[decay])
    return optimizer


def double_dqn(optimizer, updates=1000):
    """Trains DoubleDQN like :func:`dqn`."""
    return dqn(optimizer, updates, chainerrl.agents.DoubleDQN)


def set_lr(env, agent, value):
    agent.optimizer.lr = value
