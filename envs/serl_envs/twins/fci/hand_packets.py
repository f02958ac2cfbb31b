"""What the Franka Hand and its clients say to each other: commands over TCP 1338, state over UDP."""

import enum
import struct

__all__ = [
    "CONNECT", "CONNECT_REPLY", "GRASP", "HEADER", "MOVE", "PAYLOAD_BYTES", "PORT", "REPLY", "STATE", "VERSION",
    "HandCommand", "HandStatus",
]  # fmt: skip

PORT = 1338
VERSION = 3

HEADER = struct.Struct("<HII")
"""Command, command id, size in bytes; the size counts the header."""
CONNECT = struct.Struct("<HH")
"""Version, the client's UDP port."""
CONNECT_REPLY = struct.Struct("<HH")
"""Status (0 ok, 1 incompatible version), version."""
GRASP = struct.Struct("<5d")
"""Width [m], inner and outer tolerance [m], speed [m/s], force [N]."""
MOVE = struct.Struct("<2d")
"""Width [m], speed [m/s]."""
REPLY = struct.Struct("<H")
STATE = struct.Struct("<Idd?H")
"""Message id, width [m], greatest width [m], whether something is grasped, temperature [deg C]: 23 bytes."""


class HandCommand(enum.IntEnum):
    """What a client may ask."""

    CONNECT = 0
    HOMING = 1
    GRASP = 2
    MOVE = 3
    STOP = 4


PAYLOAD_BYTES = {
    HandCommand.CONNECT: CONNECT.size,
    HandCommand.HOMING: 0,
    HandCommand.GRASP: GRASP.size,
    HandCommand.MOVE: MOVE.size,
    HandCommand.STOP: 0,
}


class HandStatus(enum.IntEnum):
    """Replies; a command that moves the fingers is answered when they have stopped."""

    SUCCESS = 0
    FAIL = 1
    UNSUCCESSFUL = 2
    ABORTED = 3
