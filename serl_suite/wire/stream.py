"""One session on its way from a spool to the learner."""

import time
from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np

from serl_suite.wire.codec import Buffer, EncodedStep
from serl_suite.wire.link import Link
from serl_suite.wire.messages import Ack, Welcome, WireError
from serl_suite.wire.spool import Spool

__all__ = ["Stream"]

GREET_PERIOD_S = 0.5
WINDOW_BYTES = 32 * 1024 * 1024
WINDOW_STEPS = 4096
"""At most so much is on its way unacknowledged: what the learner must hold before its disk has it."""
BATCH_BYTES = 768 * 1024
BATCH_STEPS = 256
BURST_GAP_S = 0.0003
HOLD_S = 0.001
"""Steps that follow each other faster than `BURST_GAP_S` wait up to `HOLD_S` for more, to be sent together."""


class _Batch(NamedTuple):
    """Steps that go as one message; one frame of a megabyte costs half of what twenty small ones cost."""

    headers: list[Buffer]
    sizes: list[int]
    body: bytearray

    @classmethod
    def empty(cls) -> "_Batch":
        return cls([], [], bytearray())

    def add(self, step: EncodedStep) -> None:
        """Copies the step."""
        self.headers.append(bytes(step.header))
        self.sizes.append(step.nbytes)
        for buffer in step.buffers:
            self.body.extend(buffer)

    @property
    def full(self) -> bool:
        return len(self.body) >= BATCH_BYTES or len(self.headers) >= BATCH_STEPS


class Stream:
    """Greets the learner until it is welcome, then sends what the learner has not acknowledged. Not thread-safe.

    Args:
        inherited: left behind by an earlier actor of this machine, which may have sent more than it could spool.
    """

    def __init__(self, spool: Spool, link: Link, *, inherited: bool = False) -> None:
        self.spool = spool
        self.session_id = spool.hello.session_id
        self.inherited = inherited
        self.open = False
        """Welcomed, over the connection there is now."""
        self._link = link
        self._given_up = False
        self._greeted_at = -np.inf
        self._cursor = 0
        """The seq to send next."""
        self._furthest = 0
        """The highest that `_cursor` ever was."""
        self._in_flight: deque[int] = deque()
        """Sizes of the unacknowledged steps right before `_cursor`."""
        self._in_flight_bytes = 0
        self._held = _Batch.empty()
        """From `_cursor` on: steps that wait for more, to be sent together."""
        self._held_at = self._offered_at = -np.inf

    @property
    def done(self) -> bool:
        """Whether everything was acknowledged."""
        return self.spool.first_seq == self.spool.next_seq

    @property
    def holds(self) -> bool:
        """Whether `pump` has something to send within `HOLD_S`."""
        return bool(self._held.headers)

    def greet(self, now: float) -> None:
        """Says hello, again and again, until there is an answer."""
        if not self.open and not self._given_up and now - self._greeted_at > GREET_PERIOD_S:
            self._greeted_at = now
            self._link.send(msgspec.structs.replace(self.spool.hello, first_seq=self.spool.first_seq))

    def greet_anew(self) -> None:
        """The learner does not know this session any more, or the connection was lost."""
        self.open, self._greeted_at = False, -np.inf

    def give_up(self) -> None:
        """The learner does not take this session."""
        self.open, self._given_up = False, True

    def welcomed(self, welcome: Welcome) -> str | None:
        """Goes on after the last step that the learner has. Returns why that must not be, where it must not.

        Raises: WireError, where the learner claims to have what was never sent.
        """
        spool, last = self.spool, welcome.last_durable_seq
        if spool.run_id not in (None, welcome.run_id):
            return (
                f"the learner at {self._link.address} runs {welcome.run_id} now, this session belongs to run "
                f"{spool.run_id}; start that one again, or start the actor anew"
            )
        if not self.inherited and last >= max(spool.next_seq, self._furthest):
            raise WireError("a welcome that knows steps which were never sent")
        spool.belongs_to(welcome.run_id)
        self.open = True
        self._link.counters["resent"] += max(0, self._cursor - last - 1)
        self._forget(last)
        self._rewind(last + 1)
        return None

    def acknowledged(self, ack: Ack) -> None:
        """Raises: WireError, where it is about steps that were never sent."""
        if not -1 <= ack.durable_seq < self._cursor:
            raise WireError("an acknowledgement of steps that were never sent")
        self._forget(ack.durable_seq)

    def resend(self, from_seq: int) -> None:
        """The learner missed a step."""
        if from_seq < self._cursor:
            self._link.counters["resent"] += self._cursor - from_seq
            self._rewind(from_seq)

    def offer(self, seq: int, step: EncodedStep) -> bool:
        """Sends a step that is about to be spooled or, in a burst, holds it for the next ones. False where it must
        come from the spool, later."""
        now = time.monotonic()
        burst, self._offered_at = now - self._offered_at < BURST_GAP_S, now
        if not (self.open and self._cursor + len(self._held.headers) == seq and self._has_room):
            return False
        if burst or self.holds:
            if not self.holds:
                self._held_at = now
                self._link.wake()
            self._held.add(step)
            return not self._held.full or self._flush()
        frames = self._link.codec.encode_steps(self.session_id, [step.header], step.buffers)
        if not self._link.send_frames(frames):
            return False
        self._sent([step.nbytes])
        return True

    def pump(self, now: float) -> None:
        """Sends what is due and fits the window: what was held, then what only the spool has."""
        if self.holds and (now - self._held_at < HOLD_S or not self._flush()):
            return
        while self.open and (batch := self._next_batch()).headers:
            if not self._send(batch):
                return

    @property
    def _has_room(self) -> bool:
        return len(self._in_flight) < WINDOW_STEPS and self._in_flight_bytes < WINDOW_BYTES

    def _next_batch(self) -> _Batch:
        batch, seq = _Batch.empty(), self._cursor
        while self._has_room and seq < self.spool.next_seq and not batch.full:
            batch.add(self.spool.get(seq))
            seq += 1
        return batch

    def _flush(self) -> bool:
        """Sends what is held; what the socket does not take will be read from the spool."""
        batch, self._held = self._held, _Batch.empty()
        return self._send(batch)

    def _send(self, batch: _Batch) -> bool:
        body = [memoryview(batch.body)] if batch.body else []
        frames = self._link.codec.encode_steps(self.session_id, batch.headers, body)
        if not self._link.send_frames(frames, copy=False):
            return False
        self._sent(batch.sizes)
        return True

    def _sent(self, sizes: list[int]) -> None:
        self._in_flight.extend(sizes)
        self._in_flight_bytes += sum(sizes)
        self._cursor += len(sizes)
        self._furthest = max(self._furthest, self._cursor)

    def _rewind(self, seq: int) -> None:
        self._cursor = max(seq, self.spool.first_seq)
        self._held = _Batch.empty()
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def _forget(self, seq: int) -> None:
        self.spool.acknowledge(seq)
        while self._in_flight and self._cursor - len(self._in_flight) <= seq:
            self._in_flight_bytes -= self._in_flight.popleft()
        self._cursor = max(self._cursor, self.spool.first_seq)
