"""Move a cube from one bin to the other, and back: a task that resets itself."""

import logging

import mujoco
import numpy as np
from serl_hardware.franka.model import COLLIDE_FIXTURE

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState
from serl_envs.tasks.pick_cube import HALF_M, PickScript, add_cube, grasp_turn, place_cube
from serl_envs.tasks.task import SimulatedRobot, Workspace, box, turned_down
from serl_envs.twins.scene import Scene
from serl_suite.control.rotations import quaternion_inverse, rotate

__all__ = ["BinRelocate"]

_log = logging.getLogger(__name__)

WALL_M = 0.006
WALL_HEIGHT_M = 0.03
INSIDE_HALF_M = 0.09
"""Of each bin; they share the wall between them."""
CENTRE_X_M = 0.5
CENTRE_Y_M = INSIDE_HALF_M + 0.5 * WALL_M
REACH_HALF_M = 0.035
"""How far from a bin's centre the open fingers still have room beside the cube, whatever its yaw."""
START = np.array([CENTRE_X_M, 0.0, 0.17])
START_HALF_RANGE = np.array([0.015, 0.015, 0.015])
OPEN_M = 0.06
"""Gripper opening from which the cube counts as let go."""


class BinRelocate:
    """Pick the cube out of the bin it lies in and leave it in the other one.

    A reset leaves the cube where it is and asks for the other bin, so that forward and backward alternate without
    anybody's help. It is put into a bin anew where the fingers cannot reach it, and at the first reset after seeding.
    """

    max_steps = 100
    translation_m = 0.05
    rotation_rad = 0.15
    workspace = Workspace((0.40, -0.15, 0.0), (0.60, 0.15, 0.30), tilt_rad=0.3, turn_rad=0.9)
    keeps_grip = False
    grasp_force_n = 40.0
    stiffness_n_per_m = 800.0
    max_force_n = 40.0
    spaces = {  # noqa: RUF012
        "cube": box([-1.0] * 3 + [-0.8, -0.1], [1.0] * 3 + [0.8, 1.0]),
        "goal": box([-1.0] * 3, [1.0] * 3),
    }

    def __init__(self) -> None:
        self.goal = np.array([CENTRE_X_M, CENTRE_Y_M, 0.0])
        """Centre of the bin that the cube is to be left in, on the table, base frame [m]."""
        self._rng: np.random.Generator | None = None
        """Of the reset before: another one means that the environment was seeded since."""

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds `bins`, fixed, open boxes without floors, and the cube."""
        body = spec.worldbody.add_body(name="bins", pos=(CENTRE_X_M, 0.0, 0.0))
        half, length = 0.5 * WALL_M, INSIDE_HALF_M + WALL_M
        end = 2 * INSIDE_HALF_M + WALL_M
        across = [((0.0, y), (length, half)) for y in (-end, 0.0, end)]
        along = [((x, 0.0), (half, end + half)) for x in (-length + half, length - half)]
        for (x, y), (half_x, half_y) in [*across, *along]:
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX, pos=(x, y, 0.5 * WALL_HEIGHT_M),
                size=(half_x, half_y, 0.5 * WALL_HEIGHT_M), rgba=(0.20, 0.42, 0.62, 1), contype=0,
                conaffinity=COLLIDE_FIXTURE, friction=(0.3, 0.005, 1e-4),
            )  # fmt: skip
        add_cube(spec)

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        """Draws the arm's start; asks for the bin in which the cube is not."""
        start = START + START_HALF_RANGE * rng.uniform(-1, 1, 3)
        tool = turned_down(rng.uniform(-0.1, 0.1))
        where = robot.scene.pose("cube")
        robot.reset(start, tool, 0.08)
        fresh, self._rng = rng is not self._rng, rng
        side = 1.0 if where[0][1] > 0.0 else -1.0
        if fresh or not _reachable(where[0]):
            if not fresh:
                _log.info("the cube is out of the fingers' reach; it was put into a bin anew")
            side = rng.choice([-1.0, 1.0])
            place_cube(robot.scene, _centre(side)[:2], REACH_HALF_M, rng)
        else:
            robot.scene.place("cube", *where)  # a twin's reset puts everything back to where it was built
        self.goal = _centre(-side)

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`cube`: as in PickCube; `goal`: from the tool to the centre of the other bin, tool frame [m]."""
        position, quaternion = scene.pose("cube")
        to_tool = quaternion_inverse(state.quaternion)
        turn = grasp_turn(state.quaternion, quaternion)
        return {
            "cube": np.array([*rotate(to_tool, position - state.position), turn, position[2] - HALF_M]),
            "goal": rotate(to_tool, self.goal - state.position),
        }

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        """Whether the cube is down in the other bin and let go."""
        position = scene.pose("cube")[0]
        inside = np.abs(position[:2] - self.goal[:2]).max() < INSIDE_HALF_M
        return bool(inside and position[2] < WALL_HEIGHT_M and state.gripper_width > OPEN_M)

    def make_script(self, rng: np.random.Generator) -> "_RelocateScript":
        return _RelocateScript(self, rng)


def _centre(side: float) -> Array:
    return np.array([CENTRE_X_M, side * CENTRE_Y_M, 0.0])


def _reachable(cube: Array) -> bool:
    """Whether the open fingers have room beside a cube that lies in one of the bins."""
    side = 1.0 if cube[1] > 0.0 else -1.0
    return bool(np.abs(cube[:2] - _centre(side)[:2]).max() < INSIDE_HALF_M - 0.03 and cube[2] < 2 * HALF_M)


class _RelocateScript:
    """Picks the cube as in PickCube, carries it over the wall, lowers it and lets go."""

    CARRY_M = 0.10
    RELEASE_M = 0.035

    def __init__(self, task: BinRelocate, rng: np.random.Generator) -> None:
        self._task, self._rng = task, rng
        self._motion = Motion(task.translation_m, task.rotation_rad, pace=0.55)
        self._pick = PickScript(task, rng)
        self._carrying = False

    def act(self, state: RobotState, scene: Scene) -> Array:
        """Picks the cube up, carries it over the other bin, and lets it go. Returns an action in [-1, 1], (7,)."""
        held = scene.held("cube")
        apart = float(np.linalg.norm(self._task.goal[:2] - state.position[:2]))
        if not self._carrying:
            if not (held and state.position[2] > self.CARRY_M):
                return self._pick.act(state, scene)
            self._carrying = True
        elif not held and apart > 0.02:  # lost on the way
            self._pick, self._carrying = PickScript(self._task, self._rng), False
            return self._pick.act(state, scene)
        if not held:
            return self._motion.still(-1.0)
        over = apart < 0.015
        goal = np.array([*self._task.goal[:2], self.RELEASE_M if over else self.CARRY_M + 0.02])
        let_go = over and state.position[2] < self.RELEASE_M + 0.01
        return self._motion.towards(state, goal, state.quaternion, -1.0 if let_go else 1.0)
