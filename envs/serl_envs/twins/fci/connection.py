"""One client's TCP connection: requests in, replies out, without ever waiting for it."""

import socket
import struct
from typing import NamedTuple

__all__ = ["Connection", "Request", "listen", "open_datagrams"]

MAX_REQUEST_BYTES = 4096
"""Far above the largest request that a client has a reason to send."""
MAX_UNREAD_BYTES = 1 << 20
"""A client that reads none of its replies is let go."""
KEEPALIVE_S = 2
"""A client whose cable is cut closes nothing: after about three times this its connection counts as lost."""


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


def open_datagrams(address: str, peer: str, port: int) -> socket.socket:
    """Returns a socket that does not block, at an address of this machine, for datagrams to and from one peer only."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 0))
    datagrams.connect((peer, port))
    datagrams.setblocking(False)
    return datagrams


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
