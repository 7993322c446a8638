"""A game for train_dqn.py with known values of every action."""

from __future__ import annotations

import numpy


class Corridor:
    """Five cells in a row: a cliff at the left end, a reward of 1 at the right end. Either ends the episode."""

    def seed(self, seed):
        """Seed the choice of the first cell."""
        self.random = numpy.random.RandomState(seed)

    def reset(self):
        """Start in one of the three inner cells."""
        self.cell = self.random.randint(1, 4)

    def num_actions(self):
        """Return the number of actions: left and right."""
        return 2

    def act(self, action):
        """Take a step; return the reward and whether the episode has ended."""
        self.cell += 2 * action - 1
        return self.cell // 4, self.cell in (0, 4)

    def state(self):
        """Return the state of shape (height, width, channels)."""
        state = numpy.zeros((3, 5, 1), bool)
        state[1, self.cell] = True
        return state
