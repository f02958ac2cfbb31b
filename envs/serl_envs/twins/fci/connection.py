"""One client: requests in and replies out over TCP, datagrams beside it, without ever waiting for anything."""

import abc
import logging
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Connection", "Greeting", "Request", "Session", "listen"]

MAX_REQUEST_BYTES = 4096
"""Far above the largest request that a client has a reason to send."""
MAX_UNREAD_BYTES = 1 << 20
"""A client that reads none of its replies is let go."""
KEEPALIVE_S = 2
"""A client whose cable is cut closes nothing: after about three times this its connection counts as lost."""

CONNECT = 0
"""The first request, of the arm and of the hand."""

_log = logging.getLogger(__name__)


class Request(NamedTuple):
    """One framed command."""

    command: int
    number: int
    payload: bytes


def listen(address: str, port: int) -> socket.socket:
    """Returns a listening socket that does not block.

    Raises:
        OSError: The address is not this machine's, or the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    listener.listen(4)
    listener.setblocking(False)
    return listener


class Connection:
    """Frames a stream of (command, id, size) headers and payloads.

    Args:
        stream: Connected, if perhaps no longer; owned.
        peer: Address of the other end.
        header: Its last field is the size of the request in bytes, header included.
    """

    def __init__(self, stream: socket.socket, peer: str, header: struct.Struct) -> None:
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            stream.setsockopt(socket.IPPROTO_TCP, option, KEEPALIVE_S)
        self.peer = peer
        self.broken: str | None = None
        """Why nothing more will come of this connection; None while it is good."""
        self._stream, self._header = stream, header
        self._inbound, self._outbound = bytearray(), bytearray()

    def fileno(self) -> int:
        """For poll."""
        return self._stream.fileno()

    def requests(self) -> list[Request]:
        """Returns what has arrived in full. What can be no request breaks the connection."""
        self._read()
        found = []
        while self.broken is None and len(self._inbound) >= self._header.size:
            command, number, size = self._header.unpack_from(self._inbound)
            if not self._header.size <= size <= MAX_REQUEST_BYTES:
                self.broken = f"a request of {size} bytes"
                break
            if len(self._inbound) < size:
                break
            found.append(Request(command, number, bytes(self._inbound[self._header.size : size])))
            del self._inbound[:size]
        return found

    def reply(self, request: Request, payload: bytes) -> None:
        """Sends, or keeps for `flush` what the peer has no room for yet."""
        header = self._header.pack(request.command, request.number, self._header.size + len(payload))
        self._outbound += header + payload
        self.flush()
        if len(self._outbound) > MAX_UNREAD_BYTES:
            self.broken = "it reads none of its replies"

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has something to do."""
        return bool(self._outbound)

    def flush(self) -> None:
        """Sends as much as the peer takes now."""
        try:
            while self._outbound:
                del self._outbound[: self._stream.send(self._outbound)]
        except BlockingIOError:
            pass
        except OSError as error:
            self.broken = str(error)

    def close(self) -> None:
        """Lets the peer go; twice is once."""
        self._stream.close()

    def _read(self) -> None:
        try:
            while True:
                chunk = self._stream.recv(65536)
                if not chunk:
                    self.broken = "the client has closed it"
                    return
                self._inbound += chunk
        except BlockingIOError:
            pass
        except OSError as error:
            self.broken = str(error)


class Greeting(NamedTuple):
    """How a service is greeted."""

    name: str
    """Of what is served, for people."""
    version: int
    header: struct.Struct
    """Of a request; its last field is the size in bytes, header included."""
    connect: struct.Struct
    """Version, the client's UDP port."""
    reply: struct.Struct
    """Status (0 ok, 1 another version), version."""


class Session(abc.ABC):
    """What one client and one service say to each other, from Connect on.

    Args:
        greeting: Of the service.
        stream: The client's TCP connection; owned.
        peer: Its address.
        address: From which states are sent, and at which datagrams are received.
    """

    def __init__(self, greeting: Greeting, stream: socket.socket, peer: str, address: str) -> None:
        self.connection = Connection(stream, peer, greeting.header)
        self.datagrams: socket.socket | None = None
        """To and from the client; open once it has said where its states go."""
        self._greeting, self._address = greeting, address

    @property
    def is_established(self) -> bool:
        """Whether the client has said who it is."""
        return self.datagrams is not None

    def answer(self) -> None:
        """Answers what has arrived."""
        for request in self.connection.requests():
            if self.datagrams is None:
                self._connect(request)
            else:
                self._handle(request)
            if self.connection.broken:
                return

    def close(self) -> None:
        """Answers whoever waits, since it would hang otherwise, and lets the client go."""
        self._part()
        if self.connection.broken:
            name, peer = self._greeting.name, self.connection.peer
            _log.info("the %s's client %s is gone: %s", name, peer, self.connection.broken)
        self.connection.close()
        if self.datagrams is not None:
            self.datagrams.close()

    @abc.abstractmethod
    def report(self) -> None:
        """Tells the client how what it began has ended, if it has."""

    @abc.abstractmethod
    def _handle(self, request: Request) -> None:
        """Answers a request of a client that is established."""

    @abc.abstractmethod
    def _part(self) -> None:
        """Stops what the client began, and answers it, if its connection is good."""

    def _send(self, packet: bytes) -> None:
        """Sends a datagram. A full queue, a cut cable, a client that has gone: a lost packet; TCP tells the latter."""
        if self.datagrams is not None:
            with suppress(OSError):
                self.datagrams.send(packet)

    def _connect(self, request: Request) -> None:
        name, ours, _, connect, reply = self._greeting
        if request.command != CONNECT or len(request.payload) != connect.size:
            self.connection.broken = "it did not begin with Connect"
            return
        version, port = connect.unpack(request.payload)
        good = version == ours and port > 0
        self.connection.reply(request, reply.pack(0 if good else 1, ours))
        if not good:
            self.connection.broken = f"it speaks version {version}, and the {name} {ours}"
            return
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind((self._address, 0))
        self.datagrams.connect((self.connection.peer, port))
        self.datagrams.setblocking(False)
        _log.info("the %s's client is %s, states go to port %d", name, self.connection.peer, port)
