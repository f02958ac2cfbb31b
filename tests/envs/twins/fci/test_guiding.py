"""The arm led by hand: a force on the hand is a person's. Time is what the test says."""

import signal
import time

import numpy as np
import pytest
from serl_envs.tasks.reach import Reach
from serl_envs.twins.fci.arm_packets import MOVE, ArmCommand, MoveStatus, RobotMode, Status
from serl_envs.twins.fci.build import make_arm

X, Z = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


@pytest.fixture
def arm():
    return make_arm(Reach())


def unlock(arm, *axes, elbow=True):
    flags = bytes(int(i in axes) for i in range(6)) + bytes([elbow])
    assert arm.set_up(ArmCommand.SET_GUIDING_MODE, flags) is Status.SUCCESS


def lead(arm, force, ticks=600):
    """By how much the end effector went and turned."""
    before = pose(arm)
    model, data = arm.plant.model, arm.plant.data
    hand = model.body("hand").id
    for _ in range(ticks):
        data.xfrc_applied[hand] = [*force, *np.cross(data.site("tcp").xpos - data.xipos[hand], force)]
        arm.tick(None)
    data.xfrc_applied[hand] = 0.0
    after = pose(arm)
    turn = np.arccos(np.clip((np.trace(after[:3, :3] @ before[:3, :3].T) - 1) / 2, -1, 1))
    return after[:3, 3] - before[:3, 3], turn


def pose(arm):
    return arm.telemetry.packet["O_T_EE"].astype(float).reshape(4, 4).T


def test_free_everywhere_as_delivered(arm):
    arm.press_guiding(pressed=True)
    assert arm.mode is RobotMode.GUIDING
    assert arm.telemetry.packet["robot_mode"] == 3
    way, _ = lead(arm, 12 * X)
    assert way[0] > 0.03
    arm.press_guiding(pressed=False)
    assert arm.mode is RobotMode.IDLE
    for _ in range(300):
        arm.tick(None)
    there = pose(arm)
    way, _ = lead(arm, 12 * X)
    assert np.abs(way).max() < 0.01, "it holds again"
    assert np.abs(lead(arm, 0 * X)[0] + pose(arm)[:3, 3] - there[:3, 3]).max() < 0.01


def test_what_is_locked_is_held(arm):
    unlock(arm, 0, 1)
    arm.press_guiding(pressed=True)
    way, turn = lead(arm, 12 * X - 12 * Z)
    assert way[0] > 0.03
    assert abs(way[2]) < 0.01
    assert turn < 0.05
    unlock(arm, 2)
    way, turn = lead(arm, 12 * X + 12 * Z)
    assert way[2] > 0.03
    assert abs(way[0]) < 0.01


def test_a_locked_elbow_comes_back(arm):
    """The elbow swings where it is free, without moving the end effector; locked, it returns."""
    moved = {}
    for elbow in (True, False):
        unlock(arm, elbow=elbow)
        arm.press_guiding(pressed=True)
        start = float(arm.plant.q[2])
        link = arm.plant.model.body("link4").id
        for tick in range(1500):
            arm.plant.data.xfrc_applied[link, 1] = 40.0 if tick < 600 else 0.0
            arm.tick(None)
        moved[elbow] = abs(float(arm.plant.q[2]) - start)
        arm.press_guiding(pressed=False)
    assert moved[True] > 0.05
    assert moved[False] < 0.3 * moved[True]


def test_nobody_else_moves_an_arm_that_is_led_and_nobody_leads_one_that_moves(arm):
    move = MOVE.pack(2, 4, *[10.0] * 6, False, *[0.0] * 7)
    arm.press_guiding(pressed=True)
    assert arm.start_move(move) is MoveStatus.NOT_POSSIBLE
    arm.press_user_stop(pressed=True)
    assert arm.mode is RobotMode.USER_STOPPED
    arm.press_guiding(pressed=True)
    assert arm.mode is RobotMode.USER_STOPPED
    arm.press_user_stop(pressed=False)
    arm.press_guiding(pressed=False)
    assert arm.start_move(move) is MoveStatus.STARTED
    arm.press_guiding(pressed=True)
    assert arm.mode is RobotMode.MOVE


def test_a_client_sees_it_and_waits(fresh_twin, raw_arm):
    arm = raw_arm(fresh_twin)
    assert arm.ask(ArmCommand.SET_GUIDING_MODE, bytes([1, 1, 1, 0, 0, 0, 1])) == b"\x00"
    fresh_twin.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 5.0
    while arm.newest()["robot_mode"] != RobotMode.GUIDING:
        assert time.monotonic() < deadline
    assert arm.move() == bytes([MoveStatus.NOT_POSSIBLE])
    arm.close()
    assert fresh_twin.client("read")["mode"] == "Guiding"
    fresh_twin.process.send_signal(signal.SIGUSR2)
    assert fresh_twin.client("swing", 200)["ticks"] == 200
