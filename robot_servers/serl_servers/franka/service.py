"""The robot server's ZMQ service: who may ask what of the arm, and what the arm does, for everybody who listens.

One thread, which waits for nothing but the next thing to happen. What takes longer (a reset, a recovery) is a
generator that goes on with each new state of the arm.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import zmq

from serl_servers.franka.checks import check_gripper, check_pose
from serl_servers.franka.config import ServerConfig
from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.driver import DriverError
from serl_servers.franka.hand import Hand
from serl_servers.franka.lease import Lease
from serl_servers.franka.mailbox import read_text
from serl_servers.franka.operations import Operations
from serl_servers.franka.realtime import require_realtime
from serl_servers.franka.resets import Refusal, compile_resets, require_running
from serl_servers.franka.telemetry import arm_state
from serl_suite.errors import SerlError
from serl_suite.wire.endpoint import AddressError, PortInUse, bind_router
from serl_suite.wire.keys import ServerKeys, server_keys
from serl_suite.wire.messages import WireError
from serl_suite.wire.robot_messages import (
    AnyRequest,
    Done,
    Follow,
    Heartbeat,
    MoveGripper,
    NotFinite,
    Refused,
    Release,
    Reset,
    ServerReport,
    ShowStatus,
    Stop,
    TakeControl,
    decode_request,
    encode,
    state_address,
)

__all__ = ["RobotService"]

POLL_MS = 20
"""Also the period of the signs of life that the control process gets at least."""
SILENCE_S = 0.05
"""The state is published so often even where there is no new one: a service without an arm is not a dead service."""
MAX_MESSAGE_BYTES = 64 * 1024
SAME_WIDTH_M = 1e-3
FAREWELL_MS = 200

_log = logging.getLogger(__name__)


class RobotService:
    """Owns the control process, the hand and both sockets.

    Args:
        config: Of the server.

    Raises:
        SerlError: The arm or the hand does not answer, or the address cannot be had, or not without keys.
    """

    def __init__(self, config: ServerConfig) -> None:
        if config.require_realtime:
            require_realtime(config.ip)
        self._config = config
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        keys = server_keys(config.keys) if config.keys is not None else None
        self._open_sockets(keys)
        self.link = ControlLink(config)
        self.hand: Hand | None = None
        try:
            compile_resets()
            self.hand = Hand(config.ip, config.grasp_force_n) if config.hand else None
            self.link.start()
        except SerlError:
            self.close()
            raise
        self._lease, self._operations = Lease(), Operations(self.link, config.control)
        self._operation: Iterator[None] | None = None
        self._asker = (b"", 0)
        """Who asked for the operation, and its number."""
        self._followed: dict[int, int] = {}
        """Requests by the number of their setpoint, until it shows."""
        self._shown = 0
        self._published_at = 0.0
        self._poller = zmq.Poller()
        for source in (self._router, self.link.wake_fd, *((self.hand,) if self.hand is not None else ())):
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
        self._receive()
        now = time.monotonic()
        if self.link.look() or now - self._published_at > SILENCE_S:
            self._published_at = now
            self._shown = self._followed.pop(int(self.link.state.setpoint[0]), self._shown)
            self._publisher.send(
                encode(arm_state(self.link, self.hand, self._shown, self._lease.holder)), zmq.NOBLOCK
            )
        if self.hand is not None:
            self.hand.look()
        if self._operation is not None:
            self._go_on()
        self.link.beat()

    def close(self) -> None:
        """Brings the arm to rest and lets go of everything."""
        self.link.end()
        if self.hand is not None:
            self.hand.close()
        self._router.close(FAREWELL_MS)
        self._publisher.close(FAREWELL_MS)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def _open_sockets(self, keys: ServerKeys | None) -> None:
        address = self._config.bind
        try:
            self._router, self._authenticator = bind_router(self._context, address, keys, MAX_MESSAGE_BYTES)
        except PortInUse as error:
            self._context.term()
            raise PortInUse(
                f"{address} is in use by another robot server? Choose another with --bind"
            ) from error
        except AddressError:
            self._context.term()
            raise
        self._publisher = self._context.socket(zmq.PUB)
        self._publisher.set(zmq.SNDHWM, 4)
        if keys is not None:
            self._publisher.set(zmq.CURVE_SERVER, 1)
            self._publisher.set(zmq.CURVE_SECRETKEY, keys.own.secret)
            self._publisher.set(zmq.CURVE_PUBLICKEY, keys.own.public)
        self._publisher.bind(state_address(address))

    def _receive(self) -> None:
        while True:
            try:
                identity, *frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                if len(frames) != 1:
                    raise WireError(f"{len(frames)} frames instead of one")
                request = decode_request(frames[0])
            except NotFinite as error:
                self._answer(identity, Refused(number=error.number, reason=str(error)))
                continue
            except WireError as error:
                _log.warning("dropped a message: %s", error)
                continue
            self._lease.renew(identity)
            try:
                self._handle(identity, request)
            except (Refusal, DriverError) as error:
                self._answer(identity, Refused(number=request.number, reason=str(error)))

    def _answer(self, identity: bytes, answer: Done | Refused | ServerReport) -> None:
        with suppress(zmq.ZMQError):  # it has gone, or reads nothing
            self._router.send_multipart([identity, encode(answer)], zmq.NOBLOCK)

    def _handle(self, identity: bytes, request: AnyRequest) -> None:
        match request:
            case ShowStatus():
                self._answer(identity, self._report(request.number))
                return
            case Stop():
                self._stop(request)
            case TakeControl():
                objection = self._lease.take(identity, request.client)
                if objection is not None:
                    raise Refusal(objection)
            case _:
                objection = self._lease.objection(identity)
                if objection is not None:
                    raise Refusal(objection)
                if self._command(identity, request):
                    return
        self._answer(identity, Done(number=request.number))

    def _command(self, identity: bytes, request: AnyRequest) -> bool:
        """What the controlling client asks. Returns whether the answer comes later, or not at all."""
        match request:
            case Heartbeat():
                return False
            case Follow():
                self._follow(request)
                return True
            case MoveGripper():
                check_gripper(request.width, request.force_n)
                self._move_gripper(request.width, request.force_n)
                return False
            case Release():
                self._lease.release(identity)
                self._abandon("control was released")
                self.link.hold()
                return False
        if self._operation is not None:
            raise Refusal("another reset or setting is under way; wait for its answer")
        operation = self._operations.begin(request, self.hand)
        if isinstance(request, Reset) and request.gripper_width is not None:
            self._move_gripper(request.gripper_width)
        self._operation, self._asker = operation, (identity, request.number)
        return True

    def _go_on(self) -> None:
        """Resumes what takes longer, and answers when it has ended."""
        assert self._operation is not None
        identity, number = self._asker
        if self._lease.objection(identity) is not None:
            self._abandon("the client that asked has lost control")
            self.link.hold()
            return
        try:
            next(self._operation)
        except StopIteration:
            self._operation = None
            self._find_hand()
            self._answer(identity, Done(number=number))
        except (Refusal, DriverError) as error:
            self._operation = None
            self.link.hold()
            self._answer(identity, Refused(number=number, reason=str(error)))

    def _find_hand(self) -> None:
        """After a recovery: whatever took away the arm may have taken away the hand. One that does not answer yet is
        looked for again after the next."""
        if self.hand is None or not self.hand.is_gone:
            return
        try:
            found = Hand(self._config.ip, self._config.grasp_force_n)
        except DriverError as error:
            _log.warning("%s", error)
            return
        self._poller.unregister(self.hand)
        self.hand.close()
        self.hand = found
        self._poller.register(found, zmq.POLLIN)

    def _abandon(self, reason: str) -> None:
        if self._operation is not None:
            self._operation = None
            identity, number = self._asker
            self._answer(identity, Refused(number=number, reason=reason))

    def _follow(self, request: Follow) -> None:
        if self._operation is not None:
            raise Refusal("a reset or a setting is under way; setpoints are taken after its answer")
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

    def _move_gripper(self, width: float, force_n: float | None = None) -> None:
        if self.hand is None:
            raise Refusal("this arm has no hand")
        self.hand.move(width, force_n)

    def _stop(self, request: Stop) -> None:
        _log.warning("asked to stop: %s", request.reason)
        self._abandon("the arm was stopped")
        self.link.stop()

    def _report(self, number: int) -> ServerReport:
        link, config = self.link, self._operations.config
        return ServerReport(
            number=number, ip=self._config.ip, controller=self._lease.holder, phase=link.phase.name.lower(),
            fault=link.fault, detail=link.detail, realtime=self.realtime, control_pid=link.pid,
            success_rate=float(link.state.success_rate[0]), stiffness=config.stiffness,
            box_lower=config.box_lower, box_upper=config.box_upper,
        )  # fmt: skip
