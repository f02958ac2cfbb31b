"""The robot server in front of the wire twin (lockstep): unmodified pylibfranka, real sockets, three processes."""

import contextlib
import math
import os
import time

import numpy as np
import pytest
from rig import recover, report, running, wait_until

pytest.importorskip("pylibfranka")

from collision import collide
from serl_envs.remote import RemoteRobot
from serl_envs.robot import RobotFault, Setpoint

from serl_suite.control import free_space, insertion
from serl_suite.control.rotations import compose_delta, rotation_difference
from serl_suite.wire.robot_client import RobotClient, RobotRefused, RobotUnreachable
from serl_suite.wire.robot_messages import (
    Follow,
    Heartbeat,
    MoveGripper,
    Recover,
    Reset,
    ResetJoints,
    SetGains,
    SetLoad,
    Stop,
)

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
HOME = np.array([0.45, 0.0, 0.35])
LEASE_S = 1.0
RECOVERY_S = 2.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rig"), "127.0.7.1") as made:
        yield made


@pytest.fixture
def client(rig):
    with contextlib.closing(RobotClient(rig.address, name="test")) as made:
        recover(made, 10.0)
        yield made


@pytest.fixture
def robot(rig):
    with contextlib.closing(RobotClient(rig.address, name="before")) as made:
        recover(made, 10.0)
    made = RemoteRobot(rig.address)
    yield made
    made.stop()


def moved(x=0.0, y=0.0, z=0.0):
    return HOME + np.array([x, y, z])


def next_refusal(client):
    """Of a request that was not waited for: its number and the reason."""
    deadline = time.monotonic() + 2.0
    while True:
        answers = client.answers()
        if answers:
            assert len(answers) == 1
            return answers[0].number, answers[0].reason
        assert time.monotonic() < deadline, "no refusal came"
        time.sleep(0.005)


def follow(client, position, quaternion=DOWN, late_s=0.1):
    number = client.next_number()
    client.send(
        Follow(
            number=number, position=tuple(map(float, position)), quaternion=tuple(map(float, quaternion)),
            deadline_s=client.newest().time_s + late_s,
        )
    )  # fmt: skip
    return number


def reset_to(client, position):
    return Reset(
        number=client.next_number(), position=tuple(map(float, position)), quaternion=tuple(map(float, DOWN))
    )


def refusal_of(client, request, timeout_s=5.0):
    with pytest.raises(RobotRefused) as refused:
        client.ask(request, timeout_s)
    return str(refused.value)


def test_a_robot_like_the_twin_in_process(robot):
    robot.reset(HOME, DOWN, 0.08)
    before = robot.observe()
    assert np.abs(before.position - HOME).max() < 0.004
    assert np.abs(rotation_difference(before.quaternion, DOWN)).max() < 0.03
    assert before.gripper_width == pytest.approx(0.08, abs=1e-3)
    assert before.fault is None
    goal, turn = compose_delta(HOME, DOWN, np.array([0.03, 0.02, -0.02]), np.array([0.0, 0.0, 0.2]))
    for _ in range(15):
        state = robot.observe()
        robot.command(Setpoint(goal, turn, 0.03), 0.1)
        passed = robot.observe().time_s - state.time_s
        assert 0.0999 <= passed < 0.15
    after = robot.observe()
    assert np.abs(after.position - goal).max() < 0.01
    assert np.abs(rotation_difference(after.quaternion, turn)).max() < 0.05
    assert after.gripper_width == pytest.approx(0.03, abs=2e-3)
    assert after.gripper_target == 0.03
    assert np.abs(after.twist).max() < 0.05
    assert np.abs(after.wrench[:3]).max() < 10.0
    assert after.fault is None


def test_the_gripper_keeps_nobody_waiting(robot):
    robot.reset(HOME, DOWN, 0.08)
    robot.command(Setpoint(HOME, DOWN, 0.0), 0.05)
    moving = robot.observe()
    assert 0.0 < moving.gripper_width < 0.08, "a command of 50 ms returned while the fingers move"
    robot.command(Setpoint(HOME, DOWN, 0.08), 1.2)
    assert robot.observe().gripper_width == pytest.approx(0.08, abs=1e-3), "and it turned back on the way"


def test_setpoints_out_of_bounds_are_refused_and_the_arm_stays(client):
    client.keep_control()
    client.ask(reset_to(client, HOME), 30.0)
    before = np.array(client.await_state().position)
    follow(client, HOME)
    cases = {
        "workspace box": (moved(y=0.5), DOWN, 0.1),
        "norm": (HOME, 2.0 * DOWN, 0.1),
        "not finite": (np.nan * HOME, DOWN, 0.1),
        "deadline": (moved(y=0.05), DOWN, -0.01),
    }
    for reason, (position, quaternion, late) in cases.items():
        number = follow(client, position, quaternion, late)
        refused, said = next_refusal(client)
        assert refused == number
        assert reason in said
    assert client.await_state().fault == ""
    assert np.abs(np.array(client.await_state().position) - before).max() < 2e-3


