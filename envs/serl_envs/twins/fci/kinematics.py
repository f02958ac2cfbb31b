"""Where a frame on the arm's flange is, and how it moves with the joints."""

import mujoco
import numpy as np
from serl_hardware.franka import fr3
from serl_hardware.franka.model import FINGER_JOINTS

from serl_envs.robot import Array
from serl_envs.twins.loop import ARM
from serl_suite.control.compiled import compiled

__all__ = ["Kinematics", "frame_jacobian", "frame_pose", "from_wire", "to_wire", "tool_inertia", "transform"]

FLANGE_LINK = "link7"
TOOL_BODIES = ("hand", *FINGER_JOINTS)


def transform(rotation: Array, position: Array) -> Array:
    """A homogeneous transform. Shapes: (3, 3), (3,) -> (4, 4)."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation, position
    return out


def from_wire(column_major: Array) -> Array:
    """Shapes: (16,) -> (4, 4)."""
    return np.asarray(column_major, np.float64).reshape(4, 4).T.copy()


def to_wire(matrix: Array) -> Array:
    """Shapes: (4, 4) -> (16,)."""
    return matrix.T.ravel()


def frame_pose(model: mujoco.MjModel, data: mujoco.MjData, flange_to_frame: Array) -> Array:
    """Pose in the base frame of a frame fixed to the flange; needs the kinematics computed. Shape: (4, 4)."""
    link = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, FLANGE_LINK)
    return _frame_pose(data.xpos[link], data.xmat[link], fr3().flange_xyz, flange_to_frame)


def frame_jacobian(data: mujoco.MjData, position: Array) -> Array:
    """Geometric Jacobian of a point on the flange, base frame, linear rows first. Shapes: (3,) -> (6, 7)."""
    return _jacobian(data.xanchor[:ARM], data.xaxis[:ARM], position)


@compiled
def _frame_pose(link: Array, turn: Array, offset: Array, frame: Array) -> Array:
    """Shapes: (3,), (9,), (3,), (4, 4) -> (4, 4)."""
    out = np.zeros((4, 4))
    for i in range(3):
        a, b, c = turn[3 * i], turn[3 * i + 1], turn[3 * i + 2]
        for j in range(4):
            out[i, j] = a * frame[0, j] + b * frame[1, j] + c * frame[2, j]
        out[i, 3] += link[i] + a * offset[0] + b * offset[1] + c * offset[2]
    out[3, 3] = 1.0
    return out


@compiled
def _jacobian(anchors: Array, axes: Array, position: Array) -> Array:
    """Columns [z x (p - o), z]. Shapes: (7, 3), (7, 3), (3,) -> (6, 7)."""
    out = np.empty((6, anchors.shape[0]))
    for j in range(anchors.shape[0]):
        z0, z1, z2 = axes[j, 0], axes[j, 1], axes[j, 2]
        x, y, z = position[0] - anchors[j, 0], position[1] - anchors[j, 1], position[2] - anchors[j, 2]
        out[0, j], out[1, j], out[2, j] = z1 * z - z2 * y, z2 * x - z0 * z, z0 * y - z1 * x
        out[3, j], out[4, j], out[5, j] = z0, z1, z2
    return out


def tool_inertia(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, Array, Array]:
    """Hand and fingers as one body, at the opening that they have.

    Returns:
        Mass [kg], centre of mass in the flange's frame [m], (3,), and inertia about it [kg m^2], (3, 3).
    """
    flange = frame_pose(model, data, np.eye(4))
    turn = flange[:3, :3].T
    bodies = [model.body(name).id for name in TOOL_BODIES]
    masses = model.body_mass[bodies]
    coms = (data.xipos[bodies] - flange[:3, 3]) @ turn.T
    com = masses @ coms / masses.sum()
    inertia = np.zeros((3, 3))
    for body, mass, arm in zip(bodies, masses, coms - com, strict=True):
        axes = turn @ data.ximat[body].reshape(3, 3)
        inertia += axes @ np.diag(model.body_inertia[body]) @ axes.T
        inertia += mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return float(masses.sum()), com, inertia


class Kinematics:
    """The arm's kinematics at any joint position, apart from where the simulated arm is."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model, self._data = model, mujoco.MjData(model)

    def at(self, q: Array, flange_to_frame: Array) -> tuple[Array, Array]:
        """Returns pose (4, 4) and Jacobian (6, 7) of a frame fixed to the flange."""
        self._data.qpos[:ARM] = q
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        pose = frame_pose(self._model, self._data, flange_to_frame)
        return pose, frame_jacobian(self._data, pose[:3, 3])
