"""The learner's end of the wire: hands received steps out at once, acknowledges them once they are durable.

Three threads: the caller's (`drain`, `publish`, ...); the router's, which is at the socket unless the caller is in
`wait`; the disk's (journal_writer.py). Nothing that a peer sends can stop it: what is wrong is counted, logged and
dropped.
"""

import contextlib
import logging
import re
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from serl_suite.data.journal import Journal
from serl_suite.nodes.journal_writer import JournalWriter, step_bytes
from serl_suite.nodes.weights_shelf import WeightsShelf
from serl_suite.wire import messages
from serl_suite.wire.codec import Codec
from serl_suite.wire.endpoint import MAX_MESSAGE_BYTES, Waker, bind_router
from serl_suite.wire.keys import ServerKeys
from serl_suite.wire.messages import Evaluation, Position, Step, WireError, check_order, check_step
from serl_suite.wire.spaces import BadStep, EnvSpec

__all__ = ["Ingest", "SessionInfo"]

Arrays = dict[str, npt.NDArray[Any]]
Frames = list[bytes | memoryview]

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""It becomes a folder's name."""
MAX_SESSIONS = 256
POLL_MS = 50
PROGRESS_PERIOD_S = 0.05
BURST = 64
"""Messages before anything else gets its turn."""
RESEND_PERIOD_S = 0.2
LIVE_S = 5.0
"""A session that was not heard for so long counts as away."""
BACKLOG_BYTES = 512 * 1024 * 1024
"""Steps in memory that were not drained or not written; above it, steps are dropped and sent again later."""
LEAD_S = 0.005
"""How long after the caller's `wait` the router's thread takes the socket back."""
FAREWELL_MS = 500
LOG_PERIOD_S = 1.0
MONITORED = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

logger = logging.getLogger(__name__)


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One actor's session as the learner sees it."""

    session_id: str
    actor: str
    live: bool
    """Heard within the last seconds."""
    received_seq: int
    durable_seq: int


