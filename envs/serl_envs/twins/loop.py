"""The twin's control periods as one compiled call: MuJoCo's C functions and the control tick, without Python between.

A Python loop over the bindings spends most of its time between the ticks. Here MuJoCo is called by its C symbols, and
its state is read and written through numpy views of the same memory, so that the robot's tick runs as it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import llvmlite.binding
import mujoco
import numpy as np
from numba import types

from serl_envs.robot import Array
from serl_suite.control.compiled import compiled
from serl_suite.control.parameters import Parameters
from serl_suite.control.state import State
from serl_suite.control.tick import tick

__all__ = ["GripperDrive", "Views", "run_ticks"]

# The symbols resolve when the compiled (or cached) code is linked, so the library is loaded before that.
llvmlite.binding.load_library_permanently(str(next(Path(mujoco.__file__).parent.glob("libmujoco*"))))
_Step = Callable[[int, int], None]
_SIGNATURE = types.void(types.intp, types.intp)  # (mjModel*, mjData*)
_mj_step1 = cast(_Step, types.ExternalFunction("mj_step1", _SIGNATURE))
_mj_step2 = cast(_Step, types.ExternalFunction("mj_step2", _SIGNATURE))

ARM = 7
"""The arm's joints are the first degrees of freedom and the first actuators of every scene."""


class Views(NamedTuple):
    """MuJoCo's memory as arrays, and the twin's own buffers that live as long."""

    qpos: Array
    qvel: Array
    ctrl: Array
    inertia: Array
    """Packed lower triangle; the arm is a chain, so row i holds columns 0 .. i from `inertia_row[i]` on."""
    inertia_row: np.ndarray
    joint_anchor: Array
    joint_axis: Array
    tcp_position: Array
    hand_quaternion: Array
    """wxyz, MuJoCo's order; the TCP has the hand's orientation."""
    tau_constraint: Array
    """Joint torques from contacts, joint friction and limits."""
    tau: Array
    """The torque applied in the last tick (what an arm echoes)."""
    tau_external: Array
    """Low-pass filtered external joint torques."""


class GripperDrive(NamedTuple):
    """The hand's own controller, once a tick: the opening's reference runs at the hand's speed, and never further from
    the measured opening than gives the grasping force."""

    step_m: float
    """Change of opening a tick."""
    reach_m: float
    """Grasping force over servo stiffness."""


EXTERNAL_TORQUE_FILTER = 0.05
"""Per tick: a time constant of 20 ms, the bandwidth of a momentum observer."""


@compiled
def _read_jacobian(views: Views, jacobian: Array) -> None:
    """Geometric Jacobian at the TCP, base frame: columns [z x (p - o), z]. Shape: (6, 7)."""
    p = views.tcp_position
    for j in range(ARM):
        z, o = views.joint_axis[j], views.joint_anchor[j]
        x, y, w = p[0] - o[0], p[1] - o[1], p[2] - o[2]
        jacobian[0, j] = z[1] * w - z[2] * y
        jacobian[1, j] = z[2] * x - z[0] * w
        jacobian[2, j] = z[0] * y - z[1] * x
        jacobian[3, j], jacobian[4, j], jacobian[5, j] = z[0], z[1], z[2]


@compiled
def _read_mass(views: Views, mass: Array) -> None:
    for i in range(ARM):
        start = views.inertia_row[i]
        for j in range(i + 1):
            mass[i, j] = mass[j, i] = views.inertia[start + j]


@compiled
def _drive_gripper(views: Views, drive: GripperDrive, target_width: float) -> None:
    width = views.qpos[ARM] + views.qpos[ARM + 1]
    reference = views.ctrl[ARM]
    reference += min(max(target_width - reference, -drive.step_m), drive.step_m)
    views.ctrl[ARM] = min(max(reference, width - drive.reach_m), width + drive.reach_m)


@compiled
def run_ticks(
    model: int,
    data: int,
    ticks: int,
    dt_s: float,
    views: Views,
    parameters: Parameters,
    state: State,
    drive: GripperDrive,
    target_position: Array,
    target_quaternion: Array,
    target_width: float,
) -> int:
    """Runs control and physics for a number of ticks, and returns the tick's status, 0 if all went well.

    Between calls MuJoCo's state has its position and velocity stages computed (`mj_step1` done), so that what is
    observed after the last tick belongs to one instant.

    Args:
        model: Address of the mjModel.
        data: Address of the mjData.
    """
    jacobian, mass = np.empty((6, ARM)), np.empty((ARM, ARM))
    tau, quaternion = np.zeros(ARM), np.empty(4)
    q, dq = views.qpos[:ARM], views.qvel[:ARM]
    for k in range(ticks):
        _read_jacobian(views, jacobian)
        _read_mass(views, mass)
        quaternion[:3], quaternion[3] = views.hand_quaternion[1:], views.hand_quaternion[0]
        status = tick(
            parameters, state, q, dq, views.tcp_position, quaternion, jacobian, mass, views.tau,
            target_position, target_quaternion, k * dt_s, tau,
        )  # fmt: skip
        if status != 0:
            return status
        for i in range(ARM):
            views.ctrl[i] = views.tau[i] = tau[i]
        _drive_gripper(views, drive, target_width)
        _mj_step2(model, data)
        for i in range(ARM):
            views.tau_external[i] += EXTERNAL_TORQUE_FILTER * (
                views.tau_constraint[i] - views.tau_external[i]
            )
        _mj_step1(model, data)
    return 0
