"""The reasons for which a control tick ends the motion."""

import enum

__all__ = ["Fault"]


class Fault(enum.IntEnum):
    """What stopped the arm. Once set it stays until `recover`; nothing clears a fault by itself."""

    NONE = 0
    STALE_SETPOINT = 1
    """No fresh setpoint for `setpoint_fault_s`: whoever commands the arm has died or hangs."""
    INVALID_SETPOINT = 2
    """NaN or inf in the setpoint or its age, or a quaternion whose norm is off 1 by more than 1e-3."""
    INVALID_STATE = 3
    """NaN or inf in what the robot or its model reports, or a mass matrix that is not positive definite."""
    INVALID_TORQUE = 4
    """The law itself produced NaN or inf."""
    JOINT_POSITION = 5
    """A joint was beyond its safe range and still moving outward."""
    JOINT_VELOCITY = 6
    """A joint was faster than its maximum velocity."""
    WORKSPACE = 7
    """The TCP was outside the workspace box by more than its margin and still moving outward."""
    UNSTABLE_GAINS = 8
    """Stiffness and damping were higher than the rate of the tick keeps stable in this pose."""
