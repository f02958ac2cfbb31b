"""Lock a bayonet: pass a key's cross bar through a slot with 1 mm of clearance, then turn it under the plate."""

import mujoco
import numpy as np

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState
from serl_envs.tasks.assembly import Mating, add_part, add_socket, reset_holding, upright
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
        slot = np.array([*(CENTRE_XY + SLOT_HALF_RANGE_M * rng.uniform(-1, 1, 2)), PLATE_TOP_M])
        yaw = SLOT_YAW_HALF_RANGE * rng.uniform(-1, 1)
        above = rng.uniform(*START_TIP_ABOVE_MOUTH_M) + TIP_BELOW_TCP_M
        start = slot + np.array([*(START_HALF_RANGE_M * rng.uniform(-1, 1, 2)), above])
        turned = yaw + START_YAW_HALF_RANGE * rng.uniform(-1, 1)
        robot.scene.place("socket", slot, upright(yaw))
        reset_holding(robot, start, turned, 2 * HANDLE_HALF_M[1], TIP_BELOW_TCP_M)

    def observe(self, state: RobotState, scene: Scene) -> dict[str, Array]:
        """`slot`, tool frame: from the key's tip to the slot's mouth [m], and the turn that aligns the key [rad]."""
        mating = Mating.measure(state, scene, HALF_TURN)
        return {"slot": np.concatenate([mating.offset, mating.turn])}

    def succeeded(self, state: RobotState, scene: Scene) -> bool:
        mating = Mating.measure(state, scene, HALF_TURN)
        under = mating.depth >= UNDER_PLATE_M and mating.lateral < BAR_HALF_M[1]
        return under and abs(mating.yaw) >= LOCKED_RAD

    def make_script(self, rng: np.random.Generator) -> "_LockScript":
        return _LockScript(self)


class _LockScript:
    """Over the slot, feel for it, go through, turn; starts over where the key is out again before it is turned."""

    HOVER_M = 0.004
    LATERAL_M = 0.002
    YAW_RAD = 0.05
    LATERAL_GAIN = 2.0
    SEARCH_M = 0.0012
    SEARCH_RAD = 2.4
    PATIENCE = 30
    TURN_DEPTH_M = 0.5 * (UNDER_PLATE_M + PLATE_TOP_M)
    TURN_RAD = 1.25

    def __init__(self, task: BayonetLock) -> None:
        self._motion = Motion(task.translation_m, task.rotation_rad, pace=0.6)
        self._phase = "align"
        self._on_rim = 0

    def act(self, state: RobotState, scene: Scene) -> Array:
        mating = Mating.measure(state, scene, HALF_TURN)
        way, turn = mating.offset.copy(), 1.5 * mating.turn
        if self._phase == "align":
            if mating.lateral < self.LATERAL_M and abs(mating.yaw) < self.YAW_RAD:
                self._phase, self._on_rim = "push", 0
            way[2] -= self.HOVER_M
            return self._motion.by(state, way, turn, 1.0)
        way[:2] *= self.LATERAL_GAIN
        way[2] += self.TURN_DEPTH_M
        if self._phase == "turn":
            if mating.depth < UNDER_PLATE_M - 2 * BAR_HALF_M[2]:
                self._phase = "align"
            turn[2] -= 1.5 * self.TURN_RAD
            return self._motion.by(state, way, turn, 1.0)
        if mating.depth > UNDER_PLATE_M + 0.003:
            self._phase = "turn"
        if mating.depth > 0.002:
            return self._motion.by(state, way, turn, 1.0)
        self._on_rim += 1
        if self._on_rim > self.PATIENCE or mating.lateral > 3 * self.LATERAL_M:
            self._phase = "align"
        angle = self.SEARCH_RAD * self._on_rim
        way += np.array([self.SEARCH_M * np.cos(angle), self.SEARCH_M * np.sin(angle), 0.0])
        way[2] = mating.offset[2] + self.HOVER_M
        return self._motion.by(state, way, turn, 1.0)
