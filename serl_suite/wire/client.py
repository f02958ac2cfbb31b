"""The actor's end of the wire: takes steps without ever waiting for the network, and fetches the newest weights.

`put` hands a step to the socket if nothing is before it and nobody else is at the socket, writes it to the spool,
and returns. The I/O thread does the rest: says hello, sends what `put` could not, goes back to where the learner's
journal ends whenever either side was away, and sends what earlier actors on this machine left behind.
"""

import logging
import select
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from serl_suite.errors import SerlError
from serl_suite.wire import messages
from serl_suite.wire.codec import Codec, EncodedStep
from serl_suite.wire.endpoint import MAX_MESSAGE_BYTES, Waker, connect_dealer
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.messages import (
    EpisodeOutcome,
    Position,
    Step,
    Weights,
    Welcome,
    WireError,
    check_order,
    check_step,
)
from serl_suite.wire.spaces import EnvSpec
from serl_suite.wire.spool import Spool
from serl_suite.wire.stream import Stream

__all__ = ["ActorClient", "LearnerUnreachable", "Progress", "SpecRefused"]

POLL_MS = 50
GREET_PERIOD_S = 0.5
PING_PERIOD_S = 0.3
SILENCE_S = 1.0
"""A learner silent for so long gets a new connection; doubled up to `MAX_SILENCE_S` while it stays silent."""
MAX_SILENCE_S = 4.0
FAREWELL_MS = 300

logger = logging.getLogger(__name__)


class LearnerUnreachable(SerlError):
    """Nothing answered at the learner's address."""


class SpecRefused(SerlError):
    """The learner does not take this actor; the message gives its reason."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far this session and training are, as of the last acknowledgement."""

    acked_seq: int
    """Every step up to this one is on the learner's disk."""
    unacked: int
    """Steps in the spool."""
    env_steps: int
    """Of all actors."""
    updates_owed: float
    newest_version: int
    heard_s: float
    """How long ago the learner was heard."""


