"""The twin as a robot: control on contact, gripper, faults, sanity of what it measures."""

import mujoco
import numpy as np
import pytest
from serl_envs.env import RobotEnv
from serl_envs.robot import RobotFault, Setpoint
from serl_envs.tasks.bayonet_lock import BayonetLock
from serl_envs.tasks.peg_insert import PegInsert
from serl_envs.tasks.pick_cube import PickCube
from serl_envs.tasks.reach import Reach
from serl_envs.tasks.task import DOWN, Workspace
from serl_envs.twins import loop
from serl_envs.twins.franka import FrankaTwin, SimulationDiverged
from serl_hardware.franka import fr3

AWAY = np.array([0.45, 0.25, 0.12])
"""Over bare table: the cube is where its task builds it, at (0.5, 0)."""


@pytest.fixture(scope="module")
def twin():
    return FrankaTwin(PickCube())


@pytest.fixture
def robot(twin):
    twin.reset(AWAY, DOWN, 0.08)
    return twin


def _hold(robot, position, steps, width=0.08, quaternion=DOWN):
    for _ in range(steps):
        robot.command(Setpoint(np.asarray(position), np.asarray(quaternion), width), 0.1)
    return robot.observe()


def test_reset_brings_the_tcp_there_at_rest(robot):
    state = robot.observe()
    assert np.abs(state.position - AWAY).max() < 1e-5
    assert np.abs(state.twist).max() == 0.0
    assert state.gripper_width == pytest.approx(0.08)
    assert state.fault is None


def test_compiled_jacobian_and_mass_are_mujocos_own(robot):
    state = _hold(robot, AWAY + np.array([0.03, 0.02, 0.05]), 3)
    model, data = robot.model, robot.data
    linear, angular, mass = np.zeros((3, model.nv)), np.zeros((3, model.nv)), np.zeros((model.nv, model.nv))
    mujoco.mj_jacSite(model, data, linear, angular, model.site("tcp").id)
    mujoco.mj_fullM(model, data, mass)
    jacobian, small = np.empty((6, 7)), np.empty((7, 7))
    loop._read_jacobian(robot._views, jacobian)
    loop._read_mass(robot._views, small)
    assert np.abs(jacobian - np.vstack([linear, angular])[:, :7]).max() < 1e-12
    assert np.array_equal(small, mass[:7, :7])
    assert np.abs(state.twist - jacobian @ state.dq).max() < 1e-12


def test_tracks_a_setpoint_in_free_space(robot):
    goal = AWAY + np.array([0.04, -0.03, 0.06])
    state = _hold(robot, goal, 15)
    assert np.abs(state.position - goal).max() < 0.003  # what joint friction leaves
    assert np.abs(state.twist[:3]).max() < 0.005


def test_force_into_the_table_is_bounded_by_clip_times_stiffness(robot):
    class PushAnywhere(PickCube):
        workspace = Workspace((0.0, -1.0, -1.0), (1.0, 1.0, 1.0), tilt_rad=1.0, turn_rad=1.0)

        def reset(self, robot, rng):
            robot.reset(AWAY, DOWN, 0.0)

    env = RobotEnv(robot, PushAnywhere())
    env.reset(seed=0)
    bound = PickCube.max_force_n
    pushes = []
    for _ in range(40):
        observation, *_ = env.step(np.array([0, 0, 1, 0, 0, 0, 1], np.float32))
        pushes.append((_table_force(robot), -observation["wrench"][2]))
    contact, estimate = np.array(pushes[-20:]).T
    assert contact.max() <= 1.1 * bound
    assert contact.min() >= 0.7 * bound  # it does push
    # the wrench observation feels what the table feels, within joint friction
    assert np.abs(contact - estimate).max() < 4.0


def _table_force(robot):
    model, data = robot.model, robot.data
    hand = {model.body(name).id for name in ("hand", "finger_left", "finger_right")}
    total, force = 0.0, np.zeros(6)
    for i, contact in enumerate(data.contact):
        if {int(model.geom_bodyid[geom]) for geom in contact.geom} & hand:
            mujoco.mj_contactForce(model, data, i, force)
            total += force[0] * abs(contact.frame[2])
    return total


