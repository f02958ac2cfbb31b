"""What the service tells about the arm, out of the control process's record."""

import numpy as np

from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.driver import Array
from serl_servers.franka.hand import Hand
from serl_servers.franka.records import StateRecord
from serl_suite.wire.robot_messages import ArmState

__all__ = ["arm_state"]

SINGULARITY = 1e-9
"""Keeps the wrench bounded where the arm cannot feel all of it."""


def arm_state(link: ControlLink, hand: Hand | None, setpoint: int, controller: str | None) -> ArmState:
    """The published state.

    Args:
        setpoint: The request that the torque reflects.
        controller: Who may move the arm.
    """
    state = link.state
    return ArmState(
        time_s=float(state.time[0]), q=state.q.tolist(), dq=state.dq.tolist(),
        position=state.position.tolist(), quaternion=state.quaternion.tolist(),
        twist=(state.jacobian @ state.dq).tolist(), wrench=_wrench(state).tolist(),
        gripper_width=hand.width if hand is not None else 0.0,
        gripper_target=hand.target if hand is not None else 0.0,
        phase=link.phase.name.lower(), fault=link.fault, detail=link.detail,
        setpoint=setpoint, setpoint_ns=int(state.setpoint_ns[0]),
        tank_fraction=float(state.tank_fraction[0]), gamma=float(state.gamma[0]),
        controller=controller, success_rate=float(state.success_rate[0]),
    )  # fmt: skip


def _wrench(state: StateRecord) -> Array:
    """The wrench at the TCP whose joint torques are nearest to the external ones, weighted by inertia. Shape: (6,)."""
    if not state.mass.any():  # the arm has not been seen yet
        return np.zeros(6)
    weighted = np.linalg.solve(state.mass, state.jacobian.T)
    gram = state.jacobian @ weighted + SINGULARITY * np.eye(6)
    return np.asarray(np.linalg.solve(gram, weighted.T @ state.tau_external), np.float64)
