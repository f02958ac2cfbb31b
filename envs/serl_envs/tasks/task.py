"""What a task is, and what tasks share."""

from typing import NamedTuple, Protocol

import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from serl_envs.robot import Array, Robot, RobotState
from serl_envs.twins.scene import Scene

__all__ = ["DOWN", "Script", "SimulatedRobot", "Task", "Workspace", "box", "turned_down", "wrapped"]

Triple = tuple[float, float, float]

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
"""Quaternion of a tool that points straight down, its x along the base's x."""
DOWN.setflags(write=False)


class Workspace(NamedTuple):
    """Where a task lets the tool be sent, whatever the policy asks for: exploration stays near the task and clear of
    the joints' limits. The controller's own box, around it, is the safety stage."""

    lower: Triple
    upper: Triple
    """Corners for the target position, base frame [m]."""
    tilt_rad: float
    """Bound of the target's rotation against the episode's start about the tool's x and y."""
    turn_rad: float
    """The same about the tool's z."""


class SimulatedRobot(Robot, Protocol):
    """A robot in a world whose things can be seen and placed."""

    @property
    def scene(self) -> Scene:
        """The things in the world."""

    def picture(self, camera: str, size: int) -> npt.NDArray[np.uint8]:
        """What a named camera sees. Shape: (size, size, 3), RGB."""


class Script(Protocol):
    """The plan of a scripted expert over one episode, from privileged state."""

    def act(self, state: RobotState, scene: Scene) -> Array:
        """Returns the next action before noise. Shape: (7,), in [-1, 1]."""


class Task(Protocol):
    """A reset distribution, an observation, an action scale and a success test; everything else is the env's."""

    max_steps: int
    """Steps until truncation, at 10 Hz."""
    translation_m: float
    """Translation of a full action along one axis of the tool frame, over a step [m]."""
    rotation_rad: float
    """Rotation of a full action about one axis of the tool frame, over a step [rad]."""
    workspace: Workspace
    """Bounds of the commanded pose."""
    keeps_grip: bool
    """Whether the gripper stays closed throughout, and the action's gripper component has no effect."""
    grasp_force_n: float
    """Force of each finger on what it holds."""
    stiffness_n_per_m: float
    """Translational stiffness of the arm."""
    max_force_n: float
    """Bound of the arm's push along each axis."""
    spaces: dict[str, Box]
    """Task state in the observation, beside proprioception."""

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds the task's things to the scene."""

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        """Draws a start and brings robot and things there."""

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """Returns the task state, one array per key of `spaces`."""

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        """Whether the task is done."""

    def make_script(self, rng: np.random.Generator) -> Script:
        """Returns the scripted expert's plan for one episode; the generator varies its pauses."""


def box(low: list[float], high: list[float]) -> Box:
    """A float32 Box from its bounds."""
    return Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)


def turned_down(yaw_rad: float) -> Array:
    """Quaternion (xyzw) of a tool that points down, turned about the vertical by a yaw (base frame)."""
    return np.array([np.cos(yaw_rad / 2), np.sin(yaw_rad / 2), 0.0, 0.0])


def wrapped(angle_rad: float, symmetry_rad: float) -> float:
    """The equivalent angle nearest to zero of something that looks the same after turning by `symmetry_rad`."""
    return (angle_rad + symmetry_rad / 2) % symmetry_rad - symmetry_rad / 2
