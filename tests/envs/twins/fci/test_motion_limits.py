"""What ends a motion that a generator makes, by name. The arm without a network; time is what the test says."""

import math

import numpy as np
import pytest
from serl_envs.tasks.reach import Reach
from serl_envs.twins.fci.arm_packets import MOVE, ArmCommand, Error, MoveStatus, RobotMode, Status
from serl_envs.twins.fci.build import make_arm
from serl_envs.twins.fci.command import Command
from serl_hardware.franka import fr3

JOINT_POSITION, JOINT_VELOCITY, POSE, TWIST = (0, 0), (0, 1), (0, 2), (0, 3)
WIDE = (10.0, 3.12, 2 * math.pi)


@pytest.fixture
def arm():
    made = make_arm(Reach())
    assert made.set_up(ArmCommand.SET_COLLISION_BEHAVIOR, np.full(52, 1e6).tobytes()) is Status.SUCCESS
    return made


def start(arm, mode, path=WIDE, goal=WIDE):
    return arm.start_move(MOVE.pack(*mode, *path, *goal, False, *[0.0] * 7))


def turn_joint_7(arm, q):
    """Has it held there, as after a motion that ended there."""
    start(arm, JOINT_VELOCITY)
    arm.stop_move()
    arm.plant.q[6] = q
    arm.plant.data.qvel[:] = 0.0
    arm.plant.look()
    arm.tick(None)
    assert arm.telemetry.packet["q_d"][6] == pytest.approx(q, abs=1e-5)


def tick(arm, **fields):
    packet = arm.telemetry.packet
    blank = {
        "q": packet["q_d"].astype(float), "dq": np.zeros(7), "twist": np.zeros(6), "tau": np.zeros(7),
        "pose": packet["O_T_EE_d"].astype(float).reshape(4, 4).T,
    }  # fmt: skip
    number = int(packet["message_id"])
    arm.tick(Command(**(blank | {"message_id": number, "elbow": None, "finished": False} | fields)))


def until_it_stops(arm, command, ticks=2000):
    for k in range(ticks):
        if not arm.in_motion:
            break
        tick(arm, **command(k))
    return arm.errors


def ramp(axis, size, step):
    """A twist that grows to a size, by so much a tick."""
    return lambda k: {"twist": np.eye(6)[axis] * math.copysign(min(step * (k + 1), abs(size)), size)}


LIMIT = fr3().q_max[6]
ENDS = {
    Error.JOINT_MOTION_GENERATOR_POSITION_LIMITS_VIOLATION: (
        JOINT_VELOCITY, LIMIT - 1e-6, lambda k: {"dq": np.eye(7)[6] * 0.005}
    ),
    Error.CARTESIAN_POSITION_MOTION_GENERATOR_START_POSE_INVALID: (
        POSE, None, lambda k: {"pose": np.eye(4)}
    ),
    Error.CARTESIAN_MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION: (TWIST, None, ramp(2, 4.0, 4.0)),
    Error.CARTESIAN_MOTION_GENERATOR_VELOCITY_DISCONTINUITY: (TWIST, None, ramp(2, 0.5, 0.5)),
    Error.CARTESIAN_MOTION_GENERATOR_ACCELERATION_DISCONTINUITY: (TWIST, None, ramp(2, 0.5, 0.008)),
    Error.CARTESIAN_MOTION_GENERATOR_JOINT_POSITION_LIMITS_VIOLATION: (TWIST, LIMIT - 2e-6, ramp(5, -0.1, 0.004)),
    Error.CARTESIAN_MOTION_GENERATOR_JOINT_VELOCITY_LIMITS_VIOLATION: (TWIST, LIMIT - 0.05, ramp(5, -2.0, 0.004)),
}  # fmt: skip
"""By error: the motion, where joint 7 stands before, and what is commanded. The tool points down, so that joint 7 turns
against the base's z."""


@pytest.mark.parametrize("error", ENDS, ids=lambda error: error.name.lower())
def test_what_a_generator_may_not_do(arm, error):
    mode, q, command = ENDS[error]
    if q is not None:
        turn_joint_7(arm, q)
    assert start(arm, mode) is MoveStatus.STARTED
    assert until_it_stops(arm, command) == (error,)
    assert arm.mode is RobotMode.REFLEX
    assert arm.outcome is MoveStatus.ABORTED_BY_REFLEX
    for _ in range(300):
        arm.tick(None)
    assert start(arm, mode) is MoveStatus.NOT_POSSIBLE, "latched"
    arm.recover()
    for _ in range(500):
        arm.tick(None)
    assert (arm.mode, arm.errors) == (RobotMode.IDLE, ())


def swing(arm, **move):
    """A soft arm swings; how it ends."""
    arm.settings.joint_stiffness = np.full(7, 150.0)
    assert start(arm, JOINT_POSITION, **move) is MoveStatus.STARTED
    q = arm.telemetry.packet["q_d"].astype(float)

    def command(k):
        angle = 0.15 * (1 - math.cos(math.pi * min(k, 600) / 600))
        return {"q": q + angle * np.eye(7)[1], "finished": k == 600}

    return until_it_stops(arm, command)


def test_a_motion_that_strays_from_its_path_ends(arm):
    assert swing(arm) == ()
    assert arm.outcome is MoveStatus.SUCCESS


@pytest.mark.parametrize("path", [(2e-4, 3.12, 7.0), (10.0, 1e-3, 7.0)], ids=["translation", "rotation"])
def test_the_path_has_limits(arm, path):
    assert swing(arm, path=path) == (Error.MAX_PATH_POSE_DEVIATION_VIOLATION,)
    assert arm.outcome is MoveStatus.ABORTED_BY_REFLEX


def test_the_elbow_has_one(arm):
    arm.settings.joint_stiffness = np.full(7, 150.0)
    assert start(arm, JOINT_POSITION, path=(10.0, 3.12, 1e-3)) is MoveStatus.STARTED
    q = arm.telemetry.packet["q_d"].astype(float)
    found = until_it_stops(
        arm, lambda k: {"q": q + 0.1 * (1 - math.cos(math.pi * k / 600)) * np.eye(7)[2]}, 600
    )
    assert found == (Error.MAX_PATH_POSE_DEVIATION_VIOLATION,)


def test_the_goal_has_limits(arm):
    assert swing(arm, goal=(1e-4, 3.12, 7.0)) == (Error.MAX_GOAL_POSE_DEVIATION_VIOLATION,)
    assert arm.outcome is MoveStatus.ABORTED_BY_REFLEX


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
@pytest.mark.parametrize("where", range(6))
def test_limits_that_are_none_are_refused(arm, wrong, where):
    limits = [*WIDE, *WIDE]
    limits[where] = wrong
    assert start(arm, JOINT_POSITION, limits[:3], limits[3:]) is MoveStatus.INVALID_ARGUMENT
    assert arm.mode is RobotMode.IDLE
