"""`counted_env:Counted-v0`: a task that keeps its own record of what an actor did, to compare with what arrived.

Every observation is unique: [life, count] / 2^24, exact in float32. When the actor comes for the next observation,
the one before has been put on its way, and a line `life count index seconds` goes to the file COUNTED_LOG.
"""

import os
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box

UNIT = 2.0**24
LENGTH = 25


class Counted(gymnasium.Env):
    metadata = {"render_modes": [], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.observation_space = Box(0.0, 1.0, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self._life, self._count, self._index = int.from_bytes(os.urandom(3)), -1, 0
        self._log = os.open(os.environ["COUNTED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._next(0), {}

    def step(self, action):
        observation = self._next(self._index + 1)
        return observation, 0.0, False, self._index == LENGTH, {}

    def _next(self, index):
        if self._count >= 0:
            line = f"{self._life} {self._count} {self._index} {time.monotonic():.6f}\n"
            os.write(self._log, line.encode())
        self._count, self._index = self._count + 1, index
        return (np.array([self._life, self._count]) / UNIT).astype(np.float32)


gymnasium.register("Counted-v0", entry_point=Counted)
