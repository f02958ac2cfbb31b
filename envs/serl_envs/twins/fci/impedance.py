"""The arm's internal controllers, which track what a motion generator asks for."""

import numpy as np

from serl_envs.robot import Array
from serl_envs.twins.fci.generators import Reference
from serl_suite.control.impedance import impedance_wrench, nullspace_torque, pose_error, task_damping
from serl_suite.control.rotations import quaternion_from_matrix

__all__ = ["CARTESIAN_STIFFNESS", "JOINT_STIFFNESS", "brake", "cartesian_impedance", "joint_impedance"]

JOINT_STIFFNESS = np.array([3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0])
"""As delivered [N m/rad]."""
CARTESIAN_STIFFNESS = np.array([3000.0, 3000.0, 3000.0, 300.0, 300.0, 300.0])
"""As delivered [N/m, N m/rad]."""
DAMPING_RATIO = 0.7
NULLSPACE_STIFFNESS = 20.0
PINV_DAMPING = 0.01
BRAKE_RATE = 30.0
"""[1/s]: a braking arm is at rest after about 0.2 s."""
UNBOUNDED = np.full(6, np.inf)


def joint_impedance(reference: Reference, q: Array, dq: Array, mass: Array, stiffness: Array) -> Array:
    """K (q_d - q) + D (dq_d - dq) + M ddq_d, with D for the damping ratio of each joint. Shape: (7,) [N m]."""
    damping = 2 * DAMPING_RATIO * np.sqrt(stiffness * mass.diagonal())
    return np.asarray(
        stiffness * (reference.q - q) + damping * (reference.dq - dq) + mass @ reference.ddq, np.float64
    )


def cartesian_impedance(
    reference: Reference,
    pose: Array,
    jacobian: Array,
    q: Array,
    dq: Array,
    mass: Array,
    stiffness: Array,
    posture_stiffness: float = NULLSPACE_STIFFNESS,
) -> Array:
    """J' (K e + D (v_d - v)) + nullspace towards the reference's joints + M ddq_d. Shape: (7,) [N m].

    Args:
        reference: Pose, twist and joints to track.
        pose: O_T_EE, (4, 4).
        jacobian: At the end effector, (6, 7).
        q: Joint positions, (7,).
        dq: Joint velocities, (7,).
        mass: Inertia, (7, 7).
        stiffness: [N/m, N m/rad], (6,).
        posture_stiffness: Of the elbow [N m/rad].
    """
    error = pose_error(
        pose[:3, 3].copy(), quaternion_from_matrix(pose[:3, :3].copy()),
        reference.pose[:3, 3].copy(), quaternion_from_matrix(reference.pose[:3, :3].copy()),
    )  # fmt: skip
    mobility = np.asarray(np.linalg.inv(mass), np.float64)
    damping, _ = task_damping(stiffness, DAMPING_RATIO, jacobian, mobility)
    wrench = impedance_wrench(
        error, jacobian @ dq - reference.twist, stiffness, damping, -UNBOUNDED, UNBOUNDED
    )
    posture = nullspace_torque(q, dq, reference.q, jacobian, posture_stiffness, PINV_DAMPING)
    return np.asarray(jacobian.T @ wrench + posture + mass @ reference.ddq, np.float64)


def brake(dq: Array, mass: Array) -> Array:
    """Torque that takes the arm's speed away. Shapes: (7,), (7, 7) -> (7,) [N m]."""
    return np.asarray(-BRAKE_RATE * (mass @ dq), np.float64)
