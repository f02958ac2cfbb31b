"""Resets: retract, go there, settle, and check. Every one is a stream of setpoints through the normal tick.

Each is a generator that the service resumes whenever there is a new state of the arm, so that nothing waits for it.
"""

from collections.abc import Callable, Iterator

import numpy as np

from serl_servers.franka.config import joint_limits
from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.driver import Array
from serl_servers.franka.kinematics import Tool
from serl_servers.franka.records import Phase
from serl_servers.franka.trajectories import PosePath, make_joint_path
from serl_servers.front import Refusal
from serl_suite.control import ControlConfig
from serl_suite.control.impedance import pose_error
from serl_suite.control.rotations import quaternion_from_rotation_vector, quaternion_multiply

__all__ = ["cartesian_reset", "compile_resets", "joint_reset", "require_running"]

RETRACT_M = 0.05
TOLERANCE_M = 0.003
TOLERANCE_RAD = 0.02
JOINT_TOLERANCE_RAD = 0.05
REST_RAD_PER_S = 0.02
SETTLE_S = 4.0
"""After that long without being there, a reset has failed."""
CORRECTION_RATE = 4.0
"""By how much of what is missing the setpoint moves on in a second: friction holds a soft arm short of it."""
CORRECTION_MAX_M = 0.03
CORRECTION_MAX_RAD = 0.15


def compile_resets() -> None:
    """Compiles what a reset calls: its setpoints must not be late for that."""
    q = joint_limits().lower
    pose = Tool(q, np.zeros(3), quaternion_from_rotation_vector(np.zeros(3))).pose(q)
    PosePath([pose, (pose[0] + 0.1, pose[1])]).at(0.1)
    pose_error(*pose, *pose)


def require_running(link: ControlLink) -> None:
    """Raises: Refusal, naming the fault that keeps the arm from moving."""
    if link.fault:
        raise Refusal(f"the arm is stopped by {link.fault} ({link.detail}); find out why, then recover")
    if link.phase is not Phase.RUNNING:
        raise Refusal(f"the arm is {link.phase.name.lower()}; wait, or recover")


def cartesian_reset(
    link: ControlLink, config: ControlConfig, position: Array, quaternion: Array, *, straight: bool = False
) -> Iterator[None]:
    """Straight up, across with the shortest turn, and down to the pose; or straight there.

    Raises:
        Refusal: The pose is outside the box, a fault came in between, or the pose was not reached.
    """
    _check_in_box(config, position, "the pose")
    link.fill_tank()
    start, turn = link.state.position.copy(), link.state.quaternion.copy()
    height = min(max(start[2], position[2]) + RETRACT_M, config.box_upper[2])
    above = [(_at_height(start, height), turn), (_at_height(position, height), quaternion)]
    path = PosePath([(start, turn), *([] if straight else above), (position, quaternion)])
    yield from _move(link, path.duration_s, lambda time_s: _lead(link, path, time_s))
    yield from _settle_pose(link, position, quaternion)
    link.fill_tank()
    link.hold()


def joint_reset(link: ControlLink, config: ControlConfig, q: Array) -> Iterator[None]:
    """Straight up, then by joint angles, the TCP led along what they make and the nullspace along themselves.

    Raises:
        Refusal: The position or the way there is out of bounds, a fault came in between, or it was not reached.
    """
    limits = joint_limits()
    low, high = limits.lower + config.joint_margin, limits.upper - config.joint_margin
    if (q < low).any() or (q > high).any():
        joint = int(np.argmax(np.maximum(low - q, q - high)))
        raise Refusal(
            f"joint {joint + 1} at {q[joint]:.3f} rad is outside its safe range {low[joint]:.3f}..{high[joint]:.3f}"
        )
    tool = Tool(link.state.q, link.state.position, link.state.quaternion)
    _check_in_box(config, tool.pose(q)[0], "the TCP at the joint position")
    link.fill_tank()
    start, turn = link.state.position.copy(), link.state.quaternion.copy()
    retract = PosePath(
        [(start, turn), (_at_height(start, min(start[2] + RETRACT_M, config.box_upper[2])), turn)]
    )
    yield from _move(link, retract.duration_s, lambda time_s: _lead(link, retract, time_s))
    path = make_joint_path(link.state.q.copy(), q)
    for time_s in np.linspace(0.0, path.duration_s, 50):
        _check_in_box(config, tool.pose(path.at(float(time_s)))[0], "the way there", margin=config.box_margin)

    def follow(q_d: Array) -> None:
        link.follow(*tool.pose(q_d), q_d)

    yield from _move(link, path.duration_s, lambda time_s: follow(path.at(time_s)))
    yield from _settle_joints(link, q, follow)
    link.fill_tank()
    link.hold()


