"""A robot server on ROS 2 topics: what the arm does is published, targets are followed.

The bridge is a client like any other: it takes control with the first target, one target is one setpoint, and where
targets stop coming the server holds the arm, then stops it.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from serl_servers.ros2.config import BridgeConfig
from serl_servers.ros2.mapping import (
    UnusableMessage,
    checked_age,
    joint_state,
    joints_of,
    pose_of,
    pose_stamped,
    status_array,
    wrench_stamped,
)
from serl_servers.ros2.transport import Transport, topic_name
from serl_suite.wire.robot_client import RobotClient, RobotRefused, RobotUnreachable
from serl_suite.wire.robot_messages import ArmState, Follow, Heartbeat, Refused, ResetJoints, Seven

if TYPE_CHECKING:
    from serl_servers.ros2 import messages

__all__ = ["Bridge"]

DEADLINE_S = 0.1
"""In robot time, from the target's stamp on."""
PAUSE_S = 0.5
"""After a fault, targets are followed again once none has come for so long: whoever went on sending through it does
not expect the arm to move."""
RETRY_S = 0.5
"""Between two attempts to take control from somebody else."""
SHOWN_S = 1.0
"""For so long, the reason for which a target was not followed stays in the diagnostics."""
JOINTS = 7

_log = logging.getLogger(__name__)


