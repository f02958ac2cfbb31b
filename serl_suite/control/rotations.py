"""Rotations and poses, compiled; callable from Python as well.

Conventions, said once for the whole project: quaternions are unit quaternions in the order x, y, z, w; q and
-q are the same rotation, and every function here treats them alike. Rotation vectors are axis times angle
[rad], |vector| <= pi. A rotation with index `base_tcp` takes coordinates in the TCP frame to coordinates in
the base frame. Twists and wrenches are linear part first, then angular. Arrays are float64; results are new
arrays.
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled

__all__ = [
    "adjoint",
    "compose_delta",
    "delta_between",
    "matrix_from_quaternion",
    "quaternion_from_matrix",
    "quaternion_from_rotation_vector",
    "quaternion_from_rpy",
    "quaternion_inverse",
    "quaternion_multiply",
    "quaternion_normalized",
    "rotate",
    "rotation_difference",
    "rotation_vector_from_quaternion",
    "rpy_from_quaternion",
    "slerp",
]


@compiled
def quaternion_normalized(quaternion: Array) -> Array:
    """The quaternion divided by its norm; all NaN for norm zero. Shape: (4,) -> (4,)."""
    x, y, z, w = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    return quaternion / math.sqrt(x * x + y * y + z * z + w * w)


@compiled
def quaternion_multiply(a: Array, b: Array) -> Array:
    """The rotation `b` followed by `a` (R_a R_b). Shapes: (4,), (4,) -> (4,)."""
    out = np.empty(4)
    out[0] = a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1]
    out[1] = a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0]
    out[2] = a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3]
    out[3] = a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2]
    return out


@compiled
def quaternion_inverse(quaternion: Array) -> Array:
    """The inverse rotation of a unit quaternion. Shape: (4,) -> (4,)."""
    out = np.empty(4)
    out[0], out[1], out[2], out[3] = -quaternion[0], -quaternion[1], -quaternion[2], quaternion[3]
    return out


@compiled
def rotate(quaternion: Array, vector: Array) -> Array:
    """The vector turned by the rotation. Shapes: (4,), (3,) -> (3,)."""
    x, y, z, w = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    tx = 2.0 * (y * vector[2] - z * vector[1])
    ty = 2.0 * (z * vector[0] - x * vector[2])
    tz = 2.0 * (x * vector[1] - y * vector[0])
    out = np.empty(3)
    out[0] = vector[0] + w * tx + y * tz - z * ty
    out[1] = vector[1] + w * ty + z * tx - x * tz
    out[2] = vector[2] + w * tz + x * ty - y * tx
    return out


@compiled
def quaternion_from_rotation_vector(vector: Array) -> Array:
    """SO(3) exponential. Shape: (3,) [rad, any length] -> (4,)."""
    angle = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    scale = math.sin(0.5 * angle) / angle if angle > 1e-12 else 0.5
    out = np.empty(4)
    out[0], out[1], out[2] = scale * vector[0], scale * vector[1], scale * vector[2]
    out[3] = math.cos(0.5 * angle)
    return out


@compiled
def rotation_vector_from_quaternion(quaternion: Array) -> Array:
    """SO(3) logarithm, of the shorter way round. Shape: (4,) -> (3,) [rad], of length at most pi.

    From atan2 of the vector part and the scalar part, so accurate at zero and at pi alike, where the arc
    cosine of either part alone is not.
    """
    x, y, z, w = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    sign = -1.0 if w < 0.0 else 1.0
    sine = math.sqrt(x * x + y * y + z * z)
    scale = sign * (2.0 * math.atan2(sine, sign * w) / sine if sine > 1e-12 else 2.0)
    out = np.empty(3)
    out[0], out[1], out[2] = scale * x, scale * y, scale * z
    return out


@compiled
def rotation_difference(quaternion: Array, reference: Array) -> Array:
    """The rotation vector, in the base frame, that turns `reference` into `quaternion`: log(R R_ref^T).

    Shapes: (4,), (4,) -> (3,) [rad].
    """
    return rotation_vector_from_quaternion(quaternion_multiply(quaternion, quaternion_inverse(reference)))


@compiled
def slerp(start: Array, end: Array, fraction: float) -> Array:
    """The rotation at `fraction` of the shorter way from start to end. Shapes: (4,), (4,) -> (4,)."""
    return quaternion_multiply(
        quaternion_from_rotation_vector(fraction * rotation_difference(end, start)), start
    )


@compiled
def matrix_from_quaternion(quaternion: Array) -> Array:
    """The rotation matrix of a unit quaternion. Shape: (4,) -> (3, 3)."""
    x, y, z, w = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    out = np.empty((3, 3))
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)
    return out


@compiled
def quaternion_from_matrix(matrix: Array) -> Array:
    """The unit quaternion (w >= 0) of a rotation matrix. Shape: (3, 3) -> (4,).

    Starts from the largest of the four components (Shepperd 1978), so that nothing small is divided by.
    """
    trace = matrix[0, 0] + matrix[1, 1] + matrix[2, 2]
    out = np.empty(4)
    largest, value = 3, trace
    for i in range(3):
        if matrix[i, i] > value:
            largest, value = i, matrix[i, i]
    if largest == 3:
        out[0] = matrix[2, 1] - matrix[1, 2]
        out[1] = matrix[0, 2] - matrix[2, 0]
        out[2] = matrix[1, 0] - matrix[0, 1]
        out[3] = 1.0 + trace
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        out[i] = 1.0 + 2.0 * matrix[i, i] - trace
        out[j] = matrix[j, i] + matrix[i, j]
        out[k] = matrix[k, i] + matrix[i, k]
        out[3] = matrix[k, j] - matrix[j, k]
    return quaternion_normalized(out if out[3] >= 0.0 else -out)


@compiled
def quaternion_from_rpy(rpy: Array) -> Array:
    """The rotation Rz(yaw) Ry(pitch) Rx(roll), as robot descriptions mean it. Shape: (3,) [rad] -> (4,)."""
    cr, sr = math.cos(0.5 * rpy[0]), math.sin(0.5 * rpy[0])
    cp, sp = math.cos(0.5 * rpy[1]), math.sin(0.5 * rpy[1])
    cy, sy = math.cos(0.5 * rpy[2]), math.sin(0.5 * rpy[2])
    out = np.empty(4)
    out[0] = sr * cp * cy - cr * sp * sy
    out[1] = cr * sp * cy + sr * cp * sy
    out[2] = cr * cp * sy - sr * sp * cy
    out[3] = cr * cp * cy + sr * sp * sy
    return out


@compiled
def rpy_from_quaternion(quaternion: Array) -> Array:
    """Roll, pitch and yaw of Rz(yaw) Ry(pitch) Rx(roll), for display. Shape: (4,) -> (3,) [rad].

    Within 1e-7 of pitch +-pi/2 only the sum or difference of roll and yaw is defined: roll is then 0.
    """
    m = matrix_from_quaternion(quaternion)
    level = math.sqrt(m[0, 0] ** 2 + m[1, 0] ** 2)
    out = np.empty(3)
    out[1] = math.atan2(-m[2, 0], level)
    if level > 1e-7:
        out[0] = math.atan2(m[2, 1], m[2, 2])
        out[2] = math.atan2(m[1, 0], m[0, 0])
    else:
        out[0] = 0.0
        out[2] = math.atan2(-m[0, 1], m[1, 1])
    return out


@compiled
def compose_delta(
    position: Array, quaternion: Array, translation: Array, rotation: Array
) -> tuple[Array, Array]:
    """The pose moved by a translation [m] and a rotation vector [rad], both given in its own (tool) frame.

    Shapes: (3,), (4,), (3,), (3,) -> (3,), (4,). The quaternion is normalised, so that thousands of small
    deltas do not drift.
    """
    turned = quaternion_multiply(quaternion, quaternion_from_rotation_vector(rotation))
    return position + rotate(quaternion, translation), quaternion_normalized(turned)


@compiled
def delta_between(
    position: Array, quaternion: Array, goal_position: Array, goal_quaternion: Array
) -> tuple[Array, Array]:
    """The translation and rotation vector, in the tool frame, with which `compose_delta` reaches the goal.

    Shapes: (3,), (4,), (3,), (4,) -> (3,) [m], (3,) [rad].
    """
    inverse = quaternion_inverse(quaternion)
    rotation = rotation_vector_from_quaternion(quaternion_multiply(inverse, goal_quaternion))
    return rotate(inverse, goal_position - position), rotation


@compiled
def adjoint(position: Array, quaternion: Array) -> Array:
    """The (6, 6) matrix that takes a twist in frame b to frame a, for the pose T_a_b of b in a.

    Block order is linear first: [v_a; w_a] = [[R, [p]x R], [0, R]] [v_b; w_b], where v is the velocity of the
    body point at the frame's origin. (A velocity of the same point merely seen from another frame turns by R
    alone.) Wrenches go
    the other way: F_b = adjoint(T_a_b)^T F_a.
    """
    rotation = matrix_from_quaternion(quaternion)
    x, y, z = position[0], position[1], position[2]
    out = np.zeros((6, 6))
    for j in range(3):
        for i in range(3):
            out[i, j] = rotation[i, j]
            out[3 + i, 3 + j] = rotation[i, j]
        out[0, 3 + j] = y * rotation[2, j] - z * rotation[1, j]
        out[1, 3 + j] = z * rotation[0, j] - x * rotation[2, j]
        out[2, 3 + j] = x * rotation[1, j] - y * rotation[0, j]
    return out
