"""The MuJoCo model against an independent rigid-body library built from the same figures, and the data sheet."""

import mujoco
import numpy as np
import pytest
from serl_hardware.franka import fr3
from serl_hardware.franka.model import ARM_JOINTS, FINGER_JOINTS, TCP_SITE, add_franka, save_mjcf

pin = pytest.importorskip("pinocchio")

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def twin():
    spec = mujoco.MjSpec()
    add_franka(spec)
    model = spec.compile()
    return model, mujoco.MjData(model)


def _inertia(body):
    ixx, iyy, izz, ixy, ixz, iyz = body.inertia
    return pin.Inertia(body.mass, body.com, np.array([[ixx, ixy, ixz], [ixy, iyy, iyz], [ixz, iyz, izz]]))


def _finger(mass):
    # the model's own assumption about a finger: the figures give its mass only
    return pin.Inertia(mass, np.array([0.0, 0.0125, 0.027]), 0.5 * mass * 1e-4 * np.eye(3))


@pytest.fixture(scope="module")
def reference():
    """The arm in pinocchio: seven revolute joints about z, the hand fixed to the last, two prismatic fingers."""
    figures, model = fr3(), pin.Model()
    parent = 0
    for i, name in enumerate(ARM_JOINTS):
        placement = pin.SE3(pin.rpy.rpyToMatrix(*figures.joint_rpy[i]), figures.joint_xyz[i].copy())
        parent = model.addJoint(parent, pin.JointModelRZ(), placement, name)
        model.appendBodyToJoint(parent, _inertia(figures.links[i + 1]), pin.SE3.Identity())
    hand = pin.SE3(np.eye(3), figures.flange_xyz.copy()) * pin.SE3(
        pin.rpy.rpyToMatrix(*figures.hand_rpy), np.zeros(3)
    )
    model.appendBodyToJoint(parent, _inertia(figures.hand), hand)
    for name, yaw in zip(FINGER_JOINTS, (0.0, np.pi), strict=True):
        origin = pin.SE3(pin.rpy.rpyToMatrix(0.0, 0.0, yaw), np.array([0.0, 0.0, figures.finger_origin_z]))
        finger = model.addJoint(parent, pin.JointModelPY(), hand * origin, name)
        model.appendBodyToJoint(finger, _finger(figures.finger_mass), pin.SE3.Identity())
    tcp = hand * pin.SE3(np.eye(3), figures.tcp_xyz.copy())
    model.addFrame(pin.Frame("tcp", parent, 0, tcp, pin.FrameType.OP_FRAME))
    return model, model.createData()


@pytest.fixture(scope="module")
def states():
    figures, rng = fr3(), np.random.default_rng(0)
    out = []
    for _ in range(200):
        q = np.concatenate(
            [rng.uniform(figures.q_min, figures.q_max), rng.uniform(*figures.finger_travel, 2)]
        )
        out.append(
            (q, np.concatenate([rng.uniform(-1, 1, 7) * figures.max_velocity, rng.uniform(-0.1, 0.1, 2)]))
        )
    return out


def _forward(twin, q, v):
    model, data = twin
    data.qpos[:], data.qvel[:] = q, v
    mujoco.mj_forward(model, data)
    return model, data


def test_mass_matrix_agrees_with_an_independent_library(twin, reference, states):
    for q, v in states:
        model, data = _forward(twin, q, v)
        mass = np.zeros((9, 9))
        mujoco.mj_fullM(model, data, mass)
        expected = pin.crba(*reference, q)
        expected = np.triu(expected) + np.triu(expected, 1).T
        # rotor armature is not part of the published rigid bodies
        assert np.abs(mass - np.diag(model.dof_armature) - expected).max() <= TOLERANCE


def test_coriolis_and_gravity_agree_with_an_independent_library(twin, reference, states):
    for q, v in states:
        _, data = _forward(twin, q, v)
        gravity = pin.computeGeneralizedGravity(*reference, q)
        coriolis = pin.rnea(*reference, q, v, np.zeros(9)) - gravity
        bias = data.qfrc_bias.copy()
        assert np.abs(bias - coriolis - gravity).max() <= TOLERANCE
        # the arm compensates its own weight, exactly
        assert np.abs(data.qfrc_gravcomp - gravity).max() <= TOLERANCE


def test_tcp_jacobian_agrees_with_an_independent_library(twin, reference, states):
    model, data = reference
    frame = model.getFrameId("tcp")
    for q, v in states:
        mj_model, mj_data = _forward(twin, q, v)
        linear, angular = np.zeros((3, 9)), np.zeros((3, 9))
        mujoco.mj_jacSite(mj_model, mj_data, linear, angular, mj_model.site(TCP_SITE).id)
        expected = pin.computeFrameJacobian(model, data, q, frame, pin.LOCAL_WORLD_ALIGNED)
        assert np.abs(np.vstack([linear, angular]) - expected).max() <= TOLERANCE
        pin.framesForwardKinematics(model, data, q)
        assert np.abs(mj_data.site(TCP_SITE).xpos - data.oMf[frame].translation).max() <= TOLERANCE


def test_model_carries_the_published_limits(twin):
    model, _ = twin
    figures = fr3()
    assert np.array_equal(model.jnt_range[:7], np.column_stack([figures.q_min, figures.q_max]))
    assert np.array_equal(model.actuator_forcerange[:7, 1], figures.max_torque)
    assert np.array_equal(model.dof_frictionloss[:7], figures.friction)
    assert np.array_equal(model.jnt_range[7:9], np.tile(figures.finger_travel, (2, 1)))
    assert model.actuator_forcerange[7, 1] == figures.finger_max_force


def test_arm_floats_where_it_is_left(twin):
    model, data = _forward(twin, np.concatenate([fr3().q_ready, [0.02, 0.02]]), np.zeros(9))
    data.ctrl[7] = 0.04
    for _ in range(500):
        mujoco.mj_step(model, data)
    assert np.abs(data.qpos[:7] - fr3().q_ready).max() < 1e-4


def test_fingers_are_geared_together(twin):
    model, data = _forward(twin, np.concatenate([fr3().q_ready, [0.02, 0.02]]), np.zeros(9))
    data.ctrl[7] = 0.04
    data.qfrc_applied[7] = 20.0
    for _ in range(500):
        mujoco.mj_step(model, data)
    data.qfrc_applied[7] = 0.0
    assert abs(data.qpos[7] - data.qpos[8]) < 0.001


def test_figures_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        fr3().max_torque[0] = 1000.0


def test_saved_mjcf_is_the_same_arm(twin, tmp_path):
    path = tmp_path / "fr3.xml"
    save_mjcf(path)
    loaded = mujoco.MjModel.from_xml_path(str(path))
    model, _ = twin
    assert loaded.nq == model.nq
    assert np.allclose(loaded.body_mass, model.body_mass)
    assert np.allclose(loaded.jnt_range, model.jnt_range)
