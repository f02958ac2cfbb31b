"""The Gymnasium environment over any robot and any task: actions to setpoints, measurements to observations."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict

from serl_envs.experts import ScriptedExpert
from serl_envs.lighting import SceneLook
from serl_envs.robot import Array, RobotFault, RobotState, Setpoint
from serl_envs.tasks.task import SimulatedRobot, Task, box
from serl_suite.control.rotations import (
    compose_delta,
    delta_between,
    quaternion_from_rotation_vector,
    quaternion_inverse,
    quaternion_multiply,
    rotate,
    rotation_vector_from_quaternion,
)
from serl_suite.errors import SerlError

__all__ = ["CAMERAS", "InvalidAction", "RobotEnv", "UnknownCamera"]

RATE_HZ = 10
OPEN_WIDTH_M = 0.08
CAMERAS = ("front", "wrist")
IMAGE_SIZE = 128
RENDER_SIZE = 480
GRIPPER_THRESHOLD = 0.3
"""|a| above which the action's last component moves the gripper: noise around zero changes nothing."""

_PROPRIOCEPTION = {
    "tcp_pose": box([-1.0] * 3 + [-math.pi] * 3, [1.0] * 3 + [math.pi] * 3),
    "tcp_twist": box([-3.0] * 3 + [-10.0] * 3, [3.0] * 3 + [10.0] * 3),
    "gripper": box([-0.1, -1.0], [1.1, 1.0]),
    "wrench": box([-100.0] * 3 + [-30.0] * 3, [100.0] * 3 + [30.0] * 3),
}


class InvalidAction(SerlError, ValueError):
    """An action that is not 7 finite numbers; nothing has moved."""


class UnknownCamera(SerlError):
    """A camera was asked for that the scene does not have."""


