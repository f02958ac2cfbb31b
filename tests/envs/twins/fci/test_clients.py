"""Unmodified pylibfranka against a twin in lockstep: it connects, reads, computes, sets and moves."""

import numpy as np
import pytest
from serl_envs.tasks.reach import Reach
from serl_envs.twins.fci.kinematics import frame_jacobian, frame_pose, tool_inertia
from serl_envs.twins.fci.plant import Plant
from serl_envs.twins.fci.settings import Settings
from serl_hardware.franka import fr3

TOLERANCE = 1e-9


def test_reads_the_arm_where_the_task_starts(twin):
    plant = Plant(Reach(), 0)
    state = twin.client("read")
    assert state["mode"] == "Idle"
    assert np.allclose(state["q"], plant.q, atol=1e-4)  # as it has settled since
    pose = np.array(state["O_T_EE"]).reshape(4, 4).T
    assert np.allclose(pose[:3, 3], plant.data.site("tcp").xpos, atol=1e-4)
    assert np.allclose(pose[:3, :3], plant.data.site("tcp").xmat.reshape(3, 3), atol=1e-4)


def test_the_clients_model_is_the_twins(twin, tmp_path):
    """Mass, Coriolis, gravity and Jacobian over random states, to 1e-9; the rotors' inertia only the plant knows."""
    import mujoco

    plant, rng = Plant(Reach(), 0), np.random.default_rng(0)
    arm, tool = fr3(), Settings().flange_to_tool
    q = rng.uniform(arm.q_min, arm.q_max, (100, 7))
    dq = rng.uniform(-1, 1, (100, 7)) * arm.max_velocity
    mass, com, inertia = tool_inertia(plant.model, plant.data)
    states, found = tmp_path / "states.npz", tmp_path / "found.npz"
    np.savez(states, q=q, dq=dq, mass=mass, com=com, inertia=inertia, tool=tool)
    twin.client("model", states, found)
    with np.load(found) as theirs:
        for i in range(len(q)):
            plant.q[:], plant.dq[:] = q[i], dq[i]
            plant.data.qvel[7:] = 0.0
            mujoco.mj_step1(plant.model, plant.data)
            plant.look()
            rigid = plant.mass - np.eye(7) * arm.armature
            jacobian = frame_jacobian(plant.data, frame_pose(plant.model, plant.data, tool)[:3, 3])
            for name, ours in (
                ("M", rigid),
                ("c", plant.coriolis),
                ("g", plant.gravity),
                ("J", jacobian),
            ):
                assert np.abs(theirs[name][i] - ours).max() <= TOLERANCE, (name, i)


def test_ten_seconds_of_torque_control_without_a_lost_packet(twin):
    found = twin.client("swing", 10_000)
    assert found["ticks"] == 10_000
    assert found["irregular"] == 0
    assert found["success_rate"] == 1.0
    assert found["travelled"] > 0.05
    assert twin.client("read")["mode"] == "Idle"


def test_settings_are_taken_and_wrong_ones_refused(fresh_twin):
    found = fresh_twin.client("setters")
    assert np.allclose(np.array(found["NE_T_EE"])[12:15], [0.01, 0.02, 0.05])
    assert found["m_load"] == 0.5
    assert found["m_total"] == pytest.approx(0.5 + 0.76)
    assert len(found["refused"]) == 3
    for message in found["refused"].values():
        assert "invalid argument" in message


def test_a_client_that_changes_its_mind(twin):
    assert twin.client("stop_half_way") == {"mode": "Idle", "again": 100}


@pytest.mark.parametrize(
    ("controller", "tolerance"), [("JointImpedance", 5e-4), ("CartesianImpedance", 3e-3)]
)
def test_joint_positions(twin, controller, tolerance):
    found = twin.client("joint_positions", 1500, 0, controller)
    assert found["exception"] is None
    assert np.allclose(found["half_way"], 0.1, atol=tolerance)
    assert found["tracking_error"] < tolerance
    assert found["return_error"] < 5e-4


def test_joint_velocities(twin):
    found = twin.client("joint_velocities", 0.3, 200)
    assert found["exception"] is None
    expected = np.zeros(7)
    expected[[0, 6]] = found["expected"]
    assert np.allclose(found["travelled"], expected, atol=1e-3)


@pytest.mark.parametrize("controller", ["JointImpedance", "CartesianImpedance"])
def test_cartesian_poses(fresh_twin, controller):
    found = fresh_twin.client("cartesian_poses", 0.08, 2000, controller)
    assert found["exception"] is None
    assert np.allclose(found["half_way"], [0, 0.08, 0], atol=1e-3)
    assert found["return_error"] < 5e-4


def test_cartesian_velocities(fresh_twin):
    found = fresh_twin.client("cartesian_velocities", 0.1, 1500)
    assert found["exception"] is None
    assert np.allclose(found["travelled"], [0, 0, found["expected"]], atol=1e-3)


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_asynchronous_positions_are_the_arms_own_motion(start_twin, mode):
    found = start_twin("FrankaReach-v0", "--mode", mode).client("planned_positions", 0.2)
    assert found["error"] is None
    assert np.allclose(found["ended"], -0.2, atol=2e-3)
    assert 0.4 < found["fastest"] < 0.55
    assert (found["mode"], found["again"]) == ("Idle", 100)