def test_gripper_speed_force_and_not_waiting(robot):
    _hold(robot, AWAY, 1, width=0.0)
    assert robot.observe().gripper_width == pytest.approx(0.06, abs=0.004)  # 2 x 0.1 m/s x 0.1 s less a lag
    state = _hold(robot, AWAY, 5, width=0.0)
    assert state.gripper_width < 0.002
    assert abs(robot.data.actuator_force[7]) <= fr3().finger_max_force
    assert _hold(robot, AWAY, 6, width=0.08).gripper_width > 0.078


def test_grasp_holds_by_friction_and_lets_go(robot):
    robot.reset(np.array([0.5, 0.0, 0.02]), DOWN, 0.08)
    _hold(robot, [0.5, 0.0, 0.02], 4, width=0.0)
    assert robot.scene.held("cube")
    for height in np.linspace(0.02, 0.2, 12):
        _hold(robot, [0.5, 0.0, height], 1, width=0.0)
    _hold(robot, [0.5, 0.0, 0.2], 20, width=0.0)  # two seconds in the air: no creep
    assert robot.scene.pose("cube")[0][2] == pytest.approx(robot.observe().position[2], abs=0.003)
    # the payload's weight is not compensated, so it is felt
    assert robot.observe().wrench[2] == pytest.approx(-0.08 * 9.81, abs=1.5)
    _hold(robot, [0.5, 0.0, 0.2], 8, width=0.08)
    assert not robot.scene.held("cube")
    assert robot.scene.pose("cube")[0][2] < 0.06


def test_fault_latches_until_recover(robot):
    robot._control_state.fault[0] = 0
    robot.data.qvel[6] = 1.2 * fr3().max_velocity[6]
    mujoco.mj_step1(robot.model, robot.data)
    _hold(robot, AWAY, 1)
    assert robot.observe().fault == "joint_velocity"
    with pytest.raises(RobotFault, match="joint_velocity"):
        _hold(robot, AWAY, 1)
    robot.data.qvel[:] = 0.0
    mujoco.mj_step1(robot.model, robot.data)
    robot.recover("test")
    _hold(robot, AWAY, 1)
    assert robot.observe().fault is None


def test_a_fault_truncates_the_episode_and_reset_clears_it():
    env = RobotEnv(FrankaTwin(PickCube()), PickCube())
    env.reset(seed=0)
    env.robot.data.qvel[6] = 1.2 * fr3().max_velocity[6]
    mujoco.mj_step1(env.robot.model, env.robot.data)
    _, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["fault"] == "joint_velocity"
    env.reset()
    assert "fault" not in env.step(np.zeros(7, np.float32))[4]


def test_setpoint_that_is_not_finite_moves_nothing(robot):
    before = robot.data.qpos.copy()
    with pytest.raises(RobotFault, match="not finite"):
        robot.command(Setpoint(np.array([np.nan, 0, 0.2]), DOWN, 0.08), 0.1)
    assert np.array_equal(before, robot.data.qpos)


def test_out_of_reach_is_an_error(robot):
    with pytest.raises(RobotFault, match="no joint position reaches"):
        robot.reset(np.array([1.5, 0.0, 0.2]), DOWN, 0.08)


def test_diverged_physics_is_named_and_the_last_state_kept(robot):
    robot.data.qvel[9] = np.nan  # the cube's
    with pytest.raises(SimulationDiverged, match=r"\.npz") as caught:
        _hold(robot, AWAY, 1)
    path = str(caught.value).split(" is in ")[1].split(";")[0]
    with np.load(path) as dump:
        assert dump["qpos"].shape == robot.data.qpos.shape
    robot.reset(AWAY, DOWN, 0.08)
    assert np.isfinite(_hold(robot, AWAY, 1).position).all()


@pytest.mark.parametrize("task_class", [Reach, PickCube, PegInsert, BayonetLock])
def test_full_actions_in_any_direction_raise_no_fault(task_class):
    """A policy that explores at full amplitude stays inside the arm's limits: faults are for what is wrong."""
    env = RobotEnv(FrankaTwin(task_class()), task_class())
    rng = np.random.default_rng(0)
    for episode in range(4):
        env.reset(seed=episode)
        direction = rng.choice([-1.0, 1.0], 7)
        truncated = terminated = False
        steps = 0
        while not (truncated or terminated):
            _, _, terminated, truncated, info = env.step(direction.astype(np.float32))
            assert "fault" not in info, (info, steps, direction)
            steps += 1
