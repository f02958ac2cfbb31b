"""Every message between an actor and its learner, and the step they exchange.

An episode is a row of steps: index 0 carries the reset's observation and no action, index t >= 1 the action
taken and the observation after it. Each observation is sent and stored once; transition t is (observation of
index t-1, action, reward, terminated of index t, observation of index t).
"""

import math
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.errors import SerlError
from serl_suite.wire.spaces import BadStep, EnvSpec, Observation

__all__ = [
    "SCHEMA", "Ack", "Bye", "EpisodeOutcome", "Evaluation", "Hello", "HelloRequired", "Message",
    "Observation", "Ping", "Position", "Refused", "Resend", "Step", "Steps", "Stop", "Weights",
    "WeightsRequest", "Welcome", "WireError", "check_order", "check_step",
]  # fmt: skip

SCHEMA = 2
"""Version of these messages and of the records on disk that hold them."""

SOURCES = ("policy", "scripted", "human")
Array = npt.NDArray[Any]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Number = Annotated[int, msgspec.Meta(ge=-1, le=2**62)]
"""As `Count`, with -1 for none yet."""


class WireError(SerlError):
    """Bytes from a peer that are no message of this schema."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One step of an episode; `(session_id, seq)` names it for ever."""

    seq: Count
    """Counts a session's steps: 0, 1, 2, ... without gaps."""
    episode: Count
    """Counts a session's episodes."""
    index: Count
    """Place in the episode; 0 is the reset."""
    observation: Observation
    """After the action (index 0: after the reset)."""
    action: npt.NDArray[np.float32] | None = None
    """As executed. Shape: (action_dim,); None if and only if index is 0."""
    reward: float = 0.0
    cost: float = 0.0
    """What a constraint counts, where the environment tells it; a step made without one is as it was before costs."""
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    """Ground truth or classifier, where known."""
    source: str = "policy"
    """Who chose the action: policy, scripted or human."""
    intervention: bool = False
    policy_version: Number = 0
    """Weights that chose the action."""
    time_s: float = 0.0
    """Control clock of the observation."""
    frame_times_s: dict[str, float] = {}
    """Capture time of each camera's frame, on the same clock, where known."""

    @property
    def ends_episode(self) -> bool:
        return self.terminated or self.truncated


class Position(msgspec.Struct, frozen=True):
    """Where a session stands: its last step."""

    seq: int
    episode: int
    index: int
    ended: bool
    """Whether it ended its episode."""


class Message(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="is", tag=True
):
    """Base of what is sent as one multipart message."""


class Hello(Message, frozen=True):
    """Actor: opens a session, or takes it up again after either side was away."""

    session_id: str
    actor: str
    """For people: host name or the like."""
    spec: EnvSpec
    first_seq: Count = 0
    """Lowest step that the actor can still send."""


class Welcome(Message, frozen=True):
    """Learner: send what follows `last_durable_seq`, act with the policy described by `agent`."""

    session_id: str
    run_id: str
    last_durable_seq: Number
    """-1: nothing yet."""
    agent: dict[str, Any]
    """JSON-like; what the actor builds its policy from."""


class Refused(Message, frozen=True):
    """Learner: this session cannot be taken; the reason names cause and remedy."""

    session_id: str
    reason: str


class HelloRequired(Message, frozen=True):
    """Learner: the session is not known here (any more)."""

    session_id: str


class Steps(Message, frozen=True):
    """Actor: steps of one session with consecutive seqs."""

    session_id: str
    steps: list[Step]


class Resend(Message, frozen=True):
    """Learner: a gap; go back to `from_seq`."""

    session_id: str
    from_seq: Count


class Ping(Message, frozen=True):
    """Actor: answer with an Ack, please."""

    session_id: str


class Ack(Message, frozen=True):
    """Learner: how far the session is on disk and where training stands."""

    session_id: str
    durable_seq: int
    """Every step up to this one is on disk; -1: none."""
    evaluations: int = 0
    """How many of the session's evaluations have arrived."""
    env_steps: int = 0
    """Transitions received in this run, from all actors."""
    updates_owed: float = 0.0
    newest_version: int = -1
    """Newest published weights; -1: none yet."""


class WeightsRequest(Message, frozen=True):
    """Actor: send weights newer than `have_version` as soon as there are any."""

    have_version: int
    in_order: bool = False
    """The smallest version after `have_version` that is still kept, instead of the newest; not where that is -1."""
    half: bool = False
    """As float16."""


class Weights(Message, frozen=True):
    """Learner: policy only."""

    version: int
    arrays: dict[str, Array]


class EpisodeOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one evaluation episode went."""

    success: bool
    episode_return: float
    length: int
    """Steps, without the reset."""


class Evaluation(Message, frozen=True):
    """Actor: what a fixed policy achieved, acting deterministically."""

    session_id: str
    number: Count
    """Counts a session's evaluations from 0."""
    version: Number
    env_steps: Count
    """`Ack.env_steps` when it began."""
    episodes: Annotated[list[EpisodeOutcome], msgspec.Meta(min_length=1, max_length=100_000)]
    arrays: dict[str, Array] = {}
    """The evaluated policy."""


class Stop(Message, frozen=True):
    """Learner: training is over."""

    reason: str


class Bye(Message, frozen=True):
    """Actor: the session has ended and everything in it was acknowledged."""

    session_id: str


def check_step(spec: EnvSpec, step: Step) -> None:
    """Raises: BadStep, naming the step, the field and the cause."""
    try:
        spec.check_observation(step.observation)
        if (step.action is None) != (step.index == 0):
            raise BadStep("a reset (index 0) carries no action and every other step carries one")
        if step.action is not None:
            spec.check_action(step.action)
        for name, value in (("reward", step.reward), ("cost", step.cost), ("time_s", step.time_s)):
            if not math.isfinite(value):
                raise BadStep(f"{name} is {value}")
        if step.source not in SOURCES:
            raise BadStep(f"source is {step.source!r}, not one of {SOURCES}")
        if min(step.seq, step.episode, step.index) < 0:
            raise BadStep("seq, episode and index count from 0")
    except BadStep as e:
        raise BadStep(f"step {step.seq} (episode {step.episode}, index {step.index}): {e}") from None


def check_order(last: Position | None, step: Step) -> None:
    """Raises: BadStep, unless `step` follows the session's `last` one."""
    if last is None or step.index == 0:
        follows = step.index == 0 and (last is None or step.episode > last.episode)
    else:
        follows = step.episode == last.episode and step.index == last.index + 1 and not last.ended
    if not follows:
        raise BadStep(
            f"step {step.seq} (episode {step.episode}, index {step.index}) does not follow {last}; an "
            "episode's indices count up from 0 and nothing follows its end"
        )
