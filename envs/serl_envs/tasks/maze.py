"""Lead a peg through a maze of walls with an energy budget."""

import mujoco
import numpy as np
from serl_hardware.franka.model import COLLIDE_FIXTURE

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState
from serl_envs.tasks.assembly import STIFF_CONTACT, add_part, reset_holding, upright
from serl_envs.tasks.task import SimulatedRobot, Workspace, box, turned_down
from serl_envs.twins.scene import Scene
from serl_suite.control.rotations import delta_between, quaternion_inverse, rotate

__all__ = ["Maze"]

PEG_HALF_M = 0.008
PEG_LENGTH_M = 0.07
TIP_BELOW_TCP_M = 0.055
LANE_M = 0.026
"""Width of a lane: the peg has 5 mm on either side."""
WALL_M = 0.010
WALL_HEIGHT_M = 0.03
HALF_M = 1.5 * LANE_M + WALL_M
"""Of the inside: three lanes, one above the other, and the two walls between them."""
END_M = HALF_M - 0.5 * LANE_M
"""Where lanes meet and end, from the centre."""
WAY = END_M * np.array([[-1, -1], [1, -1], [1, 0], [-1, 0], [-1, 1], [1, 1]])
"""The corners from the end of the first lane to the goal, maze frame [m]."""
LEGS_M = np.linalg.norm(np.diff(WAY, axis=0), axis=1)
START_SHARE = 0.75
"""Starts are anywhere on this first part of the way."""
CENTRE = np.array([0.5, 0.0, 0.0])
CENTRE_HALF_RANGE_M = 0.015
YAW_HALF_RANGE = 0.15
START_TIP_HEIGHT_M = (0.004, 0.008)
DONE_M = 0.008


class Maze:
    """Lead a 16 mm peg through the S of a wall maze, on an energy budget of 1 J; the policy sets the stiffness too."""

    max_steps = 80
    translation_m = 0.025
    rotation_rad = 0.1
    workspace = Workspace((0.42, -0.08, 0.057), (0.58, 0.08, 0.075), tilt_rad=0.1, turn_rad=0.3)
    keeps_grip = True
    grasp_force_n = 70.0
    stiffness_n_per_m = 2000.0
    max_force_n = 25.0
    least_share = 0.1
    tank_max_j = 1.0
    tank_min_j = 0.1
    max_power_w = 2.0
    spaces = {"maze": box([-0.3] * 5 + [-0.5], [0.3] * 5 + [0.5])}  # noqa: RUF012

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds `maze`, fixed, origin at its centre on the table, and, as `part`, the peg."""
        body = spec.worldbody.add_body(name="maze", pos=CENTRE)
        outside, half = HALF_M + WALL_M, 0.5 * WALL_M
        gap = 0.5 * LANE_M
        walls = [
            ((0, outside - half), (outside, half)),
            ((0, half - outside), (outside, half)),
            ((outside - half, 0), (half, HALF_M)),
            ((half - outside, 0), (half, HALF_M)),
            ((-gap, -gap - half), (HALF_M - gap, half)),
            ((gap, gap + half), (HALF_M - gap, half)),
        ]
        for (x, y), (half_x, half_y) in walls:
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX, pos=(x, y, 0.5 * WALL_HEIGHT_M),
                size=(half_x, half_y, 0.5 * WALL_HEIGHT_M), rgba=(0.20, 0.42, 0.62, 1), contype=0,
                conaffinity=COLLIDE_FIXTURE, friction=(0.3, 0.005, 1e-4), **STIFF_CONTACT,
            )  # fmt: skip
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=(*WAY[-1], 0.0), size=(DONE_M, 0.0005, 0),
            rgba=(0.2, 0.7, 0.3, 1), contype=0, conaffinity=0,
        )  # fmt: skip
        peg_half = 0.5 * PEG_LENGTH_M
        peg = {
            "type": mujoco.mjtGeom.mjGEOM_BOX,
            "size": (PEG_HALF_M, PEG_HALF_M, peg_half),
            "pos": (0, 0, peg_half),
            "rgba": (0.92, 0.62, 0.12, 1),
        }
        add_part(spec, [peg], mass=0.05)

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        """Draws the maze's place and yaw, and a start on the first part of the way, peg in the fingers."""
        centre = CENTRE + np.array([*(CENTRE_HALF_RANGE_M * rng.uniform(-1, 1, 2)), 0.0])
        yaw = YAW_HALF_RANGE * rng.uniform(-1, 1)
        start = np.array([*_along(START_SHARE * rng.uniform()), rng.uniform(*START_TIP_HEIGHT_M)])
        tip = centre + rotate(upright(yaw), start)
        robot.scene.place("maze", centre, upright(yaw))
        reset_holding(
            robot, tip + np.array([0.0, 0.0, TIP_BELOW_TCP_M]), yaw, 2 * PEG_HALF_M, TIP_BELOW_TCP_M
        )

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`maze`: the peg's tip in the maze's frame [m]; from the tip to the goal, along the tool's x and y [m]; and
        the turn about the tool's axis that lines the tool up with the walls [rad]."""
        tip = _tip(scene)
        goal = _in_tool(state, scene, WAY[-1] - tip[:2])
        return {"maze": np.array([*tip, *goal[:2], _turn(state, scene)])}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        """Whether the peg's tip is at the goal."""
        return bool(np.linalg.norm(_tip(scene)[:2] - WAY[-1]) < DONE_M)

    def make_script(self, rng: np.random.Generator) -> "_MazeScript":
        """Goes from corner to corner; the generator is not used."""
        return _MazeScript(self)


