"""What the arm and its clients say to each other: commands over TCP 1337, state and command over UDP at 1 kHz.

Every structure is packed and little-endian; matrices are column-major.
"""

import enum
import struct

import numpy as np

__all__ = [
    "COMMAND", "CONNECT", "CONNECT_REPLY", "HEADER", "MOVE", "PAYLOAD_BYTES", "PORT", "STATE", "VERSION", "ArmCommand",
    "ControllerMode", "Error", "MotionGeneratorMode", "MoveStatus", "RobotMode", "Status",
]  # fmt: skip

PORT = 1337
VERSION = 10

HEADER = struct.Struct("<III")
"""Command, command id, size in bytes; the size counts the header."""
CONNECT = struct.Struct("<HH")
"""Version, the client's UDP port."""
CONNECT_REPLY = struct.Struct("<BH")
"""Status (0 ok, 1 incompatible version), version."""
MOVE = struct.Struct("<II6d?7d")
"""Controller mode, motion generator mode, limits of the deviation on the path and at the goal (each translation [m],
rotation and elbow [rad]), asynchronous, maximum velocities."""


class ArmCommand(enum.IntEnum):
    """What a client may ask over TCP."""

    CONNECT = 0
    MOVE = 1
    STOP_MOVE = 2
    SET_COLLISION_BEHAVIOR = 3
    SET_JOINT_IMPEDANCE = 4
    SET_CARTESIAN_IMPEDANCE = 5
    SET_GUIDING_MODE = 6
    SET_EE_TO_K = 7
    SET_NE_TO_EE = 8
    SET_LOAD = 9
    AUTOMATIC_ERROR_RECOVERY = 10
    GET_ROBOT_MODEL = 11


PAYLOAD_BYTES = {
    ArmCommand.CONNECT: CONNECT.size,
    ArmCommand.MOVE: MOVE.size,
    ArmCommand.STOP_MOVE: 0,
    ArmCommand.SET_COLLISION_BEHAVIOR: 416,
    ArmCommand.SET_JOINT_IMPEDANCE: 56,
    ArmCommand.SET_CARTESIAN_IMPEDANCE: 48,
    ArmCommand.SET_GUIDING_MODE: 7,
    ArmCommand.SET_EE_TO_K: 128,
    ArmCommand.SET_NE_TO_EE: 128,
    ArmCommand.SET_LOAD: 104,
    ArmCommand.AUTOMATIC_ERROR_RECOVERY: 0,
    ArmCommand.GET_ROBOT_MODEL: 0,
}


class Status(enum.IntEnum):
    """Replies to every command but Connect and Move."""

    SUCCESS = 0
    NOT_POSSIBLE = 1
    INVALID_ARGUMENT = 2
    SAFETY_FUNCTION = 3


class MoveStatus(enum.IntEnum):
    """Replies to Move: STARTED at once, and any other when the motion ends or is refused."""

    SUCCESS = 0
    STARTED = 1
    PREEMPTED = 2
    PREEMPTED_BY_SAFETY_FUNCTION = 3
    REFUSED_BY_SAFETY_FUNCTION = 4
    NOT_POSSIBLE = 5
    INVALID_ARGUMENT = 7
    ABORTED_BY_REFLEX = 8
    ABORTED = 11


