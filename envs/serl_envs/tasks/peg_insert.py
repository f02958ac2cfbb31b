"""Insert a square peg into a square hole with 1 mm of clearance."""

import mujoco
import numpy as np

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState
from serl_envs.tasks.assembly import Mating, add_part, add_socket, reset_holding, upright
from serl_envs.tasks.task import SimulatedRobot, Workspace, box
from serl_envs.twins.scene import Scene

__all__ = ["PegInsert"]

PEG_HALF_M = 0.008
PEG_LENGTH_M = 0.07
TIP_BELOW_TCP_M = 0.055
CLEARANCE_M = 0.001
"""Hole width less peg width."""
HOLE_DEPTH_M = 0.04
DONE_DEPTH_M = 0.036
DONE_TILT_RAD = 0.05
CENTRE_XY = np.array([0.5, 0.0])
HOLE_HALF_RANGE_M = 0.03
HOLE_YAW_HALF_RANGE = 0.2
START_HALF_RANGE_M = 0.025
START_YAW_HALF_RANGE = np.pi / 18
START_TIP_ABOVE_MOUTH_M = (0.02, 0.04)
QUARTER_TURN = np.pi / 2


class PegInsert:
    """Insert a 16 mm square peg 36 mm deep into a 17 mm square hole. The peg is held by friction alone."""

    max_steps = 100
    translation_m = 0.0125
    rotation_rad = 0.08
    workspace = Workspace((0.42, -0.08, 0.05), (0.58, 0.08, 0.18), tilt_rad=0.2, turn_rad=0.5)
    keeps_grip = True
    grasp_force_n = 70.0
    stiffness_n_per_m = 2000.0
    max_force_n = 25.0
    spaces = {"hole": box([-1.0] * 3 + [-1.6] * 3, [1.0] * 3 + [1.6] * 3)}  # noqa: RUF012

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        opening = PEG_HALF_M + 0.5 * CLEARANCE_M
        add_socket(spec, (opening, opening), outer_half=0.04, bottom=0.0, top=HOLE_DEPTH_M)
        half = 0.5 * PEG_LENGTH_M
        size = (PEG_HALF_M, PEG_HALF_M, half)
        peg = {
            "type": mujoco.mjtGeom.mjGEOM_BOX,
            "size": size,
            "pos": (0, 0, half),
            "rgba": (0.92, 0.62, 0.12, 1),
        }
        add_part(spec, [peg], mass=0.05)

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        hole = np.array([*(CENTRE_XY + HOLE_HALF_RANGE_M * rng.uniform(-1, 1, 2)), HOLE_DEPTH_M])
        yaw = HOLE_YAW_HALF_RANGE * rng.uniform(-1, 1)
        above = rng.uniform(*START_TIP_ABOVE_MOUTH_M) + TIP_BELOW_TCP_M
        start = hole + np.array([*(START_HALF_RANGE_M * rng.uniform(-1, 1, 2)), above])
        turned = yaw + START_YAW_HALF_RANGE * rng.uniform(-1, 1)
        robot.scene.place("socket", hole, upright(yaw))
        reset_holding(robot, start, turned, 2 * PEG_HALF_M, TIP_BELOW_TCP_M)

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`hole`, tool frame: from the peg's tip to the hole's mouth [m], and the turn that aligns the peg [rad]."""
        mating = Mating.measure(state, scene, QUARTER_TURN)
        return {"hole": np.concatenate([mating.offset, mating.turn])}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        mating = Mating.measure(state, scene, QUARTER_TURN)
        return mating.depth >= DONE_DEPTH_M and mating.lateral < PEG_HALF_M and mating.tilt < DONE_TILT_RAD

    def make_script(self, rng: np.random.Generator) -> "_InsertScript":
        return _InsertScript(self)


class _InsertScript:
    """Over the hole, then down; where the peg sits on the rim, pushes lightly and feels around for the hole."""

    HOVER_M = 0.004
    LATERAL_M = 0.002
    YAW_RAD = 0.04
    PATIENCE = 30
    LATERAL_GAIN = 2.0
    """The last millimetre needs more than its own length of spring to overcome friction."""
    SEARCH_M = 0.0015
    SEARCH_RAD = 2.4
    """Radius of the circle felt around on the rim, and how far round it goes in a step."""

    def __init__(self, task: PegInsert) -> None:
        self._motion = Motion(task.translation_m, task.rotation_rad, pace=0.6)
        self._phase = "align"
        self._on_rim = 0

    def act(self, state: RobotState, scene: Scene) -> Array:
        mating = Mating.measure(state, scene, QUARTER_TURN)
        way, turn = mating.offset.copy(), 1.5 * mating.turn
        if self._phase == "align":
            if mating.lateral < self.LATERAL_M and abs(mating.yaw) < self.YAW_RAD:
                self._phase, self._on_rim = "push", 0
            way[2] -= self.HOVER_M
            return self._motion.by(state, way, turn, 1.0)
        way[:2] *= self.LATERAL_GAIN
        if mating.depth > 0.002:
            way[2] += HOLE_DEPTH_M
            return self._motion.by(state, way, turn, 1.0)
        self._on_rim += 1
        if self._on_rim > self.PATIENCE or mating.lateral > 3 * self.LATERAL_M:
            self._phase = "align"
        angle = self.SEARCH_RAD * self._on_rim
        way += np.array([self.SEARCH_M * np.cos(angle), self.SEARCH_M * np.sin(angle), self.HOVER_M])
        return self._motion.by(state, way, turn, 1.0)
