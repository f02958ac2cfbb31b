"""What the arm is to track: the client's positions or velocities, checked, and continued where a packet is lost."""

import abc

import numpy as np
from serl_hardware.franka import fr3
from serl_hardware.franka.model import TIMESTEP_S
from serl_hardware.franka.urdf import velocity_limits

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import Error, MotionGeneratorMode
from serl_envs.twins.fci.command import Command
from serl_envs.twins.fci.kinematics import Kinematics
from serl_suite.control.rotations import (
    matrix_from_quaternion,
    quaternion_from_matrix,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
)

__all__ = ["Generator", "PlannedJoints", "Reference", "make_generator", "pose_difference"]

JOINT_ACCELERATION, JOINT_JERK = 10.0, 5000.0
"""[rad/s^2], [rad/s^3]"""
LINEAR_VELOCITY, LINEAR_ACCELERATION, LINEAR_JERK = 3.0, 9.0, 4500.0
ANGULAR_VELOCITY, ANGULAR_ACCELERATION, ANGULAR_JERK = 2.5, 17.0, 8500.0
START_TOLERANCE = 1e-3
"""[rad, m]: how far from the arm the first position may be."""
ORTHONORMAL_TOLERANCE = 1e-3
TOLERANCE = 1.05
"""On velocity, acceleration and jerk: positions reach the client rounded to 32 bits, and jerk is their third
difference."""
ELBOW_RATE = 5.0
"""[1/s]: how fast the third joint follows a commanded elbow."""
PINV_DAMPING = 1e-4


class Reference:
    """Joints and end effector as desired: q, dq, ddq (7,), pose (4, 4) and twist (6,), base frame."""

    def __init__(self, q: Array, pose: Array) -> None:
        self.q, self.dq, self.ddq = q.copy(), np.zeros(7), np.zeros(7)
        self.pose, self.twist, self.acceleration = pose.copy(), np.zeros(6), np.zeros(6)


class Generator(abc.ABC):
    """Follows one kind of command.

    Args:
        q: Where the arm is, as the client has read it, (7,).
        kinematics: Of the arm.
        flange_to_tool: F_T_EE, (4, 4).
    """

    def __init__(self, q: Array, kinematics: Kinematics, flange_to_tool: Array) -> None:
        self._kinematics, self._tool = kinematics, flange_to_tool
        self.reference = Reference(q, kinematics.at(q, flange_to_tool)[0])
        self._first = True

    @abc.abstractmethod
    def follow(self, command: Command) -> Error | None:
        """Takes one command; an error leaves the reference where it was."""

    @abc.abstractmethod
    def extrapolate(self) -> None:
        """No command has come: goes on with the last acceleration."""

    def _advance_joints(self, dq: Array, ddq: Array) -> None:
        to = self.reference
        to.q, to.dq, to.ddq = to.q + dq * TIMESTEP_S, dq.copy(), ddq.copy()
        to.pose, jacobian = self._kinematics.at(to.q, self._tool)
        to.twist = jacobian @ dq


class PlannedJoints(Generator):
    """Asynchronous: goes to the last position that was commanded, at any time, by a trajectory of the arm's own.

    Args:
        max_velocity: The client's, (7,) [rad/s].
    """

    def __init__(self, q: Array, kinematics: Kinematics, flange_to_tool: Array, max_velocity: Array) -> None:
        super().__init__(q, kinematics, flange_to_tool)
        self._goal = q
        self._max_velocity = np.minimum(max_velocity, fr3().max_velocity)

    def follow(self, command: Command) -> Error | None:
        arm = fr3()
        if not command.finished:  # a command that ends the motion has no goal
            if not ((command.q >= arm.q_min) & (command.q <= arm.q_max)).all():
                return Error.JOINT_MOTION_GENERATOR_POSITION_LIMITS_VIOLATION
            self._goal = command.q
        self.extrapolate()
        return None

    def extrapolate(self) -> None:
        to = self.reference
        ahead = self._goal - to.q
        # Half of the acceleration is kept for braking late, as a speed that is set once a tick does.
        fastest = np.minimum(np.sqrt(JOINT_ACCELERATION * np.abs(ahead)), np.abs(ahead) / TIMESTEP_S)
        wanted = np.sign(ahead) * np.minimum(fastest, self._max_velocity)
        step = JOINT_ACCELERATION * TIMESTEP_S
        change = np.clip(wanted - to.dq, -step, step)
        self._advance_joints(to.dq + change, change / TIMESTEP_S)


