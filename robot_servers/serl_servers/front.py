"""Where clients of a robot server come in: its sockets, who is in control, and one request at a time that takes longer.

The same in front of every kind of arm; what is behind it is a `Served`.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import zmq

from serl_servers.lease import Lease
from serl_suite.errors import SerlError
from serl_suite.wire.endpoint import AddressError, PortInUse, bind_router
from serl_suite.wire.keys import ServerKeys
from serl_suite.wire.messages import WireError
from serl_suite.wire.robot_messages import (
    AnyAnswer,
    AnyRequest,
    ArmState,
    Done,
    Follow,
    Heartbeat,
    MoveGripper,
    NotFinite,
    Recover,
    Refused,
    Release,
    ServerReport,
    ShowStatus,
    Stop,
    TakeControl,
    decode_request,
    encode,
    state_address,
)

__all__ = ["Front", "Refusal", "Served"]

MAX_MESSAGE_BYTES = 64 * 1024
FAREWELL_MS = 200
RECOVERY_PERIOD_S = 2.0
"""Recoveries come no faster: whoever recovers before every command hides collisions."""

_log = logging.getLogger(__name__)


class Refusal(SerlError):
    """What was asked is not done, or not to the end; the message says why."""


class Served(Protocol):
    """An arm, as it is asked by those who may. Every `SerlError` that it raises becomes the client's answer."""

    @property
    def fault(self) -> str:
        """The latched one's name; empty: none."""

    def report(self, number: int) -> ServerReport:
        """The server's state in words, as the answer to a request."""

    def stop(self, reason: str) -> None:
        """Brings the arm to rest and latches that."""

    def hold(self) -> None:
        """Slows down and holds."""

    def follow(self, request: Follow) -> None:
        """Takes a setpoint."""

    def move_gripper(self, request: MoveGripper) -> None:
        """Starts to move the fingers."""

    def begin(self, request: AnyRequest) -> Iterator[None] | None:
        """Anything else; a recovery only where there is a fault, and not too soon after the last. Returns what goes on
        with each `Front.go_on` until it ends; None: it is done already."""


class Front:
    """Belongs to one thread.

    Args:
        bind: tcp://HOST:PORT of requests; states are published at the port after it.
        keys: Needed other than on loopback.
        served: What is behind it.

    Raises:
        AddressError, PortInUse: Nothing can listen there.
    """

    def __init__(self, bind: str, keys: ServerKeys | None, served: Served) -> None:
        self.lease = Lease()
        self._served = served
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self.requests, self._authenticator = bind_router(self._context, bind, keys, MAX_MESSAGE_BYTES)
        except PortInUse as error:
            self._context.term()
            raise PortInUse(
                f"{bind} is in use by another robot server? Choose another with --bind"
            ) from error
        except AddressError:
            self._context.term()
            raise
        self._states = self._context.socket(zmq.PUB)
        self._states.set(zmq.SNDHWM, 4)
        if keys is not None:
            self._states.set(zmq.CURVE_SERVER, 1)
            self._states.set(zmq.CURVE_SECRETKEY, keys.own.secret)
            self._states.set(zmq.CURVE_PUBLICKEY, keys.own.public)
        self._states.bind(state_address(bind))
        self._operation: Iterator[None] | None = None
        self._asker = (b"", 0)
        """Who asked for the operation, and its number."""
        self._recovered_at = -math.inf

    @property
    def busy(self) -> bool:
        """Whether a request that takes longer is under way."""
        return self._operation is not None

    def publish(self, state: ArmState) -> None:
        """To everybody who listens; who is too slow misses it."""
        self._states.send(encode(state), zmq.NOBLOCK)

    def receive(self) -> None:
        """Deals with every request that has come."""
        while True:
            try:
                identity, *frames = self.requests.recv_multipart(zmq.NOBLOCK)
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
            self.lease.renew(identity)
            try:
                self._handle(identity, request)
            except SerlError as error:
                self._answer(identity, Refused(number=request.number, reason=str(error)))

    def go_on(self) -> None:
        """Resumes what takes longer, and answers when it has ended."""
        if self._operation is None:
            return
        identity, number = self._asker
        if self.lease.objection(identity) is not None:
            self._abandon("the client that asked has lost control")
            self._served.hold()
            return
        try:
            next(self._operation)
        except StopIteration:
            self._operation = None
            self._answer(identity, Done(number=number))
        except SerlError as error:
            self._operation = None
            self._served.hold()
            self._answer(identity, Refused(number=number, reason=str(error)))

    def close(self) -> None:
        """Leaves the last answers a moment to go out."""
        self.requests.close(FAREWELL_MS)
        self._states.close(FAREWELL_MS)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def _answer(self, identity: bytes, answer: AnyAnswer) -> None:
        with suppress(zmq.ZMQError):  # it has gone, or reads nothing
            self.requests.send_multipart([identity, encode(answer)], zmq.NOBLOCK)

    def _handle(self, identity: bytes, request: AnyRequest) -> None:
        match request:
            case ShowStatus():
                self._answer(identity, self._served.report(request.number))
                return
            case Stop():
                _log.warning("asked to stop: %s", request.reason)
                self._abandon("the arm was stopped")
                self._served.stop(request.reason)
            case TakeControl():
                self._require(self.lease.take(identity, request.client))
            case _:
                self._require(self.lease.objection(identity))
                if not self._command(identity, request):
                    return
        self._answer(identity, Done(number=request.number))

    def _command(self, identity: bytes, request: AnyRequest) -> bool:
        """What the controlling client asks. Returns whether it is done; else the answer comes later, or not at all."""
        match request:
            case Heartbeat():
                return True
            case Follow():
                if self.busy:
                    raise Refusal("a reset or a setting is under way; setpoints are taken after its answer")
                self._served.follow(request)
                return False
            case MoveGripper():
                self._served.move_gripper(request)
                return True
            case Release():
                self.lease.release(identity)
                self._abandon("control was released")
                self._served.hold()
                return True
        if self.busy:
            raise Refusal("another reset or setting is under way; wait for its answer")
        if isinstance(request, Recover):
            self._admit(request)
        self._operation, self._asker = self._served.begin(request), (identity, request.number)
        return self._operation is None

    def _admit(self, request: Recover) -> None:
        """Raises: Refusal, where there is nothing to recover from, or the last recovery was too short ago."""
        fault, now = self._served.fault, time.monotonic()
        passed_s = now - self._recovered_at
        if not fault:
            raise Refusal("there is no fault to recover from")
        if passed_s < RECOVERY_PERIOD_S:
            raise Refusal(
                f"the last recovery was {passed_s:.1f} s ago; at most one in {RECOVERY_PERIOD_S:.0f} s: find out what "
                "stops the arm"
            )
        self._recovered_at = now
        _log.warning("recovering from %s: %s", fault, request.reason)

    def _abandon(self, reason: str) -> None:
        if self._operation is not None:
            self._operation = None
            identity, number = self._asker
            self._answer(identity, Refused(number=number, reason=reason))

    @staticmethod
    def _require(objection: str | None) -> None:
        if objection is not None:
            raise Refusal(objection)
