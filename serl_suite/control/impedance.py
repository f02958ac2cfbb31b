"""The Cartesian impedance law of an arm with its nullspace.

    tau = J^T (-K clip(e) - D J dq) + N (k_n (q_0 - q) - 2 sqrt(k_n) dq)

in base-frame coordinates at the TCP, linear rows first. e = [x - x_target; log(R R_target^T)].

`clip` bounds each axis of e, asymmetrically where a task asks for it, and with it the spring's force to K *
clip. In
position the clipped spring is the gradient of a Huber potential, whatever the path: it makes no energy. In
orientation the same holds for turns about one axis, and for any turn while no axis is clipped and the three
stiffnesses are equal; otherwise the rotation vector's curvature leaves a residue of the order of |e|^2 K
clip, which the energy tank pays for like any other port work. Bounding each axis exactly was preferred to
removing it.
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled
from serl_suite.control.linear import cholesky, cholesky_solve
from serl_suite.control.rotations import rotation_difference

__all__ = ["apparent_inertia", "impedance_wrench", "nullspace_torque", "pose_error", "task_damping"]

_MOST_MASS = 20.0
"""[kg] An arm shows about 2 to 6 kg; more is a singularity, where damping made for it would be a brake."""
_MOST_INERTIA = 1.0
"""[kg m^2]"""


@compiled
def pose_error(position: Array, quaternion: Array, target_position: Array, target_quaternion: Array) -> Array:
    """e = [x - x_target; log(R R_target^T)]. Shapes: (3,), (4,), (3,), (4,) -> (6,) [m, rad]."""
    error = np.empty(6)
    turn = rotation_difference(quaternion, target_quaternion)
    for i in range(3):
        error[i] = position[i] - target_position[i]
        error[3 + i] = turn[i]
    return error


@compiled
def impedance_wrench(
    error: Array, twist: Array, stiffness: Array, damping: Array, clip_lower: Array, clip_upper: Array
) -> Array:
    """-K clip(e) - D v, diagonal K and D. Shapes: (6,) each -> (6,) [N, Nm]."""
    wrench = np.empty(6)
    for i in range(6):
        clipped = min(max(error[i], clip_lower[i]), clip_upper[i])
        wrench[i] = -stiffness[i] * clipped - damping[i] * twist[i]
    return wrench


@compiled
def apparent_inertia(jacobian: Array, mass_inverse: Array) -> Array:
    """The inertia that a push along each single axis meets: 1 / (J M^-1 J^T)_ii, at most 20 kg and 1 kg m^2.

    Finite and positive at singularities too, where the full task-space inertia is not.
    Shapes: (6, 7), (7, 7) -> (6,) [kg, kg m^2].
    """
    inertia = np.empty(6)
    n = mass_inverse.shape[0]
    for a in range(6):
        mobility = 0.0
        for i in range(n):
            row = 0.0
            for j in range(n):
                row += mass_inverse[i, j] * jacobian[a, j]
            mobility += jacobian[a, i] * row
        inertia[a] = 1.0 / max(mobility, 1.0 / (_MOST_MASS if a < 3 else _MOST_INERTIA))
    return inertia


@compiled
def task_damping(stiffness: Array, inertia: Array, ratio: float) -> Array:
    """D = 2 zeta sqrt(K m) per axis, so damping follows both stiffness and pose. Shapes: (6,), (6,) -> (6,)
    [Ns/m, Nms/rad].
    """
    return 2.0 * ratio * np.sqrt(stiffness * inertia)


@compiled
def nullspace_torque(
    q: Array, dq: Array, posture: Array, jacobian: Array, stiffness: float, pinv_damping: float
) -> Array:
    """N (k_n (q_0 - q) - 2 sqrt(k_n) dq) with N = I - J^T (J J^T + lambda^2 I)^-1 J.

    N is symmetric with eigenvalues in [0, 1] whatever lambda, so the damping part never makes energy; lambda
    > 0 keeps it bounded at singularities. Shapes: (7,), (7,), (7,), (6, 7) -> (7,) [Nm].
    """
    n = q.shape[0]
    torque = np.empty(n)
    rate = 2.0 * math.sqrt(stiffness)
    for j in range(n):
        torque[j] = stiffness * (posture[j] - q[j]) - rate * dq[j]
    gram = np.empty((6, 6))
    projected = np.empty(6)
    for a in range(6):
        projected[a] = 0.0
        for j in range(n):
            projected[a] += jacobian[a, j] * torque[j]
        for b in range(a + 1):
            gram[a, b] = 0.0
            for j in range(n):
                gram[a, b] += jacobian[a, j] * jacobian[b, j]
        gram[a, a] += pinv_damping * pinv_damping
    factor = np.empty((6, 6))
    if not cholesky(gram, factor):  # only with lambda = 0 at a singularity: no nullspace torque there
        return np.zeros(n)
    cholesky_solve(factor, projected)
    for j in range(n):
        for a in range(6):
            torque[j] -= jacobian[a, j] * projected[a]
    return torque
