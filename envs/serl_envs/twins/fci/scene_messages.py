"""What a wire twin is told and tells beside the arm's own protocol: where the things in its scene are, and how far its
time may pass. No real arm has that.

A client asks over a DEALER socket, and every request is answered by what the scene is then, or refused, under the
request's number. MessagePack behind `MAGIC` and a version; every value is checked where it comes in.
"""

import math
from typing import Annotated, TypeVar

import msgspec

from serl_suite.wire.messages import WireError

__all__ = [
    "MAX_MESSAGE_BYTES", "PORT", "AnyAnswer", "AnyRequest", "Place", "Refused", "RunUntil", "SceneState", "ShowScene",
    "decode_answer", "decode_request", "encode",
]  # fmt: skip

PORT = 1339
"""Beside the arm's 1337 and the hand's 1338."""
MAGIC = b"SRT\x01"
"""The last byte is the version."""
MAX_MESSAGE_BYTES = 256 * 1024

Three = tuple[float, float, float]
Four = tuple[float, float, float, float]
Message = TypeVar("Message", bound=msgspec.Struct)


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    number: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    """Names it in the answer; a client counts up."""


class ShowScene(_Request, frozen=True, kw_only=True):
    """Asks for the scene."""


class Place(_Request, frozen=True, kw_only=True):
    """Puts a thing of the task's at rest at a pose; one that is fixed to the world stays there until placed again."""

    body: Annotated[str, msgspec.Meta(max_length=200)]
    position: Three
    """Base frame [m]."""
    quaternion: Four
    """xyzw."""


class RunUntil(_Request, frozen=True, kw_only=True):
    """In lockstep: lets the arm's time pass until then, where it stands still until told more."""

    time_s: float | None
    """Robot time; None: time is not to stand still any more."""


class SceneState(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Positions in MuJoCo's own arrays and order, so that whoever has the task's model has the scene."""

    number: int
    task: str
    """Id of the task whose scene it is."""
    lockstep: bool
    """Whether `RunUntil` has an effect."""
    time_s: float
    """Robot time."""
    qpos: list[float]
    body_pos: list[float]
    """Of the model: where things are fixed to."""
    body_quat: list[float]


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What was asked has not been done."""

    number: int
    reason: str


AnyRequest = ShowScene | Place | RunUntil
AnyAnswer = SceneState | Refused

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_answers: msgspec.msgpack.Decoder[AnyAnswer] = msgspec.msgpack.Decoder(AnyAnswer)


def encode(message: AnyRequest | AnyAnswer) -> bytes:
    """One frame."""
    return MAGIC + _encoder.encode(message)


def decode_request(frame: bytes) -> AnyRequest:
    """Raises: WireError, where it is no request of this version, or holds NaN or inf."""
    return _decode(_requests, frame)


def decode_answer(frame: bytes) -> AnyAnswer:
    """Raises: WireError, likewise."""
    return _decode(_answers, frame)


def _decode(decoder: "msgspec.msgpack.Decoder[Message]", frame: bytes) -> Message:
    if frame[: len(MAGIC)] != MAGIC:
        raise WireError("no message of a twin's scene; install the same version of serl-suite on both sides")
    try:
        message = decoder.decode(memoryview(frame)[len(MAGIC) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a message that cannot be read: {error}") from error
    for name, value in msgspec.structs.asdict(message).items():
        values = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(v, float) and not math.isfinite(v) for v in values):
            raise WireError(f"{type(message).__name__}.{name} is not finite")
    return message
