"""The transports: what a topic is called, that only the newest counts, and who is missed when."""

import importlib
import sys
import time

import pytest
from serl_servers.ros2.command_line import run
from serl_servers.ros2.mapping import header
from serl_servers.ros2.transport import TransportError, domain_of, make_transport, topic_name

from serl_suite.errors import SerlError


def wait_until(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_names():
    assert topic_name("", "pose") == "/pose"
    assert topic_name("left", "pose") == "/left/pose"
    assert topic_name("/left/", "pose") == "/left/pose"
    assert topic_name("left", "/pose") == "/pose"


def test_domains(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    assert domain_of(None) == 7
    assert domain_of(3) == 3
    monkeypatch.setenv("ROS_DOMAIN_ID", "")
    assert domain_of(None) == 0
    for wrong in ("-1", "x", "233"):
        monkeypatch.setenv("ROS_DOMAIN_ID", wrong)
        with pytest.raises(TransportError, match="no ROS 2 domain"):
            domain_of(None)


def exchange(name):
    """Two nodes of one transport: the newest counts, and who leaves in order is missed at once."""
    one, other = make_transport(name, "one", None), make_transport(name, "other", None)
    m = one.messages
    try:
        subscription = other.subscription(m.Header, "/exchange")
        assert subscription.take() is None
        assert not subscription.is_published()
        publisher = one.publisher(m.Header, "/exchange")
        wait_until(subscription.is_published)
        heard = []
        wait_until(
            lambda: publisher.publish(header(m, 1, "first")) or heard.append(subscription.take()) or heard[-1]
        )
        for i in range(2, 6):
            publisher.publish(header(m, i, f"{i}"))
        wait_until(lambda: heard.append(subscription.take()) or (heard[-1] and heard[-1].frame_id == "5"))
        assert heard[-1].stamp.nanosec == 5
        assert abs(one.now_ns() - other.now_ns()) < 10**9
        time.sleep(0.1)
        subscription.take()
        assert subscription.take() is None
        picky = other.subscription(m.Header, "/exchange", lambda message: message.frame_id == "wanted")
        wait_until(lambda: publisher.publish(header(m, 1, "wanted")) or picky.take())
        publisher.publish(header(m, 6, "wanted"))
        publisher.publish(header(m, 7, "other"))
        wait_until(lambda: heard.append(picky.take()) or (heard[-1] and heard[-1].stamp.nanosec == 6))
    finally:
        one.close()
    try:
        wait_until(lambda: not subscription.is_published())
    finally:
        other.close()


def test_cyclonedds():
    pytest.importorskip("cyclonedds")
    exchange("cyclonedds")


@pytest.mark.ros
def test_rclpy():
    pytest.importorskip("rclpy")
    exchange("rclpy")


@pytest.mark.parametrize(
    ("name", "package", "says"),
    [("cyclonedds", "cyclonedds", r"serl-suite\[ros2\]"), ("rclpy", "rclpy", "ros-base")],
)
def test_what_is_not_installed_is_named(monkeypatch, name, package, says):
    for module in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("dds_transport", "rclpy_transport", "messages"):
        monkeypatch.delitem(sys.modules, f"serl_servers.ros2.{module}", raising=False)
    with pytest.raises(TransportError, match=says):
        make_transport(name, "node", 0)


@pytest.mark.parametrize("module", ["bridge", "arm", "mapping", "service", "command_line"])
def test_nothing_of_ros_2_is_needed_to_import(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.delitem(sys.modules, f"serl_servers.ros2.{module}", raising=False)
    importlib.import_module(f"serl_servers.ros2.{module}")


def test_commands(capsys):
    assert run([]) == 2
    assert run(["--help"]) == 0
    assert "serl ros2 bridge" in capsys.readouterr().out
    assert run(["bridg"]) == 2
    assert "did you mean bridge" in capsys.readouterr().out
    with pytest.raises(SerlError, match="--rate-hz is 0"):
        run(["bridge", "--transport", "cyclonedds", "--rate-hz", "0"])
