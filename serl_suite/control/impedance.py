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
from serl_suite.control.linear import cholesky, cholesky_solve, eigen_decompose
from serl_suite.control.rotations import rotation_difference

__all__ = ["impedance_wrench", "nullspace_torque", "pose_error", "spring_energy", "task_damping"]


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
    """-K clip(e) - D v, with K diagonal. Shapes: (6,), (6,), (6,), (6, 6), (6,), (6,) -> (6,) [N, Nm]."""
    wrench = np.empty(6)
    for a in range(6):
        wrench[a] = -stiffness[a] * min(max(error[a], clip_lower[a]), clip_upper[a])
        for b in range(6):
            wrench[a] -= damping[a, b] * twist[b]
    return wrench


@compiled
def spring_energy(error: Array, stiffness: Array, clip_lower: Array, clip_upper: Array) -> float:
    """V = sum of K (e c - c^2 / 2) with c = clip(e): the Huber potential whose gradient is K c [J].

    Shapes: (6,) each.
    """
    energy = 0.0
    for a in range(6):
        clipped = min(max(error[a], clip_lower[a]), clip_upper[a])
        energy += stiffness[a] * clipped * (error[a] - 0.5 * clipped)
    return energy


@compiled
def task_damping(stiffness: Array, ratio: float, jacobian: Array, mass_inverse: Array) -> tuple[Array, float]:
    """D = 2 zeta (Lambda # K): the damping that gives every mode of Lambda x'' + D x' + K x the ratio zeta; and the
    square of the fastest mode's rate, w^2.

    Lambda = (J M^-1 J^T)^-1 is the task-space inertia, # the geometric mean, computed as
    K^1/2 (K^1/2 Lambda^-1 K^1/2)^-1/2 K^1/2. It is 2 zeta sqrt(K m) for a single mass m; used one axis at a
    time, that formula leaves the coupled modes of an arm with ratios between 0.2 and 0.7. Directions in which
    the arm cannot move are taken for modes of 1 rad/s, which bounds D at singularities. D is symmetric, positive
    semidefinite.
    Shapes: (6,), (6, 7), (7, 7) -> (6, 6) [Ns/m, Ns, Nms/rad], scalar [1/s^2].
    """
    n = mass_inverse.shape[0]
    root = np.sqrt(stiffness)
    modes = np.empty((6, 6))
    reached = np.empty(n)
    for a in range(6):
        for i in range(n):
            reached[i] = 0.0
            for j in range(n):
                reached[i] += mass_inverse[i, j] * jacobian[a, j]
        for b in range(a + 1):
            mobility = 0.0
            for i in range(n):
                mobility += jacobian[b, i] * reached[i]
            modes[a, b] = root[a] * mobility * root[b]
            modes[b, a] = modes[a, b]
    vectors = np.empty((6, 6))
    eigen_decompose(modes, vectors)
    fastest = 0.0
    for k in range(6):
        fastest = max(fastest, modes[k, k])
        weight = math.sqrt(2.0 * ratio / math.sqrt(max(modes[k, k], 1.0)))
        for a in range(6):
            vectors[a, k] *= weight
    damping = np.empty((6, 6))
    for a in range(6):
        for b in range(a + 1):
            total = 0.0
            for k in range(6):
                total += vectors[a, k] * vectors[b, k]
            damping[a, b] = root[a] * total * root[b]
            damping[b, a] = damping[a, b]
    return damping, fastest


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