def _move(link: ControlLink, duration_s: float, follow: Callable[[float], None]) -> Iterator[None]:
    start = float(link.state.time[0])
    while (passed := float(link.state.time[0]) - start) < duration_s:
        follow(passed)
        yield
        require_running(link)
    follow(duration_s)


def _lead(link: ControlLink, path: PosePath, time_s: float) -> None:
    link.follow(*path.at(time_s))


def _settle_pose(link: ControlLink, position: Array, quaternion: Array) -> Iterator[None]:
    start = last = float(link.state.time[0])
    offset, bound = np.zeros(6), np.repeat([CORRECTION_MAX_M, CORRECTION_MAX_RAD], 3)
    tolerance = np.repeat([TOLERANCE_M, TOLERANCE_RAD], 3)
    while True:
        state, now = link.state, float(link.state.time[0])
        missing = pose_error(position, quaternion, state.position, state.quaternion)
        if (np.abs(missing) < tolerance).all() and _rests(link):
            return
        if now - start > SETTLE_S:
            millimetres, angle = np.linalg.norm(missing[:3]) * 1e3, np.linalg.norm(missing[3:])
            raise Refusal(
                f"the pose was not reached: {millimetres:.1f} mm and {angle:.3f} rad are missing; look for what is in "
                "the way, or for a pose out of the arm's reach"
            )
        offset = np.clip(offset + CORRECTION_RATE * (now - last) * missing, -bound, bound)
        last = now
        turned = quaternion_multiply(quaternion_from_rotation_vector(offset[3:]), quaternion)
        link.follow(position + offset[:3], turned)
        yield
        require_running(link)


def _settle_joints(link: ControlLink, q: Array, follow: Callable[[Array], None]) -> Iterator[None]:
    start = last = float(link.state.time[0])
    offset = np.zeros(7)
    while True:
        now = float(link.state.time[0])
        missing = q - link.state.q
        if (np.abs(missing) < JOINT_TOLERANCE_RAD).all() and _rests(link):
            return
        if now - start > SETTLE_S:
            joint = int(np.argmax(np.abs(missing)))
            raise Refusal(
                f"the joint position was not reached: joint {joint + 1} is {missing[joint]:+.3f} rad short; look for "
                "what is in the way"
            )
        offset += CORRECTION_RATE * (now - last) * missing
        offset = np.clip(offset, -CORRECTION_MAX_RAD, CORRECTION_MAX_RAD)
        last = now
        follow(q + offset)
        yield
        require_running(link)


def _rests(link: ControlLink) -> bool:
    return bool(np.abs(link.state.dq).max() < REST_RAD_PER_S)


def _at_height(position: Array, height: float) -> Array:
    return np.array([position[0], position[1], height])


def _check_in_box(config: ControlConfig, position: Array, what: str, margin: float = 0.0) -> None:
    low, high = np.array(config.box_lower), np.array(config.box_upper)
    if (position < low - margin).any() or (position > high + margin).any():
        raise Refusal(f"{what} is outside the workspace box: {position.round(3)} not in {low}..{high} m")
