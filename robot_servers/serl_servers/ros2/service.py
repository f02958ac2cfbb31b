"""The robot server of an arm that a compliant ROS 2 controller drives: robot_messages in front, topics behind.

One thread, which waits for nothing but the next request or the next target's time. To a client it is the same server
as a Franka's: one controller at a time, setpoints with a deadline, faults that latch.
"""

import math
import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from serl_servers.franka.resets import compile_resets
from serl_servers.front import Front, Refusal
from serl_servers.ros2.arm import Array, Ros2Arm
from serl_servers.ros2.config import ArmConfig
from serl_servers.ros2.motions import joint_reset, pose_reset, require_running
from serl_servers.ros2.transport import Transport
from serl_suite.errors import SerlError
from serl_suite.wire.keys import ServerKeys
from serl_suite.wire.robot_messages import (
    AnyRequest,
    ArmState,
    Follow,
    Four,
    MoveGripper,
    Recover,
    Reset,
    ResetJoints,
    ServerReport,
    SetGains,
    Six,
    Three,
)

__all__ = ["ArmService", "ArmSilent"]

START_S = 5.0
SILENCE_S = 0.05
"""The state is published so often even where there is no new one."""
LOOK_S = 0.005
NORM_TOLERANCE = 1e-3
STIFFNESS_TOLERANCE = 0.01
UNKNOWN: Six = (math.nan,) * 6


class ArmSilent(SerlError):
    """Nothing is heard of the arm."""


