"""The robot server of an arm that a ROS 2 controller drives, over DDS on loopback: a controller, a server, clients."""

import contextlib
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from graph import Graph, pose, position_of
from rig import ENVIRONMENT, end, free_port, recover, report, start, wait_until
from serl_envs.registration import TASKS
from serl_envs.remote import RemoteRobot
from serl_envs.rigs import make_robot
from serl_envs.robot import RobotFault, Setpoint
from serl_envs.tasks.reach import Reach
from serl_servers.doctor.machine import check_machine
from serl_servers.doctor.programs import check_programs
from serl_servers.franka.command_line import run as run_operator
from serl_servers.ros2.command_line import run
from serl_servers.ros2.config import InvalidSetting

from serl_suite.control.rotations import (
    quaternion_from_rotation_vector,
    rotate,
    rotation_difference,
)
from serl_suite.rig import BadRig, read_rig
from serl_suite.wire.robot_client import RobotClient, RobotRefused, RobotUnreachable
from serl_suite.wire.robot_messages import (
    Follow,
    MoveGripper,
    Recover,
    Refused,
    Reset,
    ResetJoints,
    SetGains,
    Stop,
)

FOLDER = Path(__file__).parent
MOVER = FOLDER.parent / "franka" / "mover.py"
HOME = np.array([0.45, 0.0, 0.35])
TURN = quaternion_from_rotation_vector(np.array([0.1, 0.0, 0.0]))
HOME_Q = (0.45, 0.0, 0.35, 0.1, 0.0, 0.0, 0.3)
LEAD_M = 0.05
WALL_M = 0.6
PACE = 0.5
"""Of the controller's time."""
STIFFNESS = (400.0, 400.0, 400.0, 30.0, 30.0, 30.0)


class Rig(NamedTuple):
    address: str
    namespace: str
    controller: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes]


def start_controller(namespace, *options):
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "compliant_controller.py"), namespace, *options],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout.readline() == b"controlling\n"
    return process


def start_server(folder, namespace, address, *options):
    arguments = ["arm", "--transport", "cyclonedds", "--namespace", namespace, "--bind", address, *options]
    log = folder / f"server_{time.monotonic_ns()}.log"
    return start(["serl_servers.ros2", *arguments], log, "serving the arm"), log


@contextlib.contextmanager
def running(folder, namespace, *options):
    address = f"tcp://127.0.0.1:{free_port()}"
    controller = start_controller(namespace)
    try:
        stiffness = ["--stiffness", *map(str, STIFFNESS)]
        server, log = start_server(folder, namespace, address, "--wrench", "wrench", *stiffness, *options)
        try:
            yield Rig(address, namespace, controller, server)
        finally:
            if server.poll() is None:
                assert end(server) == 0
            assert "Traceback" not in log.read_text()
    finally:
        controller.kill()
        controller.wait()


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rig"), "arm") as made:
        yield made


@pytest.fixture
def client(rig):
    with contextlib.closing(RobotClient(rig.address, name="test")) as made:
        go_home(made)
        yield made


def go_home(client):
    """Again where the machine was too busy to keep the arm's time."""
    wait_until(lambda: client.await_state().controller is None, 3.0)
    deadline = time.monotonic() + 30.0
    while True:
        recover(client)
        try:
            client.keep_control()
            client.ask(reset_to(client, HOME, straight=True), 20.0)
            break
        except RobotRefused:
            client.release()
            if time.monotonic() > deadline:
                raise
    wait_until(lambda: client.await_state() and np.abs(client.state.twist).max() < 1e-3, 10.0)
    client.keep_control()


def reset_to(client, position, quaternion=TURN, **options):
    x, y, z = map(float, position)
    qx, qy, qz, qw = map(float, quaternion)
    return Reset(number=client.next_number(), position=(x, y, z), quaternion=(qx, qy, qz, qw), **options)


