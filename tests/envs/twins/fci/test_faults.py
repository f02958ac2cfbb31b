"""Every fault: provoked by an unmodified client, named by it, latched, and recovered."""

import signal

import pytest
from serl_envs.twins.fci.arm_packets import MOVE, ArmCommand

FAULTS = [
    ("controller_torque_discontinuity", ("torque_jump",), "FrankaReach-v0"),
    ("joint_velocity_violation", ("spin", 6, 6.0, 4000), "FrankaReach-v0"),
    ("joint_position_limits_violation", ("turn_to_limit", 6), "FrankaReach-v0"),
    ("joint_reflex", ("press", 1000, 8, 0.1), "FrankaReach-v0"),
    ("cartesian_reflex", ("press", 15, 1000, 0.1), "FrankaReach-v0"),
    ("joint_position_motion_generator_start_pose_invalid", ("joint_start", 0.01), "FrankaReach-v0"),
    ("joint_motion_generator_velocity_limits_violation", ("joint_velocities", 3.0, 600), "FrankaReach-v0"),
    (
        "joint_motion_generator_velocity_discontinuity",
        ("joint_positions", 1000, 1e-3, "JointImpedance"),
        "FrankaReach-v0",
    ),
    (
        "joint_motion_generator_acceleration_discontinuity",
        ("joint_positions", 1000, 1e-5, "JointImpedance"),
        "FrankaReach-v0",
    ),
    (
        "cartesian_motion_generator_acceleration_discontinuity",
        ("cartesian_poses", 0.08, 300, "JointImpedance"),
        "FrankaReach-v0",
    ),
]


@pytest.mark.parametrize(("error", "client", "task"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_fault_is_raised_named_latched_and_recovered(start_twin, error, client, task):
    twin = start_twin(task, "--mode", "lockstep")
    found = twin.client(*client)
    assert found["exception"] == "ControlException"
    assert "aborted by reflex" in found["message"]
    assert error in found["message"]
    assert found["mode"] == "Reflex"
    assert found["errors"] == found["last_errors"] == f'["{error}"]'
    assert (found["mode_after_recovery"], found["errors_after_recovery"]) == ("Idle", "[]")
    assert found["moves_again"] == 200


@pytest.mark.parametrize("silence_s", [0.04])
def test_silent_client_ends_its_motion_in_real_time(start_twin, silence_s):
    """20 packets in a row without a command: after 20 ms, not before."""
    twin = start_twin("FrankaReach-v0", "--mode", "realtime")
    found = twin.client("fall_silent", silence_s)
    assert found["exception"] == "ControlException"
    assert found["errors"] == '["communication_constraints_violation"]'
    assert found["moves_again"] == 200


def test_user_stop_ends_the_motion_and_forbids_the_next(fresh_twin):
    client = fresh_twin.start("under_user_stop")
    assert client.stdout.readline() == "ready\n"
    fresh_twin.process.send_signal(signal.SIGUSR1)
    found = fresh_twin.finish(client)
    assert "preempted due to activated safety function" in found["moving"]
    assert "safety function" in found["recovery"]
    assert "safety function" in found["again"]
    assert found["mode"] == "UserStopped"
    fresh_twin.process.send_signal(signal.SIGUSR1)
    assert fresh_twin.client("swing", 200)["ticks"] == 200


def test_move_is_refused_until_the_error_is_cleared(fresh_twin, raw_arm):
    arm = raw_arm(fresh_twin)
    assert arm.move() == b"\x01"
    assert arm.command_until_it_ends(tau_J_d=5.0) == b"\x08"
    state = arm.newest()
    assert (state["robot_mode"], state["errors"].nonzero()[0].tolist()) == (4, [32])
    assert arm.move() == b"\x05"
    assert arm.newest()["errors"].any()
    assert arm.ask(10) == b"\x00"
    state = arm.newest()
    assert (state["robot_mode"], state["errors"].any()) == (1, False)
    assert state["reflex_reason"].nonzero()[0].tolist() == [32]
    assert arm.move() == b"\x01"
    assert not arm.newest()["reflex_reason"].any()


@pytest.mark.parametrize(
    ("path", "goal", "error"),
    [(0.0, 10.0, "max_path_pose_deviation_violation"), (10.0, 0.0, "max_goal_pose_deviation_violation")],
)
def test_a_deviation_is_latched_named_and_recovered(fresh_twin, raw_arm, path, goal, error):
    """Move's limits, which the clients' libraries leave wide: set by a raw client, found by an unmodified one."""
    arm = raw_arm(fresh_twin)
    limits = [path] * 3 + [goal] * 3
    assert arm.ask(ArmCommand.MOVE, MOVE.pack(0, 0, *limits, False, *[0.0] * 7)) == b"\x01"
    ended = arm.command_until_it_ends(q_c=lambda state: state["q_d"], motion_generation_finished=path > 0)
    assert ended == b"\x08"
    arm.close()
    found = fresh_twin.client("find_stopped")
    assert found["mode"] == "Reflex"
    assert found["errors"] == found["last_errors"] == f'["{error}"]'
    assert (found["mode_after_recovery"], found["errors_after_recovery"]) == ("Idle", "[]")
    assert found["moves_again"] == 200


@pytest.mark.parametrize("field", ["tau_J_d", "q_c", "dq_c", "O_T_EE_c", "O_dP_EE_c"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_stop_the_motion(twin, raw_arm, field, value):
    """The clients' libraries refuse to send them; the arm must not depend on that."""
    arm = raw_arm(twin)
    controller, generator = {
        "tau_J_d": (2, 4), "q_c": (0, 0), "dq_c": (0, 1), "O_T_EE_c": (0, 2), "O_dP_EE_c": (1, 3),
    }[field]  # fmt: skip
    assert arm.move(controller, generator) == b"\x01"
    assert arm.command_until_it_ends(**{field: value}) == b"\x08"
    assert arm.ask(10) == b"\x00"
    arm.close()
    assert twin.client("read")["mode"] == "Idle"