class _Session:
    def __init__(self, hello: messages.Hello, identity: bytes, position: Position | None) -> None:
        self.hello, self.identity, self.position = hello, identity, position
        self.durable_seq = -1 if position is None else position.seq
        self.evaluations = 0
        self.heard_at = time.monotonic()
        self.resend_asked_at = -np.inf

    @property
    def expected(self) -> int:
        return 0 if self.position is None else self.position.seq + 1


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
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._run_id, self._check, self._max_message_bytes = run_id, check, max_message_bytes
        try:
            self._socket, self._authenticator = bind_router(self._context, bind, keys, max_message_bytes)
        except BaseException:
            self._context.term()
            raise
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._monitor = self._socket.get_monitor_socket(MONITORED)
        self.counters: Counter[str] = Counter()
        """What was dropped, by cause: duplicates (steps sent again), malformed, oversized, gaps, strangers, ..."""
        self.disconnects = 0
        """Connections that ended, for whatever reason."""
        self._codec = Codec()
        self._sessions: dict[str, _Session] = {}
        self._positions = journal.positions
        self._parked: dict[bytes, messages.WeightsRequest] = {}
        self._agent: dict[str, Any] | None = None
        self._spec: EnvSpec | None = None
        self._spec_known = threading.Event()
        self._ready: deque[tuple[str, Step]] = deque()
        self._serving = threading.Lock()
        """Held by the thread that is at the socket: the router's, or the caller's while it waits."""
        self._led = False
        self._led_at = -np.inf
        self._poller = select.poll()
        self._bytes_in = self._bytes_out = 0
        self._evaluations: deque[Evaluation] = deque(maxlen=1000)
        self._shelf = WeightsShelf()
        self._published = False
        self._progress = (0, 0.0)
        self._progress_sent: tuple[float, tuple[int, float], int] = (-np.inf, (0, 0.0), 0)
        self._durable: dict[str, int] = {}
        self._durable_lock = threading.Lock()
        self._stop_reason: str | None = None
        self._stop_sent = False
        self._closing = False
        self._logged_at = -np.inf
        self._waker = Waker()
        for descriptor in (self._socket.FD, self._waker.fd, self._monitor.FD):
            self._poller.register(descriptor, select.POLLIN)
        self._writer = JournalWriter(journal, self._on_durable)
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    def set_agent(self, agent: dict[str, Any]) -> None:
        """JSON-like description from which actors build their policy; hellos are answered from now on."""
        self._agent = agent
        self._waker.wake()

    def wait_spec(self, timeout_s: float | None = None) -> EnvSpec | None:
        """The spec of the first accepted hello; None where none came in time."""
        self._spec_known.wait(timeout_s)
        return self._spec

    def drain(self) -> list[tuple[str, Step]]:
        """Every step received since the last call, with its session, in the order of the journal. The steps'
        arrays are read-only.

        Raises: DiskFull or OSError, where the journal cannot go on.
        """
        self._raise_disk_error()
        steps = []
        with contextlib.suppress(IndexError):
            while True:
                steps.append(self._ready.popleft())
        self._bytes_out += sum(step_bytes(step) for _, step in steps)
        return steps

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until `drain` or `take_evaluations` has something to give; False after `timeout_s`.

        Serves the socket itself meanwhile: a step then reaches the caller without a change of threads.

        Raises: DiskFull or OSError, where the journal cannot go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._has_something():
            self._led = True
            self._waker.wake()
            with self._serving:
                while not self._has_something() and self._writer.error is None:
                    left = POLL_MS if deadline is None else 1000 * (deadline - time.monotonic())
                    if left <= 0:
                        break
                    self._serve(min(left, POLL_MS))
                self._led_at = time.monotonic()
                self._led = False
        self._raise_disk_error()
        return self._has_something()

    def _has_something(self) -> bool:
        return bool(self._ready or self._evaluations)

    def publish(self, version: int, arrays: Arrays) -> None:
        """Offers weights to the actors. The arrays must not change afterwards.

        Raises: ValueError, unless versions grow.
        """
        self._shelf.publish(version, arrays)
        self._published = True
        self._waker.wake()

    def set_progress(self, env_steps: int, updates_owed: float) -> None:
        """What acknowledgements tell the actors about training."""
        self._progress = (env_steps, updates_owed)

    def take_evaluations(self) -> list[Evaluation]:
        """Evaluations received since the last call."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._evaluations.popleft())
        return taken

    @property
    def sessions(self) -> list[SessionInfo]:
        """Every session that said hello to this process."""
        now = time.monotonic()
        return [
            SessionInfo(
                session_id=session_id, actor=s.hello.actor, live=now - s.heard_at < LIVE_S,
                received_seq=s.expected - 1, durable_seq=s.durable_seq,
            )
            for session_id, s in list(self._sessions.items())
        ]  # fmt: skip

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until every step that `drain` has returned is durable (before a checkpoint, say)."""
        return self._writer.flush(timeout_s)

    def broadcast_stop(self, reason: str) -> None:
        """Tells every actor, now and at later hellos, that training is over."""
        self._stop_reason, self._stop_sent = reason, False
        self._waker.wake()

    def close(self) -> None:
        """Stops receiving, makes everything received durable, acknowledges it, closes the socket."""
        self._closing = True
        self._waker.wake()
        self._thread.join()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(FAREWELL_MS)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()
        self._waker.close()

    def _raise_disk_error(self) -> None:
        if self._writer.error is not None:
            raise self._writer.error

    def _on_durable(self, durable: dict[str, int]) -> None:
        with self._durable_lock:
            self._durable |= durable
        self._waker.wake()

    def _run(self) -> None:
        while not self._closing:
            if self._led or time.monotonic() - self._led_at < LEAD_S:
                time.sleep(LEAD_S)
                continue
            with self._serving:
                self._serve(POLL_MS)
        self._writer.close()
        self._send_due()

    def _serve(self, timeout_ms: float) -> None:
        """One round at the socket, for whichever thread holds `_serving`."""
        self._send_due()
        if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:  # sending takes the descriptor's signal
            self._poller.poll(timeout_ms)
            self._waker.clear()
        self._receive()

    def _receive(self) -> None:
        for _ in range(BURST):
            if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                return
            identity, *parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            frames = [part.buffer for part in parts]
            if sum(map(len, frames)) > self._max_message_bytes:
                self._drop("oversized", f"a message of more than {self._max_message_bytes} bytes")
                continue
            try:
                self._handle(identity.bytes, self._codec.decode(frames))
            except WireError as e:
                self._drop("malformed", str(e))

    def _handle(self, identity: bytes, message: messages.Message) -> None:
        match message:
            case messages.Steps() | messages.Ping() | messages.Evaluation() | messages.Bye():
                session = self._sessions.get(message.session_id)
                if session is None or session.identity != identity:
                    self._drop("strangers", "a message of a session that has not said hello")
                    if SESSION_ID.fullmatch(message.session_id):
                        self._send(identity, messages.HelloRequired(session_id=message.session_id))
                    return
                session.heard_at = time.monotonic()
                self._handle_session(session, message)
            case messages.WeightsRequest():
                if any(s.identity == identity for s in self._sessions.values()):
                    self._parked[identity] = message
                    self._answer_parked()
                else:
                    self._drop("strangers", "a request for weights before any hello")
            case messages.Hello():
                self._hello(identity, message)
            case _:
                self._drop("malformed", f"{type(message).__name__} is not for a learner")

    def _handle_session(self, session: _Session, message: messages.Message) -> None:
        match message:
            case messages.Steps():
                try:
                    self._take_steps(session, message.steps)
                except BadStep as e:
                    self._refuse(session.identity, session.hello.session_id, f"bad data: {e}")
                    session.identity = b""
            case messages.Evaluation():
                if message.number >= session.evaluations:
                    session.evaluations = message.number + 1
                    self._evaluations.append(message)
                    self._acknowledge(session)
            case messages.Bye():
                self._writer.put(session.hello.session_id, session.hello.spec, [])
                self._positions.pop(session.hello.session_id, None)
                if session.position is not None:
                    self._positions[session.hello.session_id] = session.position
                del self._sessions[session.hello.session_id]
                self._parked.pop(session.identity, None)
            case _:
                self._acknowledge(session)

    def _hello(self, identity: bytes, hello: messages.Hello) -> None:
        session_id = hello.session_id
        if not SESSION_ID.fullmatch(session_id):
            self._drop("malformed", "a session id that is none")
            return
        known = self._sessions.get(session_id)
        reason = self._reason_to_refuse(hello, known)
        if reason is not None:
            self._refuse(identity, session_id, reason)
            return
        if self._spec is None:
            self._spec = hello.spec
            self._spec_known.set()
        if self._agent is None:
            return
        if known is None:
            known = self._sessions[session_id] = _Session(hello, identity, self._positions.get(session_id))
        known.identity, known.heard_at = identity, time.monotonic()
        with self._durable_lock:
            known.durable_seq = max(known.durable_seq, self._durable.get(session_id, -1))
        welcome = messages.Welcome(
            session_id=session_id, run_id=self._run_id, last_durable_seq=known.durable_seq, agent=self._agent
        )
        self._send(identity, welcome)
        if self._stop_reason is not None:
            self._send(identity, messages.Stop(reason=self._stop_reason))

    def _reason_to_refuse(self, hello: messages.Hello, known: _Session | None) -> str | None:
        if known is not None and known.hello.spec != hello.spec:
            return "the session said hello with another spec before; start the actor anew"
        if known is None and len(self._sessions) >= MAX_SESSIONS and not self._forget_one():
            return f"{MAX_SESSIONS} actors are connected already; stop one"
        position = known.position if known is not None else self._positions.get(hello.session_id)
        last_seq = -1 if position is None else position.seq
        if hello.first_seq > last_seq + 1:
            return (
                f"steps {last_seq + 1} to {hello.first_seq - 1} of this session are in no run folder here: "
                f"restore the folder of run {self._run_id}, or start the actor anew"
            )
        if self._spec is not None and (difference := self._spec.difference(hello.spec)):
            return f"this run learns {self._spec.task} ('here'): {difference}; start the actor with that task"
        return self._check(hello.spec)

    def _forget_one(self) -> bool:
        """Makes room for a session; only one that is away and holds nothing undurable may go."""
        now = time.monotonic()
        for session_id, session in self._sessions.items():
            if now - session.heard_at > LIVE_S and session.durable_seq == session.expected - 1:
                if session.position is not None:
                    self._positions[session_id] = session.position
                del self._sessions[session_id]
                return True
        return False

    def _refuse(self, identity: bytes, session_id: str, reason: str) -> None:
        self._drop("refused", reason)
        self._send(identity, messages.Refused(session_id=session_id, reason=reason))

    def _take_steps(self, session: _Session, steps: list[Step]) -> None:
        taken: list[Step] = []
        try:
            for step in steps:
                if self._is_due(session, step):
                    check_step(session.hello.spec, step)
                    check_order(session.position, step)
                    session.position = Position(step.seq, step.episode, step.index, step.ends_episode)
                    taken.append(step)
        finally:
            if taken:
                session_id = session.hello.session_id
                self._bytes_in += self._writer.put(session_id, session.hello.spec, taken)
                self._ready.extend([(session_id, step) for step in taken])

    def _is_due(self, session: _Session, step: Step) -> bool:
        if step.seq < session.expected:
            self.counters["duplicates"] += 1
        elif step.seq > session.expected:
            self._drop("gaps", f"step {step.seq} came where {session.expected} is due")
            self._ask_again(session)
        elif self._backlog() > BACKLOG_BYTES or self._writer.error is not None:
            self._drop("backlog", "steps come faster than they are taken; they will be sent again")
        else:
            return True
        return False

    def _backlog(self) -> int:
        return max(self._bytes_in - self._bytes_out, self._writer.queued_bytes)

    def _ask_again(self, session: _Session) -> None:
        now = time.monotonic()
        if now - session.resend_asked_at >= RESEND_PERIOD_S:
            session.resend_asked_at = now
            again = messages.Resend(session_id=session.hello.session_id, from_seq=session.expected)
            self._send(session.identity, again)

    def _send_due(self) -> None:
        self._watch()
        if self._published:
            self._published = False
            self._answer_parked()
        durable: dict[str, int] = {}
        if self._durable:
            with self._durable_lock:
                durable, self._durable = self._durable, {}
        for session_id, seq in durable.items():
            if session_id in self._sessions:
                self._sessions[session_id].durable_seq = seq
        now = time.monotonic()
        sent_at, progress, version = self._progress_sent
        fresh = (self._progress, self._shelf.newest) != (progress, version)
        everyone = fresh and now - sent_at >= PROGRESS_PERIOD_S
        if everyone:
            self._progress_sent = (now, self._progress, self._shelf.newest)
        for session_id, session in self._sessions.items():
            if session_id in durable or (everyone and now - session.heard_at < LIVE_S):
                self._acknowledge(session)
        if self._stop_reason is not None and not self._stop_sent:
            self._stop_sent = True
            for session in self._sessions.values():
                self._send(session.identity, messages.Stop(reason=self._stop_reason))

    def _acknowledge(self, session: _Session) -> None:
        env_steps, updates_owed = self._progress
        ack = messages.Ack(
            session_id=session.hello.session_id, durable_seq=session.durable_seq, env_steps=env_steps,
            evaluations=session.evaluations, updates_owed=updates_owed, newest_version=self._shelf.newest,
        )  # fmt: skip
        self._send(session.identity, ack)

    def _answer_parked(self) -> None:
        for identity, request in list(self._parked.items()):
            frames = self._shelf.answer(request)
            if frames is not None:
                del self._parked[identity]
                self._send_frames(identity, frames)

    def _send(self, identity: bytes, message: messages.Message) -> None:
        self._send_frames(identity, self._codec.encode(message))

    def _send_frames(self, identity: bytes, frames: Frames) -> None:
        """A peer that is gone or reads nothing misses the message; it will ask again when it is back."""
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def _watch(self) -> None:
        """Counts what libzmq itself turned away."""
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self.disconnects += 1
            else:
                self._drop("handshakes", "a connection that is no peer of ours, or has no key that is let in")

    def _drop(self, kind: str, cause: str) -> None:
        self.counters[kind] += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_PERIOD_S:
            self._logged_at = now
            logger.warning("dropped (%s, %d so far): %s", kind, self.counters[kind], cause)