class _Joints(Generator):
    def follow(self, command: Command) -> Error | None:
        was = self.reference
        error, dq = self._velocity(command)
        if error is None:
            error = _joint_error(was, dq)
        if error is None:
            self._advance_joints(dq, (dq - was.dq) / TIMESTEP_S)
            self._first = False
        return error

    def extrapolate(self) -> None:
        if not self._first:
            ddq = self.reference.ddq
            self._advance_joints(self.reference.dq + ddq * TIMESTEP_S, ddq)

    @abc.abstractmethod
    def _velocity(self, command: Command) -> tuple[Error | None, Array]: ...


class _JointPositions(_Joints):
    def _velocity(self, command: Command) -> tuple[Error | None, Array]:
        step = command.q - self.reference.q
        wrong = self._first and not np.abs(step).max() <= START_TOLERANCE
        return Error.JOINT_POSITION_MOTION_GENERATOR_START_POSE_INVALID if wrong else None, step / TIMESTEP_S


class _JointVelocities(_Joints):
    def _velocity(self, command: Command) -> tuple[Error | None, Array]:
        return None, command.dq


class _Cartesian(Generator):
    def __init__(self, q: Array, kinematics: Kinematics, flange_to_tool: Array) -> None:
        super().__init__(q, kinematics, flange_to_tool)
        self._elbow = float(q[2])

    def follow(self, command: Command) -> Error | None:
        was = self.reference
        error, twist = self._twist(command)
        if error is None:
            error = _cartesian_error(was, twist)
        if error is not None:
            return error
        if command.elbow is not None:
            self._elbow = float(command.elbow[0])
        self._advance(twist, (twist - was.twist) / TIMESTEP_S)
        self._first = False
        return self._joint_error()

    def extrapolate(self) -> None:
        if not self._first:
            to = self.reference
            self._advance(to.twist + to.acceleration * TIMESTEP_S, to.acceleration)

    @abc.abstractmethod
    def _twist(self, command: Command) -> tuple[Error | None, Array]: ...

    def _advance(self, twist: Array, acceleration: Array) -> None:
        to = self.reference
        to.pose = _moved(to.pose, twist * TIMESTEP_S)
        to.twist, to.acceleration = twist.copy(), acceleration.copy()
        actual, jacobian = self._kinematics.at(to.q, self._tool)
        pinv = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + PINV_DAMPING**2 * np.eye(6))
        spare = np.zeros(7)
        spare[2] = ELBOW_RATE * (self._elbow - to.q[2])
        dq = pinv @ (pose_difference(actual, to.pose) / TIMESTEP_S) + spare - pinv @ (jacobian @ spare)
        to.ddq = (dq - to.dq) / TIMESTEP_S
        to.q, to.dq = to.q + dq * TIMESTEP_S, dq

    def _joint_error(self) -> Error | None:
        to, arm = self.reference, fr3()
        if not ((to.q >= arm.q_min) & (to.q <= arm.q_max)).all():
            return Error.CARTESIAN_MOTION_GENERATOR_JOINT_POSITION_LIMITS_VIOLATION
        if not _within(to.dq, *velocity_limits(to.q)):
            return Error.CARTESIAN_MOTION_GENERATOR_JOINT_VELOCITY_LIMITS_VIOLATION
        return None


class _CartesianPoses(_Cartesian):
    def _twist(self, command: Command) -> tuple[Error | None, Array]:
        rotation = command.pose[:3, :3]
        off = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if not off <= ORTHONORMAL_TOLERANCE or not (command.pose[3] == (0, 0, 0, 1)).all():
            return Error.CARTESIAN_POSITION_MOTION_GENERATOR_INVALID_FRAME, self.reference.twist
        step = pose_difference(self.reference.pose, command.pose)
        if self._first and not np.abs(step).max() <= START_TOLERANCE:
            return Error.CARTESIAN_POSITION_MOTION_GENERATOR_START_POSE_INVALID, self.reference.twist
        return None, step / TIMESTEP_S


