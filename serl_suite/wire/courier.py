"""The I/O thread of an actor: greets, sends what `hurry` did not, and hands on what the learner says.

It goes back to where the learner's journal ends whenever either side was away, and sends what earlier actors on
this machine left behind.
"""

import logging
import threading
import time
from collections import deque

import zmq

from serl_suite.errors import SerlError
from serl_suite.wire import messages
from serl_suite.wire.inbox import Inbox
from serl_suite.wire.link import Link
from serl_suite.wire.messages import WireError
from serl_suite.wire.stream import HOLD_S, Stream
from serl_suite.wire.subscription import Subscription

__all__ = ["Courier"]

POLL_MS = 50
PING_PERIOD_S = 0.3
MAX_WAIT_S = 0.001
"""`hurry` leaves a step to the I/O thread rather than wait longer for the socket."""

logger = logging.getLogger(__name__)


class Courier:
    """Carries the actor's own stream, those it inherited, evaluations and weights over one link, which it owns."""

    def __init__(
        self, link: Link, own: Stream, inherited: list[Stream], subscription: Subscription, inbox: Inbox
    ) -> None:
        self._link, self._own, self._subscription, self._inbox = link, own, subscription, inbox
        self._streams = {stream.session_id: stream for stream in [*inherited, own]}
        self._evaluations: deque[messages.Evaluation] = deque()
        self._reported = 0
        """Evaluations before this number were sent and not yet acknowledged, or were."""
        self._lock = threading.Lock()
        """Guards the link and the streams."""
        self._pinged_at = time.monotonic()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def drained(self) -> bool:
        """Whether all the actor's own steps and evaluations were acknowledged."""
        return self._own.done and not self._evaluations

    def start(self) -> None:
        """Starts the thread; a second time does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
            self._thread.start()

    def hurry(self, *, last: bool) -> None:
        """Spares the step just spooled the way through the I/O thread, where that is possible without waiting; `last`
        where no step of its episode follows."""
        if not self._lock.acquire(timeout=MAX_WAIT_S):
            self._link.wake()
            return
        try:
            if self._own.hurry(time.monotonic(), last=last):
                self._link.wake_if_readable()
            else:
                self._link.wake()
        finally:
            self._lock.release()

    def post(self, evaluation: messages.Evaluation) -> None:
        """Sends an evaluation, again and again, until the learner has it."""
        self._evaluations.append(evaluation)
        self._link.wake()

    def close(self) -> None:
        """Ends the thread, says goodbye where all is done, and lets go of the spools and the link."""
        self._closing = True
        self._link.wake()
        if self._thread is not None:
            self._thread.join()
        for stream in self._streams.values():
            stream.spool.close(delete=stream.done)
        self._link.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._link.wait(HOLD_S * 1000 if self._own.holds else POLL_MS)
                with self._lock:
                    self._turn()
            if self._own.open and self.drained:
                self._link.send(messages.Bye(session_id=self._own.session_id))
        except (SerlError, OSError, zmq.ZMQError) as e:
            logger.error("the connection to the learner cannot go on: %s", e)
            self._inbox.note_failure(e)

    def _turn(self) -> None:
        """One round of the thread."""
        self._link.clear_wake()
        self._link.receive(self._handle)
        now = time.monotonic()
        if self._link.renew_if_silent(now):
            for stream in self._streams.values():
                stream.greet_anew()
        for stream in self._streams.values():
            stream.greet(now)
        if self._own.open:
            self._talk(now)
        for stream in self._streams.values():
            stream.pump(now)
        self._link.receive(self._handle)  # sending may have taken the descriptor's signal

    def _talk(self, now: float) -> None:
        """Asks for a sign of life where there was none of late, and for weights; reports evaluations."""
        if now - max(self._link.heard_at, self._pinged_at) > PING_PERIOD_S:
            self._pinged_at = now
            self._link.send(messages.Ping(session_id=self._own.session_id))
            self._reported = 0
        self._report()
        request = self._subscription.request()
        untaken = self._subscription.in_order and self._inbox.holds_weights
        if request is not None and not untaken and self._link.send(request):
            self._subscription.asked()

    def _report(self) -> None:
        """In order: the learner takes none that is older than one it has."""
        for evaluation in list(self._evaluations):
            if evaluation.number >= self._reported:
                if not self._link.send(evaluation):
                    return
                self._reported = evaluation.number + 1

    def _handle(self, message: messages.Message) -> None:
        match message:
            case messages.Weights():
                self._inbox.put_weights(self._subscription.accept(message))
            case messages.Stop():
                self._inbox.note_stop(message.reason)
            case (
                messages.Welcome() | messages.Ack() | messages.Resend() | messages.Refused()
                | messages.HelloRequired()
            ):  # fmt: skip
                stream = self._streams.get(message.session_id)
                if stream is None:
                    self._link.counters["strangers"] += 1
                else:
                    self._handle_session(stream, message)
            case _:
                raise WireError(f"{type(message).__name__} is not for an actor")

    def _handle_session(self, stream: Stream, message: messages.Message) -> None:
        match message:
            case messages.Welcome():
                reason = stream.welcomed(message)
                if reason is not None:
                    self._give_up(stream, reason)
                elif stream is self._own:
                    self._welcomed(message)
            case messages.Ack():
                stream.acknowledged(message)
                if stream is self._own:
                    self._acknowledged(message)
            case messages.Resend():
                stream.resend(message.from_seq)
            case messages.Refused():
                self._give_up(stream, message.reason)
            case messages.HelloRequired():
                stream.greet_anew()
        if stream.inherited and stream.done:
            self._finish(stream)

    def _welcomed(self, welcome: messages.Welcome) -> None:
        self._subscription.ask_anew()
        self._reported = 0
        self._inbox.note_welcome(welcome)

    def _acknowledged(self, ack: messages.Ack) -> None:
        while self._evaluations and self._evaluations[0].number < ack.evaluations:
            self._evaluations.popleft()
        self._inbox.note_ack(ack)

    def _give_up(self, stream: Stream, reason: str) -> None:
        stream.give_up()
        if stream is self._own:
            self._inbox.note_refusal(reason)
        else:
            logger.warning("steps of an earlier actor stay in %s: %s", stream.spool.folder, reason)

    def _finish(self, stream: Stream) -> None:
        self._link.send(messages.Bye(session_id=stream.session_id))
        stream.spool.close(delete=True)
        del self._streams[stream.session_id]
        logger.info("sent what an earlier actor had left (session %s)", stream.session_id)
