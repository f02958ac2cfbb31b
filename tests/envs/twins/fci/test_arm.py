"""The arm without a network: what it estimates, compensates and does with its torques. Time is what the test says."""

import numpy as np
import pytest
from serl_envs.tasks.reach import Reach
from serl_envs.twins.fci.arm_packets import MOVE, ArmCommand, Error, MoveStatus, RobotMode, Status
from serl_envs.twins.fci.build import make_arm
from serl_envs.twins.fci.command import Command
from serl_envs.twins.fci.faults import MAX_LOST, measured_error, torque_error
from serl_envs.twins.fci.impairment import Impairment, Network
from serl_envs.twins.fci.state_log import StateLog
from serl_hardware.franka import fr3
from serl_hardware.franka.urdf import velocity_limits

TORQUE, JOINT_POSITION, CARTESIAN_POSE = (2, 4), (0, 0), (0, 2)


@pytest.fixture
def arm():
    return make_arm(Reach())


def _start(arm, mode=TORQUE):
    status = arm.start_move(MOVE.pack(*mode, *[10.0] * 6, False, *[0.0] * 7))
    assert status is MoveStatus.STARTED


def _command(arm, **fields):
    number = int(arm.telemetry.packet["message_id"])
    blank = {"q": np.zeros(7), "dq": np.zeros(7), "pose": np.eye(4), "twist": np.zeros(6), "tau": np.zeros(7)}
    return Command(**(blank | {"message_id": number, "elbow": None, "finished": False} | fields))


def _deaf(arm):
    """Nothing counts as a collision."""
    assert arm.set_up(ArmCommand.SET_COLLISION_BEHAVIOR, np.full(52, 1e6).tobytes()) is Status.SUCCESS


def test_observer_finds_a_push_that_only_the_physics_knows(arm):
    """A force on the hand shows as an external wrench and as joint torques, with a time constant of 20 ms."""
    _deaf(arm)
    arm.settings.joint_stiffness = np.full(7, 8000.0)
    push = np.array([3.0, -8.0, -12.0])
    model, data = arm.plant.model, arm.plant.data
    hand = model.body("hand").id
    at_tcp = data.site("tcp").xpos - data.xipos[hand]
    for tick in range(400):
        data.xfrc_applied[hand] = [*push, *np.cross(at_tcp, push)]
        arm.tick(None)
        if tick == 20:
            early = arm.telemetry.packet["O_F_ext_hat_K"].copy()
    wrench = arm.telemetry.packet["O_F_ext_hat_K"]
    assert np.allclose(wrench[:3], -push, atol=0.6)  # what the arm exerts; joint friction is felt as well
    assert np.abs(wrench[3:]).max() < 0.4
    assert 0.4 * np.linalg.norm(push) < np.linalg.norm(early[:3]) < 0.9 * np.linalg.norm(push)
    turn = arm.telemetry.packet["O_T_EE"].reshape(4, 4).T[:3, :3]
    assert np.allclose(arm.telemetry.packet["K_F_ext_hat_K"][:3], turn.T @ wrench[:3], atol=1e-4)


def test_observer_is_blind_to_the_arms_own_motion(arm):
    """Swinging freely and fast, it estimates what friction there is and no more."""
    _deaf(arm)
    _start(arm)
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(1500):
        wanted = rng.uniform(-1, 1, 7) * [20, 20, 20, 20, 4, 4, 4] - 4 * arm.plant.dq
        arm.tick(_command(arm, tau=arm.tau + np.clip(wanted - arm.tau, -1, 1)))
        worst = max(worst, np.abs(arm.external_estimate).max())
    assert arm.in_motion
    assert np.abs(arm.plant.dq).max() > 0.3
    assert worst < fr3().friction.max() + 0.05


