"""One session on its way from a spool to the learner."""

from collections import deque

import msgspec
import numpy as np

from serl_suite.wire.link import Link
from serl_suite.wire.messages import Ack, Welcome, WireError
from serl_suite.wire.spool import Spool

__all__ = ["Stream"]

GREET_PERIOD_S = 0.5
WINDOW_BYTES = 32 * 1024 * 1024
WINDOW_STEPS = 4096
"""At most so much is on its way unacknowledged: what the learner must hold before its disk has it."""
BATCH_BYTES = 1536 * 1024
BATCH_STEPS = 256
"""One message of a megabyte costs half of what twenty small ones cost."""
BURST_GAP_S = 0.0003
HOLD_S = 0.001
"""Steps that follow each other faster than `BURST_GAP_S` wait up to `HOLD_S` for more, to be sent together."""


class Stream:
    """Greets the learner until it is welcome, then sends what the learner has not acknowledged. Not thread-safe.

    Args:
        inherited: left behind by an earlier actor of this machine, which may have lost steps in a power cut.
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
        self._held_bytes = 0
        """About; of steps from `_cursor` on that wait for more, to be sent together."""
        self._held_at = self._hurried_at = -np.inf

    @property
    def done(self) -> bool:
        """Whether everything was acknowledged."""
        return self.spool.first_seq == self.spool.next_seq

    @property
    def holds(self) -> bool:
        """Whether `pump` has something to send within `HOLD_S`."""
        return self._held_bytes > 0

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
        if not self.inherited and last >= spool.next_seq:
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

    def hurry(self, now: float, *, last: bool) -> bool:
        """Sends the step just spooled at once or, in a burst, holds it for the next ones unless it is an episode's
        `last`. False where that is left to `pump`."""
        burst, self._hurried_at = now - self._hurried_at < BURST_GAP_S, now
        behind = self.spool.next_seq - 1 - self._cursor
        if not self.open or (behind > 0 and not self.holds):
            return False
        if behind < 0:  # `pump` was faster
            return True
        if not (burst or self.holds):
            return self._send_next()
        first = not self.holds
        if first:
            self._held_at = now
        self._held_bytes += self.spool.newest_bytes
        if last or self._held_bytes >= BATCH_BYTES:
            return self._send_all()
        return not first

    def pump(self, now: float) -> None:
        """Sends what is due and fits the window."""
        if self.open and not (self.holds and now - self._held_at < HOLD_S):
            self._send_all()

    @property
    def _has_room(self) -> bool:
        return len(self._in_flight) < WINDOW_STEPS and self._in_flight_bytes < WINDOW_BYTES

    def _send_all(self) -> bool:
        """Sends until nothing is left, or nothing more can go now; False in the second case."""
        while self._send_next():
            pass
        return self._cursor == self.spool.next_seq

    def _send_next(self) -> bool:
        """Sends what comes next, as one message; False where nothing does, or not now."""
        self._held_bytes = 0
        if self._cursor == self.spool.next_seq or not self._has_room:
            return False
        records = self.spool.read(
            self._cursor, BATCH_BYTES, min(BATCH_STEPS, WINDOW_STEPS - len(self._in_flight))
        )
        if self._cursor < self._furthest:
            self.spool.check(self._cursor, records)
        if not self._link.send_frames(self._link.codec.encode_records(self.session_id, records.data)):
            return False
        self._in_flight.extend(records.sizes)
        self._in_flight_bytes += len(records.data)
        self._cursor += len(records.sizes)
        self._furthest = max(self._furthest, self._cursor)
        return True

    def _rewind(self, seq: int) -> None:
        self._cursor = max(seq, self.spool.first_seq)
        self._held_bytes = 0
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def _forget(self, seq: int) -> None:
        self.spool.acknowledge(seq)
        while self._in_flight and self._cursor - len(self._in_flight) <= seq:
            self._in_flight_bytes -= self._in_flight.popleft()
        self._cursor = max(self._cursor, self.spool.first_seq)