class RobotMode(enum.IntEnum):
    """`robot_mode` of the state."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5
    AUTOMATIC_ERROR_RECOVERY = 6


class MotionGeneratorMode(enum.IntEnum):
    """`motion_generator_mode` of the state; Move says one less."""

    IDLE = 0
    JOINT_POSITION = 1
    JOINT_VELOCITY = 2
    CARTESIAN_POSITION = 3
    CARTESIAN_VELOCITY = 4
    NONE = 5


class ControllerMode(enum.IntEnum):
    """`controller_mode` of state and Move."""

    JOINT_IMPEDANCE = 0
    CARTESIAN_IMPEDANCE = 1
    EXTERNAL = 2
    OTHER = 3


class Error(enum.IntEnum):
    """Indices into `errors` and `reflex_reason`, as the clients name them."""

    JOINT_POSITION_LIMITS_VIOLATION = 0
    JOINT_VELOCITY_VIOLATION = 3
    JOINT_REFLEX = 6
    CARTESIAN_REFLEX = 7
    MAX_GOAL_POSE_DEVIATION_VIOLATION = 8
    MAX_PATH_POSE_DEVIATION_VIOLATION = 9
    JOINT_POSITION_MOTION_GENERATOR_START_POSE_INVALID = 11
    JOINT_MOTION_GENERATOR_POSITION_LIMITS_VIOLATION = 12
    JOINT_MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION = 13
    JOINT_MOTION_GENERATOR_VELOCITY_DISCONTINUITY = 14
    JOINT_MOTION_GENERATOR_ACCELERATION_DISCONTINUITY = 15
    CARTESIAN_POSITION_MOTION_GENERATOR_START_POSE_INVALID = 16
    CARTESIAN_MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION = 18
    CARTESIAN_MOTION_GENERATOR_VELOCITY_DISCONTINUITY = 19
    CARTESIAN_MOTION_GENERATOR_ACCELERATION_DISCONTINUITY = 20
    COMMUNICATION_CONSTRAINTS_VIOLATION = 25
    CARTESIAN_MOTION_GENERATOR_JOINT_POSITION_LIMITS_VIOLATION = 27
    CARTESIAN_MOTION_GENERATOR_JOINT_VELOCITY_LIMITS_VIOLATION = 28
    CARTESIAN_POSITION_MOTION_GENERATOR_INVALID_FRAME = 31
    CONTROLLER_TORQUE_DISCONTINUITY = 32


_FLOATS = [
    ("O_T_EE", 16), ("O_T_EE_d", 16), ("F_T_EE", 16), ("EE_T_K", 16), ("F_T_NE", 16), ("NE_T_EE", 16),
    ("m_ee", 1), ("I_ee", 9), ("F_x_Cee", 3), ("m_load", 1), ("I_load", 9), ("F_x_Cload", 3),
    ("elbow", 2), ("elbow_d", 2), ("tau_J", 7), ("tau_J_d", 7), ("dtau_J", 7), ("q", 7), ("q_d", 7), ("dq", 7),
    ("dq_d", 7), ("ddq_d", 7), ("joint_contact", 7), ("cartesian_contact", 6), ("joint_collision", 7),
    ("cartesian_collision", 6), ("tau_ext_hat_filtered", 7), ("O_F_ext_hat_K", 6), ("K_F_ext_hat_K", 6),
    ("O_dP_EE_d", 6), ("O_ddP_O", 3), ("elbow_c", 2), ("delbow_c", 2), ("ddelbow_c", 2), ("O_T_EE_c", 16),
    ("O_dP_EE_c", 6), ("O_ddP_EE_c", 6), ("theta", 7), ("dtheta", 7), ("accel_top", 18), ("accel_bottom", 18),
]  # fmt: skip

STATE = np.dtype(
    [
        ("message_id", "<u8"),
        *((name, "<f4", (count,)) for name, count in _FLOATS),
        ("motion_generator_mode", "u1"),
        ("controller_mode", "u1"),
        ("errors", "?", (41,)),
        ("reflex_reason", "?", (41,)),
        ("robot_mode", "u1"),
        ("control_command_success_rate", "<f4"),
    ]
)
"""The arm's state: 1377 bytes; `message_id` is its clock in milliseconds."""

COMMAND = np.dtype(
    [
        ("message_id", "<u8"),
        ("q_c", "<f8", (7,)),
        ("dq_c", "<f8", (7,)),
        ("O_T_EE_c", "<f8", (16,)),
        ("O_dP_EE_c", "<f8", (6,)),
        ("elbow_c", "<f8", (2,)),
        ("valid_elbow", "u1"),
        ("motion_generation_finished", "u1"),
        ("tau_J_d", "<f8", (7,)),
        ("torque_command_finished", "u1"),
    ]
)
"""A client's command: 371 bytes; `message_id` is that of the state it answers."""
