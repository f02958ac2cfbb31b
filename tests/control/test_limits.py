"""Walls, caps, saturation and target shaping, each for itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serl_suite.control.limits import (
    add_joint_walls,
    add_velocity_walls,
    cap_torque,
    clip_to_box,
    leaves_box,
    saturate_torque_rate,
)
from serl_suite.control.shaping import follow_position, follow_quaternion, ramped_down

seven = arrays(np.float64, 7, elements=st.floats(-100.0, 100.0))
properties = settings(deadline=None)


def test_joint_walls_push_inward_and_only_there(limits):
    lower, upper = limits.lower, limits.upper
    for sign, edge in ((1.0, lower), (-1.0, upper)):
        tau = np.zeros(7)
        assert not add_joint_walls(edge + sign * 0.05, np.zeros(7), lower, upper, 0.2, 50.0, tau)
        np.testing.assert_allclose(tau, sign * 50.0 * 0.15)
    tau = np.zeros(7)
    add_joint_walls(0.5 * (lower + upper), np.ones(7), lower, upper, 0.2, 50.0, tau)
    np.testing.assert_array_equal(tau, 0.0)


def test_a_joint_beyond_its_range_is_a_violation_only_on_the_way_out(limits):
    q = 0.5 * (limits.lower + limits.upper)
    q[3] = limits.upper[3] + 0.01
    for speed, broken in ((0.1, True), (0.0, False), (-0.1, False)):
        dq = np.zeros(7)
        dq[3] = speed
        assert add_joint_walls(q, dq, limits.lower, limits.upper, 0.2, 50.0, np.zeros(7)) == broken


def test_velocity_walls_brake_and_report(limits):
    dq = np.zeros(7)
    dq[1], dq[4] = -(limits.max_velocity[1] - 0.25), limits.max_velocity[4] - 0.6
    tau = np.zeros(7)
    assert not add_velocity_walls(dq, limits.max_velocity, 0.5, np.full(7, 20.0), tau)
    np.testing.assert_allclose(tau, [0, 5.0, 0, 0, 0, 0, 0])
    dq[1] = -limits.max_velocity[1] - 0.01
    assert add_velocity_walls(dq, limits.max_velocity, 0.5, np.full(7, 20.0), tau)


def test_leaving_the_box_is_a_violation_only_on_the_way_out():
    lower, upper = np.zeros(3), np.ones(3)
    outside = np.array([0.5, 1.06, 0.5])
    assert leaves_box(outside, np.array([0.0, 0.1, 0.0]), lower, upper, 0.05)
    assert not leaves_box(outside, np.array([0.1, -0.1, 0.0]), lower, upper, 0.05)
    assert not leaves_box(np.array([0.5, 1.04, 0.5]), np.array([0.0, 0.1, 0.0]), lower, upper, 0.05)
    np.testing.assert_array_equal(clip_to_box(outside, lower, upper), [0.5, 1.0, 0.5])


@properties
@given(seven, seven)
def test_rate_saturation_against_the_echo(wanted, echoed):
    out = np.empty(7)
    saturate_torque_rate(wanted, echoed, 1.0, out)
    assert np.all(np.abs(out - echoed) <= 1.0 + 1e-12)
    near = np.abs(wanted - echoed) < 1.0
    np.testing.assert_array_equal(out[near], wanted[near])  # to the bit
    assert np.all((out - echoed) * (wanted - echoed) >= 0.0)


@properties
@given(seven)
def test_caps(tau):
    capped = tau.copy()
    cap_torque(capped, np.full(7, 12.0))
    np.testing.assert_array_equal(capped, np.clip(tau, -12.0, 12.0))


def test_the_filter_has_its_time_constant():
    target, blend = np.zeros(3), -np.expm1(-1e-3 / 0.05)
    for _ in range(50):
        follow_position(target, np.array([0.1, 0.0, 0.0]), blend, np.inf)
    assert target[0] == pytest.approx(0.1 * (1 - np.exp(-1.0)), rel=1e-9)


def test_targets_move_no_faster_than_their_cap_and_pass_through_exactly_without_one():
    target, wanted = np.zeros(3), np.array([0.3, -0.1, 0.2])
    assert follow_position(target, wanted, 1.0, 1e-3) == pytest.approx(1e-3)
    assert np.linalg.norm(target) == pytest.approx(1e-3)
    np.testing.assert_allclose(np.cross(target, wanted), 0.0, atol=1e-18)  # along the straight line
    follow_position(target, wanted, 1.0, np.inf)
    np.testing.assert_array_equal(target, wanted)

    quaternion, turned = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.6, 0.0, 0.0, 0.8])
    assert follow_quaternion(quaternion, -turned, 1.0, 2.5e-3) == pytest.approx(2.5e-3)
    assert 2.0 * np.arcsin(np.linalg.norm(quaternion[:3])) == pytest.approx(2.5e-3)


def test_speed_ramps_to_zero_and_not_below():
    assert ramped_down(1.0, 5.0, 0.1) == 0.5
    assert ramped_down(0.2, 5.0, 0.1) == 0.0