class Bridge:
    """Belongs to one thread, and hangs on nothing but the server's next state.

    Args:
        client: Of the robot server; owned.
        transport: Owned.
        config: Of the bridge.
    """

    def __init__(self, client: RobotClient, transport: Transport, config: BridgeConfig) -> None:
        self._client, self._transport, self._config = client, transport, config
        m = transport.messages

        def name(topic: str) -> str:
            return topic_name(config.namespace, topic)

        self._joint_states = transport.publisher(m.JointState, name("joint_states"))
        self._pose = transport.publisher(m.PoseStamped, name("pose"))
        self._wrench = transport.publisher(m.WrenchStamped, name("wrench"))
        self._faults = transport.publisher(m.DiagnosticArray, name("faults"))
        self._target_pose = transport.subscription(m.PoseStamped, name("target_pose"))
        self._target_joint = transport.subscription(m.JointState, name("target_joint"))
        self._base_frame, self._tcp_frame = f"{config.arm_id}_link0", f"{config.arm_id}_hand_tcp"
        self._names = [f"{config.arm_id}_joint{i + 1}" for i in range(JOINTS)]
        self._controls = self._is_tainted = self._moves = False
        self._goal: Seven | None = None
        """Joint position that was asked for last, in a stream of targets that has not been interrupted since."""
        self._goal_number = 0
        self._heard_at = self._joint_heard_at = self._tried_at = self._due_at = -math.inf
        self._note = ""
        self._noted_at = -math.inf

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Bridges until it is told to stop; a server that goes away is waited for."""
        while not should_stop():
            self.turn()

    def turn(self) -> None:
        """Waits for the server's next state, and passes on what is new."""
        try:
            arm = self._client.await_state()
            self._look_at_answers()
            self._take_targets(arm)
            if self._controls and not self._is_wanted():
                self._let_go("nobody publishes targets any more")
        except RobotUnreachable as silence:
            self._controls = self._moves = False
            self._publish_silence(str(silence))
            return
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = max(self._due_at + 1.0 / self._config.rate_hz, now)
            self._publish(arm)

    def close(self) -> None:
        """Gives control back, upon which the arm holds, and leaves the graph."""
        self._client.close()
        self._transport.close()

    def _take_targets(self, arm: ArmState) -> None:
        pose, joints = self._target_pose.take(), self._target_joint.take()
        now = time.monotonic()
        if arm.fault:
            self._is_tainted = True
            if self._controls:
                self._let_go("the arm has stopped")
        elif self._is_tainted and now - self._heard_at > PAUSE_S:
            self._is_tainted = False
        if pose is None and joints is None:
            return
        self._heard_at = now
        try:
            if arm.fault:
                raise UnusableMessage(f"the arm is stopped by {arm.fault} ({arm.detail}); recover it")
            if self._is_tainted:
                raise UnusableMessage(f"the arm had stopped: pause for {PAUSE_S} s, then send targets again")
            if joints is not None:
                self._go_to_joints(joints)
            if pose is not None:
                self._follow(pose, arm)
        except (UnusableMessage, RobotRefused) as reason:
            self._explain(str(reason))

    def _follow(self, target: "messages.PoseStamped", arm: ArmState) -> None:
        age = checked_age(target, self._transport.now_ns(), self._config.max_age_s)
        position, quaternion = pose_of(target, self._base_frame)
        if self._moves:
            raise UnusableMessage("the arm is on its way to a joint position; poses are followed after that")
        self._goal = None
        self._take_control()
        number, deadline = self._client.next_number(), arm.time_s + DEADLINE_S - age
        self._client.send(
            Follow(number=number, position=position, quaternion=quaternion, deadline_s=deadline)
        )

    def _go_to_joints(self, target: "messages.JointState") -> None:
        """A joint position is a goal that the server moves to, for as long as it is published."""
        checked_age(target, self._transport.now_ns(), self._config.max_age_s)
        q, _ = joints_of(target, self._names)
        now = time.monotonic()
        if now - self._joint_heard_at > PAUSE_S and not self._moves:
            self._goal = None
        self._joint_heard_at = now
        if q == self._goal:
            if self._moves:
                self._client.send(Heartbeat(number=self._client.next_number()))
            return
        if self._moves:
            raise UnusableMessage("the arm is on its way to another joint position; wait until it is there")
        self._take_control()
        q1, q2, q3, q4, q5, q6, q7 = q
        self._goal, self._moves = (q1, q2, q3, q4, q5, q6, q7), True
        self._goal_number = self._client.next_number()
        self._client.send(ResetJoints(number=self._goal_number, q=self._goal))

    def _take_control(self) -> None:
        """Raises: RobotRefused: Somebody else has it."""
        now = time.monotonic()
        if not self._controls and now - self._tried_at < RETRY_S:
            raise UnusableMessage(self._note or "somebody else controls the arm")
        self._tried_at = now
        self._controls = False
        self._client.keep_control()
        self._controls = True

    def _let_go(self, reason: str) -> None:
        _log.info("gave control back: %s", reason)
        self._client.release()
        self._controls, self._goal = False, None

    def _is_wanted(self) -> bool:
        return self._target_pose.is_published() or self._target_joint.is_published()

    def _look_at_answers(self) -> None:
        for answer in self._client.answers():
            if answer.number == self._goal_number:
                self._moves = False
            if isinstance(answer, Refused) and self._controls:
                self._explain(answer.reason)
                self._client.release()  # a setpoint was refused, or control is somebody else's by now: begin anew
                self._controls = False

    def _explain(self, reason: str) -> None:
        """Says why a target is not followed: in the diagnostics, and once in the log."""
        now = time.monotonic()
        if reason != self._note or now - self._noted_at > SHOWN_S:
            _log.warning("not followed: %s", reason)
        self._note, self._noted_at = reason, now

    def _publish(self, arm: ArmState) -> None:
        m, now = self._transport.messages, self._transport.now_ns()
        self._joint_states.publish(joint_state(m, now, self._names, arm.q, arm.dq))
        self._pose.publish(pose_stamped(m, now, self._base_frame, arm.position, arm.quaternion))
        self._wrench.publish(wrench_stamped(m, now, self._tcp_frame, arm.wrench, arm.quaternion))
        self._faults.publish(status_array(m, now, self._status(arm)))

    def _status(self, arm: ArmState) -> "messages.DiagnosticStatus":
        m = self._transport.messages
        note = self._note if time.monotonic() - self._noted_at < SHOWN_S else ""
        level, text = m.DiagnosticStatus.OK, arm.phase
        if arm.fault:
            level, text = m.DiagnosticStatus.ERROR, f"{arm.fault}: {arm.detail}"
        elif note:
            level, text = m.DiagnosticStatus.WARN, f"not followed: {note}"
        values = {
            "phase": arm.phase, "fault": arm.fault, "detail": arm.detail, "not_followed": note,
            "controller": arm.controller or "", "tank_fraction": f"{arm.tank_fraction:.3f}",
            "gamma": f"{arm.gamma:.3f}", "success_rate": f"{arm.success_rate:.3f}",
        }  # fmt: skip
        return m.DiagnosticStatus(
            level=level, name=f"{self._config.arm_id}: robot server", message=text,
            hardware_id=self._config.address,
            values=[m.KeyValue(key=key, value=value) for key, value in values.items()],
        )  # fmt: skip

    def _publish_silence(self, reason: str) -> None:
        m = self._transport.messages
        status = m.DiagnosticStatus(
            level=m.DiagnosticStatus.STALE, name=f"{self._config.arm_id}: robot server", message=reason,
            hardware_id=self._config.address, values=[],
        )  # fmt: skip
        self._faults.publish(status_array(m, self._transport.now_ns(), status))
