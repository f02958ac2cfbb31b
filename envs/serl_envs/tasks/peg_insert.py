"""Insert a square peg into a square hole with 1 mm of clearance."""

import mujoco
import numpy as np

from serl_envs.robot import Array, RobotState
from serl_envs.tasks.assembly import Insertion, Mating, add_part, add_socket, reset_holding, upright
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
        """Adds `socket` and, as `part`, the peg."""
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
        """Draws the hole's place and yaw, and a start above it with the peg in the fingers."""
        hole = np.array([*(CENTRE_XY + HOLE_HALF_RANGE_M * rng.uniform(-1, 1, 2)), HOLE_DEPTH_M])
        yaw = HOLE_YAW_HALF_RANGE * rng.uniform(-1, 1)
        above = rng.uniform(*START_TIP_ABOVE_MOUTH_M) + TIP_BELOW_TCP_M
        start = hole + np.array([*(START_HALF_RANGE_M * rng.uniform(-1, 1, 2)), above])
        turned = yaw + START_YAW_HALF_RANGE * rng.uniform(-1, 1)
        reset_holding(robot, start, turned, 2 * PEG_HALF_M, TIP_BELOW_TCP_M, (hole, upright(yaw)))

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`hole`, tool frame: from the peg's tip to the hole's mouth [m], and the turn that aligns the peg [rad]."""
        mating = Mating.measure(state, scene, QUARTER_TURN)
        return {"hole": np.concatenate([mating.offset, mating.turn])}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        """Whether the tip is `DONE_DEPTH_M` deep in the hole and the peg stands upright in it."""
        mating = Mating.measure(state, scene, QUARTER_TURN)
        return mating.depth >= DONE_DEPTH_M and mating.lateral < PEG_HALF_M and mating.tilt < DONE_TILT_RAD

    def make_script(self, rng: np.random.Generator) -> Insertion:
        """Aligns, goes down, feels for the hole; the generator is not used."""
        return Insertion(
            self, symmetry_rad=QUARTER_TURN, aligned_rad=0.04, search_m=0.0015, depth_m=HOLE_DEPTH_M
        )
