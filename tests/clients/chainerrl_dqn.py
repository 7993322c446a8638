"""ChainerRL's DQN and DoubleDQN on the environment of its own tests."""

from __future__ import annotations

import tempfile

import chainerrl
import numpy
from chainerrl.envs.abc import ABC


def dqn(optimizer, updates=1000, agent_class=chainerrl.agents.DQN):
    """Trains like ChainerRL's Atari scripts, with a hook that decays the learning rate at every step."""
    first_update = 100
    steps = first_update + updates
    env = ABC(size=3)
    actions = env.action_space.n
    q_function = chainerrl.q_functions.FCStateQFunctionWithDiscreteAction(
        env.observation_space.low.size, actions, n_hidden_channels=100, n_hidden_layers=2
    )
    optimizer.setup(q_function)
    explorer = chainerrl.explorers.LinearDecayEpsilonGreedy(
        1.0, 0.1, steps, random_action_func=lambda: numpy.random.randint(actions)
    )
    agent = agent_class(
        q_function,
        optimizer,
        chainerrl.replay_buffer.ReplayBuffer(10_000),
        gamma=0.99,
        explorer=explorer,
        replay_start_size=first_update,
        target_update_interval=100,
        batch_accumulator="sum",
    )
    decay = chainerrl.experiments.LinearInterpolationHook(steps, optimizer.lr, 0, set_lr)
    with tempfile.TemporaryDirectory() as out:
        chainerrl.experiments.train_agent_with_evaluation(
            agent,
            env,
            steps,
            eval_n_steps=None,
            eval_n_episodes=5,
            eval_interval=steps // 4,
            outdir=out,
            step_hooks=[decay],
        )
    return optimizer


def double_dqn(optimizer, updates=1000):
    """Trains DoubleDQN like :func:`dqn`."""
    return dqn(optimizer, updates, chainerrl.agents.DoubleDQN)


def set_lr(env, agent, value):
    # The hook sets a NumPy scalar, with which Chainer's class computes in float64 on NumPy 2.
    agent.optimizer.lr = float(value)