def follow(client, position, quaternion=TURN, late_s=0.1):
    number = client.next_number()
    client.send(
        Follow(
            number=number, position=tuple(map(float, position)), quaternion=tuple(map(float, quaternion)),
            deadline_s=client.newest().time_s + late_s,
        )
    )  # fmt: skip
    return number


def refusal_of(client, request, timeout_s=20.0):
    with pytest.raises(RobotRefused) as refused:
        client.ask(request, timeout_s)
    return str(refused.value)


def beside(x=0.0, y=0.0, z=0.0):
    return HOME + np.array([x, y, z])


@contextlib.contextmanager
def moving(rig):
    """An actor that moves the arm to and fro, until it is killed."""
    actor = subprocess.Popen(
        [sys.executable, str(MOVER), rig.address], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        assert actor.stdout.readline() == b"moving\n"
        yield actor
    finally:
        actor.kill()
        actor.wait()


def test_a_robot_like_any_other(rig, client):
    client.release()
    robot = RemoteRobot(rig.address)
    try:
        robot.reset(beside(z=0.05), TURN, 0.0)
        before = robot.observe()
        assert np.abs(before.position - beside(z=0.05)).max() < 0.011
        goal, turn = beside(0.05, 0.1, -0.05), quaternion_from_rotation_vector(np.array([0.1, 0.3, 0.0]))
        for _ in range(15):
            asked = robot.observe().time_s
            robot.command(Setpoint(goal, turn, 0.0), 0.1)
            assert 0.0999 <= robot.observe().time_s - asked < 0.3
        after = robot.observe()
        assert np.abs(after.position - goal).max() < 2e-3
        assert np.abs(rotation_difference(after.quaternion, turn)).max() < 0.01
        np.testing.assert_allclose(after.q[:3], after.position, atol=2e-3)
        assert after.q[6] == pytest.approx(0.3, abs=1e-3)
        np.testing.assert_allclose(
            after.wrench[:3], rotate(after.quaternion, np.array([1.0, 2.0, 3.0])), atol=0.02
        )
        assert np.abs(after.twist).max() < 0.02
        assert after.fault is None
        with pytest.raises(RobotFault, match="workspace box"):
            robot.reset(beside(y=0.6), TURN, 0.0)
    finally:
        robot.stop()


def test_the_setpoint_shows_that_it_was_taken(client):
    number = follow(client, HOME)
    wait_until(lambda: client.await_state().setpoint == number, 1.0)
    assert 0 <= time.monotonic_ns() - client.state.setpoint_ns < 10**9


def test_the_target_keeps_its_speed_its_lead_and_the_box(rig, client):
    graph = Graph()
    targets, poses = (
        graph.listen("PoseStamped", f"arm/{topic}") for topic in ("target_pose", "current_pose")
    )
    poses.hear()
    heard, begin = [], time.monotonic()
    while time.monotonic() - begin < 4.0:
        follow(client, beside(y=0.39 if time.monotonic() - begin < 2.0 else -0.3))
        time.sleep(0.01)
        target, measured = targets.take(), poses.take()
        if target is not None and measured is not None:
            stamp = target.header.stamp.sec + target.header.stamp.nanosec * 1e-9
            heard.append((stamp, position_of(target), position_of(measured)))
    assert len(heard) > 50
    times, targets_at, measured_at = map(np.array, zip(*heard, strict=True))
    leads = np.linalg.norm(targets_at - measured_at, axis=1)
    assert leads.max() < LEAD_M + 0.015, "the lead, and what the arm moved between the two messages"
    assert leads.max() > 0.5 * LEAD_M, "it was under way"
    assert np.ptp(targets_at[:, 1]) > 0.2
    spans = np.array([times[i + 20] - times[i] for i in range(len(times) - 20)])
    ways = np.array([np.linalg.norm(targets_at[i + 20] - targets_at[i]) for i in range(len(times) - 20)])
    assert (ways / spans).max() < 1.3 * 0.5 * PACE, "0.5 m/s, measured over a few messages"
    assert np.abs(targets_at[:, 1]).max() <= 0.4


def test_the_push_against_a_wall_is_steady_and_bounded(client):
    targets = Graph().listen("PoseStamped", "arm/target_pose")
    leads, begin = [], time.monotonic()
    while time.monotonic() - begin < 4.0:
        follow(client, beside(x=0.4))
        time.sleep(0.01)
        target = targets.take()
        if target is not None and time.monotonic() - begin > 3.0:
            leads.append(position_of(target)[0] - WALL_M)
    assert len(leads) > 20
    assert min(leads) > 0.99 * LEAD_M
    assert max(leads) < 1.01 * LEAD_M


def test_what_cannot_be_done_is_refused_and_the_arm_stays(client):
    before = np.array(client.await_state().position)
    cases = {
        "workspace box": (beside(y=0.5), TURN, 0.1),
        "norm": (HOME, 2.0 * TURN, 0.1),
        "not finite": (np.nan * HOME, TURN, 0.1),
        "deadline": (beside(y=0.1), TURN, -0.01),
    }
    for reason, (position, quaternion, late_s) in cases.items():
        number = follow(client, position, quaternion, late_s)
        answers: list[Refused] = []
        wait_until(lambda answers=answers: answers.extend(client.answers()) or answers, 2.0)
        assert [answer.number for answer in answers] == [number]
        assert reason in answers[0].reason
    gripper = MoveGripper(number=client.next_number(), width=0.04)
    assert "the arm's own ROS 2 controllers" in refusal_of(client, gripper)
    assert "workspace box" in refusal_of(client, reset_to(client, beside(z=2.0)))
    assert "no fault" in refusal_of(client, Recover(number=client.next_number(), reason="none"))
    assert np.abs(np.array(client.await_state().position) - before).max() < 2e-3
    assert client.state.fault == ""


def gains(client, stiffness, clip):
    clips = (clip,) * 3 + (0.1,) * 3
    return SetGains(
        number=client.next_number(),
        stiffness=stiffness,
        clip_lower=tuple(-c for c in clips),
        clip_upper=clips,
    )


def test_gains_are_those_of_the_controller_and_clips_are_the_lead(client):
    assert "set its parameters" in refusal_of(client, gains(client, (500.0,) * 6, 0.05))
    assert "both sides of 0" in refusal_of(client, gains(client, STIFFNESS, 0.0))
    try:
        client.ask(gains(client, STIFFNESS, 0.01))
        leads = []
        targets, poses = (
            Graph().listen("PoseStamped", f"arm/{name}") for name in ("target_pose", "current_pose")
        )
        begin = time.monotonic()
        while time.monotonic() - begin < 2.0:
            follow(client, beside(y=0.3))
            target, measured = targets.take(), poses.take()
            if target is not None and measured is not None:
                leads.append(np.linalg.norm(position_of(target) - position_of(measured)))
            time.sleep(0.01)
        assert len(leads) > 20
        assert np.median(leads) < 0.012
        assert np.abs(np.array(client.await_state().position) - HOME).max() > 0.03, "it moves nevertheless"
    finally:
        client.ask(gains(client, STIFFNESS, LEAD_M))


def test_the_operators_commands(rig, client, capsys):
    client.release()
    assert run_operator(["status", "--address", rig.address]) == 0
    said = capsys.readouterr().out
    assert "ROS 2, arm, running" in said
    assert "400" in said
    assert run_operator(["jog", "--address", rig.address, "--y", "0.03"]) == 0
    assert np.abs(np.array(client.await_state().position) - beside(y=0.03)).max() < 0.011


def test_one_controller(rig, client):
    with contextlib.closing(RobotClient(rig.address, name="second")) as second:
        with pytest.raises(RobotRefused, match=r"test .* controls the arm"):
            second.keep_control()
        assert "controls the arm, and not you" in refusal_of(second, reset_to(second, HOME))
        time.sleep(1.3)
        second.keep_control()
        assert "controls the arm, and not you" in refusal_of(client, reset_to(client, HOME))


def test_silence_holds_then_stops_and_latches(rig, client):
    targets = Graph().listen("PoseStamped", "arm/target_pose")
    begin = time.monotonic()
    while time.monotonic() - begin < 1.0:
        follow(client, beside(y=0.35))
        time.sleep(0.01)
    last, speeds = client.await_state().time_s, []
    while not client.await_state().fault:
        speeds.append((client.state.time_s - last, float(np.linalg.norm(client.state.twist[:3]))))
        assert client.state.time_s - last < 0.8
    assert client.state.fault == "stale_setpoint"
    assert 0.4 < client.state.time_s - last < 0.6
    assert max(speed for _, speed in speeds) > 0.2, "it was under way"
    assert max((speed for after, speed in speeds if after > 0.45), default=0.0) < 0.05, (
        "it held before it stopped"
    )
    assert client.state.position[1] < 0.32, "short of its goal"
    wait_until(lambda: np.abs(client.await_state().twist).max() < 0.02, 5.0)
    stopped = targets.hear()
    assert np.linalg.norm(position_of(stopped) - client.state.position) < 0.01
    # latched
    client.keep_control()
    assert "stale_setpoint" in refusal_of(client, reset_to(client, HOME))
    recover(client)
    client.keep_control()
    client.ask(Stop(number=client.next_number(), reason="to have a fault again"))
    assert "at most one" in refusal_of(client, Recover(number=client.next_number(), reason="too soon"))
    wait_until(lambda: client.await_state().fault == "stopped", 2.0)


def test_anybody_may_stop(rig, client):
    with moving_client(client), contextlib.closing(RobotClient(rig.address, name="passer-by")) as other:
        other.ask(Stop(number=other.next_number(), reason="smoke"))
    wait_until(lambda: client.await_state().phase == "stopped", 1.0)
    assert "smoke" in client.state.detail
    wait_until(lambda: np.abs(client.await_state().twist).max() < 0.02, 5.0)


@contextlib.contextmanager
def moving_client(client):
    for _ in range(60):
        follow(client, beside(y=0.3))
        time.sleep(0.01)
    assert np.abs(client.await_state().twist).max() > 0.1
    yield


def test_a_killed_client(rig, client):
    client.release()
    with moving(rig) as actor:
        wait_until(lambda: np.abs(client.await_state().twist).max() > 0.05, 5.0)
        actor.kill()
        actor.wait()
        last = client.await_state().time_s
        while not client.await_state().fault:
            assert client.state.time_s - last < 0.8
    assert client.state.fault == "stale_setpoint"
    wait_until(lambda: np.abs(client.await_state().twist).max() < 0.02, 5.0)


def test_released_control_holds_without_a_fault(client):
    with moving_client(client):
        client.release()
    time.sleep(1.0)
    assert client.await_state().fault == ""
    assert client.state.position[1] < 0.25
    assert np.abs(client.state.twist).max() < 0.02


def test_a_joint_position_is_reached(client):
    goal = (0.5, 0.1, 0.4, 0.2, 0.1, 0.0, -0.5)
    client.ask(ResetJoints(number=client.next_number(), q=goal), 20.0)
    assert np.abs(np.array(client.await_state().q) - goal).max() < 0.05
    # and what follows begins where the arm is
    client.ask(reset_to(client, beside(y=0.05)), 20.0)
    assert np.abs(np.array(client.await_state().position) - beside(y=0.05)).max() < 0.011


def test_a_joint_position_outside_the_box_stops_the_arm(client):
    goal = (0.45, 0.8, 0.35, 0.1, 0.0, 0.0, 0.3)
    assert "workspace" in refusal_of(client, ResetJoints(number=client.next_number(), q=goal))
    assert client.await_state().fault == "workspace"
    wait_until(lambda: np.abs(client.await_state().twist).max() < 0.02, 5.0)
    assert client.state.position[1] < 0.5


def test_somebody_else_who_drives_the_arm_out_of_the_box_is_stopped(client):
    client.release()
    with Graph().talk("PoseStamped", "arm/target_pose") as talker:
        for i in range(200):
            talker.say(pose(beside(y=0.005 * i), TURN, "base"))
            time.sleep(0.005)
            if client.await_state().fault:
                break
    assert client.state.fault == "workspace"
    wait_until(lambda: np.abs(client.await_state().twist).max() < 0.02, 5.0)
    assert client.state.position[1] < 0.6


@pytest.mark.parametrize(
    ("number", "fault"), [(signal.SIGUSR1, "invalid_state"), (signal.SIGUSR2, "clock_jumped")]
)
def test_states_that_cannot_be_true_stop_the_arm(tmp_path, number, fault):
    with running(tmp_path, fault) as rig, contextlib.closing(RobotClient(rig.address, name="test")) as client:
        go_home(client)
        with moving_client(client):
            rig.controller.send_signal(number)
            wait_until(lambda: client.await_state().fault, 1.0)
        assert client.state.fault == fault
        assert np.isfinite(client.state.position).all()
        wait_until(lambda: np.abs(client.await_state().twist).max() < 0.02, 5.0)
        client.release()
        go_home(client)


def test_a_killed_controller_and_a_new_one(tmp_path):
    with (
        running(tmp_path, "lost") as rig,
        contextlib.closing(RobotClient(rig.address, name="test")) as client,
    ):
        go_home(client)
        rig.controller.kill()
        rig.controller.wait()
        wait_until(lambda: client.await_state().fault == "state_lost", 1.5)
        client.keep_control()
        again = Recover(number=client.next_number(), reason="nothing has changed")
        assert "state_lost stays" in refusal_of(client, again)
        controller = start_controller("lost")
        try:
            client.release()
            go_home(client)
        finally:
            controller.kill()
            controller.wait()


def test_a_killed_server_leaves_the_arm_where_it_is(tmp_path):
    with running(tmp_path, "alone") as rig:
        poses = Graph().listen("PoseStamped", "alone/current_pose")
        with contextlib.closing(RobotClient(rig.address, name="test")) as client:
            go_home(client)
            with moving_client(client):
                rig.server.kill()
                rig.server.wait()
            there = position_of(poses.hear())
        time.sleep(1.0)
        rests = position_of(poses.hear())
        time.sleep(0.3)
        assert np.linalg.norm(position_of(poses.hear()) - rests) < 1e-3
        assert np.linalg.norm(rests - there) < LEAD_M + 0.02
        server, _ = start_server(tmp_path, "alone", rig.address)
        try:
            with contextlib.closing(RobotClient(rig.address, name="test")) as client:
                assert client.await_state().fault == ""
                go_home(client)
        finally:
            assert end(server) == 0


@pytest.mark.slow
def test_a_controller_that_follows_no_joints_is_named(tmp_path):
    with (
        running(tmp_path, "deaf", "--target-joint", "nobody") as rig,
        contextlib.closing(RobotClient(rig.address, name="test")) as client,
    ):
        go_home(client)
        goal = (*HOME_Q[:6], 0.6)
        said = refusal_of(client, ResetJoints(number=client.next_number(), q=goal))
        assert "fr3_joint7 is +0.300 rad short" in said
        assert "nobody" in said
        assert client.await_state().fault == ""


def serve(*options):
    """Starts a server that must not start, and returns what it says."""
    arguments = ["arm", "--transport", "cyclonedds", "--bind", f"tcp://127.0.0.1:{free_port()}", *options]
    done = subprocess.run(
        [sys.executable, "-m", "serl_servers.ros2", *arguments],
        capture_output=True, text=True, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--rate-hz", "0"), "--rate-hz is 0"),
        (("--lead-m", "nan"), "--lead-m is nan"),
        (("--box-margin", "-1"), "--box-margin is -1"),
        (("--box-lower", "2", "0", "0"), "--box-lower must lie below"),
        (("--setpoint-hold-s", "1"), "longer than"),
        (("--joint-names", "a", "a"), "each joint once"),
    ],
)
def test_bad_settings_are_refused(options, says):
    with pytest.raises(InvalidSetting, match=says):
        run(["arm", "--transport", "cyclonedds", *options])


