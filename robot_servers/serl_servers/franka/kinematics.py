"""Where a joint position puts the TCP."""

import numpy as np
from serl_hardware.franka import fr3

from serl_servers.franka.driver import Array
from serl_suite.control.rotations import (
    quaternion_from_rotation_vector,
    quaternion_from_rpy,
    quaternion_inverse,
    quaternion_multiply,
    rotate,
)

__all__ = ["Tool", "flange_pose"]


def flange_pose(q: Array) -> tuple[Array, Array]:
    """Position and quaternion of the flange in the base frame. Shape: (7,) -> (3,), (4,)."""
    arm = fr3()
    position, quaternion = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
    for i in range(7):
        position = position + rotate(quaternion, np.array(arm.joint_xyz[i]))
        quaternion = quaternion_multiply(quaternion, quaternion_from_rpy(np.array(arm.joint_rpy[i])))
        quaternion = quaternion_multiply(
            quaternion, quaternion_from_rotation_vector(np.array([0.0, 0.0, q[i]]))
        )
    return position + rotate(quaternion, np.array(arm.flange_xyz)), quaternion


class Tool:
    """The TCP on the flange, found from one measurement: whatever tool is set in the arm is the one that counts.

    Args:
        q: Measured joints, (7,).
        position, quaternion: The TCP's pose that the arm reports for them, (3,), (4,).
    """

    def __init__(self, q: Array, position: Array, quaternion: Array) -> None:
        origin, turn = flange_pose(q)
        back = quaternion_inverse(turn)
        self._offset = rotate(back, position - origin)
        self._turn = quaternion_multiply(back, quaternion)

    def pose(self, q: Array) -> tuple[Array, Array]:
        """The TCP's pose at a joint position. Shape: (7,) -> (3,), (4,)."""
        origin, turn = flange_pose(q)
        return origin + rotate(turn, self._offset), quaternion_multiply(turn, self._turn)
