"""How messages reach ROS 2: by its own client library, or straight as DDS samples."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

from serl_suite.errors import SerlError

if TYPE_CHECKING:
    from serl_servers.ros2 import messages

__all__ = [
    "DEPTH", "Messages", "Publisher", "Subscription", "Transport", "TransportError", "TransportName", "domain_of",
    "make_transport", "topic_name",
]  # fmt: skip

TransportName = Literal["rclpy", "cyclonedds"]
MAX_DOMAIN = 232
DEPTH = 8
"""Messages that wait to be taken: several nodes may share a topic, and not all of what they say is wanted."""
Message = TypeVar("Message")
Sent = TypeVar("Sent", contravariant=True)
Taken = TypeVar("Taken", covariant=True)


class TransportError(SerlError):
    """ROS 2 cannot be reached; the message says what to install or to set."""


class Messages(NamedTuple):
    """The message classes of a transport. Both kinds take their fields by keyword."""

    Time: "type[messages.Time]"
    Header: "type[messages.Header]"
    Point: "type[messages.Point]"
    Quaternion: "type[messages.Quaternion]"
    Vector3: "type[messages.Vector3]"
    Pose: "type[messages.Pose]"
    PoseStamped: "type[messages.PoseStamped]"
    Wrench: "type[messages.Wrench]"
    WrenchStamped: "type[messages.WrenchStamped]"
    JointState: "type[messages.JointState]"
    KeyValue: "type[messages.KeyValue]"
    DiagnosticStatus: "type[messages.DiagnosticStatus]"
    DiagnosticArray: "type[messages.DiagnosticArray]"


class Publisher(Protocol[Sent]):
    """Of one topic."""

    def publish(self, message: Sent) -> None:
        """Sends to whoever listens, and waits for nobody."""


class Subscription(Protocol[Taken]):
    """To one topic; only the newest message counts."""

    def take(self) -> Taken | None:
        """The newest message since the last call; None: none has come."""

    def is_published(self) -> bool:
        """Whether somebody publishes the topic. One that was killed is missed only after seconds."""


class Transport(Protocol):
    """A node of a ROS 2 graph. Belongs to one thread."""

    messages: Messages

    def now_ns(self) -> int:
        """The time in stamps."""

    def publisher(self, kind: type[Message], topic: str) -> Publisher[Message]:
        """Begins to publish."""

    def subscription(
        self, kind: type[Message], topic: str, wanted: Callable[[Message], bool] = lambda _: True
    ) -> Subscription[Message]:
        """Begins to listen; what is not wanted counts as not said."""

    def close(self) -> None:
        """Leaves the graph, so that the others know."""


def make_transport(name: TransportName, node: str, domain: int | None) -> Transport:
    """Joins the graph.

    Args:
        name: Of the transport.
        node: Name to be seen under, where the transport has such.
        domain: ROS 2 domain; None: $ROS_DOMAIN_ID, or 0.

    Raises:
        TransportError: It is not installed, or the domain is none.
    """
    number = domain_of(domain)
    if name == "cyclonedds":
        from serl_servers.ros2.dds_transport import DdsTransport

        return DdsTransport(number)
    from serl_servers.ros2.rclpy_transport import RclpyTransport

    return RclpyTransport(node, number)


def domain_of(domain: int | None) -> int:
    """Raises: TransportError."""
    text = os.environ.get("ROS_DOMAIN_ID") or "0" if domain is None else str(domain)
    if not text.isdecimal() or int(text) > MAX_DOMAIN:
        raise TransportError(f"{text!r} is no ROS 2 domain; choose 0..{MAX_DOMAIN} (--domain, ROS_DOMAIN_ID)")
    return int(text)


def topic_name(namespace: str, name: str) -> str:
    """The full name; one that begins with a slash stays as it is."""
    if name.startswith("/"):
        return name
    prefix = namespace.strip("/")
    return f"/{prefix}/{name}" if prefix else f"/{name}"