def test_a_declared_load_is_held_and_not_felt(arm):
    mass, data = 1.5, arm.plant.data
    hand = arm.plant.model.body("hand").id
    link = data.body("link7")
    com = link.xmat.reshape(3, 3).T @ (data.xipos[hand] - link.xpos) - fr3().flange_xyz
    data.xfrc_applied[hand, 2] = -mass * 9.81
    for _ in range(300):
        arm.tick(None)
    assert arm.telemetry.packet["O_F_ext_hat_K"][2] == pytest.approx(mass * 9.81, abs=0.7)
    load = np.concatenate([[mass], com, np.zeros(9)])
    assert arm.set_up(ArmCommand.SET_LOAD, load.tobytes()) is Status.SUCCESS
    for _ in range(600):
        arm.tick(None)
    assert np.abs(arm.telemetry.packet["O_F_ext_hat_K"][:3]).max() < 0.7


@pytest.mark.parametrize("rk4", [False, True])
def test_the_log_balances_the_books(rk4):
    """Kinetic energy is what motors and surroundings put in. The final velocity's work, instead of the mean one's,
    would be off by a third in the same run, with Euler's integration."""
    arm = make_arm(Reach(), rk4=rk4)
    _deaf(arm)
    log = StateLog(arm)
    _start(arm)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        wanted = rng.uniform(-1, 1, 7) * [20, 20, 20, 20, 4, 4, 4] - 6 * arm.plant.dq
        arm.tick(_command(arm, tau=arm.tau + np.clip(wanted - arm.tau, -1, 1)))
        log.add()
    rows = log.rows()
    assert arm.in_motion
    change = rows["kinetic_energy"] - rows["kinetic_energy"][0]
    done = sum(rows[name] - rows[name][0] for name in ("work", "work_external"))
    residue = np.abs(change - done).max()
    assert rows["kinetic_energy"].max() > 0.05
    assert residue < 0.01 * rows["work"][-1]
    encoders = (rows["tau"][1:] * np.diff(rows["q"], axis=0)).sum()
    off = abs(encoders - (rows["work"][-1] - rows["work"][0])) / rows["work"][-1]
    assert off < 0.005 if rk4 else off > 0.1


def test_lost_torques_are_held_and_twenty_end_the_motion(arm):
    _start(arm)
    tau = np.full(7, 0.3)
    arm.tick(_command(arm, tau=tau))
    for lost in range(1, MAX_LOST):
        arm.tick(None)
        assert arm.in_motion, lost
        assert np.array_equal(arm.motor_torque, tau)
    arm.tick(None)
    assert (arm.mode, arm.errors) == (RobotMode.REFLEX, (Error.COMMUNICATION_CONSTRAINTS_VIOLATION,))
    assert arm.outcome is MoveStatus.ABORTED_BY_REFLEX


def test_nothing_is_lost_before_the_first_command(arm):
    _start(arm)
    for _ in range(10 * MAX_LOST):
        arm.tick(None)
    assert arm.awaits_first_command
    assert np.abs(arm.plant.dq).max() < 1e-3


def test_lost_positions_are_continued(arm):
    """A swing with every third packet missing ends where it should, without a fault."""
    _start(arm, JOINT_POSITION)
    start = arm.telemetry.packet["q_d"].astype(float)
    for i in range(1500):
        q = start + 0.2 * (1 - np.cos(2 * np.pi * i / 1500)) / 2
        arm.tick(None if i % 3 == 1 else _command(arm, q=q))
        assert arm.in_motion, (i, arm.errors)
        if i == 750:
            assert np.allclose(arm.plant.q - start, 0.2, atol=1e-3)
    assert np.allclose(arm.plant.q, start, atol=1e-3)


def test_a_late_position_is_no_step_back_and_a_late_torque_better_than_none(arm):
    _start(arm)
    arm.tick(_command(arm))
    late = _command(arm, tau=np.full(7, 0.5))
    arm.tick(None)
    arm.tick(late)
    assert np.array_equal(arm.tau, np.full(7, 0.5))
    arm.tick(late)  # the same again
    assert arm.is_lost
    arm.stop_move()
    for _ in range(300):
        arm.tick(None)
    _start(arm, JOINT_POSITION)
    start = arm.telemetry.packet["q_d"].astype(float)
    arm.tick(_command(arm, q=start))
    late = _command(arm, q=start)
    arm.tick(None)
    arm.tick(late)
    assert arm.is_lost


