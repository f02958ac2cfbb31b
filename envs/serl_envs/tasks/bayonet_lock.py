"""Lock a bayonet: pass a key's cross bar through a slot with 1 mm of clearance, then turn it under the plate."""

import mujoco
import numpy as np

from serl_envs.robot import Array, RobotState
from serl_envs.tasks.assembly import Insertion, Mating, add_part, add_socket, reset_holding, upright
from serl_envs.tasks.task import SimulatedRobot, Workspace, box
from serl_envs.twins.scene import Scene

__all__ = ["BayonetLock"]

BAR_HALF_M = (0.012, 0.0035, 0.003)
SHAFT_RADIUS_M = 0.0035
SHAFT_TOP_M = 0.04
HANDLE_HALF_M = (0.008, 0.008, 0.015)
TIP_BELOW_TCP_M = 0.058
CLEARANCE_M = 0.001
"""Slot less bar, in length and in width."""
PLATE_TOP_M = 0.04
PLATE_BOTTOM_M = 0.032
UNDER_PLATE_M = PLATE_TOP_M - PLATE_BOTTOM_M + 2 * BAR_HALF_M[2]
"""Depth of the tip at which the bar is clear of the slot."""
LOCKED_RAD = np.pi / 3
"""Turned this far under the plate, the key can't be pulled out."""
CENTRE_XY = np.array([0.5, 0.0])
SLOT_HALF_RANGE_M = 0.03
SLOT_YAW_HALF_RANGE = 0.2
START_HALF_RANGE_M = 0.02
START_YAW_HALF_RANGE = np.pi / 18
START_TIP_ABOVE_MOUTH_M = (0.015, 0.03)
HALF_TURN = np.pi


class BayonetLock:
    """Pass a 24 x 7 mm bar through a 25 x 8 mm slot and turn it by 60 degrees or more under the plate, either way."""

    max_steps = 120
    translation_m = 0.0125
    rotation_rad = 0.12
    workspace = Workspace((0.42, -0.08, 0.05), (0.58, 0.08, 0.18), tilt_rad=0.2, turn_rad=1.7)
    keeps_grip = True
    grasp_force_n = 70.0
    stiffness_n_per_m = 2000.0
    max_force_n = 25.0
    spaces = {"slot": box([-1.0] * 3 + [-1.7] * 3, [1.0] * 3 + [1.7] * 3)}  # noqa: RUF012

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Adds `socket`, a plate with a slot, and, as `part`, the key: cross bar, shaft and handle."""
        opening = (BAR_HALF_M[0] + 0.5 * CLEARANCE_M, BAR_HALF_M[1] + 0.5 * CLEARANCE_M)
        add_socket(spec, opening, outer_half=0.04, bottom=PLATE_BOTTOM_M, top=PLATE_TOP_M)
        shaft_half = 0.5 * (SHAFT_TOP_M - 2 * BAR_HALF_M[2])
        brass = (0.85, 0.66, 0.22, 1)
        key = [
            {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": BAR_HALF_M, "pos": (0, 0, BAR_HALF_M[2]), "rgba": brass},
            {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": (SHAFT_RADIUS_M, shaft_half, 0),
             "pos": (0, 0, SHAFT_TOP_M - shaft_half), "rgba": brass},
            {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": HANDLE_HALF_M,
             "pos": (0, 0, SHAFT_TOP_M + HANDLE_HALF_M[2]), "rgba": (0.75, 0.2, 0.2, 1)},
        ]  # fmt: skip
        add_part(spec, key, mass=0.06)

    def reset(self, robot: SimulatedRobot, rng: np.random.Generator) -> None:
        """Draws the slot's place and yaw, and a start above it with the key in the fingers."""
        slot = np.array([*(CENTRE_XY + SLOT_HALF_RANGE_M * rng.uniform(-1, 1, 2)), PLATE_TOP_M])
        yaw = SLOT_YAW_HALF_RANGE * rng.uniform(-1, 1)
        above = rng.uniform(*START_TIP_ABOVE_MOUTH_M) + TIP_BELOW_TCP_M
        start = slot + np.array([*(START_HALF_RANGE_M * rng.uniform(-1, 1, 2)), above])
        turned = yaw + START_YAW_HALF_RANGE * rng.uniform(-1, 1)
        reset_holding(robot, start, turned, 2 * HANDLE_HALF_M[1], TIP_BELOW_TCP_M, (slot, upright(yaw)))

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`slot`, tool frame: from the key's tip to the slot's mouth [m], and the turn that aligns the key [rad]."""
        mating = Mating.measure(state, scene, HALF_TURN)
        return {"slot": np.concatenate([mating.offset, mating.turn])}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        """Whether the bar is under the plate and turned by `LOCKED_RAD` or more."""
        mating = Mating.measure(state, scene, HALF_TURN)
        under = mating.depth >= UNDER_PLATE_M and mating.lateral < BAR_HALF_M[1]
        return under and abs(mating.yaw) >= LOCKED_RAD

    def make_script(self, rng: np.random.Generator) -> "_LockScript":
        """Inserts the key and turns it; the generator is not used."""
        return _LockScript(self)


class _LockScript:
    """Through the slot, then turn; starts over where the key is out again before it is turned."""

    SEARCH_M = 0.0012
    ALIGNED_RAD = 0.05
    DEPTH_M = 0.5 * (UNDER_PLATE_M + PLATE_TOP_M)
    THROUGH_M = UNDER_PLATE_M + 0.003
    OUT_M = UNDER_PLATE_M - 2 * BAR_HALF_M[2]
    TURN_RAD = 1.25

    def __init__(self, task: BayonetLock) -> None:
        self._insertion = Insertion(
            task,
            symmetry_rad=HALF_TURN,
            aligned_rad=self.ALIGNED_RAD,
            search_m=self.SEARCH_M,
            depth_m=self.DEPTH_M,
        )
        self._turning = False

    def act(self, state: RobotState, scene: Scene) -> Array:
        """Returns the next action before noise. Shape: (7,)."""
        mating = Mating.measure(state, scene, HALF_TURN)
        if not self._turning:
            self._turning = mating.depth > self.THROUGH_M
            return self._insertion.act(state, scene)
        if mating.depth < self.OUT_M:
            self._turning = False
            self._insertion.start_over()
        return self._insertion.push(state, mating, self.TURN_RAD)