class RobotEnv(gymnasium.Env[dict[str, npt.NDArray[Any]], npt.NDArray[np.float32]]):
    """A robot doing a task at 10 Hz.

    Action, in [-1, 1], shape (7,): translation and rotation vector in the tool frame as fractions of the task's
    scales, applied to the measured TCP pose (so the spring's force is bounded by scale times stiffness, and what the
    step does depends on what is observed), within the task's workspace; then the gripper: above 0.3 closes, below
    -0.3 opens, else as before.

    Observation, float32: `tcp_pose` position [m] and rotation vector [rad] relative to the episode's start frame;
    `tcp_twist` [m/s, rad/s] in the tool frame; `gripper` opening as a fraction and last command (1 close, -1 open);
    `wrench` external wrench [N, N m] in the tool frame; the task's state, unless only pixels are observed; and a uint8
    RGB image for each camera.

    Reward 1.0 on the step that succeeds, else 0.0; `terminated` on success, `truncated` at the task's limit or when the
    robot has stopped with a fault, which `info["fault"]` then names; `info["stale"]`: whether pictures are not of then.

    Args:
        robot: What moves. Owned: `close` stops it.
        task: What is to be done.
        obs: "state": with the task's state. "pixels": without it; then all cameras unless some are named.
        cameras: Names out of `CAMERAS` to observe.
        image_size: Side of their images [pixels].
        render_mode: "rgb_array" for `render()`.

    Raises:
        UnknownCamera: For a name not in `CAMERAS`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE_HZ}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(
        self,
        robot: SimulatedRobot,
        task: Task,
        *,
        obs: Literal["state", "pixels"] = "state",
        cameras: Sequence[str] = (),
        image_size: int = IMAGE_SIZE,
        render_mode: str | None = None,
    ) -> None:
        for camera in cameras:
            if camera not in CAMERAS:
                raise UnknownCamera(f"no camera {camera!r}; this scene has {', '.join(CAMERAS)}")
        self.robot, self.task = robot, task
        self.render_mode = render_mode
        self._shows_state = obs == "state"
        self.cameras = tuple(cameras) if self._shows_state or cameras else CAMERAS
        self._image_size = image_size
        self.action_space = Box(-1.0, 1.0, (7,), np.float32)
        spaces: dict[str, gymnasium.Space[Any]] = dict(_PROPRIOCEPTION)
        if self._shows_state:
            spaces |= task.spaces
        self._bounds = {
            key: (space.low, space.high) for key, space in spaces.items() if isinstance(space, Box)
        }
        for camera in self.cameras:
            spaces[camera] = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: gymnasium.Space[Any] = Dict(spaces)
        self._scale = np.array([task.translation_m] * 3 + [task.rotation_rad] * 3)
        self._look: SceneLook | None = None
        self._steps = 0
        self._closing = task.keeps_grip

    @property
    def max_steps(self) -> int:
        """Steps until an episode is truncated."""
        return self.task.max_steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        self._closing = self.task.keeps_grip
        self.task.reset(self.robot, self.np_random)
        self._state = self.robot.observe()
        self._start = self._state
        return self._observation(), {"is_success": False, "stale": self._state.is_blind}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[dict[str, npt.NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Takes one step of 0.1 s.

        Raises:
            InvalidAction: Wrong shape, NaN or inf; nothing has moved.
            RobotFault: The robot refuses the setpoint, or is out of reach.
        """
        setpoint = self._setpoint(self._checked(action))
        try:
            self.robot.command(setpoint, 1.0 / RATE_HZ)
            self._state = self.robot.observe()
        except RobotFault:  # it may have stopped since it was observed
            self._state = self.robot.observe()
            if self._state.fault is None:
                raise
        self._steps += 1
        success = self._state.fault is None and self.task.succeeded(self._state, self.robot.scene)
        truncated = not success and (self._steps >= self.task.max_steps or self._state.fault is not None)
        info: dict[str, Any] = {"is_success": success, "stale": self._state.is_blind}
        if self._state.fault is not None:
            info["fault"] = self._state.fault
        return self._observation(), float(success), success, truncated, info

    def make_expert(self, noise: float = 0.0, seed: int = 0) -> ScriptedExpert:
        """Returns the task's scripted expert, which reads this environment's privileged state.

        Args:
            noise: Standard deviation of the noise on its motion, as a fraction of a full action.
            seed: Of noise and pauses.
        """
        return ScriptedExpert(self, noise, seed)

    def change_look(self, **look: float) -> None:
        """From the next reset on, shows a twin's scene under other light or from elsewhere: see `SceneLook.change`."""
        if self._look is None:
            self._look = SceneLook(self.robot.scene.model)
        self._look.change(**look)

    @property
    def state(self) -> RobotState:
        """The newest measurement."""
        return self._state

    def render(self) -> npt.NDArray[np.uint8] | None:
        if self.render_mode is None:
            return None
        return self.robot.picture("view", RENDER_SIZE)

    def close(self) -> None:
        self.robot.stop()

    def _checked(self, action: npt.NDArray[np.float32]) -> Array:
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (7,) or not np.isfinite(values).all():
            raise InvalidAction(
                f"an action is 7 finite numbers in [-1, 1], not {action!r}; nothing was moved; check the policy for NaN"
            )
        return np.clip(values, -1.0, 1.0)

    def _setpoint(self, action: Array) -> Setpoint:
        if not self.task.keeps_grip and abs(action[6]) > GRIPPER_THRESHOLD:
            self._closing = bool(action[6] > 0)
        delta = action[:6] * self._scale
        position, quaternion = compose_delta(
            self._state.position, self._state.quaternion, delta[:3], delta[3:]
        )
        bounds, start = self.task.workspace, self._start.quaternion
        turn = rotation_vector_from_quaternion(quaternion_multiply(quaternion_inverse(start), quaternion))
        limit = np.array([bounds.tilt_rad, bounds.tilt_rad, bounds.turn_rad])
        bounded = quaternion_from_rotation_vector(np.clip(turn, -limit, limit))
        return Setpoint(
            np.clip(position, bounds.lower, bounds.upper),
            quaternion_multiply(start, bounded),
            0.0 if self._closing else OPEN_WIDTH_M,
        )

    def _observation(self) -> dict[str, npt.NDArray[Any]]:
        state, start = self._state, self._start
        to_tool = quaternion_inverse(state.quaternion)
        moved, turned = delta_between(start.position, start.quaternion, state.position, state.quaternion)
        values: dict[str, Array] = {
            "tcp_pose": np.concatenate([moved, turned]),
            "tcp_twist": _in_frame(to_tool, state.twist),
            "gripper": np.array([state.gripper_width / OPEN_WIDTH_M, 1.0 if self._closing else -1.0]),
            "wrench": _in_frame(to_tool, state.wrench),
        }
        if self._shows_state:
            values |= self.task.observe(state, self.robot.scene)
        observation: dict[str, npt.NDArray[Any]] = {}
        for key, (low, high) in self._bounds.items():
            observation[key] = np.clip(values[key], low, high).astype(np.float32)
        for camera in self.cameras:
            observation[camera] = self.robot.picture(camera, self._image_size)
        return observation


def _in_frame(to_frame: Array, values: Array) -> Array:
    """A twist or wrench about the same point, seen along another frame's axes. Shapes: (4,), (6,) -> (6,)."""
    return np.concatenate([rotate(to_frame, values[:3]), rotate(to_frame, values[3:])])
