"""The robot server of a Franka arm: what clients ask of it, and what the arm does, for everybody who listens.

One thread, which waits for nothing but the next thing to happen. What takes longer (a reset, a recovery) is a
generator that goes on with each new state of the arm.
"""

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np
import zmq

from serl_servers.franka.checks import check_gripper, check_pose
from serl_servers.franka.config import ServerConfig
from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.driver import DriverError
from serl_servers.franka.hand import Hand
from serl_servers.franka.mailbox import read_text
from serl_servers.franka.operations import Operations
from serl_servers.franka.realtime import require_realtime
from serl_servers.franka.resets import compile_resets, require_running
from serl_servers.franka.telemetry import arm_state
from serl_servers.front import Front, Refusal
from serl_suite.errors import SerlError
from serl_suite.wire.keys import server_keys
from serl_suite.wire.robot_messages import (
    AnyRequest,
    Follow,
    MoveGripper,
    Reset,
    ServerReport,
)

__all__ = ["RobotService"]

POLL_MS = 20
"""Also the period of the signs of life that the control process gets at least."""
SILENCE_S = 0.05
"""The state is published so often even where there is no new one: a service without an arm is not a dead service."""
SAME_WIDTH_M = 1e-3

_log = logging.getLogger(__name__)


class RobotService:
    """Owns the control process, the hand and what clients come in by. Implements `Served`.

    Args:
        config: Of the server.

    Raises:
        SerlError: The arm or the hand does not answer, or the address cannot be had, or not without keys.
    """

    def __init__(self, config: ServerConfig) -> None:
        if config.require_realtime:
            require_realtime(config.ip)
        self._config = config
        keys = server_keys(config.keys) if config.keys is not None else None
        self._front = Front(config.bind, keys, self)
        self.link = ControlLink(config)
        self.hand: Hand | None = None
        try:
            compile_resets()
            self.hand = Hand.found(config.ip, config.grasp_force_n) if config.hand else None
            self.link.start()
        except SerlError:
            self.close()
            raise
        self._operations = Operations(self.link, config.control)
        self._followed: dict[int, int] = {}
        """Requests by the number of their setpoint, until it shows."""
        self._shown = 0
        self._published_at = 0.0
        self._poller = zmq.Poller()
        for source in (
            self._front.requests,
            self.link.wake_fd,
            *((self.hand,) if self.hand is not None else ()),
        ):
            self._poller.register(source, zmq.POLLIN)

    @property
    def realtime(self) -> list[str]:
        """What the kernel permits the control process, a line each."""
        return read_text(self.link.state.realtime).splitlines()

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serves until it is told to stop."""
        while not should_stop():
            self.turn()

    def turn(self) -> None:
        """Waits for the next thing to happen, and deals with it."""
        self._poller.poll(POLL_MS)
        # first: a service that was held up must not take what has come too late meanwhile
        is_new = self.link.look()
        self._front.receive()
        now = time.monotonic()
        if is_new or now - self._published_at > SILENCE_S:
            self._published_at = now
            self._shown = self._followed.pop(int(self.link.state.setpoint[0]), self._shown)
            self._front.publish(arm_state(self.link, self.hand, self._shown, self._front.lease.holder))
        if self.hand is not None:
            self.hand.look()
        self._front.go_on()
        self.link.beat()

    def close(self) -> None:
        """Brings the arm to rest and lets go of everything."""
        self.link.end()
        if self.hand is not None:
            self.hand.close()
        self._front.close()

    @property
    def fault(self) -> str:
        """Part of `Served`."""
        return self.link.fault

    def report(self, number: int) -> ServerReport:
        """Part of `Served`."""
        link, config = self.link, self._operations.config
        return ServerReport(
            number=number, ip=self._config.ip, controller=self._front.lease.holder, phase=link.phase.name.lower(),
            fault=link.fault, detail=link.detail, realtime=self.realtime, control_pid=link.pid,
            success_rate=float(link.state.success_rate[0]), stiffness=config.stiffness,
            box_lower=config.box_lower, box_upper=config.box_upper,
        )  # fmt: skip

    def stop(self, reason: str) -> None:
        """Part of `Served`: brings the arm to rest, which is latched."""
        self.link.stop()

    def hold(self) -> None:
        """Part of `Served`."""
        self.link.hold()

    def follow(self, request: Follow) -> None:
        """Part of `Served`."""
        require_running(self.link)
        check_pose(self._operations.config, request)
        now = float(self.link.state.time[0])
        if now > request.deadline_s:
            late = now - request.deadline_s
            raise Refusal(
                f"the setpoint came {late * 1e3:.0f} ms after its deadline; look for what delays the client"
            )
        number = self.link.follow(np.array(request.position), np.array(request.quaternion))
        self._followed[number] = request.number
        if len(self._followed) > 100:
            del self._followed[next(iter(self._followed))]
        width = request.gripper_width
        if width is not None and self.hand is not None and abs(width - self.hand.target) > SAME_WIDTH_M:
            self.hand.move(width)

    def move_gripper(self, request: MoveGripper) -> None:
        """Part of `Served`."""
        check_gripper(request.width, request.force_n)
        self._move_hand(request.width, request.force_n)

    def begin(self, request: AnyRequest) -> Iterator[None]:
        """Part of `Served`: resets, recovery, settings."""
        operation = self._operations.begin(request, self.hand)
        if isinstance(request, Reset) and request.gripper_width is not None:
            self._move_hand(request.gripper_width)
        return self._with_hand(operation)

    def _with_hand(self, operation: Iterator[None]) -> Iterator[None]:
        yield from operation
        yield from self._find_hand()

    def _move_hand(self, width: float, force_n: float | None = None) -> None:
        if self.hand is None:
            raise Refusal("this arm has no hand")
        self.hand.move(width, force_n)

    def _find_hand(self) -> Iterator[None]:
        """After a recovery: whatever took away the arm may have taken away the hand. One that does not answer yet is
        looked for again after the next."""
        if self.hand is None or not self.hand.is_gone:
            return
        found = Hand(self._config.ip, self._config.grasp_force_n)
        try:
            yield from found.greeting()
        except DriverError as error:
            _log.warning("%s", error)
            return
        self._poller.unregister(self.hand)
        self.hand.close()
        self.hand = found
        self._poller.register(found, zmq.POLLIN)
