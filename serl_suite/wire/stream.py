"""One session on its way from a spool to the learner."""

from collections import deque

import numpy as np

from serl_suite.wire.codec import EncodedStep
from serl_suite.wire.spool import Spool

__all__ = ["Stream"]

WINDOW_BYTES = 32 * 1024 * 1024
WINDOW_STEPS = 4096
"""At most so much is on its way unacknowledged: what the learner must hold before its disk has it."""
BATCH_BYTES = 1024 * 1024
BATCH_STEPS = 256


class Stream:
    """Where sending stands. Not thread-safe: the client's lock guards it."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.open = False
        self.given_up = False
        self.greeted_at = -np.inf
        self.cursor = 0
        self.furthest = 0
        """One more than the last step ever sent."""
        self.in_flight: deque[tuple[int, int]] = deque()
        self.in_flight_bytes = 0

    def rewind(self, seq: int) -> None:
        """Sends from `seq` on again."""
        self.cursor = max(seq, self.spool.first_seq)
        self.in_flight.clear()
        self.in_flight_bytes = 0

    def acknowledge(self, seq: int) -> None:
        self.spool.acknowledge(seq)
        while self.in_flight and self.in_flight[0][0] <= seq:
            self.in_flight_bytes -= self.in_flight.popleft()[1]
        self.cursor = max(self.cursor, self.spool.first_seq)

    def may_send(self, seq: int) -> bool:
        """Whether `seq` is what is due now, and the window has room for it."""
        room = len(self.in_flight) < WINDOW_STEPS and self.in_flight_bytes < WINDOW_BYTES
        return self.open and self.cursor == seq and room

    def next_batch(self) -> list[EncodedStep]:
        """The next steps to send, as far as the window allows; empty when there is nothing to do."""
        batch: list[EncodedStep] = []
        size = 0
        while self.cursor + len(batch) < self.spool.next_seq and len(batch) < BATCH_STEPS:
            if (
                len(self.in_flight) + len(batch) >= WINDOW_STEPS
                or self.in_flight_bytes + size >= WINDOW_BYTES
            ):
                break
            step = self.spool.get(self.cursor + len(batch))
            if batch and size + step.nbytes > BATCH_BYTES:
                break
            batch.append(step)
            size += step.nbytes
        return batch

    def sent(self, batch: list[EncodedStep]) -> None:
        """Moves on past a batch that the socket took."""
        for step in batch:
            self.in_flight.append((self.cursor, step.nbytes))
            self.in_flight_bytes += step.nbytes
            self.cursor += 1
        self.furthest = max(self.furthest, self.cursor)
