"""Pick up a cube from the table."""

import mujoco
import numpy as np

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState
from serl_envs.tasks.task import SimulatedRobot, Task, Workspace, box, turned_down, wrapped
from serl_envs.twins.scene import Scene, add_free_box
from serl_suite.control.rotations import quaternion_inverse, rotate

__all__ = ["PickCube", "PickScript", "add_cube", "grasp_turn", "place_cube"]

HALF_M = 0.02
MASS_KG = 0.08
START = np.array([0.5, 0.0, 0.17])
START_HALF_RANGE = np.array([0.015, 0.015, 0.015])
CUBE_HALF_RANGE_M = 0.08
CUBE_YAW_HALF_RANGE = np.pi / 6
LIFT_M = 0.10
QUARTER_TURN = np.pi / 2


class PickCube:
    """Lift a 4 cm cube of 80 g by 10 cm, held between the fingers."""

    max_steps = 60
    translation_m = 0.05
    rotation_rad = 0.15
    workspace = Workspace((0.37, -0.13, 0.0), (0.63, 0.13, 0.30), tilt_rad=0.3, turn_rad=0.9)
    keeps_grip = False
    grasp_force_n = 40.0
    stiffness_n_per_m = 800.0
    max_force_n = 40.0
    spaces = {"cube": box([-1.0] * 3 + [-0.8, -0.1], [1.0] * 3 + [0.8, 1.0])}  # noqa: RUF012

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        add_cube(spec)

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        start = START + START_HALF_RANGE * rng.uniform(-1, 1, 3)
        robot.reset(start, turned_down(rng.uniform(-0.1, 0.1)), 0.08)
        place_cube(robot.scene, START[:2], CUBE_HALF_RANGE_M, rng)

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`cube`: its centre in the tool frame [m], the turn about the tool's axis to the nearest of its faces [rad],
        and how high it is lifted [m]."""
        position, quaternion = scene.pose("cube")
        relative = rotate(quaternion_inverse(state.quaternion), position - state.position)
        turn = grasp_turn(state.quaternion, quaternion)
        return {"cube": np.array([*relative, turn, position[2] - HALF_M])}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        return bool(scene.pose("cube")[0][2] >= HALF_M + LIFT_M and scene.held("cube"))

    def make_script(self, rng: np.random.Generator) -> "PickScript":
        return PickScript(self, rng)


def add_cube(spec: mujoco.MjSpec) -> None:
    """Adds the cube, named `cube`."""
    add_free_box(spec, "cube", (HALF_M, HALF_M, HALF_M), MASS_KG, (0.90, 0.33, 0.13, 1.0))


def place_cube(scene: Scene, centre: Array, half_range_m: float, rng: np.random.Generator) -> None:
    """Puts the cube flat on the table within a square about `centre`, turned a little. Shape of `centre`: (2,)"""
    xy = centre + half_range_m * rng.uniform(-1, 1, 2)
    yaw = CUBE_YAW_HALF_RANGE * rng.uniform(-1, 1)
    quaternion = np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
    scene.place("cube", np.array([*xy, HALF_M]), quaternion)


def grasp_turn(tool: Array, cube: Array) -> float:
    """The least turn about the tool's z axis that brings its fingers flat onto the cube [rad], |turn| <= pi/4."""
    side = rotate(quaternion_inverse(tool), rotate(cube, np.array([1.0, 0.0, 0.0])))
    other = rotate(quaternion_inverse(tool), rotate(cube, np.array([0.0, 1.0, 0.0])))
    # A cube on its side still has a face across: take the edge that lies most across the tool's axis.
    edge = side if side[2] ** 2 <= other[2] ** 2 else other
    return wrapped(float(np.arctan2(edge[1], edge[0])), QUARTER_TURN)


class PickScript:
    """Above the cube, down, close, up; looks before it goes on, and starts over where the cube got away."""

    HOVER_M = 0.08
    GRASP_STEPS = 3

    def __init__(self, task: Task, rng: np.random.Generator) -> None:
        self._motion = Motion(task.translation_m, task.rotation_rad, pace=0.55)
        self._rng = rng
        self._phase = "hover"
        self._waited = 0
        self._pause = 0

    def act(self, state: RobotState, scene: Scene) -> Array:
        """Hovers, goes down, closes and lifts. Returns an action in [-1, 1], (7,)."""
        cube, cube_quaternion = scene.pose("cube")
        yaw = _yaw(state.quaternion) - grasp_turn(state.quaternion, cube_quaternion)
        quaternion = turned_down(yaw)
        apart = float(np.linalg.norm(cube[:2] - state.position[:2]))
        if self._pause > 0:
            self._pause -= 1
            return self._motion.still(1.0 if self._phase == "lift" else 0.0)
        if self._phase == "hover":
            if apart < 0.018 and abs(yaw - _yaw(state.quaternion)) < 0.15:
                self._go_on("descend")
            return self._motion.towards(state, np.array([*cube[:2], self.HOVER_M]), quaternion, -1.0)
        if self._phase == "descend":
            if apart > 0.03:
                self._phase = "hover"
            elif state.position[2] - cube[2] < 0.012 and apart < 0.018:
                self._phase, self._waited = "close", 0
            return self._motion.towards(state, np.array([*cube[:2], HALF_M]), quaternion, -1.0)
        if self._phase == "close":
            self._waited += 1
            if self._waited >= self.GRASP_STEPS and scene.held("cube"):
                self._phase = "lift"
            elif self._waited >= 2 * self.GRASP_STEPS:
                self._phase = "hover"
            return self._motion.towards(state, np.array([*cube[:2], HALF_M]), quaternion, 1.0)
        if not scene.held("cube"):
            self._phase = "hover"
        goal = np.array([*state.position[:2], HALF_M + LIFT_M + 0.05])
        return self._motion.towards(state, goal, turned_down(_yaw(state.quaternion)), 1.0)

    def _go_on(self, phase: str) -> None:
        self._phase, self._pause = phase, int(self._rng.integers(1, 3))


def _yaw(tool: Array) -> float:
    """The yaw for which `turned_down(yaw)` is nearest to the tool's orientation."""
    forward = rotate(tool, np.array([1.0, 0.0, 0.0]))
    return float(np.arctan2(forward[1], forward[0]))
