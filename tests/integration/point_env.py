"""`point_env:Point-v0`: a point that must come near the origin; `PointNan-v0` observes NaN after a while."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

MAX_STEPS = 12
NAN_AT = 70


class Point(gymnasium.Env):
    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(self, nan_at=None, render_mode=None):
        self.observation_space = Dict({"x": Box(-2.0, 2.0, (1,), np.float32)})
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self._nan_at, self._age = nan_at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._steps = self.np_random.uniform(-1.0, 1.0), 0
        return {"x": np.array([self._x], np.float32)}, {}

    def step(self, action):
        self._x = float(np.clip(self._x + 0.1 * action[0], -2.0, 2.0))
        self._steps, self._age = self._steps + 1, self._age + 1
        success = self._steps > 2 and abs(self._x) < 0.3
        x = np.nan if self._age == self._nan_at else self._x
        truncated = not success and self._steps >= MAX_STEPS
        return {"x": np.array([x], np.float32)}, float(success), success, truncated, {"is_success": success}

    def make_expert(self, noise, seed):
        return _Expert(noise, np.random.default_rng(seed))


class _Expert:
    def __init__(self, noise, rng):
        self._noise, self._rng = noise, rng

    def reset(self):
        pass

    def act(self, observation):
        towards = -np.sign(observation["x"]) * 0.8
        return np.clip(towards + self._noise * self._rng.normal(size=1), -1, 1).astype(np.float32)


gymnasium.register("Point-v0", entry_point=Point)
gymnasium.register("PointNan-v0", entry_point=Point, kwargs={"nan_at": NAN_AT}, disable_env_checker=True)
