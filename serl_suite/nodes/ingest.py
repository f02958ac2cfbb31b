"""The learner's end of the wire: hands received steps out at once, acknowledges them once they are durable.

Three threads: the caller's (`drain`, `publish`, ...); the router's, which is at the socket (nodes/reception.py) unless
the caller is in `wait`; the disk's (nodes/journal_writer.py).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from serl_suite.data.journal import Journal
from serl_suite.nodes.arrivals import Arrivals
from serl_suite.nodes.journal_writer import JournalWriter
from serl_suite.nodes.reception import Reception
from serl_suite.nodes.sessions import SessionInfo, Sessions
from serl_suite.nodes.weights_shelf import WeightsShelf
from serl_suite.wire.endpoint import MAX_MESSAGE_BYTES
from serl_suite.wire.keys import ServerKeys
from serl_suite.wire.messages import Evaluation, Step
from serl_suite.wire.router import Router
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Ingest", "SessionInfo"]

Arrays = dict[str, npt.NDArray[Any]]

POLL_MS = 50
BURST = 64
"""Messages before anything else gets its turn."""
LEAD_S = 0.005
"""How long after the caller's `wait` the router's thread takes the socket back."""


class Ingest:
    """Owns the ROUTER socket and, while it runs, the journal.

    Args:
        bind: tcp://127.0.0.1:PORT, or any address with `keys`; port 0 takes a free one (see `address`).
        journal: of this run, freshly opened; close it yourself after `close`.
        run_id: what actors check, so that a session's steps never reach another run.
        check: says in words why a spec is refused, None where it is welcome. Called from the router's thread.

    Raises:
        PortInUse, AddressError.
    """

    def __init__(
        self,
        bind: str,
        journal: Journal,
        run_id: str,
        *,
        keys: ServerKeys | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        check: Callable[[EnvSpec], str | None] = lambda spec: None,
    ) -> None:
        self._router = Router(bind, keys, max_message_bytes)
        self._arrivals, self._shelf = Arrivals(), WeightsShelf()
        sessions = self._sessions = Sessions(journal.positions)
        self._writer = JournalWriter(journal, self._router.wake)
        self._reception = Reception(
            self._router, sessions, self._arrivals, self._shelf, self._writer, run_id=run_id, check=check
        )
        self._serving = threading.Lock()
        """Held by the thread that is at the socket: the router's, or the caller's while it waits."""
        self._led = False
        self._led_at = -np.inf
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._router.address

    @property
    def counters(self) -> Counter[str]:
        """What was dropped, by cause: duplicates (steps sent again), malformed, oversized, gaps, strangers, ..."""
        return self._router.counters

    @property
    def disconnects(self) -> int:
        """Connections that ended, for whatever reason."""
        return self._router.disconnects

    @property
    def sessions(self) -> list[SessionInfo]:
        """Every session that said hello to this process."""
        return self._sessions.infos()

    def set_agent(self, agent: dict[str, Any]) -> None:
        """JSON-like description from which actors build their policy; hellos are answered from now on."""
        self._reception.agent = agent
        self._router.wake()

    def wait_spec(self, timeout_s: float | None = None) -> EnvSpec | None:
        """The spec of the first accepted hello; None where none came in time."""
        self._reception.spec_known.wait(timeout_s)
        return self._reception.spec

    def drain(self) -> list[tuple[str, Step]]:
        """Every step received since the last call, with its session, in the order of the journal. The steps'
        arrays are read-only.

        Raises: DiskFull or OSError, where the journal cannot go on.
        """
        self._raise_disk_error()
        return self._arrivals.take_steps()

    def take_evaluations(self) -> list[Evaluation]:
        """Evaluations received since the last call."""
        return self._arrivals.take_evaluations()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until `drain` or `take_evaluations` has something to give; False after `timeout_s`.

        Serves the socket itself meanwhile: a step then reaches the caller without a change of threads.

        Raises: DiskFull or OSError, where the journal cannot go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._arrivals:
            self._led = True
            self._router.wake()
            with self._serving:
                while not self._arrivals and self._writer.error is None:
                    left = POLL_MS if deadline is None else 1000 * (deadline - time.monotonic())
                    if left <= 0:
                        break
                    self._serve(min(left, POLL_MS), at_most=1)
                self._led_at = time.monotonic()
                self._led = False
        self._raise_disk_error()
        return bool(self._arrivals)

    def publish(self, version: int, arrays: Arrays) -> None:
        """Offers weights to the actors. The arrays must not change afterwards.

        Raises: ValueError, unless versions grow.
        """
        self._shelf.publish(version, arrays)
        self._router.wake()

    def set_progress(self, env_steps: int, updates_owed: float) -> None:
        """What acknowledgements tell the actors about training."""
        self._reception.progress = (env_steps, updates_owed)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until every step that `drain` has returned is durable (before a checkpoint, say)."""
        return self._writer.flush(timeout_s)

    def broadcast_stop(self, reason: str) -> None:
        """Tells every actor, now and at later hellos, that training is over."""
        self._reception.stop_reason = reason
        self._router.wake()

    def close(self) -> None:
        """Stops receiving, makes everything received durable, acknowledges it, closes the socket."""
        self._closing = True
        self._router.wake()
        self._thread.join()
        self._router.close()

    def _raise_disk_error(self) -> None:
        if self._writer.error is not None:
            raise self._writer.error

    def _run(self) -> None:
        while not self._closing:
            if self._led or time.monotonic() - self._led_at < LEAD_S:
                time.sleep(LEAD_S)
                continue
            with self._serving:
                self._serve(POLL_MS, BURST)
        self._writer.close()
        self._reception.say_what_is_due()

    def _serve(self, timeout_ms: float, at_most: int) -> None:
        """One round at the socket, for whichever thread holds `_serving`."""
        self._router.watch()
        self._reception.say_what_is_due()
        self._router.wait(timeout_ms)
        self._router.receive(self._reception.handle, at_most)
