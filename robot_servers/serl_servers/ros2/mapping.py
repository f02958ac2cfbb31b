"""Between the states and setpoints of robot_messages and the messages of ROS 2, for either transport."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from serl_servers.ros2.transport import Messages
from serl_suite.control.rotations import quaternion_inverse, rotate
from serl_suite.errors import SerlError
from serl_suite.wire.robot_messages import Four, Three

if TYPE_CHECKING:
    from serl_servers.ros2 import messages

__all__ = [
    "UnusableMessage", "checked_age", "header", "joint_state", "joints_of", "pose_of", "pose_stamped",
    "stamp_s", "status_array", "wrench_of", "wrench_stamped",
]  # fmt: skip

NS = 1_000_000_000
NORM_TOLERANCE = 1e-3


class UnusableMessage(SerlError):
    """A message is not acted upon; says why."""


def header(m: Messages, stamp_ns: int, frame: str) -> "messages.Header":
    return m.Header(stamp=m.Time(sec=stamp_ns // NS, nanosec=stamp_ns % NS), frame_id=frame)


def joint_state(
    m: Messages,
    stamp_ns: int,
    names: Sequence[str],
    q: Sequence[float],
    dq: Sequence[float] = (),
) -> "messages.JointState":
    """Joint positions [rad] and velocities [rad/s] by name."""
    return m.JointState(
        header=header(m, stamp_ns, ""), name=list(names), position=list(q), velocity=list(dq), effort=[]
    )


def pose_stamped(
    m: Messages, stamp_ns: int, frame: str, position: Three, quaternion: Four
) -> "messages.PoseStamped":
    x, y, z, w = quaternion
    return m.PoseStamped(
        header=header(m, stamp_ns, frame),
        pose=m.Pose(
            position=m.Point(x=position[0], y=position[1], z=position[2]),
            orientation=m.Quaternion(x=x, y=y, z=z, w=w),
        ),
    )


def wrench_stamped(
    m: Messages, stamp_ns: int, frame: str, wrench_base: Sequence[float], quaternion: Four
) -> "messages.WrenchStamped":
    """The wrench on the TCP, turned from the base's axes into the TCP's own: ROS 2 takes a wrench at the origin and
    along the axes of its frame.

    Args:
        frame: Of the TCP.
        wrench_base: Force and torque [N, N m], (6,).
        quaternion: Of the TCP in the base frame.
    """
    back = quaternion_inverse(np.array(quaternion))
    force, torque = rotate(back, np.array(wrench_base[:3])), rotate(back, np.array(wrench_base[3:]))
    return m.WrenchStamped(
        header=header(m, stamp_ns, frame),
        wrench=m.Wrench(force=_vector(m, force.tolist()), torque=_vector(m, torque.tolist())),
    )


def status_array(
    m: Messages, stamp_ns: int, status: "messages.DiagnosticStatus"
) -> "messages.DiagnosticArray":
    return m.DiagnosticArray(header=header(m, stamp_ns, ""), status=[status])


def stamp_s(message: "messages.PoseStamped | messages.JointState") -> float:
    """When the message says that it was made [s]."""
    stamp = message.header.stamp
    return float(stamp.sec) + stamp.nanosec / NS


def checked_age(
    message: "messages.PoseStamped | messages.JointState", now_ns: int, max_age_s: float
) -> float:
    """The age of a target.

    Raises:
        UnusableMessage: It is stale, carries no time, or one that has not come yet.
    """
    stamp = message.header.stamp
    if stamp.sec == 0 and stamp.nanosec == 0:
        raise UnusableMessage("the target carries no time; set header.stamp to the time at which it was made")
    age = (now_ns - stamp.sec * NS - stamp.nanosec) / NS
    if age > max_age_s:
        raise UnusableMessage(
            f"the target is {age * 1e3:.0f} ms old, of {max_age_s * 1e3:.0f} ms allowed; look for what delays it, or "
            "set the clocks of both machines (chrony)"
        )
    if age < -max_age_s:
        raise UnusableMessage(
            f"the target is {-age * 1e3:.0f} ms ahead of this clock; set the clocks of both machines (chrony)"
        )
    return max(age, 0.0)


def pose_of(message: "messages.PoseStamped", frame: str) -> tuple[Three, Four]:
    """Position and unit quaternion.

    Raises:
        UnusableMessage: Another frame, NaN or inf, or a quaternion that is none.
    """
    if message.header.frame_id != frame:
        raise UnusableMessage(
            f"a pose in the frame {message.header.frame_id!r}; this arm takes {frame!r}: transform it first"
        )
    p, o = message.pose.position, message.pose.orientation
    if not all(map(math.isfinite, (p.x, p.y, p.z, o.x, o.y, o.z, o.w))):
        raise UnusableMessage("a pose that is not finite")
    norm = math.sqrt(o.x * o.x + o.y * o.y + o.z * o.z + o.w * o.w)
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise UnusableMessage(f"a quaternion of norm {norm:.4f}; normalise it (x, y, z, w)")
    return (p.x, p.y, p.z), (o.x / norm, o.y / norm, o.z / norm, o.w / norm)


def joints_of(
    message: "messages.JointState", names: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Positions and velocities of these joints, in this order; velocities may be empty.

    Raises:
        UnusableMessage: A joint is missing or doubled, NaN or inf.
    """
    given = list(message.name)
    if len(set(given)) != len(given) or len(message.position) != len(given):
        raise UnusableMessage("a joint state must name each joint once and give a position for each")
    missing = [name for name in names if name not in given]
    if missing:
        raise UnusableMessage(
            f"no position of {', '.join(missing)}; the message has {', '.join(given) or 'none'}"
        )
    order = [given.index(name) for name in names]
    q = tuple(float(message.position[i]) for i in order)
    dq = tuple(float(message.velocity[i]) for i in order) if len(message.velocity) == len(given) else ()
    if not all(map(math.isfinite, (*q, *dq))):
        raise UnusableMessage("a joint position or velocity that is not finite")
    return q, dq


def wrench_of(message: "messages.WrenchStamped") -> tuple[Three, Three]:
    """Force and torque, along the axes of the message's frame.

    Raises:
        UnusableMessage: NaN or inf.
    """
    f, t = message.wrench.force, message.wrench.torque
    if not all(map(math.isfinite, (f.x, f.y, f.z, t.x, t.y, t.z))):
        raise UnusableMessage("a wrench that is not finite")
    return (f.x, f.y, f.z), (t.x, t.y, t.z)


def _vector(m: Messages, values: Sequence[float]) -> "messages.Vector3":
    return m.Vector3(x=values[0], y=values[1], z=values[2])
