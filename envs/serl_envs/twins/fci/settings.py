"""What a client sets before it moves: thresholds, stiffness, frames and load."""

from collections.abc import Callable

import numpy as np
from serl_hardware.franka import fr3

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import ArmCommand, Status
from serl_envs.twins.fci.faults import Thresholds
from serl_envs.twins.fci.guiding import Guiding
from serl_envs.twins.fci.impedance import CARTESIAN_STIFFNESS, JOINT_STIFFNESS
from serl_envs.twins.fci.kinematics import from_wire, transform

__all__ = ["Settings"]

MAX_JOINT_STIFFNESS = 14250.0
CARTESIAN_STIFFNESS_RANGE = np.repeat([10.0, 1.0], 3), np.repeat([3000.0, 300.0], 3)


class Settings:
    """As delivered, with the hand mounted, until a client changes them."""

    def __init__(self) -> None:
        self.thresholds = Thresholds.default()
        self.joint_stiffness = JOINT_STIFFNESS
        """[N m/rad], (7,)."""
        self.cartesian_stiffness = CARTESIAN_STIFFNESS
        """[N/m, N m/rad], (6,)."""
        arm = fr3()
        cosine, sine = np.cos(arm.hand_rpy[2]), np.sin(arm.hand_rpy[2])
        turned = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        self.flange_to_nominal = transform(turned, arm.tcp_xyz)
        """F_T_NE: the hand's TCP, (4, 4)."""
        self.nominal_to_tool = np.eye(4)
        """NE_T_EE, (4, 4)."""
        self.tool_to_stiffness = np.eye(4)
        """EE_T_K, (4, 4)."""
        self._place_frames()
        self.load_mass, self.load_com, self.load_inertia = 0.0, np.zeros(3), np.zeros(9)
        """[kg], in the flange's frame [m] (3,), about it [kg m^2] (9,)."""
        self.guiding = Guiding(np.ones(6, np.bool_), elbow=True)
        self._setters: dict[ArmCommand, Callable[[Array], Status]] = {
            ArmCommand.SET_COLLISION_BEHAVIOR: self._set_thresholds,
            ArmCommand.SET_JOINT_IMPEDANCE: self._set_joint_stiffness,
            ArmCommand.SET_CARTESIAN_IMPEDANCE: self._set_cartesian_stiffness,
            ArmCommand.SET_EE_TO_K: self._set_stiffness_frame,
            ArmCommand.SET_NE_TO_EE: self._set_tool,
            ArmCommand.SET_LOAD: self._set_load,
        }

    def apply(self, command: ArmCommand, payload: bytes) -> Status:
        """Carries out one of the Set commands; values that are refused change nothing."""
        if command is ArmCommand.SET_GUIDING_MODE:
            self.guiding = Guiding.from_wire(payload)
            return Status.SUCCESS
        values = np.frombuffer(payload, "<f8").copy()
        if not np.isfinite(values).all():
            return Status.INVALID_ARGUMENT
        return self._setters[command](values)

    def _place_frames(self) -> None:
        self.flange_to_tool: Array = self.flange_to_nominal @ self.nominal_to_tool
        """F_T_EE, (4, 4)."""
        self.flange_to_stiffness: Array = self.flange_to_tool @ self.tool_to_stiffness
        """F_T_K, (4, 4)."""

    def _set_thresholds(self, values: Array) -> Status:
        if (values < 0).any():
            return Status.INVALID_ARGUMENT
        self.thresholds = Thresholds.from_wire(values)
        return Status.SUCCESS

    def _set_joint_stiffness(self, values: Array) -> Status:
        if (values < 0).any() or (values > MAX_JOINT_STIFFNESS).any():
            return Status.INVALID_ARGUMENT
        self.joint_stiffness = values
        return Status.SUCCESS

    def _set_cartesian_stiffness(self, values: Array) -> Status:
        low, high = CARTESIAN_STIFFNESS_RANGE
        if (values < low).any() or (values > high).any():
            return Status.INVALID_ARGUMENT
        self.cartesian_stiffness = values
        return Status.SUCCESS

    def _set_stiffness_frame(self, values: Array) -> Status:
        if not _is_pose(values):
            return Status.INVALID_ARGUMENT
        self.tool_to_stiffness = from_wire(values)
        self._place_frames()
        return Status.SUCCESS

    def _set_tool(self, values: Array) -> Status:
        if not _is_pose(values):
            return Status.INVALID_ARGUMENT
        self.nominal_to_tool = from_wire(values)
        self._place_frames()
        return Status.SUCCESS

    def _set_load(self, values: Array) -> Status:
        if values[0] < 0:
            return Status.INVALID_ARGUMENT
        self.load_mass, self.load_com, self.load_inertia = float(values[0]), values[1:4], values[4:]
        return Status.SUCCESS


def _is_pose(values: Array) -> bool:
    frame = from_wire(values)
    off = np.abs(frame[:3, :3] @ frame[:3, :3].T - np.eye(3)).max()
    return bool(off < 1e-3 and (frame[3] == (0, 0, 0, 1)).all())
