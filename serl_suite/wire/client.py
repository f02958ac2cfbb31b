"""The actor's end of the wire: takes steps without ever waiting for the network, and fetches the newest weights.

`put` writes a step to the spool (wire/spool.py), hands it to the socket if nothing is before it (wire/stream.py), and
returns. The I/O thread does the rest (wire/courier.py); what the learner says is found in the inbox (wire/inbox.py).
"""

import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from serl_suite.errors import SerlError
from serl_suite.wire.codec import Codec
from serl_suite.wire.courier import Courier
from serl_suite.wire.endpoint import MAX_MESSAGE_BYTES
from serl_suite.wire.inbox import Inbox
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.link import Link
from serl_suite.wire.messages import (
    EpisodeOutcome,
    Evaluation,
    Hello,
    Position,
    Step,
    Weights,
    Welcome,
    check_order,
    check_step,
)
from serl_suite.wire.spaces import EnvSpec
from serl_suite.wire.spool import Spool
from serl_suite.wire.stream import Stream
from serl_suite.wire.subscription import Subscription

__all__ = ["ActorClient", "LearnerUnreachable", "Progress", "SpecRefused"]


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
        self.session_id = session_id
        self._spec = spec
        self._link = Link(address, keys, max_message_bytes)
        self.counters: Counter[str] = self._link.counters
        """Messages that were dropped, by cause, beside `reconnects` and `resent` steps."""
        left_behind = [Stream(old, self._link, inherited=True) for old in Spool.pending(spool)]
        self._spool = Spool.create(spool, Hello(session_id=session_id, actor=actor_name, spec=spec))
        self._subscription = Subscription(in_order=in_order_weights, half=half_weights)
        self._inbox = Inbox(session_id)
        own = Stream(self._spool, self._link)
        self._courier = Courier(self._link, own, left_behind, self._subscription, self._inbox)
        self._codec = Codec(jpeg_quality)
        self._position: Position | None = None
        self._evaluation_numbers = itertools.count()
        self._closed = False

    def connect(self, timeout_s: float) -> Welcome:
        """Opens the session; afterwards the client reconnects by itself for ever.

        Raises:
            LearnerUnreachable: nothing answered; the client may be asked again, or closed.
            SpecRefused: the learner does not take this actor.
        """
        inbox = self._inbox
        self._courier.start()
        inbox.wait_for(lambda: bool(inbox.welcome or inbox.refusal or inbox.failure), timeout_s)
        self._raise_failure()
        if inbox.refusal is not None:
            raise SpecRefused(f"the learner at {self._link.address} refused this actor: {inbox.refusal}")
        if inbox.welcome is None:
            raise LearnerUnreachable(
                f"no answer from a learner at {self._link.address} within {timeout_s:g} s; start it with "
                "`serl learner --run DIR`, or check the address, the firewall and the keys"
            )
        return inbox.welcome

    @property
    def next_seq(self) -> int:
        """The seq that the next step must have."""
        return self._spool.next_seq

    @property
    def stop_reason(self) -> str | None:
        """Why the learner wants no more steps; None while it does."""
        return self._inbox.stop_reason

    @property
    def progress(self) -> Progress:
        """As of the last acknowledgement."""
        ack = self._inbox.ack
        return Progress(
            acked_seq=ack.durable_seq, unacked=self._spool.next_seq - self._spool.first_seq,
            env_steps=ack.env_steps, updates_owed=ack.updates_owed, newest_version=ack.newest_version,
            heard_s=time.monotonic() - self._link.heard_at,
        )  # fmt: skip

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
        self._spool.append(step.seq, self._codec.encode_step(step))
        self._position = Position(step.seq, step.episode, step.index, step.ends_episode)
        self._courier.hurry(last=step.ends_episode)

    def take_weights(self) -> Weights | None:
        """The newest weights that arrived since the last call, or None. float32; the arrays are the caller's."""
        self._raise_failure()
        return self._take_weights(at_least=0)

    def wait_weights(self, version: int, timeout_s: float | None = None) -> Weights | None:
        """Waits for weights of at least `version`; None after `timeout_s`, or when the learner stops."""
        self._inbox.wait_weights(version, timeout_s)
        self._raise_failure()
        return self._take_weights(at_least=version)

    def send_evaluation(
        self,
        version: int,
        env_steps: int,
        episodes: list[EpisodeOutcome],
        arrays: dict[str, npt.NDArray[Any]],
    ) -> None:
        """Reports an evaluation; repeated until a learner has it (in memory only: it dies with this process)."""
        self._courier.post(
            Evaluation(
                session_id=self.session_id, number=next(self._evaluation_numbers), version=version,
                env_steps=env_steps, episodes=episodes, arrays=arrays,
            )
        )  # fmt: skip

    def close(self, drain_s: float = 0.0) -> bool:
        """Ends the session after waiting up to `drain_s` for acknowledgements.

        Returns: whether everything was acknowledged. What was not stays in the spool; the next actor on this
        machine sends it. Closing twice does nothing.
        """
        if not self._closed:
            self._closed = True
            if self._courier.running:
                self._inbox.wait_for(self._has_nothing_to_wait_for, drain_s)
            self._courier.close()
        return self._courier.drained

    def _has_nothing_to_wait_for(self) -> bool:
        return self._courier.drained or bool(self._inbox.refusal or self._inbox.failure)

    def _take_weights(self, at_least: int) -> Weights | None:
        taken = self._inbox.take_weights(at_least)
        if taken is not None and self._subscription.in_order:
            self._link.wake()  # the next version may be asked for
        return taken

    def _raise_failure(self) -> None:
        if self._inbox.failure is not None:
            raise self._inbox.failure
