"""The learner's disk thread: appends steps to the journal, and says what is durable."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from serl_suite.data.journal import Journal
from serl_suite.errors import SerlError
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["JournalWriter"]

TICK_S = 0.01
"""How often the thread looks; it writes once nothing has come for a tick."""
MAX_TICKS = 5
"""Steps wait no longer than this to be written and synced together."""
MAX_CLOSED = 8
"""Closed episodes become files while nothing waits to be written, or when there are more than so many."""

logger = logging.getLogger(__name__)


class _Entry(NamedTuple):
    session_id: str
    spec: EnvSpec
    steps: list[Step]
    """Empty: the session has ended."""


class JournalWriter:
    """Owns the journal while it runs.

    The thread looks at its queue every `TICK_S` instead of being woken, and lets a burst pass: writing in the
    middle of one would cost the receiving threads more than the delay costs anybody.

    Args:
        on_durable: called from the disk thread whenever `durable` has grown.
    """

    def __init__(self, journal: Journal, on_durable: Callable[[], None]) -> None:
        self.durable: dict[str, int] = {}
        """The last durable seq of each session that this writer wrote to."""
        self._journal, self._on_durable = journal, on_durable
        self._queue: deque[_Entry] = deque()
        self._put = self._done = 0
        """Steps so far."""
        self._closing = threading.Event()
        self._progress = threading.Condition()
        self.error: SerlError | OSError | None = None
        """Why nothing is written any more; nothing after it is acknowledged."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def steps(self) -> int:
        """How many are not durable yet."""
        return self._put - self._done

    def put(self, session_id: str, spec: EnvSpec, steps: list[Step]) -> None:
        """Takes the session's next steps, one or more. For one thread, as is `finish`."""
        self._enqueue(_Entry(session_id, spec, steps))

    def finish(self, session_id: str, spec: EnvSpec) -> None:
        """The session has ended."""
        self._enqueue(_Entry(session_id, spec, []))

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until every step put so far is durable; False where it is not."""
        goal = self._put
        with self._progress:
            self._progress.wait_for(lambda: self._done >= goal or self.error is not None, timeout_s)
        return self._done >= goal

    def close(self) -> None:
        """Writes what is left and ends the thread; the journal itself stays open."""
        self._closing.set()
        self._thread.join()

    def _enqueue(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self._put += len(entry.steps)

    def _run(self) -> None:
        try:
            waited = put = 0
            while not self._closing.wait(TICK_S):
                waited, quiet, put = waited + 1, self._put == put, self._put
                if quiet or waited >= MAX_TICKS:
                    waited = 0
                    self._write(time.monotonic() + TICK_S)
            self._write(0.0)
        except (SerlError, OSError, ValueError, TypeError, ArithmeticError) as e:
            logger.error("the journal cannot go on: %s", e)
            with self._progress:
                self.error = e if isinstance(e, SerlError | OSError) else SerlError(f"journal: {e}")
                self._progress.notify_all()

    def _write(self, archive_until: float) -> None:
        batch = []
        while self._queue:
            batch.append(self._queue.popleft())
        durable = {}
        for session_id, spec, steps in batch:
            for step in steps:
                self._journal.append(session_id, spec, step)
                durable[session_id] = step.seq
            if not steps:
                self._journal.finish(session_id)
        if batch:
            self._journal.sync()
            with self._progress:
                self._done += sum(len(entry.steps) for entry in batch)
                self._progress.notify_all()
            self.durable.update(durable)
            self._on_durable()
        while self._journal.closed > MAX_CLOSED or (
            self._journal.closed and not batch and not self._queue and time.monotonic() < archive_until
        ):
            self._journal.archive(1)