def test_one_controller_and_observers(rig, client):
    client.keep_control()
    with contextlib.closing(RobotClient(rig.address, name="second")) as second:
        with pytest.raises(RobotRefused, match=r"test .* controls the arm"):
            second.keep_control()
        assert "controls the arm, and not you" in refusal_of(second, Heartbeat(number=second.next_number()))
        number = follow(second, HOME)
        refused, said = next_refusal(second)
        assert refused == number
        assert "test" in said
        # observers are welcome
        assert second.await_state().time_s > 0.0
        assert report(second).controller.startswith("test")
        time.sleep(1.3 * LEASE_S)
        assert "expired" in refusal_of(client, Heartbeat(number=client.next_number()))
        second.keep_control()
        wait_until(lambda: (second.await_state().controller or "").startswith("second"), 1.0)


def test_silence_holds_then_stops_and_latches(client):
    """control.md's watchdog: at 100 ms the target slows down, at 500 ms the motion ends."""
    client.keep_control()
    client.ask(reset_to(client, HOME), 30.0)
    for _ in range(20):
        number = follow(client, moved(y=0.3))
        client.await_state()
    wait_until(lambda: client.await_state().setpoint == number, 2.0)
    last, speeds = client.state.time_s, []
    while not client.await_state().fault:
        s = client.state
        speeds.append((s.time_s - last, float(np.linalg.norm(s.twist[:3]))))
    stopped_after = client.state.time_s - last
    assert client.state.fault == "stale_setpoint"
    assert 0.4 <= stopped_after <= 0.6, "0.5 s, give or take the states that this client missed"
    assert max(v for t, v in speeds if t < 0.1) > 0.1, "it was under way"
    assert max(v for t, v in speeds if t > 0.40) < 0.06, "it held before it stopped"
    assert client.state.position[1] < HOME[1] + 0.28, "it held short of its goal"
    wait_until(lambda: client.await_state().phase == "stopped", 2.0)
    assert np.abs(client.state.dq).max() < 0.05
    # latched: nothing but a recovery goes on, and that is rate-limited
    client.keep_control()
    follow(client, HOME)
    assert "stale_setpoint" in next_refusal(client)[1]
    assert "stale_setpoint" in refusal_of(client, reset_to(client, HOME))
    recover(client, 10.0)
    client.keep_control()
    client.ask(Stop(number=client.next_number(), reason="to have a fault again"))
    wait_until(lambda: client.await_state().phase == "stopped", 2.0)
    assert client.state.fault == "stopped"
    assert "at most one" in refusal_of(client, Recover(number=client.next_number(), reason="too soon"))
    assert client.await_state().fault == "stopped"


def test_a_recovery_needs_a_fault_and_a_reason(client):
    client.keep_control()
    assert "no fault" in refusal_of(client, Recover(number=client.next_number(), reason="why not"))


def test_anybody_may_stop(rig, client):
    client.keep_control()
    with contextlib.closing(RobotClient(rig.address, name="passer-by")) as other:
        other.ask(Stop(number=other.next_number(), reason="smoke"))
    wait_until(lambda: client.await_state().phase == "stopped", 2.0)
    assert client.state.fault == "stopped"
    assert "smoke" in rig.log.read_text()


def test_joint_reset_arrives_and_refuses_what_is_out_of_range(client):
    client.keep_control()
    goal = (0.2, -0.6, 0.1, -2.2, 0.1, 1.7, 0.9)
    client.ask(ResetJoints(number=client.next_number(), q=goal), 40.0)
    assert np.abs(np.array(client.await_state().q) - goal).max() < 0.06
    beyond = (*goal[:6], 3.0)
    assert "joint 7" in refusal_of(client, ResetJoints(number=client.next_number(), q=beyond))
    outside = (1.5, *goal[1:])
    assert "outside the workspace box" in refusal_of(
        client, ResetJoints(number=client.next_number(), q=outside), 40.0
    )
    assert client.await_state().fault == ""


def test_a_reset_ends_where_its_client_does(rig, client):
    client.keep_control()
    client.ask(reset_to(client, HOME), 30.0)
    far = moved(0.1, -0.3, 0.1)
    client.send(reset_to(client, far))
    time.sleep(0.2)
    # and says nothing any more
    time.sleep(1.5 * LEASE_S)
    state = client.await_state()
    time.sleep(0.3)
    assert np.abs(np.array(client.await_state().position) - state.position).max() < 2e-3
    assert client.state.fault == ""