def test_an_arm_that_is_silent_or_speaks_of_another_frame_is_named():
    assert "no joint_states or no current_pose" in serve("--namespace", "nowhere")
    controller = start_controller("framed", "world")
    try:
        said = serve("--namespace", "framed")
        assert "'world'" in said
        assert "'base'" in said
    finally:
        controller.kill()
        controller.wait()


def rig_file(folder, driver, **fields):
    values = {
        "arm": "127.0.0.1", "driver": driver, "server": f"tcp://127.0.0.1:{free_port()}",
        "control": {
            "box_lower": (0.3, -0.1, 0.2), "box_upper": (0.6, 0.1, 0.5), "stiffness": STIFFNESS,
            "clip": (0.03, 0.03, 0.03, 0.1, 0.1, 0.1),
        },
    }  # fmt: skip
    path = folder / "rig.yaml"
    path.write_bytes(msgspec.yaml.encode(values | fields))
    return read_rig(path)


def test_a_rig_says_what_its_server_is_told(tmp_path):
    rig = rig_file(tmp_path, "ros2")
    controller = start_controller("rigged")
    arguments = ["arm", "--rig", rig.source, "--transport", "cyclonedds", "--namespace", "rigged"]
    log = tmp_path / "server.log"
    server = start(["serl_servers.ros2", *arguments], log, f"serving the arm in ROS 2 on {rig.server}")
    try:
        with contextlib.closing(RobotClient(rig.server, name="test")) as client:
            said = report(client)
            assert (said.box_lower, said.box_upper) == (rig.control.box_lower, rig.control.box_upper)
            assert said.stiffness == STIFFNESS
            go_home(client)
            outside = reset_to(client, (0.45, 0.2, 0.35))
            assert "workspace box" in refusal_of(client, outside)
            levels = {finding.what: finding for finding in check_programs(rig)}
            assert (levels["server"].level, levels["arm"].level) == ("ok", "ok")
    finally:
        assert end(server) == 0
        controller.kill()
        controller.wait()


