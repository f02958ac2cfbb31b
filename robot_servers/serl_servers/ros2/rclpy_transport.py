"""ROS 2 topics by rclpy, ROS 2's own client library."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from serl_servers.ros2.transport import DEPTH, Messages, Publisher, Subscription, TransportError

try:
    import rclpy
    from builtin_interfaces.msg import Time
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from geometry_msgs.msg import (
        Point,
        Pose,
        PoseStamped,
        Quaternion,
        Vector3,
        Wrench,
        WrenchStamped,
    )
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Header
except ImportError as error:
    raise TransportError(
        f"no rclpy here ({error}); it comes with ROS 2 and not with pip: install ROS 2 Jazzy or newer "
        "(ros-jazzy-ros-base), source /opt/ros/jazzy/setup.bash and use the Python that belongs to it; or take "
        "--transport cyclonedds (pip install 'serl-suite[ros2]')"
    ) from error

__all__ = ["RclpyTransport"]

Message = TypeVar("Message")

_PUBLISHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_TAKEN = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
JOIN_S = 2.0


class RclpyTransport:
    """Implements `Transport`. A thread of its own takes what comes; it moves nothing.

    Args:
        name: Of the node.
        domain: Of ROS 2.
    """

    def __init__(self, name: str, domain: int) -> None:
        self.messages = Messages(
            Time=Time, Header=Header, Point=Point, Quaternion=Quaternion, Vector3=Vector3, Pose=Pose,
            PoseStamped=PoseStamped, Wrench=Wrench, WrenchStamped=WrenchStamped, JointState=JointState,
            KeyValue=KeyValue, DiagnosticStatus=DiagnosticStatus, DiagnosticArray=DiagnosticArray,
        )  # fmt: skip
        self._context = rclpy.Context()
        rclpy.init(
            args=[],
            context=self._context,
            domain_id=domain,
            signal_handler_options=SignalHandlerOptions.NO,  # Ctrl-C is ours: the arm first
        )
        self._node: Node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, name="rclpy", daemon=True)
        self._thread.start()

    def now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def publisher(self, kind: type[Message], topic: str) -> Publisher[Message]:
        made: Publisher[Message] = self._node.create_publisher(kind, topic, _PUBLISHED)
        return made

    def subscription(
        self, kind: type[Message], topic: str, wanted: Callable[[Message], bool] = lambda _: True
    ) -> Subscription[Message]:
        return _Subscription(self._node, kind, topic, wanted)

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=JOIN_S)
        self._thread.join(JOIN_S)
        self._node.destroy_node()
        self._context.try_shutdown()


class _Subscription(Generic[Message]):
    def __init__(
        self, node: Node, kind: type[Message], topic: str, wanted: Callable[[Message], bool]
    ) -> None:
        self._node, self._topic, self._wanted = node, topic, wanted
        self._newest: Message | None = None
        self._lock = threading.Lock()
        node.create_subscription(kind, topic, self._keep, _TAKEN)

    def take(self) -> Message | None:
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def is_published(self) -> bool:
        return int(self._node.count_publishers(self._topic)) > 0

    def _keep(self, message: Message) -> None:
        if self._wanted(message):
            with self._lock:
                self._newest = message
