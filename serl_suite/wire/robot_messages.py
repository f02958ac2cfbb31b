"""What clients and a robot server say to each other.

A client asks over a DEALER socket, and is answered by the number of its request. What the arm does is published to
everybody who listens, as one frame each. MessagePack behind `MAGIC` and a version: never pickle, and every value is
checked where it comes in. Base frame, linear before angular, quaternions xyzw.
"""

import math
from typing import Annotated, TypeVar

import msgspec

from serl_suite.wire.messages import WireError

__all__ = [
        "ArmState", "Done", "Follow", "Heartbeat", "HomeGripper", "MoveGripper", "PickUp", "PutDown", "Recover",
    "Refused", "Release", "Request", "Reset", "ResetJoints", "ServerReport", "SetGains", "SetLoad", "ShowStatus",
    "Stop", "TakeControl", "decode_answer", "decode_request", "decode_state", "encode", "state_address",
]  # fmt: skip

MAGIC = b"SRR\x01"
"""The last byte is the version."""

Three = tuple[float, float, float]
Four = tuple[float, float, float, float]
Six = tuple[float, float, float, float, float, float]
Seven = tuple[float, float, float, float, float, float, float]
Nine = tuple[float, float, float, float, float, float, float, float, float]
Text = Annotated[str, msgspec.Meta(max_length=200)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Anything that a client asks."""

    number: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    """Names it in the answer; a client counts up."""


class TakeControl(Request, frozen=True, kw_only=True):
    """Asks to be the one client that may move the arm; or to stay it."""

    client: Text
    """Who asks, for people."""


class Release(Request, frozen=True, kw_only=True):
    """Gives control back; the arm holds."""


class Heartbeat(Request, frozen=True, kw_only=True):
    """Keeps control; so does any other request."""


class Follow(Request, frozen=True, kw_only=True):
    """A setpoint. Answered only where it is refused; accepted ones show in `ArmState.setpoint`."""

    position: Three
    """Of the TCP [m]."""
    quaternion: Four
    gripper_width: float | None = None
    """Opening [m]; None: as before."""
    deadline_s: float
    """Robot time after which it is too old to be followed."""


class Reset(Request, frozen=True, kw_only=True):
    """Retracts, goes to the pose, and checks that it is there. Answered at the end."""

    position: Three
    quaternion: Four
    gripper_width: float | None = None
    straight: bool = False
    """Without retracting, for small moves."""


class ResetJoints(Request, frozen=True, kw_only=True):
    """Retracts, goes to the joint position, and checks that it is there. Answered at the end."""

    q: Seven


class MoveGripper(Request, frozen=True, kw_only=True):
    """Starts to move the fingers. Answered when they have started."""

    width: float
    """[m]"""
    force_n: float | None = None
    """With which they close; None: the server's."""


class HomeGripper(Request, frozen=True, kw_only=True):
    """Has the hand find out how far it opens. Answered at the end."""


class PickUp(Request, frozen=True, kw_only=True):
    """Opens, comes from above, closes, lifts, and checks that it holds something. Answered at the end."""

    position: Three
    """Of the TCP when the fingers close."""
    quaternion: Four
    approach_m: Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] = 0.1
    """From how far above, and how far it is lifted."""
    force_n: float | None = None
    """Of the grasp; None: the server's."""


class PutDown(Request, frozen=True, kw_only=True):
    """Comes from above with what it holds, opens, and leaves upwards. Answered at the end."""

    position: Three
    """Of the TCP when the fingers open."""
    quaternion: Four
    approach_m: Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] = 0.1


class SetGains(Request, frozen=True, kw_only=True):
    """Changes the impedance. What it adds to the spring's energy is paid out of the energy tank."""

    stiffness: Six
    damping_ratio: float = 1.0
    clip_lower: Six
    clip_upper: Six


class SetLoad(Request, frozen=True, kw_only=True):
    """Tells the arm what it carries beyond its gripper. It lets go of the motion for that, so it must be at rest."""

    mass: float
    com: Three
    inertia: Nine


class Recover(Request, frozen=True, kw_only=True):
    """Clears a latched fault."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """Why that is safe: goes to the server's log."""


class Stop(Request, frozen=True, kw_only=True):
    """Brings the arm to rest and latches; anybody may."""

    reason: Text


class ShowStatus(Request, frozen=True, kw_only=True):
    """Asks for a `ServerReport`; anybody may."""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What was asked has been done."""

    number: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What was asked has not been done, or not to the end."""

    number: int
    reason: str


class ServerReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The state of the server itself."""

    number: int
    ip: str
    controller: str | None
    """Who may move the arm."""
    phase: str
    fault: str
    detail: str
    realtime: list[str]
    """What the kernel permits the control process, a line each."""
    control_pid: int
    success_rate: float
    stiffness: Six
    box_lower: Three
    box_upper: Three


class ArmState(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the arm does; only the newest one counts."""

    time_s: float
    """Robot time."""
    q: list[float]
    dq: list[float]
    position: Three
    quaternion: Four
    twist: Six
    wrench: Six
    """That acts on the TCP from outside [N, N m]."""
    gripper_width: float
    gripper_target: float
    phase: str
    """starting, running, braking, stopped or ended."""
    fault: str
    """Empty: none."""
    detail: str
    setpoint: int
    """Number of the newest request whose setpoint the torque reflects."""
    setpoint_ns: int
    """CLOCK_MONOTONIC of the server's machine when that was so first."""
    tank_fraction: float
    gamma: float
    """By what the passivity filter scales the torque."""
    controller: str | None
    success_rate: float


AnyRequest = (
    TakeControl | Release | Heartbeat | Follow | Reset | ResetJoints | MoveGripper | HomeGripper | PickUp | PutDown
    | SetGains | SetLoad | Recover | Stop | ShowStatus
)  # fmt: skip
AnyAnswer = Done | Refused | ServerReport

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_answers: msgspec.msgpack.Decoder[AnyAnswer] = msgspec.msgpack.Decoder(AnyAnswer)
_states = msgspec.msgpack.Decoder(ArmState)
Message = TypeVar("Message")


def encode(message: Request | AnyAnswer | ArmState) -> bytes:
    """One frame."""
    return MAGIC + _encoder.encode(message)


def decode_request(frame: bytes) -> AnyRequest:
    """Raises: WireError, where it is no request of this version, or holds NaN or inf."""
    request = _decode(_requests, frame)
    for name in request.__struct_fields__:
        value = getattr(request, name)
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(v, float) and not math.isfinite(v) for v in values):
            raise NotFinite(request.number, f"{type(request).__name__}.{name} is not finite: {value}")
    return request


def decode_answer(frame: bytes) -> AnyAnswer:
    """Raises: WireError."""
    return _decode(_answers, frame)


def decode_state(frame: bytes) -> ArmState:
    """Raises: WireError."""
    return _decode(_states, frame)


class NotFinite(WireError):
    """NaN or inf in a request.

    Attributes:
        number: The request's.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def state_address(address: str) -> str:
    """Where a server that is asked at an address publishes states: at the next port."""
    host, port = address.rsplit(":", 1)
    return f"{host}:{int(port) + 1}"


def _decode(decoder: "msgspec.msgpack.Decoder[Message]", frame: bytes) -> Message:
    if frame[: len(MAGIC)] != MAGIC:
        raise WireError(
            "no message of this protocol and version; install the same version of serl-suite on both sides"
        )
    try:
        return decoder.decode(memoryview(frame)[len(MAGIC) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a message that cannot be read: {error}") from error
