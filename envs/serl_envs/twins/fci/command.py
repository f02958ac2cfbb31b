"""A client's command for one millisecond, decoded."""

from typing import NamedTuple

import numpy as np

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import COMMAND

__all__ = ["Command", "decode_command"]


class Command(NamedTuple):
    """What of it counts depends on the motion's modes."""

    message_id: int
    """Of the state that it answers."""
    q: Array
    dq: Array
    pose: Array
    """O_T_EE, (4, 4)."""
    twist: Array
    """O_dP_EE, (6,)."""
    elbow: Array | None
    """(2,); None where the client leaves the elbow to the arm."""
    tau: Array
    """Without gravity, (7,)."""
    finished: bool
    """Ends the motion."""


def decode_command(packet: bytes) -> Command | None:
    """Returns the command in a datagram; None for a datagram of another size."""
    if len(packet) != COMMAND.itemsize:
        return None
    fields = np.frombuffer(packet, COMMAND)[0]
    return Command(
        message_id=int(fields["message_id"]),
        q=fields["q_c"].copy(),
        dq=fields["dq_c"].copy(),
        pose=fields["O_T_EE_c"].reshape(4, 4).T.copy(),
        twist=fields["O_dP_EE_c"].copy(),
        elbow=fields["elbow_c"].copy() if fields["valid_elbow"] else None,
        tau=fields["tau_J_d"].copy(),
        finished=bool(fields["motion_generation_finished"] or fields["torque_command_finished"]),
    )
