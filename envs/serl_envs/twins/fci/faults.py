"""What makes the arm end a motion: limits on what it measures, on what it is told, and collisions."""

from typing import NamedTuple

import numpy as np
from serl_hardware.franka import fr3

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import Error

__all__ = ["MAX_LOST", "TORQUE_STEP", "Thresholds", "measured_error", "torque_error"]

MAX_LOST = 20
"""Milliseconds in a row without a command after which a motion ends."""
TORQUE_STEP = 1.0
"""[N m] a millisecond: 1000 N m/s."""
VELOCITY_TOLERANCE = 1.02
"""A motion at the greatest speed that may be commanded sways about it."""
TOLERANCE = 1.0 + 1e-3
"""The torque echoed to the client is rounded to 32 bits."""


class Thresholds(NamedTuple):
    """Collision behaviour: contacts are reported from `lower` on, and beyond `upper` the motion ends."""

    torque_lower_acceleration: Array
    torque_upper_acceleration: Array
    torque_lower: Array
    torque_upper: Array
    """[N m], (7,)."""
    force_lower_acceleration: Array
    force_upper_acceleration: Array
    force_lower: Array
    force_upper: Array
    """[N, N m], (6,)."""

    @classmethod
    def default(cls) -> "Thresholds":
        """20 N m and 20 N."""
        torque, force = np.full(7, 20.0), np.full(6, 20.0)
        return cls(torque, torque, torque, torque, force, force, force, force)

    @classmethod
    def from_wire(cls, values: Array) -> "Thresholds":
        """From the 52 numbers of SetCollisionBehavior."""
        return cls(*np.split(values, [7, 14, 21, 28, 34, 40, 46]))

    def contact(self, *, accelerating: bool) -> tuple[Array, Array]:
        """Joint torques (7,) and forces (6,) from which a contact is reported."""
        if accelerating:
            return self.torque_lower_acceleration, self.force_lower_acceleration
        return self.torque_lower, self.force_lower

    def collision(self, *, accelerating: bool) -> tuple[Array, Array]:
        """Joint torques (7,) and forces (6,) beyond which the motion ends."""
        if accelerating:
            return self.torque_upper_acceleration, self.force_upper_acceleration
        return self.torque_upper, self.force_upper


def measured_error(q: Array, dq: Array) -> Error | None:
    """Whether the arm has left its limits of position or velocity. Shapes: (7,), (7,)."""
    arm = fr3()
    if (q < arm.q_min).any() or (q > arm.q_max).any():
        return Error.JOINT_POSITION_LIMITS_VIOLATION
    if (np.abs(dq) > arm.max_velocity * VELOCITY_TOLERANCE).any():
        return Error.JOINT_VELOCITY_VIOLATION
    return None


def torque_error(tau: Array, echoed: Array) -> Error | None:
    """Whether a commanded torque is further from the echoed one than a millisecond allows, or is no number at all."""
    if np.abs(tau - echoed).max() <= TORQUE_STEP * TOLERANCE:  # false for NaN
        return None
    return Error.CONTROLLER_TORQUE_DISCONTINUITY
