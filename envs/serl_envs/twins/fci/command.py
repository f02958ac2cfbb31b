"""A client's command for one millisecond, decoded."""

import struct
from typing import NamedTuple

import numpy as np

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import COMMAND

__all__ = ["Command", "decode_command"]

_COMMAND = struct.Struct("<Q304sBB56sB")
"""`COMMAND`, a run of numbers at once: this is done a thousand times a second."""
assert _COMMAND.size == COMMAND.itemsize


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
    number, values, valid_elbow, generated, torques, applied = _COMMAND.unpack(packet)
    wanted = np.frombuffer(values).copy()
    return Command(
        message_id=number, q=wanted[:7], dq=wanted[7:14], pose=wanted[14:30].reshape(4, 4).T.copy(),
        twist=wanted[30:36], elbow=wanted[36:38] if valid_elbow else None, tau=np.frombuffer(torques).copy(),
        finished=bool(generated or applied),
    )  # fmt: skip
