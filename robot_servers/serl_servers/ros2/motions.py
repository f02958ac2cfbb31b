"""Resets of an arm behind a ROS 2 controller: retract, go there, settle, and check. Every one is a stream of targets
through the stages of `Ros2Arm`.

Each is a generator that the service resumes once a target, so that nothing waits for it.
"""

from collections.abc import Iterator

import numpy as np

from serl_servers.franka.trajectories import PEAK, PosePath, minimum_jerk
from serl_servers.front import Refusal
from serl_servers.ros2.arm import Array, Ros2Arm
from serl_servers.ros2.config import ArmConfig
from serl_suite.control.rotations import rotation_difference

__all__ = ["joint_reset", "pose_reset", "require_running"]

RETRACT_M = 0.05
TOLERANCE_M = 0.01
TOLERANCE_RAD = 0.05
"""What a soft controller without integral action may leave, for a pose and for each joint."""
REST_RAD_PER_S = 0.02
SETTLE_S = 4.0


def require_running(arm: Ros2Arm) -> None:
    """Raises: Refusal, naming the fault that keeps the arm from moving."""
    if arm.fault:
        raise Refusal(f"the arm is stopped by {arm.fault} ({arm.detail}); find out why, then recover")
    if arm.phase != "running":
        raise Refusal("nothing has been heard of the arm yet; start its ROS 2 controller")


def pose_reset(
    arm: Ros2Arm, config: ArmConfig, position: Array, quaternion: Array, *, straight: bool
) -> Iterator[None]:
    """Straight up, across with the shortest turn, and down to the pose; or straight there.

    Raises:
        Refusal: A fault came in between, or the pose was not reached.
    """
    start, turn = arm.position.copy(), arm.quaternion.copy()
    height = min(max(start[2], position[2]) + RETRACT_M, config.box_upper[2])
    above = [
        (np.array([*start[:2], height]), turn),
        (np.array([*position[:2], height]), quaternion),
    ]
    path = PosePath([(start, turn), *([] if straight else above), (position, quaternion)])
    begin = arm.time_s
    while (passed := arm.time_s - begin) < path.duration_s + SETTLE_S:
        arm.follow(*path.at(passed))
        yield
        require_running(arm)
        way = np.abs(arm.position - position).max()
        angle = np.abs(rotation_difference(arm.quaternion, quaternion)).max()
        if passed > path.duration_s and way < TOLERANCE_M and angle < TOLERANCE_RAD and _rests(arm):
            arm.hold()
            return
    raise Refusal(
        f"the pose was not reached: {way * 1e3:.1f} mm and {angle:.3f} rad are missing; look for what is in the way, "
        "for a controller that is not active or too soft, or for a pose out of reach"
    )


def joint_reset(arm: Ros2Arm, config: ArmConfig, goal: Array) -> Iterator[None]:
    """By joint angles, at rest at both ends. The box bounds the measured TCP on the way, as for any motion.

    Raises:
        Refusal: A fault came in between, or the position was not reached.
    """
    start = np.array(arm.q)
    duration = PEAK * float(np.abs(goal - start).max()) / config.max_joint_speed
    begin = arm.time_s
    while (passed := arm.time_s - begin) < duration + SETTLE_S:
        fraction = minimum_jerk(passed / duration) if duration > 0.0 else 1.0
        arm.lead_joints(start + fraction * (goal - start))
        yield
        require_running(arm)
        missing = goal - np.array(arm.q)
        if passed > duration and np.abs(missing).max() < TOLERANCE_RAD and _rests(arm):
            arm.hold()
            return
    joint = int(np.argmax(np.abs(missing)))
    raise Refusal(
        f"the joint position was not reached: {config.joint_names[joint]} is {missing[joint]:+.3f} rad short; look for "
        f"what is in the way, and whether the active controller follows {config.target_joint}"
    )


def _rests(arm: Ros2Arm) -> bool:
    return float(np.abs(arm.twist).max()) < REST_RAD_PER_S
