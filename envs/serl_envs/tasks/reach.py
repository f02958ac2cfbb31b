"""Bring the tool to a pose."""

import mujoco
import numpy as np

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState
from serl_envs.tasks.task import SimulatedRobot, Workspace, box, turned_down
from serl_envs.twins.scene import Scene
from serl_suite.control.rotations import delta_between

__all__ = ["Reach"]

CENTRE = np.array([0.5, 0.0, 0.22])
GOAL_HALF_RANGE = np.array([0.12, 0.15, 0.10])
YAW_HALF_RANGE = 0.5
LEAST_WAY_M = 0.05
POSITION_TOLERANCE_M = 0.015
ROTATION_TOLERANCE_RAD = 0.12


class Reach:
    """Reach a random pose of the downward tool; done within 15 mm and 0.12 rad."""

    max_steps = 50
    translation_m = 0.05
    rotation_rad = 0.15
    workspace = Workspace((0.33, -0.20, 0.08), (0.67, 0.20, 0.38), tilt_rad=0.4, turn_rad=0.9)
    keeps_grip = False
    grasp_force_n = 40.0
    stiffness_n_per_m = 800.0
    max_force_n = 40.0
    spaces = {"goal": box([-1.0] * 3 + [-np.pi] * 3, [1.0] * 3 + [np.pi] * 3)}  # noqa: RUF012

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        goal = spec.worldbody.add_body(name="goal", pos=CENTRE)
        axes = (
            ((0.04, 0, 0), (0.9, 0.2, 0.2, 1)),
            ((0, 0.04, 0), (0.2, 0.7, 0.3, 1)),
            ((0, 0, 0.04), (0.2, 0.4, 0.9, 1)),
        )
        for end, rgba in axes:
            goal.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=(0, 0, 0, *end), size=(0.004, 0, 0), rgba=rgba,
                contype=0, conaffinity=0,
            )  # fmt: skip

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        start = CENTRE + rng.uniform(-0.03, 0.03, 3)
        robot.reset(start, turned_down(rng.uniform(-0.1, 0.1)), 0.08)
        goal = CENTRE + GOAL_HALF_RANGE * rng.uniform(-1, 1, 3)
        while np.linalg.norm(goal - start) < LEAST_WAY_M:
            goal = CENTRE + GOAL_HALF_RANGE * rng.uniform(-1, 1, 3)
        robot.scene.place("goal", goal, turned_down(YAW_HALF_RANGE * rng.uniform(-1, 1)))

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`goal`: the goal's pose in the tool frame, position [m] and rotation vector [rad]."""
        return {"goal": np.concatenate(delta_between(state.position, state.quaternion, *scene.pose("goal")))}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        way, turn = delta_between(state.position, state.quaternion, *scene.pose("goal"))
        return bool(
            np.linalg.norm(way) < POSITION_TOLERANCE_M and np.linalg.norm(turn) < ROTATION_TOLERANCE_RAD
        )

    def make_script(self, rng: np.random.Generator) -> "_ReachScript":
        return _ReachScript(self)


class _ReachScript:
    def __init__(self, task: Reach) -> None:
        self._motion = Motion(task.translation_m, task.rotation_rad, pace=0.5)

    def act(self, state: RobotState, scene: Scene) -> Array:
        return self._motion.towards(state, *scene.pose("goal"), grip=0.0)
