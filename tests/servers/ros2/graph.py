"""A node of a ROS 2 graph that shares no codec with the suite: rosbags makes and reads every byte."""

import os
import time
from typing import Any

import numpy as np
from cyclonedds._clayer import ddspy_take, ddspy_write
from cyclonedds.core import InstanceState, SampleState, ViewState
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from rosbags.typesys import Stores, get_typestore
from serl_servers.ros2 import messages

TYPES = {
    "JointState": "sensor_msgs/msg/JointState",
    "PoseStamped": "geometry_msgs/msg/PoseStamped",
    "WrenchStamped": "geometry_msgs/msg/WrenchStamped",
    "DiagnosticArray": "diagnostic_msgs/msg/DiagnosticArray",
}
STORE = get_typestore(Stores.ROS2_HUMBLE)
RELIABLE = Qos(Policy.Reliability.Reliable(max_blocking_time=10**8), Policy.History.KeepLast(10))
"""What rclpy takes by default."""
ANY = SampleState.Any | ViewState.Any | InstanceState.Any
NS = 10**9


def ros(name: str) -> Any:
    return STORE.types[name]


def header(frame: str, age_s: float = 0.0, stamp_ns: int | None = None) -> Any:
    stamp = time.time_ns() - int(age_s * NS) if stamp_ns is None else stamp_ns
    return ros("std_msgs/msg/Header")(ros("builtin_interfaces/msg/Time")(stamp // NS, stamp % NS), frame)


def pose(position, quaternion, frame: str = "fr3_link0", **stamp: Any) -> Any:
    point, turn = ros("geometry_msgs/msg/Point")(*position), ros("geometry_msgs/msg/Quaternion")(*quaternion)
    return ros(TYPES["PoseStamped"])(header(frame, **stamp), ros("geometry_msgs/msg/Pose")(point, turn))


def joints(names, q, dq=(), **stamp: Any) -> Any:
    values = [np.array(part, np.float64) for part in (q, dq, ())]
    return ros(TYPES["JointState"])(header("", **stamp), list(names), *values)


def wrench(force, torque, frame: str) -> Any:
    vector = ros("geometry_msgs/msg/Vector3")
    return ros(TYPES["WrenchStamped"])(
        header(frame), ros("geometry_msgs/msg/Wrench")(vector(*force), vector(*torque))
    )


def encode(message: Any) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def position_of(message: Any) -> np.ndarray:
    p = message.pose.position
    return np.array([p.x, p.y, p.z])


def quaternion_of(message: Any) -> np.ndarray:
    o = message.pose.orientation
    return np.array([o.x, o.y, o.z, o.w])


class Graph:
    """Joins the tests' domain."""

    def __init__(self) -> None:
        self._participant = DomainParticipant(int(os.environ["ROS_DOMAIN_ID"]))

    def talk(self, kind: str, topic: str) -> "Talker":
        return Talker(DataWriter(self._participant, self._topic(kind, topic), qos=RELIABLE))

    def listen(self, kind: str, topic: str) -> "Listener":
        return Listener(DataReader(self._participant, self._topic(kind, topic), qos=RELIABLE), TYPES[kind])

    def _topic(self, kind: str, topic: str) -> Topic:
        return Topic(self._participant, f"rt/{topic}", getattr(messages, kind))


class Talker:
    def __init__(self, writer: DataWriter) -> None:
        self._writer = writer

    def __enter__(self) -> "Talker":
        self.await_listener()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def await_listener(self) -> None:
        deadline = time.monotonic() + 20.0
        while not self._writer.get_matched_subscriptions():
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.01)

    def say(self, message: Any) -> None:
        self.say_bytes(encode(message))

    def say_bytes(self, frame: bytes) -> None:
        ddspy_write(self._writer._ref, frame.ljust(-(-len(frame) // 4) * 4, b"\0"))

    def leave(self) -> None:
        del self._writer


class Listener:
    def __init__(self, reader: DataReader, kind: str) -> None:
        self._reader, self._kind = reader, kind
        self.bytes = b""
        """Of the newest message, as they came."""

    def take(self) -> Any | None:
        """The newest message, or None."""
        newest = None
        for data, info in ddspy_take(self._reader._ref, ANY, 20):
            if info.valid_data:
                self.bytes = data
                newest = STORE.deserialize_cdr(data, self._kind)
        return newest

    def hear(self, condition=lambda message: True, timeout_s: float = 10.0) -> Any:
        """Waits for a message like that."""
        deadline = time.monotonic() + timeout_s
        last = None
        while time.monotonic() < deadline:
            message = self.take()
            if message is not None:
                last = message
                if condition(message):
                    return message
            time.sleep(0.002)
        raise AssertionError(f"no such message within {timeout_s} s; the last was {last}")
