"""What has come from the learner, where the environment's thread finds it."""

import threading
from collections.abc import Callable

from serl_suite.wire.messages import Ack, Weights, Welcome

__all__ = ["Inbox"]


class Inbox:
    """The I/O thread notes what comes; the environment's thread reads it, takes the weights, and may wait."""

    def __init__(self, session_id: str) -> None:
        self.welcome: Welcome | None = None
        self.refusal: str | None = None
        """Why the learner does not take this session."""
        self.stop_reason: str | None = None
        """Why the learner wants no more steps; a refusal is one reason."""
        self.failure: Exception | None = None
        """What ended the I/O thread."""
        self.ack = Ack(session_id=session_id, durable_seq=-1)
        """The latest."""
        self._weights: Weights | None = None
        self._changed = threading.Condition()

    @property
    def holds_weights(self) -> bool:
        """Whether weights have come that were not taken."""
        return self._weights is not None

    def note_welcome(self, welcome: Welcome) -> None:
        with self._changed:
            self.welcome = welcome
            self._changed.notify_all()

    def note_refusal(self, reason: str) -> None:
        with self._changed:
            self.refusal = self.stop_reason = reason
            self._changed.notify_all()

    def note_stop(self, reason: str) -> None:
        with self._changed:
            self.stop_reason = reason
            self._changed.notify_all()

    def note_failure(self, failure: Exception) -> None:
        with self._changed:
            self.failure = failure
            self._changed.notify_all()

    def note_ack(self, ack: Ack) -> None:
        with self._changed:
            self.ack = ack
            self._changed.notify_all()

    def put_weights(self, weights: Weights) -> None:
        """Replaces weights that were not taken."""
        with self._changed:
            self._weights = weights
            self._changed.notify_all()

    def take_weights(self, at_least: int = -1) -> Weights | None:
        """None where none came since the last call, or none of that version; those stay."""
        with self._changed:
            if self._weights is None or self._weights.version < at_least:
                return None
            taken, self._weights = self._weights, None
            return taken

    def wait_weights(self, version: int, timeout_s: float | None) -> None:
        """Until weights of at least `version` are there, or there is no more to wait for."""
        self.wait_for(
            lambda: (
                (self._weights is not None and self._weights.version >= version)
                or self.stop_reason is not None
                or self.failure is not None
            ),
            timeout_s,
        )

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        """Until something was noted that makes `condition` true, at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(condition, timeout_s)
