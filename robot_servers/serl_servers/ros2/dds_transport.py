"""ROS 2 topics as DDS samples, without ROS 2: names begin with `rt`, types are called as ROS 2 calls them.

Which network interfaces are used, $CYCLONEDDS_URI says, as it does for ROS 2 itself.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from serl_servers.ros2.transport import DEPTH, Messages, Publisher, Subscription, TransportError

try:
    from cyclonedds.core import DDSException
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.internal import InvalidSample
    from cyclonedds.pub import DataWriter
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic

    from serl_servers.ros2 import messages
except ImportError as error:
    raise TransportError(
        f"no cyclonedds ({error}); install it with `pip install 'serl-suite[ros2]'`, or take --transport rclpy"
    ) from error

__all__ = ["DdsTransport"]

Message = TypeVar("Message")


class _Endpoint(Protocol):
    def close(self) -> None: ...


_PUBLISHED = Qos(
    # reliable: who asks for best effort is served as well; and a slow reader keeps nobody waiting
    Policy.Reliability.Reliable(max_blocking_time=0),
    Policy.Durability.Volatile,
    Policy.History.KeepLast(1),
    Policy.DataRepresentation(use_cdrv0_representation=True),
)
_TAKEN = Qos(
    Policy.Reliability.BestEffort,  # takes from reliable and from best-effort writers
    Policy.Durability.Volatile,
    Policy.History.KeepLast(DEPTH),
    Policy.DataRepresentation(use_cdrv0_representation=True),
)

_log = logging.getLogger(__name__)


class DdsTransport:
    """Implements `Transport`.

    Args:
        domain: Of ROS 2.

    Raises:
        TransportError: The domain cannot be joined.
    """

    def __init__(self, domain: int) -> None:
        self.messages = Messages(**{name: getattr(messages, name) for name in Messages._fields})
        self._endpoints: list[_Endpoint] = []
        try:
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            raise TransportError(f"cannot join domain {domain} ({error}); look at CYCLONEDDS_URI") from error

    def now_ns(self) -> int:
        return time.time_ns()

    def publisher(self, kind: type[Message], topic: str) -> Publisher[Message]:
        made: _Publisher[Message] = _Publisher(
            DataWriter(self._participant, self._topic(kind, topic), qos=_PUBLISHED), topic
        )
        self._endpoints.append(made)
        return made

    def subscription(
        self, kind: type[Message], topic: str, wanted: Callable[[Message], bool] = lambda _: True
    ) -> Subscription[Message]:
        reader = DataReader(self._participant, self._topic(kind, topic), qos=_TAKEN)
        made: _Subscription[Message] = _Subscription(reader, topic, wanted)
        self._endpoints.append(made)
        return made

    def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()
        self._endpoints.clear()
        del self._participant

    def _topic(self, kind: type[Message], topic: str) -> Topic[Any]:
        return Topic(self._participant, f"rt{topic}", kind)


class _Publisher(Generic[Message]):
    def __init__(self, writer: DataWriter[Any], topic: str) -> None:
        self._writer, self._topic = writer, topic

    def publish(self, message: Message) -> None:
        try:
            self._writer.write(message)
        except DDSException as error:
            _log.debug("%s: not sent (%s)", self._topic, error)  # readers that lag; there is a newer one soon

    def close(self) -> None:
        del self._writer  # upon which the binding leaves the graph


class _Subscription(Generic[Message]):
    def __init__(self, reader: DataReader[Any], topic: str, wanted: Callable[[Message], bool]) -> None:
        self._reader, self._topic, self._wanted = reader, topic, wanted

    def take(self) -> Message | None:
        """The newest message since the last call; None: none has come."""
        newest: Message | None = None
        for _ in range(DEPTH):
            try:
                samples = self._reader.take(1)
            except UnicodeDecodeError as error:
                _log.warning(
                    "%s: dropped a message that is no text where it should be: %s", self._topic, error
                )
                continue
            if not samples:
                break
            if not isinstance(samples[0], InvalidSample) and self._wanted(samples[0]):
                newest = samples[0]
        return newest

    def is_published(self) -> bool:
        return bool(self._reader.get_matched_publications())

    def close(self) -> None:
        del self._reader
