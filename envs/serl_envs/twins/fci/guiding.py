"""The arm led by hand: free along the axes that are unlocked, held along the others."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serl_envs.robot import Array
from serl_envs.twins.fci.generators import Reference
from serl_suite.control.rotations import (
    matrix_from_quaternion,
    quaternion_from_matrix,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)

__all__ = ["Guiding", "guided_reference", "guided_stiffness"]

FREE_STIFFNESS = np.repeat([10.0, 0.3], 3)
"""[N/m, N m/rad]: pulls nowhere, as the reference goes along; what comes of it is a little damping."""
FREE_ELBOW, LOCKED_ELBOW = 0.5, 200.0
"""[N m/rad]"""


class Guiding(NamedTuple):
    """What SetGuidingMode unlocks; as delivered, everything."""

    free: npt.NDArray[np.bool_]
    """x, y, z, roll, pitch, yaw of the end effector along the base's axes, (6,)."""
    elbow: bool

    @property
    def posture_stiffness(self) -> float:
        """[N m/rad]"""
        return FREE_ELBOW if self.elbow else LOCKED_ELBOW

    @classmethod
    def from_wire(cls, payload: bytes) -> "Guiding":
        """From the 7 flags of SetGuidingMode."""
        flags = np.frombuffer(payload, np.uint8) != 0
        return cls(flags[:6], bool(flags[6]))


def guided_reference(guiding: Guiding, held: Reference, pose: Array, q: Array) -> Reference:
    """What the arm holds now: where it is along the axes that are free, where it was held before along the others.

    Args:
        guiding: Which are free.
        held: What it held until now.
        pose: O_T_EE, (4, 4).
        q: Joint positions, (7,).
    """
    free, target = guiding.free, pose.copy()
    target[:3, 3] = np.where(free[:3], pose[:3, 3], held.pose[:3, 3])
    away = np.ascontiguousarray(held.pose[:3, :3] @ pose[:3, :3].T)
    turn = np.where(free[3:], 0.0, rotation_vector_from_quaternion(quaternion_from_matrix(away)))
    target[:3, :3] = matrix_from_quaternion(quaternion_from_rotation_vector(turn)) @ pose[:3, :3]
    return Reference(q if guiding.elbow else held.q, target)


def guided_stiffness(guiding: Guiding, stiffness: Array) -> Array:
    """The Cartesian stiffness with nothing to speak of where the arm is free. Shapes: (6,) -> (6,)."""
    return np.where(guiding.free, FREE_STIFFNESS, stiffness)