class ArmService:
    """Owns the transport and what clients come in by. Implements `Served`.

    Args:
        config: Of the server.
        transport: To ROS 2.
        keys: Needed other than on loopback.

    Raises:
        SerlError: Nothing is heard of the arm, or the address cannot be had, or not without keys.
    """

    def __init__(self, config: ArmConfig, transport: Transport, keys: ServerKeys | None) -> None:
        self._config = config
        self.arm = Ros2Arm(transport, config)
        self._front = Front(config.bind, keys, self)
        self._published_at = -math.inf
        self._due_at = time.monotonic()
        try:
            self.arm.compile()
            compile_resets()
            self._await_arm()
        except SerlError:
            self.close()
            raise

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serves until it is told to stop."""
        while not should_stop():
            self.turn()

    def turn(self) -> None:
        """Waits for the next request or the next target's time, and deals with it."""
        now = time.monotonic()
        self._front.requests.poll(int(max(min(self._due_at - now, LOOK_S), 0.0) * 1e3))
        is_new = self.arm.look()  # first: after having been held up, what comes now is not late
        self._front.receive()
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = max(self._due_at + 1.0 / self._config.rate_hz, now)
            self._front.go_on()
            self.arm.tick()
        if is_new or now - self._published_at > SILENCE_S:
            self._published_at = now
            self._front.publish(self._state())

    def close(self) -> None:
        """Leaves the arm to its controller, at rest."""
        self.arm.close()
        self._front.close()

    @property
    def fault(self) -> str:
        """Part of `Served`."""
        return self.arm.fault

    def report(self, number: int) -> ServerReport:
        """Part of `Served`."""
        config = self._config
        return ServerReport(
            number=number, ip=f"ROS 2, {config.namespace or '/'}", controller=self._front.lease.holder,
            phase=self.arm.phase, fault=self.arm.fault, detail=self.arm.detail,
            realtime=[f"targets at {config.rate_hz:g} Hz; the torque is the ROS 2 controller's"],
            control_pid=os.getpid(), success_rate=1.0, stiffness=config.stiffness or UNKNOWN,
            box_lower=config.box_lower, box_upper=config.box_upper,
        )  # fmt: skip

    def stop(self, reason: str) -> None:
        """Part of `Served`."""
        self.arm.stop("stopped", f"asked to: {reason}")

    def hold(self) -> None:
        """Part of `Served`."""
        self.arm.hold()

    def follow(self, request: Follow) -> None:
        """Part of `Served`."""
        require_running(self.arm)
        position, quaternion = self._checked_pose(request)
        late = self.arm.time_s - request.deadline_s
        if late > 0.0:
            raise Refusal(
                f"the setpoint came {late * 1e3:.0f} ms after its deadline; look for what delays the client"
            )
        self.arm.follow(position, quaternion, request.number)

    def move_gripper(self, request: MoveGripper) -> None:
        """Part of `Served`."""
        raise _nothing_done(request)

    def begin(self, request: AnyRequest) -> Iterator[None] | None:
        """Part of `Served`: resets take longer, recovery and gains do not."""
        match request:
            case Recover():
                self._recover()
                return None
            case SetGains():
                self._set_gains(request)
                return None
            case Reset():
                require_running(self.arm)
                pose = self._checked_pose(request)
                return pose_reset(self.arm, self._config, *pose, straight=request.straight)
            case ResetJoints():
                require_running(self.arm)
                if len(self._config.joint_names) != len(request.q):
                    raise Refusal(
                        f"this arm has {len(self._config.joint_names)} joints, not {len(request.q)}"
                    )
                return joint_reset(self.arm, self._config, np.array(request.q))
        raise _nothing_done(request)

    def _await_arm(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.arm.has_started:
            if time.monotonic() > deadline:
                c, reason = self._config, self.arm.detail
                raise ArmSilent(
                    f"no {c.joint_states} or no {c.current_pose} that can be used within {START_S:.0f} s"
                    f"{f' ({reason})' if reason else ''}; start the arm's controllers, and compare `ros2 topic list` "
                    "with --namespace, --domain and the names of the topics"
                )
            time.sleep(LOOK_S)
            self.arm.look()

    def _checked_pose(self, request: Follow | Reset) -> tuple[Array, Array]:
        for axis, value, least, most in zip(
            "xyz", request.position, self._config.box_lower, self._config.box_upper, strict=True
        ):
            if not least <= value <= most:
                raise Refusal(
                    f"the setpoint's {axis} = {value:.4f} m is outside the workspace box {least}..{most} m"
                )
        quaternion = np.array(request.quaternion)
        norm = float(np.linalg.norm(quaternion))
        if abs(norm - 1.0) > NORM_TOLERANCE:
            raise Refusal(f"the setpoint's quaternion has norm {norm:.4f}; normalise it (x, y, z, w)")
        return np.array(request.position), quaternion / norm

    def _set_gains(self, request: SetGains) -> None:
        """The stiffness is the controller's and must be the one asked for; the clips become the target's lead."""
        has, wants = self._config.stiffness, request.stiffness
        if has is None:
            raise Refusal("the stiffness is the ROS 2 controller's; say with --stiffness what it is set to")
        if any(abs(a - b) > STIFFNESS_TOLERANCE * abs(b) for a, b in zip(has, wants, strict=True)):
            raise Refusal(
                f"a stiffness of {wants} is asked for and the ROS 2 controller has {has}; set its parameters, and "
                "--stiffness"
            )
        clips = [min(-low, high) for low, high in zip(request.clip_lower, request.clip_upper, strict=True)]
        if min(clips) <= 0.0:
            raise Refusal("the clips must lie on both sides of 0")
        self.arm.lead_m, self.arm.lead_rad = min(clips[:3]), min(clips[3:])

    def _recover(self) -> None:
        self.arm.recover()
        if self.arm.fault:
            raise Refusal(f"{self.arm.fault} stays: {self.arm.detail}")

    def _state(self) -> ArmState:
        arm = self.arm
        return ArmState(
            time_s=arm.time_s, q=list(arm.q), dq=list(arm.dq), position=_three(arm.position),
            quaternion=_four(arm.quaternion), twist=_six(arm.twist), wrench=_six(arm.wrench),
            gripper_width=0.0, gripper_target=0.0, phase=arm.phase, fault=arm.fault, detail=arm.detail,
            setpoint=arm.setpoint, setpoint_ns=arm.setpoint_ns, tank_fraction=1.0, gamma=1.0,
            controller=self._front.lease.holder, success_rate=1.0,
        )  # fmt: skip


def _nothing_done(request: AnyRequest) -> Refusal:
    return Refusal(
        f"{type(request).__name__} is nothing that this server does: gripper and load belong to the arm's own ROS 2 "
        "controllers"
    )


def _three(values: Array) -> Three:
    x, y, z = values.tolist()
    return x, y, z


def _four(values: Array) -> Four:
    x, y, z, w = values.tolist()
    return x, y, z, w


def _six(values: Array) -> Six:
    x, y, z, a, b, c = values.tolist()
    return x, y, z, a, b, c
