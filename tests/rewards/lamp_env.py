"""`lamp_env:Lamp-v0`: a lamp on a rail that two cameras see; done once it is far enough to the right."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

CAMERAS = ("front", "wrist")
SIDE, LAMP = 32, 6
DONE_AT, MAX_STEPS = 0.7, 30


class Lamp(gymnasium.Env):
    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    max_steps = MAX_STEPS

    def __init__(self, cameras=(), image_size=None, obs="state", tells_success=True, render_mode=None):
        self.side, self.brightness, self._tells = image_size or SIDE, 1.0, tells_success
        self.cameras = tuple(cameras)
        picture = Box(0, 255, (self.side, self.side, 3), np.uint8)
        self.observation_space = Dict(
            {"x": Box(-1.0, 2.0, (1,), np.float32), **dict.fromkeys(self.cameras, picture)}
        )
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._steps = self.np_random.uniform(0.0, 0.3), 0
        return self._observation(), {}

    def step(self, action):
        self._x = float(np.clip(self._x + 0.06 * action[0], 0.0, 1.0))
        self._steps += 1
        success = self._x > DONE_AT
        info = {"is_success": success} if self._tells else {}
        return self._observation(), float(success), success, not success and self._steps >= MAX_STEPS, info

    def make_expert(self, noise, seed):
        return _Expert(noise, np.random.default_rng(seed))

    def change_look(self, *, brightness=1.0, **other):
        self.brightness = brightness

    def _observation(self):
        pictures = {camera: self._picture(flipped=camera == "wrist") for camera in self.cameras}
        return {"x": np.array([self._x], np.float32), **pictures}

    def _picture(self, *, flipped):
        picture = np.full((self.side, self.side, 3), 60, np.uint8)
        column, row = round(self._x * (self.side - LAMP)), self.side // 3
        picture[row : row + LAMP, column : column + LAMP] = (230, 180, 40)
        picture = (picture * self.brightness).clip(0, 255).astype(np.uint8)
        return picture[::-1].copy() if flipped else picture


class _Expert:
    def __init__(self, noise, rng):
        self._noise, self._rng = noise, rng

    def reset(self):
        pass

    def act(self, observation):
        return np.clip(0.8 + self._noise * self._rng.normal(size=1), -1, 1).astype(np.float32)


gymnasium.register("Lamp-v0", entry_point=Lamp)
gymnasium.register("SilentLamp-v0", entry_point=Lamp, kwargs={"tells_success": False})
