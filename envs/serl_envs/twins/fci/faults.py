"""What makes the arm end a motion: limits on what it measures, on what it is told, and collisions."""

from typing import NamedTuple

import numpy as np
from serl_hardware.franka import fr3

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import Error
from serl_suite.control.compiled import compiled

__all__ = ["MAX_LOST", "TORQUE_STEP", "Deviation", "Thresholds", "measured_error", "torque_error"]

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


class Deviation(NamedTuple):
    """How far the measured end effector may be from the desired one; Move says so for the path and for the goal."""

    translation: float
    """[m]"""
    rotation: float
    """[rad]"""
    elbow: float
    """Of the third joint [rad]."""

    @property
    def is_sound(self) -> bool:
        """Whether these are limits; NaN is none."""
        return all(limit >= 0.0 for limit in self)

    def allows(self, error: Array, elbow: float) -> bool:
        """Whether a pose error (translation, rotation vector), (6,), and one of the elbow are within the limits."""
        moved, turned = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
        return moved <= self.translation and turned <= self.rotation and abs(elbow) <= self.elbow


def measured_error(q: Array, dq: Array) -> Error | None:
    """Whether the arm has left its limits of position or velocity. Shapes: (7,), (7,)."""
    arm = fr3()
    if not _within(q, arm.q_min, arm.q_max):
        return Error.JOINT_POSITION_LIMITS_VIOLATION
    fastest = VELOCITY_TOLERANCE * arm.max_velocity
    return None if _within(dq, -fastest, fastest) else Error.JOINT_VELOCITY_VIOLATION


def torque_error(tau: Array, echoed: Array) -> Error | None:
    """Whether a commanded torque is further from the echoed one than a millisecond allows, or is no number at all."""
    step = TORQUE_STEP * TOLERANCE
    return None if _within(tau, echoed - step, echoed + step) else Error.CONTROLLER_TORQUE_DISCONTINUITY


@compiled
def _within(values: Array, lower: Array, upper: Array) -> bool:
    """Whether each is; NaN is not."""
    for value, low, high in zip(values, lower, upper):  # noqa: B905, SIM110 - numba knows neither strict nor all
        if not low <= value <= high:
            return False
    return True