def _along(share: float) -> Array:
    """The point at a share of the way from its beginning, maze frame [m]. Shape: (2,)"""
    walked = np.concatenate([[0.0], np.cumsum(LEGS_M)])
    return np.array([np.interp(share * walked[-1], walked, WAY[:, axis]) for axis in (0, 1)])


def _next_corner(tip: Array) -> int:
    """The corner at the end of the leg that is nearest to the tip. Shape: (2,)"""
    distances = []
    for start, end, length in zip(WAY[:-1], WAY[1:], LEGS_M, strict=True):
        share = np.clip((tip - start) @ (end - start) / length**2, 0.0, 1.0)
        distances.append(np.linalg.norm(start + share * (end - start) - tip))
    return int(np.argmin(distances)) + 1


def _tip(scene: Scene) -> Array:
    """The peg's tip in the maze's frame [m]. Shape: (3,)"""
    tip, part = scene.pose("part")
    return delta_between(*scene.pose("maze"), tip, part)[0]


def _in_tool(state: RobotState, scene: Scene, way: Array) -> Array:
    """A horizontal way in the maze's frame, seen from the tool. Shape: (2,) -> (3,)"""
    in_base = rotate(scene.pose("maze")[1], np.array([*way, 0.0]))
    return rotate(quaternion_inverse(state.quaternion), in_base)


def _turn(state: RobotState, scene: Scene) -> float:
    x, y, _ = rotate(scene.pose("maze")[1], np.array([1.0, 0.0, 0.0]))
    turned = turned_down(float(np.arctan2(y, x)))
    return float(delta_between(state.position, state.quaternion, state.position, turned)[1][2])


class _MazeScript:
    """From corner to corner, along the middle of the lanes, at a middling stiffness."""

    PACE = 0.5
    AT_CORNER_M = 0.004
    GAIN = 2.5
    """The last millimetres need more than their own length of spring to overcome friction."""
    HEIGHT_M = 0.006
    STIFFNESS = 0.5

    def __init__(self, task: Maze) -> None:
        self._motion = Motion(task.translation_m, task.rotation_rad, self.PACE)
        self._corner: int | None = None

    def act(self, state: RobotState, scene: Scene) -> Array:
        """Returns the next action before noise. Shape: (7,)."""
        tip = _tip(scene)
        last = len(WAY) - 1
        if self._corner is None:
            self._corner = _next_corner(tip[:2])
        if self._corner < last and np.linalg.norm(WAY[self._corner] - tip[:2]) < self.AT_CORNER_M:
            self._corner += 1
        way = self.GAIN * _in_tool(state, scene, WAY[self._corner] - tip[:2])
        way[2] = tip[2] - self.HEIGHT_M
        motion = self._motion.by(state, way, np.array([0.0, 0.0, _turn(state, scene)]), 0.0)
        return np.array([*motion[:3], motion[5], *[self.STIFFNESS] * 3])
