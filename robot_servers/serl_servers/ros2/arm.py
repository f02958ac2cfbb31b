"""An arm behind a compliant ROS 2 controller: measured and target poses, and what keeps the target safe.

The controller holds the torque; here are the stages before it, at the rate of the targets: the setpoint's age, the
speed of the target, the workspace, and how far the target may lead the arm. Faults latch.
"""

import logging
import math
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serl_servers.ros2.config import ArmConfig
from serl_servers.ros2.mapping import (
    UnusableMessage,
    joint_state,
    joints_of,
    pose_of,
    pose_stamped,
    stamp_s,
    wrench_of,
)
from serl_servers.ros2.transport import Transport, topic_name
from serl_suite.control.limits import clip_to_box, leaves_box
from serl_suite.control.rotations import (
    quaternion_from_rotation_vector,
    quaternion_multiply,
    quaternion_normalized,
    rotate,
    rotation_difference,
)
from serl_suite.control.shaping import follow_position, follow_quaternion, ramped_down

__all__ = ["Array", "Ros2Arm", "Setpoint"]

Array = npt.NDArray[np.float64]

LINEAR_DECELERATION = 5.0
ANGULAR_DECELERATION = 20.0
"""How fast a target without fresh setpoints slows down [m/s^2, rad/s^2]."""
LONGEST_STEP_S = 0.05
"""Of robot time between two targets: a gap in the states is no leap of the target."""
ELSEWHERE = 1.5
"""Times its lead from the target, an arm is not where the target has left it."""
CLOCK_STEP_S = 1e-3
"""By which stamps may go back."""
REPEATED_S = 0.5
"""A target that has come to rest is published for so long, as the last message may get lost; then another node may
have the controller."""

_log = logging.getLogger(__name__)


class Setpoint(NamedTuple):
    """What the target goes to."""

    position: Array
    quaternion: Array
    number: int
    """Of the request; 0: of none."""