class _CartesianVelocities(_Cartesian):
    def _twist(self, command: Command) -> tuple[Error | None, Array]:
        return None, command.twist


_GENERATORS: dict[MotionGeneratorMode, type[Generator]] = {
    MotionGeneratorMode.JOINT_POSITION: _JointPositions,
    MotionGeneratorMode.JOINT_VELOCITY: _JointVelocities,
    MotionGeneratorMode.CARTESIAN_POSITION: _CartesianPoses,
    MotionGeneratorMode.CARTESIAN_VELOCITY: _CartesianVelocities,
}


def make_generator(
    mode: MotionGeneratorMode, q: Array, kinematics: Kinematics, flange_to_tool: Array
) -> Generator | None:
    """Returns the generator of a mode; None for a motion by torques alone."""
    kind = _GENERATORS.get(mode)
    return None if kind is None else kind(q, kinematics, flange_to_tool)


def _joint_error(was: Reference, dq: Array) -> Error | None:
    """The limit that a step breaks. Every comparison is false for NaN."""
    arm = fr3()
    q = was.q + dq * TIMESTEP_S
    ddq = (dq - was.dq) / TIMESTEP_S
    if not ((q >= arm.q_min) & (q <= arm.q_max)).all():
        return Error.JOINT_MOTION_GENERATOR_POSITION_LIMITS_VIOLATION
    if not _within(dq, *velocity_limits(was.q)):
        return Error.JOINT_MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION
    if not np.abs(ddq).max() <= JOINT_ACCELERATION * TOLERANCE:
        return Error.JOINT_MOTION_GENERATOR_VELOCITY_DISCONTINUITY
    if not np.abs(ddq - was.ddq).max() <= JOINT_JERK * TIMESTEP_S * TOLERANCE:
        return Error.JOINT_MOTION_GENERATOR_ACCELERATION_DISCONTINUITY
    return None


def _cartesian_error(was: Reference, twist: Array) -> Error | None:
    acceleration = (twist - was.twist) / TIMESTEP_S
    jerk = (acceleration - was.acceleration) / TIMESTEP_S
    for values, linear, angular, error in (
        (twist, LINEAR_VELOCITY, ANGULAR_VELOCITY, Error.CARTESIAN_MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION),
        (
            acceleration, LINEAR_ACCELERATION, ANGULAR_ACCELERATION,
            Error.CARTESIAN_MOTION_GENERATOR_VELOCITY_DISCONTINUITY,
        ),
        (jerk, LINEAR_JERK, ANGULAR_JERK, Error.CARTESIAN_MOTION_GENERATOR_ACCELERATION_DISCONTINUITY),
    ):  # fmt: skip
        if not (
            np.linalg.norm(values[:3]) <= linear * TOLERANCE
            and np.linalg.norm(values[3:]) <= angular * TOLERANCE
        ):
            return error
    return None


def _within(values: Array, lower: Array, upper: Array) -> bool:
    slack = 1e-3
    return bool(((values >= lower - slack) & (values <= upper + slack)).all())


def pose_difference(start: Array, end: Array) -> Array:
    """From one pose to another: translation and rotation vector, base frame. Shapes: (4, 4), (4, 4) -> (6,)."""
    turn = np.ascontiguousarray(end[:3, :3] @ start[:3, :3].T)
    return np.concatenate(
        [end[:3, 3] - start[:3, 3], rotation_vector_from_quaternion(quaternion_from_matrix(turn))]
    )


def _moved(pose: Array, step: Array) -> Array:
    out = pose.copy()
    out[:3, 3] += step[:3]
    out[:3, :3] = matrix_from_quaternion(quaternion_from_rotation_vector(step[3:].copy())) @ pose[:3, :3]
    return out
