"""Whoever dies, at a random moment: the others notice, the arm stops, nothing is left behind, and all start again."""

import os
import signal
import time

import pytest
from rig import end, is_alive, report, running, wait_until

pytest.importorskip("pylibfranka")

from kills import (
    FORCE_N,
    TANK_MAX_J,
    TANK_MIN_J,
    VICTIMS,
    audit,
    hunting_ground,
    kill,
    moving,
    observing,
    random_moment,
    recovered,
    reset,
)

from serl_suite.wire.robot_client import RobotRefused
from serl_suite.wire.robot_messages import Stop

HOLD_S = 0.45
"""100 ms until a setpoint is stale, then down to rest as a soft spring follows its target."""
STOP_S = 0.55
"""500 ms until the motion ends; the last setpoint came up to 20 ms before the kill, or after it from a socket."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rig"), "127.0.7.2") as made:
        yield made


def kill_and_audit(folder, ip, victims, over=None):
    """Kills them one after another, and holds what the arm did against what is specified."""
    with hunting_ground(folder, ip, over) as rig:
        kills = [kill(rig, victim, seed) for seed, victim in enumerate(victims)]
        with observing(rig) as client:
            reset(client)
    for one, found in zip(kills, audit(folder / "twin.npz", kills), strict=True):
        assert found.ended_s < STOP_S, (one.victim, found)
        assert found.rest_s < STOP_S, (one.victim, found)
        assert found.work_j <= TANK_MAX_J - TANK_MIN_J, (one.victim, found)
        assert found.force_n <= 1.1 * FORCE_N, (one.victim, found)


def test_whoever_is_killed_the_arm_stops(tmp_path):
    victims = ("actor", "server", "control process", "cable to the server")
    kill_and_audit(tmp_path, "127.0.7.3", victims)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", [victim for victim in VICTIMS if victim != "arm"])
def test_20_kills(tmp_path, victim):
    kill_and_audit(
        tmp_path, "127.0.7.4", [victim] * 20, "127.0.7.5" if victim == "cable to the arm" else None
    )


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_killed_arm(rig, times):
    for seed in range(times):
        kill(rig, "arm", seed)
    with observing(rig) as client:
        reset(client)


@pytest.mark.parametrize("gone", ["silent", "dead"])
def test_an_arm_that_goes_while_it_is_stopped(rig, gone):
    """The fault that stopped it stays the one that is named, and a recovery finds the arm again."""
    with observing(rig) as client:
        client.ask(Stop(number=client.next_number(), reason="the test"))
        wait_until(lambda: client.await_state().phase == "stopped", 5.0)
        if gone == "silent":
            rig.twin.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            rig.twin.send_signal(signal.SIGCONT)
        else:
            rig.twin.kill()
            rig.twin.wait()
            rig.twin = rig.start_twin()
        assert client.await_state().fault == "stopped"
        recovered(client)
        reset(client)


def test_a_hung_actor(rig):
    with observing(rig) as client, moving(rig) as actor:
        random_moment(0)
        actor.send_signal(signal.SIGSTOP)
        wait_until(lambda: client.await_state().fault == "stale_setpoint", 5.0)
        actor.kill()
        recovered(client)


def test_a_hung_control_process(rig):
    with observing(rig) as client:
        pid = report(client).control_pid
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: report(client).fault == "control_process_hung", 8.0)
        recovered(client)
        assert not is_alive(pid)
        reset(client)


def test_a_hung_service(rig):
    """The control process hears nothing, holds, and stops, although the service's client is alive."""
    with observing(rig) as client:
        with moving(rig):
            random_moment(0)
            os.kill(rig.server.pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(rig.server.pid, signal.SIGCONT)
            wait_until(lambda: report(client).fault == "stale_setpoint", 3.0)
        recovered(client)
        reset(client)


def test_lost_packets_are_no_fault(tmp_path):
    """After a lost packet the arm judges the next torque by the one that it holds, not by the one that was sent."""
    lossy = ("--mode", "lockstep", "--loss", "0.1", "--seed", "3")
    with running(tmp_path, "127.0.7.10", twin=lossy) as rig, observing(rig) as client:
        reset(client)
        lost = 1.0
        with moving(rig):
            start = client.await_state().time_s
            while client.await_state().time_s - start < 2.0:
                lost = min(lost, client.state.success_rate)
                assert client.state.fault == "", client.state.detail
        assert lost < 0.9


def test_the_user_stop(rig):
    with observing(rig) as client:
        with moving(rig):
            random_moment(1)
            rig.twin.send_signal(signal.SIGUSR1)
            wait_until(lambda: client.await_state().fault, 3.0)
        wait_until(lambda: client.await_state().phase == "stopped", 3.0)
        with pytest.raises(RobotRefused):
            recovered(client)
        assert client.await_state().fault
        client.release()
        rig.twin.send_signal(signal.SIGUSR1)
        recovered(client)
        reset(client)


def test_ctrl_c_leaves_an_arm_at_rest(rig):
    """The last of this rig."""
    with moving(rig), observing(rig) as client:
        time.sleep(0.5)
        pid = report(client).control_pid
        assert end(rig.server) == 0
    assert not is_alive(pid)
    assert "stopped: ended" in rig.log.read_text()
    assert "Traceback" not in rig.log.read_text()