class Ros2Arm:
    """Belongs to one thread, which calls `look` as often as it can and `tick` at the rate of the targets.

    Args:
        transport: Owned.
        config: Of the arm.
    """

    def __init__(self, transport: Transport, config: ArmConfig) -> None:
        self._transport, self._config = transport, config
        self.lead_m, self.lead_rad = config.lead_m, config.lead_rad
        """By how much the target may lead the arm."""
        m = transport.messages

        def name(topic: str) -> str:
            return topic_name(config.namespace, topic)

        names = set(config.joint_names)
        self._joint_states = transport.subscription(
            m.JointState,
            name(config.joint_states),
            lambda message: not names.isdisjoint(message.name),  # hands often share the topic
        )
        self._current_pose = transport.subscription(m.PoseStamped, name(config.current_pose))
        self._wrenches = (
            transport.subscription(m.WrenchStamped, name(config.wrench))
            if config.wrench is not None
            else None
        )
        self._target_pose = transport.publisher(m.PoseStamped, name(config.target_pose))
        self._target_joint = transport.publisher(m.JointState, name(config.target_joint))

        self.time_s = 0.0
        """Robot time, from the joint states' stamps."""
        self.q = self.dq = (0.0,) * len(config.joint_names)
        self.position, self.quaternion = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
        self.twist, self.wrench = np.zeros(6), np.zeros(6)
        self.fault = self.detail = ""
        self.silence_s = math.inf
        """Since joints and pose were last heard, when it was last looked for them."""
        self.has_started = False
        """Whether joints and pose have been seen."""
        self.setpoint, self.setpoint_ns = 0, 0
        """Request whose setpoint the published target reflects, and since when (CLOCK_MONOTONIC)."""
        self._first_s: float | None = None
        self._pose_s = -math.inf
        self._joints_heard_at = self._pose_heard_at = -math.inf

        self._wanted: Setpoint | None = None
        """None: the target holds."""
        self._last = Setpoint(self.position, self.quaternion, 0)
        """Towards which the target slows down."""
        self._taken_s = self._ticked_s = 0.0
        self._target: tuple[Array, Array] | None = None
        """None: not one has been published yet."""
        self._joint_target: Array | None = None
        """In a motion to a joint position, in place of the pose."""
        self._linear_speed = self._angular_speed = 0.0
        self._published_until = -math.inf

    @property
    def phase(self) -> str:
        return "stopped" if self.fault else "running" if self.has_started else "starting"

    def compile(self) -> None:
        """Compiles all that is compiled, before anything moves."""
        self._move_pose(
            Setpoint(self.position, self.quaternion, 0), self.position.copy(), self.quaternion.copy(), 0.01
        )
        leaves_box(self.position, self.twist, self.position, self.position, 0.0)
        rotate(self.quaternion, self.position)
        self._linear_speed = self._angular_speed = 0.0

    def follow(self, position: Array, quaternion: Array, number: int = 0) -> None:
        """Has the target go to a pose, in the base frame; goes stale."""
        begins = self._wanted is None
        if self._joint_target is not None or self._target is None or (begins and self._is_elsewhere()):
            self._target = (self.position.copy(), self.quaternion.copy())
        self._joint_target = None
        self._wanted, self._taken_s = Setpoint(position, quaternion, number), self.time_s

    def lead_joints(self, q: Array) -> None:
        """Publishes a joint position instead, no further from the measured one than the joints' lead; goes stale."""
        measured = np.array(self.q)
        self._joint_target = measured + np.clip(q - measured, -self.lead_rad, self.lead_rad)
        self._wanted, self._taken_s = Setpoint(self.position, self.quaternion, 0), self.time_s

    def hold(self) -> None:
        """Slows the target down and leaves it."""
        self._wanted = None
        self._let_joints_go()

    def stop(self, fault: str, detail: str) -> None:
        """Takes the target back to where the arm is, and latches. The first reason stays."""
        if self.fault:
            return
        _log.error("stopped: %s (%s)", fault, detail)
        self.fault, self.detail = fault, detail
        self._wanted = None
        self._linear_speed = self._angular_speed = 0.0
        if self.has_started:
            self._target = (self.position.copy(), self.quaternion.copy())
        self._let_joints_go()
        self._repeat()

    def recover(self) -> None:
        """Clears the fault; the arm holds where it is. What still stands in the way latches again at once."""
        self.fault = self.detail = ""
        self._first_s = None if self.silence_s > self._config.setpoint_fault_s else self._first_s
        self._watch()

    def look(self) -> bool:
        """Takes in what the arm has published; whether that was a new joint state."""
        is_new = False
        try:
            is_new = self._look_at_joints()
            self._look_at_pose()
            self._look_at_wrench()
        except UnusableMessage as reason:
            if self.has_started:
                self.stop("invalid_state", str(reason))
            else:
                self.detail = str(reason)
        self.silence_s = time.monotonic() - min(self._joints_heard_at, self._pose_heard_at)
        if not self.has_started and math.isfinite(self.silence_s):
            self.has_started, self.detail = True, ""
        return is_new

    def tick(self) -> None:
        """Moves the target by one step and publishes it."""
        if not self.has_started:
            return
        dt = min(max(self.time_s - self._ticked_s, 0.0), LONGEST_STEP_S)
        self._ticked_s = self.time_s
        self._watch()
        if not self.fault and dt > 0.0 and self._target is not None and self._joint_target is None:
            self._move(*self._target, dt)
        if self._wanted is not None:
            self._repeat()
            if self._wanted.number != self.setpoint and self._wanted.number:
                self.setpoint, self.setpoint_ns = self._wanted.number, time.monotonic_ns()
        if time.monotonic() < self._published_until:
            self._publish()

    def close(self) -> None:
        """Takes the target back to the arm and leaves the graph."""
        if self._wanted is not None:
            self.stop("ended", "the server was ended")
            self._publish()
        self._transport.close()

    def _watch(self) -> None:
        c = self._config
        if self.silence_s > c.setpoint_fault_s:
            self.stop(
                "state_lost",
                f"the arm has published no {c.joint_states} or no {c.current_pose} for {self.silence_s:.1f} s",
            )
        if leaves_box(self.position, self.twist, np.array(c.box_lower), np.array(c.box_upper), c.box_margin):
            self.stop("workspace", "the TCP left the workspace box and was still moving outward")
        if self._wanted is not None and self.time_s - self._taken_s >= c.setpoint_fault_s:
            self.stop(
                "stale_setpoint",
                "no setpoint for too long: whoever commanded the arm has died, hangs, or was cut off",
            )

    def _move(self, position: Array, quaternion: Array, dt: float) -> None:
        wanted = self._wanted
        if wanted is not None and self.time_s - self._taken_s <= self._config.setpoint_hold_s:
            self._move_pose(wanted, position, quaternion, dt)
            return
        linear = ramped_down(self._linear_speed, LINEAR_DECELERATION, dt)
        angular = ramped_down(self._angular_speed, ANGULAR_DECELERATION, dt)
        goal = wanted or self._last
        if linear > 0.0 or angular > 0.0:
            self._move_pose(goal, position, quaternion, dt, linear, angular)

    def _move_pose(
        self, goal: Setpoint, position: Array, quaternion: Array, dt: float,
        linear_cap: float = math.inf, angular_cap: float = math.inf,
    ) -> None:  # fmt: skip
        """One step of the target, in place: filtered, capped, in the box, within the lead."""
        c = self._config
        self._last = goal
        blend = -math.expm1(-dt / c.filter_s) if c.filter_s > 0.0 else 1.0
        wanted = clip_to_box(goal.position, np.array(c.box_lower), np.array(c.box_upper))
        moved = follow_position(position, wanted, blend, min(linear_cap, c.max_linear_speed) * dt)
        turned = follow_quaternion(
            quaternion, goal.quaternion, blend, min(angular_cap, c.max_angular_speed) * dt
        )
        self._linear_speed, self._angular_speed = moved / dt, turned / dt
        way = position - self.position
        distance = float(np.linalg.norm(way))
        if distance > self.lead_m:
            position[:] = self.position + way * (self.lead_m / distance)
        turn = rotation_difference(quaternion, self.quaternion)
        angle = float(np.linalg.norm(turn))
        if angle > self.lead_rad:
            ahead = quaternion_from_rotation_vector(turn * (self.lead_rad / angle))
            quaternion[:] = quaternion_normalized(quaternion_multiply(ahead, self.quaternion))

    def _is_elsewhere(self) -> bool:
        """Whether somebody else has moved the arm since the last target."""
        assert self._target is not None
        position, quaternion = self._target
        way = float(np.linalg.norm(position - self.position))
        turn = float(np.linalg.norm(rotation_difference(quaternion, self.quaternion)))
        return way > ELSEWHERE * self.lead_m or turn > ELSEWHERE * self.lead_rad

    def _let_joints_go(self) -> None:
        if self._joint_target is not None:
            self._joint_target = np.array(self.q)
            self._repeat()

    def _repeat(self) -> None:
        self._published_until = time.monotonic() + REPEATED_S

    def _publish(self) -> None:
        m, now = self._transport.messages, self._transport.now_ns()
        if self._joint_target is not None:
            self._target_joint.publish(
                joint_state(m, now, self._config.joint_names, self._joint_target.tolist())
            )
        elif self._target is not None:
            x, y, z = self._target[0].tolist()
            qx, qy, qz, qw = self._target[1].tolist()
            self._target_pose.publish(
                pose_stamped(m, now, self._config.base_frame, (x, y, z), (qx, qy, qz, qw))
            )

    def _look_at_joints(self) -> bool:
        message = self._joint_states.take()
        if message is None:
            return False
        q, dq = joints_of(message, self._config.joint_names)
        stamp = stamp_s(message)
        if self._first_s is None:
            self._first_s = stamp - self.time_s
        elif stamp < self._first_s + self.time_s - CLOCK_STEP_S:
            self.stop(
                "clock_jumped",
                f"the stamps of {self._config.joint_states} went back; has a simulation restarted?",
            )
            self._first_s = stamp - self.time_s
        self.time_s = max(stamp - self._first_s, self.time_s)
        self.q, self.dq = q, dq or (0.0,) * len(q)
        self._joints_heard_at = time.monotonic()
        return True

    def _look_at_pose(self) -> None:
        message = self._current_pose.take()
        if message is None:
            return
        p, o = pose_of(message, self._config.base_frame)
        position, quaternion, stamp = np.array(p), np.array(o), stamp_s(message)
        passed = stamp - self._pose_s
        if 0.0 < passed < LONGEST_STEP_S:
            turn = rotation_difference(quaternion, self.quaternion)
            self.twist = np.concatenate([position - self.position, turn]) / passed
        elif passed != 0.0:
            self.twist = np.zeros(6)
        self.position, self.quaternion, self._pose_s = position, quaternion, stamp
        self._pose_heard_at = time.monotonic()

    def _look_at_wrench(self) -> None:
        message = self._wrenches.take() if self._wrenches is not None else None
        if message is not None:
            force, torque = wrench_of(message)
            turned = [rotate(self.quaternion, np.array(part)) for part in (force, torque)]
            self.wrench = np.concatenate(turned)