def test_gains_switch_and_those_too_high_are_refused(client):
    client.keep_control()
    client.ask(reset_to(client, HOME), 30.0)

    def gains(linear, angular, clip=0.01, ratio=1.0):
        clips = (clip,) * 3 + (0.1,) * 3
        return SetGains(
            number=client.next_number(), stiffness=(linear,) * 3 + (angular,) * 3, damping_ratio=ratio,
            clip_lower=tuple(-c for c in clips), clip_upper=clips,
        )  # fmt: skip

    client.ask(gains(2000.0, 150.0))
    assert report(client).stiffness == (2000.0,) * 3 + (150.0,) * 3
    assert "above the bound" in refusal_of(client, gains(1e6, 150.0))
    assert "above the bound" in refusal_of(client, gains(500.0, 50.0, ratio=50.0))
    assert "negative" in refusal_of(client, gains(-1.0, 50.0))
    assert "not finite" in refusal_of(client, gains(math.nan, 50.0))
    assert report(client).stiffness == (2000.0,) * 3 + (150.0,) * 3
    assert client.await_state().fault == ""
    client.ask(gains(500.0, 50.0, clip=0.05))


@pytest.mark.parametrize(
    ("config", "step_m"),
    [(free_space(), 0.05), pytest.param(insertion(), 0.0125, marks=pytest.mark.slow)],
    ids=["free space", "insertion"],
)
def test_a_policy_that_pushes_into_the_table_gets_stiffness_times_clip(tmp_path, config, step_m):
    """At full command from 8 cm above. The blow, which no spring's bound can hold, may be the arm's own reflex."""
    found = collide(tmp_path, "127.0.7.12", config, step_m)
    bound = config.stiffness[2] * config.clip_upper[2]
    assert 0.7 * bound < found.force_n < 1.1 * bound
    assert found.fault in ("", "cartesian_reflex")


def test_a_bang_is_the_arms_own_reflex_and_latched(robot):
    robot.reset(np.array([0.45, 0.0, 0.2]), DOWN, 0.0)
    while robot.observe().fault is None:
        robot.command(Setpoint(np.array([0.45, 0.0, -0.05]), DOWN, 0.0), 0.1)
        assert robot.observe().time_s < 1e4
    assert robot.observe().fault == "cartesian_reflex"
    with pytest.raises(RobotFault, match="cartesian_reflex"):
        robot.command(Setpoint(HOME, DOWN, 0.0), 0.1)
    with pytest.raises(RobotFault, match="cartesian_reflex"):
        robot.reset(HOME, DOWN, 0.0)
    robot.recover("the table is where it should be")
    assert robot.observe().fault is None
    robot.reset(HOME, DOWN, 0.0)
    assert np.abs(robot.observe().position - HOME).max() < 0.004


def test_load_is_set_between_motions(client):
    client.keep_control()
    client.ask(reset_to(client, HOME), 30.0)
    inertia = (0.001, 0.0, 0.0, 0.0, 0.001, 0.0, 0.0, 0.0, 0.001)
    number = client.next_number
    client.ask(SetLoad(number=number(), mass=0.1, com=(0.0, 0.0, 0.05), inertia=inertia), 10.0)
    assert "0..3" in refusal_of(
        client, SetLoad(number=number(), mass=9.0, com=(0.0, 0.0, 0.0), inertia=inertia)
    )
    crooked = (0.001, 0.1, 0.0, 0.0, 0.001, 0.0, 0.0, 0.0, 0.001)
    assert "inertia" in refusal_of(
        client, SetLoad(number=number(), mass=0.1, com=(0.0, 0.0, 0.0), inertia=crooked)
    )
    client.ask(SetLoad(number=number(), mass=0.0, com=(0.0, 0.0, 0.0), inertia=(0.0,) * 9), 10.0)
    assert client.await_state().phase == "running"
    assert "0..0.08" in refusal_of(client, MoveGripper(number=number(), width=0.2))


def test_noise_on_the_socket_changes_nothing(rig, client):
    import zmq

    rng = np.random.default_rng(0)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(rig.address)
    good = b"SRR\x01"
    for n in range(200):
        body = rng.bytes(int(rng.integers(0, 80)))
        socket.send_multipart([b"", body] if n % 3 == 0 else [good + body if n % 3 == 1 else body])
    socket.close(500)
    context.term()
    client.keep_control()
    assert client.await_state().fault == ""
    assert rig.server.poll() is None


def test_a_silent_address_is_named():
    with pytest.raises(RobotUnreachable, match=r"tcp://127\.0\.0\.1:9 is silent"):
        RemoteRobot("tcp://127.0.0.1:9")


def test_a_setpoint_that_is_not_finite_is_a_robot_fault(robot):
    state = robot.observe()
    with pytest.raises(RobotFault, match="not finite"):
        robot.command(Setpoint(state.position * np.nan, state.quaternion, 0.08), 0.1)
    assert robot.observe().fault is None
    assert f"({os.getpid()})" in robot.arm.controller
