"""The seam between tasks and whatever moves: to an env, the in-process twin and a robot server look the same."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serl_suite.errors import SerlError

__all__ = ["Array", "Robot", "RobotFault", "RobotState", "Setpoint"]

Array = npt.NDArray[np.float64]


class RobotFault(SerlError):
    """The robot refused or latched a fault; only `recover` clears one."""


class RobotState(NamedTuple):
    """One measurement. Quaternions xyzw; base frame unless the name says otherwise; linear before angular."""

    time_s: float
    """Robot time."""
    q: Array
    """Joint positions [rad], (7,)."""
    dq: Array
    """Joint velocities [rad/s], (7,)."""
    position: Array
    """TCP position [m], (3,)."""
    quaternion: Array
    """TCP orientation, (4,)."""
    twist: Array
    """TCP twist [m/s, rad/s], (6,)."""
    wrench: Array
    """External wrench that acts on the TCP [N, N m], estimated from the external joint torques, (6,)."""
    gripper_width: float
    """Opening between the fingers [m]."""
    gripper_target: float
    """The opening last commanded [m]."""
    fault: str | None = None
    """The latched fault's name."""
    is_blind: bool = False
    """A camera's picture is not of now, and nothing is to be learned from it."""


class Setpoint(NamedTuple):
    """What the robot tracks: a TCP pose in the base frame and a gripper opening [m]."""

    position: Array
    quaternion: Array
    gripper_width: float


class Robot(Protocol):
    """An arm with a gripper under Cartesian impedance control: 1 kHz inside, commanded at a task's rate."""

    def observe(self) -> RobotState:
        """Returns the newest measurement."""

    def command(self, setpoint: Setpoint, period_s: float) -> None:
        """Tracks the setpoint, and returns once `period_s` of robot time have passed.

        The gripper starts to move and is not waited for. A fault on the way stops the motion, is latched and shows in
        the next observation.

        Raises:
            RobotFault: A fault is latched already, or the setpoint is not finite; nothing moves.
        """

    def reset(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        """Brings the TCP to rest at the pose and the gripper to the opening.

        Raises:
            RobotFault: The pose is out of reach or was not reached.
        """

    def recover(self, reason: str) -> None:
        """Clears a latched fault; the reason is logged."""

    def stop(self) -> None:
        """Ends the motion and lets go of the robot; twice is once."""
