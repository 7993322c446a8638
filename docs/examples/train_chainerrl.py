"""ChainerRL's DQN learns MinAtar's Breakout with the optimizer settings of DeepMind's DQN.

After every 4,000 frames, the mean return of twenty episodes without random actions is written to
`result/chainerrl/scores.txt`.
"""

from __future__ import annotations

import logging
import os
import sys

# With one thread the bits do not depend on the number of cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer.functions as F
import chainer.links as L
import numpy

NEEDS = "This example needs ChainerRL, Gym and MinAtar: docs/how-to/dqn.md has the commands that install them"
try:
    import chainerrl
    import gym
    from minatar import Environment
except ImportError as error:
    sys.exit(f"{error}. {NEEDS}")


class Breakout(gym.Env):
    """Gives MinAtar's game the methods of Gym 0.17. `minatar.gym` has Gymnasium's, which ChainerRL cannot use."""

    def __init__(self, seed):
        self.game = Environment("breakout")
        self.game.seed(seed)

    def reset(self):
        """Starts an episode and returns its first state."""
        self.game.reset()
        return self.game.state()

    def step(self, action):
        """Returns the next state, the reward, whether the episode has ended, and no information."""
        reward, is_end = self.game.act(action)
        return self.game.state(), reward, is_end, {}


def train(optimizer, steps, start, out, agent_class=chainerrl.agents.DQN, hooks=()):
    """Plays `start` random frames, then takes a step of the optimizer after each frame, until frame `steps`."""
    env = Breakout(seed=0)
    n_actions = env.game.num_actions()
    q_function = chainerrl.links.Sequence(
        *(L.Convolution2D(4, 16, ksize=3), F.relu, L.Linear(16 * 8 * 8, 128), F.relu, L.Linear(128, n_actions)),
        chainerrl.action_value.DiscreteActionValue,
    )
    optimizer.setup(q_function)
    agent = agent_class(
        q_function,
        optimizer,
        chainerrl.replay_buffer.ReplayBuffer(100_000),
        gamma=0.99,
        explorer=chainerrl.explorers.LinearDecayEpsilonGreedy(
            1.0, 0.1, steps // 2, random_action_func=lambda: numpy.random.randint(n_actions)
        ),
        replay_start_size=start,
        target_update_interval=200,
        clip_delta=True,
        batch_accumulator="sum",  # as in DeepMind's code, for which eps is 0.01
        phi=lambda state: state.transpose(2, 0, 1).astype("f"),
    )
    chainerrl.experiments.train_agent_with_evaluation(
        agent,
        env,
        steps,
        eval_n_steps=None,
        eval_n_episodes=20,
        eval_interval=steps // 5,
        eval_max_episode_len=1_000,
        eval_env=Breakout(seed=1),
        outdir=out,
        step_hooks=hooks,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chainerrl.misc.set_random_seed(0)
    train(RMSpropGraves(lr=2.5e-4, alpha=0.95, momentum=0, eps=0.01), 20_000, 1_000, "result/chainerrl")
