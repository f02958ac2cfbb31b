"""One client of the hand: its requests over TCP, and states over UDP."""

import logging
import socket

from serl_envs.twins.fci.connection import Greeting, Request, Session
from serl_envs.twins.fci.hand import Hand
from serl_envs.twins.fci.hand_packets import (
    CONNECT,
    CONNECT_REPLY,
    GRASP,
    HEADER,
    MOVE,
    PAYLOAD_BYTES,
    REPLY,
    STATE,
    VERSION,
    HandCommand,
    HandStatus,
)

__all__ = ["HandSession"]

_log = logging.getLogger(__name__)

TEMPERATURE_C = 30

_GREETING = Greeting("hand", VERSION, HEADER, CONNECT, CONNECT_REPLY)


class HandSession(Session):
    """Answers requests out of the hand: those that move the fingers when they have stopped.

    Args:
        stream: The client's TCP connection; owned.
        peer: Its address.
        hand: Shared by the sessions, one after another.
        address: From which states are sent.
    """

    def __init__(self, stream: socket.socket, peer: str, hand: Hand, address: str) -> None:
        super().__init__(_GREETING, stream, peer, address)
        self._hand = hand
        self._pending: Request | None = None

    def report(self) -> None:
        """Tells the client how its command has ended, if it has."""
        outcome, self._hand.outcome = self._hand.outcome, None
        if outcome is not None and self._pending is not None:
            self._reply(self._pending, outcome)
            self._pending = None

    def send_state(self, time_ms: int) -> None:
        """Sends opening and grasp."""
        hand = self._hand
        self._send(
            STATE.pack(time_ms & 0xFFFFFFFF, hand.width, hand.max_width, hand.is_grasped, TEMPERATURE_C)
        )

    def _part(self) -> None:
        self._hand.stop()
        if self.connection.broken is None:
            self.report()
        self._hand.outcome = None

    def _handle(self, request: Request) -> None:
        if not _is_sound(request):
            _log.warning("command %d came with %d bytes of payload", request.command, len(request.payload))
            self._reply(request, HandStatus.FAIL)
            return
        command = HandCommand(request.command)
        self._hand.stop()
        self.report()
        if command is HandCommand.STOP:
            self._reply(request, HandStatus.SUCCESS)
        elif self._begin(command, request.payload):
            self._pending = request
        else:
            self._reply(request, HandStatus.FAIL)

    def _begin(self, command: HandCommand, payload: bytes) -> bool:
        if command is HandCommand.GRASP:
            return self._hand.grasp(*GRASP.unpack(payload))
        if command is HandCommand.MOVE:
            return self._hand.move(*MOVE.unpack(payload))
        self._hand.home()
        return True

    def _reply(self, request: Request, status: HandStatus) -> None:
        self.connection.reply(request, REPLY.pack(status))


def _is_sound(request: Request) -> bool:
    known = request.command in PAYLOAD_BYTES and request.command != HandCommand.CONNECT
    return known and len(request.payload) == PAYLOAD_BYTES[HandCommand(request.command)]
