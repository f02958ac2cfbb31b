"""Reports and pictures over a socket between two processes of one machine."""

import select
import socket
from collections.abc import Iterator

from serl_suite.wire.camera_messages import MAX_MESSAGE_BYTES, Pixels, Report, pack, unpack
from serl_suite.wire.messages import WireError

__all__ = ["LinkClosed", "ReportLink"]

LENGTH_BYTES = 4
CHUNK_BYTES = 1 << 20


class LinkClosed(WireError):
    """The other process has gone."""


class ReportLink:
    """One end. Who reads never waits for the rest of a message: a process that is stopped in the middle of one stops
    itself only.

    Args:
        end: Connected; owned.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, report: Report, pixels: Pixels | None = None) -> None:
        """Sends a report and its picture; waits where the other does not read.

        Raises:
            LinkClosed: Nobody reads any more.
        """
        message = pack(report, pixels)
        try:
            self._socket.sendall(len(message).to_bytes(LENGTH_BYTES) + message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise LinkClosed("nobody reads any more") from error

    def has_some(self, timeout_s: float) -> bool:
        """Waits until there is something to receive; whether there is."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(timeout_s * 1e3))

    def receive(self) -> Iterator[tuple[Report, Pixels]]:
        """Yields what has come as a whole.

        Raises:
            LinkClosed: The other process has gone.
            WireError: What comes is no report.
        """
        closed = self._fill()
        while len(self._buffer) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._buffer[:LENGTH_BYTES])
            if end > MAX_MESSAGE_BYTES:
                raise WireError(f"a message of {end} bytes")
            if len(self._buffer) < end:
                break
            message = bytes(memoryview(self._buffer)[LENGTH_BYTES:end])
            del self._buffer[:end]
            yield unpack(message)
        if closed:
            raise LinkClosed("it has gone")

    def close(self) -> None:
        """Leaves; twice is once."""
        self._socket.close()

    def _fill(self) -> bool:
        """Takes what is there; whether the other has gone."""
        while True:
            try:
                chunk = self._socket.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            if not chunk:
                return True
            self._buffer += chunk