class ActorClient:
    """One session with a learner. `put` and the reading methods belong to one thread, the environment's.

    Args:
        address: tcp://HOST:PORT of the learner.
        session_id: fresh and random for every run of an actor.
        spec: of the environment; every step is checked against it.
        spool: folder for what is not acknowledged; may be shared by all actors of a machine.
        in_order_weights: every kept version in turn, the next one once the last was taken, instead of the newest.
        half_weights: fetch weights as float16 (they are handed out as float32).
        jpeg_quality: send images as JPEG, 1..100; None: raw.
    """

    def __init__(
        self,
        address: str,
        session_id: str,
        spec: EnvSpec,
        spool: Path,
        *,
        keys: ClientKeys | None = None,
        actor_name: str = "actor",
        in_order_weights: bool = False,
        half_weights: bool = False,
        jpeg_quality: int | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.session_id, self._address, self._keys, self._spec = session_id, address, keys, spec
        self._in_order, self._half, self._max_message_bytes = (
            in_order_weights,
            half_weights,
            max_message_bytes,
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = connect_dealer(self._context, address, keys, max_message_bytes)
        self._descriptor = self._socket.FD
        hello = messages.Hello(session_id=session_id, actor=actor_name, spec=spec)
        left_behind = Spool.pending(spool)
        self._spool = Spool.create(spool, hello)
        self._main = Stream(self._spool)
        self._streams = {s.hello.session_id: Stream(s) for s in left_behind} | {session_id: self._main}
        self._step_codec, self._codec = Codec(jpeg_quality), Codec()
        self._position: Position | None = None
        self._ack = messages.Ack(session_id=session_id, durable_seq=-1)
        self._welcome: Welcome | None = None
        self._refusal: str | None = None
        self._failure: Exception | None = None
        self.stop_reason: str | None = None
        """Why the learner wants no more steps; None while it does."""
        self.counters: Counter[str] = Counter()
        """Messages that were dropped, by cause, beside `reconnects` and `resent` steps."""
        self._io = threading.Lock()
        """Guards the socket and the streams."""
        self._state = threading.Condition()
        self._weights: Weights | None = None
        self._have_version = -1
        self._requested = False
        self._evaluations: deque[messages.Evaluation] = deque()
        self._evaluation_count = 0
        self._heard_at = self._opened_at = self._pinged_at = time.monotonic()
        self._silence_s = SILENCE_S
        self._signalled = False
        self._closing = self._closed = False
        self._waker = Waker()
        self._thread: threading.Thread | None = None

    def connect(self, timeout_s: float) -> Welcome:
        """Opens the session; afterwards the client reconnects by itself for ever.

        Raises:
            LearnerUnreachable: nothing answered; the client may be asked again, or closed.
            SpecRefused: the learner does not take this actor.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
            self._thread.start()
        with self._state:
            self._state.wait_for(lambda: self._welcome or self._refusal or self._failure, timeout_s)
        self._raise_failure()
        if self._refusal is not None:
            raise SpecRefused(f"the learner at {self._address} refused this actor: {self._refusal}")
        if self._welcome is None:
            raise LearnerUnreachable(
                f"no answer from a learner at {self._address} within {timeout_s:g} s; start it with "
                "`serl learner --run DIR`, or check the address, the firewall and the keys"
            )
        return self._welcome

    @property
    def next_seq(self) -> int:
        """The seq that the next step must have."""
        return self._spool.next_seq

    def put(self, step: Step) -> None:
        """Takes a step; it will reach the learner exactly once, whoever dies in between. Never waits for the
        network. Its arrays may change afterwards.

        Raises:
            BadStep: it does not fit the spec or the steps before it; it was not taken.
            DiskFull: it was not taken; may be tried again.
        """
        self._raise_failure()
        check_step(self._spec, step)
        check_order(self._position, step)
        encoded = self._step_codec.encode_step(step)
        sent = step.seq == self._spool.next_seq and self._send_at_once(step.seq, encoded)
        self._spool.append(step.seq, encoded)
        self._position = Position(step.seq, step.episode, step.index, step.ends_episode)
        if not sent:
            self._wake()

    def take_weights(self) -> Weights | None:
        """The newest weights that arrived since the last call, or None. float32; the arrays are the caller's."""
        with self._state:
            taken, self._weights = self._weights, None
        if taken is not None and self._in_order:
            self._wake()
        return taken

    def wait_weights(self, version: int, timeout_s: float | None = None) -> Weights | None:
        """Waits for weights of at least `version`; None after `timeout_s`, or when the learner stops."""
        with self._state:
            self._state.wait_for(
                lambda: (
                    (self._weights and self._weights.version >= version) or self.stop_reason or self._failure
                ),
                timeout_s,
            )
            if self._weights is None or self._weights.version < version:
                return None
        return self.take_weights()

    def send_evaluation(
        self,
        version: int,
        env_steps: int,
        episodes: list[EpisodeOutcome],
        arrays: dict[str, npt.NDArray[Any]],
    ) -> None:
        """Reports an evaluation; repeated until a learner has it (in memory only: it dies with this process)."""
        with self._state:
            self._evaluations.append(
                messages.Evaluation(
                    session_id=self.session_id, number=self._evaluation_count, version=version,
                    env_steps=env_steps, episodes=episodes, arrays=arrays,
                )
            )  # fmt: skip
            self._evaluation_count += 1
        self._wake()

    @property
    def progress(self) -> Progress:
        """As of the last acknowledgement."""
        ack = self._ack
        return Progress(
            acked_seq=ack.durable_seq, unacked=self._spool.next_seq - self._spool.first_seq,
            env_steps=ack.env_steps, updates_owed=ack.updates_owed, newest_version=ack.newest_version,
            heard_s=time.monotonic() - self._heard_at,
        )  # fmt: skip

    def close(self, drain_s: float = 0.0) -> bool:
        """Ends the session after waiting up to `drain_s` for acknowledgements.

        Returns: whether everything was acknowledged. What was not stays in the spool; the next actor on this
        machine sends it. Closing twice does nothing.
        """
        if self._closed:
            return self._drained()
        self._closed = True
        deadline = time.monotonic() + drain_s
        with self._state:
            while not self._drained() and self._thread is not None and not self._failure:
                left = deadline - time.monotonic()
                if left <= 0 or self._main.given_up:
                    break
                self._state.wait(min(left, 0.1))
        self._closing = True
        self._waker.wake()
        if self._thread is not None:
            self._thread.join()
        drained = self._drained()
        for stream in self._streams.values():
            stream.spool.close(delete=stream.spool.first_seq == stream.spool.next_seq)
        self._socket.close(FAREWELL_MS)
        self._context.term()
        self._waker.close()
        return drained

    def _send_at_once(self, seq: int, encoded: EncodedStep) -> bool:
        """Spares a step the way through the I/O thread. Before it is spooled, so that the network and the file
        system work side by side; should this process die in between, the learner has one step that no `put`
        returned for."""
        if not self._io.acquire(blocking=False):
            return False
        try:
            if not self._main.may_send(seq):
                return False
            if not self._send_frames(self._step_codec.encode_steps(self.session_id, [encoded])):
                return False
            self._main.sent([encoded])
            if (
                int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN
            ):  # sending took the signal that something has come
                self._waker.wake()
            return True
        finally:
            self._io.release()

    def _drained(self) -> bool:
        return self._spool.first_seq == self._spool.next_seq and not self._evaluations

    def _wake(self) -> None:
        if not self._signalled:
            self._signalled = True
            self._waker.wake()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._closing:
                self._sleep()
                with self._io:
                    self._turn()
            if self._main.open and self._drained():
                self._send(messages.Bye(session_id=self.session_id))
        except (SerlError, OSError, zmq.ZMQError) as e:
            logger.error("the connection to the learner cannot go on: %s", e)
            with self._state:
                self._failure = e
                self._state.notify_all()

    def _sleep(self) -> None:
        """Until something comes, `put` wakes, or it is time to look anyway. The socket's own descriptor is
        watched, not the socket, which `put` may be using."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        poller.register(self._waker.fd, select.POLLIN)
        poller.poll(POLL_MS)

    def _turn(self) -> None:
        """One round of the I/O thread."""
        self._waker.clear()
        self._signalled = False
        self._receive()
        self._keep_alive(time.monotonic())
        for stream in list(self._streams.values()):
            self._pump(stream)
        self._receive()  # sending may have taken the descriptor's signal

    def _keep_alive(self, now: float) -> None:
        if now - max(self._heard_at, self._opened_at) > self._silence_s:
            self._reconnect(now)
        for stream in self._streams.values():
            if not stream.open and not stream.given_up and now - stream.greeted_at > GREET_PERIOD_S:
                stream.greeted_at = now
                hello = msgspec.structs.replace(stream.spool.hello, first_seq=stream.spool.first_seq)
                self._send(hello)
        quiet_for = now - max(self._heard_at, self._pinged_at)
        if quiet_for > PING_PERIOD_S and self._main.open:
            self._pinged_at = now
            self._send(messages.Ping(session_id=self.session_id))
            if self._evaluations:
                self._send(self._evaluations[0])
        if self._main.open and not self._requested and not (self._in_order and self._weights):
            request = messages.WeightsRequest(
                have_version=self._have_version, in_order=self._in_order, half=self._half
            )
            self._requested = self._send(request)

    def _reconnect(self, now: float) -> None:
        self._silence_s = min(2 * self._silence_s, MAX_SILENCE_S)
        self.counters["reconnects"] += 1
        self._socket.close(0)
        self._socket = connect_dealer(self._context, self._address, self._keys, self._max_message_bytes)
        self._descriptor = self._socket.FD
        self._opened_at = now
        for stream in self._streams.values():
            stream.open, stream.greeted_at = False, -np.inf

    def _pump(self, stream: Stream) -> None:
        while stream.open and (batch := stream.next_batch()):
            frames = self._codec.encode_steps(stream.spool.hello.session_id, batch)
            if not self._send_frames(frames):
                return
            stream.sent(batch)

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._handle(self._codec.decode(frames))
            except WireError as e:
                self.counters["malformed"] += 1
                if self.counters["malformed"].bit_count() == 1:
                    logger.warning("dropped %d malformed messages: %s", self.counters["malformed"], e)

    def _handle(self, message: messages.Message) -> None:
        self._heard_at, self._silence_s = time.monotonic(), SILENCE_S
        match message:
            case messages.Weights():
                self._take(message)
            case messages.Stop():
                with self._state:
                    self.stop_reason = message.reason
                    self._state.notify_all()
            case (
                messages.Welcome() | messages.Ack() | messages.Resend() | messages.Refused()
                | messages.HelloRequired()
            ):  # fmt: skip
                stream = self._streams.get(message.session_id)
                if stream is None:
                    self.counters["strangers"] += 1
                else:
                    self._handle_session(stream, message)
            case _:
                raise WireError(f"{type(message).__name__} is not for an actor")

    def _handle_session(self, stream: Stream, message: messages.Message) -> None:
        match message:
            case messages.Welcome():
                self._welcomed(stream, message)
            case messages.Refused():
                self._give_up(stream, message.reason)
            case messages.HelloRequired():
                stream.open, stream.greeted_at = False, -np.inf
            case messages.Resend():
                if message.from_seq < stream.cursor:
                    self.counters["resent"] += stream.cursor - message.from_seq
                    stream.rewind(message.from_seq)
            case messages.Ack():
                self._acknowledged(stream, message)

    def _welcomed(self, stream: Stream, welcome: Welcome) -> None:
        spool = stream.spool
        if spool.run_id not in (None, welcome.run_id):
            self._give_up(
                stream,
                f"the learner at {self._address} runs {welcome.run_id} now, this session belongs to run "
                f"{spool.run_id}; start that one again, or start the actor anew",
            )
            return
        if welcome.last_durable_seq >= max(spool.next_seq, stream.furthest) and stream is self._main:
            raise WireError("a welcome that knows steps which were never sent")
        spool.belongs_to(welcome.run_id)
        stream.open = True
        self.counters["resent"] += max(0, stream.cursor - welcome.last_durable_seq - 1)
        stream.acknowledge(welcome.last_durable_seq)
        stream.rewind(welcome.last_durable_seq + 1)
        if stream is self._main:
            self._requested = False
            for evaluation in list(self._evaluations):
                self._send(evaluation)
            with self._state:
                self._welcome = welcome
                self._state.notify_all()
        else:
            self._finish_if_done(stream)

    def _give_up(self, stream: Stream, reason: str) -> None:
        stream.open, stream.given_up = False, True
        if stream is not self._main:
            logger.warning("steps of an earlier actor stay in %s: %s", stream.spool.folder, reason)
            return
        with self._state:
            self._refusal = self.stop_reason = reason
            self._state.notify_all()

    def _acknowledged(self, stream: Stream, ack: messages.Ack) -> None:
        if not -1 <= ack.durable_seq < stream.cursor:
            raise WireError("an acknowledgement of steps that were never sent")
        stream.acknowledge(ack.durable_seq)
        if stream is not self._main:
            self._finish_if_done(stream)
            return
        self._ack = ack
        with self._state:
            while self._evaluations and self._evaluations[0].number < ack.evaluations:
                self._evaluations.popleft()
            if self._drained():
                self._state.notify_all()

    def _finish_if_done(self, stream: Stream) -> None:
        if stream.spool.first_seq == stream.spool.next_seq:
            session_id = stream.spool.hello.session_id
            self._send(messages.Bye(session_id=session_id))
            stream.spool.close(delete=True)
            del self._streams[session_id]
            logger.info("sent what an earlier actor had left (session %s)", session_id)

    def _take(self, weights: Weights) -> None:
        if not self._requested:
            raise WireError("weights that were not asked for")
        self._requested = False
        if weights.version <= self._have_version:
            raise WireError(f"weights of version {weights.version} after {self._have_version}")
        arrays = {
            key: array.astype(np.float32) if array.dtype == np.float16 else array.copy()
            for key, array in weights.arrays.items()
        }
        with self._state:
            self._have_version = weights.version
            self._weights = msgspec.structs.replace(weights, arrays=arrays)
            self._state.notify_all()

    def _send(self, message: messages.Message) -> bool:
        return self._send_frames(self._codec.encode(message))

    def _send_frames(self, frames: list[bytes | memoryview]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
