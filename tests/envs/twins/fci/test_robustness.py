"""Whoever dies, hangs or talks nonsense: the other side goes on, within its time-outs."""

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serl_envs.twins.fci import arm_packets, hand_packets
from serl_envs.twins.fci.command_line import InvalidTwin, run

CLIENT_TIMEOUT_S = 5
"""pylibfranka gives up on states after a second."""


@pytest.fixture
def alive(twin):
    """Asks for the state of the module's twin, as any client does."""

    def check():
        assert twin.client("read")["mode"] == "Idle"

    return check


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from([arm_packets.PORT, hand_packets.PORT]))
def test_noise_on_a_fresh_connection(twin, noise, port):
    with socket.create_connection((twin.address, port), timeout=5) as stream:
        stream.sendall(noise)
    assert twin.process.poll() is None


def test_alive_after_the_noise(alive):
    alive()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.binary(max_size=500))
def test_noise_on_an_established_connection_is_answered(twin, raw_arm, command, payload):
    arm = raw_arm(twin)
    answer = arm.ask(command, payload)
    known = arm_packets.PAYLOAD_BYTES.get(command)
    if known is None or known != len(payload) or command == 0:
        assert answer in (b"\x01", b"\x02", b"\x07")
    assert arm.ask(arm_packets.ArmCommand.STOP_MOVE) == b"\x00"
    arm.close()


def test_requests_of_impossible_size_end_the_connection_and_nothing_else(twin, raw_arm, alive):
    for size in (0, 5, 2**31, 2**32 - 1):
        arm = raw_arm(twin)
        arm.stream.sendall(struct.pack("<III", 1, 7, size) + bytes(64))
        assert arm.reply() == (None, b"")
        arm.close()
    alive()


def test_clients_that_leave_at_once_or_say_nothing(twin, raw_arm, alive):
    for _ in range(20):
        for port in (arm_packets.PORT, hand_packets.PORT):
            stream = socket.create_connection((twin.address, port), timeout=5)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.close()  # a reset, perhaps before it was let in
    silent = socket.create_connection((twin.address, arm_packets.PORT), timeout=5)
    time.sleep(0.05)
    raw_arm(twin).close()  # is let in when the patience with the silent one is over
    assert silent.recv(1) == b""
    silent.close()
    alive()


def test_wrong_version_is_told_so(twin, raw_arm, alive):
    arm = raw_arm(twin, version=9)
    assert arm.connected == arm_packets.CONNECT_REPLY.pack(1, arm_packets.VERSION)
    assert arm.reply() == (None, b"")
    arm.close()
    alive()


def test_datagrams_that_are_no_command_count_for_nothing(twin, raw_arm, alive):
    arm, rng = raw_arm(twin), random.Random(0)
    assert arm.move() == b"\x01"
    state = arm.newest()
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(300):
        noise = rng.randbytes(rng.choice([0, 1, 370, 372, 1377]))
        arm.states.sendto(noise, arm.arm)
        stranger.sendto(rng.randbytes(371), arm.arm)
    stranger.close()
    for _ in range(20):
        state = arm.newest()
        arm.command(state, tau_J_d=state["tau_J_d"])
    assert arm.newest()["robot_mode"] == 2
    arm.close()
    alive()


def test_answers_to_states_of_the_future_or_the_past_are_not_mistaken(twin, raw_arm, alive):
    arm = raw_arm(twin)
    arm.move()
    state = arm.newest()
    for off in (-1, 1000, 2**40):
        shifted = state.copy()
        shifted["message_id"] = np.uint64(int(state["message_id"]) + off)
        arm.command(shifted, tau_J_d=50.0)
    time.sleep(0.05)
    assert arm.newest()["robot_mode"] == 2
    arm.close()
    alive()


