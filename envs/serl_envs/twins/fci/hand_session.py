"""One client of the hand: its requests over TCP, and states over UDP."""

import logging
import socket
from contextlib import suppress

from serl_envs.twins.fci.connection import Connection, Request, open_datagrams
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


class HandSession:
    """Answers requests out of the hand: those that move the fingers when they have stopped.

    Args:
        stream: The client's TCP connection; owned.
        peer: Its address.
        hand: Shared by the sessions, one after another.
        address: From which states are sent.
    """

    def __init__(self, stream: socket.socket, peer: str, hand: Hand, address: str) -> None:
        self.connection = Connection(stream, peer, HEADER)
        self._hand, self._address = hand, address
        self._datagrams: socket.socket | None = None
        self._pending: Request | None = None

    @property
    def is_established(self) -> bool:
        """Whether the client has said who it is."""
        return self._datagrams is not None

    def answer(self) -> None:
        """Answers what has arrived, and begins what it asks for."""
        for request in self.connection.requests():
            if self._datagrams is None:
                self._connect(request)
            else:
                self._handle(request)
            if self.connection.broken:
                return

    def report(self) -> None:
        """Tells the client how its command has ended, if it has."""
        outcome, self._hand.outcome = self._hand.outcome, None
        if outcome is not None and self._pending is not None:
            self._reply(self._pending, outcome)
            self._pending = None

    def send_state(self, time_ms: int) -> None:
        """Sends opening and grasp."""
        if self._datagrams is None:
            return
        hand = self._hand
        state = STATE.pack(time_ms & 0xFFFFFFFF, hand.width, hand.max_width, hand.is_grasped, TEMPERATURE_C)
        # A full queue, a cut cable, a client that has gone: a lost packet, and TCP tells the latter.
        with suppress(OSError):
            self._datagrams.send(state)

    def close(self) -> None:
        """Stops what the client began, answers it, and lets the client go."""
        self._hand.stop()
        if self.connection.broken is None:
            self.report()
        self._hand.outcome = None
        if self.connection.broken:
            _log.info("the hand's client %s is gone: %s", self.connection.peer, self.connection.broken)
        self.connection.close()
        if self._datagrams is not None:
            self._datagrams.close()

    def _connect(self, request: Request) -> None:
        if request.command != HandCommand.CONNECT or len(request.payload) != CONNECT.size:
            self.connection.broken = "it did not begin with Connect"
            return
        version, port = CONNECT.unpack(request.payload)
        good = version == VERSION and port > 0
        self.connection.reply(request, CONNECT_REPLY.pack(0 if good else 1, VERSION))
        if not good:
            self.connection.broken = f"it speaks version {version}, and the hand {VERSION}"
            return
        self._datagrams = open_datagrams(self._address, self.connection.peer, port)
        _log.info("the hand's client is %s, states go to port %d", self.connection.peer, port)

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
