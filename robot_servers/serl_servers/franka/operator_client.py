"""What `serl robot status|stop|recover|reset|jog|home|pick|put` ask of a server."""

from types import TracebackType

import numpy as np
from serl_hardware.franka import fr3

from serl_suite.control.rotations import quaternion_from_rotation_vector, quaternion_multiply
from serl_suite.errors import SerlError
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.robot_client import RobotClient
from serl_suite.wire.robot_messages import (
    HomeGripper,
    MoveGripper,
    PickUp,
    PutDown,
    Recover,
    Reset,
    ResetJoints,
    ServerReport,
    Seven,
    ShowStatus,
    Stop,
    Three,
)

__all__ = ["JogTooFar", "OperatorClient", "WrongApproach"]

MOTION_S = 60.0
JOG_M = 0.1
JOG_RAD = 0.5
APPROACH_M = 0.5


class JogTooFar(SerlError):
    """More than a jog moves at once."""


class WrongApproach(SerlError):
    """From further above than a thing is approached, or from below."""


class OperatorClient:
    """A short-lived client for a person at a terminal. Args: as `RobotClient`."""

    def __init__(self, address: str, keys: ClientKeys | None) -> None:
        self._client = RobotClient(address, keys, name="operator")

    def __enter__(self) -> "OperatorClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def status(self) -> list[str]:
        """A line on each thing that an operator wants to know."""
        report = self._client.ask(ShowStatus(number=self._client.next_number()))
        assert isinstance(report, ServerReport)
        arm = self._client.newest()
        x, y, z = arm.position
        return [
            f"arm         {report.ip}, {report.phase}, robot time {arm.time_s:.3f} s",
            f"fault       {report.fault or 'none'}{f': {report.detail}' if report.detail else ''}",
            f"controlled  by {report.controller or 'nobody'}",
            f"TCP         x {x:.4f}  y {y:.4f}  z {z:.4f} m",
            f"joints      {'  '.join(f'{angle:.3f}' for angle in arm.q)} rad",
            f"gripper     {arm.gripper_width * 1e3:.1f} mm",
            f"stiffness   {'  '.join(f'{value:g}' for value in report.stiffness)} N/m, Nm/rad",
            f"energy      tank {arm.tank_fraction:.0%}, torque scaled by {arm.gamma:.2f}",
            f"packets     {report.success_rate:.1%} of the last commands in time",
            *(f"control     {line}" for line in report.realtime),
        ]

    def stop(self, reason: str) -> None:
        """Raises: RobotRefused, RobotUnreachable; so does all that follows."""
        self._client.ask(Stop(number=self._client.next_number(), reason=reason))

    def recover(self, reason: str) -> None:
        self._client.keep_control()
        self._client.ask(Recover(number=self._client.next_number(), reason=reason), MOTION_S)

    def reset(self, q: Seven | None) -> None:
        self._client.keep_control()
        goal = q if q is not None else tuple(map(float, fr3().q_ready))
        assert len(goal) == 7
        self._client.ask(ResetJoints(number=self._client.next_number(), q=goal), MOTION_S)

    def home(self) -> float:
        """Has the hand find out how far it opens; returns that [m]."""
        self._client.keep_control()
        self._client.ask(HomeGripper(number=self._client.next_number()), MOTION_S)
        return self._client.await_state().gripper_width

    def pick(self, position: Three, approach_m: float, force_n: float | None) -> float:
        """Picks up what is at a position of the TCP [m], turned as it is now; returns how wide that is [m].

        Raises:
            WrongApproach: Not from 0 to 0.5 m above.
        """
        _check_approach(approach_m)
        client, quaternion = self._client, self._client.newest().quaternion
        client.keep_control()
        client.ask(
            PickUp(
                number=client.next_number(), position=position, quaternion=quaternion, approach_m=approach_m,
                force_n=force_n,
            ),
            MOTION_S,
        )  # fmt: skip
        return client.await_state().gripper_width

    def put(self, position: Three, approach_m: float) -> None:
        """Puts down what the hand holds at a position of the TCP [m], turned as it is now.

        Raises:
            WrongApproach: Not from 0 to 0.5 m above.
        """
        _check_approach(approach_m)
        client, quaternion = self._client, self._client.newest().quaternion
        client.keep_control()
        client.ask(
            PutDown(
                number=client.next_number(), position=position, quaternion=quaternion, approach_m=approach_m
            ),
            MOTION_S,
        )

    def jog(self, way: Three, yaw_rad: float, gripper_width: float | None) -> str:
        """Moves by a way [m] and an angle about the base's z, and returns where the TCP is then.

        Raises:
            JogTooFar: Further than 10 cm or 0.5 rad.
        """
        if float(np.linalg.norm(way)) > JOG_M or abs(yaw_rad) > JOG_RAD:
            raise JogTooFar(f"a jog moves at most {JOG_M} m and {JOG_RAD} rad; nothing was moved")
        client = self._client
        arm = client.newest()
        # before control is taken: what is compiled on its first call may take longer than control lasts
        turn = quaternion_from_rotation_vector(np.array([0.0, 0.0, yaw_rad]))
        quaternion = quaternion_multiply(turn, np.array(arm.quaternion))
        x, y, z, w = map(float, quaternion / np.linalg.norm(quaternion))
        px, py, pz = (float(a + b) for a, b in zip(arm.position, way, strict=True))
        client.keep_control()
        if gripper_width is not None:
            client.ask(MoveGripper(number=client.next_number(), width=gripper_width))
        if any(way) or yaw_rad:
            goal = Reset(
                number=client.next_number(), position=(px, py, pz), quaternion=(x, y, z, w), straight=True
            )
            client.ask(goal, MOTION_S)
        x, y, z = client.await_state().position
        return f"x {x:.4f}  y {y:.4f}  z {z:.4f} m"


def _check_approach(approach_m: float) -> None:
    if not 0.0 <= approach_m <= APPROACH_M:
        raise WrongApproach(f"an approach from {approach_m} m above; 0..{APPROACH_M} m. Nothing was moved")
