"""Workspace box, joint and velocity walls, torque caps and torque-rate saturation."""

import numpy as np

from serl_suite.control.compiled import Array, compiled

__all__ = [
    "add_joint_walls",
    "add_velocity_walls",
    "cap_torque",
    "clip_to_box",
    "leaves_box",
    "saturate_torque_rate",
]

_AT_REST = 1e-3
"""Slower than this [rad/s, m/s] a joint or TCP counts as resting: measured velocities are never quite zero."""


@compiled
def clip_to_box(target: Array, lower: Array, upper: Array) -> Array:
    """The nearest point of the box. Shapes: (3,), (3,), (3,) -> (3,) [m]."""
    return np.minimum(np.maximum(target, lower), upper)


@compiled
def leaves_box(position: Array, velocity: Array, lower: Array, upper: Array, margin_m: float) -> bool:
    """Whether the TCP is outside the box by more than the margin and still moving outward.

    An arm that comes back, or rests outside after a recovery, is no violation. Shapes: (3,) each; velocity
    has linear components first and may be a whole twist (6,).
    """
    for i in range(3):
        if position[i] < lower[i] - margin_m and velocity[i] < -_AT_REST:
            return True
        if position[i] > upper[i] + margin_m and velocity[i] > _AT_REST:
            return True
    return False


@compiled
def add_joint_walls(
    q: Array, dq: Array, lower: Array, upper: Array, depth_rad: float, stiffness: float, tau: Array
) -> bool:
    """Adds a spring that pushes each joint out of the last `depth_rad` of its range.

    tau_i += k * penetration. The spring is the gradient of a potential, so it stores energy and makes none.
    Returns True where a joint is beyond lower or upper and still moving outward. Shapes: (n,) each; stiffness
    [Nm/rad]; tau [Nm] in place.
    """
    broken = False
    for i in range(q.shape[0]):
        below = lower[i] + depth_rad - q[i]
        above = q[i] - (upper[i] - depth_rad)
        if below > 0.0:
            tau[i] += stiffness * below
            broken = broken or (below > depth_rad and dq[i] < -_AT_REST)
        elif above > 0.0:
            tau[i] -= stiffness * above
            broken = broken or (above > depth_rad and dq[i] > _AT_REST)
    return broken


@compiled
def add_velocity_walls(dq: Array, max_velocity: Array, depth: float, damping: Array, tau: Array) -> bool:
    """Adds a brake on each joint in the last `depth` [rad/s] below its maximum velocity.

    tau_i -= d_i * excess * sign(dq_i). Returns True where a joint is faster than its maximum. Shapes: (n,)
    each; damping [Nm s/rad]; tau [Nm] in place.
    """
    broken = False
    for i in range(dq.shape[0]):
        excess = abs(dq[i]) - (max_velocity[i] - depth)
        if excess > 0.0:
            tau[i] -= damping[i] * excess * np.sign(dq[i])
            broken = broken or excess > depth
    return broken


@compiled
def cap_torque(tau: Array, max_torque: Array) -> None:
    """Clips each joint's torque to +-max_torque, in place. Shapes: (n,), (n,) [Nm]."""
    for i in range(tau.shape[0]):
        tau[i] = min(max(tau[i], -max_torque[i]), max_torque[i])


@compiled
def saturate_torque_rate(tau: Array, echoed: Array, max_step: float, out: Array) -> None:
    """out = tau, moved to within `max_step` [Nm] of the torque that the robot echoes.

    Shapes: (n,) each; `out` may be any of them. Against the echoed torque and not the last one sent: after a
    lost packet the two differ, and it is the robot that judges the step.
    """
    for i in range(tau.shape[0]):
        out[i] = min(max(tau[i], echoed[i] - max_step), echoed[i] + max_step)
