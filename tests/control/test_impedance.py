"""The impedance law: bounded, passive, critically damped; its nullspace leaves the task alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serl_suite.control.impedance import impedance_wrench, nullspace_torque, pose_error, task_damping
from serl_suite.control.rotations import quaternion_from_rotation_vector, quaternion_multiply

K = np.array([500.0, 800.0, 2000.0, 50.0, 50.0, 50.0])
LOWER = np.array([-0.01, -0.02, -0.0016, -0.05, -0.02, -0.1])
UPPER = np.array([0.03, 0.0, 0.01, 0.05, 0.1, 0.02])
IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])
properties = settings(deadline=None)


def spring(position, quaternion, lower=LOWER, upper=UPPER, stiffness=K):
    error = pose_error(position, quaternion, np.zeros(3), IDENTITY)
    return impedance_wrench(error, np.zeros(6), stiffness, np.zeros((6, 6)), lower, upper)


@properties
@given(arrays(np.float64, 3, elements=st.floats(-2, 2)), arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_force_never_exceeds_clip_times_stiffness(position, turn):
    wrench = spring(position, quaternion_from_rotation_vector(turn))
    assert np.all(wrench <= -K * LOWER)
    assert np.all(wrench >= -K * UPPER)


def test_force_is_the_spring_inside_the_clip_and_pulls_to_the_target():
    wrench = spring(np.array([0.02, -0.015, -0.001]), quaternion_from_rotation_vector(np.array([0.03, 0, 0])))
    np.testing.assert_allclose(wrench, [-10.0, 12.0, 2.0, -1.5, 0.0, 0.0], atol=1e-12)


@properties
@given(arrays(np.float64, (4, 3), elements=st.floats(-0.1, 0.1)))
def test_the_clipped_spring_does_no_work_around_a_closed_path(corners):
    """Translation, asymmetric clips, any polygon: the force is the gradient of a Huber potential."""
    work = 0.0
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        fractions = (np.arange(400) + 0.5) / 400
        for fraction in fractions:
            force = spring(start + fraction * (end - start), IDENTITY)[:3]
            work += force @ (end - start) / 400
    assert abs(work) < 2e-3  # midpoint rule across the kinks; the legs themselves do joules


def test_a_turn_out_and_back_another_way_does_no_work_while_the_clip_is_open():
    open_clip = np.full(6, 4.0)
    work, q = 0.0, IDENTITY
    rates = np.array([[0.8, 0, 0], [0, 0.7, 0.2], [-0.5, 0.3, 0.4]])
    for rate in rates:
        for _ in range(2000):
            half = quaternion_multiply(quaternion_from_rotation_vector(rate / 4000), q)
            work += spring(np.zeros(3), half, -open_clip, open_clip)[3:] @ rate / 2000
            q = quaternion_multiply(quaternion_from_rotation_vector(rate / 2000), q)
    angle = pose_error(np.zeros(3), q, np.zeros(3), IDENTITY)[3:]
    assert work == pytest.approx(-0.5 * 50.0 * angle @ angle, abs=1e-5)  # by the end state alone


def test_opposite_signs_of_the_target_quaternion_mean_the_same():
    q = quaternion_from_rotation_vector(np.array([0.0, 0.04, 0.0]))
    error = pose_error(np.zeros(3), q, np.zeros(3), IDENTITY)
    np.testing.assert_array_equal(error, pose_error(np.zeros(3), -q, np.zeros(3), IDENTITY))
    np.testing.assert_array_equal(error, pose_error(np.zeros(3), q, np.zeros(3), -IDENTITY))


@pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0])
def test_every_mode_of_the_arm_has_the_damping_ratio_asked_for(arm, ratio):
    rng = np.random.default_rng(0)
    for _ in range(20):
        arm.q = arm.q + rng.normal(size=7) * 0.2
        _, _, jacobian, mass = arm.measure()
        mass_inverse = np.linalg.inv(mass)
        mobility = jacobian @ mass_inverse @ jacobian.T
        damping, fastest = task_damping(K, ratio, jacobian, mass_inverse)
        assert fastest == pytest.approx(np.linalg.eigvals(mobility @ np.diag(K)).real.max(), rel=1e-6)
        system = np.block([[np.zeros((6, 6)), np.eye(6)], [-mobility @ np.diag(K), -mobility @ damping]])
        modes = np.linalg.eigvals(system)
        np.testing.assert_allclose(-modes.real / np.abs(modes), ratio, rtol=2e-2)


def test_damping_of_one_mass_is_two_zeta_sqrt_k_m():
    """Seven unit joints of 4 kg, six of which move one axis each: D = 2 zeta sqrt(K m) on the diagonal."""
    damping, fastest = task_damping(K, 0.9, np.eye(6, 7), np.eye(7) / 4.0)
    assert fastest == pytest.approx(K.max() / 4.0)
    np.testing.assert_allclose(damping, np.diag(1.8 * np.sqrt(4.0 * K)), atol=1e-9)


def test_damping_takes_energy_in_every_direction_and_stays_bounded_at_a_singularity(arm):
    for q in (arm.q, np.zeros(7), np.array([0, 0, 0, -0.15, 0, 0.55, 0])):  # the last two: stretched out
        arm.q = q
        _, _, jacobian, mass = arm.measure()
        damping, _ = task_damping(K, 1.0, jacobian, np.linalg.inv(mass))
        np.testing.assert_array_equal(damping, damping.T)
        assert np.linalg.eigvalsh(damping).min() >= 0.0
        assert np.abs(damping).max() <= 2.0 * K.max()


@properties
@given(arrays(np.float64, 7, elements=st.floats(-1, 1)), arrays(np.float64, 7, elements=st.floats(-1, 1)))
def test_the_nullspace_does_not_push_the_tool_and_its_damping_only_takes(make_arm, q, dq):
    arm = make_arm()
    _, _, jacobian, _ = arm.measure()
    torque = nullspace_torque(q, np.zeros(7), np.zeros(7), jacobian, 10.0, 0.0)
    # force at the tool that this torque would need to be held by, in equilibrium
    np.testing.assert_allclose(np.linalg.pinv(jacobian.T) @ torque, 0.0, atol=1e-9)
    for near_singular in (jacobian, jacobian * np.array([[1], [1], [1], [1], [1], [1e-6]])):
        brake = nullspace_torque(np.zeros(7), dq, np.zeros(7), near_singular, 10.0, 0.02)
        assert brake @ dq <= 1e-12


def test_the_nullspace_draws_to_the_posture(arm):
    _, _, jacobian, _ = arm.measure()
    null = np.linalg.svd(jacobian)[2][6]
    torque = nullspace_torque(arm.q + 0.3 * null, np.zeros(7), arm.q, jacobian, 10.0, 1e-4)
    np.testing.assert_allclose(torque, -3.0 * null, atol=1e-4)
