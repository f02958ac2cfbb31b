"""Where a frame on the arm's flange is, and how it moves with the joints."""

import mujoco
import numpy as np
from serl_hardware.franka import fr3
from serl_hardware.franka.model import FINGER_JOINTS

from serl_envs.robot import Array
from serl_envs.twins.loop import ARM

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
    link = model.body(FLANGE_LINK).id
    rotation = data.xmat[link].reshape(3, 3)
    flange = transform(rotation, data.xpos[link] + rotation @ fr3().flange_xyz)
    pose: Array = flange @ flange_to_frame
    return pose


def frame_jacobian(model: mujoco.MjModel, data: mujoco.MjData, position: Array) -> Array:
    """Geometric Jacobian of a point on the flange, base frame, linear rows first. Shapes: (3,) -> (6, 7)."""
    both = np.zeros((6, model.nv))
    mujoco.mj_jac(model, data, both[:3], both[3:], position, model.body(FLANGE_LINK).id)
    return both[:, :ARM]


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
        return pose, frame_jacobian(self._model, self._data, pose[:3, 3])
