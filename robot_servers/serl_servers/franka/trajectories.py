"""Motions as functions of time: minimum jerk between poses and joint positions, and ruckig where it is installed."""

from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from serl_hardware.franka import fr3

from serl_servers.franka.driver import Array
from serl_suite.control.rotations import rotation_difference, slerp

__all__ = ["JointPath", "PosePath", "PoseSegment", "make_joint_path", "minimum_jerk"]

LINEAR_SPEED = 0.25
ANGULAR_SPEED = 1.0
"""Greatest speeds of a reset [m/s, rad/s]."""
JOINT_SPEED_FRACTION = 0.25
JOINT_ACCELERATION = 2.5
JOINT_JERK = 25.0
"""[rad/s^2, rad/s^3]: a quarter of the interface's limits and far less."""
PEAK = 1.875
"""Greatest speed of a minimum-jerk motion over its mean."""


def minimum_jerk(fraction: float) -> float:
    """10 s^3 - 15 s^4 + 6 s^5: from 0 to 1 in a time of 1, at rest at both ends."""
    s = min(max(fraction, 0.0), 1.0)
    return s * s * s * (10.0 + s * (6.0 * s - 15.0))


class PoseSegment(NamedTuple):
    """From pose to pose: a straight line, and the shortest turn about one axis."""

    start: tuple[Array, Array]
    end: tuple[Array, Array]

    @property
    def duration_s(self) -> float:
        way = float(np.linalg.norm(self.end[0] - self.start[0]))
        turn = float(np.linalg.norm(rotation_difference(self.end[1], self.start[1])))
        return PEAK * max(way / LINEAR_SPEED, turn / ANGULAR_SPEED)

    def at(self, time_s: float) -> tuple[Array, Array]:
        duration = self.duration_s
        s = minimum_jerk(time_s / duration) if duration > 0.0 else 1.0
        (p0, q0), (p1, q1) = self.start, self.end
        return p0 + s * (p1 - p0), slerp(q0, q1, s)


class PosePath:
    """Through poses, at rest in each.

    Args:
        poses: Positions and quaternions, at least one.
    """

    def __init__(self, poses: list[tuple[Array, Array]]) -> None:
        self._segments = [PoseSegment(a, b) for a, b in pairwise(poses)]
        self._end = poses[-1]
        self.duration_s = sum(segment.duration_s for segment in self._segments)

    def at(self, time_s: float) -> tuple[Array, Array]:
        for segment in self._segments:
            if time_s < segment.duration_s:
                return segment.at(time_s)
            time_s -= segment.duration_s
        return self._end


class JointPath(Protocol):
    """From rest to rest."""

    @property
    def duration_s(self) -> float:
        """How long it takes."""

    def at(self, time_s: float) -> Array:
        """The joint position after so long, (7,)."""


class _MinimumJerk:
    def __init__(self, start: Array, end: Array) -> None:
        self._start, self._way = start, end - start
        speeds = JOINT_SPEED_FRACTION * fr3().max_velocity
        # peak acceleration of a minimum-jerk motion is 5.7735 way / T^2
        accelerated = np.sqrt(5.7735 * np.abs(self._way) / JOINT_ACCELERATION)
        self.duration_s = float(max((PEAK * np.abs(self._way) / speeds).max(), accelerated.max()))

    def at(self, time_s: float) -> Array:
        s = minimum_jerk(time_s / self.duration_s) if self.duration_s > 0.0 else 1.0
        return self._start + s * self._way


class _Ruckig:
    def __init__(self, start: Array, end: Array) -> None:
        import ruckig

        task = ruckig.InputParameter(7)
        task.current_position, task.target_position = start.tolist(), end.tolist()
        task.max_velocity = (JOINT_SPEED_FRACTION * fr3().max_velocity).tolist()
        task.max_acceleration, task.max_jerk = [JOINT_ACCELERATION] * 7, [JOINT_JERK] * 7
        task.synchronization = ruckig.Synchronization.Phase
        self._trajectory = ruckig.Trajectory(7)
        ruckig.Ruckig(7).calculate(task, self._trajectory)
        self.duration_s = float(self._trajectory.duration)

    def at(self, time_s: float) -> Array:
        return np.array(self._trajectory.at_time(min(time_s, self.duration_s))[0])


def make_joint_path(start: Array, end: Array) -> JointPath:
    """Time-optimal within a reset's limits by ruckig where it is installed, else minimum jerk. Shapes: (7,), (7,)."""
    try:
        return _Ruckig(start, end)
    except ImportError:
        return _MinimumJerk(start, end)
