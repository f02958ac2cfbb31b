"""Scripted experts: a task's plan at a deliberate teleoperator's pace, with the noise of a hand."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from serl_envs.robot import Array, RobotState
from serl_suite.control.rotations import delta_between, quaternion_inverse, rotate

if TYPE_CHECKING:
    from serl_envs.env import RobotEnv

__all__ = ["Motion", "ScriptedExpert"]

CORRELATION = 0.5
"""Of the noise between one step and the next: a hand drifts, it does not flicker."""


class ScriptedExpert:
    """Acts from the environment's privileged state; the observation passed in is not needed.

    Args:
        env: The environment it acts in.
        noise: Standard deviation of a first-order autoregressive Gaussian on the six motion components, as a fraction
            of a full action. The gripper command is a button: it has none.
        seed: Of noise and pauses.
    """

    def __init__(self, env: "RobotEnv", noise: float, seed: int) -> None:
        self._env, self._noise = env, noise
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Starts a new episode's plan; call after the environment's reset."""
        self._script = self._env.task.make_script(self._rng)
        self._drift = self._noise * self._rng.standard_normal(6)

    def act(self, observation: dict[str, npt.NDArray[np.float32]] | None = None) -> npt.NDArray[np.float32]:
        """Returns the next action. Shape: (7,), float32 in [-1, 1]."""
        action = self._script.act(self._env.state, self._env.robot.scene)
        fresh = np.sqrt(1.0 - CORRELATION**2) * self._noise
        self._drift = CORRELATION * self._drift + fresh * self._rng.standard_normal(6)
        action[:6] += self._drift
        return np.clip(action, -1.0, 1.0).astype(np.float32)


class Motion:
    """Actions that lead to poses: proportional in the tool frame, with a look-ahead that keeps them from overshooting.

    Args:
        translation_m, rotation_rad: The task's action scales.
        pace: Greatest motion component, as a fraction of a full action.
    """

    LOOK_AHEAD_S = 0.1
    """About the arm's lag behind its setpoint."""
    TURN_GAIN = 0.6
    """The wrist follows within a step; asking for the whole turn at once makes it oscillate."""

    def __init__(self, translation_m: float, rotation_rad: float, pace: float) -> None:
        self._translation_m, self._rotation_rad, self._pace = translation_m, rotation_rad, pace

    def towards(self, state: RobotState, position: Array, quaternion: Array, grip: float) -> Array:
        """Returns the action that moves towards the pose; `grip` is the gripper component. Shape: (7,)."""
        way, turn = delta_between(state.position, state.quaternion, position, quaternion)
        return self.by(state, way, turn, grip)

    def by(self, state: RobotState, way: Array, turn: Array, grip: float) -> Array:
        """Returns the action that moves by a translation [m] and a rotation vector [rad], tool frame. Shape: (7,)."""
        to_tool = quaternion_inverse(state.quaternion)
        way = way - self.LOOK_AHEAD_S * rotate(to_tool, state.twist[:3])
        turn = self.TURN_GAIN * turn
        action = np.empty(7)
        action[:3] = _shortened(way / self._translation_m, self._pace)
        action[3:6] = _shortened(turn / self._rotation_rad, self._pace)
        action[6] = grip
        return action

    def still(self, grip: float) -> Array:
        """Returns the action that stays. Shape: (7,)."""
        action = np.zeros(7)
        action[6] = grip
        return action


def _shortened(vector: Array, length: float) -> Array:
    norm = float(np.linalg.norm(vector))
    return vector if norm <= length else vector * (length / norm)
