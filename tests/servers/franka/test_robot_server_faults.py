"""Whoever dies, at a random moment: the others notice, the arm stops, nothing is left behind, and all start again."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rig import ENVIRONMENT, end, is_alive, report, running, start_server, start_twin, wait_until

pytest.importorskip("pylibfranka")

from serl_suite.wire.robot_client import RobotClient, RobotRefused
from serl_suite.wire.robot_messages import Recover, ResetJoints

READY = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)
MOVER = Path(__file__).with_name("mover.py")
MANY = pytest.param(20, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rig"), "127.0.7.2") as made:
        yield made


@contextlib.contextmanager
def moving(rig):
    """An actor that moves the arm; killed at the end."""
    actor = subprocess.Popen(
        [sys.executable, str(MOVER), rig.address], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        assert actor.stdout.readline() == b"moving\n"
        yield actor
    finally:
        actor.kill()
        actor.wait()


@contextlib.contextmanager
def observing(rig):
    with contextlib.closing(RobotClient(rig.address, name="observer")) as client:
        yield client


def recover(client):
    """Waits for control and for the time that lies between recoveries."""

    deadline = time.monotonic() + 30.0
    while True:
        try:
            client.keep_control()
            client.ask(Recover(number=client.next_number(), reason="the test"), 60.0)
            break
        except RobotRefused as refusal:
            soon = "at most one" in str(refusal) or "controls the arm" in str(refusal)
            if not soon or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    client.release()
    wait_until(lambda: client.await_state().phase == "running", 5.0)
    assert client.state.fault == ""


def assert_usable(client):
    client.keep_control()
    client.ask(ResetJoints(number=client.next_number(), q=READY), 60.0)
    client.release()
    assert np.abs(np.array(client.await_state().q) - READY).max() < 0.06


def random_moment(seed):
    time.sleep(0.2 + random.Random(seed).random())


def mailboxes():
    """Processes that map one of the server's mailboxes."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if "serl-mailbox" in maps.read_text():
                found.add(int(maps.parent.name))
    return found


@pytest.mark.parametrize("times", [2, MANY])
def test_a_killed_actor(rig, times):
    with observing(rig) as client:
        if client.await_state().fault:
            recover(client)
        for seed in range(times):
            with moving(rig) as actor:
                random_moment(seed)
                actor.kill()
                actor.wait()
                last, fastest = client.await_state(), 0.0
                while not client.await_state().fault:
                    s = client.state
                    if s.time_s - last.time_s > 0.45:
                        fastest = max(fastest, float(np.linalg.norm(s.twist[:3])))
                    assert s.time_s - last.time_s < 0.7
            assert client.state.fault == "stale_setpoint"
            assert fastest < 0.04, "it held before it stopped"
            wait_until(lambda: client.await_state().phase == "stopped", 3.0)
            recover(client)
        assert_usable(client)


@pytest.mark.parametrize("times", [1, MANY])
def test_a_hung_actor(rig, times):
    with observing(rig) as client:
        if client.await_state().fault:
            recover(client)
        for seed in range(times):
            with moving(rig) as actor:
                random_moment(seed)
                actor.send_signal(signal.SIGSTOP)
                wait_until(lambda: client.await_state().fault == "stale_setpoint", 5.0)
            recover(client)


@pytest.mark.parametrize("times", [2, MANY])
def test_a_killed_control_process(rig, times):
    with observing(rig) as client:
        if client.await_state().fault:
            recover(client)
        for seed in range(times):
            with moving(rig):
                random_moment(seed)
                pid = report(client).control_pid
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: report(client).fault == "control_process_died", 2.0)
            recover(client)
            assert report(client).control_pid != pid
            assert not is_alive(pid)
            assert mailboxes() >= {report(client).control_pid, rig.server.pid}
        assert_usable(client)


def test_a_hung_control_process(rig):
    with observing(rig) as client:
        if client.await_state().fault:
            recover(client)
        pid = report(client).control_pid
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: report(client).fault == "control_process_hung", 8.0)
        recover(client)
        assert not is_alive(pid)
        assert_usable(client)


def test_a_hung_service(rig):
    """The control process hears nothing, holds, and stops, although the service's client is alive."""
    with observing(rig) as client:
        if client.await_state().fault:
            recover(client)
        with moving(rig):
            random_moment(0)
            os.kill(rig.server.pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(rig.server.pid, signal.SIGCONT)
            wait_until(lambda: report(client).fault == "stale_setpoint", 3.0)
        recover(client)
        assert_usable(client)


@pytest.mark.parametrize("times", [2, MANY])
def test_a_killed_service(tmp_path, times):
    with running(tmp_path, "127.0.7.3") as rig:
        server = rig.server
        before = set(Path("/dev/shm").iterdir())
        for seed in range(times):
            with moving(rig), observing(rig) as client:
                random_moment(seed)
                pid = report(client).control_pid
                server.kill()
                server.wait()
                wait_until(lambda pid=pid: not is_alive(pid), 5.0, "an orphan is left")
            assert pid not in mailboxes()
            server = start_server(rig.ip, rig.address, rig.log)
            try:
                with observing(rig) as client:
                    assert client.await_state().phase == "running"
                    assert np.abs(client.state.dq).max() < 0.02, "the arm is at rest"
                    assert_usable(client)
            except BaseException:
                end(server)
                raise
        assert end(server) == 0
        assert set(Path("/dev/shm").iterdir()) == before
        assert "Traceback" not in rig.log.read_text()


@pytest.mark.parametrize("times", [1, MANY])
def test_a_killed_arm(tmp_path, times):
    with running(tmp_path, "127.0.7.4") as rig:
        twin = rig.twin
        try:
            for seed in range(times):
                with observing(rig) as client:
                    with moving(rig):
                        random_moment(seed)
                        twin.kill()
                        twin.wait()
                        wait_until(lambda: report(client).fault == "connection_lost", 5.0)
                    twin = start_twin(rig.ip, tmp_path, "--mode", "lockstep")
                    recover(client)
                    assert_usable(client)
        finally:
            if twin is not rig.twin:
                end(twin)


def test_ctrl_c_leaves_an_arm_at_rest(tmp_path):
    with running(tmp_path, "127.0.7.5") as rig:
        with moving(rig), observing(rig) as client:
            time.sleep(0.5)
            pid = report(client).control_pid
            assert end(rig.server) == 0
        assert not is_alive(pid)
        assert "stopped: ended" in rig.log.read_text()
        assert "Traceback" not in rig.log.read_text()


def test_lost_packets_are_no_fault(tmp_path):
    """After a lost packet the arm judges the next torque by the one that it holds, not by the one that was sent."""
    with (
        running(tmp_path, "127.0.7.10", twin=("--loss", "0.1", "--seed", "3")) as rig,
        observing(rig) as client,
    ):
        assert_usable(client)
        lost = 1.0
        with moving(rig):
            start = client.await_state().time_s
            while client.await_state().time_s - start < 5.0:
                lost = min(lost, client.state.success_rate)
                assert client.state.fault == "", client.state.detail
        assert lost < 0.9


def test_the_user_stop(tmp_path):
    with running(tmp_path, "127.0.7.11") as rig, observing(rig) as client:
        with moving(rig):
            random_moment(1)
            rig.twin.send_signal(signal.SIGUSR1)
            wait_until(lambda: client.await_state().fault, 3.0)
        wait_until(lambda: client.await_state().phase == "stopped", 3.0)
        with pytest.raises(RobotRefused):
            recover(client)
        assert client.await_state().fault
        client.release()
        rig.twin.send_signal(signal.SIGUSR1)
        recover(client)
        assert_usable(client)
