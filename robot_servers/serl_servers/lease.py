"""Who may move the arm."""

import time
from collections.abc import Callable

__all__ = ["LEASE_S", "Lease"]

LEASE_S = 1.0
"""A client that is silent for so long has lost control."""


class Lease:
    """One holder at a time, named by the identity of its connection; every sign of life renews it.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._identity: bytes | None = None
        self._name = ""
        self._heard_at = 0.0

    @property
    def holder(self) -> str | None:
        """The holder's name."""
        return self._name if self._holds() else None

    def take(self, identity: bytes, name: str) -> str | None:
        """Gives control to a client; returns why not."""
        if self._holds() and identity != self._identity:
            return f"{self._name} controls the arm; wait until it releases control, or end it"
        self._identity, self._name, self._heard_at = identity, name, self._clock()
        return None

    def renew(self, identity: bytes) -> None:
        """Notes a sign of life. It does not bring back what has expired."""
        if identity == self._identity and self._holds():
            self._heard_at = self._clock()

    def release(self, identity: bytes) -> bool:
        """Whether the client had control."""
        if not self._holds() or identity != self._identity:
            return False
        self._identity = None
        return True

    def objection(self, identity: bytes) -> str | None:
        """Why this client may not move the arm; None: it may."""
        if self._holds():
            return None if identity == self._identity else f"{self._name} controls the arm, and not you"
        if identity == self._identity:
            silent = self._clock() - self._heard_at
            return f"your control has expired: you were silent for {silent:.1f} s; take control again"
        return "you have not taken control"

    def _holds(self) -> bool:
        return self._identity is not None and self._clock() - self._heard_at <= LEASE_S