def test_recovery_leads_a_joint_back_inside(arm):
    arm.plant.q[6] = fr3().q_max[6] + 0.003
    arm.plant.data.qvel[:] = 0.0
    arm.plant.look()
    arm.tick(None)
    _deaf(arm)
    arm.recover()
    assert arm.mode is RobotMode.AUTOMATIC_ERROR_RECOVERY
    for _ in range(1000):
        arm.tick(None)
        if arm.mode is RobotMode.IDLE:
            break
    assert arm.mode is RobotMode.IDLE
    assert measured_error(arm.plant.q, arm.plant.dq) is None


def test_user_stop_over_a_reflex_leaves_the_reflex(arm):
    _start(arm)
    arm.tick(_command(arm, tau=np.full(7, 9.0)))
    assert arm.mode is RobotMode.REFLEX
    arm.press_user_stop(pressed=True)
    assert arm.mode is RobotMode.USER_STOPPED
    arm.press_user_stop(pressed=False)
    assert arm.mode is RobotMode.REFLEX


@pytest.mark.parametrize("move", [(0, 4), (3, 4), (2, 5), (2**32 - 1, 0)])
def test_senseless_modes_are_refused(arm, move):
    payload = MOVE.pack(*move, *[10.0] * 6, False, *[0.0] * 7)
    assert arm.start_move(payload) is MoveStatus.INVALID_ARGUMENT
    assert arm.mode is RobotMode.IDLE


def test_a_mirrored_or_bent_frame_is_none(arm):
    _start(arm, CARTESIAN_POSE)
    pose = arm.telemetry.packet["O_T_EE_d"].astype(float).reshape(4, 4).T
    pose[:3, 0] *= 1.01
    arm.tick(_command(arm, pose=pose))
    assert arm.errors == (Error.CARTESIAN_POSITION_MOTION_GENERATOR_INVALID_FRAME,)


def test_torque_step_is_measured_to_the_millinewton_metre():
    echoed = np.zeros(7)
    for step, error in ((1.0, None), (1.0005, None), (1.002, Error.CONTROLLER_TORQUE_DISCONTINUITY)):
        assert torque_error(np.array([0, 0, step, 0, 0, 0, 0]), echoed) is error
        assert torque_error(np.array([0, 0, 0, 0, 0, 0, -step]), echoed) is error
    assert torque_error(np.full(7, np.nan), echoed) is Error.CONTROLLER_TORQUE_DISCONTINUITY


def test_velocity_limits_close_towards_the_stops():
    arm = fr3()
    lower, upper = velocity_limits(np.zeros(7) + arm.q_ready)
    assert np.all(lower >= -arm.max_velocity)
    assert np.all(upper <= arm.max_velocity)
    lower, upper = velocity_limits(arm.q_max)
    assert np.array_equal(upper, np.zeros(7))
    assert np.allclose(lower, -arm.max_velocity, atol=1.0)
    q = arm.q_max - 0.05
    expected = np.sqrt(2 * 6.0 * 0.05) - 0.30
    assert velocity_limits(q)[1][0] == pytest.approx(expected)


def test_impairments_depend_on_their_seed_alone(arm):
    def fates(seed):
        network = Impairment(Network(loss=0.3, delay_ms=1, jitter_ms=3, seed=seed))
        out = []
        for tick in range(200):
            command = _command(arm, message_id=tick)
            due = network.passes(command, tick)
            out.append((network.loses(), None if due is None else due.message_id))
        return out

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)
    lost = np.mean([state for state, _ in fates(3)])
    assert 0.2 < lost < 0.4
    lags = [tick - number for tick, (_, number) in enumerate(fates(1)) if number is not None]
    assert min(lags) >= 1
    assert max(lags) <= 4
