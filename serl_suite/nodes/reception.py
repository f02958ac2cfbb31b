"""What the learner does with each message of an actor, and what it says unasked.

Nothing that a peer sends can stop it: what is wrong is counted, logged and dropped.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from serl_suite.nodes.arrivals import Arrivals
from serl_suite.nodes.journal_writer import JournalWriter
from serl_suite.nodes.sessions import Session, Sessions
from serl_suite.nodes.weights_shelf import WeightsShelf
from serl_suite.wire import messages
from serl_suite.wire.messages import Step, check_order, check_step
from serl_suite.wire.router import Router
from serl_suite.wire.spaces import BadStep, EnvSpec

__all__ = ["Reception"]

log = logging.getLogger(__name__)

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""It becomes a folder's name."""
PROGRESS_PERIOD_S = 0.05
RESEND_PERIOD_S = 0.2
BACKLOG_BYTES = 512 * 1024 * 1024
"""Steps in memory that were not taken or not written; above it, steps are dropped and sent again later."""


class Reception:
    """For the thread at the socket; other threads may set what is documented as theirs.

    Args:
        check: says in words why a spec is refused, None where it is welcome.
    """

    def __init__(
        self,
        router: Router,
        sessions: Sessions,
        arrivals: Arrivals,
        shelf: WeightsShelf,
        writer: JournalWriter,
        *,
        run_id: str,
        check: Callable[[EnvSpec], str | None],
    ) -> None:
        self.agent: dict[str, Any] | None = None
        """What a welcome says; nobody is welcome without. Any thread may set it."""
        self.spec: EnvSpec | None = None
        """Of the first hello that was accepted."""
        self.spec_known = threading.Event()
        self.progress = (0, 0.0)
        """(env_steps, updates_owed) for acknowledgements. Any thread may set it."""
        self.stop_reason: str | None = None
        """Why training is over. Any thread may set it."""
        self._router, self._sessions, self._arrivals = router, sessions, arrivals
        self._shelf, self._writer = shelf, writer
        self._run_id, self._check = run_id, check
        self._news: tuple[tuple[int, float], int] = ((0, 0.0), -1)
        self._news_at = float("-inf")
        self._stop_said: str | None = None

    def handle(self, identity: bytes, message: messages.Message) -> None:
        """Whatever came from a peer."""
        match message:
            case messages.Steps() | messages.Ping() | messages.Evaluation() | messages.Bye():
                session = self._sessions.find(message.session_id, identity)
                if session is not None:
                    session.heard_at = time.monotonic()
                    self._handle_session(session, message)
                    return
                self._router.drop("strangers", "a message of a session that has not said hello")
                if SESSION_ID.fullmatch(message.session_id):
                    self._router.send(identity, messages.HelloRequired(session_id=message.session_id))
            case messages.WeightsRequest():
                if not self._sessions.knows(identity):
                    self._router.drop("strangers", "a request for weights before any hello")
                elif (frames := self._shelf.ask(identity, message)) is not None:
                    self._router.send_frames(identity, frames)
            case messages.Hello():
                self._hello(identity, message)
            case _:
                self._router.drop("malformed", f"{type(message).__name__} is not for a learner")

    def say_what_is_due(self) -> None:
        """Weights to those that wait for them, acknowledgements, progress, the end of training."""
        for identity, frames in self._shelf.answers():
            self._router.send_frames(identity, frames)
        news = self._news_are_due()
        for session in self._sessions:
            if self._note_durable(session) or (news and session.live):
                self._acknowledge(session)
        if self.stop_reason is not None and self.stop_reason != self._stop_said:
            self._stop_said = self.stop_reason
            for session in self._sessions:
                self._router.send(session.identity, messages.Stop(reason=self._stop_said))

    def _handle_session(self, session: Session, message: messages.Message) -> None:
        match message:
            case messages.Steps():
                try:
                    self._take_steps(session, message.steps)
                except BadStep as e:
                    self._refuse(session.identity, session.id, f"bad data: {e}")
                    session.identity = b""
            case messages.Evaluation():
                if message.number >= session.evaluations:
                    session.evaluations = message.number + 1
                    self._arrivals.add_evaluation(message)
                    self._acknowledge(session)
            case messages.Bye():
                self._writer.finish(session.id, session.hello.spec)
                self._sessions.end(session)
                if not self._sessions.knows(session.identity):  # else its actor has inherited that session
                    self._shelf.forget(session.identity)
            case _:
                self._acknowledge(session)

    def _hello(self, identity: bytes, hello: messages.Hello) -> None:
        if not SESSION_ID.fullmatch(hello.session_id):
            self._router.drop("malformed", "a session id that is none")
            return
        reason = self._reason_to_refuse(hello)
        if reason is not None:
            self._refuse(identity, hello.session_id, reason)
            return
        if self.spec is None:
            self.spec = hello.spec
            self.spec_known.set()
        if self.agent is None:
            return
        session = self._sessions.admit(hello, identity)
        log.info("%s connected, session %s", hello.actor, session.id)
        self._note_durable(session)
        welcome = messages.Welcome(
            session_id=session.id, run_id=self._run_id, last_durable_seq=session.durable_seq, agent=self.agent
        )
        self._router.send(identity, welcome)
        if self.stop_reason is not None:
            self._router.send(identity, messages.Stop(reason=self.stop_reason))

    def _reason_to_refuse(self, hello: messages.Hello) -> str | None:
        if reason := self._sessions.refusal(hello, self._run_id):
            return reason
        if self.spec is not None and (difference := self.spec.difference(hello.spec)):
            return f"this run learns {self.spec.task} ('here'): {difference}; start the actor with that task"
        return self._check(hello.spec)

    def _refuse(self, identity: bytes, session_id: str, reason: str) -> None:
        self._router.drop("refused", reason)
        self._router.send(identity, messages.Refused(session_id=session_id, reason=reason))

    def _take_steps(self, session: Session, steps: list[Step]) -> None:
        taken: list[Step] = []
        try:
            for step in steps:
                if self._is_due(session, step):
                    check_step(session.hello.spec, step)
                    check_order(session.position, step)
                    session.advance(step)
                    taken.append(step)
        finally:
            if taken:
                self._writer.put(session.id, session.hello.spec, taken)
                self._arrivals.add_steps(session.id, taken)

    def _is_due(self, session: Session, step: Step) -> bool:
        due = session.received_seq + 1
        if step.seq < due:
            self._router.counters["duplicates"] += 1
        elif step.seq > due:
            self._router.drop("gaps", f"step {step.seq} came where {due} is due")
            self._ask_again(session, due)
        elif (
            max(self._arrivals.steps, self._writer.steps) * session.hello.spec.step_bytes > BACKLOG_BYTES
            or self._writer.error is not None
        ):
            self._router.drop("backlog", "steps come faster than they are taken; they will be sent again")
        else:
            return True
        return False

    def _ask_again(self, session: Session, from_seq: int) -> None:
        now = time.monotonic()
        if now - session.resend_asked_at >= RESEND_PERIOD_S:
            session.resend_asked_at = now
            self._router.send(session.identity, messages.Resend(session_id=session.id, from_seq=from_seq))

    def _note_durable(self, session: Session) -> bool:
        """Whether more of the session is durable than before."""
        seq = self._writer.durable.get(session.id, -1)
        if seq <= session.durable_seq:
            return False
        session.durable_seq = seq
        return True

    def _news_are_due(self) -> bool:
        """Whether all actors should hear how training stands."""
        now, news = time.monotonic(), (self.progress, self._shelf.newest)
        if news == self._news or now - self._news_at < PROGRESS_PERIOD_S:
            return False
        self._news, self._news_at = news, now
        return True

    def _acknowledge(self, session: Session) -> None:
        env_steps, updates_owed = self.progress
        ack = messages.Ack(
            session_id=session.id, durable_seq=session.durable_seq, env_steps=env_steps,
            evaluations=session.evaluations, updates_owed=updates_owed, newest_version=self._shelf.newest,
        )  # fmt: skip
        self._router.send(session.identity, ack)