def test_a_rig_and_the_server_of_another_driver(tmp_path):
    ros2 = rig_file(tmp_path, "ros2")
    with pytest.raises(BadRig, match=f"served by serl ros2 arm --rig {ros2.source}"):
        run_operator(["franka", "--rig", ros2.source])
    found = list(check_programs(ros2))
    assert [(finding.level, finding.what) for finding in found] == [("warning", "server")]
    assert f"serl ros2 arm --rig {ros2.source}" in found[0].text
    machine = {
        (finding.level, finding.what, finding.text.split()[0]) for finding in check_machine(ros2, tmp_path)
    }
    assert ("ok", "kernel", platform.release() + ";") in machine
    assert {("ok", "package", "cyclonedds,"), ("ok", "package", "rclpy,")} & machine
    assert not any("pylibfranka" in text for _, _, text in machine)
    with pytest.raises(RobotUnreachable, match=f"start it: serl ros2 arm --rig {ros2.source}"):
        make_robot(rig_file(tmp_path, "ros2", control={}), Reach(), TASKS["FrankaReach-v0"])
    franka = rig_file(tmp_path, "pylibfranka")
    with pytest.raises(BadRig, match=f"served by serl robot franka --rig {franka.source}"):
        run(["arm", "--rig", franka.source])
    with pytest.raises(BadRig, match="a ROS 2 controller does not wait"):
        rig_file(tmp_path, "ros2", pace="lockstep", scene="tcp://127.0.0.1:1339")
