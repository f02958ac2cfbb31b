"""Who is connected to the learner, and where each session of its run stands."""

import time
from collections.abc import Iterator

import msgspec
import numpy as np

from serl_suite.wire.messages import Hello, Position, Step

__all__ = ["Session", "SessionInfo", "Sessions"]

MAX_SESSIONS = 256
LIVE_S = 5.0
"""A session that was not heard for so long counts as away."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One actor's session as the learner sees it."""

    session_id: str
    actor: str
    live: bool
    """Heard within the last seconds."""
    received_seq: int
    durable_seq: int


class Session:
    """One session that said hello."""

    def __init__(self, hello: Hello, position: Position | None) -> None:
        self.id = hello.session_id
        self.hello = hello
        self.identity = b""
        """Of the connection that it last said hello from; empty: it must say hello again."""
        self.position = position
        """Of the last step received."""
        self.durable_seq = self.received_seq
        self.evaluations = 0
        """How many have come."""
        self.heard_at = time.monotonic()
        self.resend_asked_at = -np.inf

    @property
    def received_seq(self) -> int:
        """-1: nothing yet."""
        return -1 if self.position is None else self.position.seq

    @property
    def live(self) -> bool:
        return time.monotonic() - self.heard_at < LIVE_S

    def advance(self, step: Step) -> None:
        """Notes that a step was received."""
        self.position = Position(step.seq, step.episode, step.index, step.ends_episode)


class Sessions:
    """The sessions that said hello to this process. For the thread at the socket, but for `infos`.

    Args:
        positions: where earlier sessions of the run ended, by session id.
    """

    def __init__(self, positions: dict[str, Position]) -> None:
        self._positions = positions
        self._sessions: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def find(self, session_id: str, identity: bytes) -> Session | None:
        """The session, where it said hello from that connection."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.identity == identity else None

    def knows(self, identity: bytes) -> bool:
        """Whether any session said hello from that connection."""
        return any(session.identity == identity for session in self)

    def refusal(self, hello: Hello, run_id: str) -> str | None:
        """Why a session cannot be opened or taken up again; None where it can."""
        known = self._sessions.get(hello.session_id)
        if known is not None and known.hello.spec != hello.spec:
            return "the session said hello with another spec before; start the actor anew"
        if known is None and len(self._sessions) >= MAX_SESSIONS and not self._forget_one():
            return f"{MAX_SESSIONS} actors are connected already; stop one"
        position = known.position if known is not None else self._positions.get(hello.session_id)
        last_seq = -1 if position is None else position.seq
        if hello.first_seq > last_seq + 1:
            return (
                f"steps {last_seq + 1} to {hello.first_seq - 1} of this session are in no run folder here: "
                f"restore the folder of run {run_id}, or start the actor anew"
            )
        return None

    def admit(self, hello: Hello, identity: bytes) -> Session:
        """Opens a session, or takes one up again."""
        session = self._sessions.get(hello.session_id)
        if session is None:
            session = Session(hello, self._positions.get(hello.session_id))
            self._sessions[session.id] = session
        session.identity, session.heard_at = identity, time.monotonic()
        return session

    def end(self, session: Session) -> None:
        """Forgets a session, but not where it stands."""
        if session.position is not None:
            self._positions[session.id] = session.position
        del self._sessions[session.id]

    def infos(self) -> list[SessionInfo]:
        """From any thread."""
        return [
            SessionInfo(
                session_id=s.id, actor=s.hello.actor, live=s.live, received_seq=s.received_seq,
                durable_seq=s.durable_seq,
            )
            for s in list(self._sessions.values())
        ]  # fmt: skip

    def _forget_one(self) -> bool:
        """Makes room for a session; only one that is away and holds nothing undurable may go."""
        for session in self:
            if not session.live and session.durable_seq == session.received_seq:
                self.end(session)
                return True
        return False