def test_second_client_waits_until_the_first_has_left(twin, raw_arm):
    first = raw_arm(twin)
    second = socket.create_connection((twin.address, arm_packets.PORT), timeout=1)
    request = arm_packets.CONNECT.pack(arm_packets.VERSION, 9)
    second.sendall(arm_packets.HEADER.pack(0, 1, 16) + request)
    with pytest.raises(TimeoutError):
        second.recv(64)
    assert first.ask(arm_packets.ArmCommand.STOP_MOVE) == b"\x00"
    first.close()
    second.settimeout(5)
    assert second.recv(64)[12:] == arm_packets.CONNECT_REPLY.pack(0, arm_packets.VERSION)
    second.close()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_killed_client_leaves_the_arm_idle_for_the_next(start_twin, mode, kills):
    twin = start_twin("FrankaReach-v0", "--mode", mode)
    rng = random.Random(1)
    for _ in range(kills):
        client = twin.start("hold_on")
        assert client.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.3))
        client.kill()
        client.wait()
        began = time.monotonic()
        assert twin.client("read")["mode"] == "Idle"
        assert time.monotonic() - began < CLIENT_TIMEOUT_S
    twin.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_client_in_motion_does_not_hang_on_a_lost_twin(start_twin, how):
    twin = start_twin("FrankaReach-v0", "--mode", "lockstep")
    client = twin.start("hold_on")
    assert client.stdout.readline() == "ready\n"
    time.sleep(0.2)
    began = time.monotonic()
    os.kill(twin.process.pid, how)
    found = twin.finish(client)
    assert time.monotonic() - began < CLIENT_TIMEOUT_S
    assert found["exception"] in ("NetworkException", "ControlException")


@pytest.mark.slow
def test_twin_killed_at_twenty_random_moments(start_twin):
    """And started again at the same address each time."""
    rng = random.Random(2)
    twin = start_twin("FrankaReach-v0", "--mode", "lockstep")
    for _ in range(20):
        client = twin.start("hold_on")
        assert client.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.5))
        began = time.monotonic()
        twin.process.kill()
        assert twin.finish(client)["exception"] in ("NetworkException", "ControlException")
        assert time.monotonic() - began < CLIENT_TIMEOUT_S
        twin.restart()
    assert twin.client("read")["mode"] == "Idle"


def test_stopped_twin_answers_the_pending_move_before_it_leaves(fresh_twin, raw_arm):
    arm = raw_arm(fresh_twin)
    arm.move()
    fresh_twin.stop()
    assert arm.reply()[1] == bytes([arm_packets.MoveStatus.ABORTED])
    assert arm.reply() == (None, b"")


@pytest.mark.slow
def test_hanging_client_loses_its_motion_in_lockstep(fresh_twin, raw_arm):
    """A client that holds the connection but commands nothing more: after 20 waits the motion ends."""
    arm = raw_arm(fresh_twin)
    arm.move()
    state = arm.newest()
    while state["control_command_success_rate"] == 0:
        state = arm.newest()
        arm.command(state)
    began = time.monotonic()
    arm.stream.settimeout(30)
    assert arm.reply()[1] == bytes([arm_packets.MoveStatus.ABORTED_BY_REFLEX])
    assert 5 < time.monotonic() - began < 15
    assert arm.newest()["errors"].nonzero()[0].tolist() == [25]


def test_stopped_twin_answers_the_hands_client_before_it_leaves(start_twin):
    """Killed outright it can't, and pylibfranka's hand then waits for ever: whoever drives a hand needs a watchdog."""
    twin = start_twin("FrankaReach-v0", "--mode", "realtime")
    client = twin.start("creep")
    assert client.stdout.readline() == "ready\n"
    time.sleep(0.3)
    twin.stop()
    found = twin.finish(client, CLIENT_TIMEOUT_S)
    assert found["exception"] == "CommandException"
    assert "aborted" in found["message"]


def test_two_twins_on_one_machine(start_twin):
    first, second = start_twin("FrankaReach-v0"), start_twin("FrankaPickCube-v0")
    assert first.client("read")["q"] != second.client("read")["q"]


def test_taken_address_is_an_error_that_says_so(twin):
    command = [sys.executable, "-m", "serl_envs.twins.fci", "--port-ip", twin.address]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "another twin there? Take 127.0.0.2" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--task", "FrankaPegInsrt-v0"), "did you mean FrankaPegInsert-v0"),
        (("--port-ip", "localhost"), "no IPv4 address"),
        (("--loss", "1.5"), "no probability"),
        (("--delay-ms", "-3"), "0 or more"),
        (("--log", "/nowhere/at/all.npz"), "does not exist"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(arguments, complaint):
    with pytest.raises(InvalidTwin, match=complaint):
        run(arguments)
