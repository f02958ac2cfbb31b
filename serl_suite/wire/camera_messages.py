"""What clients and a camera server say to each other, and a camera's process to the server.

A client asks over a DEALER socket for what all cameras see, and is answered under the number of its request: a header,
then the pixels of each picture as one frame of bytes. How old a picture is, the server says in its own clock, so that
client and server need none in common. MessagePack behind `MAGIC` and a version; every value is checked where it comes
in.
"""

import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.wire.messages import WireError

__all__ = [
    "MAX_MESSAGE_BYTES",
    "NEVER_S",
    "STALE_S",
    "Pixels",
    "Report",
    "ShowPictures",
    "Sight",
    "Sights",
    "Stamp",
    "decode_answer",
    "decode_request",
    "encode",
    "pack",
    "unpack",
]  # fmt: skip

MAGIC = b"SRC\x01"
"""The last byte is the version."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Several pictures of 1024x1024."""
STALE_S = 0.3
"""A picture older than that is not what the camera sees: three periods of the slowest camera that a rig may have."""
NEVER_S = 1e9
"""Age of a picture that there is not."""
LONGEST_WAIT_S = 5.0
LENGTH_BYTES = 4
"""Of a report, before it."""

Pixels = npt.NDArray[np.uint8]
Side = Annotated[int, msgspec.Meta(ge=0, le=4096)]
Duration = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Message = TypeVar("Message", bound=msgspec.Struct)


class Stamp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a picture was taken."""

    sequence: Count = 0
    """Counts the camera's frames; those that are missing were seen by nobody. 0: there is none yet."""
    device_s: float = 0.0
    """In the camera's own clock."""
    host_ns: int = 0
    """CLOCK_MONOTONIC of the server's machine when the frame had arrived there."""


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A camera's process to its server: a new picture, or that there is none."""

    stamp: Stamp | None = None
    """Of the picture that follows."""
    size: Side = 0
    """Its side [pixels]."""
    fault: str = ""
    """Why there is none; empty: there is one."""
    detail: str = ""
    """Cause and remedy."""


class ShowPictures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Asks for the newest pictures of all cameras that belong together."""

    number: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    """Names it in the answer; a client counts up."""
    camera: str = ""
    """Wait for a picture of this one newer than `after`; empty: answer at once."""
    after: Count = 0
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT_S)] = 0.0
    """For so long at most."""


class Sight(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a camera sees. With a fault, its last good picture is shown on, and grows old."""

    camera: str
    stamp: Stamp
    size: Side
    """Side of the square picture [pixels]; 0: there has been none."""
    age_s: Duration
    """Of the picture when this was sent."""
    fault: str
    """Empty: none. Such as unplugged, stalled, frozen, black."""
    detail: str
    """Cause and remedy."""


class Sights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """What all cameras see at nearly the same time; the pixels follow in the same order."""

    number: int
    sights: tuple[Sight, ...]
    skew_s: Duration
    """Between the first and the last arrival among the pictures of cameras without a fault."""
    waited_s: Duration = 0.0
    """How long the server had the request, where that asked it to wait."""


_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[ShowPictures] = msgspec.msgpack.Decoder(ShowPictures)
_answers: msgspec.msgpack.Decoder[Sights] = msgspec.msgpack.Decoder(Sights)
_reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def encode(message: ShowPictures | Sights) -> bytes:
    """One frame."""
    return MAGIC + _encoder.encode(message)


def decode_request(frame: bytes) -> ShowPictures:
    """Raises: WireError, where it is no request of this version."""
    return _decode(_requests, frame)


def pack(report: Report, pixels: Pixels | None = None) -> bytes:
    """A report and its picture as one message, so that who reads it is woken once."""
    header = MAGIC + _encoder.encode(report)
    return b"".join((len(header).to_bytes(LENGTH_BYTES), header, b"" if pixels is None else pixels.tobytes()))


def unpack(message: bytes) -> tuple[Report, Pixels]:
    """Returns what was packed; the picture shares the message's memory.

    Raises:
        WireError: It is no report of this version, or another picture than it announces.
    """
    frame = memoryview(message)
    end = LENGTH_BYTES + int.from_bytes(frame[:LENGTH_BYTES])
    report = _decode(_reports, bytes(frame[LENGTH_BYTES:end]))
    size = 0 if report.stamp is None else report.size
    return report, pixels_of(frame[end:], size)


def decode_answer(frames: Sequence[bytes | memoryview]) -> tuple[Sights, list[Pixels]]:
    """Returns the header and the pictures, each (size, size, 3), RGB; they share the frames' memory.

    Raises:
        WireError: It is no answer of this version, or the pictures are not those that it announces.
    """
    header, *rest = frames or (b"",)
    sights = _decode(_answers, bytes(header))
    if len(rest) != len(sights.sights):
        raise WireError(f"{len(rest)} pictures instead of {len(sights.sights)}")
    if not all(
        map(math.isfinite, [sights.waited_s, sights.skew_s, *(sight.age_s for sight in sights.sights)])
    ):
        raise WireError("a time that is not finite")
    pairs = zip(sights.sights, rest, strict=True)
    return sights, [pixels_of(frame, sight.size) for sight, frame in pairs]


def pixels_of(frame: bytes | memoryview, size: int) -> Pixels:
    """Returns the bytes as a picture. Shape: (size, size, 3).

    Raises:
        WireError: They are more or fewer.
    """
    values = np.frombuffer(frame, np.uint8)
    if values.size != size * size * 3:
        raise WireError(f"{values.size} bytes are no picture of {size}x{size}")
    return values.reshape(size, size, 3)


def _decode(decoder: "msgspec.msgpack.Decoder[Message]", frame: bytes) -> Message:
    if frame[: len(MAGIC)] != MAGIC:
        raise WireError("no message about cameras; install the same version of serl-suite on both sides")
    try:
        return decoder.decode(memoryview(frame)[len(MAGIC) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a message that cannot be read: {error}") from error
