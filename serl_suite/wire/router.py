"""The learner's socket: it never blocks, and whatever a peer sends that is wrong is counted, logged and dropped."""

import logging
import select
import time
from collections import Counter
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from serl_suite.errors import SerlError
from serl_suite.wire.codec import Buffer, Codec
from serl_suite.wire.endpoint import Waker, bind_router
from serl_suite.wire.keys import ServerKeys
from serl_suite.wire.messages import Message, WireError

__all__ = ["Router"]

FAREWELL_MS = 500
LOG_PERIOD_S = 1.0
MONITORED = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

logger = logging.getLogger(__name__)


class Router:
    """Belongs to one thread at a time, but for `wake`. A peer is named by the identity of its connection.

    Raises:
        PortInUse, AddressError.
    """

    def __init__(self, bind: str, keys: ServerKeys | None, max_message_bytes: int) -> None:
        self.counters: Counter[str] = Counter()
        """What was dropped, by cause."""
        self.disconnects = 0
        """Connections that ended, for whatever reason."""
        self._max_message_bytes = max_message_bytes
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket, self._authenticator = bind_router(self._context, bind, keys, max_message_bytes)
        except (SerlError, OSError, zmq.ZMQError):
            self._context.term()
            raise
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._monitor = self._socket.get_monitor_socket(MONITORED)
        self._codec = Codec()
        self._logged_at = float("-inf")
        self._waker = Waker()
        self._poller = select.poll()
        for descriptor in (self._socket.FD, self._waker.fd, self._monitor.FD):
            self._poller.register(descriptor, select.POLLIN)

    def send(self, identity: bytes, message: Message) -> None:
        """A peer that is gone or reads nothing misses the message; it will ask again when it is back."""
        self.send_frames(identity, self._codec.encode(message))

    def send_frames(self, identity: bytes, frames: list[Buffer]) -> None:
        """The same for an encoded message."""
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def wait(self, timeout_ms: float) -> None:
        """Until something comes, `wake` is called, or the time is over."""
        if self._readable:  # asked first, because sending takes the descriptor's signal
            return
        if (self._waker.fd, select.POLLIN) in self._poller.poll(timeout_ms):
            self._waker.clear()

    def wake(self) -> None:
        """Ends `wait`, from any thread."""
        self._waker.wake()

    def receive(self, handle: Callable[[bytes, Message], None], at_most: int) -> None:
        """Passes on up to `at_most` messages that have come, each with its peer; what `handle` refuses with a
        WireError was malformed, too."""
        for _ in range(at_most):
            if not self._readable:
                return
            identity = frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            frames = []
            while frame.more:  # recv_multipart asks the socket for this, which takes twice as long
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
                frames.append(frame.buffer)
            if sum(map(len, frames)) > self._max_message_bytes:
                self.drop("oversized", f"a message of more than {self._max_message_bytes} bytes")
                continue
            try:
                handle(identity.bytes, self._codec.decode(frames))
            except WireError as e:
                self.drop("malformed", str(e))

    def watch(self) -> None:
        """Counts what libzmq itself turned away."""
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self.disconnects += 1
            else:
                self.drop("handshakes", "a connection that is no peer of ours, or has no key that is let in")

    def drop(self, kind: str, cause: str) -> None:
        """Counts something that is not taken, and logs it, at most once a second."""
        self.counters[kind] += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_PERIOD_S:
            self._logged_at = now
            logger.warning("dropped (%s, %d so far): %s", kind, self.counters[kind], cause)

    def close(self) -> None:
        """Leaves what was sent last a moment to go out."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(FAREWELL_MS)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()
        self._waker.close()

    @property
    def _readable(self) -> bool:
        return bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)
