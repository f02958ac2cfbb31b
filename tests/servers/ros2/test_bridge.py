"""The bridge between a robot server with the wire twin and a ROS 2 graph, over DDS on loopback: five processes."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pylibfranka")
pytest.importorskip("cyclonedds")

from bridge import NAMES, READY, bridging, stream
from graph import Graph, encode, joints, pose, position_of, quaternion_of
from rig import ENVIRONMENT, end, recover, running, start_server, wait_until

from serl_suite.control.rotations import quaternion_inverse, rotate, rotation_difference
from serl_suite.wire.robot_client import RobotClient
from serl_suite.wire.robot_messages import Reset

DOWN = (1.0, 0.0, 0.0, 0.0)
HOME = np.array([0.45, 0.0, 0.35])
TALKER = Path(__file__).with_name("talker.py")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rig"), "127.0.8.1") as made:
        yield made


@pytest.fixture(scope="module")
def bridge(rig):
    with bridging(rig) as (process, _):
        yield process


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def arm(rig):
    """An observer, once the arm is at home and nobody controls it."""
    with contextlib.closing(RobotClient(rig.address, name="test")) as client:
        wait_until(lambda: client.await_state().controller is None, 3.0, "the test before gives control back")
        recover(client)
        client.keep_control()
        client.ask(
            Reset(number=client.next_number(), position=tuple(HOME.tolist()), quaternion=DOWN, straight=True),
            30.0,
        )
        client.release()
        time.sleep(0.7)  # the bridge's pause, where a fault came before
        yield client


def beside(x, y, z):
    return HOME + np.array([x, y, z])


def test_what_the_arm_does_is_published(bridge, graph, arm):
    heard = {
        topic: graph.listen(kind, topic)
        for kind, topic in (
            ("JointState", "joint_states"), ("PoseStamped", "pose"), ("WrenchStamped", "wrench"),
            ("DiagnosticArray", "faults"),
        )
    }  # fmt: skip
    said = {topic: listener.hear() for topic, listener in heard.items()}
    for topic, listener in heard.items():
        assert listener.bytes[: len(encode(said[topic]))] == encode(said[topic]), topic
        assert not listener.bytes[len(encode(said[topic])) :].strip(b"\0"), "nothing but padding follows"
        stamp = said[topic].header.stamp
        assert abs(time.time() - stamp.sec - stamp.nanosec * 1e-9) < 2.0
    state = arm.await_state()
    assert said["joint_states"].name == NAMES
    np.testing.assert_allclose(said["joint_states"].position, state.q, atol=2e-3)
    assert len(said["joint_states"].velocity) == 7
    assert said["pose"].header.frame_id == "fr3_link0"
    np.testing.assert_allclose(position_of(said["pose"]), state.position, atol=1e-3)
    assert np.abs(rotation_difference(quaternion_of(said["pose"]), np.array(state.quaternion))).max() < 5e-3
    assert said["wrench"].header.frame_id == "fr3_hand_tcp"
    f = said["wrench"].wrench.force
    back = rotate(quaternion_inverse(np.array(state.quaternion)), np.array(state.wrench[:3]))
    np.testing.assert_allclose([f.x, f.y, f.z], back, atol=1.0)
    status = said["faults"].status[0]
    assert (status.level, status.message) == (0, "running")
    assert {value.key: value.value for value in status.values}["phase"] == "running"


def test_states_come_at_the_rate_asked_for(rig, bridge, graph):
    listener = graph.listen("PoseStamped", "pose")
    listener.hear()
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < 1.0:
        count += listener.take() is not None
        time.sleep(0.002)
    assert 60 <= count <= 110


def test_a_target_is_followed_for_as_long_as_it_is_published(bridge, graph, arm):
    goal = beside(0.04, 0.03, -0.03)
    with graph.talk("PoseStamped", "target_pose") as talker:
        stream(talker, lambda: pose(goal, DOWN), 2.0)
        assert arm.await_state().controller.startswith("ROS 2 bridge")
        assert np.abs(np.array(arm.state.position) - goal).max() < 0.01
    wait_until(lambda: arm.await_state().controller is None, 2.0, "control is given back")
    time.sleep(1.0)
    assert arm.await_state().fault == ""
    assert np.abs(np.array(arm.state.position) - goal).max() < 0.01


REFUSED = {
    "frame": lambda: pose(beside(0, 0.1, 0), DOWN, frame="world"),
    "not finite": lambda: pose(HOME * np.nan, DOWN),
    "norm": lambda: pose(beside(0, 0.1, 0), (1.0, 1.0, 0.0, 0.0)),
    "ms old": lambda: pose(beside(0, 0.1, 0), DOWN, age_s=0.2),
    "ahead of this clock": lambda: pose(beside(0, 0.1, 0), DOWN, age_s=-5.0),
    "carries no time": lambda: pose(beside(0, 0.1, 0), DOWN, stamp_ns=0),
    "outside the workspace box": lambda: pose(beside(0, 0.6, 0), DOWN),
}


def test_a_target_that_cannot_be_followed_is_refused(bridge, graph, arm):
    faults = graph.listen("DiagnosticArray", "faults")
    before = np.array(arm.await_state().position)
    with graph.talk("PoseStamped", "target_pose") as talker:
        for reason, make in REFUSED.items():
            stream(talker, make, 0.1)
            faults.hear(lambda m, reason=reason: m.status[0].level == 1 and reason in m.status[0].message)
            assert np.abs(np.array(arm.await_state().position) - before).max() < 2e-3, reason
        # and the next one that can be, is
        stream(talker, lambda: pose(HOME, DOWN), 2.0, lambda: arm.await_state().controller)
        assert arm.await_state().controller
    assert arm.await_state().fault == ""


JOINT_REFUSED = {
    "no position of fr3_joint7": lambda: joints(NAMES[:6], READY[:6]),
    "name each joint once": lambda: joints([*NAMES[:6], NAMES[0]], READY),
    "not finite": lambda: joints(NAMES, (*READY[:6], np.inf)),
    "ms old": lambda: joints(NAMES, READY, age_s=1.0),
    "joint 7": lambda: joints(NAMES, (*READY[:6], 3.0)),
}


def test_a_joint_target_that_cannot_be_reached_is_refused(bridge, graph, arm):
    faults = graph.listen("DiagnosticArray", "faults")
    before = np.array(arm.await_state().q)
    with graph.talk("JointState", "target_joint") as talker:
        for reason, make in JOINT_REFUSED.items():
            stream(talker, make, 0.1)
            faults.hear(lambda m, reason=reason: m.status[0].level == 1 and reason in m.status[0].message)
            assert np.abs(np.array(arm.await_state().q) - before).max() < 5e-3, reason
    assert arm.await_state().fault == ""


def test_a_joint_target_is_reached(bridge, graph, arm):
    goal = np.add(READY, [0.2, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0])
    with graph.talk("JointState", "target_joint") as talker:
        shuffled = [6, 0, 5, 1, 4, 2, 3]

        def arrived():
            return np.abs(np.array(arm.await_state().q) - goal).max() < 0.05 and arm.state.controller

        stream(talker, lambda: joints([NAMES[i] for i in shuffled], goal[shuffled]), 20.0, arrived)
        assert arrived()
        # still published, nothing moves any more
        stream(talker, lambda: joints(NAMES, goal), 2.0)
        assert np.abs(np.array(arm.await_state().dq)).max() < 0.05
    assert arm.await_state().fault == ""


def test_somebody_else_in_control_is_named(bridge, graph, arm):
    faults = graph.listen("DiagnosticArray", "faults")
    arm.keep_control()
    with graph.talk("PoseStamped", "target_pose") as talker:
        stream(talker, lambda: pose(beside(0, 0.1, 0), DOWN), 0.5, arm.keep_control)
        assert "test" in faults.hear(lambda m: m.status[0].level == 1).status[0].message
        assert np.abs(np.array(arm.await_state().position) - HOME).max() < 5e-3
        arm.release()
        stream(
            talker,
            lambda: pose(HOME, DOWN),
            3.0,
            lambda: (arm.await_state().controller or "").startswith("ROS"),
        )
        assert arm.state.controller.startswith("ROS 2 bridge")


def test_bytes_that_are_no_message_are_dropped(bridge, graph, arm):
    good = encode(pose(HOME, DOWN))
    with graph.talk("PoseStamped", "target_pose") as talker:
        frame = encode(pose(HOME, DOWN, frame="\x7f\x7f\x7f\x7f")).replace(
            b"\x7f\x7f\x7f\x7f", b"\xff\xfe\x80\x81"
        )
        for data in (good[:20], good[:4] + b"\xff" * 60, frame):
            talker.say_bytes(data)
        stream(talker, lambda: pose(HOME, DOWN), 3.0, lambda: arm.await_state().controller)
        assert arm.state.controller
    assert bridge.poll() is None


@contextlib.contextmanager
def talking():
    """A process that publishes targets which move the arm to and fro, until it is killed."""
    process = subprocess.Popen([sys.executable, str(TALKER)], stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        assert process.stdout.readline() == b"talking\n"
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def moving(arm):
    """The same, once the arm moves; begun anew where the machine was too busy for a steady stream."""
    for _ in range(5):
        with talking() as process:
            wait_until(
                lambda: np.abs(arm.await_state().twist).max() > 0.02 or arm.state.fault, 10.0, "it moves"
            )
            if not arm.state.fault:
                yield process
                return
        recover(arm)
        arm.release()
        time.sleep(0.7)
    raise AssertionError("the machine is too busy")


def await_stop(arm):
    """The silence before the fault in robot time, and the greatest speed late in it."""
    last, fastest = arm.await_state(), 0.0
    while not arm.await_state().fault:
        if arm.state.time_s - last.time_s > 0.45:
            fastest = max(fastest, float(np.linalg.norm(arm.state.twist[:3])))
        assert arm.state.time_s - last.time_s < 0.8, "it goes on"
    return arm.state.time_s - last.time_s, fastest


def test_a_killed_bridge_leaves_the_arm_holding_then_stopped(rig, graph, arm):
    with bridging(rig, "--namespace", "other") as (process, _), moving(arm):
        process.send_signal(signal.SIGKILL)
        process.wait()
        silence, fastest = await_stop(arm)
    assert arm.state.fault == "stale_setpoint"
    assert 0.35 < silence < 0.7
    assert fastest < 0.05, "it held before it stopped"
    wait_until(lambda: arm.await_state().phase == "stopped", 3.0)


def test_a_killed_publisher_and_targets_that_go_on_through_a_fault(rig, graph, arm):
    faults = graph.listen("DiagnosticArray", "other/faults")
    with bridging(rig, "--namespace", "other"):
        with moving(arm) as talker:
            talker.kill()
            talker.wait()
            _, fastest = await_stop(arm)
        assert arm.state.fault == "stale_setpoint"
        assert fastest < 0.05
        status = faults.hear(lambda m: m.status[0].level == 2).status[0]
        assert "stale_setpoint" in status.message
        with talking():
            faults.hear(lambda m: "recover it" in str(m.status[0].values))
            recover(arm)  # which asks for control: the bridge has given it back
            arm.release()
            stood = np.array(arm.await_state().position)
            faults.hear(lambda m: "pause" in m.status[0].message)
            time.sleep(0.5)
            assert np.abs(np.array(arm.await_state().position) - stood).max() < 3e-3
        time.sleep(0.7)
        with moving(arm):
            pass


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(tmp_path, graph):
    with running(tmp_path, "127.0.8.2") as rig:
        faults = graph.listen("DiagnosticArray", "third/faults")
        with bridging(rig, "--namespace", "third") as (process, _):
            faults.hear(lambda m: m.status[0].level == 0, 30.0)
            rig.server.kill()
            rig.server.wait()
            status = faults.hear(lambda m: m.status[0].level == 3, 30.0).status[0]
            assert "silent" in status.message
            server = start_server(rig.ip, rig.address, rig.log)
            try:
                faults.hear(lambda m: m.status[0].level == 0, 30.0)
                with (
                    contextlib.closing(RobotClient(rig.address, name="test")) as arm,
                    graph.talk("PoseStamped", "third/target_pose") as talker,
                ):
                    here = np.array(arm.await_state().position)
                    turn = tuple(
                        (np.array(arm.state.quaternion) / np.linalg.norm(arm.state.quaternion)).tolist()
                    )
                    goal = np.add(here, [0.0, 0.02, 0.0])
                    stream(talker, lambda: pose(goal, turn), 2.0)
                    assert np.abs(np.array(arm.await_state().position) - goal).max() < 0.01
                    assert process.poll() is None
            finally:
                end(server)


def test_ctrl_c_gives_control_back(rig, graph, arm):
    with bridging(rig, "--namespace", "other") as (process, _), moving(arm):
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 0
        time.sleep(0.8)
        assert arm.await_state().fault == ""
        assert arm.state.controller is None
        assert np.abs(np.array(arm.state.twist)).max() < 0.02


def test_observers_need_no_control(rig, bridge, graph, arm):
    """Somebody else moves the arm while the bridge publishes."""
    there = tuple(beside(0.0, 0.05, 0.0).tolist())
    arm.keep_control()
    arm.ask(Reset(number=arm.next_number(), position=there, quaternion=DOWN, straight=True), 30.0)
    listener = graph.listen("PoseStamped", "pose")
    np.testing.assert_allclose(position_of(listener.hear()), there, atol=5e-3)
