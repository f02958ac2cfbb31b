"""The actor's socket: it never blocks, it is replaced when the learner falls silent, and it counts what it drops."""

import logging
import select
import time
from collections import Counter
from collections.abc import Callable

import zmq

from serl_suite.wire.codec import Codec
from serl_suite.wire.endpoint import Waker, connect_dealer
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.messages import Message, WireError
from serl_suite.wire.records import Buffer

__all__ = ["Link"]

SILENCE_S = 1.0
"""A learner silent for so long gets a new connection; doubled up to `MAX_SILENCE_S` while it stays silent."""
MAX_SILENCE_S = 4.0
FAREWELL_MS = 300
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

logger = logging.getLogger(__name__)


class Link:
    """One connection after another to the same learner. Not thread-safe, but for `wait`, which needs no lock while
    another thread sends, and for `wake`.

    Raises: AddressError.
    """

    def __init__(self, address: str, keys: ClientKeys | None, max_message_bytes: int) -> None:
        self.address = address
        self.codec = Codec()
        self.counters: Counter[str] = Counter()
        """Messages that were dropped, by cause, beside `reconnects` and `resent` steps."""
        self.heard_at = time.monotonic()
        self._keys, self._max_message_bytes = keys, max_message_bytes
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._silence_s = SILENCE_S
        self._waker = Waker()
        self._woken = False
        self._connect(self.heard_at)

    def send(self, message: Message) -> bool:
        """False where the socket's queue is full; the message is gone then."""
        return self.send_frames(self.codec.encode(message))

    def send_frames(self, frames: list[Buffer]) -> bool:
        """The same for an encoded message."""
        try:
            for frame in frames[:-1]:  # send_multipart looks at every frame first, which takes as long again
                self._socket.send(frame, NOBLOCK_MORE)
            self._socket.send(frames[-1], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, handle: Callable[[Message], None]) -> None:
        """Passes on everything that has come; what `handle` refuses with a WireError was malformed, too."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = self.codec.decode(frames)
                self.heard_at, self._silence_s = time.monotonic(), SILENCE_S
                handle(message)
            except WireError as e:
                self.counters["malformed"] += 1
                if self.counters["malformed"].bit_count() == 1:
                    logger.warning("dropped %d malformed messages: %s", self.counters["malformed"], e)

    def renew_if_silent(self, now: float) -> bool:
        """Opens a new connection if the learner has been silent for too long, and says whether it did."""
        if now - max(self.heard_at, self._connected_at) <= self._silence_s:
            return False
        self._silence_s = min(2 * self._silence_s, MAX_SILENCE_S)
        self.counters["reconnects"] += 1
        self._socket.close(0)
        self._connect(now)
        return True

    def wait(self, timeout_ms: float) -> None:
        """Until something comes, `wake` is called, or the time is over. Watches the socket's own descriptor, not
        the socket, which another thread may be using."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        poller.register(self._waker.fd, select.POLLIN)
        poller.poll(timeout_ms)

    def wake(self) -> None:
        """Ends `wait`, from any thread."""
        if not self._woken:
            self._woken = True
            self._waker.wake()

    def wake_if_readable(self) -> None:
        """After sending beside a thread in `wait`: sending takes the descriptor's signal that something has come."""
        if int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            self.wake()

    def clear_wake(self) -> None:
        """After `wait`, before looking at what there is to do."""
        self._waker.clear()
        self._woken = False

    def close(self) -> None:
        """Leaves what was sent last a moment to go out."""
        self._socket.close(FAREWELL_MS)
        self._context.term()
        self._waker.close()

    def _connect(self, now: float) -> None:
        self._socket = connect_dealer(self._context, self.address, self._keys, self._max_message_bytes)
        self._descriptor = self._socket.FD
        self._connected_at = now
