"""A robot behind a robot server: the same `Robot` as the in-process twin, over the wire."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from serl_envs.robot import Array, RobotFault, RobotState, Setpoint
from serl_suite.control import ControlConfig
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.robot_client import RobotClient, RobotRefused, RobotUnreachable
from serl_suite.wire.robot_messages import ArmState, Follow, Recover, Refused, Reset, SetGains

__all__ = ["DEADLINE_S", "MOTION_S", "RemoteRobot", "as_fault"]

_log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "tcp://127.0.0.1:5755"
REFRESH_S = 0.02
"""In robot time. A setpoint goes stale after 100 ms, so that a policy has most of that to think between two commands,
and one that hangs is noticed."""
DEADLINE_S = 0.1
"""In robot time: a setpoint that was under way for longer is not followed."""
MOTION_S = 60.0


class RemoteRobot:
    """Implements `Robot`. Belongs to one thread: where that hangs, the arm holds and then stops.

    Control is taken with the first motion, and again where it had expired meanwhile.

    Args:
        address: Of the robot server, tcp://HOST:PORT.
        keys: Needed where it is on another machine.
        name: Under which the server shows who is in control.
        gains: Whose stiffness, damping and clips each reset asks for; None: whichever the server has.

    Raises:
        AddressError: The address is none, or on another machine and there are no keys.
        RobotUnreachable: No server answers there.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        keys: ClientKeys | None = None,
        name: str = "actor",
        gains: ControlConfig | None = None,
    ) -> None:
        self._client, self._gains = RobotClient(address, keys, name=name), gains
        self._meanwhile: Callable[[], None] | None = None
        """What a reset has to do while it is waited for."""

    @property
    def arm(self) -> ArmState:
        """All that the server published last: tank, passivity filter, who is in control."""
        return self._client.state

    def observe(self) -> RobotState:
        """Returns the newest measurement.

        Raises:
            RobotFault: The server has gone silent.
        """
        with as_fault():
            s = self._client.newest()
        return RobotState(
            time_s=s.time_s, q=np.array(s.q), dq=np.array(s.dq), position=np.array(s.position),
            quaternion=np.array(s.quaternion), twist=np.array(s.twist), wrench=np.array(s.wrench),
            gripper_width=s.gripper_width, gripper_target=s.gripper_target, fault=s.fault or None,
        )  # fmt: skip

    def command(self, setpoint: Setpoint, period_s: float) -> None:
        """Sends the setpoint, again and again until `period_s` of robot time have passed.

        Raises:
            RobotFault: A fault is latched, the server refuses the setpoint, or it has gone silent; says why.
        """
        client = self._client
        with as_fault():
            state = self._unstopped()
            client.keep_control()
            first, sent_at, end_s = client.next_number(), -math.inf, state.time_s + period_s
            while state.time_s < end_s and not state.fault:
                if state.time_s - sent_at >= REFRESH_S:
                    sent_at = state.time_s
                    client.send(self._request(setpoint, sent_at + DEADLINE_S))
                state = client.await_state()
                for answer in client.answers():
                    if isinstance(answer, Refused) and answer.number > first and not state.fault:
                        raise RobotFault(answer.reason)

    def reset(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        """Has the server retract, go to the pose and check that it is there.

        Raises:
            RobotFault: It was not reached, a fault is latched, or the server has gone silent; says why.
        """
        with as_fault():
            self._client.keep_control()
            self._set_gains()
            self._client.ask(
                Reset(
                    number=self._client.next_number(), position=_three(position), quaternion=_four(quaternion),
                    gripper_width=float(gripper_width),
                ),
                MOTION_S,
                meanwhile=self._meanwhile,
            )  # fmt: skip
            self._client.await_state()

    def recover(self, reason: str) -> None:
        """Clears a latched fault; server and client log the reason.

        Raises:
            RobotFault: The fault stays, or the last recovery was too short ago.
        """
        with as_fault():
            _log.warning("recovering from %s: %s", self._client.newest().fault or "nothing", reason)
            self._client.keep_control()
            self._client.ask(Recover(number=self._client.next_number(), reason=reason), MOTION_S)
            self._client.await_state()

    def stop(self) -> None:
        """Gives control back, upon which the arm holds, and closes the connection; twice is once."""
        self._client.close()

    def _unstopped(self) -> ArmState:
        state = self._client.newest()
        if state.fault:
            raise RobotFault(f"the arm is stopped by {state.fault} ({state.detail}); call recover(reason)")
        return state

    def _request(self, setpoint: Setpoint, deadline_s: float) -> Follow:
        return Follow(
            number=self._client.next_number(), position=_three(setpoint.position),
            quaternion=_four(setpoint.quaternion), gripper_width=float(setpoint.gripper_width),
            deadline_s=deadline_s,
        )  # fmt: skip

    def _set_gains(self) -> None:
        gains = self._gains
        if gains is not None:
            request = SetGains(
                number=self._client.next_number(), stiffness=gains.stiffness, damping_ratio=gains.damping_ratio,
                clip_lower=gains.clip_lower, clip_upper=gains.clip_upper,
            )  # fmt: skip
            self._client.ask(request, meanwhile=self._meanwhile)


@contextmanager
def as_fault() -> Iterator[None]:
    """To a task, a server that refuses or is gone is a robot that has a fault."""
    try:
        yield
    except (RobotRefused, RobotUnreachable) as error:
        raise RobotFault(str(error)) from error


def _three(values: Array) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def _four(values: Array) -> tuple[float, float, float, float]:
    x, y, z, w = map(float, values)
    return x, y, z, w
